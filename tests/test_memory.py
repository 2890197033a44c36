"""Memory that operations write: not read-only, not shared by two elements or two arguments, whatever the array."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.errors import LaunchError
from paged_numba.lockstep.cuda import facade
from paged_numba.ops.memory import overlaps_itself

TARGET = "lockstep"
F32 = np.float32

axes = st.lists(st.tuples(st.integers(0, 5), st.integers(-24, 24)), max_size=4)


@given(axes=axes, itemsize=st.sampled_from((1, 2, 3, 4, 8)))
# The axes interleave: 0 8 16, 12 20 28; one more element of either axis, and 24 occurs twice.
@example(axes=[(2, 12), (3, 8)], itemsize=4)
@example(axes=[(3, 12), (4, 8)], itemsize=4)
@example(axes=[(2, 3)], itemsize=4)
@example(axes=[(2, -4), (2, 4)], itemsize=4)
@example(axes=[(4, 0), (0, 0)], itemsize=4)
def test_overlap_is_what_a_list_of_all_addresses_says(axes, itemsize):
    shape, strides = tuple(length for length, _ in axes), tuple(stride for _, stride in axes)
    addresses = sorted(
        sum(place * stride for place, stride in zip(index, strides, strict=True))
        for index in itertools.product(*map(range, shape))
    )
    overlap = any(after - before < itemsize for before, after in itertools.pairwise(addresses))
    assert overlaps_itself(shape, strides, itemsize) == overlap


WRONG = {
    "strides of 0 only": lambda shape, strides, itemsize: 0 in strides,
    "interleaved axes refused": lambda shape, strides, itemsize: any(
        stride < itemsize + sum((n - 1) * shorter for n, shorter in axes[:place])
        for axes in [sorted(zip(shape, strides, strict=True), key=lambda axis: axis[1])]
        for place, (_, stride) in enumerate(axes)
    ),
    "neighbours only": lambda shape, strides, itemsize: min(strides) < itemsize,
    "equal addresses only": lambda shape, strides, itemsize: overlaps_itself(shape, strides, 1),
    "no negative strides": lambda shape, strides, itemsize: min(strides) < 0,
}


@pytest.mark.parametrize("name", WRONG)
def test_the_list_of_all_addresses_notices_a_wrong_answer(name):
    # Itself; interleaved; meeting at 24; a window; parts of elements; reversed.
    cases = [
        ((2, 3), (12, 4)),
        ((2, 3), (12, 8)),
        ((3, 4), (12, 8)),
        ((2, 3), (4, 4)),
        ((2, 2), (4, 2)),
        ((2, 2), (8, -4)),
    ]
    wrong = 0
    for shape, strides in cases:
        test_overlap_is_what_a_list_of_all_addresses_says.hypothesis.inner_test(
            list(zip(shape, strides, strict=True)), 4
        )
        wrong += WRONG[name](shape, strides, 4) != overlaps_itself(shape, strides, 4)
    assert wrong


def test_a_question_that_takes_too_long_is_answered_with_yes():
    # Strides of 10,001 and 10,000 elements meet after 10,001 elements, of which there are none.
    assert overlaps_itself((10_001, 10_001), (40_004, 40_000), 4)
    assert not overlaps_itself((1_000, 1_000), (4_004, 4_000), 4)


@given(
    shape=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    steps=st.lists(st.sampled_from((1, -1, 2, -2)), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    dtype=st.sampled_from((F32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn)),
)
def test_slices_and_transposes_are_taken(shape, steps, order, dtype):
    whole = np.zeros([2 * length + 1 for length in shape], dtype)
    view = whole.transpose(order)[tuple(slice(None, None, step) for step in steps)]
    assert not overlaps_itself(view.shape, view.strides, view.itemsize)
    token = np.ones((1, *view.shape[2:]), dtype)
    value_cache = np.zeros(view.shape, dtype)
    pn.write_kv(token, token, view, value_cache, [view.shape[0] * view.shape[1] - 1], target=TARGET)
    assert np.count_nonzero(whole.astype(F32)) == token.size


# Arrays that are no `numpy.ndarray`.


class Described:
    """An array of another library in host memory, with shape and dtype."""

    def __init__(self, array):
        self.kept, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.__array_interface__ = array.__array_interface__


class OnGPU:
    """An array that only a GPU can read; for its address on the GPU, it has one on the host."""

    def __init__(self, array):
        self.kept, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.__cuda_array_interface__ = {**array.__array_interface__, "typestr": "<f4"}


kinds = pytest.mark.parametrize(
    "kind",
    [lambda array: array, lambda array: facade.to_device(array, copy=False), Described, OnGPU],
    ids=["numpy", "facade", "described", "on a GPU"],
)


def read_only(array):
    view = array[...]
    view.flags.writeable = False
    return view


def operands():
    """Return arrays by name, each with memory of its own."""
    rng = np.random.default_rng(0)
    arrays = {"key": (2, 2, 4), "value": (2, 2, 4), "query": (1, 4, 4), "out": (1, 4, 4)}
    arrays |= {"key_cache": (5, 8, 2, 4), "value_cache": (5, 8, 2, 4)}
    return {name: rng.standard_normal(shape).astype(F32) for name, shape in arrays.items()}


def run(operation, arrays):
    caches = arrays["key_cache"], arrays["value_cache"]
    if operation == "write_kv":
        return pn.write_kv(arrays["key"], arrays["value"], *caches, [39, 0], target=TARGET)
    if operation == "copy_blocks":
        return pn.copy_blocks(*caches, [[0, 4]], target=TARGET)
    return pn.paged_attention(arrays["query"], *caches, [[3, 1]], [9], out=arrays["out"], target=TARGET)


# The memory of `name`, of which the last column is what to look for in the message.
BAD = [
    ("write_kv", "key_cache", lambda given: read_only(given["key_cache"]), "key_cache must be writable"),
    ("write_kv", "value_cache", lambda given: read_only(given["value_cache"]), "value_cache must be writable"),
    ("copy_blocks", "value_cache", lambda given: read_only(given["value_cache"]), "value_cache must be writable"),
    ("attention", "out", lambda given: read_only(given["out"]), "out must be writable"),
    ("write_kv", "value_cache", lambda given: given["key_cache"], "key_cache and value_cache must not share memory"),
    ("copy_blocks", "key_cache", lambda given: given["value_cache"], "key_cache and value_cache must not share"),
    ("write_kv", "key", lambda given: given["key_cache"][1, :2], "key and key_cache must not share memory"),
    ("write_kv", "value", lambda given: given["key_cache"][1, :2], "value and key_cache must not share memory"),
    ("attention", "out", lambda given: given["query"], "out and query must not share memory"),
    ("attention", "out", lambda given: given["query"][:, ::-1], "out and query must not share memory"),
    ("attention", "out", lambda given: given["value_cache"][0, :2].reshape(1, 4, 4), "out and value_cache must not"),
    # Windows: each block begins one token after the one before it; each head one number after the one before it.
    ("write_kv", "key_cache", lambda given: as_strided(np.zeros(99, F32), (5, 8, 2, 4), (32, 32, 16, 4)),
     r"key_cache must not have elements that share memory, got key_cache.strides=\(32, 32, 16, 4\)"),
    ("write_kv", "value_cache", lambda given: as_strided(np.zeros(400, F32), (5, 8, 2, 4), (256, 32, 4, 4)),
     "value_cache must not have elements that share memory"),
    ("copy_blocks", "key_cache", lambda given: np.broadcast_to(np.zeros((8, 2, 4), F32), (5, 8, 2, 4)), "key_cache"),
    ("attention", "out", lambda given: sliding_window_view(np.zeros(7, F32), 4, writeable=True)[None],
     "out must not have elements that share memory"),
    ("attention", "out", lambda given: as_strided(np.zeros(9, F32)[5:], (1, 4, 4), (0, -4, 4)),
     "out must not have elements that share memory"),
]  # fmt: skip


@kinds
@pytest.mark.parametrize(("operation", "name", "bad", "message"), BAD)
def test_memory_that_cannot_be_written_is_refused_and_nothing_is_changed(operation, name, bad, message, kind):
    arrays = operands()
    arrays[name] = bad(arrays)
    before = {name: array.copy() for name, array in arrays.items()}
    with pytest.raises(ValueError, match=message):
        run(operation, {name: kind(array) for name, array in arrays.items()})
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


@kinds
@pytest.mark.parametrize("operation", ["write_kv", "copy_blocks", "attention"])
def test_memory_of_its_own_is_written_whatever_the_array(operation, kind):
    expected, arrays = operands(), operands()
    run(operation, expected)
    given = {name: kind(array) for name, array in arrays.items()}
    if kind is OnGPU:
        with pytest.raises((LaunchError, TypeError), match=r"must lie in host memory|needs a GPU that Numba"):
            run(operation, given)
        expected = operands()
    else:
        run(operation, given)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])


def test_an_array_of_which_the_memory_is_unknown_is_left_to_the_launch():
    for interface in ({}, {"data": (0, False)}, {"data": 3}, None, 5):
        arrays = operands()
        arrays["key_cache"] = unknown = OnGPU(arrays["key_cache"])
        unknown.__cuda_array_interface__ = interface
        with pytest.raises(LaunchError, match="key_cache must lie in host memory"):
            run("write_kv", arrays)


def test_an_array_on_a_gpu_that_is_not_there_is_named():
    if pn.targets.cuda_unavailable_reason() is None:
        pytest.skip("there is a GPU")
    arrays = operands()
    with pytest.raises(
        ValueError, match=r"slot_mapping must be an array, got .* needs a GPU that Numba finds"
    ):
        pn.write_kv(
            *list(arrays.values())[:2], arrays["key_cache"], arrays["value_cache"], OnGPU(np.zeros(2))
        )


@pytest.mark.parametrize(("layout", "shape"), [("HND", (5, 2, 8, 4)), ("packed", (5, 2, 1, 8, 4))])
def test_a_cache_on_a_gpu_that_is_not_there_is_named(layout, shape):
    if pn.targets.cuda_unavailable_reason() is None:
        pytest.skip("there is a GPU")
    key_cache, value_cache = (
        np.zeros(shape, F32),
        np.zeros((5, 2, 4, 8) if layout == "packed" else shape, F32),
    )
    for caches in ((OnGPU(key_cache), value_cache), (key_cache, OnGPU(value_cache))):
        with pytest.raises(
            TypeError, match=r"key_cache and value_cache must be arrays that can be viewed here: .* GPU"
        ):
            pn.copy_blocks(*caches, [[0, 1]], layout=layout, target=TARGET)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_an_array_of_a_dtype_that_its_interface_cannot_name_is_taken(dtype):
    caches = np.zeros((2, 2, 4, 1, 2), dtype)
    token = np.ones((1, 1, 2), dtype)
    pn.write_kv(Described(token), token, Described(caches[0]), caches[1], [5], target=TARGET)
    assert np.argwhere(caches[0].astype(F32)[..., 0, 0]).tolist() == [[1, 1]]


def test_the_sanitizer_finds_reads_of_fresh_memory_of_the_facade():
    arrays = operands()
    arrays["key_cache"] = facade.device_array((5, 8, 2, 4), F32)
    with lockstep.sanitizing() as findings:
        run("attention", arrays)
    assert "key_cache" in str(findings)


# Masked arrays.


@pytest.mark.parametrize("name", ["key", "value", "key_cache", "value_cache", "slot_mapping"])
def test_a_masked_array_is_refused_by_name(name):
    arrays = {**operands(), "slot_mapping": np.array([39, 0])}
    given = {key: arrays[key] for key in ("key", "value", "key_cache", "value_cache", "slot_mapping")}
    given[name] = np.ma.array(given[name], mask=given[name] == given[name].flat[0])
    with pytest.raises(TypeError, match=f"{name} must not be a masked array, .* got a mask that hides 1 of "):
        pn.write_kv(**given, target=TARGET)
