"""Fields of record arrays: a field that is itself an array adds its axes to those of the record array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def field_of(buffer: Any, name: str, offset: Any, strides: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    """Return the 1-D buffer of one field, the offset and strides in it, and the axes that the field adds.

    Parameters
    ----------
    buffer : ndarray
        1-D, with fields.
    name : str
        The field.
    offset : int or int64 array
        Position of the array's first element in `buffer`.
    strides : tuple of int
        Strides of the array, in elements of `buffer`.
    """
    found = buffer[name]
    if found.ndim == 1:
        return found, offset, strides, ()
    step, inner = found.strides[0], found.strides[1:]
    unit = math.gcd(step, *inner)
    axes = zip(found.shape, found.strides, strict=True)
    extent = 0 if found.size == 0 else 1 + sum((n - 1) * (s // unit) for n, s in axes)
    flat = np.lib.stride_tricks.as_strided(found, (extent,), (unit,), writeable=found.flags.writeable)
    outer = tuple(s * (step // unit) for s in strides)
    return flat, offset * (step // unit), (*outer, *(s // unit for s in inner)), found.shape[1:]
