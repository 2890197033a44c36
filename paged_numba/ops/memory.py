"""Checks of arrays that kernels write: they are writable, and no two elements and no two arguments share memory."""

from __future__ import annotations

from typing import Any

import numpy as np

_MAX_WORK = 10_000
"""Steps after which a search for overlaps is given up; slices and transposes need one step for each axis."""


def check_written(name: str, array: Any) -> None:
    """Raise if a kernel could not store into an array, or two of its elements overlap."""
    memory = memory_of(array)
    if memory is None:
        return
    if not memory.flags.writeable:
        raise ValueError(f"{name} must be writable, got a read-only array")
    if not memory.flags.c_contiguous and overlaps_itself(memory.shape, memory.strides, memory.itemsize):
        raise ValueError(
            f"{name} must not have elements that share memory, got {name}.strides={memory.strides} "
            f"with {name}.shape={memory.shape}"
        )


def check_apart(name: str, array: Any, other_name: str, other: Any) -> None:
    """Raise if two arrays, one of which is written, overlap."""
    memory, others = memory_of(array), memory_of(other)
    if memory is None or others is None or not np.may_share_memory(memory, others):
        return
    try:
        overlap = np.shares_memory(memory, others, max_work=_MAX_WORK)  # type: ignore[arg-type] # any number is taken
    except np.exceptions.TooHardError:  # interleaved in a way that no caller uses
        overlap = False
    if overlap:
        raise ValueError(f"{name} and {other_name} must not share memory, got two views that overlap")


def overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Tell whether two elements of an array have a byte in common.

    Two elements overlap if some numbers of steps along the axes, not all of them 0, lead less than an element away. The
    search goes from the longest stride to the shortest, and tries only steps that the shorter strides can lead back
    from. A slice or a transpose of an array has none, so each axis costs one step of the search. After `_MAX_WORK`
    steps, the answer is yes.

    Parameters
    ----------
    shape, strides : tuple of int
        Strides in bytes.
    itemsize : int

    Examples
    --------
    >>> overlaps_itself((2, 3), (12, 4), 4), overlaps_itself((2, 3), (4, 4), 4)
    (False, True)
    """
    if 0 in shape:
        return False
    axes = sorted(
        ((abs(stride), length - 1) for length, stride in zip(shape, strides, strict=True) if length > 1),
        reverse=True,
    )
    # How far an axis and those after it can lead, and the bytes of an element that still overlap.
    reaches = [itemsize - 1]
    for stride, most in reversed(axes):
        reaches.insert(0, reaches[0] + stride * most)
    work = 0
    states = [(0, 0, False)]  # the axis, the bytes so far, whether the two elements differ so far
    while states:
        axis, offset, differ = states.pop()
        if axis == len(axes):
            if differ:
                return True
            continue
        stride, most = axes[axis]
        if stride == 0:
            return True
        reach = reaches[axis + 1]
        # Of two elements either may be the first, so the first difference may be taken as positive.
        low = max(-most, -((offset + reach) // stride)) if differ else 0
        high = min(most, (reach - offset) // stride)
        work += max(0, high - low + 1)
        if work > _MAX_WORK:
            return True
        states.extend(
            (axis + 1, offset + times * stride, differ or times != 0) for times in range(low, high + 1)
        )
    return False


class _Described:
    """An object that describes memory to NumPy; the memory itself is never read."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.__array_interface__ = description


def memory_of(array: Any) -> Any:
    """Return a NumPy array that has the flags, strides and addresses of an adopted array; None if these are unknown.

    For an array on the GPU, the addresses are the GPU's: the result must not be read.
    """
    if isinstance(array, np.ndarray):
        return array
    try:
        interface = array.__cuda_array_interface__
        description = {
            "version": 3,
            "shape": tuple(array.shape),
            "typestr": f"|V{np.dtype(array.dtype).itemsize}",
            "strides": interface.get("strides"),
            "data": interface["data"],
        }
        return np.asarray(_Described(description))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
