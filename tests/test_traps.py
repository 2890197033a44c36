"""Traps that other engines fell into, one test each, named after the trap."""

import sys

import ml_dtypes
import numpy as np
import pytest

import paged_numba as pn
from paged_numba import reference
from paged_numba.ops import layouts

TARGET = "lockstep"
ALGORITHMS = ("naive", "warp", "block", "tile", "split", "cascade")
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)
RNG = np.random.default_rng(0)


def attend(keys, values, query, seq_len=None, *, table=None, **options):
    """Attend to keys and values given densely, in blocks of 4; return out and lse of the one sequence."""
    length = len(keys) if seq_len is None else seq_len
    blocks = -(-max(1, len(keys)) // 4)
    caches = np.full((2, blocks * 4, *keys.shape[1:]), np.nan, np.float32)
    caches[0, : len(keys)], caches[1, : len(values)] = keys, values
    caches = caches.reshape(2, blocks, 4, *keys.shape[1:])
    table = np.arange(blocks, dtype=np.int32) if table is None else np.asarray(table, np.int32)
    return pn.paged_attention(
        query,
        *caches,
        table[None],
        np.array([length], np.int32),
        cu_seqlens_q=np.array([0, len(query)]),
        return_lse=True,
        target=TARGET,
        **options,
    )


def tokens(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.skipif(sys.platform == "win32", reason="sparse files need a request of their own there")
@pytest.mark.parametrize("layout", ["NHD", "HND", "packed"])
def test_int32_overflow_of_block_offsets(tmp_path, layout):
    # 2**31 elements and more: 262,145 blocks of 16 x 8 x 64. The files are sparse: only touched pages take space.
    num_blocks = 2**18 + 1
    shapes = layouts.cache_shapes(layout, np.float32, num_blocks, 16, 8, 64)
    assert np.prod(shapes[0]) == np.prod(shapes[1]) > 2**31
    caches = [
        np.memmap(tmp_path / name, np.float32, "w+", shape=shape)
        for name, shape in zip(("key", "value"), shapes, strict=True)
    ]
    key, value, last = tokens(20, 8, 64), tokens(20, 8, 64), num_blocks - 1
    slots = np.concatenate([np.arange(16) + 16 * last, np.arange(4)])
    where = {"layout": layout, "target": TARGET}

    def block_of_values(number):
        return np.moveaxis(caches[1][number], layouts.TOKEN_AXES[layout] - 1, 0)

    pn.write_kv(key, value, *caches, slots, **where)
    np.testing.assert_array_equal(block_of_values(last), value[:16])
    table = np.array([last, 0], np.int32)
    gathered = pn.gather_kv(*caches, table, 20, **where)
    np.testing.assert_array_equal(gathered, (key, value))
    pn.copy_blocks(*caches, np.array([[last, 7]]), **where)
    np.testing.assert_array_equal(block_of_values(7), value[:16])
    query = tokens(1, 8, 64)
    expected = reference.attention(query, key, value)
    for algorithm in ("auto",) if layout == "packed" else ALGORITHMS:
        out = pn.paged_attention(query, *caches, table[None], np.array([20]), algorithm=algorithm, **where)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@algorithms
def test_nan_in_unused_tail_slots(algorithm):
    keys, values, query = tokens(5, 2, 8), tokens(5, 2, 8), tokens(1, 2, 8)
    out, _ = attend(keys, values, query, algorithm=algorithm)
    np.testing.assert_allclose(out, reference.attention(query, keys, values), rtol=1e-5, atol=1e-6)


@algorithms
def test_nan_in_values_outside_the_window(algorithm):
    keys, values, query = tokens(9, 2, 8), tokens(9, 2, 8), tokens(2, 2, 8)
    keys[:5], values[:5] = np.nan, np.nan
    out, _ = attend(keys, values, query, window=3, algorithm=algorithm)
    # Queries at 7 and 8 see 5 to 8.
    expected = reference.attention(query, keys[5:], values[5:], window=3)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_slot_minus_one_wrapping_to_the_last_block():
    caches = np.zeros((2, 3, 4, 1, 2), np.float32)
    pn.write_kv(tokens(1, 1, 2), tokens(1, 1, 2), *caches, np.array([-1]), target=TARGET)
    assert not caches.any()


@pytest.mark.parametrize("slots", [[0], [0, 1, 2]])
def test_slot_mapping_shorter_or_longer_than_the_tokens(slots):
    caches = np.zeros((2, 3, 4, 1, 2), np.float32)
    with pytest.raises(ValueError, match=r"slot_mapping must have shape \[2\], got"):
        pn.write_kv(tokens(2, 1, 2), tokens(2, 1, 2), *caches, np.array(slots), target=TARGET)


def test_a_sequence_longer_than_its_table():
    with pytest.raises(ValueError, match=r"seq_lens must lie in 0 .. 8 .*, got seq_lens\[0\]=9"):
        attend(tokens(8, 1, 2), tokens(8, 1, 2), tokens(1, 1, 2), seq_len=9)


def test_minus_infinity_minus_minus_infinity_in_a_merge():
    nothing = np.zeros((1, 1, 2), np.float32), np.full((1, 1), -np.inf, np.float32)
    out, lse = pn.merge_states(*nothing, *nothing, target=TARGET)
    assert out.tolist() == [[[0, 0]]]
    assert lse.tolist() == [[-np.inf]]


@algorithms
def test_empty_splits(algorithm):
    # One token in one block: of 5 splits 4 are empty.
    splits = {"num_splits": 5} if algorithm == "split" else {}
    values = tokens(1, 1, 2)
    out, lse = attend(tokens(1, 1, 2), values, np.zeros((1, 1, 2), np.float32), algorithm=algorithm, **splits)
    np.testing.assert_allclose(out[0], values[0], rtol=1e-6)
    assert lse.tolist() == [[0]]


@algorithms
def test_finite_mask_values_beaten_by_very_negative_logits(algorithm):
    # Every visible score is -3e38: a mask of -1e30, say, would win against them.
    keys = np.full((5, 1, 1), -3e38, np.float32)
    values = np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1)
    # Next to 3e38, a float32 LSE is the same for one key and for two, so splits cannot be weighed: use one split.
    splits = {"num_splits": 1} if algorithm == "split" else {}
    query = np.ones((3, 1, 1), np.float32)
    out, lse = attend(keys, values, query, scale=1.0, algorithm=algorithm, **splits)
    # The three queries see 3, 4 and 5 keys of the same score.
    np.testing.assert_allclose(out.ravel(), [2, 2.5, 3], rtol=1e-6)
    np.testing.assert_allclose(lse.ravel(), np.float32(-3e38), rtol=1e-6)


@algorithms
def test_fully_masked_rows(algorithm):
    # Three queries and one key: the first two stand before it and see nothing.
    out, lse = attend(tokens(1, 1, 2), np.ones((1, 1, 2), np.float32), tokens(3, 1, 2), algorithm=algorithm)
    assert out.tolist() == [[[0, 0]], [[0, 0]], [[1, 1]]]
    assert np.isneginf(lse[:2]).all()
    assert np.isfinite(lse[2]).all()


@algorithms
def test_lse_base_mixed_up(algorithm):
    _, lse = attend(tokens(8, 1, 2), tokens(8, 1, 2), np.zeros((1, 1, 2), np.float32), algorithm=algorithm)
    np.testing.assert_allclose(lse, [[np.log(8)]], rtol=1e-6)


@algorithms
def test_alibi_off_by_one(algorithm):
    # A token's own key is at distance 0: with one key its score is what it was.
    slopes = np.array([1000.0])
    _, lse = attend(
        tokens(1, 1, 1),
        tokens(1, 1, 1),
        np.zeros((1, 1, 1), np.float32),
        alibi_slopes=slopes,
        algorithm=algorithm,
    )
    assert lse.tolist() == [[0]]
    _, lse = attend(tokens(2, 1, 1), tokens(2, 1, 1), np.zeros((1, 1, 1), np.float32), causal=False,
                    alibi_slopes=np.array([-np.log(2)]), algorithm=algorithm)  # fmt: skip
    # The other one is a step back: exp(ln 2).
    np.testing.assert_allclose(lse, [[np.log(3)]], rtol=1e-6)


@algorithms
def test_sinks_count_once_however_many_splits(algorithm):
    splits = {"num_splits": 4} if algorithm == "split" else {}
    keys, values, query, sinks = tokens(16, 1, 4), tokens(16, 1, 4), tokens(1, 1, 4), np.array([2.0])
    out, lse = attend(keys, values, query, sinks=sinks, algorithm=algorithm, **splits)
    expected, expected_lse = reference.attention(query, keys, values, sinks=sinks, return_lse=True)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-6)


