"""``libdevice.*``: NVIDIA's library of device functions, with the types that Numba gives them.

Where the library approximates, the results here are NumPy's and may differ from a GPU's in the last places. Bessel
functions are absent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ...machine.arithmetic import LaneTuple, convert
from .. import functions
from ..intrinsic import Intrinsic
from .directed import Direction, directed, root

_DTYPES = {code: np.dtype(name) for code, name in zip("dfilh", "f8 f4 i4 i8 i2".split(), strict=True)}
"""The types of Numba's signatures: ``d`` is float64, ``f`` float32, ``i`` int32, ``l`` int64, ``h`` int16."""


def _typed(
    function: Callable[..., Any], takes: str, gives: str, operations: int = 0, special: int = 0
) -> Intrinsic:
    """Return the intrinsic that casts its arguments and its result as a signature says."""

    def call(*values: Any) -> Any:
        if len(values) != len(takes):
            raise TypeError(f"it takes {len(takes)} arguments, got {len(values)}")
        given = [convert(value, _DTYPES[code]) for value, code in zip(values, takes, strict=True)]
        result = function(*given)
        if len(gives) == 1:
            return result.astype(_DTYPES[gives])
        return LaneTuple([part.astype(_DTYPES[code]) for part, code in zip(result, gives, strict=True)])

    return Intrinsic(call, operations=operations, special=special)


# Real functions, of float64 and, with an f at the end of the name, of float32.


def _elementwise(function: Callable[..., float]) -> Callable[..., Any]:
    return functions.elementwise(function)


def _inverse_of_normal(p: float) -> float:
    if p in (0.0, 1.0):
        return math.copysign(math.inf, p - 0.5)
    return statistics.NormalDist().inv_cdf(p)


def _erfinv(x: float) -> float:
    if abs(x) == 1:
        return math.copysign(math.inf, x)
    if abs(x) > 0.5:
        return math.copysign(_erfcinv(1 - abs(x)), x)
    y = _inverse_of_normal((1 + x) / 2) / math.sqrt(2)
    for _ in range(3):
        y -= (math.erf(y) - x) * math.exp(y * y) * math.sqrt(math.pi) / 2
    return y


def _erfcinv(x: float) -> float:
    if x in (0.0, 2.0):
        return math.inf if x == 0 else -math.inf
    if x > 1.5:
        return -_erfcinv(2 - x)
    if x > 0.5:
        return _erfinv(1 - x)
    y = -_inverse_of_normal(x / 2) / math.sqrt(2)
    for _ in range(3):
        value = math.erfc(y)
        if value == 0:
            break
        y += (value - x) / value * (value * math.exp(y * y)) * math.sqrt(math.pi) / 2
    return y


def _normcdfinv(p: float) -> float:
    return -math.sqrt(2) * _erfcinv(2 * p) if p < 0.5 else math.sqrt(2) * _erfcinv(2 * (1 - p))


_ROOT_OF_2 = root(Fraction(2))


def _normcdf(x: float) -> float:
    x = float(x)
    t = -x / math.sqrt(2)
    if not math.isfinite(t):
        return 0.5 * math.erfc(t)
    # A first-order correction for the rounding of t, by which erfc would lose digits.
    missing = float(Fraction(-x) - Fraction(t) * _ROOT_OF_2) / math.sqrt(2)
    return 0.5 * (math.erfc(t) - 2 / math.sqrt(math.pi) * math.exp(-t * t) * missing)


def _erfcx(x: float) -> float:
    if x < 0:
        return 2 * math.exp(x * x) - _erfcx(-x)
    if x < 2:
        return math.exp(x * x) * math.erfc(x)
    fraction = 0.0
    for k in range(150, 0, -1):
        fraction = (k / 2) / (x + fraction)
    return 1 / (math.sqrt(math.pi) * (x + fraction))


def _sinpi(x: Any) -> Any:
    reduced = x - 2 * np.rint(x / 2)
    reduced = np.where(np.abs(reduced) > 0.5, np.copysign(1, reduced) - reduced, reduced)
    return np.copysign(np.sin(np.pi * reduced.astype(np.float64)), np.where(reduced == 0, x, reduced))


def _cospi(x: Any) -> Any:
    reduced = np.abs(x - 2 * np.rint(x / 2))
    return np.where(reduced == 0.5, 0.0, np.cos(np.pi * reduced.astype(np.float64)))


def _round(x: Any) -> Any:
    """Round to nearest, ties away from zero."""
    whole = np.trunc(x)
    return whole + np.copysign((np.abs(x - whole) >= 0.5).astype(x.dtype), x)


