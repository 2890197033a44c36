"""`vectorize`: makes a kernel of a function of one element.

Types are matched and results are combined in the order in which Numba does it, so that rounding is the same too.
"""

from __future__ import annotations

import itertools
import linecache
import math
import warnings
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import numpy as np

from ....arguments import is_name, shown
from ...language.signatures import VOID, Signature, signatures
from ..device_array import DeviceArray
from ..kernels import Kernel
from ..memory import as_cuda_array, device_array, is_cuda_array, to_device
from ..names import DeviceName

__all__ = ["vectorize"]

_numbers = itertools.count()


def kernel_of(name: str, parameters: str, test: str, statement: str, core: Kernel, signature: Any) -> Kernel:
    """Return the kernel that runs `statement`, which calls ``core``, in each thread ``i`` for which `test` holds."""
    name = name if name.isidentifier() else "function"
    text = f"def {name}({parameters}):\n    i = grid(1)\n    if {test}:\n        {statement}\n"
    file = f"<kernel {next(_numbers)} of the ufunc {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {"grid": DeviceName("cuda.grid"), "core": core, "min": min}
    exec(compile(text, file, "exec"), space)
    return Kernel(space[name], signature)


def dtype_in(given: Any) -> np.dtype[Any]:
    dtype = getattr(given, "dtype", None)
    if dtype is None:
        raise TypeError(f"a type of a signature must be that of a number or an array, got {given}")
    return dtype


def check_identity(identity: Any) -> None:
    known = isinstance(identity, (int, str)) and identity in (0, 1, "reorderable")
    if identity is not None and not known:
        raise ValueError(
            f"Invalid identity value: identity must be 0, 1, None or 'reorderable', got {shown(identity)}"
        )


def check_target(target: Any) -> None:
    if not is_name(target, "cuda"):
        raise ValueError(f"Unsupported target: target must be 'cuda', got target={shown(target)}")


def signature_list(given: Any) -> list[Any]:
    return [given] if isinstance(given, (str, Signature)) or hasattr(given, "return_type") else list(given)


