"""``cuda.bfloat16`` and the functions of ``numba.cuda.bf16``: numbers with the range of float32 and 8 significant bits.

A lane value has the NumPy dtype that the package ml_dtypes defines, with which host arrays hold such numbers. Results
are rounded once, to the nearest number with ties to even unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ....errors import UnsupportedConstructError
from ...machine.arithmetic import convert
from ...machine.lanes import source_line
from ..intrinsic import Intrinsic
from .directed import Direction
from .fused import multiply_add

_WHOLE: dict[str, Callable[[Any], Any]] = {"rn": np.rint, "rz": np.trunc, "rd": np.floor, "ru": np.ceil}
_LARGEST = 255 * 2.0**120


@cache
def _dtype_or_none() -> np.dtype[Any] | None:
    try:
        import ml_dtypes
    except ImportError:
        return None
    return np.dtype(ml_dtypes.bfloat16)


def bfloat16_dtype() -> np.dtype[Any]:
    """Return the dtype of bfloat16 numbers.

    Raises
    ------
    UnsupportedConstructError
        The package ml_dtypes is not installed.
    """
    dtype = _dtype_or_none()
    if dtype is None:
        raise UnsupportedConstructError(
            f"the lockstep machine does not run bfloat16 without the package ml_dtypes: install it, {source_line()}"
        )
    return dtype


def rounded(value: Any, way: Direction = "rn") -> Any:
    """Return a real number as bfloat16, rounded once."""
    dtype = bfloat16_dtype()
    if value.dtype == dtype:
        return value
    number = exact(value)
    exponent = np.frexp(np.where(np.isfinite(number), number, 1.0))[1] - 1
    quantum = np.ldexp(1.0, np.maximum(exponent, -126) - 7)
    result = _WHOLE[way](number / quantum) * quantum
    # Rounding down takes a number above the largest one to it, and a number below the least one to infinity.
    inwards = {"rn": False, "rz": True, "rd": number > 0, "ru": number < 0}[way]
    over = np.abs(result) > _LARGEST
    result = np.where(
        over & np.isfinite(number), np.copysign(np.where(inwards, _LARGEST, np.inf), number), result
    )
    return np.where(np.isfinite(number), result, number).astype(np.float32).astype(dtype)[()]


def exact(value: Any) -> Any:
    """Return a number as float64; an integer of more than 53 bits gets another that rounds to the same bfloat16."""
    if value.dtype.kind in "iu" and value.dtype.itemsize == 8:
        # The low bits matter only as a whole: whether there are any.
        low = value & value.dtype.type(2047)
        large = np.abs(value.astype(np.float64)) >= 2.0**53
        return (value - low).astype(np.float64) + np.where(
            large & (low != 0), 1024.0, np.where(large, 0, low)
        )
    return value.astype(np.float64)


def _number(value: Any) -> Any:
    """Return an argument of a function, as float32."""
    return rounded(value).astype(np.float32)


def _function(
    function: Callable[..., Any], count: int, operations: int = 0, special: int = 0, result: Any = rounded
) -> Intrinsic:
    """Return the intrinsic that computes with float32 values and rounds once."""

    def call(*values: Any) -> Any:
        if len(values) != count:
            raise TypeError(f"it takes {count} arguments, got {len(values)}")
        return result(function(*map(_number, values)))

    return Intrinsic(call, operations=operations, special=special)


def _saturated(value: Any) -> Any:
    return rounded(np.where(np.isnan(value), 0, np.clip(value, 0, 1)))


def _unchanged(value: Any) -> Any:
    return value[()] if isinstance(value, np.ndarray) else value


def _fma(a: Any, b: Any, c: Any) -> Any:
    return multiply_add(*(value.astype(np.float64) for value in (a, b, c)))


def _double(ufunc: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of float32 that is exact in float64, or nearly so."""
    return lambda *values: ufunc(*(value.astype(np.float64) for value in values))


