"""Functions of a single lane: ``math``, ``cmath``, builtins, casts, integer and float16 intrinsics."""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..machine.arithmetic import (
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT64,
    Value,
    add,
    bit_and,
    bit_or,
    bit_xor,
    cast,
    invert,
    logical_not,
    lshift,
    mul,
    negative,
    positive,
    power,
    rshift,
    select,
    sub,
    truediv,
    truth,
)
from .intrinsic import Intrinsic
from .types.fused import multiply_add, multiply_add_float64

Function = Callable[..., Value]


def _float_type(*values: Value) -> np.dtype[Any]:
    """Return the floating-point type in which Numba's ``math`` works: float64 for integers."""
    dtype = values[0].dtype
    for value in values[1:]:
        dtype = np.promote_types(dtype, value.dtype)
    if dtype.kind in "biu":
        return FLOAT64
    if dtype.kind != "f" and dtype.name != "bfloat16":
        raise TypeError(f"a math function needs real numbers, got {dtype}")
    return dtype


def _real(function: Callable[..., Any], nin: int = 1) -> Function:
    def call(*values: Value) -> Value:
        if len(values) != nin:
            raise TypeError(f"a math function takes {nin} arguments, got {len(values)}")
        dtype = _float_type(*values)
        result = function(*(value.astype(dtype, copy=False) for value in values))
        return result.astype(dtype, copy=False)

    return call


def _predicate(function: Callable[[Any], Any]) -> Function:
    def call(value: Value) -> Value:
        return function(value.astype(_float_type(value), copy=False))

    return call


def elementwise(function: Callable[..., float]) -> Callable[..., Any]:
    """Return a function that calls a scalar function for each element, for functions that NumPy lacks."""

    def safe(*values: Any) -> float:
        try:
            return function(*values)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return np.vectorize(safe, otypes=[np.float64])


def _frexp(value: Value) -> Value:
    mantissa, exponent = np.frexp(value.astype(_float_type(value)))
    return mantissa, exponent.astype(np.int32)


def _modf(value: Value) -> Value:
    return np.modf(value.astype(_float_type(value)))


def _ldexp(value: Value, exponent: Value) -> Value:
    return np.ldexp(value.astype(_float_type(value)), exponent.astype(np.int32))


def remainder(a: Any, b: Any) -> Any:
    """Return what is left of `a` after the multiple of `b` nearest to it, exactly; of two, after the even one."""
    size = np.abs(b)
    half = size / 2
    rest = np.fmod(np.abs(a), np.where(np.isinf(2 * size), size, 2 * size))
    rest = np.where(rest - size >= half, rest - size - size, np.where(rest > half, rest - size, rest))
    return np.where(np.signbit(a), -rest, rest)


_TRANSCENDENTAL = {
    **{n: n for n in "exp exp2 expm1 log log2 log10 log1p sqrt sin cos tan sinh cosh tanh".split()},
    **{f"a{n}": f"arc{n}" for n in ["sin", "cos", "tan", "sinh", "cosh", "tanh"]},
}
"""Names of functions in ``math``, with NumPy's names for the same functions."""

MATH: dict[str, Intrinsic] = {
    **{n: Intrinsic(_real(getattr(np, known)), special=1) for n, known in _TRANSCENDENTAL.items()},
    **{
        n: Intrinsic(_real(elementwise(getattr(math, n))), special=1) for n in "erf erfc gamma lgamma".split()
    },
    **{n: Intrinsic(_real(getattr(np, n)), operations=1) for n in ["degrees", "radians"]},
    **{n: Intrinsic(_real(getattr(np, n))) for n in ["fabs", "floor", "ceil", "trunc"]},
    **{n: Intrinsic(_real(getattr(np, n), 2), special=1) for n in ["hypot", "fmod"]},
    **{n: Intrinsic(_real(getattr(np, n), 2)) for n in ["copysign", "nextafter"]},
    **{n: Intrinsic(_predicate(getattr(np, n))) for n in ["isnan", "isinf", "isfinite"]},
    "atan2": Intrinsic(_real(np.arctan2, 2), special=1),
    "pow": Intrinsic(_real(np.power, 2), special=1),
    "remainder": Intrinsic(_real(remainder, 2), special=1),
    "frexp": Intrinsic(_frexp),
    "modf": Intrinsic(_modf),
    "ldexp": Intrinsic(_ldexp),
}
"""``math.*`` as in Numba's CUDA target: ``floor``, ``ceil`` and ``trunc`` return floating-point numbers."""


