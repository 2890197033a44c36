"""`DeviceArray`: device arrays of the facade, whose memory is host memory."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ...arguments import host_array, integer, one_of, require_memory, shown, truth
from ..machine.poison import fresh_array

MOST_AXES = 32
"""Most axes of an array: the limit of NumPy 1; NumPy 2 has 64."""


class DeviceArray:
    """An array in the memory of the lockstep machine, with the methods of Numba's ``DeviceNDArray``.

    Attributes
    ----------
    shape, strides, dtype, ndim, size, nbytes
        As in a NumPy array; strides in bytes.

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

    __slots__ = ("__lockstep_array__",)

    def __init__(self, array: Any) -> None:
        self.__lockstep_array__ = array

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
    def T(self) -> DeviceArray:
        return DeviceArray(self.__lockstep_array__.T)

    def copy_to_host(self, ary: Any = None, stream: Any = 0) -> Any:
        """Return a copy as a NumPy array; copy into `ary` if it is given.

        Raises
        ------
        TypeError, ValueError
            `ary` is no NumPy array, is read-only, or has another shape or dtype.
        """
        if ary is None:
            return self.__lockstep_array__.copy()
        if not isinstance(ary, np.ndarray):
            raise TypeError(f"ary must be a NumPy array or None, got ary={shown(ary)}")
        if not ary.flags.writeable:
            raise ValueError("ary must be writable, got a read-only array")
        _require_same(self, ary)
        np.copyto(ary, self.__lockstep_array__)
        return ary

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        """Overwrite the array with `ary`.

        Raises
        ------
        TypeError, ValueError
            `ary` is not an array, or has another shape or dtype.
        """
        source = host_array("ary", ary)
        _require_same(self, source)
        np.copyto(self.__lockstep_array__, source)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.copy_to_host().astype(dtype or self.dtype, copy=False)

    def __len__(self) -> int:
        return len(self.__lockstep_array__)

    def __getitem__(self, index: Any) -> Any:
        found = self.__lockstep_array__[index]
        return DeviceArray(found) if isinstance(found, np.ndarray) else found

    def __setitem__(self, index: Any, value: Any) -> None:
        self.__lockstep_array__[index] = getattr(value, "__lockstep_array__", value)

    def setitem(self, index: Any, value: Any, stream: Any = 0) -> None:
        """Store `value` at `index`."""
        self[index] = value

    def getitem(self, index: Any, stream: Any = 0) -> Any:
        """Return the element or view at `index`."""
        return self[index]

    def reshape(self, *shape: Any, **order: Any) -> DeviceArray:
        """Return a view in another shape."""
        sizes = _sizes("shape", shape[0] if len(shape) == 1 else shape)
        try:
            return DeviceArray(self.__lockstep_array__.reshape(sizes, **order))
        except ValueError as error:
            raise ValueError(f"shape must fit the array, got shape={shown(sizes)}: {error}") from None

    def ravel(self, order: Any = "C", stream: Any = 0) -> DeviceArray:
        """Return a flat view."""
        return DeviceArray(self.__lockstep_array__.ravel(one_of("order", order, ("C", "F", "A", "K"))))

    def transpose(self, axes: Any = None) -> DeviceArray:
        """Return a view with permuted axes."""
        array = self.__lockstep_array__
        if axes is not None:
            axes = _sizes("axes", axes)
            if sorted(axes) != list(range(array.ndim)):
                raise ValueError(f"axes must hold each of 0 .. {array.ndim - 1} once, got axes={shown(axes)}")
        return DeviceArray(array.transpose(axes))

    def view(self, dtype: Any) -> DeviceArray:
        """Return a view of the same memory with another dtype."""
        try:
            return DeviceArray(self.__lockstep_array__.view(_dtype(dtype)))
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


def _require_same(device: DeviceArray, host: Any) -> None:
    if host.shape != device.shape or host.dtype != device.dtype:
        raise ValueError(
            f"ary must have the shape and dtype of the other array of the copy, got {device.shape} {device.dtype} "
            f"on the device and {host.shape} {host.dtype} on the host"
        )


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return an integer or a sequence of integers as a tuple."""
    if not isinstance(value, (tuple, list)) and not (isinstance(value, np.ndarray) and value.ndim == 1):
        return (integer(name, value),)
    if len(value) > MOST_AXES:
        raise ValueError(f"{name} must hold at most {MOST_AXES} integers, got {name}={shown(value)}")
    return tuple(integer(name, size) for size in value)


def _dtype(value: Any) -> np.dtype[Any]:
    why = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dtype = np.dtype(value)
        if not dtype.hasobject and dtype.itemsize and not isinstance(value, (np.generic, np.ndarray)):
            return dtype
    except Exception as error:  # NumPy raises several kinds
        why = error
    raise TypeError(f"dtype must be a dtype of numbers, got dtype={shown(value)}") from why


def to_device(obj: Any, stream: Any = 0, copy: bool = True, to: DeviceArray | None = None) -> DeviceArray:
    """Return a device array with a copy of `obj`; copy into `to` if it is given.

    Parameters
    ----------
    obj : array_like
        The array to copy.
    stream : object
        Ignored: every copy is done when the call returns.
    copy : bool
        If False, the device array uses the memory of `obj`.
    to : DeviceArray, optional
        Where to copy to.

    Raises
    ------
    TypeError, ValueError
        `obj` is not an array, or `to` is not a device array of the same shape and dtype.

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
    source = host_array("obj", obj)
    if to is not None:
        if not isinstance(to, DeviceArray):
            raise TypeError(f"to must be a device array or None, got to={shown(to)}")
        to.copy_to_device(source)
        return to
    return DeviceArray(np.array(source, order="K") if truth("copy", copy) else source)


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
        Ignored: work is done when the call returns.

    Raises
    ------
    TypeError, ValueError, MemoryError
        The shape, dtype or order is not valid, or the array does not fit into memory.

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
    dtype, lengths = _dtype(dtype), _sizes("shape", shape)
    if any(length < 0 for length in lengths) or len(lengths) > MOST_AXES:
        raise ValueError(
            f"shape must hold at most {MOST_AXES} lengths of 0 or more, got shape={shown(lengths)}"
        )
    require_memory(f"an array of shape={shown(lengths)}", math.prod(lengths) * dtype.itemsize)
    try:
        return DeviceArray(fresh_array(lengths, dtype, one_of("order", order, ("C", "F"))))
    except MemoryError:
        raise MemoryError(f"an array of shape={shown(lengths)} must fit into memory") from None


def device_array_like(ary: Any, stream: Any = 0) -> DeviceArray:
    """Return a fresh device array with the shape and dtype of `ary`.

    Parameters
    ----------
    ary : array
        Its shape and dtype are taken.
    stream : object
        Ignored: work is done when the call returns.
    """
    ary = host_array("ary", ary)
    order = "F" if ary.ndim > 1 and ary.strides[0] == ary.dtype.itemsize else "C"
    return device_array(ary.shape, ary.dtype, order=order)


def as_cuda_array(obj: Any, sync: bool = True) -> DeviceArray:
    """Return a device array that uses the memory of `obj`, an array in host memory.

    Parameters
    ----------
    obj : array
        Not copied.
    sync : bool
        Ignored.
    """
    return DeviceArray(host_array("obj", obj))


def is_cuda_array(obj: Any) -> bool:
    """Tell whether `obj` is a device array.

    Parameters
    ----------
    obj : object
        Anything.
    """
    return isinstance(obj, DeviceArray)
