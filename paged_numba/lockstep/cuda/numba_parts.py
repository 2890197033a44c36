"""Parts of Numba that work without a GPU: its types, its type inference, and its compiler, where it is installed."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from ...errors import CompilationError, KernelError, TargetUnavailableError, UnsupportedConstructError
from ..compiler.functions.overloads import typing_error
from ..language.signatures import Type, signatures
from ..language.types.as_numba import as_numba, for_numba_signature
from ..launch import current_options
from ..numba_typing import for_numba, refused_by_numba, unassigned
from ..numba_typing import inferred as numba_inferred
from ..numba_typing.words import is_typing_error
from .devices import Device, gpus
from .names import refusal

COMPILERS = (
    "compile compile_ptx compile_all compile_for_current_device compile_ptx_for_current_device"
).split()
"""Names of compilers of ``numba.cuda``."""

PASSED_ON = (
    *COMPILERS,
    *"types extending errors config HAS_NUMBA typeof literal literal_unroll".split(),
)
"""Names of ``numba.cuda`` that the facade takes from it, where it is installed."""


def numba_cuda() -> Any:
    """Return ``numba.cuda``, or None if it is not installed."""
    try:
        from numba import cuda
    except ImportError:
        return None
    return cuda


def numba_core(name: str) -> Any:
    """Return a module of ``numba.cuda.core`` or, without numba-cuda, the one of ``numba.core``."""
    try:
        return importlib.import_module(f"numba.cuda.core.{name}")
    except ImportError:
        return importlib.import_module(f"numba.core.{name}")


def passed_on(name: str) -> Any:
    """Return a name of ``numba.cuda`` that works without a GPU.

    Raises
    ------
    TargetUnavailableError
        ``numba.cuda`` is not installed.
    """
    real = numba_cuda()
    found = getattr(real, name, None)
    if found is None:
        raise TargetUnavailableError(
            f"cuda.{name} is Numba's own, so it needs numba.cuda: install numba-cuda"
        )
    return compiling(found) if name in COMPILERS else found


def compiling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiler of Numba's that takes kernels and signatures of the facade."""

    @functools.wraps(function)
    def call(pyfunc: Any, sig: Any, *args: Any, **kwargs: Any) -> Any:
        plain = getattr(pyfunc, "py_func", pyfunc)
        kwargs.setdefault("cc", current_options().compute_capability)
        if "for_current_device" in function.__name__:
            del kwargs["cc"]
        with _device_is_known():
            return function(for_numba(plain), for_numba_signature(sig), *args, **kwargs)

    return call


@contextmanager
def _device_is_known() -> Iterator[None]:
    """In a ``with`` statement, Numba compiles device functions for the GPU that the lockstep machine imitates."""
    from numba.cuda import dispatcher

    name = "get_current_device"
    with _lock:
        before = getattr(dispatcher, name)
        setattr(dispatcher, name, Device)
        try:
            yield
        finally:
            setattr(dispatcher, name, before)


_lock = threading.RLock()


def ptx(kernel: Any, signature: Any) -> str:
    """Return the PTX that Numba compiles for a kernel."""
    options = {
        name: kernel.targetoptions[name]
        for name in inspect.signature(passed_on("compile_ptx")).parameters
        if name in kernel.targetoptions and name != "device"
    }
    made = passed_on("compile_ptx")(kernel, signature, device=kernel.device, **options)
    return str(made[0])


def type_note(value: Any) -> Any:
    """Return what tells the type of an argument, quickly; a type stands for an argument of that type."""
    array = getattr(value, "__lockstep_array__", value)
    if isinstance(array, np.ndarray):
        flags = array.flags
        layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        return array.dtype, array.ndim, layout, bool(flags.writeable or array is not value)
    if isinstance(value, tuple):
        return type(value), tuple(map(type_note, value))
    if isinstance(value, np.void):
        return np.void, value.dtype
    return value if isinstance(value, Type) or _is_numba_type(value) else type(value)


def _is_numba_type(value: Any) -> bool:
    kind = type(value)
    return kind.__module__.startswith("numba.") and any(base.__name__ == "Type" for base in kind.__mro__)


def numba_type(light: Any) -> Any:
    """Return Numba's type for what `kernels` notes of an argument; ours, or that note, where Numba is missing."""
    try:
        from numba import types
        from numba.np.numpy_support import from_dtype
    except ImportError:
        return light
    if isinstance(light, tuple) and len(light) == 4:
        dtype, ndim, layout, writable = light
        return types.Array(from_dtype(dtype), ndim, layout, readonly=not writable)
    if isinstance(light, tuple) and light[0] is np.void:
        return from_dtype(light[1])
    if isinstance(light, tuple):
        return types.BaseTuple.from_types(tuple(map(numba_type, light[1])))
    known = {int: types.int64, float: types.float64, complex: types.complex128, bool: types.boolean}
    if light in known:
        return known[light]
    if isinstance(light, type) and issubclass(light, np.generic):
        return from_dtype(np.dtype(light))
    return types.none if light is type(None) else as_numba(light)


def types_of_signature(given: Any) -> tuple[Any, ...]:
    """Return the types of the parameters: Numba's where it is installed, else ours."""
    if numba_cuda() is None:
        [read] = signatures(given)
        return read.args
    return tuple(numba_core("sigutils").normalize_signature(for_numba_signature(given))[0])


def inferred(kernel: Any, types: tuple[Any, ...]) -> Any:
    """Return the signature of a kernel, or that which Numba infers for a device function."""
    if numba_cuda() is None:
        return types
    from numba import types as numba_types

    if not kernel.device:
        return numba_types.none(*types)
    return numba_inferred(kernel.py_func, types)


