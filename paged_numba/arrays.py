"""Adapters that turn arrays of any library, on the host or on the GPU, into arrays that kernels take."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .arguments import numpy_reads, shown

Named = TypeVar("Named", bound=Callable[..., Any])


class HasArrayInterface(Protocol):
    """An array in host memory."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """NumPy's array interface."""


class HasCudaArrayInterface(Protocol):
    """An array on the GPU, such as an array of CuPy, Numba or torch."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Numba's CUDA array interface."""


class HasDLPack(Protocol):
    """An array that DLPack can share, such as an array of torch or JAX."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """Return a DLPack capsule."""

    def __dlpack_device__(self) -> tuple[Any, Any]:
        """Return the type and the number of the device."""


class HasLockstepArray(Protocol):
    """An array of the lockstep facade, as ``paged_numba.cuda.to_device`` returns it."""

    @property
    def __lockstep_array__(self) -> NDArray[Any]:
        """The host memory that holds the elements."""


ArrayLike: TypeAlias = NDArray[Any] | HasArrayInterface | HasCudaArrayInterface | HasDLPack | HasLockstepArray
"""An array of any library, on the host or on the GPU."""

IntegersLike: TypeAlias = ArrayLike | Sequence[int] | Sequence[Sequence[int]]
"""A small array of integers, or a list of them."""


class TorchDtype(Protocol):
    """A dtype of torch."""

    @property
    def is_floating_point(self) -> bool:
        """Whether it is a floating-point type."""

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""


class TorchDevice(Protocol):
    """A device of torch."""

    @property
    def type(self) -> str:
        """Such as ``cuda``."""

    @property
    def index(self) -> int | None:
        """Its number, if it has one."""


Dtype: TypeAlias = DTypeLike | TorchDtype
"""A dtype of NumPy, ml_dtypes or torch, or its name."""

Device: TypeAlias = TorchDevice | str
"""A device of torch, or its name."""

_BITS = {"bfloat16": "int16", "float8_e4m3fn": "uint8"}
"""Dtypes that torch cannot share with NumPy or Numba, each with a dtype of the same size that it can."""


def as_array(array: Any, name: str = "array") -> Any:
    """Return a NumPy array over the memory of an array on the host; return anything else unchanged.

    An array on the GPU is returned unchanged if it has a shape and a dtype, otherwise as an array of Numba.

    An operation calls `as_array` once for each of its arguments; the code that follows relies on the result.

    Parameters
    ----------
    array : object
        An array of NumPy or torch (bfloat16 and float8_e4m3fn included), any array with ``__array_interface__``,
        ``__cuda_array_interface__`` (CuPy, Numba) or DLPack, or an array of the lockstep facade.
    name : str
        Name of the argument, for the error message.

    Raises
    ------
    TypeError
        The memory cannot be shared: the tensor requires a gradient, or lies on another device. Or it is a masked
        array, whose mask no operation heeds.

    Examples
    --------
    >>> numbers = np.arange(3)
    >>> as_array(numbers) is numbers
    True
    """
    if type(array) is np.ndarray:
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array, since its mask would be ignored, got a mask that hides "
            f"{int(np.sum(array.mask))} of {array.size} elements"
        )
    try:
        if hasattr(array, "__lockstep_array__"):
            return array.__lockstep_array__
        if _is_tensor(array):
            return _tensor_view(array)
        if hasattr(array, "__cuda_array_interface__"):
            return array if hasattr(array, "shape") and hasattr(array, "dtype") else _device_array(array)
        if hasattr(array, "__array_interface__"):
            return _interface_view(array)
        if hasattr(array, "__dlpack__"):
            return _from_dlpack(array)
    except Exception as error:  # of the object's own methods, too
        raise TypeError(
            f"{name} must share its memory with NumPy or Numba, got {type(array).__name__}: {error}"
        ) from error
    return array


def to_host(array: Any, name: str = "array") -> Any:
    """Return an array, a number or a list as a NumPy array, copied if it lies on the GPU; return None for None.

    Parameters
    ----------
    array : object
        An array of any library, a number, a list, or None.
    name : str
        Name of the argument, for the error message.

    Raises
    ------
    TypeError, ValueError
        For the reasons given in `as_array`, or because the rows of a list differ in length.
    """
    return None if array is None else on_host(as_array(array, name), name)


def on_host(array: Any, name: str = "array") -> Any:
    """Return a result of `as_array` as a NumPy array, copied if it lies on the GPU.

    Parameters
    ----------
    array : object
        What `as_array` returned.
    name : str
        Name of the argument, for the error message.

    Raises
    ------
    ValueError
        The rows of a list differ in length, or `array` is not an array.
    """
    if type(array) is np.ndarray or array is None:
        return array
    try:
        if hasattr(array, "__cuda_array_interface__"):
            return _device_array(array).copy_to_host()
        if not numpy_reads(array):
            raise TypeError("it is not a sequence")
        numbers = np.asarray(array)
    except Exception as error:  # of the object's own methods, too
        raise ValueError(f"{name} must be an array, got {shown(array)}: {error}") from None
    # NumPy makes an empty list float64.
    return numbers.astype(np.int64) if isinstance(array, (list, tuple)) and not numbers.size else numbers


def empty(shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
    """Return an uninitialised array on the device of `like`; a torch tensor if `like` is one."""
    if _is_tensor(like):
        return like.new_empty(shape, dtype=getattr(sys.modules["torch"], np.dtype(dtype).name))
    if _on_gpu(like):
        return _gpu().device_array(shape, dtype)
    return np.empty(shape, dtype)


def storage(shape: tuple[int, ...], dtype: Any, target: str, device: Any = None) -> Any:
    """Return an array full of NaN for a target's kernels: on the GPU for ``cuda``, else on the host.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    target : str
        The target that runs, from `paged_numba.targets.resolve`.
    device : torch.device, optional
        A result of `torch_device`: if given, the storage is a torch tensor.
    """
    if device is not None and target == "cuda":
        torch = sys.modules["torch"]
        # From torch's own pool, whose unused memory another allocator could not have.
        return torch.full(shape, np.nan, dtype=getattr(torch, dtype.name), device=device)
    array = _storage(shape, dtype, target)
    return array if device is None else _tensor_over(array)


def _storage(shape: tuple[int, ...], dtype: Any, target: str) -> Any:
    if target == "lockstep":
        from .lockstep.machine.poison import fresh_array

        array = fresh_array(shape, np.dtype(dtype))
        if not np.isnan(array.ravel()[:4]).all():  # poison is NaN as float32 and float16 only
            array.fill(np.nan)
        return array
    array = np.full(shape, np.nan, dtype)
    if target != "cuda":
        return array
    from numba import cuda

    return cuda.to_device(array)


def torch_device(device: Any, target: str) -> Any:
    """Return the device of torch on which a target's kernels find their arrays; None for None.

    Parameters
    ----------
    device : torch.device or str or None
    target : str
        The target that runs, from `paged_numba.targets.resolve`.

    Raises
    ------
    TypeError, ValueError
        It is no device of torch, or kernels of the target do not run there.
    """
    if device is None:
        return None
    torch = sys.modules.get("torch")
    if torch is None:
        raise ValueError(f"device must be None unless torch has been imported, got device={shown(device)}")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a torch.device or its name, got device={shown(device)}")
    try:
        found = torch.device(device)
    except Exception as error:  # of torch, of several kinds
        raise ValueError(f"device must be a device of torch, got device={shown(device)}: {error}") from None
    needed = "cpu"
    if target == "cuda":
        index = _gpu().get_current_device().id
        needed = f"cuda:{index}"
        if found == torch.device("cuda"):
            found = torch.device("cuda", index)
    if found.type != needed.split(":")[0] or (target == "cuda" and found != torch.device(needed)):
        raise ValueError(
            f"device must be {needed}, where the target {target} runs kernels, got device={shown(device)}"
        )
    return found


def dtype_name(dtype: Any) -> Any:
    """Return the name of a dtype of torch, which NumPy and ml_dtypes share; return anything else unchanged."""
    torch_dtype = getattr(sys.modules.get("torch"), "dtype", ())
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch_dtype) else dtype


_shared: weakref.WeakValueDictionary[int, NDArray[Any]] = weakref.WeakValueDictionary()
"""The allocations of tensors that `keep` was given, by address."""


def keep(stored: Any) -> Any:
    """Return storage as `as_array` does; from then on, `as_array` gives a tensor that shares it the same allocation.

    Observers of kernels know memory by the NumPy array that owns it, and each ``Tensor.numpy()`` would be another. The
    caller must hold the result for as long as that counts.
    """
    array = as_array(stored)
    if _is_tensor(stored) and isinstance(array, np.ndarray):
        from .lockstep.observe.allocations import root_of

        _shared.setdefault(stored.untyped_storage().data_ptr(), root_of(array))
    return array


def to_state(stored: list[Any]) -> list[Any]:
    """Return storage as a list that pickles: pickle cannot load torch tensors of every dtype, but all of their bits."""
    torch = sys.modules.get("torch")
    names = [str(array.dtype).removeprefix("torch.") if _is_tensor(array) else "" for array in stored]
    return [
        (array.view(getattr(torch, _BITS[name])), array.dtype) if name in _BITS else array
        for name, array in zip(names, stored, strict=True)
    ]


def from_state(state: list[Any]) -> list[Any]:
    """Return the storage of which `to_state` returned `state`."""
    return [kept[0].view(kept[1]) if isinstance(kept, tuple) else kept for kept in state]


def _tensor_over(array: NDArray[Any]) -> Any:
    """Return a torch tensor over the memory of a contiguous NumPy array."""
    from .lockstep.observe.allocations import root_of

    torch = sys.modules["torch"]
    name = array.dtype.name
    tensor = torch.from_numpy(array.view(_BITS.get(name, name)))
    _shared[tensor.untyped_storage().data_ptr()] = root_of(array)
    return tensor.view(getattr(torch, name))


def _in_its_allocation(array: NDArray[Any], tensor: Any) -> NDArray[Any]:
    """Return an array over the memory of a tensor as a view of the array that `keep` knows there, if any."""
    owner = _shared.get(tensor.untyped_storage().data_ptr()) if _shared else None
    if owner is None:
        return array
    offset = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    memory = owner.reshape(-1).view(np.uint8)
    return np.ndarray(array.shape, array.dtype, memory, offset, array.strides)


def untraced(named: Named) -> Named:
    """Make ``torch.compile`` call a function, or the public methods of a class, instead of tracing into it.

    The tracer of torch follows Python code wherever it leads: here into the interpreter of kernels. Code that it
    compiles now ends before the call, and new code begins after it.

    Examples
    --------
    >>> @untraced
    ... def double(x):
    ...     return 2 * x
    >>> double(3)
    6
    """
    if isinstance(named, type):
        for name, method in list(vars(named).items()):
            if isinstance(method, FunctionType) and (name == "__init__" or not name.startswith("_")):
                setattr(named, name, untraced(method))
        return named

    @functools.wraps(named)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Torch imports its tracer before it first compiles.
        if "torch._dynamo" not in sys.modules:
            return named(*args, **kwargs)
        return _disabled(named)(*args, **kwargs)

    # Torch then compiles nothing of `call` into the code that calls it. Without these attributes, results are the same.
    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    call._torchdynamo_disable_msg = _why(named)  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


_untraced: dict[Any, Any] = {}
"""For each function that `untraced` was given, a function that calls it with the tracer off."""


def _disabled(function: Any) -> Any:
    found = _untraced.get(function)
    if found is None:
        disable = sys.modules["torch"].compiler.disable
        found = _untraced[function] = disable(function, reason=_why(function))
    return found


def _why(function: Any) -> str:
    return f"paged_numba runs {function.__qualname__} as it stands, between graphs"


def beside(array: Any, like: Any) -> Any:
    """Return a NumPy array on the device of `like`: a copy if `like` is on the GPU, else the array itself."""
    return _gpu().to_device(array) if _on_gpu(like) else array


def transposed(array: Any, axes: tuple[int, ...]) -> Any:
    """Return a view of an array, on the host or on the GPU, with its axes in another order."""
    if not hasattr(array, "__cuda_array_interface__"):
        return array.transpose(axes)
    array = _device_array(array)
    shape, strides = (tuple(old[axis] for axis in axes) for old in (array.shape, array.strides))
    return _device_view(array, shape, strides, array.dtype)


def reshaped(array: Any, shape: tuple[int, ...]) -> Any:
    """Return a view of a contiguous array, on the host or on the GPU, in another shape."""
    if not hasattr(array, "__cuda_array_interface__"):
        return array.reshape(shape)
    return _device_array(array).reshape(shape)


def _on_gpu(array: Any) -> bool:
    """Tell whether an array lies on the GPU; one of the lockstep facade has the same interface."""
    return hasattr(array, "__cuda_array_interface__") and not hasattr(array, "__lockstep_array__")


def _is_tensor(array: Any) -> bool:
    # Unless torch was imported, nothing can be a tensor.
    return isinstance(array, getattr(sys.modules.get("torch"), "Tensor", ()))


def _tensor_view(tensor: Any) -> Any:
    """Return a NumPy or Numba array over the memory of a torch tensor."""
    torch = sys.modules["torch"]
    if tensor.requires_grad and torch.is_grad_enabled():
        raise TypeError("the tensor requires a gradient, which no operation computes: pass tensor.detach()")
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in _BITS:
        return _device_array(tensor) if tensor.is_cuda else _in_its_allocation(tensor.numpy(), tensor)
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, name))
    bits = as_array(tensor.view(getattr(torch, _BITS[name])))
    return _device_view(bits, bits.shape, bits.strides, dtype) if tensor.is_cuda else bits.view(dtype)


def _interface_view(array: Any) -> Any:
    """Return a NumPy array over the memory that ``__array_interface__`` describes."""
    adopted, dtype = np.asarray(array), getattr(array, "dtype", None)
    # The interface has no name for bfloat16 and float8_e4m3fn: they come as bytes.
    if adopted.dtype.kind == "V" and isinstance(dtype, np.dtype) and dtype.itemsize == adopted.dtype.itemsize:
        return adopted.view(dtype)
    return adopted


def _from_dlpack(array: Any) -> Any:
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError):
        # NumPy cannot read bfloat16 through DLPack; JAX converts it in __array__, to a read-only array.
        if not isinstance(getattr(array, "dtype", None), np.dtype):
            raise
        return np.asarray(array)


def _device_array(array: Any) -> Any:
    """Return a GPU array as a Numba array; a Numba array stays one, since its interface cannot express bfloat16."""
    cuda = _gpu()
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    return array if isinstance(array, DeviceNDArray) else cuda.as_cuda_array(array)


@functools.cache
def _gpu() -> Any:
    """Return ``numba.cuda``, for an array on the GPU; raise TypeError if it finds no GPU."""
    try:
        from numba import cuda

        cuda.current_context()
    except ImportError as error:  # Numba's error for a missing driver is one, too
        reason = " ".join(str(error).split())
        raise TypeError(f"an array on the GPU needs a GPU that Numba finds: {reason}") from None
    return cuda


def _device_view(array: Any, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Any:
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    return DeviceNDArray(shape, strides, dtype, gpu_data=array.gpu_data)
