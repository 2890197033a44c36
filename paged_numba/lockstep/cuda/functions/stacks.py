"""`guvectorize`: makes a kernel of a function of small arrays."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import numpy as np

from ....arguments import shown, text
from ...language.signatures import VOID, ArrayType, Scalar, Signature, signatures
from ..device_array import DeviceArray
from ..kernels import Kernel
from ..memory import as_cuda_array, device_array, is_cuda_array
from .elementwise import check_identity, check_target, dtype_in, kernel_of, on_host, signature_list

__all__ = ["guvectorize"]


class GUfunc:
    """A function of small arrays, made by `guvectorize`: called with stacks of them, it runs once for each."""

    def __init__(self, function: Callable[..., Any], layout: str) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self.signature = layout
        self.inputs, self.outputs = _parsed(layout)
        self.signatures: list[Any] = []
        self.functions: dict[tuple[np.dtype[Any], ...], tuple[tuple[np.dtype[Any], ...], Kernel]] = {}

    def add(self, given: Any) -> None:
        """Add a signature."""
        self.signatures.append(given)
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
            outer.append(ArrayType(dtype_in(one), rank + 1 if is_array else 1))
        core = Kernel(self.py_func, Signature(read.args), device=True)
        test = (
            f"i < min({', '.join(f'{name}.shape[0]' for name in names)})"
            if len(names) > 1
            else "i < a0.shape[0]"
        )
        made = kernel_of(
            self.py_func.__name__,
            ", ".join(names),
            test,
            f"core({', '.join(items)})",
            core,
            Signature(tuple(outer)),
        )
        types = [dtype_in(one) for one in outer]
        self.functions[tuple(types[: len(self.inputs)])] = tuple(types[len(self.inputs) :]), made

    def __reduce__(self) -> Any:
        return _unpickled, (Kernel(self.py_func, device=True), self.signature, self.signatures)

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
        outs = [
            as_cuda_array(one) if is_cuda_array(one) else one
            for one in args[nin:] or itertools.repeat(out, nout)
        ]
        to_host = not any(map(is_cuda_array, (*args[:nin], *outs)))
        # As on the way to a GPU, what the function stores into an input does not reach the host.
        arrays = [on_host(arg) if is_cuda_array(arg) else np.array(arg, order="K") for arg in args[:nin]]
        loop, shapes = self._shapes([array.shape for array in arrays])
        types = self._fitting(tuple(array.dtype for array in arrays))
        results, kernel = self.functions[types]
        for shape, one in zip(shapes, outs, strict=True):
            if one is not None and on_host(one).shape != shape:
                raise ValueError(
                    f"output shape mismatch: out must have shape={shape}, got {on_host(one).shape}"
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
            on_host(one).reshape(count, *shape[len(loop) :]) for one, shape in zip(made, shapes, strict=True)
        ]
        kernel.forall(count, stream=stream)(*map(DeviceArray.of, (*given, *stacks)))
        for one, stack in zip(made, stacks, strict=True):
            if not np.may_share_memory(on_host(one), stack):  # it was not contiguous
                np.copyto(on_host(one), stack.reshape(one.shape))
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


def _unpickled(core: Kernel, layout: str, given: list[Any]) -> GUfunc:
    made = GUfunc(core.py_func, layout)
    for signature in given:
        made.add(signature)
    return made


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
    plain = re.sub(r"\s", "", text("signature", layout))
    if not re.fullmatch(r"(\([\w,]*\),?)*->(\([\w,]*\),?)*", plain):
        raise ValueError(f"bad token in signature: it must read like '(m,n),(n)->(m)', got {shown(layout)}")
    parts = [
        [tuple(filter(None, group.split(","))) for group in re.findall(r"\((.*?)\)", part)]
        for part in plain.split("->")
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
    *args : object
        The types of the inputs and outputs, as a string, a signature or a list of these, and then their axes, such as
        ``"(m,n),(n)->(m)"``. Types may also be given later, by ``add``.
    **kwargs : object
        ``identity`` has no effect, ``target`` must be ``"cuda"`` and ``nopython`` must be True. Other options are
        refused, as Numba refuses them.

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
    check_target(kwargs.pop("target", "cuda"))
    check_identity(kwargs.pop("identity", None))
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
        for signature in signature_list(args[0] if len(args) == 2 else ()):
            made.add(signature)
        return made

    return wrap
