"""Views of an array: its transpose, other shapes, other dtypes, the parts of complex numbers, and ``flat``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....errors import KernelError, KernelIndexError, UnsupportedConstructError
from ...machine import masks
from ...machine.lanes import source_line
from ...machine.machine import Machine
from ...machine.masks import Mask
from ...machine.memory import LaneArray
from ...machine.strides import contiguous_strides


def refuse(what: str, instead: str) -> UnsupportedConstructError:
    """Return the error for something that the machine does not run, at the line that runs."""
    return UnsupportedConstructError(f"the lockstep machine does not run {what}: {instead}, {source_line()}")


def is_contiguous(array: LaneArray, order: int = 1) -> bool:
    """Tell whether an array is contiguous in the order of its axes (`order` 1) or in the reversed order (-1)."""
    lengths, strides = array.lengths[::order], array.strides[::order]
    if any(isinstance(n, np.ndarray) for n in lengths):
        # Of the first axis alone, the length does not matter.
        if order == -1 or any(isinstance(n, np.ndarray) for n in lengths[1:]):
            return False
        lengths = (2, *lengths[1:])
    step = array.dtype.itemsize // array.buffer.strides[0] if array.buffer.strides[0] else 1
    if (
        np.ndim(array.offset)
        and array.strides
        and min(map(abs, array.strides)) >= array.machine.num_lanes > 1
    ):
        step = array.machine.num_lanes  # in local memory, the elements of all lanes lie side by side
    wanted = contiguous_strides(lengths)
    return 0 in lengths or all(
        n == 1 or stride == step * w for n, stride, w in zip(lengths, strides, wanted, strict=True)
    )


def transposed(array: LaneArray) -> LaneArray:
    """``array.T``."""
    return array.like(array.offset, array.lengths[::-1], array.strides[::-1], None)


def transpose(machine: Machine, mask: Mask, array: LaneArray, *axes: Any) -> LaneArray:
    """``array.transpose()``, ``array.transpose(1, 0)`` and ``np.transpose(array, (1, 0))``."""
    given = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple) else axes
    count = len(array.lengths)
    order = [int(axis) % max(count, 1) for axis in given] if axes else list(range(count))[::-1]
    if sorted(order) != list(range(count)):
        raise KernelError(f"the axes of {array.name} must be a permutation, got {tuple(map(int, given))}")
    return array.like(
        array.offset, tuple(array.lengths[a] for a in order), tuple(array.strides[a] for a in order), None
    )


def reshape(machine: Machine, mask: Mask, array: LaneArray, *shape: Any) -> LaneArray:
    """``array.reshape(shape)``: a view; the array must have one shape in all threads, and not need a copy."""
    if len(shape) == 1 and isinstance(shape[0], tuple):
        shape = shape[0]
    given = [masks.common(mask, n) for n in (*shape, *array.lengths)]
    if None in given:
        raise KernelError(f"{array.name} must have one shape in all threads that reshape it, {source_line()}")
    wanted, lengths = [int(n) for n in given[: len(shape)]], tuple(map(int, given[len(shape) :]))
    size = int(np.prod(lengths, dtype=np.int64))
    known = int(np.prod([n for n in wanted if n != -1], dtype=np.int64))
    if wanted.count(-1) == 1:
        wanted[wanted.index(-1)] = size // max(1, known)
        known = int(np.prod(wanted, dtype=np.int64))
    if known != size or min(wanted, default=0) < 0:
        raise KernelError(f"{array.name} must be reshaped to {size} elements, got shape={tuple(wanted)}")
    # Numba compiles it for these layouts alone.
    fits = is_contiguous(array) or is_contiguous(array, -1)
    strides = _reshaped(lengths, array.strides, tuple(wanted)) if fits else None
    if strides is None:
        raise KernelError(f"reshape needs a contiguous array, got {array.name}, which is strided")
    return array.like(array.offset, tuple(wanted), strides, None)


def _reshaped(
    lengths: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return the strides of an array in another shape, or None if it would have to be copied."""
    # NumPy knows the rule. No element of this array is read.
    scratch = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), lengths, strides)
    try:
        scratch.shape = wanted
    except AttributeError:
        return None
    return scratch.strides if 0 not in lengths else contiguous_strides(wanted)


