"""Strides of arrays, in elements: how an array lies in its memory, and what a slice selects."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import KernelError
from .lanes import source_line


def flattened(array: Any) -> tuple[Any, int, tuple[int, ...], tuple[int, ...]]:
    """Return a 1-D view of all the memory of an array, and its offset, shape and strides in that view."""
    if type(array) is np.ndarray and array.flags.c_contiguous:
        return array.ravel(), 0, array.shape, _in_elements(array.strides, array.itemsize)
    unit = math.gcd(*array.strides) or array.itemsize
    start = array
    for axis, stride in enumerate(array.strides):
        if stride < 0:
            start = np.flip(start, axis)
    lengths = zip(start.shape, start.strides, strict=True)
    extent = 0 if array.size == 0 else 1 + sum((n - 1) * (s // unit) for n, s in lengths)
    buffer = _strided(start, extent, unit)
    strides = _in_elements(array.strides, unit)
    offset = sum(-(n - 1) * s for n, s in zip(array.shape, strides, strict=True) if s < 0)
    return buffer, offset, array.shape, strides


def _strided(array: Any, extent: int, unit: int) -> Any:
    """Return a 1-D view of `extent` elements, `unit` bytes from each other, that begins where `array` does."""
    # NumPy cannot stride over records with padding, but over their bytes.
    plain = array.view(np.dtype((np.void, array.itemsize))) if array.dtype.names is not None else array
    found = np.lib.stride_tricks.as_strided(plain, (extent,), (unit,), writeable=array.flags.writeable)
    return found.view(array.dtype) if plain is not array else found


@lru_cache(maxsize=1024)
def _in_elements(strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Convert strides from bytes to elements; cached, since each argument of each launch needs them."""
    return tuple(stride // itemsize for stride in strides)


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
    flat = _strided(found, extent, unit)
    outer = tuple(s * (step // unit) for s in strides)
    return flat, offset * (step // unit), (*outer, *(s // unit for s in inner)), found.shape[1:]


def items_of(array: Any, count: int = 2) -> str:
    """Describe what an array holds, or is if it has no axes."""
    if array.lengths and count == 1:
        return "an array"
    if array.dtype.names is not None:
        return "records" if count > 1 else "a record"
    return "numbers" if count > 1 else "a number"


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a C-contiguous array."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step = step * length
    return tuple(reversed(strides))


def within_bounds(mask: Any, i: Any, n: Any) -> tuple[Any, Any, Any]:
    """Return int64 indices in ``0 .. n - 1``, the lanes whose index they are, and the lanes out of bounds.

    The lanes are all of them, `mask` if indices of inactive lanes were replaced, or none if an active lane is out of
    bounds; the lanes out of bounds are None unless one is active.
    """
    # As uint64 a negative index is huge: one reduction tests both bounds.
    if not isinstance(n, np.ndarray):
        unsigned = i.view(np.uint64)
        if np.maximum.reduce(unsigned, axis=None) < n:
            return i, True, None
        bad = unsigned >= np.uint64(n)
        if mask is not True and not (bad & mask).any():
            return np.where(bad, 0, i), mask, None
    i = np.where(i < 0, i + n, i)
    bad = (i < 0) | (i >= n)
    if not bad.any():
        return i, True, None
    wrong = (bad & mask).any()
    return np.where(bad, 0, i), False if wrong else mask, bad if wrong else None


def slice_bounds(index: slice, n: Any) -> tuple[Any, Any, int]:
    """Return start, length and step of a slice; start and length by lane if the bounds differ."""
    if isinstance(index.step, np.ndarray):
        raise KernelError(f"a slice must have the same step in all threads, {source_line()}")
    step = 1 if index.step is None else int(index.step)
    bounds = (index.start, index.stop, n)
    if not any(isinstance(bound, np.ndarray) for bound in bounds):
        start, stop = (None if bound is None else int(bound) for bound in bounds[:2])
        chosen = range(*slice(start, stop, step).indices(n))
        return chosen.start, len(chosen), step
    if step == 0:
        raise KernelError(f"a slice must have a step that is not zero, {source_line()}")
    # The places that a bound is clipped to: an end may lie one before the first element if the step is negative.
    least, most = (0, n) if step > 0 else (-1, n - 1)

    def clipped(bound: Any, default: Any) -> Any:
        if bound is None:
            return default
        bound = bound.astype(np.int64)
        return np.clip(np.where(bound < 0, bound + n, bound), least, most)

    forwards = step > 0
    start = clipped(index.start, least if forwards else most)
    stop = clipped(index.stop, most if forwards else least)
    distance = stop - start if forwards else start - stop
    length = np.maximum(0, -(-distance // abs(step)))
    # An empty view must lie inside its array, since inactive lanes read from it.
    return np.where(length > 0, start, 0), length, step


def broadcast_strides(
    mask: Any, lengths: tuple[Any, ...], strides: tuple[int, ...], wanted: tuple[Any, ...]
) -> tuple[int, ...] | None:
    """Return the strides with which an array has the shape `wanted` in the lanes of `mask`, or None if it cannot."""
    while len(lengths) > len(wanted) and np.all(np.equal(lengths[0], 1)):
        lengths, strides = lengths[1:], strides[1:]
    missing = len(wanted) - len(lengths)
    if missing < 0:
        return None
    stretched = [0] * missing
    for n, stride, length in zip(lengths, strides, wanted[missing:], strict=True):
        single = not isinstance(n, np.ndarray) and n == 1
        if not single and np.any((np.asarray(n) != length) & np.asarray(mask)):
            return None
        stretched.append(0 if single else stride)
    return tuple(stretched)