def test_interleaved_caches_taken_for_contiguous():
    # One buffer, K and V of a token side by side.
    both = np.full((3, 4, 2, 2, 8), np.nan, np.float32)
    key, value, query = tokens(6, 2, 8), tokens(6, 2, 8), tokens(1, 2, 8)
    keys, values = both[:, :, 0], both[:, :, 1]
    pn.write_kv(key, value, keys, values, np.array([8, 9, 10, 11, 0, 1]), target=TARGET)
    table = np.array([[2, 0]], np.int32)
    expected = reference.attention(query, key, value)
    for algorithm in ALGORITHMS:
        out = pn.paged_attention(
            query, keys, values, table, np.array([6]), algorithm=algorithm, target=TARGET
        )
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_layers_interleaved_in_one_buffer(layout):
    # Blocks of all layers, keys and values beside each other; a layer's caches are views of it.
    order = (4, 2) if layout == "NHD" else (2, 4)
    buffer = np.full((3, 2, 2, *order, 8), np.nan, np.float32)
    key, value, query = tokens(2, 6, 2, 8), tokens(2, 6, 2, 8), tokens(1, 4, 8)
    layers = [(buffer[:, layer, 0], buffer[:, layer, 1]) for layer in range(2)]
    slots, table = np.array([8, 9, 10, 11, 0, 1]), np.array([[2, 0]], np.int32)
    where = {"layout": layout, "target": TARGET}
    for layer, caches in enumerate(layers):
        pn.write_kv(key[layer], value[layer], *caches, slots, **where)
        before = buffer.copy()
        pn.copy_blocks(*caches, np.array([[2, 1]]), **where)
        # Block 1 of this layer is block 2, and nothing else changed.
        before[1, layer] = before[2, layer]
        np.testing.assert_array_equal(buffer, before)
    for layer, caches in enumerate(layers):
        gathered = pn.gather_kv(*caches, table[0], 6, **where)
        np.testing.assert_array_equal(gathered, [key[layer], value[layer]])
        expected = reference.attention(query, key[layer], value[layer])
        for algorithm in ALGORITHMS:
            out = pn.paged_attention(query, *caches, table, np.array([6]), algorithm=algorithm, **where)
            np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_caches_that_overlap_are_refused():
    buffer = np.zeros((4, 4, 1, 2), np.float32)
    for call in (
        lambda *caches: pn.write_kv(tokens(1, 1, 2), tokens(1, 1, 2), *caches, np.array([0]), target=TARGET),
        lambda *caches: pn.copy_blocks(*caches, np.array([[0, 2]]), target=TARGET),
    ):
        with pytest.raises(ValueError, match="key_cache and value_cache must not share memory"):
            call(buffer[:3], buffer[1:])
    assert not buffer.any()


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("dropped", ["k_scale", "v_scale"])
@algorithms
def test_an_fp8_scale_dropped(algorithm, dropped, by_head):
    # Keys and values of up to 1,000 as float8_e4m3fn, whose largest number is 448, and their scales.
    dense = 300 * tokens(2, 9, 2, 8)
    scales = np.abs(dense).max(axis=(1, 3)) / 448 if by_head else np.abs(dense).max(axis=(1, 2, 3)) / 448
    stored = (dense / (scales[:, None, :, None] if by_head else scales[:, None, None, None])).astype(
        ml_dtypes.float8_e4m3fn
    )
    caches = np.zeros((2, 3, 4, 2, 8), stored.dtype)
    caches.reshape(2, 12, 2, 8)[:, :9] = stored
    # Scores of a standard deviation of 3.
    query = 3 / 300 * tokens(1, 4, 8)
    options = dict(zip(("k_scale", "v_scale"), scales if by_head else scales.tolist(), strict=True))

    def attend(**options):
        return pn.paged_attention(query, *caches, np.arange(3, dtype=np.int32)[None], np.array([9]),
                                  algorithm=algorithm, target=TARGET, **options)  # fmt: skip

    expected = reference.attention(query, *stored, **options)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(attend(**options), expected, rtol=1e-4, atol=1e-5 * largest)
    del options[dropped]
    assert np.abs(attend(**options) - expected).max() > 0.01 * largest
    np.testing.assert_allclose(
        attend(**options), reference.attention(query, *stored, **options), rtol=1e-4, atol=1e-5 * largest
    )


