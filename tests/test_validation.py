"""Each bad argument of an operation is refused by name, and its nearest good neighbour is taken."""

# ruff: noqa: E501 (a table with a case a line)

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import paged_numba as pn

TARGET = "lockstep"
F32 = np.float32


def write_arguments():
    return {
        "key": np.ones((3, 2, 4), F32),
        "value": np.ones((3, 2, 4), F32),
        "key_cache": np.zeros((5, 8, 2, 4), F32),
        "value_cache": np.zeros((5, 8, 2, 4), F32),
        "slot_mapping": np.array([0, 39, -1]),
    }


def gather_arguments():
    return {
        "key_cache": np.zeros((5, 8, 2, 4), F32),
        "value_cache": np.zeros((5, 8, 2, 4), F32),
        "block_table": np.array([4, 0, 99], np.int32),
        "seq_len": 16,
    }


def copy_arguments():
    return {
        "key_cache": np.zeros((5, 8, 2, 4), F32),
        "value_cache": np.zeros((5, 8, 2, 4), F32),
        "block_pairs": np.array([[0, 4], [0, 3]]),
    }


def attention_arguments():
    return {
        "query": np.ones((2, 4, 4), F32),
        "key_cache": np.zeros((5, 8, 2, 4), F32),
        "value_cache": np.zeros((5, 8, 2, 4), F32),
        "block_tables": np.array([[4, 0, 99], [-1, -1, -1]], np.int32),
        "seq_lens": np.array([16, 0], np.int32),
    }


def merge_arguments():
    return {
        "out_a": np.ones((2, 4, 5), F32),
        "lse_a": np.ones((2, 4), F32),
        "out_b": np.ones((2, 4, 5), F32),
        "lse_b": np.ones((2, 4), F32),
    }


def read_only(*shape):
    array = np.zeros(shape, F32)
    array.flags.writeable = False
    return array


OPERATIONS = {
    pn.merge_states: merge_arguments,
    pn.write_kv: write_arguments,
    pn.gather_kv: gather_arguments,
    pn.copy_blocks: copy_arguments,
    pn.paged_attention: attention_arguments,
}

