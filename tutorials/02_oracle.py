"""
02 · Dense attention is the oracle
==================================

**How do you know that a kernel is right?** Not by looking at its output. You need a second program, too simple to be
wrong, and inputs that nobody chose. You will see attention in four lines of NumPy, a broken kernel that passes a test,
the smallest input on which it fails, and a kernel made wrong on purpose, which tells good tests from bad ones.
"""

# %%
# Lesson 00 kept a key and a value of each token. Here is what for. A new token brings a third row of numbers, its
# :term:`query`. The :term:`score` of an earlier token says how well its key matches: query times key, summed up. The
# :term:`softmax` makes weights of the scores, with ``exp`` and a division, so that they are positive and sum to 1. The
# values, each times its weight and all summed up, are the result. This is :term:`attention`.

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
weights = np.exp(scores)
weights /= weights.sum()
result = weights @ value
print("weights", weights.round(2))

# %%
# A model does this many times side by side, each time with other numbers. Each is a :term:`head`, and ``head_dim`` is
# the length of its rows. ``pn.reference.attention`` does it for all heads. It is :term:`dense attention`: it takes
# keys and values as whole arrays and knows nothing of blocks. It is our :term:`oracle`, the program that we believe.

oracle = pn.reference.attention(query[None, None], key[:, None], value[:, None])  # [query, head, head_dim]
np.testing.assert_allclose(result, oracle[0, 0], rtol=1e-12)

# %%
# A kernel for all heads
# ----------------------
# Each thread takes a head. It goes through the tokens twice, and in between knows the largest score. With ``shift=1``
# that is subtracted from all scores before ``exp``, which seems to be of no use: it divides all weights by the same
# number, and the softmax then divides them by their sum. Our four lines did without. **Can the kernel, too?**


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


def attend(query, key, value, shift=1, factor=1):
    num_heads, head_dim = query.shape
    out, scores = np.zeros_like(query), np.zeros((num_heads, len(key)), np.float32)
    scale, shift = np.float32(factor / math.sqrt(head_dim)), np.float32(shift)
    attention[-(-num_heads // 4), 4](out, scores, query, key, value, scale, shift)
    return out


pn.draw.Threads(2, 4, 6, title="Six heads, two thread blocks of 4 threads").show("02_heads.svg")

# %%
# First without. **This kernel is broken**; does it show? We test it as is often done, with random numbers. It computes
# in float32, and :term:`rounding` makes its results differ a little, so we allow that: the :term:`tolerance`.


def compare(attend, query, key, value, tolerance):
    oracle = pn.reference.attention(query[None], key, value)[0]
    np.testing.assert_allclose(attend(query, key, value), oracle, atol=tolerance)


def random_test(attend):
    most = 1 / math.sqrt(32)  # 64 tokens, 8 heads, head_dim 32, small numbers as they are common in tests
    query, key, value = (rng.uniform(-most, most, (n, 8, 32)).astype(np.float32) for n in (1, 64, 64))
    compare(attend, query[0], key, value, tolerance=1e-3)


random_test(partial(attend, shift=0))
print("The broken kernel passes.")

# %%
# Any input at all
# ----------------
# A :term:`property` holds for *every* input: here, that kernel and oracle agree. :term:`Hypothesis` is a library for
# :term:`property tests <property test>`. We say what an input looks like; it draws a hundred of them and, when one
# fails, looks for smaller ones that fail, too: it :term:`shrinks <shrink>` the input.
#
# .. dropdown:: Predict: with one token in the cache, what must attention return?
#
#    The token's value, whatever query and key are: its weight is divided by itself and becomes 1.


keys = st.integers(-10, 10).map(lambda n: 10 * n)  # tens from -100 to 100
tokens = st.lists(st.tuples(keys, st.integers(-9, 9)), min_size=1, max_size=8)  # a key and a value each


def property_test(attend):
    @settings(max_examples=100, deadline=None, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
    @given(tokens)
    def agree(tokens):
        key, value = np.array(tokens, dtype=np.float32).T.reshape(2, -1, 1, 1)
        compare(attend, np.ones((1, 1), np.float32), key, value, tolerance=1e-5)

    agree()


try:
    property_test(partial(attend, shift=0))
except AssertionError as failure:
    print(failure.__notes__[0], *str(failure).splitlines()[-2:], sep="\n")
