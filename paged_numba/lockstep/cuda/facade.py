"""``cuda`` without a GPU: the names of ``numba.cuda`` that kernels and host code use.

``from paged_numba import cuda`` imports this module where there is no GPU. A launch has finished when its call
returns, so streams and events have nothing to wait for.

Examples
--------
>>> import numpy as np
>>> from paged_numba.lockstep.cuda import facade as cuda
>>> @cuda.jit
... def double(x):
...     i = cuda.grid(1)
...     if i < x.size:
...         x[i] *= 2
>>> x = cuda.to_device(np.arange(5))
>>> double[2, 4](x)
>>> x.copy_to_host()
array([0, 2, 4, 6, 8])
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, overload

import numpy as np

from ...arguments import integer, not_negative, shown
from ...errors import LaunchError
from ..failures import hide
from ..language.intrinsics import DECLARATIONS, INTRINSICS, MACHINE_VALUES
from ..language.signatures import check_definition, signatures, signatures_of
from ..launch import (
    MAX_BLOCK_DIM,
    MAX_GRID_DIM,
    MAX_SHARED_BYTES,
    MAX_THREADS_PER_BLOCK,
    current_options,
    launch,
)
from ..machine.lanes import WARP_SIZE
from ..machine.poison import poisoned
from .device_array import (
    DeviceArray,
    as_cuda_array,
    device_array,
    device_array_like,
    is_cuda_array,
    to_device,
)


class DeviceName:
    """A name that has a meaning only inside kernels, such as ``cuda.threadIdx``."""

    def __init__(self, path: str) -> None:
        self.__lockstep_path__ = path

    def __getattr__(self, name: str) -> DeviceName:
        if name.startswith("__"):
            raise AttributeError(name)
        return DeviceName(f"{self.__lockstep_path__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{self.__lockstep_path__}() runs only inside a kernel")

    def __repr__(self) -> str:
        return f"<{self.__lockstep_path__}, for use in kernels>"


for _path in (*INTRINSICS, *DECLARATIONS, *(f"cuda.{name}" for name in MACHINE_VALUES)):
    _name = _path.split(".")[1]
    globals().setdefault(_name, DeviceName(f"cuda.{_name}"))

warpsize = WARP_SIZE
boolean = bool_ = np.bool_
for _name in "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split():
    globals()[_name] = getattr(np, _name)
complex64, complex128 = np.complex64, np.complex128


# Kernels.


class Kernel:
    """A kernel, as returned by `jit`; ``kernel[blocks_per_grid, threads_per_block](*args)`` launches it.

    Attributes
    ----------
    py_func : function
        The Python function.
    device : bool
        Whether it is a device function, which only kernels call.

    Raises
    ------
    LaunchError
        At a launch: the configuration has too few or too many parts, the kernel is a device function, or
        `paged_numba.lockstep.launch` refuses the launch.

    See Also
    --------
    paged_numba.cuda.jit : Makes kernels.
    paged_numba.lockstep.launch : Launches any kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> @cuda.jit
    ... def fill(x, value):
    ...     x[cuda.grid(1)] = value
    >>> fill
    <Kernel fill on lockstep>
    >>> x = np.zeros(6)
    >>> fill[2, 3](x, 1.5)
    >>> x
    array([1.5, 1.5, 1.5, 1.5, 1.5, 1.5])
    """

    def __init__(self, function: Callable[..., Any], signature: Any = None, device: bool = False) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self.device = device
        self.__lockstep_given__ = signature
        self.__lockstep_signatures__ = [] if signature is None else signatures(signature)
        check_definition(function, self.__lockstep_signatures__, device)

    @classmethod
    def of(cls, kernel: Any) -> Kernel:
        """Return a kernel or device function of Numba's or of the facade as one that runs on lockstep."""
        device = getattr(kernel, "device", None)
        if device is None:
            device = bool(getattr(kernel, "targetoptions", {}).get("device"))
        made = cls(kernel.py_func, device=device)
        made.__lockstep_given__ = getattr(kernel, "__lockstep_given__", None)
        made.__lockstep_signatures__ = signatures_of(kernel)
        return made

    def __getitem__(self, configuration: Any) -> Callable[..., None]:
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise LaunchError(
                "a launch must read kernel[blocks_per_grid, threads_per_block(, stream, shared_bytes)](...), "
                f"got kernel[{shown(configuration)}]"
            )
        if self.device:
            raise LaunchError(f"{self.py_func.__name__} must be called by a kernel: it is a device function")
        blocks_per_grid, threads_per_block, *rest = configuration
        shared_bytes = rest[1] if len(rest) == 2 else 0

        def call(*args: Any) -> None:
            __tracebackhide__ = hide
            given = map(_unwrapped, args)
            launch(self, blocks_per_grid, threads_per_block, *given, shared_bytes=shared_bytes)

        return call

    def __call__(self, *args: Any) -> Any:
        """Raise LaunchError: a call needs a launch configuration."""
        raise LaunchError(
            f"{self.py_func.__name__} must be launched as "
            f"{self.py_func.__name__}[blocks_per_grid, threads_per_block](...)"
        )

    def forall(self, ntasks: int, tpb: int = 0, stream: Any = 0, sharedmem: int = 0) -> Callable[..., None]:
        """Return the kernel configured for a 1-D grid of at least `ntasks` threads."""
        ntasks, threads = not_negative("ntasks", ntasks), not_negative("tpb", tpb) or 256
        sharedmem = not_negative("sharedmem", sharedmem)
        if ntasks == 0:
            return lambda *args: None
        return self[-(-ntasks // threads), threads, stream, sharedmem]

    def specialize(self, *args: Any) -> Kernel:
        """Return the kernel itself: the lockstep machine does not compile for given arguments."""
        return self

    def __repr__(self) -> str:
        return f"<{'Device function' if self.device else 'Kernel'} {self.py_func.__name__} on lockstep>"


def _unwrapped(value: Any) -> Any:
    return value.array if isinstance(value, HostArgument) else value


@overload
def jit(func_or_sig: Callable[..., Any], *, device: bool = False, **options: Any) -> Kernel: ...
@overload
def jit(
    func_or_sig: Any = None, *, device: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Kernel]: ...
def jit(func_or_sig: Any = None, *, device: bool = False, **options: Any) -> Any:
    """Decorate a kernel or device function, as ``@jit`` or as ``@jit(...)``.

    Parameters
    ----------
    func_or_sig : function, kernel, str, Numba signature, tuple of types, or list of these, optional
        With a signature, scalar arguments, and the result of a device function, are converted to its types, and
        arrays must have its types. Of several signatures, Numba's rules choose one. A kernel of Numba's or of the
        facade keeps its signatures: ``lockstep.jit(kernel)[blocks, threads](...)`` runs it on lockstep, also on a
        machine that has a GPU.
    device : bool
        Whether the function is a device function.
    **options
        Options of the compiler (``fastmath``, ``max_registers``, ``lineinfo``, …), which have no effect here.

    Returns
    -------
    Kernel, or a decorator
        The kernel, or what makes one of a function.

    Raises
    ------
    LaunchError
        The signature cannot be read, or does not fit the function's parameters.

    See Also
    --------
    paged_numba.cuda.Kernel : How to launch a kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> @cuda.jit(device=True)
    ... def square(value):
    ...     return value * value
    >>> @cuda.jit("void(float32[:], float32[:])")
    ... def squares(source, out):
    ...     out[cuda.grid(1)] = square(source[cuda.grid(1)])
    >>> out = np.zeros(4, np.float32)
    >>> squares[1, 4](np.arange(4, dtype=np.float32), out)
    >>> out
    array([0., 1., 4., 9.], dtype=float32)
    """
    if inspect.isfunction(func_or_sig):
        return Kernel(func_or_sig, device=device)
    if inspect.isfunction(getattr(func_or_sig, "py_func", None)):
        return Kernel.of(func_or_sig)
    return lambda function: Kernel(function, func_or_sig, device)


# Memory.


class HostArgument:
    """A host array passed to a kernel as `In`, `Out` or `InOut`."""

    def __init__(self, array: Any) -> None:
        self.array = array


In = Out = InOut = HostArgument


def pinned_array(shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C") -> Any:
    """Return a fresh host array, whose memory is poisoned."""
    return device_array(shape, dtype, order=order).__lockstep_array__


mapped_array = managed_array = pinned_array


def pinned_array_like(ary: Any) -> Any:
    """Return a fresh host array with the shape and dtype of `ary`."""
    return device_array_like(ary).__lockstep_array__


mapped_array_like = pinned_array_like


@contextmanager
def pinned(*arrays: Any) -> Iterator[None]:
    """Do nothing: all memory is host memory."""
    yield


@contextmanager
def defer_cleanup() -> Iterator[None]:
    """Do nothing: no cleanup is pending."""
    yield


# Streams, events, devices.


class Stream:
    """A stream, whose work is done when the call that adds it returns."""

    def synchronize(self) -> None:
        """Return at once."""

    @contextmanager
    def auto_synchronize(self) -> Iterator[Stream]:
        """Yield the stream."""
        yield self


class Event:
    """A point in time."""

    def __init__(self, timing: bool = True) -> None:
        self.seconds = 0.0

    def record(self, stream: Any = 0) -> None:
        """Record the time."""
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """Return at once."""

    def wait(self, stream: Any = 0) -> None:
        """Return at once."""

    def query(self) -> bool:
        """Return True: the work before the event is done."""
        return True

    def elapsed_time(self, end: Event) -> float:
        """Return the milliseconds from this event to `end`."""
        return (_event("end", end).seconds - self.seconds) * 1e3


def stream() -> Stream:
    """Return a stream."""
    return Stream()


default_stream = legacy_default_stream = per_thread_default_stream = stream


def event(timing: bool = True) -> Event:
    """Return an event."""
    return Event(timing)


def event_elapsed_time(start: Event, end: Event) -> float:
    """Return the milliseconds between two events."""
    return _event("start", start).elapsed_time(end)


def _event(name: str, value: Any) -> Event:
    if not isinstance(value, Event):
        raise TypeError(f"{name} must be an event, got {name}={shown(value)}")
    return value


class Device:
    """The lockstep machine as a device, with the limits that `launch` enforces."""

    id = 0
    name = b"paged_numba lockstep"
    WARP_SIZE = WARP_SIZE
    MAX_THREADS_PER_BLOCK = MAX_THREADS_PER_BLOCK
    MAX_BLOCK_DIM_X, MAX_BLOCK_DIM_Y, MAX_BLOCK_DIM_Z = MAX_BLOCK_DIM
    MAX_GRID_DIM_X, MAX_GRID_DIM_Y, MAX_GRID_DIM_Z = MAX_GRID_DIM
    MAX_SHARED_MEMORY_PER_BLOCK = MAX_SHARED_BYTES
    MULTIPROCESSOR_COUNT = 1

    @property
    def compute_capability(self) -> tuple[int, int]:
        """The compute capability that the machine imitates; see `paged_numba.lockstep.Options`."""
        return current_options().compute_capability

    def __repr__(self) -> str:
        return "<the lockstep machine, no GPU>"

    def reset(self) -> None:
        """Do nothing."""


class Context:
    """The only context."""

    device = Device()

    def synchronize(self) -> None:
        """Return at once: every launch has finished."""

    def reset(self) -> None:
        """Do nothing."""


gpus: Sequence[Device] = (Context.device,)
_context = Context()


def list_devices() -> Sequence[Device]:
    """Return the only device, the lockstep machine."""
    return gpus


def current_context(devnum: int | None = None) -> Context:
    """Return the only context."""
    return _context


def get_current_device() -> Device:
    """Return the only device, the lockstep machine."""
    return Context.device


def select_device(device_id: int) -> Device:
    """Return the only device.

    Raises
    ------
    TypeError, ValueError
        `device_id` is not 0.
    """
    if integer("device_id", device_id) != 0:
        raise ValueError(f"device_id must be 0 on the lockstep machine, got device_id={shown(device_id)}")
    return Context.device


def is_available() -> bool:
    """Return True: kernels run on the lockstep machine."""
    return True


def detect() -> bool:
    """Print that kernels run on the lockstep machine, and return True."""
    print("No GPU: kernels run on the lockstep machine")
    return True


def synchronize() -> None:
    """Return at once: every launch has finished."""


def close() -> None:
    """Do nothing."""


def profile_start() -> None:
    """Do nothing."""


profile_stop = profile_start


@contextmanager
def profiling() -> Iterator[None]:
    """Do nothing."""
    yield


def __getattr__(name: str) -> Any:
    raise AttributeError(f"cuda.{name} is not part of the lockstep facade: it needs numba.cuda and a GPU")


__all__ = ["Device", "DeviceArray", "Event", "Kernel", "Stream", "as_cuda_array", "device_array"]
__all__ += ["device_array_like", "is_cuda_array", "jit", "poisoned", "to_device"]
