"""`vectorize` and `guvectorize`: make kernels of functions of one element, or of one small array.

Types are matched and results are combined in the order in which Numba does it, so that rounding is the same too.
"""

from __future__ import annotations

import itertools
import linecache
import math
import re
import warnings
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import numpy as np

from ...arguments import shown
from ..language.signatures import VOID, ArrayType, Scalar, Signature, signatures
from .device_array import DeviceArray
from .kernels import Kernel
from .memory import as_cuda_array, device_array, is_cuda_array, to_device
from .names import DeviceName

__all__ = [
    "guvectorize",
    "vectorize",
]

_numbers = itertools.count()


def _kernel(name: str, parameters: str, test: str, statement: str, core: Kernel, signature: Any) -> Kernel:
    """Return the kernel that runs `statement`, which calls ``core``, in each thread ``i`` for which `test` holds."""
    name = name if name.isidentifier() else "function"
    text = f"def {name}({parameters}):\n    i = grid(1)\n    if {test}:\n        {statement}\n"
    file = f"<kernel {next(_numbers)} of the ufunc {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {"grid": DeviceName("cuda.grid"), "core": core, "min": min}
    exec(compile(text, file, "exec"), space)
    return Kernel(space[name], signature)


def _dtype(given: Any) -> np.dtype[Any]:
    dtype = getattr(given, "dtype", None)
    if dtype is None:
        raise TypeError(f"a type of a signature must be that of a number or an array, got {given}")
    return dtype


def _check_identity(identity: Any) -> None:
    if identity is not None and identity not in (0, 1, "reorderable"):
        raise ValueError(f"Invalid identity value {identity!r}: it must be 0, 1, None or 'reorderable'")


def _check_target(target: Any) -> None:
    if target != "cuda":
        raise ValueError(f"Unsupported target: {target}; it must be 'cuda', got target={shown(target)}")


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, (str, Signature)) or hasattr(given, "return_type") else list(given)


# Functions of one element.


