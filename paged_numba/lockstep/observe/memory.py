"""Where an observed array lies: its allocation, its place in there, and its elements' names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds


class Memory:
    """An array as the kernel's author knows it.

    Parameters
    ----------
    space : {"global", "constant", "shared", "local"}
    name : str
        The kernel's argument, or the variable that the declaration was assigned to.
    root : ndarray
        The allocation that it lies in; for shared and local memory that of a whole batch of thread blocks.
    start : int
        Bytes from the beginning of `root` to the array's first element.
    shape, strides : tuple of int
        Of the array; strides in bytes.
    row : int
        Shared memory: bytes from one thread block's array to the next one's.
    """

    def __init__(
        self,
        space: str,
        name: str,
        root: Any,
        start: int = 0,
        shape: tuple[int, ...] = (),
        strides: tuple[int, ...] = (),
        row: int = 0,
    ) -> None:
        self.space = space
        self.name = name
        self.root = root
        self.start = start
        self.shape = shape
        self.strides = strides
        self.row = row

    def element(self, byte: int) -> str:
        """Return how a kernel writes the element at a byte of `root` (shared: of the thread block's array)."""
        axes = list(zip(self.shape, self.strides, strict=True))
        # Counted from the element that lies first; axes that run backwards are turned round at the end.
        rest = byte - self.start - sum((n - 1) * step for n, step in axes if step < 0)
        index = [0] * len(axes)
        for axis in sorted(range(len(axes)), key=lambda axis: -abs(self.strides[axis])):
            n, step = axes[axis]
            if step and n > 1:
                index[axis] = min(rest // abs(step), n - 1)
                rest -= index[axis] * abs(step)
                index[axis] = n - 1 - index[axis] if step < 0 else index[axis]
        return f"{self.name}[{', '.join(map(str, index))}]"


def root_of(array: Any) -> Any:
    """Return the NumPy array that owns the memory of `array`, or the outermost one that can be had."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def extent(root: Any) -> tuple[int, int]:
    """Return the address of the first byte of an allocation, and its bytes, gaps between elements included."""
    first, end = byte_bounds(root)
    return first, end - first


def address_of(array: Any) -> int:
    """Return the address of an array's first element."""
    return int(array.__array_interface__["data"][0])