def _remquo(x: Any, y: Any) -> tuple[Any, Any]:
    rest = functions.remainder(x, y)
    count = np.rint(np.fmod(x - rest, 8 * y) / y)
    return rest, np.where(np.isfinite(count), np.nan_to_num(count), 0)


def _exponent(x: Any) -> Any:
    """``ilogb``: INT_MIN for 0 and NaN, INT_MAX for infinity."""
    exponent = np.frexp(x)[1].astype(np.int64) - 1
    exponent = np.where((x == 0) | np.isnan(x), -(2**31), exponent)
    return np.where(np.isinf(x), 2**31 - 1, exponent)


def _logb(x: Any) -> Any:
    exponent = np.frexp(x)[1] - 1.0
    return np.where(x == 0, -np.inf, np.where(np.isfinite(x), exponent, np.abs(x)))


_ONE: dict[str, Callable[..., Any]] = {
    **{
        name: intrinsic.function
        for name, intrinsic in functions.MATH.items()
        if name
        in "acos acosh asin asinh atan atanh ceil cos cosh erf erfc exp exp2 expm1 fabs floor lgamma log log10 "
        "log1p log2 sin sinh sqrt tan tanh trunc".split()
    },
    "cbrt": np.cbrt,
    "cospi": _cospi,
    "erfcinv": _elementwise(_erfcinv),
    "erfcx": _elementwise(_erfcx),
    "erfinv": _elementwise(_erfinv),
    "exp10": lambda x: np.power(x.dtype.type(10), x),
    "logb": _logb,
    "nearbyint": np.rint,
    "normcdf": _elementwise(_normcdf),
    "normcdfinv": _elementwise(_normcdfinv),
    "rcbrt": lambda x: 1 / np.cbrt(x),
    "rint": np.rint,
    "round": _round,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sinpi": _sinpi,
    "tgamma": functions.MATH["gamma"].function,
}
_TWO: dict[str, Callable[..., Any]] = {
    "atan2": np.arctan2,
    "copysign": np.copysign,
    "fdim": lambda x, y: np.where(x <= y, 0, x - y),
    "fmax": np.fmax,
    "fmin": np.fmin,
    "fmod": np.fmod,
    "hypot": np.hypot,
    "nextafter": np.nextafter,
    "pow": np.power,
    "remainder": functions.remainder,
}
_EXACT_OR_CHEAP = "ceil fabs floor trunc rint nearbyint round copysign fmax fmin nextafter logb fdim".split()


def _real_functions() -> dict[str, Intrinsic]:
    made = {}
    for table, count in ((_ONE, 1), (_TWO, 2)):
        for name, function in table.items():
            special = 0 if name in _EXACT_OR_CHEAP else 1
            for code, end in (("d", ""), ("f", "f")):
                made[f"{name}{end}"] = _typed(function, code * count, code, special=special)
    for code, end in (("d", ""), ("f", "f")):
        made |= {
            f"fma{end}": _typed(functions.fma, code * 3, code, operations=2),
            f"frexp{end}": _typed(np.frexp, code, f"{code}i"),
            f"ilogb{end}": _typed(_exponent, code, "i"),
            f"ldexp{end}": _typed(np.ldexp, f"{code}i", code),
            f"scalbn{end}": _typed(np.ldexp, f"{code}i", code),
            f"llrint{end}": _typed(lambda x: convert(np.rint(x), _DTYPES["l"]), code, "l"),
            f"llround{end}": _typed(lambda x: convert(_round(x), _DTYPES["l"]), code, "l"),
            f"modf{end}": _typed(np.modf, code, code * 2),
            f"powi{end}": _typed(lambda x, n: np.power(x, n.astype(x.dtype)), f"{code}i", code, special=1),
            f"remquo{end}": _typed(_remquo, code * 2, f"{code}i", special=1),
            f"sincos{end}": _typed(lambda x: (np.sin(x), np.cos(x)), code, code * 2, special=2),
            f"sincospi{end}": _typed(lambda x: (_sinpi(x), _cospi(x)), code, code * 2, special=2),
        }
    for name in "cos exp10 exp log10 log2 log pow sincos sin tan".split():
        made[f"fast_{name}f"] = made[f"{name}f"]
    made["fast_fdividef"] = _typed(np.true_divide, "ff", "f", special=1)
    made["saturatef"] = _typed(lambda x: np.where(np.isnan(x), 0, np.clip(x, 0, 1)), "f", "f")
    made["finitef"] = _typed(np.isfinite, "f", "i")
    for name in ("isfinite", "isinf", "isnan", "signbit"):
        for code in "df":
            made[f"{name}{code}"] = _typed(getattr(np, name), code, "i")
    del made["isfinitef"]
    return made


# Integers. Numba types unsigned arguments and results as signed integers of the same bits.


