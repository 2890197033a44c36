"""Lesson 02: the numbers in its prose, its tests of kernels, and what its questions say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba.kernels import attention_textbook_kernel

LESSON = lesson(2)


@st.composite
def inputs(draw):
    """Return a query, keys and values of several heads."""
    tokens, heads, head_dim = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.1, 1, 30]))
    shapes = (heads, head_dim), (tokens, heads, head_dim), (tokens, heads, head_dim)
    return [spread * rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def test_numbers_in_the_prose():
    LESSON.run()
    largest = np.finfo(np.float32).max
    assert np.exp(80) * 9 * 8 < largest < np.exp(90), "90 is the first of the tens that overflows"
    LESSON.check_numbers(
        claims={
            "is 1.2e39": f"{math.exp(90):.1e}".replace("+", ""),
            "float32 ends at 3.4e38": f"{largest:.1e}".replace("+", ""),
            "No score there is beyond 0.05": "0.05" if largest_random_score() < 0.05 else "more",
        },
        given=[
            "with sum 1",
            "is always 1",
            "divided by itself, is 1",
            "Key 90",
            "is larger than 1",
            "with head 0",
            "so the values are 0 and 1",
            "allows 1e-3",
        ],
    )


def largest_random_score():
    """Return the largest score of a hundred runs of the lesson's random test."""
    scores = []

    def look(query, key, value):
        scores.append(np.abs(np.einsum("hd,thd->th", query, key)).max() / math.sqrt(query.shape[1]))
        return pn.reference.attention(query[None], key, value)[0]

    for _ in range(100):
        LESSON.run()["random_test"](look)
    return max(scores)


def test_output_tells_which_test_notices_what():
    lines = LESSON.output.splitlines()
    assert "All three pass." in lines
    assert "right passes" in lines
    text = " ".join(LESSON.output.split())
    assert "tokens=[(90, 0)]" in text.partition("broken fails.")[2].partition("mutant")[0]
    assert "tokens=[(0, 0), (10, 1)]" in text.partition("mutant fails.")[2]


@given(inputs())
def test_the_kernel_agrees_with_the_oracle_and_with_the_textbook_kernel(arrays):
    query, key, value = arrays
    out, oracle = LESSON.run()["attend"](*arrays), pn.reference.attention(query[None], key, value)[0]
    np.testing.assert_allclose(out, oracle, rtol=1e-3, atol=1e-3 * np.abs(value).max())
    # The textbook kernel does the same in the same order, on a cache whose one block holds all tokens.
    textbook = np.empty((1, *query.shape), np.float32)
    table, scale = np.zeros((1, 1), np.int32), np.float32(1 / math.sqrt(query.shape[1]))
    lens = np.array([len(key)], np.int32)
    attention_textbook_kernel[1, len(query)](
        textbook, query[None], key[None], value[None], table, lens, scale
    )
    np.testing.assert_allclose(out, textbook[0], rtol=1e-6, atol=1e-6 * np.abs(value).max())


def test_answers():
    made = LESSON.run()
    attend = made["attend"]

    def head_0_in_all_heads(query, key, value):
        return np.repeat(attend(query, key, value)[:1], len(query), axis=0)

    made["property_test"](head_0_in_all_heads)
    with pytest.raises(AssertionError):
        made["random_test"](head_0_in_all_heads)

    query, key, value = np.ones((1, 1)), np.array([[[0.0]], [[10.0]]]), np.array([[[0.0]], [[1.0]]])
    arrays = [array.astype(np.float32) for array in (query, key, value)]
    for kernel in (attend, made["mutant"]):
        order = [1, 0]
        swapped = kernel(arrays[0], arrays[1][order], arrays[2][order])
        np.testing.assert_allclose(swapped, kernel(*arrays), rtol=1e-6)
    one = [array[:1] for array in arrays]
    np.testing.assert_array_equal(made["mutant"](*one), attend(*one))
    same = [arrays[0], arrays[1], np.ones_like(arrays[2])]
    np.testing.assert_allclose(made["mutant"](*same), attend(*same), rtol=1e-6)
