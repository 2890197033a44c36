"""
02 · Dense attention is the oracle
==================================

**How do you know that a kernel is right?** By a second program, too simple to be wrong, and inputs that nobody chose.
You will see attention in three lines of NumPy, a test that two wrong kernels pass, and one that catches both.
"""

# %%
# Lesson 00 kept a key and a value of each token; here is what for. A new token brings a third row of numbers, its
# :term:`query`. The :term:`score` of a token says how well its key matches: query times key, summed up. The
# :term:`softmax` makes weights of the scores, positive and with sum 1: ``exp`` of each, divided by the sum of all.
# The values, each times its weight and all summed up, are the result: this is :term:`attention`.
#
# A model does it many times side by side, with other numbers in each :term:`head`; ``head_dim`` is the length of a
# row. ``pn.reference.attention`` does it for all heads. It is :term:`dense attention`, on whole arrays without
# blocks, and our :term:`oracle`: the program that we believe.

import math

import numpy as np
from hypothesis import Phase, given, settings, strategies
from numba import float32  # 4 bytes; in a kernel, a plain 0.0 has 8

import paged_numba as pn
from paged_numba import cuda

rng = np.random.default_rng(2)
query, key, value = rng.normal(size=16), rng.normal(size=(6, 16)), rng.normal(size=(6, 16))  # 6 tokens
scores = key @ query / math.sqrt(16)  # one for each token; the root keeps long rows from making large scores
weights = np.exp(scores) / np.exp(scores).sum()
oracle = pn.reference.attention(query[None, None], key[:, None], value[:, None])  # [query, head, head_dim]
np.testing.assert_allclose(weights @ value, oracle[0, 0], rtol=1e-12)
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
    out, scores = np.zeros_like(query), np.zeros((len(query), len(key)), np.float32)
    scale = np.float32(query.shape[1] ** -0.5)
    attention[-(-len(query) // 4), 4](out, scores, query, key, value, scale, np.float32(shift))
    return out


pn.draw.Threads(2, 4, 6, title="Six heads, two thread blocks").show("02_heads.svg")

# %%
# A test with random numbers
# --------------------------
# Many tests draw small random numbers, as this one does. The kernel computes in float32, and :term:`rounding` makes
# it differ a little from the oracle, so a test allows that: the :term:`tolerance`. We run it on the right kernel, on
# the one without shift, which **is broken**, and on a :term:`mutant`, a kernel made wrong on purpose to see which
# tests notice. Ours ignores the query: all weights are equal, and out comes the mean of the values.


def random_test(attend, most=32**-0.5):
    query, key, value = (rng.uniform(-most, most, (n, 8, 32)).astype(np.float32) for n in (1, 64, 64))
    oracle = pn.reference.attention(query, key, value)[0]
    np.testing.assert_allclose(attend(query[0], key, value), oracle, atol=1e-3)


broken, mutant = (lambda *arrays: attend(*arrays, shift=0)), (lambda query, *rest: attend(0 * query, *rest))
for kernel in (attend, broken, mutant):
    random_test(kernel)
print("All three pass.")

# %%
# Any input at all
# ----------------
# No score there is beyond 0.05, so all weights are nearly equal. A :term:`property` holds for *every* input. For a
# :term:`property test` with :term:`Hypothesis` we say what an input looks like. It draws a hundred (the same in each
# run) and, when one fails, looks for smaller ones that fail, too: it :term:`shrinks <shrink>` the input.
# (Hypothesis keeps a folder ``.hypothesis`` where you run it. You may delete that at any time.)
#
# .. dropdown:: Predict: our query is always 1. With a single token in the cache, what must attention return?
#
#    The token's value, whatever its key is. Its weight, divided by itself, is 1.

keys, values = strategies.integers(-10, 10).map(lambda n: 10 * n), strategies.integers(-9, 9)
tokens = strategies.lists(strategies.tuples(keys, values), min_size=1, max_size=8)


def property_test(attend):
    @settings(max_examples=100, derandomize=True, deadline=None, phases=[Phase.generate, Phase.shrink])
    @given(tokens)
    def agree(tokens):
        key, value = np.array(tokens, np.float32).T.reshape(2, -1, 1, 1)
        oracle = pn.reference.attention([[[1]]], key, value)[0]
        np.testing.assert_allclose(attend(np.ones((1, 1), np.float32), key, value), oracle, atol=1e-5)

    agree()


for name, kernel in {"right": attend, "broken": broken, "mutant": mutant}.items():
    try:
        property_test(kernel)
        print(name, "passes")
    except AssertionError as failure:
        print(name, "fails.", failure.__notes__[0])

# %%
# Key 90: ``exp(90)`` is 1.2e39, float32 ends at 3.4e38, and inf / inf is NaN. Shifted, no weight is larger than 1.
#
# **In two sentences.** A kernel is right if no input can be found on which it differs from an oracle, and a search
# that draws and shrinks finds such inputs better than we do. A test is worth what it notices: plant a mutant and see.
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
