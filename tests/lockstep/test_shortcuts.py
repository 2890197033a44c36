"""Shortcuts of the machine give what the plain way gives: masks on bits, powers of two, cached positions."""

import numpy as np
import pytest

from paged_numba import cuda, lockstep
from paged_numba.errors import KernelIndexError
from paged_numba.lockstep.machine import arithmetic

SHAPE = (16, 256)
RNG = np.random.default_rng(0)


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


@pytest.mark.parametrize(
    "dtype", "bool int8 int32 uint32 int64 uint64 float16 float32 float64 complex64".split()
)
@pytest.mark.parametrize(
    "shapes", [(SHAPE, SHAPE), (SHAPE, ()), ((), SHAPE), ((16, 1), (1, 256)), ((16, 1), ())]
)
def test_masks_on_bits_choose_as_numpy_does(dtype, shapes):
    a, b = (RNG.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8) for shape in shapes)
    if dtype == "bool":
        a, b = a % 2, b % 2
    # Any bits: among the floats are NaN of all kinds, infinities and -0.0.
    a, b = (np.ascontiguousarray(x).view(dtype)[..., 0] for x in (a, b))
    a, b = (x[()] if x.ndim == 0 else x for x in (a, b))
    for mask in (RNG.random(SHAPE) < 0.5, RNG.random(SHAPE) < 0.01, RNG.random((1, 256)) < 0.5):
        found, expected = arithmetic.where(mask, a, b), np.where(mask, a, b)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(bits(found), bits(expected))


@pytest.mark.parametrize("dtype", "int8 uint8 int32 uint32 int64 uint64".split())
@pytest.mark.parametrize("divisor", [1, 2, 64, 2**62, 3, -2, -1])
@pytest.mark.parametrize("divisor_type", [np.int64, np.uint64, np.int32])
def test_division_by_powers_of_two_is_numpys(dtype, divisor, divisor_type):
    limits, allowed = np.iinfo(dtype), np.iinfo(divisor_type)
    if not allowed.min <= divisor <= allowed.max:
        pytest.skip("no such number")
    values = np.array([limits.min, limits.min + 1, limits.max, limits.max - 1, 0, 1, 2, 63, 64, 65], dtype)
    by = divisor_type(divisor)
    wide = arithmetic.integer_result(values.dtype, by.dtype)
    for ours, plain in (
        (arithmetic.floordiv_unchecked, np.floor_divide),
        (arithmetic.mod_unchecked, np.remainder),
    ):
        with np.errstate(over="ignore"):
            expected = plain(values.astype(wide), by.astype(wide))
            found = ours(values, by)
        assert found.dtype == wide
        np.testing.assert_array_equal(found, expected)


@cuda.jit
def guarded_twice(out, x, first, second):
    i = cuda.grid(1)
    total = 0.0
    for _ in range(3):
        if i < first:
            total += x[i]
        if i < second:
            total += 10 * x[i]
    if i < first:
        total += x[i - 2]
    out[i] = total


def test_positions_cached_for_some_lanes_are_checked_for_others():
    x, out = np.arange(1.0, 6.0), np.zeros(8)
    lockstep.launch(guarded_twice, 2, 4, out, x, 4, 5)
    expected = np.zeros(8)
    expected[:5] += 30 * x
    expected[:4] += 3 * x[:4] + x[[3, 4, 0, 1]]  # negative indices count from the end
    np.testing.assert_array_equal(out, expected)
    with pytest.raises(
        KernelIndexError, match=r"x\[5\] out of bounds for shape \(5,\), thread 1 of thread block 1"
    ):
        lockstep.launch(guarded_twice, 2, 4, out, x, 4, 6)