class Ufunc:
    """A function of one element, made by `vectorize`: called with arrays, it broadcasts them as NumPy does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self.functions: dict[tuple[np.dtype[Any], ...], tuple[np.dtype[Any], Kernel]] = {}

    def add(self, given: Any) -> None:
        """Add a signature."""
        [read] = signatures(given)
        if read.result in (None, VOID):
            read = Signature(read.args, self._result(given))
        core = Kernel(self.py_func, read, device=True)
        names = [f"a{number}" for number in range(len(read.args))]
        statement = f"out[i] = core({', '.join(f'{name}[i]' for name in names)})"
        kernel = _kernel(
            self.py_func.__name__, ", ".join([*names, "out"]), "i < out.shape[0]", statement, core, None
        )
        self.functions[tuple(map(_dtype, read.args))] = _dtype(read.result), kernel

    def _result(self, given: Any) -> Any:
        from .numba_parts import inferred, types_of_signature

        [read] = signatures(given)
        core = Kernel(self.py_func, device=True)
        found = inferred(core, types_of_signature(given))
        if not hasattr(found, "return_type"):
            raise TypeError(
                f"the signature {read} must name the type of the result, since Numba, which could infer it, is missing"
            )
        return signatures(found)[0].result

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
        given = [_host(arg) if not isinstance(arg, _SCALARS) else None for arg in args]
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


_SCALARS = (int, float, complex, np.number)


def _host(value: Any) -> Any:
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
    _check_target(target)
    if callable(ftylist_or_function) and not isinstance(ftylist_or_function, Signature):
        raise TypeError("vectorize must have signatures for the target cuda, such as 'float32(float32)'")
    _check_identity(kws.pop("identity", None))
    if kws.pop("cache", False):
        raise TypeError("caching is not supported")
    for name in kws:
        if name != "nopython":
            raise KeyError(f"Unrecognized options. cuda vectorize target does not support option: '{name}'")
        warnings.warn("nopython kwarg for cuda target is redundant", RuntimeWarning, stacklevel=2)

    def wrap(function: Callable[..., Any]) -> Ufunc:
        made = Ufunc(getattr(function, "py_func", function))
        for signature in _listed(ftylist_or_function):
            made.add(signature)
        return made

    return wrap


# Functions of one small array.


class GUfunc:
    """A function of small arrays, made by `guvectorize`: called with stacks of them, it runs once for each."""

    def __init__(self, function: Callable[..., Any], layout: str) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self.signature = layout
        self.inputs, self.outputs = _parsed(layout)
        self.functions: dict[tuple[np.dtype[Any], ...], tuple[tuple[np.dtype[Any], ...], Kernel]] = {}

    def add(self, given: Any) -> None:
        """Add a signature."""
        [read] = signatures(given)
        if read.result not in (None, VOID) and str(read.result) != "none":
            raise TypeError(
                f"guvectorized functions cannot return values: signature {given} specifies {read.result} return type"
            )
        names = [f"a{number}" for number in range(len(self.inputs) + len(self.outputs))]
        ranks = [len(axes) for axes in (*self.inputs, *self.outputs)]
        items, outer = [], []
        for name, rank, one in zip(names, ranks, read.args, strict=False):
            is_array = isinstance(one, ArrayType)
            if rank and isinstance(one, Scalar):
                raise ValueError(f"gufunc signature mismatch: ndim>0 for scalar {name} of {given}")
            whole = "i" if not is_array or rank else "i:i + 1"
            items.append(f"{name}[{', '.join([whole, *[':'] * rank])}]")
            outer.append(ArrayType(_dtype(one), rank + 1 if is_array else 1))
        core = Kernel(self.py_func, Signature(read.args), device=True)
        test = (
            f"i < min({', '.join(f'{name}.shape[0]' for name in names)})"
            if len(names) > 1
            else "i < a0.shape[0]"
        )
        made = _kernel(
            self.py_func.__name__,
            ", ".join(names),
            test,
            f"core({', '.join(items)})",
            core,
            Signature(tuple(outer)),
        )
        types = [_dtype(one) for one in outer]
        self.functions[tuple(types[: len(self.inputs)])] = tuple(types[len(self.inputs) :]), made

    def __call__(self, *args: Any, out: Any = None, stream: Any = 0) -> Any:
        """Return the result, or a tuple of the results, on the device if an argument is there.

        Raises
        ------
        TypeError
            The number of arguments is wrong, or no signature fits.
        ValueError
            The shapes do not fit.
        """
        nin, nout = len(self.inputs), len(self.outputs)
        if out is None and len(args) not in (nin, nin + nout):
            raise TypeError(
                f"This gufunc accepts {_positional(nin)} (when providing input only) or {_positional(nin + nout)} "
                f"(when providing input and output). Got {_positional(len(args))}."
            )
        if out is not None and len(args) > nin:
            raise ValueError("cannot specify argument 'out' as both positional and keyword")
        outs = list(args[nin:]) or [out] * nout
        to_host = not any(map(is_cuda_array, (*args[:nin], *outs)))
        # As on the way to a GPU, what the function stores into an input does not reach the host.
        arrays = [_host(arg) if is_cuda_array(arg) else np.array(arg, order="K") for arg in args[:nin]]
        loop, shapes = self._shapes([array.shape for array in arrays])
        types = self._fitting(tuple(array.dtype for array in arrays))
        results, kernel = self.functions[types]
        for shape, one in zip(shapes, outs, strict=True):
            if one is not None and tuple(one.shape) != shape:
                raise ValueError(
                    f"output shape mismatch: out must have shape={shape}, got {tuple(one.shape)}"
                )
        for number, (arg, dtype) in enumerate(zip(args, types, strict=False)):
            if arrays[number].dtype != dtype:
                if is_cuda_array(arg):
                    raise TypeError(
                        f"compatible signature is possible by casting but {type(arg)} does not support .astype(): "
                        f"argument {number} must have dtype={dtype}, got {arrays[number].dtype}"
                    )
                arrays[number] = arrays[number].astype(dtype)
        count = math.prod(loop)
        if not count:
            raise ValueError(f"zero looping dimension: the arguments must have elements, got shape={loop}")
        given = [_stack(array, count, len(axes)) for array, axes in zip(arrays, self.inputs, strict=True)]
        made = [
            device_array(shape, dtype) if one is None or to_host else one
            for shape, dtype, one in zip(shapes, results, outs, strict=True)
        ]
        stacks = [
            _host(one).reshape(count, *shape[len(loop) :]) for one, shape in zip(made, shapes, strict=True)
        ]
        kernel.forall(count, stream=stream)(*map(DeviceArray.of, (*given, *stacks)))
        if to_host:
            made = [one.copy_to_host(host) for one, host in zip(made, outs, strict=True)]
        return made[0] if nout == 1 else tuple(made)

    def _shapes(self, shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """Return the shape of the stack, and those of the results."""
        lengths: dict[str, int] = {}
        outer = []
        for number, (shape, axes) in enumerate(zip(shapes, self.inputs, strict=True), 1):
            if len(shape) < len(axes):
                raise ValueError(f"arg #{number}: insufficient inner dimension: it needs {axes}, got {shape}")
            split = len(shape) - len(axes)
            outer.append(shape[:split])
            for axis, (length, name) in enumerate(zip(shape[split:], axes, strict=True), split):
                if lengths.setdefault(name, length) != length:
                    raise ValueError(
                        f"arg #{number}: shape[{axis}] mismatch argument: {name} is {lengths[name]}, got {length}"
                    )
        loop = max(outer, key=math.prod)
        for number, one in enumerate(outer, 1):
            if one not in (loop, (1,), ()):
                raise ValueError(f"arg #{number}: outer dimension mismatch: it must be {loop}, got {one}")
        return loop, [(*loop, *(lengths[name] for name in axes)) for axes in self.outputs]

    def _fitting(self, given: tuple[np.dtype[Any], ...]) -> tuple[np.dtype[Any], ...]:
        if given in self.functions:
            return given
        for types in self.functions:
            if all(map(np.can_cast, types, given)):
                return types
        listed = ", ".join(f"({', '.join(map(str, types))})" for types in self.functions)
        raise TypeError(f"no matching signature of {listed} for ({', '.join(map(str, given))})")

    def __repr__(self) -> str:
        return f"<gufunc {self.py_func.__name__}{self.signature} on lockstep>"


def _positional(count: int) -> str:
    return f"{count} positional argument{'' if count == 1 else 's'}"


def _stack(array: Any, count: int, rank: int) -> Any:
    """Return an input as a stack of `count` arrays with `rank` axes, the same one again and again if it is one."""
    inner = array.shape[array.ndim - rank :]
    whole = (count, *inner)
    if array.size == 1 and not rank:
        return np.lib.stride_tricks.as_strided(array, whole, (0,))
    if array.ndim == len(whole) - 1:
        return np.lib.stride_tricks.as_strided(array, whole, (0, *array.strides))
    return array.reshape(whole)


def _parsed(layout: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return the names of the axes of each input and output in a layout such as ``(m, n),(n)->(m)``."""
    text = re.sub(r"\s", "", layout)
    if not re.fullmatch(r"(\([\w,]*\),?)*->(\([\w,]*\),?)*", text):
        raise ValueError(f"bad token in signature: it must read like '(m,n),(n)->(m)', got {shown(layout)}")
    parts = [
        [tuple(filter(None, group.split(","))) for group in re.findall(r"\((.*?)\)", part)]
        for part in text.split("->")
    ]
    inputs, outputs = parts
    unknown = {name for axes in outputs for name in axes} - {name for axes in inputs for name in axes}
    if unknown:
        raise NameError(f"undefined output symbols: {','.join(sorted(unknown))}")
    return inputs, outputs


