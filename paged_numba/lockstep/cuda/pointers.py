"""Addresses of memory: `MemoryPointer`, and the way back from an address to the array that owns the memory."""

from __future__ import annotations

import ctypes
import math
import numbers
import weakref
from typing import Any

import numpy as np

from ...arguments import shown
from ...errors import LaunchError

__all__ = ["MemoryPointer"]


class MemoryPointer:
    """A place in memory, as ``gpu_data`` of a device array: the memory, the address, and the bytes from there on.

    Attributes
    ----------
    size : int
        Bytes.
    device_pointer : int
        The address.
    device_ctypes_pointer : ctypes.c_void_p
        The address.
    """

    __cuda_memory__ = True

    def __init__(self, memory: Any, address: int, size: int) -> None:
        self.owner = memory
        self.device_pointer = self.handle = address
        self.size = self._cuda_memsize_ = size
        expose(memory)

    @property
    def device_ctypes_pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.device_pointer)

    @property
    def device_pointer_value(self) -> int | None:
        return self.device_ctypes_pointer.value

    def view(self, start: int, stop: int | None = None) -> MemoryPointer:
        """Return the place `start` bytes further on, with the bytes up to `stop`."""
        return MemoryPointer(
            self.owner, self.device_pointer + start, (self.size if stop is None else stop) - start
        )

    def __int__(self) -> int:
        return int(self.device_pointer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryPointer) and (self.device_pointer, self.size) == (
            other.device_pointer,
            other.size,
        )

    def __hash__(self) -> int:
        return hash((self.device_pointer, self.size))


_exposed: dict[int, weakref.ref[Any]] = {}
"""Memory whose address was given away, by its address: what an address from outside may point into."""


def memory_at(address: int) -> Any:
    """Return the memory that an address points into, as a NumPy array; None if no device array gave it away."""
    for start, known in list(_exposed.items()):
        memory = known()
        if memory is None:
            _exposed.pop(start, None)
        elif start <= address < start + max(memory.nbytes, 1):
            return memory
    return None


def expose(memory: Any) -> None:
    """Note that the address of memory is given away."""
    _exposed[address_of(memory)] = weakref.ref(memory)


def owner_of(array: Any) -> Any:
    """Return the array that owns the memory of an array."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def address_of(array: Any) -> int:
    """Return the address of the first element."""
    return int(array.__array_interface__["data"][0])


def array_at(memory: Any, address: int, shape: Any, strides: Any, dtype: Any) -> Any:
    """Return a NumPy array at an address in `memory`, whose ``base`` it keeps.

    Raises
    ------
    ValueError
        The array would not lie in the memory.
    """
    if not math.prod(shape):
        return np.ndarray(shape, dtype)
    whole = memory if memory.flags.c_contiguous else memory.T
    return np.ndarray(shape, dtype, buffer=whole, offset=address - address_of(memory), strides=strides)


def array_from(address: Any, dtype: Any) -> Any:
    """Return the memory from an address to the end of the device array that it points into, as elements of a dtype.

    Raises
    ------
    LaunchError
        The address is not an integer, or points into no device array.
    """
    memory = memory_at(int(address)) if isinstance(address, numbers.Integral) else None
    if memory is None:
        raise LaunchError(
            f"a pointer must be the address of an element of a device array, got {shown(address)}"
        )
    count = (address_of(memory) + memory.nbytes - int(address)) // dtype.itemsize
    return array_at(memory, int(address), (count,), None, dtype)
