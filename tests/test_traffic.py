"""How often attention loads keys and values, counted by the profiler."""

import numpy as np
import pytest

import paged_numba as pn
from paged_numba import lockstep

LENGTH, HEAD_DIM, NUM_KV_HEADS, BLOCK_SIZE = 128, 64, 2, 16
STORED = LENGTH * NUM_KV_HEADS * HEAD_DIM * 4
"""Bytes of all keys, or of all values."""


def memory(algorithm, group, num_tokens=1, length=LENGTH, **options):
    """Return the memory counts of a launch's loads of keys, and of its loads of values."""
    rng = np.random.default_rng(0)
    caches = rng.standard_normal((2, 9, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM), np.float32)
    query = rng.standard_normal((num_tokens, group * NUM_KV_HEADS, HEAD_DIM), np.float32)
    table = rng.permutation(9)[None].astype(np.int32)
    with lockstep.profiling() as report:
        pn.paged_attention(
            query, *caches, table, np.array([length]), cu_seqlens_q=np.array([0, num_tokens]),
            algorithm=algorithm, target="lockstep", **options,
        )  # fmt: skip
    return [report.memory("global", "load", array=array) for array in ("key_cache", "value_cache")]


def loads(*args, **options):
    """Return the bytes of keys and of values that a launch asks for."""
    return tuple(loaded.bytes_asked for loaded in memory(*args, **options))


@pytest.mark.parametrize("group", [1, 2, 4, 5, 8, 16, 17, 64, 71, 128])
def test_keys_and_values_are_loaded_once_for_all_heads_that_share_them(group):
    assert loads("tile", group) == (STORED, STORED)
    # Each of two splits loads its half.
    assert loads("split", group, num_splits=2) == (STORED, STORED)
    # A thread block or a warp for each head loads them for each head.
    assert loads("block", group) == (group * STORED, group * STORED)
    assert loads("warp", group) == (group * STORED, group * STORED)


def test_a_warp_loads_32_neighbouring_numbers_at_once():
    for loaded in memory("warp", 1):
        # 128 bytes, 4 sectors, all of them used; a thread block whose threads have a row of K each takes 32.
        assert (loaded.requests, loaded.sectors_per_request, loaded.efficiency) == (STORED / 128, 4, 100)
    assert memory("block", 1)[0].sectors_per_request == 32


def test_a_thread_block_holds_128_heads_and_more_of_them_load_again():
    assert loads("tile", 129) == (2 * STORED, 2 * STORED)


@pytest.mark.parametrize(
    ("group", "num_tokens", "tiles"),
    [(1, 16, 1), (4, 4, 1), (16, 1, 1), (4, 8, 2), (1, 17, 2), (16, 2, 2), (64, 2, 2)],
)
def test_tokens_of_a_prompt_load_keys_and_values_once_a_tile(group, num_tokens, tiles):
    assert loads("tile", group, num_tokens, causal=False) == (tiles * STORED, tiles * STORED)


@pytest.mark.parametrize(("group", "num_tokens"), [(1, 16), (4, 4), (8, 2)])
def test_tokens_that_see_different_keys_load_those_that_any_sees_once(group, num_tokens):
    assert loads("tile", group, num_tokens) == (STORED, STORED)
    # 64 keys before the first token, and the tokens themselves: two tiles of keys begin with the window.
    window = LENGTH - num_tokens + 1
    assert loads("tile", group, num_tokens, window=window) == (STORED, STORED)


def test_keys_out_of_all_windows_are_not_loaded():
    assert loads("tile", 4, window=LENGTH // 2) == (STORED // 2, STORED // 2)


@pytest.mark.parametrize("length", [1, 65, 100, 127])
@pytest.mark.parametrize("algorithm", ["tile", "split"])
def test_no_key_is_loaded_for_threads_that_have_none(length, algorithm):
    stored = length * NUM_KV_HEADS * HEAD_DIM * 4
    assert loads(algorithm, 4, length=length) == (stored, stored)
