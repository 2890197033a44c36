"""Conversion of numbers to another type, as the PTX that Numba emits converts them.

``cvt.rzi`` truncates a float32 or float64 and saturates. The 8-bit integers are converted through 16 bits and keep the
low byte. From float16 it is ``cvt.rni``, which rounds to even, and saturates at the type itself. Source of the results
for values out of range: PTX ISA 9.0, ``cvt``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT16 = np.dtype(np.float16)
_WIDENED = {np.dtype(np.int8): np.dtype(np.int16), np.dtype(np.uint8): np.dtype(np.uint16)}


def convert(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return `value`, a NumPy scalar or array, as `dtype`; integers wrap around."""
    if value.dtype == dtype:
        return value
    if value.dtype.kind == "f" and dtype.kind in "iu":
        return _to_integer(value, dtype)
    return value.astype(dtype)


def _to_integer(value: Any, dtype: np.dtype[Any]) -> Any:
    half = value.dtype == FLOAT16
    register = dtype if half else _WIDENED.get(dtype, dtype)
    least, end = int(np.iinfo(register).min), int(np.iinfo(register).max) + 1
    if not half and (not value.size or (float(value.min()) > least - 1 and float(value.max()) < end)):
        return value.astype(register).astype(dtype)
    exact = value.astype(np.float64)
    whole = np.rint(exact) if half else np.trunc(exact)
    fits = (whole >= least) & (whole < end)
    result = np.where(fits, whole, 0.0).astype(register)
    result[whole >= end] = end - 1
    result[whole < least] = least
    if value.dtype.itemsize == 8 or register.itemsize == 8:
        # PTX: 1 << (bits - 1); for all other pairs NaN gives 0.
        result[np.isnan(whole)] = least or end // 2
    return result.astype(dtype)[()]
