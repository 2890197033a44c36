"""Arithmetic rounded in a given direction, as ``libdevice.fadd_rd`` and its kin: exact, then rounded once.

NumPy rounds to nearest only. The results here come from exact fractions, lane by lane: these functions are rare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

import numpy as np

Direction = Literal["rd", "rn", "ru", "rz"]
"""Towards minus infinity, to nearest with ties to even, towards plus infinity, towards zero."""

_FRACTION_BITS = {np.dtype(np.float32): (24, -126), np.dtype(np.float64): (53, -1022)}
"""Bits of the significand, and the least exponent of a normal number."""


def _integer(value: Fraction, direction: Direction) -> int:
    if direction == "rn":
        return round(value)
    if direction == "rz":
        return math.trunc(value)
    return math.floor(value) if direction == "rd" else math.ceil(value)


def rounded(value: Fraction, dtype: np.dtype[Any], direction: Direction) -> float:
    """Return an exact number as the float32 or float64 number next to it in a direction."""
    if not value:
        return 0.0
    bits, least = _FRACTION_BITS[dtype]
    size, sign = abs(value), -1 if value < 0 else 1
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    quantum = Fraction(2) ** (max(exponent, least) - bits + 1)
    result = _integer(value / quantum, direction) * quantum
    largest = Fraction(float(np.finfo(dtype).max))
    if abs(result) > largest:
        outward = "rd" if value < 0 else "ru"
        return sign * (math.inf if direction in ("rn", outward) else float(largest))
    return sign * float(abs(result))


def root(value: Fraction) -> Fraction:
    """Return the square root to 120 bits; the last is set if it is not exact, so that it rounds as the root does."""
    shift = max(0, 240 - value.numerator.bit_length() + value.denominator.bit_length())
    shift += shift % 2
    scaled, rest = divmod(value.numerator << shift, value.denominator)
    whole = math.isqrt(scaled)
    if rest or whole * whole != scaled:
        whole |= 1
    return Fraction(whole, 1 << shift // 2)


def directed(
    exact: Callable[..., Fraction],
    plain: Callable[..., Any],
    dtype: np.dtype[Any],
    direction: Direction,
    *,
    is_sum: bool = False,
) -> Callable[..., Any]:
    """Return a function that computes ``exact`` and rounds once.

    Parameters
    ----------
    exact : callable
        The function of fractions.
    plain : callable
        The same of NumPy values, for results that are not finite or are zero.
    dtype : dtype
        Of the result.
    direction : {"rd", "rn", "ru", "rz"}
    is_sum : bool
        Whether an exact zero of numbers that are not is -0 when rounded down.
    """

    def one(near: Any, *values: Any) -> float:
        if not all(math.isfinite(value) for value in values):
            return float(near)
        try:
            value = exact(*map(Fraction, values))
        except (ZeroDivisionError, ValueError):
            return float(near)
        if not value:
            return -0.0 if is_sum and direction == "rd" and not _all_zero_of_one_sign(values) else float(near)
        return rounded(value, dtype, direction)

    elementwise = np.vectorize(one, otypes=[dtype])

    def compute(*values: Any) -> Any:
        wide = [
            value.astype(object) if value.dtype.kind in "iu" else value.astype(np.float64) for value in values
        ]
        near = plain(*values).astype(np.float64)
        return elementwise(near, *wide)[()]

    return compute


def _all_zero_of_one_sign(values: tuple[Any, ...]) -> bool:
    return not any(values) and len({math.copysign(1, value) for value in values}) == 1
