"""Fused multiply-add, rounded once: NumPy has none, and its long double is float64 on some platforms."""

from __future__ import annotations

from typing import Any

import numpy as np

_SPLIT = 2.0**27 + 1
_APART = 220
"""Distance of exponents beyond which the smaller of two numbers only decides how their sum is rounded."""


def multiply_add(a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` of float64 numbers in float64, rounded to odd.

    Rounding the result to a narrower type then gives what a single rounding would. The product must be exact, as that
    of two float32 numbers is.
    """
    return _sum_to_odd(a * b, c)


def multiply_add_float64(a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` of float64 numbers with one rounding, if the result is not subnormal.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE
    Trans. Comput. 57, 2008, after the numbers are scaled so that no step overflows or underflows.
    """
    plain = a * b + c
    (ma, ea), (mb, eb), (mc, ec) = np.frexp(a), np.frexp(b), np.frexp(c)
    exponent = (ea + eb).astype(np.int64)
    distance = np.where(c == 0, 0, ec - exponent)
    exponent = np.where(distance > _APART, ec - _APART, exponent)
    addend = np.ldexp(mc, np.clip(distance, -_APART, _APART))
    high, low = _product(ma, mb)
    upper, lower = _sum(addend, low)
    total, rest = _sum(high, upper)
    result = np.ldexp(total + _sum_to_odd(lower, rest), exponent)
    exact = np.isfinite(a) & np.isfinite(b) & np.isfinite(c) & (a != 0) & (b != 0)
    # A sum of 0 has its sign from `plain`.
    return np.where(exact & (result != 0), result, plain)


def _sum_to_odd(a: Any, b: Any) -> Any:
    """Return a sum rounded to odd: if it is not exact, the neighbour whose last bit is 1."""
    total, error = _sum(a, b)
    even = np.asarray(total).view(np.int64) % 2 == 0
    move = even & (error != 0) & np.isfinite(error)
    return np.where(move, np.nextafter(total, np.copysign(np.inf, error)), total)


def _sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the rounded sum and its error, exactly (Knuth's TwoSum)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _product(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the rounded product and its error, exactly (Dekker's product)."""
    product = a * b
    (ah, al), (bh, bl) = _halves(a), _halves(b)
    return product, ((ah * bh - product) + ah * bl + al * bh) + al * bl


def _halves(a: Any) -> tuple[Any, Any]:
    scaled = _SPLIT * a
    high = scaled - (scaled - a)
    return high, a - high