def _complex(function: Callable[[Any], Any]) -> Function:
    def call(value: Value) -> Value:
        return function(value if value.dtype.kind == "c" else value.astype(np.complex128))

    return call


def _exp(z: Value) -> Value:
    gone = np.isneginf(z.real) & ~np.isfinite(z.imag)  # NumPy gives zeros of any sign
    return np.where(gone, z.dtype.type(0), np.exp(z))[()]


def _log(z: Value, base: Value | None = None) -> Value:
    logarithm = _complex(np.log)
    return logarithm(z) if base is None else logarithm(z) / logarithm(base)


def _rect(r: Value, phi: Value) -> Value:
    dtype = _float_type(r, phi)
    r, phi = r.astype(dtype), phi.astype(dtype)
    real, imag = (
        np.where((part == 0) & np.isinf(r), part / r, part * r)[()] for part in (np.cos(phi), np.sin(phi))
    )
    lost, none = ~np.isfinite(phi), dtype.type(0)
    # Without an angle only a radius of 0 or infinity has a meaning.
    real = np.where(lost & ((r == 0) | np.isinf(r)), np.where(r == 0, none, r), real)[()]
    imag = np.where(lost & ((r == 0) | np.isinf(r)), np.where(r == 0, none, phi), imag)[()]
    return complex_(real, imag)


CMATH: dict[str, Intrinsic] = {
    **{
        n: Intrinsic(_complex(getattr(np, n)))
        for n in "log10 sqrt sin cos tan sinh cosh tanh isnan isinf isfinite".split()
    },
    **{
        f"a{n}": Intrinsic(_complex(getattr(np, f"arc{n}")))
        for n in ["sin", "cos", "tan", "sinh", "cosh", "tanh"]
    },
    "phase": Intrinsic(_complex(np.angle)),
    "polar": Intrinsic(_complex(lambda z: (np.abs(z), np.angle(z)))),
    "exp": Intrinsic(_complex(_exp)),
    "log": Intrinsic(_log),
    "rect": Intrinsic(_rect),
}
"""``cmath.*``, whose cost is not counted."""

assert all(hasattr(cmath, name) for name in CMATH)


# Builtins.


def absolute(value: Value) -> Value:
    """``abs(x)``: keeps the type; real for a complex number."""
    return np.abs(value.astype(np.int8) if value.dtype.kind == "b" else value)


def round_(value: Value, ndigits: Value | None = None) -> Value:
    """``round(x)`` to int64, ties to even; ``round(x, n)`` keeps the type."""
    if ndigits is None:
        # Numba rounds in float64.
        return cast(np.rint(cast(value, FLOAT64)), INT64)
    if value.dtype not in (FLOAT32, FLOAT64) or ndigits.dtype.kind not in "iu":
        raise TypeError(
            f"round(x, n) takes a float32 or float64 and an integer, got {value.dtype} and {ndigits.dtype}"
        )
    # Numba's own steps, of which the rounding goes through int64.
    digits = ndigits.astype(np.float64)
    small, large = (
        10.0 ** np.where(digits > 22, digits - 22, np.abs(digits)),
        np.where(digits > 22, 1e22, 1.0),
    )
    up = digits >= 0
    scaled = np.where(up, (value.astype(np.float64) * small) * large, value / small)
    whole = cast(np.rint(scaled), INT64)
    whole = np.where(np.abs(scaled - whole) == 0.5, 2.0 * cast(np.rint(scaled / 2.0), INT64), whole)
    result = np.where(up, (whole / large) / small, whole * small)
    return np.where(np.isinf(scaled) | np.isnan(value), value, result).astype(value.dtype)[()]


