"""The 8-bit numbers of ``numba.cuda._internal.cuda_fp8``: e5m2, e4m3 and the powers of two e8m0.

Host arrays hold them with dtypes of the package ml_dtypes, which the machine needs too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ....errors import UnsupportedConstructError
from ...machine import masks
from ...machine.arithmetic import lane_type
from ...machine.lanes import source_line
from ..intrinsic import Intrinsic
from .bfloat16 import bfloat16_dtype, exact, rounded

_KINDS = {"e4m3": ("float8_e4m3fn", 4, -6, 448.0), "e5m2": ("float8_e5m2", 3, -14, 57344.0)}
"""NumPy's name, bits of the significand, least exponent of a normal number, largest number."""

_INTERPRETATIONS = ("e4m3", "e5m2")
"""By the number of ``fp8_interpretation_t``."""

_TO_ZERO, _UP = 1, 2
"""``cudaRoundMode.cudaRoundZero`` and ``cudaRoundPosInf``."""


class _Raw(NamedTuple):
    """The bits of a bfloat16 number, uint16."""

    x: Any


Raw: Any = lane_type(_Raw)


def _dtype(name: str) -> np.dtype[Any]:
    bfloat16_dtype()  # refuses if there is no ml_dtypes, which defines the others too
    try:
        return np.dtype(name)
    except TypeError:
        raise UnsupportedConstructError(
            f"the lockstep machine does not run {name} with this release of ml_dtypes, which lacks it: install "
            f"ml_dtypes 0.5 or newer, {source_line()}"
        ) from None


def _encoded(value: Any, kind: str, saturates: bool) -> Any:
    """Return real numbers as e4m3 or e5m2, rounded once to nearest."""
    name, bits, least, largest = _KINDS[kind]
    dtype = _dtype(name)
    if value.dtype == dtype:
        return value
    number = exact(value)
    exponent = np.frexp(np.where(np.isfinite(number), number, 1.0))[1] - 1
    quantum = np.ldexp(1.0, np.maximum(exponent, least) - bits + 1)
    result = np.where(np.isfinite(number), np.rint(number / quantum) * quantum, number)
    beyond = largest if saturates else np.inf if kind == "e5m2" else np.nan
    result = np.where(np.abs(result) > largest, np.copysign(beyond, number), result)
    return result.astype(np.float32).astype(dtype)[()]


def _scaled(machine: Any, mask: Any, value: Any, saturates: bool, up: bool) -> Any:
    """Return positive real numbers as e8m0."""
    dtype = _dtype("float8_e8m0fnu")
    if value.dtype == dtype:
        return value
    number = exact(value)
    if np.any(masks.lanes(mask, machine.shape) & (np.signbit(number) & ~np.isnan(number))):
        raise UnsupportedConstructError(
            "the lockstep machine does not run the conversion of a negative number to e8m0, which has no sign: convert "
            "abs(x)"
        )
    mantissa, exponent = np.frexp(np.where(np.isfinite(number) & (number > 0), number, 1.0))
    code = exponent - 1 + 127 + (up & (mantissa > 0.5))
    code = np.where(number == 0, 0, np.maximum(code, 0))
    code = np.where((code > 254) | np.isinf(number), 254 if saturates else 255, code)
    code = np.where(np.isnan(number), 255, code)
    return code.astype(np.uint8).view(dtype)[()]


def _bits(value: Any) -> Any:
    return np.asarray(value).view(np.uint8)[()]


def _to_fp8(value: Any, saturation: Any, interpretation: Any) -> Any:
    return _bits(_encoded(value, _INTERPRETATIONS[int(interpretation)], bool(saturation)))


def _to_e8m0(machine: Any, mask: Any, value: Any, saturation: Any, direction: Any) -> Any:
    if int(direction) not in (_TO_ZERO, _UP):
        raise TypeError("e8m0 numbers are rounded up or towards zero")
    return _bits(_scaled(machine, mask, value, bool(saturation), int(direction) == _UP))


def _number(raw: Any) -> Any:
    return np.asarray(raw.x.astype(np.uint16)).view(bfloat16_dtype())[()]


def _raw_of_e8m0(code: Any) -> Any:
    power = np.asarray(code.astype(np.uint8)).view(_dtype("float8_e8m0fnu")).astype(np.float32)
    bits = np.where(np.isnan(power), 0x7FFF, np.asarray(rounded(power)).view(np.uint16))
    return Raw(bits.astype(np.uint16)[()])


def _constructor(kind: str) -> Callable[[Any], Any]:
    return lambda value: _encoded(value, kind, True)


FP8: dict[str, Intrinsic] = {
    "fp8_e5m2": Intrinsic(_constructor("e5m2")),
    "fp8_e4m3": Intrinsic(_constructor("e4m3")),
    "fp8_e8m0": Intrinsic(
        lambda machine, mask, value: _scaled(machine, mask, value, True, True), masked=True
    ),
    "cvt_float_to_fp8": Intrinsic(lambda x, *how: _to_fp8(x.astype(np.float32), *how)),
    "cvt_double_to_fp8": Intrinsic(lambda x, *how: _to_fp8(x.astype(np.float64), *how)),
    "cvt_bfloat16raw_to_fp8": Intrinsic(lambda raw, *how: _to_fp8(_number(raw), *how)),
    "cvt_float_to_e8m0": Intrinsic(
        lambda m, a, x, *how: _to_e8m0(m, a, x.astype(np.float32), *how), masked=True
    ),
    "cvt_double_to_e8m0": Intrinsic(
        lambda m, a, x, *how: _to_e8m0(m, a, x.astype(np.float64), *how), masked=True
    ),
    "cvt_bfloat16raw_to_e8m0": Intrinsic(
        lambda m, a, raw, *how: _to_e8m0(m, a, _number(raw), *how), masked=True
    ),
    "cvt_e8m0_to_bf16raw": Intrinsic(_raw_of_e8m0),
}
"""Functions of ``numba.cuda._internal.cuda_fp8``, by name."""
