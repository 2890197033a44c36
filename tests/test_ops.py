"""The operations against oracles that share no code with the kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.testing import properties
from paged_numba.testing.strategies import paged_batches, seeds, tokens_to_write

TARGET = "lockstep"
algorithms = pytest.mark.parametrize("algorithm", ["naive", "block"])
orders = st.sampled_from(("together", "forward", "reverse"))


@algorithms
@given(batch=paged_batches(), order=orders)
def test_attention_agrees_with_the_oracle(batch, order, algorithm):
    with lockstep.options(order=order):
        properties.attention_agrees_with_the_oracle(batch, algorithm, TARGET)


@algorithms
@given(batch=paged_batches(), seed=seeds)
def test_attention_is_invariant_under_block_permutation(batch, seed, algorithm):
    order = np.random.default_rng(seed).permutation(len(batch.key_cache))
    properties.attention_is_invariant_under_block_permutation(batch, order, algorithm, TARGET)


@given(tokens=tokens_to_write())
def test_write_puts_each_token_into_its_slot(tokens):
    properties.write_puts_each_token_into_its_slot(tokens, TARGET)


@given(batch=paged_batches())
def test_gather_returns_what_was_written(batch):
    properties.gather_returns_what_was_written(batch, TARGET)


@given(tokens=tokens_to_write(), seed=seeds)
def test_copy_duplicates_blocks(tokens, seed):
    order = np.random.default_rng(seed).permutation(tokens.caches.shape[1])
    properties.copy_duplicates_blocks(tokens, order, TARGET)


@algorithms
def test_attention_by_hand(algorithm):
    # Two tokens, scores 0 and ln 3: weights 1/4 and 3/4, so 1/4 * 8 + 3/4 * 4 = 5; LSE = ln(1 + 3).
    key_cache = np.array([[[[np.log(3)]]], [[[np.nan]]], [[[0.0]]]], np.float32)
    value_cache = np.array([[[[4.0]]], [[[np.nan]]], [[[8.0]]]], np.float32)
    out, lse = pn.paged_attention(
        np.ones((1, 1, 1), np.float32),
        key_cache,
        value_cache,
        np.array([[2, 0]], np.int32),
        np.array([2], np.int32),
        return_lse=True,
        algorithm=algorithm,
        target=TARGET,
    )
    np.testing.assert_allclose(out, [[[5.0]]], rtol=1e-6)
    np.testing.assert_allclose(lse, [[np.log(4)]], rtol=1e-6)


@algorithms
def test_huge_scores_do_not_overflow(algorithm):
    # exp(1000) is infinite in float32: only differences of scores may be exponentiated.
    key_cache = np.array([1000.0, 999.0], np.float32).reshape(1, 2, 1, 1)
    value_cache = np.array([1.0, 0.0], np.float32).reshape(1, 2, 1, 1)
    out, lse = pn.paged_attention(
        np.ones((1, 1, 1), np.float32),
        key_cache,
        value_cache,
        np.zeros((1, 1), np.int32),
        np.array([2], np.int32),
        return_lse=True,
        algorithm=algorithm,
        target=TARGET,
    )
    np.testing.assert_allclose(out, [[[1 / (1 + np.exp(-1))]]], rtol=1e-6)
    np.testing.assert_allclose(lse, [[1000 + np.log1p(np.exp(-1))]], rtol=1e-6)


@algorithms
def test_empty_sequence_gives_zero_and_minus_infinity(algorithm):
    out, lse = pn.paged_attention(
        np.full((1, 2, 3), 5, np.float32),
        *np.full((2, 1, 4, 1, 3), np.nan, np.float32),
        np.array([[-1]], np.int32),
        np.array([0], np.int32),
        return_lse=True,
        algorithm=algorithm,
        target=TARGET,
    )
    np.testing.assert_array_equal(out, np.zeros((1, 2, 3)))
    np.testing.assert_array_equal(lse, np.full((1, 2), -np.inf))


def test_batch_without_sequences_gives_empty_arrays():
    out, lse = pn.paged_attention(
        np.zeros((0, 2, 3), np.float32),
        *np.zeros((2, 1, 4, 1, 3), np.float32),
        np.zeros((0, 1), np.int32),
        np.zeros(0, np.int32),
        return_lse=True,
        target=TARGET,
    )
    assert out.shape == (0, 2, 3)
    assert lse.shape == (0, 2)


@given(batch=paged_batches())
def test_out_receives_the_result_and_tables_of_any_integers_are_taken(batch):
    expected = pn.paged_attention(
        batch.query, batch.key_cache, batch.value_cache, batch.block_tables, batch.seq_lens, target=TARGET
    )
    out = np.full_like(batch.query, np.nan)
    returned = pn.paged_attention(
        batch.query,
        batch.key_cache,
        batch.value_cache,
        batch.block_tables.astype(np.int64).tolist(),
        batch.seq_lens.astype(np.uint8),
        out=out,
        target=TARGET,
    )
    assert returned is out
    np.testing.assert_array_equal(out, expected)


def test_slot_45_is_offset_13_of_block_2():
    key, value = np.ones((1, 1, 1), np.float32), np.full((1, 1, 1), 2, np.float32)
    caches = np.zeros((2, 4, 16, 1, 1), np.float32)
    pn.write_kv(key, value, *caches, np.array([45]), target=TARGET)
    assert np.argwhere(caches).tolist() == [[0, 2, 13, 0, 0], [1, 2, 13, 0, 0]]