def guvectorize(*args: Any, **kwargs: Any) -> Any:
    """Decorate a function of small arrays, to be called with stacks of them.

    Parameters
    ----------
    ftylist : str, signature, or list of these
        The types of the inputs and outputs.
    signature : str
        The axes of each, such as ``(m,n),(n)->(m)``.
    identity
        Has no effect. Other options are refused as Numba refuses them.

    Raises
    ------
    TypeError, ValueError, NameError
        An option or a signature is not valid.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> @cuda.guvectorize(["void(float64[:], float64[:])"], "(n)->(n)")
    ... def reverse(source, out):
    ...     for i in range(source.shape[0]):
    ...         out[i] = source[source.shape[0] - 1 - i]
    >>> reverse(np.arange(6.0).reshape(2, 3))
    array([[2., 1., 0.],
           [5., 4., 3.]])
    """
    if len(args) not in (1, 2):
        raise TypeError("guvectorize() takes one or two positional arguments")
    if len(args) == 1:
        kwargs.setdefault("is_dynamic", True)
    _check_target(kwargs.pop("target", "cuda"))
    _check_identity(kwargs.pop("identity", None))
    if kwargs.pop("cache", False):
        raise TypeError("caching is not supported")
    if kwargs.pop("writable_args", ()):
        raise TypeError("writable_args are not supported")
    if not kwargs.pop("nopython", True):
        raise TypeError("nopython flag must be True")
    if kwargs:
        raise TypeError(
            f"The following target options are not supported: {', '.join(repr(name) for name in kwargs)}"
        )

    def wrap(function: Callable[..., Any]) -> GUfunc:
        made = GUfunc(getattr(function, "py_func", function), args[-1])
        for signature in _listed(args[0] if len(args) == 2 else ()):
            made.add(signature)
        return made

    return wrap
