"""`DeviceArray`: device arrays of the facade, whose memory is host memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..machine.poison import fresh_array


class DeviceArray:
    """An array in the memory of the lockstep machine, with the methods of Numba's ``DeviceNDArray``.

    Attributes
    ----------
    shape, strides, dtype, ndim, size, nbytes
        As in a NumPy array; strides in bytes.

    See Also
    --------
    to_device : Makes a device array with a copy of a host array.
    device_array : Makes a device array with fresh memory.

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
        ValueError
            `ary` has another shape or dtype.
        """
        if ary is None:
            return self.__lockstep_array__.copy()
        _require_same(self, ary)
        np.copyto(ary, self.__lockstep_array__)
        return ary

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        """Overwrite the array with `ary`.

        Raises
        ------
        ValueError
            `ary` has another shape or dtype.
        """
        source = getattr(ary, "__lockstep_array__", ary)
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
        return DeviceArray(self.__lockstep_array__.reshape(*shape, **order))

    def ravel(self, order: Any = "C", stream: Any = 0) -> DeviceArray:
        """Return a flat view."""
        return DeviceArray(self.__lockstep_array__.ravel(order))

    def transpose(self, axes: Any = None) -> DeviceArray:
        """Return a view with permuted axes."""
        return DeviceArray(self.__lockstep_array__.transpose(axes))

    def view(self, dtype: Any) -> DeviceArray:
        """Return a view of the same memory with another dtype."""
        return DeviceArray(self.__lockstep_array__.view(dtype))

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
            f"the arrays of a copy must have equal shapes and dtypes, got {device.shape} {device.dtype} on the device "
            f"and {host.shape} {host.dtype} on the host"
        )


def to_device(obj: Any, stream: Any = 0, copy: bool = True, to: DeviceArray | None = None) -> DeviceArray:
    """Return a device array with a copy of `obj`; copy into `to` if it is given.

    Parameters
    ----------
    obj : array_like
    stream
        Ignored: every copy is done when the call returns.
    copy : bool
        If False, the device array uses the memory of `obj`.
    to : DeviceArray, optional

    Raises
    ------
    ValueError
        `to` has another shape or dtype than `obj`.

    See Also
    --------
    device_array : Makes a device array with fresh memory.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> cuda.to_device(np.ones(4, np.float32))
    <DeviceArray on lockstep, shape=(4,), dtype=float32>
    """
    source = getattr(obj, "__lockstep_array__", obj)
    if to is not None:
        to.copy_to_device(np.asarray(source))
        return to
    return DeviceArray(np.array(source, order="K") if copy else np.asarray(source))


def device_array(
    shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C", stream: Any = 0
) -> DeviceArray:
    """Return a fresh device array, whose memory is poisoned: fresh memory of a GPU holds arbitrary values too.

    See Also
    --------
    to_device : Makes a device array with a copy of a host array.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> cuda.device_array(3, np.float32).copy_to_host()
    array([nan, nan, nan], dtype=float32)
    """
    dtype = np.dtype(dtype)
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    return DeviceArray(fresh_array(lengths, dtype, order))


def device_array_like(ary: Any, stream: Any = 0) -> DeviceArray:
    """Return a fresh device array with the shape and dtype of `ary`."""
    order = "F" if ary.ndim > 1 and ary.strides[0] == ary.dtype.itemsize else "C"
    return device_array(ary.shape, ary.dtype, order=order)


def as_cuda_array(obj: Any, sync: bool = True) -> DeviceArray:
    """Return a device array that uses the memory of `obj`, an array in host memory."""
    return DeviceArray(getattr(obj, "__lockstep_array__", np.asarray(obj)))


def is_cuda_array(obj: Any) -> bool:
    """Tell whether `obj` is a device array."""
    return isinstance(obj, DeviceArray)
