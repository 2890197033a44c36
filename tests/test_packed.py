"""The packed layout of the first vLLM kernels: its order in memory, its sectors, its refused arguments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.cuda import facade
from paged_numba.testing import laws, properties
from paged_numba.testing.strategies import STORAGE, grid_batches, paged_batches, seeds

TARGET = "lockstep"
F32 = np.float32
orders = st.sampled_from(("together", "forward", "reverse"))


@given(batch=paged_batches(layout="packed"), order=orders)
def test_attention_agrees_with_the_oracle(batch, order):
    with lockstep.options(order=order):
        properties.attention_agrees_with_the_oracle(batch, "auto", TARGET)


@given(batch=paged_batches(layout="packed", infinite_keys=True))
def test_scores_of_minus_infinity_weigh_nothing(batch):
    properties.attention_agrees_with_the_oracle(batch, "auto", TARGET)


@given(data=st.data())
def test_attention_is_as_exact_as_dense_attention(data):
    storage = data.draw(st.sampled_from(STORAGE), label="dtype of the cache")
    head_dim = data.draw(st.sampled_from((256, 128, 80, 64)), label="head_dim")
    batch = data.draw(grid_batches(storage, head_dim, 16, 8, 2, layout="packed"), label="batch")
    properties.attention_is_as_exact_as_dense_attention(batch, [("auto", None)], TARGET)


@given(batch=paged_batches(layout="packed"), seed=seeds)
def test_attention_is_invariant_under_block_permutation(batch, seed):
    order = np.random.default_rng(seed).permutation(len(batch.key_cache))
    laws.block_permutation(batch, order, "auto", TARGET)


@given(batch=paged_batches(layout="packed"), positions=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_no_token_notices_what_it_does_not_see(batch, positions):
    places = positions[: len(batch.seq_lens)]
    properties.no_token_notices_what_it_does_not_see(batch, places, "auto", TARGET)


def packed_caches(num_blocks, block_size, num_kv_heads, head_dim, dtype=F32):
    x = 16 // np.dtype(dtype).itemsize
    return (
        np.zeros((num_blocks, num_kv_heads, head_dim // x, block_size, x), dtype),
        np.zeros((num_blocks, num_kv_heads, head_dim, block_size), dtype),
    )


def test_slot_45_is_offset_13_of_block_2_and_dimension_6_the_third_of_piece_1():
    key, value = np.zeros((1, 1, 8), F32), np.zeros((1, 1, 8), F32)
    key[0, 0, 6], value[0, 0, 6] = 1, 2
    caches = packed_caches(4, 16, 1, 8)
    pn.write_kv(key, value, *caches, np.array([45]), layout="packed", target=TARGET)
    assert np.argwhere(caches[0]).tolist() == [[2, 0, 1, 13, 2]]
    assert np.argwhere(caches[1]).tolist() == [[2, 0, 6, 13]]


def traffic(layout, dtype):
    """Profile a write of 64 tokens, then one query token over them: head_dim 64, block_size 16, one head."""
    rng = np.random.default_rng(0)
    key, value = rng.standard_normal((2, 64, 1, 64)).astype(dtype)
    caches = packed_caches(4, 16, 1, 64, dtype) if layout == "packed" else np.zeros((2, 4, 16, 1, 64), dtype)
    query, tables = rng.standard_normal((1, 1, 64)).astype(F32), np.array([[3, 1, 0, 2]], np.int32)
    options = {"algorithm": "auto" if layout == "packed" else "block", "layout": layout, "target": TARGET}
    with lockstep.profiling() as report:
        pn.write_kv(key, value, *caches, np.arange(64), layout=layout, target=TARGET)
        pn.paged_attention(query, *caches, tables, np.array([64]), **options)
    return {
        (kind, name): report.memory("global", kind, array=f"{name}_cache")
        for kind in ("load", "store")
        for name in ("key", "value")
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_warp_asks_for_its_keys_in_half_the_sectors_and_for_its_values_in_no_more(dtype):
    size = np.dtype(dtype).itemsize
    rows, packed = traffic("NHD", dtype), traffic("packed", dtype)
    # Both kernels: 64 threads, so 2 warps, each asks for one number of a key a thread, 64 times: 32 * size bytes.
    # NHD: the keys of two tokens are 64 * size bytes apart, 128 at least: 32 sectors.
    # Packed: 16 bytes apart within a block, and 2 blocks a warp, so 2 * 16 * 16 = 512 bytes: 16 sectors.
    for found, sectors in ((rows["load", "key"], 32), (packed["load", "key"], 16)):
        assert found.requests == 2 * 64
        assert found.sectors_per_request == sectors
        assert found.efficiency == 100 * 32 * size / (32 * sectors)
    # Values: 64 * 64 numbers in requests of 32. NHD: 32 neighbouring dimensions of a token. Packed: the 16 tokens of a
    # block in one dimension, then in the next, which follows. 32 * size bytes both: as many sectors as size.
    for found in (rows["load", "value"], packed["load", "value"]):
        assert found.requests == 64 * 64 / 32
        assert found.sectors_per_request == size
        assert found.efficiency == 100


def test_a_write_pays_for_it():
    rows, packed = traffic("NHD", F32), traffic("packed", F32)
    # A warp stores 32 neighbouring dimensions of a token, 128 bytes. NHD: 4 sectors. Packed: 8 pieces of K, each in
    # another sector, 32 numbers of V, each in another sector.
    assert rows["store", "key"].sectors_per_request == rows["store", "value"].sectors_per_request == 4
    assert packed["store", "key"].sectors_per_request == 8
    assert packed["store", "value"].sectors_per_request == 32


def attend(key_cache, value_cache, **options):
    return pn.paged_attention(
        np.ones((1, 2, 8), F32), key_cache, value_cache, np.array([[1]]), np.array([3]),
        layout="packed", target=TARGET, **options,
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ["naive", "warp", "block", "tile", "split", "cascade"])
def test_kernels_for_rows_are_refused(algorithm):
    caches = packed_caches(2, 4, 1, 8)
    with pytest.raises(
        ValueError, match=f"algorithm must be 'auto' for layout='packed'.* got algorithm='{algorithm}'"
    ):
        attend(*caches, algorithm=algorithm)
    assert attend(*caches).shape == (1, 2, 8)


@pytest.mark.parametrize(
    ("key_shape", "value_shape", "message"),
    [
        ((2, 1, 4, 4, 2), (2, 1, 8, 4), r"key_cache must have shape \[num_blocks, .*, block_size, 4\], got"),
        ((2, 1, 2, 4), (2, 1, 8, 4), r"key_cache must have shape \[num_blocks, .*, block_size, x\], got"),
        (
            (2, 1, 2, 4, 4),
            (2, 2, 8, 4),
            r"value_cache must have shape \[2, 1, value_head_dim, 4\], got .*\(2, 2, 8",
        ),
        ((2, 1, 2, 4, 4), (2, 4, 1, 8), r"value_cache must have shape \[2, 1, value_head_dim, 4\], got"),
        ((2, 1, 2, 4, 4), (2, 1, 0, 4), "value_cache must not be empty"),
        ((2, 1, 2, 0, 4), (2, 1, 8, 0), "key_cache must not be empty"),
    ],
)
def test_shapes_that_are_not_packed_are_refused(key_shape, value_shape, message):
    with pytest.raises(ValueError, match=message):
        attend(np.zeros(key_shape, F32), np.zeros(value_shape, F32))


def test_a_piece_has_16_bytes_of_any_dtype():
    key_cache, value_cache = packed_caches(2, 4, 1, 8)
    with pytest.raises(ValueError, match=r"key_cache must have shape \[.*, 8\], got .*\(2, 1, 2, 4, 4\)"):
        attend(key_cache.astype(np.float16), value_cache.astype(np.float16))
    halves = np.zeros((2, 1, 1, 4, 8), np.float16)
    assert attend(halves, value_cache.astype(np.float16)).shape == (1, 2, 8)
    with pytest.raises(
        TypeError, match=r"value_cache must have dtype float16, got value_cache.dtype=float32"
    ):
        attend(halves, value_cache)


def test_strided_caches_are_refused():
    whole, value_cache = packed_caches(4, 4, 1, 8)
    with pytest.raises(
        ValueError, match=r"key_cache must be contiguous .* got key_cache.strides=\(256, 128, "
    ):
        pn.copy_blocks(whole[::2], value_cache[:2], np.array([[0, 1]]), layout="packed", target=TARGET)
    with pytest.raises(ValueError, match="value_cache must be contiguous"):
        attend(whole[:2], value_cache[::2])
    attend(whole[:2], value_cache[2:])


def test_arrays_of_the_facade_are_taken():
    tokens = np.random.default_rng(0).standard_normal((2, 3, 1, 8)).astype(F32)
    caches = [facade.to_device(cache) for cache in packed_caches(2, 4, 1, 8)]
    pn.write_kv(*tokens, *caches, np.arange(3), layout="packed", target=TARGET)
    pn.copy_blocks(*caches, np.array([[0, 1]]), layout="packed", target=TARGET)
    gathered = pn.gather_kv(*caches, np.array([1]), 3, layout="packed", target=TARGET)
    np.testing.assert_array_equal(gathered, tokens)


def test_a_cache_in_debug_mode_knows_the_slots_of_its_layout():
    cache = pn.PagedKVCache(4, 4, 1, 8, layout="packed", target=TARGET, debug=True)
    tokens = np.ones((2, 6, 1, 8), F32)
    cache.add("a", *tokens)
    query = np.ones((1, 1, 8), F32)
    np.testing.assert_allclose(cache.attend(["a"], query), query)
    tables = cache.block_tables(["a"])
    for length, message in ((7, "reads tokens 6 to 6 of sequence 'a', which has 6"), (6, None)):
        arguments = query, cache.key_cache, cache.value_cache, tables, np.array([length])
        if message is None:
            pn.paged_attention(*arguments, layout="packed", target=TARGET)
        else:
            with pytest.raises(KernelError, match=message):
                pn.paged_attention(*arguments, layout="packed", target=TARGET)