class Ufunc:
    """A function of one element, made by `vectorize`: called with arrays, it broadcasts them as NumPy does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self.signatures: list[Any] = []
        self.functions: dict[tuple[np.dtype[Any], ...], tuple[np.dtype[Any], Kernel]] = {}

    def add(self, given: Any) -> None:
        """Add a signature."""
        self.signatures.append(given)
        [read] = signatures(given)
        if read.result in (None, VOID):
            read = Signature(read.args, self._result(given))
        core = Kernel(self.py_func, read, device=True)
        names = [f"a{number}" for number in range(len(read.args))]
        statement = f"out[i] = core({', '.join(f'{name}[i]' for name in names)})"
        kernel = kernel_of(
            self.py_func.__name__, ", ".join([*names, "out"]), "i < out.shape[0]", statement, core, None
        )
        self.functions[tuple(map(dtype_in, read.args))] = dtype_in(read.result), kernel

    def _result(self, given: Any) -> Any:
        from ..numba_parts import inferred, types_of_signature

        [read] = signatures(given)
        core = Kernel(self.py_func, device=True)
        found = inferred(core, types_of_signature(given))
        if not hasattr(found, "return_type"):
            raise TypeError(
                f"the signature {read} must name the type of the result, since Numba, which could infer it, is missing"
            )
        return signatures(found)[0].result

    def __reduce__(self) -> Any:
        return _unpickled, (Kernel(self.py_func, device=True), self.signatures)

    def __call__(self, *args: Any, out: Any = None, stream: Any = 0, **unknown: Any) -> Any:
        """Return the results for arrays and numbers, on the device if an array or `out` is there.

        Raises
        ------
        TypeError
            The types are not exactly those of a signature, or numbers fit several.
        ValueError
            The shapes cannot be broadcast, or do not fit `out`.
        """
        if unknown:
            warnings.warn(f"unrecognized keywords: {', '.join(unknown)}", stacklevel=2)
        given = [on_host(arg) if not isinstance(arg, _SCALARS) else None for arg in args]
        types = self._types(args, given)
        result, kernel = self.functions[types]
        arrays = [
            np.array([arg], dtype) if array is None else array
            for arg, array, dtype in zip(args, given, types, strict=True)
        ]
        shape = _broadcast_shape([array.shape for array in arrays])
        flat = [np.broadcast_to(array, shape).reshape(-1) for array in arrays]
        on_device = any(map(is_cuda_array, args))
        if out is None:
            target = device_array((math.prod(shape),), result)
        elif is_cuda_array(out):
            target = as_cuda_array(out).ravel()
        else:
            if out.shape != shape or out.dtype != result:
                raise ValueError(
                    f"out must have shape={shape} and dtype={result}, got {out.shape} and {out.dtype}"
                )
            target = device_array((math.prod(shape),), result)
        kernel.forall(math.prod(shape), stream=stream)(*map(DeviceArray.of, flat), target)
        if is_cuda_array(out) or (out is None and on_device):
            return target.reshape(shape)
        found = target.copy_to_host().reshape(shape)
        if out is None:
            return found
        np.copyto(out, found)
        return out

    def _types(self, args: Sequence[Any], given: Sequence[Any]) -> tuple[np.dtype[Any], ...]:
        """Return the types of the signature that fits."""
        exact = [
            np.asarray(arg).dtype if array is None else array.dtype
            for arg, array in zip(args, given, strict=True)
        ]
        fitting = []
        if any(array is None for array in given):
            fitting = [types for types in self.functions if list(types) == exact]
        if not fitting:
            fitting = [
                types
                for types in self.functions
                if len(types) == len(given)
                and all(
                    array is None or array.dtype == dtype for array, dtype in zip(given, types, strict=True)
                )
            ]
        if len(fitting) == 1:
            return fitting[0]
        listed = ", ".join(f"({', '.join(map(str, types))})" for types in fitting or self.functions)
        got = f"({', '.join(map(str, exact))})"
        if fitting:
            raise TypeError(
                f"Failed to resolve ufunc due to ambiguous signature: the numbers in {got} fit {listed}; give them "
                "NumPy types"
            )
        raise TypeError(
            f"No matching version. GPU ufunc requires array arguments of exactly {listed}, got {got}"
        )

    def reduce(self, arg: Any, stream: Any = 0) -> Any:
        """Return the elements of a 1-D array combined by a function of two; a device array is overwritten.

        Raises
        ------
        TypeError
            The function does not take two elements, or the array is not 1-D, or empty.
        """
        if any(len(types) != 2 for types in self.functions):
            raise TypeError(f"{self.py_func.__name__} must take two elements to reduce an array")
        if arg.ndim != 1:
            raise TypeError(f"arg must have 1 axis, got shape={arg.shape}")
        if not arg.size:
            raise TypeError("Reduction on an empty array: arg must have elements")
        if arg.size == 1:
            return arg[0]
        return self._reduced(to_device(arg), stream)[0]

    def _reduced(self, array: DeviceArray, stream: Any) -> DeviceArray:
        if array.size % 2:
            even, last = array.split(array.size - 1)
            out = self._reduced(even, stream)
            self(out, last, out=out, stream=stream)
            return out
        left, right = array.split(array.size // 2)
        self(left, right, out=left, stream=stream)
        return self._reduced(left, stream) if left.size > 1 else left


def _unpickled(core: Kernel, given: list[Any]) -> Ufunc:
    made = Ufunc(core.py_func)
    for signature in given:
        made.add(signature)
    return made


_SCALARS = (int, float, complex, np.number)


def on_host(value: Any) -> Any:
    """Return an array of the host or the device as a NumPy array."""
    return as_cuda_array(value).__lockstep_array__ if is_cuda_array(value) else np.asarray(value)


def _broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    shape: tuple[int, ...] = ()
    try:
        for number, one in enumerate(shapes):  # noqa: B007
            shape = np.broadcast_shapes(shape, one)
    except ValueError:
        raise ValueError(f"failed to broadcast argument #{number} of the shapes {shapes}") from None
    return shape


def vectorize(ftylist_or_function: Any = (), target: str = "cuda", **kws: Any) -> Any:
    """Decorate a function of one element, to be called with arrays.

    Parameters
    ----------
    ftylist_or_function : str, signature, or list of these
        The types of the elements and of the result.
    target : {"cuda"}
    **kws
        ``identity``, which has no effect; others are refused as Numba refuses them.

    Raises
    ------
    TypeError, KeyError, ValueError
        An option or a signature is not valid.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> @cuda.vectorize(["float32(float32, float32)"])
    ... def add(a, b):
    ...     return a + b
    >>> add(np.ones(3, np.float32), np.float32(2))
    array([3., 3., 3.], dtype=float32)
    """
    check_target(target)
    missing = isinstance(ftylist_or_function, (list, tuple)) and not ftylist_or_function
    if missing or (callable(ftylist_or_function) and not isinstance(ftylist_or_function, Signature)):
        raise TypeError("vectorize must have signatures for the target cuda, such as 'float32(float32)'")
    check_identity(kws.pop("identity", None))
    if kws.pop("cache", False):
        raise TypeError("caching is not supported")
    for name in kws:
        if name != "nopython":
            raise KeyError(f"Unrecognized options. cuda vectorize target does not support option: '{name}'")
        warnings.warn("nopython kwarg for cuda target is redundant", RuntimeWarning, stacklevel=2)

    def wrap(function: Callable[..., Any]) -> Ufunc:
        made = Ufunc(getattr(function, "py_func", function))
        for signature in signature_list(ftylist_or_function):
            made.add(signature)
        return made

    return wrap
