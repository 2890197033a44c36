"""Quantisation to float8_e4m3fn, compared with a search of all 256 codes for the nearest number."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.lockstep.cuda import facade
from paged_numba.testing.strategies import seeds

TARGET = "lockstep"
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
NUMBERS = np.arange(127, dtype=np.uint8).view(FP8).astype(np.float64)
"""The numbers 0 to 448, by their codes 0 to 126; code 127 is NaN."""

MIDPOINTS = (NUMBERS[1:] + NUMBERS[:-1]) / 2


def expected_codes(quotients):
    """Return the code of the nearest number; of two that are as near, the even one."""
    distances = np.abs(np.minimum(np.abs(quotients), 448)[..., None] - NUMBERS)
    nearest = distances == distances.min(axis=-1, keepdims=True)
    odd = np.arange(127) % 2
    codes = np.argmin(np.where(nearest, odd, 2), axis=-1).astype(np.uint8)
    codes[np.isnan(quotients)] = 127
    return codes | np.where(np.signbit(quotients), 128, 0).astype(np.uint8)


def quantises(function, numbers):
    """Raise unless `function` quantises numbers, float64[n], as the search does."""
    for signed in (numbers, -numbers):
        np.testing.assert_array_equal(function(signed).view(np.uint8), expected_codes(signed))


def around(numbers):
    """Return numbers, and those right below and above them."""
    with np.errstate(over="ignore"):
        return np.concatenate([numbers, np.nextafter(numbers, -np.inf), np.nextafter(numbers, np.inf)])


BOUNDARIES = np.concatenate([
    around(NUMBERS),
    around(MIDPOINTS),
    MIDPOINTS * (1 + 2.0**-40),
    MIDPOINTS * (1 - 2.0**-40),
    around(np.array([2.0**-9, 2.0**-10, 2.0**-6, 448, 456, 464, 465, 480, 512, 1e30, 1e308])),
    [5e-324, 1e-310, np.inf, np.nan],
])  # fmt: skip


def test_the_search_by_hand():
    # Between 1 and 2 numbers are 1/8 apart. 1.0625 lies between 1, code 0x38, and 1.125, code 0x39: even is 1.
    quotients = np.array([1.0, 1.0625, 1.0626, -0.0, 2.0**-10, 3 * 2.0**-10, 448, 1e9, -np.inf, np.nan])
    assert expected_codes(quotients).tolist() == [0x38, 0x38, 0x39, 0x80, 0, 2, 0x7E, 0x7E, 0xFE, 0x7F]


def test_every_code_and_every_midpoint_is_rounded_as_the_search_says():
    quantises(pn.quantize_fp8, BOUNDARIES)
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = BOUNDARIES.astype(dtype)
        exact = numbers.astype(np.float64)
        np.testing.assert_array_equal(pn.quantize_fp8(numbers).view(np.uint8), expected_codes(exact))
        # Up to the limit, it is the cast of ml_dtypes, which rounds once from 32 bits or fewer.
        small = numbers[np.abs(exact) <= 464]
        np.testing.assert_array_equal(pn.quantize_fp8(small).view(np.uint8), small.astype(FP8).view(np.uint8))


@given(
    number=st.floats() | st.floats(-600, 600) | st.floats(-0.02, 0.02),
    scale=st.none() | st.floats(2.0**-149, float(np.finfo(np.float32).max), width=32),
)
@example(number=1.0625 + 2.0**-40, scale=None)
@example(number=1e300, scale=2.0**-149)
def test_any_number_is_rounded_as_the_search_says(number, scale):
    actual = pn.quantize_fp8(np.array([number]), scale)
    with np.errstate(over="ignore"):
        quotients = np.array([number]) / (1 if scale is None else scale)
    np.testing.assert_array_equal(actual.view(np.uint8), expected_codes(quotients))


def through(change):
    """Return the quantisation of numbers that were changed before."""
    return lambda numbers: pn.quantize_fp8(change(numbers))


MUTANTS = {
    "cast without saturation": lambda numbers: numbers.astype(FP8),
    "cast after a clip: rounds twice": lambda numbers: np.clip(numbers, -448, 448).astype(FP8),
    "NaN becomes 0": through(lambda numbers: np.where(np.isnan(numbers), 0, numbers)),
    "inf becomes NaN": through(lambda numbers: np.where(np.isinf(numbers), np.nan, numbers)),
    "limit of 240": through(lambda numbers: np.clip(numbers, -240, 240)),
    "limit of the next format": through(lambda numbers: np.where(np.abs(numbers) > 464, np.nan, numbers)),
    "sign of 0 lost": through(lambda numbers: numbers + 0.0),
    "numbers below the normal ones flushed": through(
        lambda numbers: np.where(np.abs(numbers) < 2**-6, 0, numbers)
    ),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed(name):
    with np.errstate(over="ignore"), pytest.raises(AssertionError):
        quantises(MUTANTS[name], BOUNDARIES)


@pytest.mark.parametrize("function", ["rint", "minimum", "copysign"])
def test_each_step_is_needed(function, monkeypatch):
    replaced = {
        "rint": np.floor,
        "minimum": lambda numbers, limit: numbers,
        "copysign": lambda numbers, signs: numbers,
    }
    monkeypatch.setattr(np, function, replaced[function])
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(AssertionError):
        quantises(pn.quantize_fp8, BOUNDARIES)


def operands(seed):
    rng = np.random.default_rng(seed)
    return 300 * rng.standard_normal((2, 7, 2, 8)).astype(np.float32)


@given(seed=seeds)
def test_a_scale_for_each_head_scales_the_heads_on_their_own(seed):
    key, _ = operands(seed)
    scales = np.random.default_rng(seed).uniform(0.1, 4, 2)
    by_head = pn.quantize_fp8(key, scales)
    for head, scale in enumerate(scales):
        one = pn.quantize_fp8(key[:, head : head + 1], float(scale))
        np.testing.assert_array_equal(by_head[:, head : head + 1].view(np.uint8), one.view(np.uint8))


@given(seed=seeds, by_head=st.booleans())
def test_what_was_quantised_is_attended_to_with_its_scales(seed, by_head):
    key, value = operands(seed)
    axis = (0, 2) if by_head else None
    scales = {name: np.abs(tokens).max(axis) / 448 for name, tokens in (("k_scale", key), ("v_scale", value))}
    cache = pn.PagedKVCache(4, 4, 2, 8, dtype="float8_e4m3fn", target=TARGET, **scales)
    stored = pn.quantize_fp8(key, scales["k_scale"]), pn.quantize_fp8(value, scales["v_scale"])
    cache.add("a", *stored)
    query = np.full((1, 2, 8), 0.001, np.float32)
    out = cache.attend(["a"], query)
    # 3 bits of the mantissa: half a unit in the last place is 1/16; below 2**-6 it is 2**-10 of the scale.
    for tokens, quantised, scale in zip((key, value), stored, scales.values(), strict=True):
        factor = np.float32(scale).reshape(-1, 1)
        error = np.abs(quantised.astype(np.float32) * factor - tokens)
        assert (error <= np.abs(tokens) / 16 * 1.001 + factor * 2.0**-10).all()
    expected = pn.reference.attention(query, *stored, **scales)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-3)


class Described:
    """An array of another library in host memory."""

    def __init__(self, array):
        self.kept, self.__array_interface__ = array, array.__array_interface__


@pytest.mark.parametrize(
    "kind", [np.array, facade.to_device, Described, np.ndarray.tolist, np.asfortranarray]
)
def test_arrays_of_any_kind_are_taken_and_not_changed(kind):
    key, _ = operands(0)
    given_array = kind(key)
    expected = pn.quantize_fp8(key, 2.0)
    assert pn.quantize_fp8(given_array, [2.0, 2.0]).dtype == FP8
    np.testing.assert_array_equal(pn.quantize_fp8(given_array, 2.0).view(np.uint8), expected.view(np.uint8))
    for scale in (2, np.float64(2), np.array(2.0), facade.to_device(np.full(2, 2, np.float16))):
        np.testing.assert_array_equal(
            pn.quantize_fp8(given_array, scale).view(np.uint8), expected.view(np.uint8)
        )
    np.testing.assert_array_equal(key, operands(0)[0])


def test_an_array_of_fp8_is_copied():
    stored = pn.quantize_fp8(operands(0)[0])
    again = pn.quantize_fp8(stored)
    np.testing.assert_array_equal(again.view(np.uint8), stored.view(np.uint8))
    assert not np.shares_memory(again, stored)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0), (3, 1, 2, 4)])
def test_an_array_of_any_shape_is_taken_with_one_scale(shape):
    result = pn.quantize_fp8(np.ones(shape), 0.5)
    assert (result.shape, result.dtype) == (shape, FP8)
    assert (result.astype(np.float32) == 2).all()


def test_a_torch_tensor_gives_a_tensor():
    torch = pytest.importorskip("torch")
    key, _ = operands(0)
    result = pn.quantize_fp8(torch.from_numpy(key), torch.tensor(2.0))
    assert result.dtype == torch.float8_e4m3fn
    np.testing.assert_array_equal(result.view(torch.uint8).numpy(), pn.quantize_fp8(key, 2.0).view(np.uint8))


@pytest.mark.parametrize(
    ("array", "scale", "error", "message"),
    [
        (np.ones((3, 2, 4), complex), None, TypeError, "array must hold real numbers, got array.dtype=complex128"),
        (np.ones((3, 2, 4), bool), None, TypeError, "array must hold real numbers, got array.dtype=bool"),
        (["x"], None, TypeError, "array must hold real numbers"),
        (None, None, TypeError, "array must be an array, got NoneType"),
        (np.ma.ones((3, 2, 4)), None, TypeError, "array must not be a masked array"),
        ([[1.0], [1.0, 2.0]], None, ValueError, "array must be an array"),
        (np.ones((3, 2, 4)), np.ones(3), ValueError, r"scale must be a number or have shape \[2\], got .*\(3,\)"),
        (np.ones((3, 2, 4)), np.ones((2, 1)), ValueError, r"scale must be a number or have shape \[2\]"),
        (np.ones((3, 2, 4)), 0.0, ValueError, r"scale must be positive and finite in float32, got scale=0\.0"),
        (np.ones((3, 2, 4)), [1.0, -1.0], ValueError, r"scale must be positive and finite in float32, got scale=-1\.0"),
        (np.ones((3, 2, 4)), np.nan, ValueError, "scale must be positive and finite in float32, got scale=nan"),
        (np.ones((3, 2, 4)), 1e39, ValueError, r"scale must be positive and finite in float32, got scale=1e\+39"),
        (np.ones((3, 2, 4)), 1e-50, ValueError, "scale must be positive and finite in float32, got scale=1e-50"),
        (np.ones((3, 2, 4)), 10**400, TypeError, "scale must hold real numbers"),
        (np.ones((3, 2, 4)), "2", TypeError, "scale must hold real numbers"),
        (np.ones((3, 2, 4)), np.timedelta64(2), TypeError, "scale must hold real numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_quantised_is_refused_by_name(array, scale, error, message):
    with pytest.raises(error, match=message):
        pn.quantize_fp8(array, scale)