def _unsigned(function: Callable[..., Any], code: str) -> Callable[..., Any]:
    dtype = np.dtype(f"u{_DTYPES[code].itemsize}")

    def call(*values: Any) -> Any:
        return function(*(value.astype(dtype) for value in values))

    return call


def _high(a: Any, b: Any) -> Any:
    """Return the high 64 bits of the product of two uint64."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    middle = a1 * b0 + ((a0 * b0) >> half)
    other = a0 * b1 + (middle & low)
    return a1 * b1 + (middle >> half) + (other >> half)


def _signed_high(a: Any, b: Any) -> Any:
    high = _high(a.astype(np.uint64), b.astype(np.uint64)).astype(np.int64)
    return high - np.where(a < 0, b, 0) - np.where(b < 0, a, 0)


def _byte_perm(x: Any, y: Any, selector: Any) -> Any:
    both = x.astype(np.uint32).astype(np.uint64) | (y.astype(np.uint32).astype(np.uint64) << np.uint64(32))
    result: Any = np.uint64(0)
    for place in range(4):
        byte = (selector.astype(np.uint64) >> np.uint64(4 * place)) & np.uint64(7)
        result = result | (((both >> (byte * np.uint64(8))) & np.uint64(0xFF)) << np.uint64(8 * place))
    return result.astype(np.uint32)


def _low24(value: Any, signed: bool) -> Any:
    low = value.astype(np.int64) & 0xFFFFFF
    return np.where(signed & (low >= 1 << 23), low - (1 << 24), low)


def _wide(function: Callable[..., Any], unsigned: bool = False) -> Callable[..., Any]:
    """Return `function` of int32 numbers, computed in int64."""

    def call(*values: Any) -> Any:
        return function(
            *((value.astype(np.uint32) if unsigned else value).astype(np.int64) for value in values)
        )

    return call


_INTEGERS: dict[str, Intrinsic] = {
    "abs": _typed(np.abs, "i", "i"),
    "llabs": _typed(np.abs, "l", "l"),
    "brev": _typed(_unsigned(functions.brev, "i"), "i", "i"),
    "brevll": _typed(_unsigned(functions.brev, "l"), "l", "l"),
    "byte_perm": _typed(_byte_perm, "iii", "i"),
    **{name: _typed(getattr(functions, name), "i", "i") for name in ("clz", "ffs", "popc")},
    **{f"{name}ll": _typed(getattr(functions, name), "l", "i") for name in ("clz", "ffs", "popc")},
    "max": _typed(np.maximum, "ii", "i"),
    "min": _typed(np.minimum, "ii", "i"),
    "llmax": _typed(np.maximum, "ll", "l"),
    "llmin": _typed(np.minimum, "ll", "l"),
    "umax": _typed(_unsigned(np.maximum, "i"), "ii", "i"),
    "umin": _typed(_unsigned(np.minimum, "i"), "ii", "i"),
    "ullmax": _typed(_unsigned(np.maximum, "l"), "ll", "l"),
    "ullmin": _typed(_unsigned(np.minimum, "l"), "ll", "l"),
    "mul24": _typed(lambda a, b: _low24(a, True) * _low24(b, True), "ii", "i"),
    "umul24": _typed(lambda a, b: _low24(a, False) * _low24(b, False), "ii", "i"),
    "mulhi": _typed(_wide(lambda a, b: a * b >> 32), "ii", "i"),
    "umulhi": _typed(_unsigned(lambda a, b: a.astype(np.uint64) * b >> np.uint64(32), "i"), "ii", "i"),
    "mul64hi": _typed(_signed_high, "ll", "l"),
    "umul64hi": _typed(_unsigned(_high, "l"), "ll", "l"),
    "hadd": _typed(_wide(lambda a, b: a + b >> 1), "ii", "i"),
    "rhadd": _typed(_wide(lambda a, b: a + b + 1 >> 1), "ii", "i"),
    "uhadd": _typed(_wide(lambda a, b: a + b >> 1, True), "ii", "i"),
    "urhadd": _typed(_wide(lambda a, b: a + b + 1 >> 1, True), "ii", "i"),
    "sad": _typed(_wide(lambda a, b, c: np.abs(a - b) + c), "iii", "i"),
    "usad": _typed(_wide(lambda a, b, c: np.abs(a - b) + c, True), "iii", "i"),
}


# Bits and conversions.


def _bits(value: Any, code: str) -> Any:
    """Return the bits of a number as another type of the same size."""
    return np.ascontiguousarray(value).view(_DTYPES[code]).reshape(np.shape(value))[()]


def _joined(high: Any, low: Any) -> Any:
    return _bits((high.astype(np.int64) << 32) | low.astype(np.uint32).astype(np.int64), "d")


_INTEGER_TARGETS = (("int", "i4", "i"), ("uint", "u4", "i"), ("ll", "i8", "l"), ("ull", "u8", "l"))


def _to_integer(dtype: np.dtype[Any], direction: Direction) -> Callable[..., Any]:
    whole = {"rd": np.floor, "rn": np.rint, "ru": np.ceil, "rz": np.trunc}[direction]
    return lambda x: convert(whole(x), dtype)


def _converters() -> dict[str, Intrinsic]:
    made = {
        "double2hiint": _typed(lambda x: _bits(x, "l") >> 32, "d", "i"),
        "double2loint": _typed(lambda x: _bits(x, "l"), "d", "i"),
        "hiloint2double": _typed(_joined, "ii", "d"),
        "double_as_longlong": _typed(lambda x: _bits(x, "l"), "d", "l"),
        "longlong_as_double": _typed(lambda x: _bits(x, "d"), "l", "d"),
        "float_as_int": _typed(lambda x: _bits(x, "i"), "f", "i"),
        "int_as_float": _typed(lambda x: _bits(x, "f"), "i", "f"),
        "half2float": _typed(lambda x: np.asarray(x).view(np.float16)[()], "h", "f"),
        "float2half_rn": _typed(lambda x: np.asarray(x.astype(np.float16)).view(np.int16)[()], "f", "h"),
        "int2double_rn": _typed(lambda x: x, "i", "d"),
        "uint2double_rn": _typed(lambda x: x.astype(np.uint32), "i", "d"),
    }
    directions: tuple[Direction, ...] = ("rd", "rn", "ru", "rz")
    for way in directions:
        for source, code in (("double", "d"), ("float", "f")):
            for target, dtype, gives in _INTEGER_TARGETS:
                made[f"{source}2{target}_{way}"] = _typed(_to_integer(np.dtype(dtype), way), code, gives)
        made[f"double2float_{way}"] = _typed(_same(_DTYPES["f"], way), "d", "f")
        for source, code in (("int", "i"), ("uint", "i"), ("ll", "l"), ("ull", "l")):
            for target, gives in (("float", "f"), ("double", "d")):
                if target == "float" or code == "l":
                    function = _same(_DTYPES[gives], way)
                    function = _unsigned(function, code) if source.startswith("u") else function
                    made[f"{source}2{target}_{way}"] = _typed(function, code, gives)
    return made


def _same(dtype: np.dtype[Any], way: Direction) -> Callable[..., Any]:
    return (
        (lambda x: x.astype(dtype))
        if way == "rn"
        else directed(lambda x: x, lambda x: x.astype(dtype), dtype, way)
    )


# Arithmetic with a rounding direction.


def _rounded_functions() -> dict[str, Intrinsic]:
    plain: dict[str, tuple[int, Callable[..., Any], Callable[..., Fraction]]] = {
        "add": (2, np.add, lambda a, b: a + b),
        "sub": (2, np.subtract, lambda a, b: a - b),
        "mul": (2, np.multiply, lambda a, b: a * b),
        "div": (2, np.true_divide, lambda a, b: a / b),
        "rcp": (1, lambda x: x.dtype.type(1) / x, lambda x: 1 / x),
        "sqrt": (1, np.sqrt, root),
        "fma": (3, functions.fma, lambda a, b, c: a * b + c),
    }
    made = {}
    directions: tuple[Direction, ...] = ("rd", "rn", "ru", "rz")
    for way in directions:
        for code in "fd":
            for name, (count, near, exact) in plain.items():
                full = f"fma{'f' if code == 'f' else ''}" if name == "fma" else f"{code}{name}"
                if full == "dsub":
                    continue
                is_sum = name in ("add", "sub", "fma")
                function = near if way == "rn" else directed(exact, near, _DTYPES[code], way, is_sum=is_sum)
                cost = (
                    {"special": 1} if name in ("div", "rcp", "sqrt") else {"operations": 1 + (name == "fma")}
                )
                made[f"{full}_{way}"] = _typed(function, code * count, code, **cost)
    reciprocal_root = directed(lambda x: root(1 / x), lambda x: 1 / np.sqrt(x), _DTYPES["f"], "rn")
    made["frsqrt_rn"] = _typed(reciprocal_root, "f", "f", special=1)
    return made


LIBDEVICE: dict[str, Intrinsic] = {**_real_functions(), **_INTEGERS, **_converters(), **_rounded_functions()}
"""Functions of ``libdevice``, by name."""

ABSENT = [f"{name}{end}" for name in "j0 j1 jn y0 y1 yn".split() for end in ("", "f")]
"""Bessel functions, which NumPy lacks."""
