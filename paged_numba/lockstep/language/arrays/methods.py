"""Methods and attributes of arrays in kernels, and functions of NumPy that are no ufuncs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ....errors import KernelError
from ...machine import arithmetic, masks
from ...machine.arithmetic import LaneTuple
from ...machine.lanes import source_line
from ...machine.machine import Machine
from ...machine.masks import Mask, narrow
from ...machine.memory import LaneArray
from ..intrinsic import Intrinsic
from . import iteration, reductions, views
from .reductions import check
from .views import refuse

Method = Callable[..., Any]


def _fill(machine: Machine, mask: Mask, array: LaneArray, value: Any) -> None:
    """``array.fill(value)``."""
    array.store(mask, (slice(None),) * len(array.lengths), arithmetic.cast(value, array.dtype))


def _item(machine: Machine, mask: Mask, array: LaneArray) -> Any:
    """``array.item()`` of an array of one element."""
    many = narrow(mask, array.size != 1)
    if many is not False:
        raise KernelError(
            f"item() needs an array of one element, got {array.name}, {machine.whereabouts(machine.first_lane(many))}"
        )
    return array.load(mask, (np.int64(0),) * len(array.lengths))


def _take(machine: Machine, mask: Mask, array: LaneArray, index: Any) -> Any:
    """``array.take(index)``: the element at a flat index, which may count from the end."""
    if not isinstance(index, (np.ndarray, np.generic)):
        raise refuse("take of several indices, which makes an array", "write a loop")
    index = index.astype(np.int64)
    return views.Flat(array).load(mask, np.where(index < 0, index + array.size, index)[()])


def _astype(machine: Machine, mask: Mask, array: LaneArray, dtype: Any) -> LaneArray:
    raise refuse(f"astype of {array.name}, which makes an array", "cast each element")


METHODS: dict[str, Method] = {
    **reductions.METHODS,
    "fill": _fill,
    "item": _item,
    "ravel": views.ravel,
    "reshape": views.reshape,
    "take": _take,
    "transpose": views.transpose,
    "view": views.view,
}
"""``method(machine, mask, array, ...)``."""

_ALLOCATING = frozenset(
    "argpartition argsort astype byteswap choose clip compress conj conjugate copy cumprod cumsum diagonal dot flatten "
    "nonzero partition repeat round searchsorted sort tobytes tolist".split()
)
"""Methods that make a new array or sort one, which the machine does not run."""


def _strides(array: LaneArray) -> LaneTuple:
    return LaneTuple([np.int64(s * array.buffer.strides[0]) for s in array.strides])


ATTRIBUTES: dict[str, Callable[[LaneArray], Any]] = {
    **{name: operator.attrgetter(name) for name in "shape size ndim dtype itemsize nbytes".split()},
    "T": views.transposed,
    "flat": views.Flat,
    "imag": views.imag,
    "real": views.real,
    "strides": _strides,
}


def knows(name: str) -> bool:
    """Tell whether the machine itself decides on an attribute of arrays: it runs or refuses it."""
    return name in ATTRIBUTES or name in METHODS or name in _ALLOCATING


def attribute(mask: Mask, array: LaneArray, name: str) -> Any:
    """Return ``array.name``, or None if arrays have no such attribute in a kernel."""
    found = ATTRIBUTES.get(name)
    if found is not None:
        return found(array)
    method = METHODS.get(name)
    if method is not None:
        return partial(method, array.machine, mask, array)
    if name in _ALLOCATING:
        raise refuse(f"{name} of {array.name}, which makes an array", "fill a cuda.local.array in a loop")
    return None


# Functions of NumPy.


def _of_array(name: str, method: Method) -> Method:
    """Return the function that calls a method of its first argument, which must be an array."""

    def call(machine: Machine, mask: Mask, a: Any, *given: Any, **named: Any) -> Any:
        if not isinstance(a, LaneArray):
            raise KernelError(f"np.{name} needs an array, {source_line()}")
        return method(machine, mask, a, *given, **named)

    return call


def _part(name: str) -> Method:
    def part(machine: Machine, mask: Mask, val: Any) -> Any:
        if isinstance(val, LaneArray):
            return ATTRIBUTES[name](val)
        return getattr(val, name)

    return part


def _angle(machine: Machine, mask: Mask, z: Any, deg: Any = None) -> Any:
    radians = np.arctan2(z.imag.astype(np.float64), z.real.astype(np.float64))
    machine.compute(mask, radians.dtype, 0, 1)
    return radians if deg is None else np.where(deg, radians * float(180 / np.pi), radians)[()]


def _round(machine: Machine, mask: Mask, a: Any, decimals: Any = None) -> Any:
    """``np.round`` of a number: in its own type, ties to even."""
    if isinstance(a, LaneArray):
        raise refuse("np.round of an array, which makes an array", "round each element")
    digits = 0 if decimals is None else masks.common(mask, decimals)
    if digits is None:
        raise KernelError(f"np.round needs the same number of decimals in all threads, {source_line()}")
    return a if a.dtype.kind in "biu" and digits == 0 else np.round(a, int(digits))


def _sinc(machine: Machine, mask: Mask, x: Any) -> Any:
    x = np.where(x == 0, 1e-20, x)[()] * np.float64(np.pi)
    machine.compute(mask, x.dtype, 1, 2)
    return np.sin(x) / x


def _infinite(sign: int) -> Method:
    return lambda machine, mask, x: (
        np.isinf(x) & ((x < 0) if sign < 0 else (x > 0))
        if x.dtype.kind == "f"
        else np.zeros_like(x, bool)[()]
    )


def _nan_to_num(machine: Machine, mask: Mask, x: Any) -> Any:
    return np.nan_to_num(x) if x.dtype.kind in "fc" else x


def _searchsorted(machine: Machine, mask: Mask, a: Any, v: Any, side: Any = "left") -> Any:
    """``np.searchsorted`` of one number, by bisection as Numba has it."""
    array = check("searchsorted", a)
    if isinstance(v, LaneArray):
        raise refuse("np.searchsorted of an array of values, which makes an array", "write a loop")
    low: Any = np.int64(0)
    high: Any = array.shape[0]
    left = narrow(mask, low < high)
    while left is not False:
        middle = low + ((high - low) >> np.int64(1))
        value = array.load(left, np.where(low < high, middle, np.int64(0))[()])
        after = (value < v) if side == "left" else ~(v < value)
        after = (
            after | np.isnan(v) & ~np.isnan(value)
            if value.dtype.kind == "f" and v.dtype.kind == "f"
            else after
        )
        searching = low < high
        low, high = (
            np.where(searching & after, middle + 1, low)[()],
            np.where(searching & ~after, middle, high)[()],
        )
        left = narrow(mask, low < high)
    return low


def _trace(machine: Machine, mask: Mask, a: Any) -> Any:
    """``np.trace``: the sum of the diagonal, which starts at an integer 0."""
    array = check("trace", a)
    if len(array.lengths) != 2:
        raise KernelError(f"np.trace needs a matrix, got {array.name}, {source_line()}")
    shorter: Any = np.minimum(*array.shape)
    step = array.strides[0] + array.strides[1]
    diagonal = array.like(array.offset, (shorter if np.ndim(shorter) else int(shorter),), (step,), None)
    return reductions.added(machine, mask, diagonal, np.int64(0))


def _finfo(machine: Machine, mask: Mask, dtype: Any) -> Any:
    return np.finfo(dtype if isinstance(dtype, np.dtype) else dtype.dtype)


def _iinfo(machine: Machine, mask: Mask, dtype: Any) -> Any:
    return np.iinfo(dtype if isinstance(dtype, np.dtype) else dtype.dtype)


def _is_complex(value: Any) -> Any:
    return np.bool_(value.dtype.kind == "c")


_OF_ARRAYS: dict[str, Method] = {
    **reductions.FUNCTIONS,
    "asarray": lambda machine, mask, a: a,
    "ravel": views.ravel,
    "reshape": views.reshape,
    "shape": lambda machine, mask, a: a.shape,
    "size": lambda machine, mask, a: a.size,
    "take": _take,
    "transpose": views.transpose,
}

_FUNCTIONS: dict[str, Method] = {
    **{name: _of_array(name, method) for name, method in _OF_ARRAYS.items()},
    "angle": _angle,
    "around": _round,
    "finfo": _finfo,
    "iinfo": _iinfo,
    "imag": _part("imag"),
    "iscomplexobj": lambda machine, mask, x: _is_complex(x),
    "isneginf": _infinite(-1),
    "isposinf": _infinite(1),
    "isrealobj": lambda machine, mask, x: ~_is_complex(x),
    "isscalar": lambda machine, mask, element: np.bool_(not isinstance(element, (LaneArray, tuple))),
    "nan_to_num": _nan_to_num,
    "ndenumerate": lambda machine, mask, arr: iteration.ndenumerate(arr),
    "ndindex": lambda machine, mask, *shape: iteration.ndindex(*shape),
    "nditer": lambda machine, mask, op: iteration.nditer(op),
    "real": _part("real"),
    "round": _round,
    "searchsorted": _searchsorted,
    "sinc": _sinc,
    "trace": _trace,
}

FUNCTIONS: list[tuple[Any, Intrinsic]] = [
    (getattr(np, name), Intrinsic(function, masked=True)) for name, function in _FUNCTIONS.items()
]
"""Functions of NumPy, with what a kernel calls."""
