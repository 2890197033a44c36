"""Allocations behind the arrays of a kernel: where an array lies in its allocation, and how its elements are named."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds


class Memory:
    """The memory of one array argument or declared array of a kernel: its name, and its place in an allocation.

    Parameters
    ----------
    space : {"global", "constant", "shared", "local"}
    name : str
        The kernel's parameter, or the variable to which the declaration is assigned.
    root : ndarray
        The allocation. For shared and local memory, one allocation serves a whole batch of thread blocks.
    start : int
        Bytes from the beginning of `root` to the array's first element.
    shape, strides : tuple of int
        Shape and strides of the array, strides in bytes.
    row : int
        For shared memory, the step in bytes from one thread block's array to the next.
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
        """Return the element at a byte as a kernel writes it, such as ``tile[3, 0]``.

        Parameters
        ----------
        byte : int
            Position from the beginning of `root`.
        """
        if self.space == "shared":
            byte %= self.row
        axes = list(zip(self.shape, self.strides, strict=True))
        # Count from the element with the lowest address; reverse the axes with negative strides at the end.
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
    """Return the NumPy array that owns the memory of `array`, or the outermost NumPy array that can be reached."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def extent(root: Any) -> tuple[int, int]:
    """Return the address of an allocation's first byte and its size in bytes, gaps between elements included."""
    first, end = byte_bounds(root)
    return first, end - first


def address_of(array: Any) -> int:
    """Return the address of an array's first element."""
    return int(array.__array_interface__["data"][0])
