"""`DeviceArray`: device arrays of the facade, whose memory is host memory."""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from ...arguments import host_array, integer, one_of, positive, shown
from ..machine.poison import fresh_array
from .names import refusal
from .pointers import MemoryPointer, address_of, array_at, expose, owner_of

__all__ = [
    "DeviceArray",
    "DeviceRecord",
]

MOST_AXES = 32
"""Most axes of an array: the limit of NumPy 1; NumPy 2 has 64."""


class DeviceArray:
    """An array in the memory of the lockstep machine, with the methods of Numba's ``DeviceNDArray``.

    Parameters
    ----------
    shape, strides : int or tuple of int
        Elements along each axis, and bytes from element to element.
    dtype : dtype
        Type of the elements.
    stream : Stream or int
        The stream of the array; it changes nothing, since all work is done when its call returns.
    gpu_data : MemoryPointer, optional
        Where the array begins; by default, in fresh memory.

    Attributes
    ----------
    shape, strides, dtype, ndim, size, nbytes
        As in a NumPy array; strides in bytes.
    flags : dict
        ``C_CONTIGUOUS`` and ``F_CONTIGUOUS``.
    alloc_size : int
        Bytes from the first element to the last.
    gpu_data : MemoryPointer
        Where the array begins.

    See Also
    --------
    paged_numba.cuda.to_device : Makes a device array with a copy of a host array.
    paged_numba.cuda.device_array : Makes a device array with fresh memory.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> array = cuda.to_device(np.arange(6.0).reshape(2, 3))
    >>> array
    <DeviceArray on lockstep, shape=(2, 3), dtype=float64>
    >>> array[1].copy_to_host()
    array([3., 4., 5.])
    """

    __slots__ = ("__lockstep_array__", "__weakref__", "stream")

    __cuda_memory__ = True
    __cuda_ndarray__ = True

    def __init__(self, shape: Any, strides: Any, dtype: Any, stream: Any = 0, gpu_data: Any = None) -> None:
        lengths, steps, dtype = sizes("shape", shape), sizes("strides", strides), dtype_of(dtype)
        if len(lengths) != len(steps):
            raise ValueError(
                f"strides must have one item for each axis of shape={lengths}, got strides={steps}"
            )
        if gpu_data is None:
            array = fresh_strided(lengths, steps, dtype)
        else:
            memory, address = gpu_data.owner, gpu_data.device_pointer
            array = array_at(memory, address, lengths, steps, dtype)
        self.__lockstep_array__ = array
        self.stream = stream

    @classmethod
    def of(cls, array: Any, stream: Any = 0) -> DeviceArray:
        """Return a device array that uses the memory of a NumPy array."""
        made = object.__new__(cls)
        made.__lockstep_array__ = array
        made.stream = stream
        return made

    def _view(self, array: Any, stream: Any = 0) -> DeviceArray:
        return DeviceArray.of(array, stream or self.stream)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.__lockstep_array__.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(self.__lockstep_array__.strides)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.__lockstep_array__.dtype)

    @property
    def ndim(self) -> int:
        return int(self.__lockstep_array__.ndim)

    @property
    def size(self) -> int:
        return int(self.__lockstep_array__.size)

    @property
    def nbytes(self) -> int:
        return int(self.__lockstep_array__.nbytes)

    @property
    def flags(self) -> dict[str, bool]:
        return {"C_CONTIGUOUS": self.is_c_contiguous(), "F_CONTIGUOUS": self.is_f_contiguous()}

    @property
    def alloc_size(self) -> int:
        if not self.size:
            return 0
        reach = sum((n - 1) * abs(step) for n, step in zip(self.shape, self.strides, strict=True))
        return int(reach + self.dtype.itemsize)

    @property
    def gpu_data(self) -> MemoryPointer:
        memory = owner_of(self.__lockstep_array__)
        return MemoryPointer(memory, address_of(self.__lockstep_array__) if self.size else 0, self.alloc_size)

    @property
    def device_ctypes_pointer(self) -> ctypes.c_void_p:
        expose(owner_of(self.__lockstep_array__))
        return self.gpu_data.device_ctypes_pointer

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        stream = self.stream
        return {
            "shape": self.shape,
            "strides": None if self.is_c_contiguous() else self.strides,
            "data": (self.device_ctypes_pointer.value or 0, False),
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": int(stream) if stream else None,
            "version": 3,
        }

    @property
    def _numba_type_(self) -> Any:
        from numba import types
        from numba.np import numpy_support

        layout = "C" if self.is_c_contiguous() else "F" if self.is_f_contiguous() else "A"
        broadcast = self.size != 0 and 0 in self.strides
        dtype = numpy_support.from_dtype(self.dtype)
        return types.Array(dtype, self.ndim, "A" if broadcast else layout)

    def as_cuda_arg(self) -> MemoryPointer:
        """Return where the array begins."""
        return self.gpu_data

    def bind(self, stream: Any = 0) -> DeviceArray:
        """Return the same array with another stream."""
        return type(self).of(self.__lockstep_array__, stream)

    def get_ipc_handle(self) -> NoReturn:
        """Raise UnsupportedConstructError: other processes have no access to the memory."""
        raise refusal("DeviceArray.get_ipc_handle()", "copy the array to the host and send that")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a device array cannot be pickled: pickle its copy_to_host()")

    @property
    def T(self) -> DeviceArray:
        return self.transpose()

    def copy_to_host(self, ary: Any = None, stream: Any = 0) -> Any:
        """Return a copy as a NumPy array; copy into `ary` if it is given.

        Raises
        ------
        TypeError, ValueError
            `ary` is no NumPy array, is read-only, or has another shape, dtype or order of elements.
        NotImplementedError
            A stride is negative.
        """
        own = self.__lockstep_array__
        if any(step < 0 for step in self.strides):
            raise NotImplementedError(f"D->H copy not implemented for negative strides: {self.strides}")
        if ary is None:
            return np.array(own, order="K")
        if not isinstance(ary, np.ndarray):
            raise TypeError(f"ary must be a NumPy array or None, got ary={shown(ary)}")
        if not ary.flags.writeable:
            raise ValueError("ary must be writable, got a read-only array")
        _require_same(self, ary)
        if self.size and ary.squeeze().strides != own.squeeze().strides:
            raise ValueError(
                f"ary must have the strides {self.strides}, since a copy moves bytes, got {ary.strides}"
            )
        np.copyto(ary.squeeze(), own.squeeze())
        return ary

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        """Overwrite the array with `ary`.

        Raises
        ------
        TypeError, ValueError
            `ary` is not an array, or has another shape or dtype.
        """
        source = host_array("ary", ary)
        if not source.size:
            return
        require_contiguous(self)
        if isinstance(ary, DeviceArray):
            require_contiguous(ary)
        _require_same(self, source)
        np.copyto(self.__lockstep_array__.squeeze(), source.squeeze())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False:
            raise ValueError("copy must not be False: a device array is always copied to the host")
        return self.copy_to_host().astype(dtype or self.dtype, copy=False)

    def __len__(self) -> int:
        return len(self.__lockstep_array__)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        return self.getitem(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.setitem(index, value)

    def setitem(self, index: Any, value: Any, stream: Any = 0) -> None:
        """Store `value`, a number or an array, at `index`."""
        source = getattr(value, "__lockstep_array__", value)
        target = self.__lockstep_array__
        if isinstance(source, np.ndarray):
            require_contiguous(source)
            places = np.ndim(target[index])
            if source.ndim > places:
                raise ValueError(f"value must have at most {places} axes there, got shape={source.shape}")
        target[index] = source

    def getitem(self, index: Any, stream: Any = 0) -> Any:
        """Return the element or view at `index`."""
        own = self.__lockstep_array__
        found = own[index]
        if isinstance(found, np.void):
            return DeviceRecord.of(own[_with_ellipsis(index)], stream or self.stream)
        if not isinstance(found, np.ndarray):
            return found
        if found.size and not np.may_share_memory(found, own):
            raise TypeError(f"an index must hold integers, slices, ... or None, got index={shown(index)}")
        return self._view(found, stream)

    def reshape(self, *shape: Any, **order: Any) -> DeviceArray:
        """Return a view in another shape.

        Raises
        ------
        TypeError, ValueError
            `shape` does not fit the array.
        NotImplementedError
            The elements would have to be copied.
        """
        lengths = sizes("shape", shape[0] if len(shape) == 1 else shape)
        own = self.__lockstep_array__
        if lengths == own.shape:
            return self._view(own)
        try:
            return self._without_copy(own.reshape(lengths, **order))
        except ValueError as error:
            raise ValueError(f"shape must fit the array, got shape={shown(lengths)}: {error}") from None

    def ravel(self, order: Any = "C", stream: Any = 0) -> DeviceArray:
        """Return a flat view.

        Raises
        ------
        ValueError
            `order` is unknown.
        NotImplementedError
            The elements would have to be copied.
        """
        flat = self.__lockstep_array__.ravel(one_of("order", order, ("C", "F", "A", "K")))
        return self._without_copy(flat, stream)

    def _without_copy(self, array: Any, stream: Any = 0) -> DeviceArray:
        if array.size and not np.may_share_memory(array, self.__lockstep_array__):
            raise NotImplementedError("operation requires copying")
        return self._view(array, stream)

    def squeeze(self, axis: Any = None, stream: Any = 0) -> DeviceArray:
        """Return a view without axes of length 1."""
        axes = None if axis is None else sizes("axis", axis)
        if axes and any(not -self.ndim <= one < self.ndim or self.shape[one] != 1 for one in axes):
            raise ValueError(f"axis must name axes of length 1 of shape={self.shape}, got axis={shown(axis)}")
        return self._view(self.__lockstep_array__.squeeze(axes), stream)

    def split(self, section: int, stream: Any = 0) -> Iterator[DeviceArray]:
        """Yield the parts of a 1-D array, each with `section` elements; the last one may have fewer."""
        section = positive("section", section)
        if self.ndim != 1:
            raise ValueError(f"a device array must have 1 axis to be split, got shape={self.shape}")
        if self.strides[0] != self.dtype.itemsize:
            raise ValueError(f"a device array must be contiguous to be split, got strides={self.strides}")
        own = self.__lockstep_array__
        return (self._view(own[i : i + section], stream) for i in range(0, self.size, section))

    def transpose(self, axes: Any = None) -> DeviceArray:
        """Return a transposed copy of a 2-D array.

        Raises
        ------
        TypeError, ValueError
            `axes` does not hold each axis once.
        NotImplementedError
            The array is not 2-D, and `axes` would change it.
        """
        own = self.__lockstep_array__
        if axes is not None:
            axes = sizes("axes", axes)
            if sorted(axes) != list(range(self.ndim)):
                raise ValueError(f"axes must hold each of 0 .. {self.ndim - 1} once, got axes={shown(axes)}")
            if axes == tuple(range(self.ndim)):
                return self
        if self.ndim != 2:
            raise NotImplementedError("transposing a non-2D DeviceNDArray isn't supported")
        return self._view(np.ascontiguousarray(own.T))

    def view(self, dtype: Any) -> DeviceArray:
        """Return a view of the same memory with another dtype."""
        dtype = dtype_of(dtype)
        if dtype.itemsize != self.dtype.itemsize and not self.is_c_contiguous():
            raise ValueError(
                "To change to a dtype of a different size, the array must be C-contiguous, "
                f"got dtype={shown(dtype)} for strides={self.strides}"
            )
        try:
            return self._view(self.__lockstep_array__.view(dtype))
        except ValueError as error:
            raise ValueError(f"dtype must fit the last axis, got dtype={shown(dtype)}: {error}") from None

    def is_c_contiguous(self) -> bool:
        """Tell whether the array is C-contiguous."""
        return bool(self.__lockstep_array__.flags.c_contiguous)

    def is_f_contiguous(self) -> bool:
        """Tell whether the array is Fortran-contiguous."""
        return bool(self.__lockstep_array__.flags.f_contiguous)

    def __repr__(self) -> str:
        return f"<DeviceArray on lockstep, shape={self.shape}, dtype={self.dtype}>"


class DeviceRecord(DeviceArray):
    """A record in the memory of the lockstep machine; ``record[field]`` reads a field."""

    __slots__ = ()

    def getitem(self, index: Any, stream: Any = 0) -> Any:
        """Return the field `index`: a number, a device array or a record."""
        found = self.__lockstep_array__[index]
        if found.ndim:
            return self._view(found, stream)
        return DeviceRecord.of(found, self.stream) if found.dtype.names else found[()]

    def setitem(self, index: Any, value: Any, stream: Any = 0) -> None:
        """Store `value` in the field `index`."""
        self.__lockstep_array__[index] = getattr(value, "__lockstep_array__", value)


def _with_ellipsis(index: Any) -> Any:
    """Return an index that gives a view of one element, not a copy."""
    return (*index, ...) if isinstance(index, tuple) else (index, ...)


def require_contiguous(array: Any) -> None:
    """Raise ValueError if an array, without its repeated axes, is contiguous in neither order."""
    if not array.size or not array.ndim or array.flags["C_CONTIGUOUS"] or array.flags["F_CONTIGUOUS"]:
        return
    array = getattr(array, "__lockstep_array__", array)
    core = array[tuple(0 if step == 0 else slice(None) for step in array.strides)]
    if not core.flags.c_contiguous and not core.flags.f_contiguous:
        raise ValueError(
            f"a copied array must be contiguous, got shape={array.shape} with strides={array.strides} bytes; "
            "numpy.ascontiguousarray makes it so"
        )


def _require_same(device: DeviceArray, other: Any) -> None:
    """Require equal dtypes and, axes of length 1 aside, equal shapes."""
    if other.dtype != device.dtype:
        kind: type[Exception] = TypeError
    elif [n for n in other.shape if n != 1] != [n for n in device.shape if n != 1]:
        kind = ValueError
    else:
        return
    raise kind(
        f"ary must have the shape and dtype of the other array of the copy, got {device.shape} {device.dtype} "
        f"on the device and {other.shape} {other.dtype} on the host"
    )


def fresh_strided(shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return a fresh array, whose memory is poisoned, with given strides."""
    if any(step < 0 for step in strides):
        raise ValueError(f"strides must not be negative, got strides={shown(strides)}")
    if not math.prod(shape):
        return np.ndarray(shape, dtype)
    reach = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    memory = fresh_array((reach + dtype.itemsize,), np.dtype(np.uint8))
    return np.ndarray(shape, dtype, buffer=memory, strides=strides)


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return an integer or a sequence of integers as a tuple."""
    if not isinstance(value, (tuple, list)) and not (isinstance(value, np.ndarray) and value.ndim == 1):
        return (integer(name, value),)
    if len(value) > MOST_AXES:
        raise ValueError(f"{name} must hold at most {MOST_AXES} integers, got {name}={shown(value)}")
    return tuple(integer(name, size) for size in value)


def dtype_of(value: Any) -> np.dtype[Any]:
    """Return a dtype, or what stands for one, as a dtype."""
    why = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dtype = np.dtype(getattr(value, "__lockstep_dtype__", value))
        if not dtype.hasobject and dtype.itemsize and not isinstance(value, (np.generic, np.ndarray)):
            return dtype
    except Exception as error:  # NumPy raises several kinds
        why = error
    raise TypeError(f"dtype must be a dtype of numbers, got dtype={shown(value)}") from why