def int_(value: Value) -> Value:
    """``int(x)``: truncates to int64; an integer keeps its type."""
    return value if value.dtype.kind in "iu" else cast(value, INT64)


def float_(value: Value) -> Value:
    """``float(x)``: float64 of an integer; a floating-point number keeps its type."""
    return value if value.dtype.kind == "f" else cast(value, FLOAT64)


def complex_(real: Value, imag: Value | None = None) -> Value:
    """``complex(re, im)``: complex64 of two float32, else complex128."""
    imag = real.dtype.type(0) if imag is None else imag
    narrow = np.promote_types(real.dtype, imag.dtype) in (FLOAT16, FLOAT32)
    dtype = np.dtype(np.complex64 if narrow else np.complex128)
    shape = np.broadcast_shapes(np.shape(real), np.shape(imag))
    made = np.empty(shape, dtype)
    made.real, made.imag = real, imag
    return made[()]


def tuple_(values: Any) -> Any:
    """``tuple(x)`` of a tuple."""
    if not isinstance(values, tuple):
        raise TypeError("tuple() takes a tuple")
    return values


OPERATORS: dict[str, Intrinsic] = {
    **{n: Intrinsic(function, operations=1) for n, function in {"add": add, "sub": sub, "mul": mul}.items()},
    "truediv": Intrinsic(truediv, special=1),
    "pow": Intrinsic(power, special=1),
    **{
        n: Intrinsic(function)
        for n, function in {
            "and_": bit_and,
            "or_": bit_or,
            "xor": bit_xor,
            "lshift": lshift,
            "rshift": rshift,
            "invert": invert,
            "inv": invert,
            "neg": negative,
            "pos": positive,
            "not_": logical_not,
            "truth": truth,
            "abs": absolute,
            **{n: getattr(operator, n) for n in "lt le gt ge eq ne".split()},
        }.items()
    },
}
OPERATORS.update(
    {f"i{n.rstrip('_')}": OPERATORS[n] for n in "add sub mul truediv pow and_ or_ xor lshift rshift".split()}
)
"""Functions of ``operator``; those that check the divisor are elsewhere."""


# CUDA intrinsics of one lane.


def _unsigned(value: Value) -> Value:
    if value.dtype.kind not in "iu":
        raise TypeError(f"an integer intrinsic needs an integer, got {value.dtype}")
    return value.astype(np.dtype(f"u{value.dtype.itemsize}"))


def popc(value: Value) -> Value:
    """Count the bits that are 1, in the type of `value`."""
    return np.bitwise_count(_unsigned(value)).astype(value.dtype)


def clz(value: Value) -> Value:
    """Count the leading zero bits, in the type of `value`."""
    bits, width = _unsigned(value), value.dtype.itemsize * 8
    for shift in (32, 16, 8, 4, 2, 1):
        if shift < width:
            bits = bits | (bits >> bits.dtype.type(shift))
    return (width - np.bitwise_count(bits).astype(np.int64)).astype(value.dtype)


def ffs(value: Value) -> Value:
    """Return the position of the lowest 1 bit, counted from 1, and 0 for 0; uint32."""
    bits = _unsigned(value)
    below = np.bitwise_count((bits & (~bits + bits.dtype.type(1))) - bits.dtype.type(1))
    return np.where(bits == 0, 0, below + 1).astype(np.uint32)


def brev(value: Value) -> Value:
    """Reverse the bits; return uint64 for a uint64, else uint32."""
    width = 64 if value.dtype == np.uint64 else 32
    bits = value.astype(f"u{width // 8}")
    number = bits.dtype.type
    # Swap halves, then quarters, down to neighbouring bits.
    half = width // 2
    while half:
        low = number(sum(((1 << half) - 1) << place for place in range(0, width, 2 * half)))
        bits = ((bits & low) << number(half)) | ((bits >> number(half)) & low)
        half //= 2
    return bits


def fma(a: Value, b: Value, c: Value) -> Value:
    """``a * b + c`` with one rounding."""
    dtype = _float_type(a, b, c)
    add_product = multiply_add_float64 if dtype == FLOAT64 else multiply_add
    return add_product(*(value.astype(FLOAT64) for value in (a, b, c))).astype(dtype)