def numba_dispatcher(kernel: Any) -> Any:
    """Return Numba's type for a kernel or device function, with which Numba compiles calls of it."""
    from numba.cuda.dispatcher import CUDADispatcher
    from numba.cuda.types import Dispatcher

    options = {"device": kernel.device, "debug": False, "opt": True, "inline": "never", "extensions": []}
    original = getattr(CUDADispatcher, "__wrapped__", CUDADispatcher)  # while lockstep is installed
    return Dispatcher(original(kernel.py_func, targetoptions=options))


def as_in_debug_mode(function: Any, error: BaseException) -> None:
    """Add to the error of a kernel what Numba's says of it, if ``debug=True``."""
    place = getattr(error, "lockstep_place", None)
    if place is not None:
        what, thread, block = place
        values = re.fullmatch(r"\w+\((.*)\)", what, re.S)
        said = "" if values is None else f": {values[1].strip(chr(39))}"
        line = str(error).rpartition(":")[2]
        error.args = (
            f"{error}: tid={list(thread)} ctaid={list(block)}{said}\n"
            f"In function {function.__name__!r}, file {function.__code__.co_filename}, line {line}",
        )


def as_numba_refuses(kernel: Any, arguments: tuple[Any, ...], error: KernelError) -> None:
    """Raise the refusal of a launch as Numba's TypingError too, with Numba's message, if Numba refuses the kernel."""
    refusal = isinstance(error, (UnsupportedConstructError, CompilationError))
    if not refusal or is_typing_error(error) or not installed():
        return
    said = refused_by_numba(kernel, arguments)
    if said is not None:
        raise typing_error(type(error))(f"{error}\nNumba refuses it too: {said}") from error.__cause__


def refuse_measure(kernel: Any, what: str) -> NoReturn:
    """Refuse what only a GPU's compiler knows."""
    raise refusal(
        f"{kernel.py_func.__name__}.{what}()", "the GPU's compiler decides it, so ask Numba on a GPU"
    )


class Overload:
    """A kernel for arguments of given types.

    Attributes
    ----------
    argument_types : tuple
        The types, Numba's where Numba is installed.
    """

    def __init__(self, kernel: Any, types: tuple[Any, ...]) -> None:
        self.kernel = kernel
        self.argument_types = types

    @property
    def signature(self) -> Any:
        return inferred(self.kernel, self.argument_types)

    def max_cooperative_grid_blocks(self, blockdim: Any, dynsmemsize: int = 0) -> int:
        """Return the thread blocks that run together on the device by its limits; a launch takes any number."""
        threads = int(np.prod(blockdim))
        fitting = min(Device.MAX_BLOCKS_PER_MULTIPROCESSOR, Device.MAX_THREADS_PER_MULTI_PROCESSOR // threads)
        if dynsmemsize:
            fitting = min(fitting, Device.MAX_SHARED_MEMORY_PER_BLOCK // dynsmemsize)
        return fitting * Device.MULTIPROCESSOR_COUNT

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return refuse_measure(self.kernel, f"overloads[...].{name}")


# Numba's warnings, for programs that believe that they use Numba.


def installed() -> bool:
    """Tell whether lockstep is in the place of a ``numba.cuda`` that is installed."""
    module = sys.modules.get("numba.cuda")
    return getattr(module, "gpus", None) is gpus and bool(getattr(module, "__path__", ()))


def warn_of_small_grid(griddim: tuple[int, ...]) -> None:
    """Warn as Numba does if a grid leaves most of a GPU idle."""
    if not installed():
        return
    config, performance_warning = numba_core("config"), numba_core("errors").NumbaPerformanceWarning
    size = int(np.prod(griddim))
    if size < 128 and config.CUDA_LOW_OCCUPANCY_WARNINGS and not config.DISABLE_PERFORMANCE_WARNINGS:
        text = f"Grid size {size} will likely result in GPU under-utilization due to low occupancy."
        warnings.warn(performance_warning(text), stacklevel=4)


def warn_of_host_array() -> None:
    """Warn as Numba does if a host array is copied for a launch."""
    config, performance_warning = numba_core("config"), numba_core("errors").NumbaPerformanceWarning
    if config.CUDA_WARN_ON_IMPLICIT_COPY and not config.DISABLE_PERFORMANCE_WARNINGS:
        text = "Host array used in CUDA kernel will incur copy overhead to/from device."
        warnings.warn(performance_warning(text), stacklevel=5)


def warn_of_unassigned(kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Warn of variables that may be read before they are assigned, if Numba is configured to warn of them."""
    if installed() and numba_core("config").ALWAYS_WARN_UNINIT_VAR:
        for warning in unassigned(kernel, arguments):
            warnings.warn(warning, stacklevel=4)


def warn_of_debug(options: dict[str, Any]) -> None:
    """Warn as Numba does of options that disagree with ``debug=True``."""
    if not installed():
        return
    config, invalid_config_warning = numba_core("config"), numba_core("errors").NumbaInvalidConfigWarning
    opt = options.get("opt")
    if config.CUDA_DEBUGINFO_DEFAULT if options.get("debug") is None else options["debug"]:
        if config.OPT != 0 if opt is None else opt:
            text = "debug=True with opt=True is not supported by CUDA"
            warnings.warn(invalid_config_warning(text), stacklevel=4)
        if options.get("lineinfo"):
            warnings.warn(invalid_config_warning("debug and lineinfo are mutually exclusive"), stacklevel=4)


def deprecation() -> type[Exception]:
    """Return the class of the error for options that Numba no longer has."""
    try:
        from numba.cuda.core.errors import DeprecationError
    except ImportError:
        return TypeError
    return DeprecationError