BAD = [
    (pn.write_kv, "key", np.ones((3, 2, 4)), TypeError, "key must have dtype float32, got key.dtype=float64"),
    (pn.write_kv, "key", [[[1.0]]], TypeError, "key must be an array, got list"),
    (pn.write_kv, "key", np.ones((3, 2), F32), ValueError, r"key must have shape \[num_tokens, 2, 4\], got key.shape=\(3, 2\)"),
    (pn.write_kv, "key", np.ones((3, 1, 4), F32), ValueError, r"key must have shape .* got key.shape=\(3, 1, 4\)"),
    (pn.write_kv, "value", np.ones((2, 2, 4), F32), ValueError, r"value must have shape \[3, 2, 4\], got value.shape=\(2, 2, 4\)"),
    (pn.write_kv, "value_cache", np.ones((5, 8, 3, 4), F32), ValueError,
     r"value_cache must have shape \[5, 8, 2, value_head_dim\]"),
    (pn.write_kv, "value_cache", np.ones((5, 8, 2, 3), F32), ValueError, r"value must have shape \[3, 2, 3\], got"),
    (pn.write_kv, "key_cache", np.ones((5, 8, 2, 4), int), TypeError,
     "key_cache must have dtype float32 or float16 or bfloat16 or float8_e4m3fn, got .*int64"),
    (pn.write_kv, "value_cache", np.ones((5, 8, 2, 4), np.float16), TypeError,
     "value_cache must have dtype float32, got value_cache.dtype=float16"),
    (pn.write_kv, "key_cache", np.ones((5, 8, 2, 4), ">f4"), TypeError, "key_cache must have dtype .* got .*>f4"),
    (pn.write_kv, "value", np.ones((3, 2, 4), np.float16), TypeError, "value must have dtype float32, got .*float16"),
    (pn.write_kv, "layout", "NDH", ValueError, "layout must be one of NHD, HND, packed, got layout='NDH'"),
    (pn.gather_kv, "layout", [], ValueError, r"layout must be one of NHD, HND, packed, got layout=\[\]"),
    (pn.gather_kv, "layout", None, ValueError, "layout must be one of NHD, HND, packed, got layout=None"),
    (pn.copy_blocks, "layout", "packed", ValueError,
     r"key_cache must have shape \[num_blocks, num_kv_heads, head_dim // x, block_size, x\], got .*\(5, 8, 2, 4\)"),
    (pn.paged_attention, "k_scale", 0.0, ValueError, "k_scale must be positive and finite in float32, got k_scale=0.0"),
    (pn.paged_attention, "v_scale", np.ones(3), ValueError,
     r"v_scale must be a number or have shape \[2\], got v_scale.shape=\(3,\)"),
    (pn.paged_attention, "k_scale", "x", TypeError, "k_scale must hold real numbers"),
    (pn.paged_attention, "query", np.ones((2, 4, 4)), TypeError,
     "query must have dtype float32 or float16 or bfloat16, got query.dtype=float64"),
    (pn.paged_attention, "out", np.zeros((2, 4, 4), np.float16), TypeError, "out must have dtype float32, got .*16"),
    (pn.write_kv, "slot_mapping", np.array([0.0, 1.0, 2.0]), TypeError, "slot_mapping must hold integers, got .*float64"),
    (pn.write_kv, "slot_mapping", np.array([True, False, True]), TypeError, "slot_mapping must hold integers, got .*bool"),
    (pn.write_kv, "slot_mapping", np.array([0, 1]), ValueError, r"slot_mapping must have shape \[3\], got .*\(2,\)"),
    (pn.write_kv, "slot_mapping", np.array([0, 1, 2, 3]), ValueError, r"slot_mapping must have shape \[3\], got .*\(4,\)"),
    (pn.write_kv, "slot_mapping", np.array([0, 40, 1]), ValueError, r"slot_mapping must lie in .*39.*got slot_mapping\[1\]=40"),
    (pn.write_kv, "slot_mapping", np.array([0, -2, 1]), ValueError, r"got slot_mapping\[1\]=-2"),
    (pn.write_kv, "slot_mapping", np.array([7, 1, 7]), ValueError, r"got slot 7 for tokens \[0, 2\]"),
    (pn.gather_kv, "block_table", np.array([[4, 0]]), ValueError, r"block_table must have shape \[max_blocks\]"),
    (pn.gather_kv, "block_table", np.array([4, 5]), ValueError, r"block_table must lie in 0 \.\. 4 .*got block_table\[1\]=5"),
    (pn.gather_kv, "block_table", np.array([4, -1]), ValueError, r"got block_table\[1\]=-1"),
    (pn.gather_kv, "block_table", np.array([4.0, 0]), TypeError, "block_table must hold integers"),
    (pn.gather_kv, "seq_len", 25, ValueError, r"seq_len must lie in 0 \.\. 24 .*got seq_len=25"),
    (pn.gather_kv, "seq_len", -1, ValueError, "got seq_len=-1"),
    (pn.gather_kv, "seq_len", 2.0, TypeError, "seq_len must be an integer, got seq_len=2.0"),
    (pn.copy_blocks, "block_pairs", np.array([0, 4]), ValueError, r"block_pairs must have shape \[num_pairs, 2\]"),
    (pn.copy_blocks, "block_pairs", np.array([[0, 5]]), ValueError, r"got block_pairs\[0, 1\]=5"),
    (pn.copy_blocks, "block_pairs", np.array([[-1, 0]]), ValueError, r"got block_pairs\[0, 0\]=-1"),
    (pn.copy_blocks, "block_pairs", np.array([[0, 4], [1, 4]]), ValueError, "must not write a block twice, got dst 4 twice"),
    (pn.copy_blocks, "block_pairs", np.array([[0, 4], [4, 3]]), ValueError, "must not read a block that it writes, got 4"),
    (pn.copy_blocks, "key_cache", np.zeros((0, 8, 2, 4), F32), ValueError,
     r"value_cache must have shape \[0, 8, 2, value_head_dim\]"),
    (pn.paged_attention, "query", np.ones((2, 3, 4), F32), ValueError, "num_q_heads must be a positive multiple .* got num_q_heads=3 and num_kv_heads=2"),
    (pn.paged_attention, "query", np.ones((2, 0, 4), F32), ValueError, "num_q_heads must be a positive multiple .* got num_q_heads=0 and num_kv_heads=2"),
    (pn.paged_attention, "query", np.ones((2, 4, 5), F32), ValueError, r"query must have shape \[num_tokens, num_q_heads, 4\]"),
    (pn.paged_attention, "block_tables", np.zeros((3, 3), int), ValueError, r"block_tables must have shape \[2, max_blocks\]"),
    (pn.paged_attention, "block_tables", np.zeros((2, 3)), TypeError, "block_tables must hold integers, got .*float64"),
    (pn.paged_attention, "block_tables", np.array([[4, 5, 0], [0, 0, 0]]), ValueError,
     r"block_tables must lie in 0 \.\. 4 .*got block_tables\[0, 1\]=5 with seq_lens\[0\]=16"),
    (pn.paged_attention, "block_tables", np.array([[4, -1, 0], [0, 0, 0]]), ValueError, r"got block_tables\[0, 1\]=-1"),
    (pn.paged_attention, "seq_lens", np.array([16, 25]), ValueError, r"seq_lens must lie in 0 \.\. 24 .*got seq_lens\[1\]=25"),
    (pn.paged_attention, "seq_lens", np.array([-1, 0]), ValueError, r"got seq_lens\[0\]=-1"),
    (pn.paged_attention, "seq_lens", np.array([16.0, 0]), TypeError, "seq_lens must hold integers"),
    (pn.paged_attention, "seq_lens", np.array([16]), ValueError, r"seq_lens must have shape \[2\]"),
    (pn.paged_attention, "scale", float("nan"), ValueError, "scale must be a finite float32 or None, got scale=nan"),
    (pn.paged_attention, "scale", 1e39, ValueError, r"got scale=1e\+39"),
    (pn.paged_attention, "scale", True, ValueError, "scale must be a finite float32 or None, got scale=True"),
    (pn.paged_attention, "causal", "no", TypeError, "causal must be True or False, got causal='no'"),
    (pn.paged_attention, "return_lse", 1, TypeError, "return_lse must be True or False, got return_lse=1"),
    (pn.paged_attention, "block_tables", np.array([[4, 5, 0], [5, 0, 0]]), ValueError, r"got block_tables\[0, 1\]=5"),
    (pn.paged_attention, "scale", "x", ValueError, "got scale='x'"),
    (pn.paged_attention, "out", np.zeros((2, 4, 5), F32), ValueError, r"out must have shape \[2, 4, 4\]"),
    (pn.paged_attention, "out", read_only(2, 4, 4), ValueError, "out must be writable, got a read-only array"),
    (pn.write_kv, "key_cache", read_only(5, 8, 2, 4), ValueError, "key_cache must be writable"),
    (pn.write_kv, "value_cache", read_only(5, 8, 2, 4), ValueError, "value_cache must be writable"),
    (pn.copy_blocks, "value_cache", read_only(5, 8, 2, 4), ValueError, "value_cache must be writable"),
    (pn.paged_attention, "out", np.zeros((2, 4, 4)), TypeError, "out must have dtype float32"),
    (pn.write_kv, "slot_mapping", None, TypeError, "slot_mapping must be an array, got NoneType"),
    (pn.gather_kv, "block_table", None, TypeError, "block_table must be an array, got NoneType"),
    (pn.copy_blocks, "block_pairs", None, TypeError, "block_pairs must be an array, got NoneType"),
    (pn.paged_attention, "block_tables", None, TypeError, "block_tables must be an array, got NoneType"),
    (pn.paged_attention, "scale", 10**400, ValueError, "scale must be a finite float32 or None"),
    (pn.paged_attention, "softcap", 10**400, ValueError, "softcap must be a positive float32 or None"),
    (pn.paged_attention, "algorithm", "fast", ValueError, "algorithm must be one of auto, naive, warp, block, tile, split, cascade, got algorithm='fast'"),
    (pn.paged_attention, "num_splits", 2, ValueError,
     "num_splits must be None unless algorithm is 'split' or 'block', got num_splits=2 and algorithm='auto'"),
    (pn.paged_attention, "window", 0, ValueError, "window must be positive or None, got window=0"),
    (pn.paged_attention, "window", 1.5, TypeError, "window must be an integer, got window=1.5"),
    (pn.paged_attention, "softcap", 0.0, ValueError, "softcap must be a positive float32 or None, got softcap=0.0"),
    (pn.paged_attention, "softcap", "x", ValueError, "got softcap='x'"),
    (pn.paged_attention, "alibi_slopes", np.ones(3), ValueError, r"alibi_slopes must have shape \[4\], got .*\(3,\)"),
    (pn.paged_attention, "alibi_slopes", np.ones(4, bool), TypeError, "alibi_slopes must hold real numbers, got .*bool"),
    (pn.paged_attention, "sinks", np.array([0, 1, np.nan, 0]), ValueError, r"sinks must be finite, got sinks\[2\]=nan"),
    (pn.paged_attention, "sinks", np.full(4, np.inf, np.float16), ValueError, r"sinks must be finite, got sinks\[0\]=inf"),
    (pn.paged_attention, "out", np.lib.stride_tricks.as_strided(np.zeros(8, F32), (2, 4, 4), (0, 16, 4)), ValueError,
     r"out must not have elements that share memory, got out.strides=\(0, 16, 4\)"),
    (pn.paged_attention, "cu_seqlens_q", np.array([0, 2]), ValueError, r"cu_seqlens_q must have shape \[3\]"),
    (pn.paged_attention, "cu_seqlens_q", np.array([0, 1, 3]), ValueError, r"end with 2 \(len\(query\)\), got .*\[-1\]=3"),
    (pn.paged_attention, "cu_seqlens_q", np.array([0, 3, 2]), ValueError,
     r"must not decrease, got cu_seqlens_q\[1\]=3 and cu_seqlens_q\[2\]=2"),
    (pn.paged_attention, "cu_seqlens_q", np.array([0.0, 1, 2]), TypeError, "cu_seqlens_q must hold integers"),
    (pn.merge_states, "lse_a", np.ones((2, 3), F32), ValueError, r"lse_a must have shape \[2, 4\]"),
    (pn.merge_states, "out_b", np.ones((2, 4, 5)), TypeError, "out_b must have dtype float32"),
    (pn.merge_states, "out_b", np.ones((2, 4, 6), F32), ValueError, r"out_b must have shape \[2, 4, 5\]"),
    (pn.paged_attention, "target", "gpu", ValueError, "target must be one of auto, cuda, lockstep, cudasim, got target='gpu'"),
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_good_arguments_are_taken(operation):
    operation(**OPERATIONS[operation](), target=TARGET)


@pytest.mark.parametrize(
    ("operation", "name", "value", "error", "message"),
    BAD,
    ids=[f"{operation.__name__}-{name}-{i}" for i, (operation, name, *_) in enumerate(BAD)],
)
def test_bad_argument_is_named_and_nothing_is_changed(operation, name, value, error, message):
    arguments = {**OPERATIONS[operation](), "target": TARGET, name: value}
    arrays = [array for array in arguments.values() if isinstance(array, np.ndarray)]
    before = [array.copy() for array in arrays]
    with pytest.raises(error, match=message):
        operation(**arguments)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_caches_that_share_memory_are_refused_and_interleaved_ones_taken():
    arguments = write_arguments()
    whole = np.zeros((5, 8, 2, 8), F32)
    for key_cache, value_cache in ((whole[..., :4], whole[..., 1:5]), (whole[..., :4], whole[..., :4])):
        with pytest.raises(ValueError, match="key_cache and value_cache must not share memory"):
            pn.write_kv(**{**arguments, "key_cache": key_cache, "value_cache": value_cache}, target=TARGET)
    assert not whole.any()
    arguments["value"] *= 2
    pn.write_kv(**{**arguments, "key_cache": whole[..., ::2], "value_cache": whole[..., 1::2]}, target=TARGET)
    np.testing.assert_array_equal(whole[0, 0], [[1, 2] * 4] * 2)


@pytest.mark.parametrize(
    ("shape", "name"),
    [((1, 1, 1, 1025), "head_dim"), ((1, 1, 65536, 1), "num_kv_heads"), ((1, 65536, 1, 1), "block_size")],
)
def test_sizes_that_no_launch_reaches_are_named(shape, name):
    caches = np.zeros((2, *shape), F32)
    key = np.zeros((1, *shape[2:]), F32)
    with pytest.raises(ValueError, match=f"{name} must be at most"):
        pn.write_kv(key, key, *caches, np.array([0]), target=TARGET)
    with pytest.raises(ValueError, match=f"{name} must be at most"):
        pn.copy_blocks(*caches, np.zeros((0, 2), int), target=TARGET)


@pytest.mark.parametrize("length", [9, 15, 16])
def test_block_that_is_filled_in_part_is_checked_like_a_full_one(length):
    arguments = {**attention_arguments(), "seq_lens": np.array([length, 0])}
    arguments["block_tables"] = np.array([[4, 5, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match=rf"got block_tables\[0, 1\]=5 with seq_lens\[0\]={length}"):
        pn.paged_attention(**arguments, target=TARGET)
    arguments["seq_lens"] = np.array([8, 0])
    pn.paged_attention(**arguments, target=TARGET)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int8])
def test_numbers_of_any_type_are_taken_for_heads(dtype):
    arguments, by_head = attention_arguments(), np.array([1, 2, 0, 3])
    options = {"alibi_slopes": by_head, "sinks": by_head, "v_scale": np.array([1, 2])}
    expected = pn.paged_attention(**arguments, **options, target=TARGET)
    converted = {name: numbers.astype(dtype) for name, numbers in options.items()}
    np.testing.assert_array_equal(pn.paged_attention(**arguments, **converted, target=TARGET), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "number", [np.float16(0.5), np.float32(0.5), np.longdouble(0.5), Fraction(1, 2)], ids=repr
)
def test_numbers_of_any_type_are_taken_for_scale_and_softcap(number):
    arguments = {"target": TARGET, **attention_arguments()}
    query, key = arguments["query"][:1].astype(float), np.ones((9, 2, 4))
    for name in ("scale", "softcap"):
        ours = pn.paged_attention(**arguments, **{name: number})
        np.testing.assert_array_equal(ours, pn.paged_attention(**arguments, **{name: 0.5}))
        ours = pn.reference.attention(query, key, key, **{name: number})
        np.testing.assert_array_equal(ours, pn.reference.attention(query, key, key, **{name: 0.5}))
        for infinite in (np.float16(np.inf), np.float32(-np.inf), np.longdouble(np.inf)):
            with pytest.raises(
                ValueError, match=f"{name} must be .*finite.*, got {name}=|{name} must be a positive"
            ):
                pn.paged_attention(**arguments, **{name: infinite})
            with pytest.raises(ValueError, match=f"{name} must be finite in float64, got {name}="):
                pn.reference.attention(query, key, key, **{name: infinite})


@pytest.mark.parametrize("number", [np.int8(3), np.array(3), np.uint64(3)])
def test_integers_of_any_type_are_taken(number):
    arguments = {
        **attention_arguments(),
        "seq_lens": np.array([13, 5]),
        "block_tables": np.array([[4, 0], [1, 2]]),
    }
    arguments["key_cache"][:] = arguments["value_cache"][:] = np.random.default_rng(0).standard_normal(
        (5, 8, 2, 4)
    )
    for algorithm, name in (("auto", "window"), ("split", "num_splits")):
        ours = pn.paged_attention(**arguments, **{name: number}, algorithm=algorithm, target=TARGET)
        right = pn.paged_attention(**arguments, **{name: 3}, algorithm=algorithm, target=TARGET)
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize("dtype", [">i4", "<i4", ">i8", "<i8", "u1", ">u2", "i1"])
def test_small_integer_arrays_of_any_dtype_are_taken(dtype):
    rng, results = np.random.default_rng(0), []
    key, value = rng.standard_normal((2, 3, 2, 4)).astype(F32)
    for kind in (np.int64, dtype):
        caches = np.zeros((2, 5, 8, 2, 4), F32)
        tables, lens, starts = np.array([[2, 1]], kind), np.array([3], kind), np.array([0, 2], kind)
        pn.write_kv(key, value, *caches, np.array([9, 16, 17], kind), target=TARGET)
        pn.copy_blocks(*caches, np.array([[1, 0]], kind), target=TARGET)
        results.append([
            *pn.gather_kv(*caches, tables[0], np.array(11, kind), target=TARGET),
            *pn.paged_attention(
                key[:2], *caches, tables, lens, cu_seqlens_q=starts, return_lse=True, algorithm="split", target=TARGET
            ),
            caches,
        ])  # fmt: skip
    for ours, right in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize(
    "change", [lambda dtype: dtype.newbyteorder(), lambda dtype: "g", lambda dtype: "c8"]
)
def test_arrays_of_a_dtype_that_no_gpu_has_are_refused_by_name(operation, change):
    arguments = OPERATIONS[operation]()
    arguments |= {"out": np.zeros((2, 4, 4), F32)} if operation is pn.paged_attention else {}
    for name, array in arguments.items():
        if getattr(array, "dtype", None) == F32:
            wrong = array.astype(change(array.dtype))
            with pytest.raises(TypeError, match=f"{name} must have dtype .*, got {name}.dtype="):
                operation(**{**arguments, name: wrong}, target=TARGET)


def test_an_empty_batch_takes_an_empty_out():
    query, caches = np.zeros((0, 4, 8), F32), np.zeros((2, 2, 4, 2, 8), F32)
    out = np.zeros((0, 4, 8), F32)
    tables = np.zeros((0, 1), np.int32)
    assert pn.paged_attention(query, *caches, tables, [], out=out, target=TARGET) is out


@pytest.mark.parametrize("target", [["lockstep"], np.array(["lockstep"]), None, 1])
def test_a_target_that_is_no_name_is_refused_by_name(target):
    with pytest.raises(ValueError, match="target must be one of auto, cuda, lockstep, cudasim, got target="):
        pn.targets.resolve(target)
    with pytest.raises(ValueError, match="target must be one of cuda, lockstep, cudasim, got target="):
        pn.plan.choose([1], [0, 1], num_q_heads=8, num_kv_heads=2, multiprocessors=1, target=target)


@pytest.mark.parametrize("seq_ids", [None, "a", 3])
def test_ids_that_are_no_sequence_are_refused_by_name(seq_ids):
    cache = pn.PagedKVCache(2, 4, 1, 2, target=TARGET)
    for ask in (cache.block_tables, lambda ids: cache.attend(ids, np.ones((1, 1, 2), F32))):
        with pytest.raises(TypeError, match="seq_ids must be a sequence of ids, got seq_ids="):
            ask(seq_ids)