def _functions() -> dict[str, Intrinsic]:
    add, subtract = _double(np.add), _double(np.subtract)
    multiply, divide = _double(np.multiply), _double(np.true_divide)
    made = {
        "habs": _function(np.abs, 1),
        "hneg": _function(np.negative, 1),
        "hdiv": _function(divide, 2, special=1),
        "hfma": _function(_fma, 3, 2),
        "hfma_sat": _function(_fma, 3, 2, result=_saturated),
        "hfma_relu": _function(lambda *v: np.maximum(_fma(*v), 0.0), 3, 2),
        "hmax": _function(np.fmax, 2),
        "hmin": _function(np.fmin, 2),
        "hmax_nan": _function(np.maximum, 2),
        "hmin_nan": _function(np.minimum, 2),
        "hisnan": _function(np.isnan, 1, result=_unchanged),
        "hisinf": _function(
            lambda x: (np.isinf(x) * np.sign(np.nan_to_num(x))).astype(np.int32), 1, result=_unchanged
        ),
        "hrsqrt": _function(lambda x: 1 / np.sqrt(x.astype(np.float64)), 1, special=1),
        "hrcp": _function(lambda x: 1 / x.astype(np.float64), 1, special=1),
        "hexp10": _function(lambda x: np.power(10.0, x.astype(np.float64)), 1, special=1),
    }
    for name, function in (("hadd", add), ("hsub", subtract), ("hmul", multiply)):
        made[name] = made[f"{name}_rn"] = _function(function, 2, 1)
        made[f"{name}_sat"] = _function(function, 2, 1, result=_saturated)
    for name in ("trunc", "ceil", "floor", "rint"):
        made[f"h{name}"] = _function(getattr(np, name), 1)
    for name in ("sqrt", "log", "log2", "log10", "cos", "sin", "tanh", "exp", "exp2"):
        made[f"h{name}"] = _function(_double(getattr(np, name)), 1, special=1)
    made["htanh_approx"] = made["htanh"]
    comparisons = {
        "eq": np.equal,
        "ge": np.greater_equal,
        "gt": np.greater,
        "le": np.less_equal,
        "lt": np.less,
    }
    for name, ufunc in comparisons.items():
        made[f"h{name}"] = _function(ufunc, 2, result=_unchanged)
        made[f"h{name}u"] = _function(_unordered(ufunc), 2, result=_unchanged)
    made["hne"] = _function(lambda a, b: (a < b) | (a > b), 2, result=_unchanged)
    made["hneu"] = _function(np.not_equal, 2, result=_unchanged)
    return made


def _unordered(ufunc: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: ufunc(a, b) | np.isnan(a) | np.isnan(b)


def _conversions() -> dict[str, Intrinsic]:
    def from_type(name: str, way: Direction) -> Intrinsic:
        return Intrinsic(lambda value: rounded(convert(value, np.dtype(name)), way))

    def to_type(name: str, way: Direction) -> Intrinsic:
        return Intrinsic(lambda value: convert(_WHOLE[way](_number(value)), np.dtype(name)))

    made = {
        "float32_to_bfloat16": from_type("float32", "rn"),
        "float64_to_bfloat16": from_type("float64", "rn"),
        "bfloat16_to_float32": Intrinsic(_number),
        "bfloat16_to_int8_rz": to_type("int8", "rz"),
        "bfloat16_to_uint8_rz": to_type("uint8", "rz"),
    }
    ways: tuple[Direction, ...] = ("rn", "rz", "rd", "ru")
    for way in ways:
        made[f"float32_to_bfloat16_{way}"] = from_type("float32", way)
        for name in ("int16", "uint16", "int32", "uint32", "int64", "uint64"):
            made[f"{name}_to_bfloat16_{way}"] = from_type(name, way)
            made[f"bfloat16_to_{name}_{way}"] = to_type(name, way)
    for name in ("int16", "uint16"):
        made[f"bfloat16_as_{name}"] = Intrinsic(_viewed_as(name))
        made[f"{name}_as_bfloat16"] = Intrinsic(_viewed_from(name))
    return made


def _viewed_as(name: str) -> Callable[[Any], Any]:
    return lambda value: np.asarray(rounded(value)).view(name)[()]


def _viewed_from(name: str) -> Callable[[Any], Any]:
    return lambda value: np.asarray(convert(value, np.dtype(name))).view(bfloat16_dtype())[()]


BFLOAT16: dict[str, Intrinsic] = {"bfloat16": Intrinsic(rounded), **_functions(), **_conversions()}
"""``bfloat16`` itself and the functions of ``numba.cuda.bf16``, by name."""
