"""
02 · Dense attention is the oracle
==================================

**How do you know that a kernel is right?** You need a second program, too simple to be wrong, and inputs that nobody
chose. You will see attention in three lines of NumPy, a broken kernel that passes a test, the smallest input on which
it fails, and a kernel made wrong on purpose, which tells good tests from bad ones.
"""

# %%
# Lesson 00 kept a key and a value of each token. Here is what for. A new token brings a third row of numbers, its
# :term:`query`. The :term:`score` of an earlier token says how well its key matches: query times key, summed up. The
# :term:`softmax` makes weights of the scores, with ``exp`` and a division, so that they are positive and sum to 1. The
# values, each times its weight and all summed up, are the result. This is :term:`attention`. A model does it many times
# side by side, each time with other numbers: each is a :term:`head`, and ``head_dim`` is the length of its rows.
# ``pn.reference.attention`` does it for all heads. It is :term:`dense attention`: it takes keys and values as whole
# arrays and knows nothing of blocks. It is our :term:`oracle`, the program that we believe.

import math
from functools import partial

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numba import float32

import paged_numba as pn
from paged_numba import cuda

rng = np.random.default_rng(2)
query, key, value = rng.normal(size=16), rng.normal(size=(6, 16)), rng.normal(size=(6, 16))  # 6 tokens
scores = key @ query / math.sqrt(16)  # one for each token; the root keeps long rows from making large scores
weights = np.exp(scores) / np.exp(scores).sum()
result = weights @ value
oracle = pn.reference.attention(query[None, None], key[:, None], value[:, None])  # [query, head, head_dim]
np.testing.assert_allclose(result, oracle[0, 0], rtol=1e-12)
print("weights", weights.round(2))

# %%
# A kernel for all heads
# ----------------------
# A thread takes a head and goes through its tokens twice. In between it knows the largest score, and with ``shift=1``
# subtracts it from all scores before ``exp``. That seems to be of no use: it divides all weights by the same number,
# and then the softmax divides them by their sum. Our three lines did without. **Can the kernel, too?**


@cuda.jit
def attention(out, scores, query, key, value, scale, shift):
    head = cuda.grid(1)
    if head < query.shape[0]:
        largest = float32(-np.inf)
        for token in range(key.shape[0]):
            score = float32(0)
            for dim in range(query.shape[1]):
                score += query[head, dim] * key[token, head, dim]
            scores[head, token] = score * scale
            largest = max(largest, score * scale)
        total = float32(0)
        for token in range(key.shape[0]):
            weight = math.exp(scores[head, token] - shift * largest)
            total += weight
            for dim in range(query.shape[1]):
                out[head, dim] += weight * value[token, head, dim]
        for dim in range(query.shape[1]):
            out[head, dim] /= total


def attend(query, key, value, shift=1):
    num_heads, head_dim = query.shape
    out, scores = np.zeros_like(query), np.zeros((num_heads, len(key)), np.float32)
    scale, shift = np.float32(1 / math.sqrt(head_dim)), np.float32(shift)
    attention[-(-num_heads // 4), 4](out, scores, query, key, value, scale, shift)
    return out


pn.draw.Threads(2, 4, 6, title="Six heads, two thread blocks of 4 threads").show("02_heads.svg")

# %%
# Two tests, three kernels
# ------------------------
# With ``shift=0`` **this kernel is broken**; does it show? A random test draws small numbers, as many tests do. In
# float32, :term:`rounding` makes results differ a little from the oracle's, so it allows that: the :term:`tolerance`.
#
# A :term:`property` holds for *every* input: here, that kernel and oracle agree. :term:`Hypothesis` is a library for
# :term:`property tests <property test>`. We say what an input looks like; it draws a hundred and, when one fails, looks
# for smaller ones that fail, too: it :term:`shrinks <shrink>` the input. Our query is always 1, so a score is a key.
# Which test is better? Ask a :term:`mutant`, a kernel made wrong on purpose. Ours ignores the query: all weights are
# equal, and out comes the mean of the values.
#
# .. dropdown:: Predict: which of the two tests notices the broken kernel, and which the mutant?
#
#    Only the property does, both. In the random test no score is beyond 0.05, and the right weights are nearly equal.


def compare(attend, query, key, value, tolerance):
    oracle = pn.reference.attention(query[None], key, value)[0]
    np.testing.assert_allclose(attend(query, key, value), oracle, atol=tolerance)


def random_test(attend, head_dim=32):
    most = 1 / math.sqrt(head_dim)
    query, key, value = (rng.uniform(-most, most, (n, 8, head_dim)).astype(np.float32) for n in (1, 64, 64))
    compare(attend, query[0], key, value, tolerance=1e-3)


tens = st.integers(-10, 10).map(lambda n: 10 * n)
tokens = st.lists(st.tuples(tens, st.integers(-9, 9)), min_size=1, max_size=8)  # a key and a value each


def property_test(attend):
    @settings(max_examples=100, derandomize=True, deadline=None, phases=[Phase.generate, Phase.shrink])
    @given(tokens)
    def agree(tokens):
        key, value = np.array(tokens, np.float32).T.reshape(2, -1, 1, 1)
        compare(attend, np.ones((1, 1), np.float32), key, value, tolerance=1e-5)

    agree()


broken, mutant = partial(attend, shift=0), lambda query, key, value: attend(0 * query, key, value)
for name, kernel in {"right": attend, "broken": broken, "mutant": mutant}.items():
    for test in (random_test, property_test):
        try:
            test(kernel)
            print(name, "passes", test.__name__)
        except AssertionError as failure:
            print(name, "fails", test.__name__, *getattr(failure, "__notes__", [])[:1])

# %%
# One token with key 90: ``exp(90)`` is 1.2e39, float32 ends at 3.4e38, and infinity by infinity is no number.
#
# **In two sentences.** A kernel is right if no input can be found on which it differs from an oracle, and a search that
# draws and shrinks finds such inputs better than we do. A test is worth what it notices: plant a mutant and see.
#
# **Check yourself.**
#
# 1. Another mutant attends with head 0 in all heads. Which of the two tests notices?
# 2. Why does the smallest input for our mutant have two tokens?
# 3. Could a property do without the oracle, and compare the kernel with itself, tokens in another order?
#
# .. dropdown:: Answers
#
#    1. Only the random test: our property has one head. A property is as good as the inputs that it draws.
#    2. With one token the mean is right. With two of equal values, too, so the values are 0 and 1.
#    3. Yes, attention does not depend on the order. But our mutant would pass.
#
# **Try next.** Give the property two heads, with their own keys and values.
#
# **In the engines.** Lesson 06 holds ``attention_textbook`` to this oracle. vLLM's ``test_paged_attention``
# (``tests/kernels/attention/test_attention.py``) draws its numbers as our random test does, and allows 1e-3, too.
