"""The cache: allocator, kernels and dense attention in step, and failures that change nothing."""

import doctest

import numpy as np
import pytest

import paged_numba as pn
import paged_numba.cache
from paged_numba.testing.machines import cache_machine

TestCache = cache_machine().TestCase


def tokens(count, seed=0):
    return np.random.default_rng(seed).standard_normal((2, count, 2, 3)).astype(np.float32)


def cache(num_blocks=3):
    return pn.PagedKVCache(num_blocks, 4, num_kv_heads=2, head_dim=3, target="lockstep")


def test_docstring_example():
    assert doctest.testmod(paged_numba.cache).failed == 0
    assert doctest.testmod(paged_numba.cache).attempted > 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.add("a", *tokens(1)), pn.DuplicateSequenceError, "'a' already"),
        (lambda c: c.add("b", *tokens(5)), pn.OutOfBlocksError, "needs 2 blocks, 1 are free"),
        (lambda c: c.append("b", *tokens(1)), pn.UnknownSequenceError, "no sequence has the id 'b'"),
        (lambda c: c.append("a", *tokens(0)), ValueError, "tokens must be positive"),
        (lambda c: c.add("b", *tokens(1).astype(float)), TypeError, "key must have dtype float32"),
        (lambda c: c.append("a", tokens(2)[0], tokens(1)[1]), ValueError, "value must have shape"),
        (lambda c: c.append("a", *tokens(1)[..., :2]), ValueError, "key must have shape"),
        (lambda c: c.fork("b", "c"), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.free("b"), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.attend(["b"], tokens(1)[0]), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.gather("b"), pn.UnknownSequenceError, "'b'"),
    ],
)
def test_call_that_fails_changes_nothing(call, error, message):
    subject = cache()
    subject.add("a", *tokens(6))
    key_cache, value_cache = subject.key_cache.copy(), subject.value_cache.copy()
    with pytest.raises(error, match=message):
        call(subject)
    np.testing.assert_array_equal(subject.key_cache, key_cache)
    np.testing.assert_array_equal(subject.value_cache, value_cache)
    assert list(subject.allocator) == ["a"]
    assert subject.allocator.num_free_blocks == 1
    subject.allocator.check()


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match=r"num_kv_heads must lie in 1 .. 65535, got num_kv_heads=0"):
        pn.PagedKVCache(1, 1, 0, 1, target="lockstep")
    with pytest.raises(ValueError, match="num_blocks must be positive, got num_blocks=0"):
        pn.PagedKVCache(0, 1, 1, 1, target="lockstep")


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((4, 257, 1, 1), ValueError, r"block_size must lie in 1 \.\. 256, got block_size=257"),
        ((4, 4, 1, 257), ValueError, r"head_dim must lie in 1 \.\. 256, got head_dim=257"),
        ((4, 4, "2", 1), TypeError, "num_kv_heads must be an integer, got num_kv_heads='2'"),
        ((4, 4, 1, 2.0), TypeError, r"head_dim must be an integer, got head_dim=2\.0"),
    ],
)
def test_sizes_that_the_kernels_do_not_run_are_refused(sizes, error, message):
    with pytest.raises(error, match=message):
        pn.PagedKVCache(*sizes, target="lockstep")


class Fake:
    """Something that has a shape and a dtype, and no memory."""

    shape, dtype = (1, 2, 3), np.dtype(np.float32)


def test_tokens_that_are_no_array_take_no_block():
    subject = cache()
    subject.add("a", *tokens(3))
    with pytest.raises(TypeError, match="key must be an array, got Fake"):
        subject.append("a", Fake(), Fake())
    assert subject.allocator.seq_len("a") == 3


def test_query_needs_a_row_for_each_sequence():
    subject = cache()
    subject.add("a", *tokens(3))
    with pytest.raises(
        ValueError, match=r"query must have a row for each of the 1 seq_ids, got query\.shape=\(2, 2, 3\)"
    ):
        subject.attend(["a"], np.ones((2, 2, 3), np.float32))
    assert subject.attend((name for name in "a"), np.ones((1, 2, 3), np.float32)).shape == (1, 2, 3)


def test_sequence_may_occur_twice_in_a_batch():
    subject = cache()
    subject.add("a", *tokens(6))
    query = np.ones((2, 2, 3), np.float32)
    out = subject.attend(["a", "a"], query)
    np.testing.assert_array_equal(out[0], out[1])