def from_pointer(
    order: int, machine: Machine, mask: Mask, ptr: Any, shape: Any, dtype: Any = None
) -> LaneArray:
    """``carray(ptr, shape, dtype)`` (`order` 1) and ``farray`` (-1): the memory from a pointer on, as an array."""
    name = "carray" if order == 1 else "farray"
    if not isinstance(ptr, LaneArray) or len(ptr.lengths) != 1:
        raise KernelError(f"{name} needs a pointer, {source_line()}")
    if dtype is not None and dtype != ptr.dtype:
        raise KernelError(f"{name} needs the dtype of {ptr.name}, {ptr.dtype}, got {dtype}, {source_line()}")
    given = [masks.common(mask, n) for n in (shape if isinstance(shape, tuple) else (shape,))]
    if None in given:
        raise KernelError(f"{name} needs one shape in all threads, {source_line()}")
    lengths = tuple(map(int, given))
    size = int(np.prod(lengths, dtype=np.int64))
    if min(lengths, default=0) < 0 or size > ptr.lengths[0]:
        raise KernelIndexError(
            f"{name} must lie in the {ptr.lengths[0]} elements from {ptr.name} on, got shape={lengths}, "
            f"{source_line()}"
        )
    return ptr.like(ptr.offset, lengths, contiguous_strides(lengths[::order])[::order], None)


def ravel(machine: Machine, mask: Mask, array: LaneArray) -> LaneArray:
    """``array.ravel()``: a view of a C-contiguous array."""
    if len(array.lengths) == 1:
        return array
    if not is_contiguous(array):
        raise refuse(
            f"ravel of {array.name}, which is not C-contiguous and must be copied", "index it with loops"
        )
    if not array.lengths:
        return array.like(array.offset, (1,), (1,), None)
    size: Any = 1
    for length in array.lengths:
        size = size * length
    return array.like(array.offset, (size,), (array.strides[-1],), None)


def view(machine: Machine, mask: Mask, array: LaneArray, dtype: Any) -> LaneArray:
    """``array.view(dtype)``: the same bytes as another type."""
    if not isinstance(dtype, np.dtype):
        raise KernelError(f"view needs a dtype, {source_line()}")
    old, new = array.dtype.itemsize, dtype.itemsize
    buffer = array.buffer
    if old == new:
        return array.over(buffer.view(dtype), array.offset, array.lengths, array.strides)
    if not array.strides or array.strides[-1] != 1 or buffer.strides[0] != old:
        raise refuse(
            f"view of {array.name}, whose last axis is not contiguous, as {dtype}",
            "view a contiguous array, or as a type of the same size",
        )
    last = array.lengths[-1]
    if np.any((last * old % new != 0) & np.asarray(mask)):
        raise KernelError(
            f"the last axis of {array.name} must hold whole elements of {dtype}, {source_line()}"
        )
    if np.any(np.asarray(array.offset * old % new != 0) & np.asarray(mask)):
        raise KernelError(
            f"{array.name} must begin at a multiple of {new} bytes to be viewed as {dtype}, {source_line()}"
        )
    whole = buffer[: buffer.size * old // new * new // old]
    lengths = (*array.lengths[:-1], last * old // new)
    strides = (*(s * old // new for s in array.strides[:-1]), 1)
    if any(s * old % new for s in array.strides[:-1]):
        raise KernelError(f"the rows of {array.name} must hold whole elements of {dtype}, {source_line()}")
    return array.over(whole.view(dtype), array.offset * old // new, lengths, strides)


def real(array: LaneArray) -> LaneArray:
    """``array.real``: a view of the real parts; a real array itself."""
    return _part(array, "real") if array.dtype.kind == "c" else _real_array(array)


def imag(array: LaneArray) -> LaneArray:
    """``array.imag``: a view of the imaginary parts."""
    if array.dtype.kind != "c":
        _real_array(array)
        raise refuse(f"imag of {array.name}, which is real", "the imaginary parts are 0")
    return _part(array, "imag")


def _real_array(array: LaneArray) -> LaneArray:
    if array.dtype.kind not in "iuf":
        raise KernelError(f"{array.name} holds {array.dtype}, which has no real and imaginary part")
    return array


def _part(array: LaneArray, name: str) -> LaneArray:
    return array.over(getattr(array.buffer, name), array.offset, array.lengths, array.strides, array.lead)


class Flat:
    """``array.flat``: the elements in C order, by one index; assignments store into the array."""

    __lane_attributes__ = ("size",)

    def __init__(self, array: LaneArray) -> None:
        self.array = array

    @property
    def size(self) -> Any:
        """Number of elements, int64."""
        return self.array.size

    def place(self, index: Any) -> tuple[Any, ...]:
        """Return the index along each axis of the element at a flat index."""
        shape = self.array.shape
        if not shape:
            if np.any(index != 0):
                raise KernelIndexError(f"{self.array.name}.flat has one element, {source_line()}")
            return ()
        rest, places = index.astype(np.int64), []
        for length in reversed(shape[1:]):
            inner = np.maximum(length, 1)
            places.append(rest % inner)
            rest = rest // inner
        # Unsigned: a negative index does not count from the end.
        return (rest.astype(np.uint64), *reversed(places))

    def load(self, mask: Mask, index: Any) -> Any:
        """``array.flat[index]``."""
        return self.array.load(mask, self.place(index))

    def store(self, mask: Mask, index: Any, value: Any) -> None:
        """``array.flat[index] = value``."""
        self.array.store(mask, self.place(index), value)