def selp(condition: Value, a: Value, b: Value) -> Value:
    """Return `a` where `condition` holds, else `b`; both are evaluated."""
    if a.dtype != b.dtype:
        raise TypeError(f"cuda.selp needs two values of one type, got {a.dtype} and {b.dtype}")
    return select(condition, a, b)


INTEGER_AND_FLOAT: dict[str, Intrinsic] = {
    "popc": Intrinsic(popc),
    "clz": Intrinsic(clz),
    "ffs": Intrinsic(ffs),
    "brev": Intrinsic(brev),
    "fma": Intrinsic(fma, operations=2),
    "selp": Intrinsic(selp),
    "cbrt": Intrinsic(_real(np.cbrt), special=1),
}
"""Functions on ``cuda`` itself."""


def _half(function: Callable[..., Any], operations: int = 0, special: int = 0) -> Intrinsic:
    """Return the intrinsic that computes in float32 and rounds once, as the hardware does for one operation."""

    def call(*values: Value) -> Value:
        result = function(*(value.astype(FLOAT16).astype(FLOAT32) for value in values))
        return result if result.dtype == np.bool_ else result.astype(FLOAT16)

    return Intrinsic(call, operations=operations, special=special)


FP16: dict[str, Intrinsic] = {
    "hadd": _half(np.add, 1),
    "hsub": _half(np.subtract, 1),
    "hmul": _half(np.multiply, 1),
    "hfma": _half(lambda a, b, c: mul(a.astype(FLOAT64), b) + c, 2),
    "hdiv": _half(np.true_divide, special=1),
    "hrcp": _half(lambda x: np.float32(1) / x, special=1),
    "hrsqrt": _half(lambda x: np.float32(1) / np.sqrt(x), special=1),
    "hexp10": _half(lambda x: np.power(np.float32(10), x), special=1),
    **{
        f"h{n}": _half(getattr(np, n), special=1)
        for n in ["sin", "cos", "log", "log2", "log10", "exp", "exp2", "sqrt"]
    },
    **{f"h{n}": _half(getattr(np, n)) for n in ["floor", "ceil", "trunc", "rint"]},
    "hneg": _half(np.negative),
    "habs": _half(np.abs),
    "hmax": _half(np.fmax),
    "hmin": _half(np.fmin),
    "heq": _half(np.equal),
    "hne": _half(np.not_equal),
    "hge": _half(np.greater_equal),
    "hgt": _half(np.greater),
    "hle": _half(np.less_equal),
    "hlt": _half(np.less),
}
"""Functions on ``cuda.fp16``."""


# Casts.

_NUMBA_NAMES = {"boolean": "bool", "bool": "bool", "bool_": "bool"}


_ABSTRACT = {
    *(np.generic, np.number, np.integer, np.signedinteger, np.unsignedinteger, np.inexact),
    *(np.floating, np.complexfloating, np.flexible, np.character),
}
"""Types of NumPy that are no dtypes."""


def as_dtype(value: Any) -> np.dtype[Any] | None:
    """Return the NumPy dtype that `value`, a NumPy or Numba type, stands for; None for anything else."""
    if isinstance(value, np.dtype):
        return value
    if isinstance(value, type):
        concrete = issubclass(value, np.generic) and value not in _ABSTRACT
        return np.dtype(value) if concrete or value in (bool, int, float, complex) else None
    record = getattr(value, "dtype", None)
    if isinstance(record, np.dtype) and not hasattr(value, "shape"):
        return record
    module = type(value).__module__
    if "numba" in module and "types" in module:
        try:
            return np.dtype(_NUMBA_NAMES.get(str(value), str(value)))
        except (TypeError, ValueError, SyntaxError):
            return None
    return None


def caster(dtype: np.dtype[Any]) -> Function:
    """Return the function that a cast such as ``float32(x)`` calls."""

    def call(value: Value) -> Value:
        if dtype.kind == "b" and value.dtype.kind != "c":
            return truth(value)
        return cast(value, dtype)

    return call
