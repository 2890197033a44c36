"""Parts of Numba that work without a GPU: its types, its type inference, and its compiler, where it is installed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import TargetUnavailableError
from ..language.signatures import VOID, ArrayType, Scalar, TupleType, Type, signatures
from ..launch import current_options
from ..numba_typing import for_numba
from ..numba_typing import inferred as numba_inferred

_COMPILERS = (
    "compile compile_ptx compile_all compile_for_current_device compile_ptx_for_current_device"
).split()

PASSED_ON = (
    *_COMPILERS,
    *"types extending errors config CudaSupportError HAS_NUMBA typeof literal literal_unroll".split(),
)
"""Names of ``numba.cuda`` that the facade takes from it, where it is installed."""


def numba_cuda() -> Any:
    """Return ``numba.cuda``, or None if it is not installed."""
    try:
        from numba import cuda
    except ImportError:
        return None
    return cuda


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
    return _compiling(found) if name in _COMPILERS else found


def _compiling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiler of Numba's that takes kernels and signatures of the facade."""

    @functools.wraps(function)
    def call(pyfunc: Any, sig: Any, *args: Any, **kwargs: Any) -> Any:
        plain = getattr(pyfunc, "py_func", pyfunc)
        kwargs.setdefault("cc", current_options().compute_capability)
        if "for_current_device" in function.__name__:
            del kwargs["cc"]
        return function(for_numba(plain), for_numba_signature(sig), *args, **kwargs)

    return call


def ptx(kernel: Any, signature: Any) -> str:
    """Return the PTX that Numba compiles for a kernel."""
    options = {
        name: kernel.targetoptions[name]
        for name in inspect.signature(passed_on("compile_ptx")).parameters
        if name in kernel.targetoptions and name != "device"
    }
    made = passed_on("compile_ptx")(kernel, signature, device=kernel.device, **options)
    return str(made[0])


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
    return types.none if light is type(None) else light


def as_numba(given: Any) -> Any:
    """Return a type of the facade as Numba's."""
    from numba import types
    from numba.np import numpy_support

    from_dtype: Callable[[Any], Any] = numpy_support.from_dtype
    if given is VOID:
        return types.none
    if isinstance(given, Scalar):
        return from_dtype(given.dtype)
    if isinstance(given, ArrayType):
        return types.Array(from_dtype(given.dtype), given.ndim, given.layout, readonly=not given.mutable)
    if isinstance(given, TupleType):
        return types.BaseTuple.from_types(tuple(map(as_numba, given.items)))
    return getattr(types, str(given)) if isinstance(given, Type) else given


def for_numba_signature(given: Any) -> Any:
    """Return a signature, or a list of them, as Numba takes it."""
    if isinstance(given, list):
        return [for_numba_signature(one) for one in given]
    if isinstance(given, str) or not isinstance(given, tuple):
        return given
    result = getattr(given, "result", None)
    types = tuple(map(as_numba, getattr(given, "args", given)))
    return types if result is None else as_numba(result)(*types)


def types_of_signature(given: Any) -> tuple[Any, ...]:
    """Return the types of the parameters: Numba's where it is installed, else ours."""
    if numba_cuda() is None:
        [read] = signatures(given)
        return read.args
    try:
        from numba.cuda.core import sigutils
    except ImportError:
        from numba.core import sigutils
    return tuple(sigutils.normalize_signature(for_numba_signature(given))[0])


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