class DLPackOnly:
    """An array of another library that shares its memory through DLPack alone."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_dlpack_taken_for_something_else(layout):
    order = (4, 2) if layout == "NHD" else (2, 4)
    caches = np.full((2, 3, *order, 8), np.nan, np.float32)
    key, value, query = tokens(6, 2, 8), tokens(6, 2, 8), tokens(1, 4, 8)
    where = {"layout": layout, "target": TARGET}
    foreign = [DLPackOnly(cache) for cache in caches]
    slots = DLPackOnly(np.array([8, 9, 10, 11, 0, 1]))
    if not np.from_dlpack(foreign[0]).flags.writeable:  # before NumPy 2.3, whatever the other library says
        with pytest.raises(ValueError, match="key_cache must be writable, got a read-only array"):
            pn.write_kv(DLPackOnly(key), DLPackOnly(value), *foreign, slots, **where)
        return
    pn.write_kv(DLPackOnly(key), DLPackOnly(value), *foreign, slots, **where)
    table = DLPackOnly(np.array([[2, 0]], np.int32))
    gathered = pn.gather_kv(*foreign, DLPackOnly(table.array[0]), 6, **where)
    np.testing.assert_array_equal(gathered, [key, value])
    lens = DLPackOnly(np.array([6], np.int32))
    for algorithm in ALGORITHMS:
        out = pn.paged_attention(DLPackOnly(query), *foreign, table, lens, algorithm=algorithm, **where)
        np.testing.assert_allclose(out, reference.attention(query, key, value), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pairs", [[[0, 1], [1, 2]], [[0, 2], [1, 2]], [[1, 1]]])
def test_overlapping_block_copies(pairs):
    with pytest.raises(ValueError, match="block_pairs must not"):
        pn.copy_blocks(*np.zeros((2, 3, 4, 1, 2), np.float32), np.array(pairs), target=TARGET)


@pytest.mark.parametrize("algorithm", ["naive", "warp", "block", "tile", "split", "cascade"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dim", [5, 32])
def test_a_visible_key_that_is_no_number_hidden(bad, dim, algorithm):
    # The result must be NaN; for -inf, which gives the key weight 0, it must be the result of the other keys.
    keys, values, query = (
        np.ones((70, 1, dim), np.float32),
        tokens(70, 1, dim),
        np.ones((1, 1, dim), np.float32),
    )
    keys[3, 0, -1] = bad
    splits = {"num_splits": 3} if algorithm == "split" else {}
    results = attend(keys, values, query, algorithm=algorithm, **splits)
    expected = reference.attention(query, keys, values, return_lse=True)
    for result, right in zip(results, expected, strict=True):
        if bad == -np.inf:
            np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-6)
        else:
            assert np.isnan(result).all()


@pytest.mark.parametrize("lse", [np.nan, 0.0])
def test_nan_lost_in_a_merge(lse):
    one = np.full((1, 1, 2), 5, np.float32), np.zeros((1, 1), np.float32)
    other = np.full((1, 1, 2), np.nan, np.float32), np.full((1, 1), lse, np.float32)
    for parts in ((*one, *other), (*other, *one)):
        assert np.isnan(pn.merge_states(*parts, target=TARGET)[0]).all()


def test_a_length_beyond_int32_wraps():
    caches = np.ones((2, 1, 256, 1, 1), np.float32)
    table = np.broadcast_to(np.int32(0), (1, 2**24))
    query = np.ones((1, 1, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"seq_lens must lie in 0 .. 2147483647 \(positions are int32\), got"
    ):
        pn.paged_attention(query, *caches, table, np.array([2**31]), window=4, target=TARGET)
    for algorithm in ("block", "tile", "split", "cascade"):
        out = pn.paged_attention(
            query, *caches, table, np.array([2**31 - 1]), window=4, algorithm=algorithm, target=TARGET
        )
        assert out.tolist() == [[[1.0]]]


def test_outputs_written_over_inputs():
    buffer = np.ones((5, 1, 4), np.float32)
    caches = np.ones((2, 1, 4, 1, 4), np.float32)
    for out in (buffer[1:], caches[0].reshape(4, 1, 4)):
        with pytest.raises(ValueError, match=r"out and (query|key_cache) must not share memory"):
            pn.paged_attention(
                buffer[:4], *caches, np.zeros((4, 1), np.int32), np.ones(4, np.int32), out=out, target=TARGET
            )
    with pytest.raises(ValueError, match="key and key_cache must not share memory"):
        pn.write_kv(caches[0, 0], caches[0, 0] + 1, *caches, np.array([3, 2, 1, 0]), target=TARGET)


@pytest.mark.parametrize("name", ["softcap", "k_scale", "v_scale"])
def test_a_factor_that_is_0_in_float32(name):
    with pytest.raises(ValueError, match=rf"{name} must be .*positive.* got {name}=1e-50"):
        attend(tokens(2, 1, 4), tokens(2, 1, 4), tokens(1, 1, 4), **{name: 1e-50})
