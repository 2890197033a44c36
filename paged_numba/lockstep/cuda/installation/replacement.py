"""`replace`: puts the names of the facade in the place of those of ``numba.cuda`` and of its submodules.

Functions keep their identity and call the facade, wherever they were imported before. Classes and objects are
exchanged in all modules that name them. What a kernel is written with (``cuda.threadIdx``, types, ...), and whatever
works without a GPU, stays Numba's. Everything else of Numba's reaches the driver, which refuses.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import weakref
from abc import ABC
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from ....errors import TargetUnavailableError
from ...compiler.source import copied
from ...language.signatures import Type
from .. import facade
from ..device_array import DeviceArray
from ..kernels import Kernel
from ..names import DeviceName
from ..numba_parts import COMPILERS, compiling, numba_core
from .changes import Changes

SUBMODULES: dict[str, dict[str, Any]] = {
    "api": {},
    "args": {name: getattr(facade, name) for name in ("In", "Out", "InOut")},
    "decorators": {"jit": facade.jit},
    "cudadrv": {},
    "cudadrv.devicearray": {
        "DeviceNDArrayBase": DeviceArray,
        **{name: getattr(facade.devicearray, name) for name in ("DeviceNDArray", "DeviceRecord")},
        **{name: getattr(facade.devicearray, name) for name in ("MappedNDArray", "ManagedNDArray")},
        "is_cuda_ndarray": lambda obj: isinstance(obj, DeviceArray),
        "auto_device": lambda obj, stream=0, copy=True, user_explicit=False: _on_device(obj, copy),
        "from_array_like": lambda ary, stream=0, gpu_data=None: facade.device_array_like(ary),
    },
    "cudadrv.devices": {
        "gpus": facade.gpus,
        "get_context": facade.current_context,
        "reset": facade.close,
    },
    "cudadrv.driver": {
        **{name: getattr(facade, name) for name in ("Device", "Context", "Stream", "Event")},
        **{name: getattr(facade, name) for name in ("event_elapsed_time", "profile_start", "profile_stop")},
        "set_memory_manager": facade.set_memory_manager,
    },
}
"""The names of the submodules of ``numba.cuda``, beside those that ``numba.cuda`` has too."""


def _on_device(obj: Any, copy: bool) -> tuple[Any, bool]:
    return (obj, False) if isinstance(obj, DeviceArray) else (facade.to_device(obj, copy=copy), True)


def host_names() -> dict[str, Any]:
    """Return the names of the facade that host code uses, with their values."""
    return {
        name: value
        for name, value in vars(facade).items()
        if not name.startswith("_")
        and not isinstance(value, (DeviceName, ModuleType, Type, dict, int, str, tuple))
        and not (isinstance(value, type) and issubclass(value, np.generic))
    }


def replace(cuda: ModuleType, changes: Changes) -> None:
    """Put the facade in the place of the names of ``numba.cuda``.

    Parameters
    ----------
    cuda : module
        ``numba.cuda``, imported.
    changes : Changes
        Where to remember what was there.
    """
    _keep_jit_of_overloads(changes)
    for name, value in host_names().items():
        if hasattr(cuda, name):
            _exchange(cuda, name, value, changes)
        elif getattr(value, "__module__", "").startswith(__package__.rpartition(".")[0]):
            changes.set(cuda, name, value)
    numba_types = importlib.import_module("numba").types
    for name, value in vars(facade).items():
        if isinstance(value, (DeviceName, Type)) and not name.startswith("_") and not _has(cuda, name):
            changes.set(cuda, name, getattr(numba_types, name, value))  # of a release that lacks it
    for part, names in SUBMODULES.items():
        module = importlib.import_module(f"numba.cuda.{part}")
        for name, value in names.items():
            if hasattr(module, name):
                _exchange(module, name, value, changes)
    for name in COMPILERS:
        compiler = getattr(cuda, name, None)
        if isinstance(compiler, FunctionType):  # which then takes kernels of the facade, too
            changes.redirect(compiler, compiling(copied(compiler)))
    _replace_dispatcher(changes)
    _replace_ufuncs(changes)
    _replace_driver(changes)
    _replace_allocator(changes)
    _silence_performance_warnings(changes)


def _has(package: ModuleType, name: str) -> bool:
    """Tell whether a package has a name, or a module of that name that may be imported later."""
    return hasattr(package, name) or importlib.util.find_spec(f"{package.__name__}.{name}") is not None


def _keep_jit_of_overloads(changes: Changes) -> None:
    """Let Numba compile its own overloads, which it decorates while it infers types, itself."""
    try:
        templates = importlib.import_module("numba.cuda.typing.templates")
    except ImportError:  # without numba-cuda
        return
    jit = importlib.import_module("numba.cuda.decorators").jit
    original = importlib.import_module("numba.cuda.dispatcher").CUDADispatcher
    space = {**jit.__globals__, "CUDADispatcher": original}
    space["jit"] = own = copied(jit, space)
    for value in list(vars(templates).values()):
        if isinstance(value, type) and "_get_jit_decorator" in vars(value):
            changes.set(value, "_get_jit_decorator", lambda self: own)


def _exchange(module: ModuleType, name: str, value: Any, changes: Changes) -> None:
    before = getattr(module, name)
    if before is value:
        return
    if isinstance(before, FunctionType) and callable(value):
        if (before.__kwdefaults__ or {}).get("_lockstep") is None:
            changes.redirect(before, value)
    else:
        changes.rebind(before, value)


# Kernels that Numba has decorated.


def _replace_dispatcher(changes: Changes) -> None:
    original = importlib.import_module("numba.cuda.dispatcher").CUDADispatcher
    kernels: weakref.WeakKeyDictionary[Any, Kernel] = weakref.WeakKeyDictionary()

    def kernel_of(dispatcher: Any) -> Kernel:
        if dispatcher not in kernels:
            kernels[dispatcher] = Kernel.of(dispatcher)
        return kernels[dispatcher]

    def forward(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(kernel_of(self), name)(*args, **kwargs)

        return method

    def call(self: Any, args: Any, *configuration: Any) -> None:
        """Launch a kernel that was configured before lockstep was installed."""
        if len(configuration) == 1:
            given = configuration[0]
            configuration = given.griddim, given.blockdim, given.stream, given.sharedmem
        kernel_of(self)[configuration](*args)

    for name, value in vars(Kernel).items():
        public = not name.startswith("_") or name in ("__getitem__", "__call__")
        if public and isinstance(value, FunctionType) and hasattr(original, name):
            changes.set(original, name, forward(name))
    changes.set(original, "call", call)

    class CUDADispatcher(ABC):  # noqa: B024 (its subclasses are registered)
        """The class of kernels while lockstep is installed, both of Numba's and of the facade's."""

        __wrapped__ = original

        def __new__(cls, py_func: Any, targetoptions: Any = None, *rest: Any) -> Any:
            return Kernel(py_func, **(targetoptions or {}))

    CUDADispatcher.register(original)
    CUDADispatcher.register(Kernel)
    changes.rebind(original, CUDADispatcher)


# vectorize and guvectorize with target="cuda".


class _Vectorize:
    """What Numba's decorators `vectorize` and `guvectorize` make of a function, before they ask for a ufunc."""

    decorator = "vectorize"

    def __init__(self, func: Any, *layout: str, **options: Any) -> None:
        self.function, self.layout = func, layout
        self.identity = options.get("identity")
        self.signatures: list[Any] = []

    def add(self, sig: Any = None, **other: Any) -> None:
        """Add a signature."""
        self.signatures.append(other.get("argtypes", sig))

    def disable_compile(self) -> None:
        """Do nothing: nothing is compiled."""

    def build_ufunc(self, *_: Any) -> Any:
        """Return the ufunc of the facade."""
        decorator: Any = getattr(facade, self.decorator)
        options = {} if self.identity is None else {"identity": self.identity}
        return decorator(self.signatures, *self.layout, **options)(self.function)


