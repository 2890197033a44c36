"""
03 · A property that finds wrong attention
==========================================

Write the test ``check_attention``. It takes a function ``attend``, calls it with inputs that you choose, and raises
AssertionError if ``attend`` is wrong. The check runs your test on several functions. The right ones must pass, and
your score is the number of wrong ones that your test finds. A property is only as good as its inputs: draw them with
Hypothesis, and include inputs on which a wrong kernel gives a wrong result.

``attend(query, key, value)`` returns the attention of one token to ``n`` tokens, separately for each head. The scale
is ``1 / sqrt(head_dim)``. With no tokens at all, the result is 0. The kernels keep the tokens in blocks of 4, in a
cache that also holds other sequences.

Shapes::

    query        float32[num_heads, head_dim]
    key, value   float32[n, num_heads, head_dim], n >= 0
    returned     float32[num_heads, head_dim]

One round of the test::

    draw n, num_heads, ...  ->  query, key, value  ->  attend(query, key, value)
                                                   ->  reference.attention(query[None], key, value)[0]
                                                       are they nearly equal?

The kernels compute in float32. With numbers up to 20, their results may differ from the oracle's by 0.01.

Example: with one token, ``attend`` returns its value, whatever the query and the key are: ``value = [[[7, 5]]]``
gives ``[[7, 5]]``.
"""

import numpy as np
from hypothesis import given, strategies

from paged_numba import reference


def check_attention(attend):
    # >>> Your code: a test with @given that draws an input and compares, and a call of it (14 lines).
    @given(
        num_tokens=strategies.sampled_from([0, 1, 3, 4, 5, 9]),
        num_heads=strategies.integers(1, 3),
        head_dim=strategies.sampled_from([1, 2, 8]),
        largest=strategies.sampled_from([1, 20]),
        seed=strategies.integers(0, 1000),
    )
    def agrees(num_tokens, num_heads, head_dim, largest, seed):
        rng = np.random.default_rng(seed)
        shapes = [(rows, num_heads, head_dim) for rows in (1, num_tokens, num_tokens)]
        query, key, value = (rng.uniform(-largest, largest, shape).astype(np.float32) for shape in shapes)
        right = reference.attention(query, key, value)[0]
        np.testing.assert_allclose(attend(query[0], key, value), right, rtol=0, atol=0.01)

    agrees()
    # <<<
