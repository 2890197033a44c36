"""A fused multiply-add rounds once: against exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from paged_numba.lockstep.language.functions import fma

BITS = {np.float32: 24, np.float64: 53}


def numbers(bits, places):
    """Return a strategy of numbers with few or many bits; they shrink towards 1."""
    top = 1 << (bits - 1)
    significands = st.one_of(st.integers(0, 3), st.integers(0, top - 1)).map(lambda low: top + low)
    return st.builds(
        lambda sign, significand, exponent: sign * math.ldexp(significand, exponent - bits + 1),
        st.sampled_from([1, -1]),
        significands,
        st.integers(-places, places),
    )


@st.composite
def operands(draw, bits, places):
    """Draw three numbers; the addend may cancel the product, or lie just above or below its last bits."""
    a, b = draw(numbers(bits, places)), draw(numbers(bits, places))
    near = draw(st.sampled_from([-1, 1])) * a * b
    far = 70 if bits == 24 else 250
    shifts = (0, 1, -1, bits, bits + 1, bits - 1, -bits, 2 * bits + 1, -far, far)
    shift = draw(st.sampled_from(shifts))
    addends = st.sampled_from([near, np.nextafter(near, np.inf), math.ldexp(near, shift), 0.0, -0.0])
    return a, b, float(draw(st.one_of(addends, numbers(bits, places))))


def rounded(exact, dtype):
    """Return the number of a type that is nearest to a fraction, the even one of two: not subnormal, not too large."""
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    unit = Fraction(2) ** (exponent + 1 - BITS[dtype])
    return dtype(float(round(exact / unit) * unit))  # `round` of a fraction takes the even neighbour


@pytest.mark.parametrize("dtype", BITS)
@given(data=st.data())
def test_a_fused_multiply_add_rounds_once(dtype, data):
    places = 300 if dtype is np.float64 else 20
    a, b, c = map(dtype, data.draw(operands(BITS[dtype], places)))
    check(a, b, c)


def fused(*operands):
    with np.errstate(all="ignore"):  # as in a launch
        return fma(*(np.array([number]) for number in operands))[0]


def check(a, b, c):
    dtype = type(a)
    assume(math.isfinite(c))
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    found = fused(a, b, c)
    assert type(found) is dtype
    if exact == 0:
        assert found == 0
    else:
        limits = np.finfo(dtype)
        assume(Fraction(float(limits.tiny)) < abs(exact) < Fraction(float(limits.max)))
        assert found == rounded(exact, dtype)


@example(np.float64(0.1), np.float64(10), np.float64(-1))  # 0.1 is a little more than a tenth
@given(*[st.floats(allow_subnormal=False).map(np.float64)] * 3)
def test_a_fused_multiply_add_takes_every_number(a, b, c):
    if np.isfinite([a, b, c]).all():
        check(a, b, c)
    else:
        with np.errstate(all="ignore"):
            np.testing.assert_equal(fused(a, b, c), a * b + c)


def test_a_sum_that_float64_would_round_to_a_tie_is_rounded_once():
    unit = 2.0**-23
    # 1 + unit + unit / 2 less 2**-70: float64 drops what is less than a tie, and the even neighbour is 1 + 2 * unit.
    operands = [np.float32(number) for number in (unit / 2 * (1 + unit), 1 - unit, 1 + unit)]
    assert fused(*operands) == np.float32(1 + unit)