class _GUVectorize(_Vectorize):
    decorator = "guvectorize"


def _replace_ufuncs(changes: Changes) -> None:
    vectorizers = importlib.import_module("numba.cuda.vectorizers")
    for name, builder, registry in (
        ("CUDAVectorize", _Vectorize, "Vectorize"),
        ("CUDAGUFuncVectorize", _GUVectorize, "GUVectorize"),
    ):
        original = getattr(vectorizers, name)
        changes.rebind(original, builder)
        for module in ("numba.np.ufunc.decorators", "numba.cuda.np.ufunc.decorators"):
            if module in sys.modules:
                _replace_target(
                    getattr(sys.modules[module], registry).target_registry, original, builder, changes
                )


def _replace_target(registry: Any, original: Any, builder: Any, changes: Changes) -> None:
    # A registry that still delays the import of the original will import the builder.
    def put(before: Any, after: Any) -> None:
        if dict.get(registry, "cuda") is before:
            dict.__setitem__(registry, "cuda", after)

    put(original, builder)
    changes.when_undone(lambda: put(builder, original))


# The driver.


def _replace_driver(changes: Changes) -> None:
    module = importlib.import_module("numba.cuda.cudadrv.driver")
    support_error: Any = importlib.import_module("numba.cuda.cudadrv.error").CudaSupportError

    class NoDriverError(TargetUnavailableError, support_error):  # type: ignore[misc]
        """Raised by what needs the CUDA driver."""

        __qualname__ = "NoDriverError"

    def refuse(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NoDriverError(
            f"{name} of the CUDA driver must run on a GPU, but lockstep stands in the place of numba.cuda: leave out "
            "what needs it, or run on a machine with a GPU, without paged_numba.lockstep.install"
        )

    driver = module.Driver
    changes.set(driver, "__getattr__", refuse)
    changes.set(driver, "is_available", property(lambda self: True))
    changes.set(driver, "get_device_count", lambda self: len(facade.gpus))
    changes.set(driver, "get_device", lambda self, devnum=0: facade.gpus[devnum])
    changes.set(module.driver, "is_initialized", True)
    changes.set(module.driver, "initialization_error", None)


def _replace_allocator(changes: Changes) -> None:
    """Count what kernels allocate on the heap of the GPU: nothing, since lockstep refuses such kernels."""
    try:
        module = importlib.import_module("numba.cuda.memory_management.nrt")
    except ImportError:  # of older releases
        return
    nothing = module._nrt_mstats(alloc=0, free=0, mi_alloc=0, mi_free=0)
    runtime = type(module.rtsys)
    changes.set(runtime, "get_allocation_stats", lambda self, stream=None: nothing)
    changes.set(runtime, "memsys_enable_stats", lambda self, stream=None: None)
    changes.set(runtime, "memsys_disable_stats", lambda self, stream=None: None)


# Warnings.


def _silence_performance_warnings(changes: Changes) -> None:
    """Set Numba's options for warnings about a GPU's time, which is not spent here, to 0, unless the user set them."""
    config = numba_core("config")
    for option in ("CUDA_LOW_OCCUPANCY_WARNINGS", "CUDA_WARN_ON_IMPLICIT_COPY"):
        if f"NUMBA_{option}" not in os.environ and hasattr(config, option):
            changes.set(config, option, 0)
