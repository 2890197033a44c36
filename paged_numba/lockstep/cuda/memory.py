"""Memory: device arrays and their copies, pinned, mapped and managed host arrays, ``In``, ``Out`` and ``InOut``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...arguments import host_array, one_of, require_memory, shown, truth
from ..compiler.names import DEVICE_MEMORY
from ..machine.poison import fresh_array
from .device_array import (
    MOST_AXES,
    DeviceArray,
    DeviceRecord,
    dtype_of,
    fresh_strided,
    require_contiguous,
    sizes,
)
from .pointers import MemoryPointer, array_at, memory_at
from .streams import external_stream

__all__ = [
    "ArgHint",
    "In",
    "InOut",
    "MappedArray",
    "Out",
    "as_cuda_array",
    "defer_cleanup",
    "device_array",
    "device_array_like",
    "from_cuda_array_interface",
    "is_cuda_array",
    "managed_array",
    "mapped",
    "mapped_array",
    "mapped_array_like",
    "pinned",
    "pinned_array",
    "pinned_array_like",
    "to_device",
]


def to_device(obj: Any, stream: Any = 0, copy: bool = True, to: DeviceArray | None = None) -> DeviceArray:
    """Return a device array with a copy of `obj`; copy into `to` if it is given.

    Parameters
    ----------
    obj : array_like
        The array to copy; a device array is returned as it is.
    stream : object
        The stream of the new array: every copy is done when the call returns.
    copy : bool
        If False, the device array uses the memory of `obj`, or `to` is returned as it is.
    to : DeviceArray, optional
        Where to copy to.

    Raises
    ------
    TypeError, ValueError
        `obj` is not a contiguous array, or `to` is not a device array of the same shape and dtype.

    See Also
    --------
    paged_numba.cuda.device_array : Makes a device array with fresh memory.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> cuda.to_device(np.ones(4, np.float32))
    <DeviceArray on lockstep, shape=(4,), dtype=float32>
    """
    copy = truth("copy", copy)
    if to is not None:
        if not isinstance(to, DeviceArray):
            raise TypeError(f"to must be a device array or None, got to={shown(to)}")
        if copy:
            to.copy_to_device(obj if isinstance(obj, DeviceArray) else _source(obj))
        return to
    if isinstance(obj, DeviceArray):
        return obj
    if is_cuda_array(obj) and not hasattr(obj, "__lockstep_array__"):
        return as_cuda_array(obj)
    source = _source(obj) if copy else host_array("obj", obj)
    kind = DeviceRecord if isinstance(obj, np.void) else DeviceArray
    return kind.of(_copied(source) if copy else source, stream)


def _source(obj: Any) -> Any:
    array = host_array("obj", obj)
    require_contiguous(array)
    return array


def _copied(array: Any) -> Any:
    """Return a copy that keeps the order of the axes, and repeats what `array` repeats."""
    if not array.size or 0 not in array.strides:
        return np.array(array, order="K")
    core = array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]
    return np.broadcast_to(np.array(core, order="K"), array.shape)


def device_array(
    shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C", stream: Any = 0
) -> DeviceArray:
    """Return a fresh device array, whose memory is poisoned: fresh memory of a GPU holds arbitrary values too.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis.
    dtype : dtype
        Type of the elements.
    strides : tuple of int, optional
        Bytes from element to element along each axis; by default those of `order`.
    order : {"C", "F"}
        Rows or columns contiguous.
    stream : object
        The stream of the array: work is done when the call returns.

    Raises
    ------
    TypeError, ValueError, MemoryError
        The shape, dtype, strides or order is not valid, or the array does not fit into memory.

    See Also
    --------
    paged_numba.cuda.to_device : Makes a device array with a copy of a host array.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> cuda.device_array(3, np.float32).copy_to_host()
    array([nan, nan, nan], dtype=float32)
    """
    return DeviceArray.of(_fresh(shape, dtype, strides, order), stream)


def _fresh(shape: Any, dtype: Any, strides: Any, order: str) -> Any:
    """Return a fresh NumPy array, whose memory is poisoned."""
    dtype, lengths = dtype_of(dtype), sizes("shape", shape)
    if any(length < 0 for length in lengths) or len(lengths) > MOST_AXES:
        raise ValueError(
            f"shape must hold at most {MOST_AXES} lengths of 0 or more, got shape={shown(lengths)}"
        )
    order = one_of("order", order, ("C", "F"))
    needed = math.prod(lengths) * dtype.itemsize
    steps = None if strides is None else sizes("strides", strides)
    if steps:
        if len(steps) != len(lengths):
            raise ValueError(f"strides must have an item for each axis of shape={lengths}, got {steps}")
        needed = sum(max(n - 1, 0) * abs(step) for n, step in zip(lengths, steps, strict=True))
    require_memory(f"an array of shape={shown(lengths)}", needed)
    try:
        return fresh_strided(lengths, steps, dtype) if steps else fresh_array(lengths, dtype, order)
    except MemoryError:
        raise MemoryError(f"an array of shape={shown(lengths)} must fit into memory") from None


def _like(ary: Any) -> dict[str, Any]:
    """Return the shape, dtype, strides and order of a dense array whose axes lie in the order of those of `ary`."""
    ary = host_array("ary", ary)
    made: dict[str, Any] = {"shape": ary.shape, "dtype": ary.dtype, "strides": None, "order": "C"}
    if ary.flags.f_contiguous and not ary.flags.c_contiguous:
        made["order"] = "F"
    elif not ary.flags.c_contiguous and ary.ndim > 1:
        steps, step = [0] * ary.ndim, ary.dtype.itemsize
        for axis in sorted(range(ary.ndim), key=lambda axis: ary.strides[axis]):
            steps[axis] = step
            step *= ary.shape[axis]
        made["strides"] = tuple(steps)
    return made


def device_array_like(ary: Any, stream: Any = 0) -> DeviceArray:
    """Return a fresh device array with the shape and dtype of `ary`.

    Parameters
    ----------
    ary : array
        Its shape, dtype and order of axes are taken.
    stream : object
        The stream of the array: work is done when the call returns.
    """
    return device_array(**_like(ary), stream=stream)


def from_cuda_array_interface(desc: dict[str, Any], owner: Any = None, sync: bool = True) -> DeviceArray:
    """Return a device array that uses the memory that a CUDA array interface describes.

    Parameters
    ----------
    desc : dict
        ``__cuda_array_interface__`` of an array in memory of the lockstep machine.
    owner : object
        Kept alive by its memory.
    sync : bool
        Whether to wait for the stream of the array, whose work is done anyhow.

    Raises
    ------
    ValueError
        The memory is not the lockstep machine's, such as that of a GPU.
    NotImplementedError
        The array has a mask.
    """
    return _described("desc", desc, sync)


def _described(name: str, desc: Any, sync: Any) -> DeviceArray:
    """Return the device array that a CUDA array interface describes, which is that of the argument `name`."""
    try:
        mask, dtype, shape = desc.get("mask"), np.dtype(desc["typestr"]), sizes("shape", tuple(desc["shape"]))
        address, strides, stream = int(desc["data"][0]), desc.get("strides"), desc.get("stream")
        steps = None if strides is None else sizes("strides", tuple(strides))
        known: Any = external_stream(stream) if stream is not None else 0
    except Exception as error:  # of the object's own methods, too
        raise TypeError(f"{name} must have a CUDA array interface, got {name}={shown(desc)}") from error
    if mask is not None:
        raise NotImplementedError(
            f"Masked arrays are not supported: {name} has a mask, which no kernel heeds"
        )
    config = getattr(sys.modules.get("numba.cuda"), "config", None)
    if sync and known and getattr(config, "CUDA_ARRAY_INTERFACE_SYNC", True):
        known.synchronize()
    if not math.prod(shape):
        return DeviceArray.of(np.ndarray(shape, dtype), known)
    memory = memory_at(address)
    if memory is None:
        raise ValueError(
            f"{name} must lie in memory of the lockstep machine, got an address that no device array has given away"
        )
    try:
        return DeviceArray.of(array_at(memory, address, shape, steps, dtype), known)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must lie in its memory, got shape={shape} at address {address}") from error


def as_cuda_array(obj: Any, sync: bool = True) -> DeviceArray:
    """Return a device array that uses the memory of `obj`, an array of the lockstep machine or in host memory.

    Parameters
    ----------
    obj : array
        Not copied.
    sync : bool
        Whether to wait for the stream of the array, whose work is done anyhow.
    """
    if isinstance(obj, DeviceArray):
        return obj.bind(obj.stream)
    if is_cuda_array(obj) and not hasattr(obj, "__lockstep_array__"):
        return _described("obj", getattr(obj, "__cuda_array_interface__", None), sync)
    return DeviceArray.of(host_array("obj", obj))


def is_cuda_array(obj: Any) -> bool:
    """Tell whether `obj` has a CUDA array interface, as device arrays have.

    Parameters
    ----------
    obj : object
        Anything.
    """
    try:
        return hasattr(obj, "__cuda_array_interface__")
    except Exception:  # of the object's own methods
        return False


def _captured(value: Any) -> Any:
    """Return the memory of a device array that a kernel refers to as a global, None for anything else."""
    try:
        return as_cuda_array(value).__lockstep_array__ if is_cuda_array(value) else None
    except (TypeError, ValueError, NotImplementedError):
        return None


DEVICE_MEMORY.append(_captured)


# Arguments of launches.


class ArgHint:
    """A host array passed to a kernel, with the copies that its launch makes."""

    copies_in = copies_out = True

    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def _numba_type_(self) -> Any:
        from numba.cuda import typeof

        return typeof(self.value)

    def on_device(self) -> Any:
        """Return the array that the kernel uses."""
        value = getattr(self.value, "__lockstep_array__", self.value)
        if not isinstance(value, np.ndarray) or value is not self.value or self.copies_in is self.copies_out:
            return value
        if self.copies_in:
            return np.array(value, order="K")
        return _fresh(**_like(value))

    def back(self, array: Any) -> None:
        """Copy what the kernel stored to the host array."""
        if self.copies_out and array is not self.value and isinstance(self.value, np.ndarray):
            np.copyto(self.value, array)


class In(ArgHint):
    """A host array that a kernel reads: what it stores does not reach the host."""

    copies_out = False


class Out(ArgHint):
    """A host array that a kernel writes: it does not see what the host stored."""

    copies_in = False


class InOut(ArgHint):
    """A host array that a kernel reads and writes."""


# Host memory.


class MappedArray(np.ndarray):
    """A host array that kernels use in place, as `mapped_array` and `managed_array` return it."""

    stream: Any = 0

    @property
    def __lockstep_array__(self) -> Any:
        return self.view(np.ndarray)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return DeviceArray.of(self.__lockstep_array__, self.stream).__cuda_array_interface__

    @property
    def gpu_data(self) -> MemoryPointer:
        return DeviceArray.of(self.__lockstep_array__).gpu_data

    @property
    def device_ctypes_pointer(self) -> Any:
        return DeviceArray.of(self.__lockstep_array__).device_ctypes_pointer

    def copy_to_host(self, ary: Any = None, stream: Any = 0) -> Any:
        """Return a copy as a NumPy array; copy into `ary` if it is given."""
        return DeviceArray.of(self.__lockstep_array__).copy_to_host(ary)

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        """Overwrite the array with `ary`."""
        DeviceArray.of(self.__lockstep_array__).copy_to_device(ary)


def pinned_array(shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C") -> Any:
    """Return a fresh host array, whose memory is poisoned."""
    return _fresh(shape, dtype, strides, order)


def mapped_array(
    shape: Any,
    dtype: Any = np.float64,
    strides: Any = None,
    order: str = "C",
    stream: Any = 0,
    portable: bool = False,
    wc: bool = False,
) -> Any:
    """Return a fresh host array, whose memory is poisoned; kernels use it in place."""
    made = _fresh(shape, dtype, strides, order).view(MappedArray)
    made.stream = stream
    return made


def managed_array(
    shape: Any,
    dtype: Any = np.float64,
    strides: Any = None,
    order: str = "C",
    stream: Any = 0,
    attach_global: bool = True,
) -> Any:
    """Return a fresh host array, whose memory is poisoned; kernels use it in place."""
    return mapped_array(shape, dtype, strides, order, stream)


def pinned_array_like(ary: Any) -> Any:
    """Return a fresh host array with the shape and dtype of `ary`."""
    return pinned_array(**_like(ary))


def mapped_array_like(ary: Any, stream: Any = 0, portable: bool = False, wc: bool = False) -> Any:
    """Return a fresh host array with the shape and dtype of `ary`; kernels use it in place."""
    return mapped_array(**_like(ary), stream=stream)


@contextmanager
def pinned(*arrays: Any) -> Iterator[None]:
    """Do nothing: all memory is host memory."""
    yield


@contextmanager
def mapped(*arrays: Any, stream: Any = 0) -> Iterator[Any]:
    """Yield a device array that uses the memory of each array; a list of them, unless there is one."""
    made: Sequence[DeviceArray] = [DeviceArray.of(host_array("arrays", array), stream) for array in arrays]
    yield made[0] if len(made) == 1 else made


@contextmanager
def defer_cleanup() -> Iterator[None]:
    """Do nothing: no cleanup is pending."""
    yield
