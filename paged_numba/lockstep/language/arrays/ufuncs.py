"""Ufuncs of NumPy in kernels, with the types that Numba gives them, on numbers and on arrays with an output array.

Numba takes the first loop of the ufunc to which the operands can be cast safely; if integers meet floating-point
numbers, the integers do not count, so ``np.add(int32, float32)`` is float32. It has no float16 loops: float16 becomes
float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ....errors import KernelError
from ...machine import arithmetic, masks
from ...machine.lanes import source_line
from ...machine.machine import Machine
from ...machine.masks import Mask, narrow
from ...machine.memory import LaneArray
from .views import refuse

_LETTERS = frozenset("?bBhHiIlLqQfdFD")
"""Types of the loops that Numba has."""

_ABSENT = frozenset("bitwise_count frexp heaviside matmul matvec modf vecdot vecmat".split())
"""Ufuncs that Numba lacks."""

_OPERATIONS = frozenset("add subtract multiply negative square".split())
"""Ufuncs that count as one floating-point operation; the others count as one of the special ones, or as none."""

_FREE = frozenset(
    "absolute fabs conjugate positive sign signbit copysign equal not_equal less less_equal greater greater_equal "
    "isnan isinf isfinite logical_and logical_or logical_xor logical_not maximum minimum fmax fmin floor ceil trunc "
    "rint nextafter spacing invert".split()
)


@lru_cache(maxsize=1024)
def _loop(
    ufunc: np.ufunc, given: tuple[np.dtype[Any], ...], outputs: tuple[np.dtype[Any], ...]
) -> str | None:
    """Return the types of the loop that Numba takes, such as ``dd->d``, or None if there is none."""
    if ufunc.__name__ in _ABSENT:
        return None
    kinds = {dtype.kind for dtype in given}
    mixed = bool(kinds & set("iu")) and bool(kinds & set("cf"))
    for types in ufunc.types:
        inner, result = types.split("->")
        if not set(inner + result) <= _LETTERS:
            continue
        if ufunc is np.divide and np.dtype(inner[0]).kind in "iu":
            continue
        if all(
            _fits(dtype, np.dtype(letter), mixed) for dtype, letter in zip(given, inner, strict=True)
        ) and all(
            _fits(np.dtype(letter), dtype, mixed, "same_kind")
            for letter, dtype in zip(result, outputs, strict=False)
        ):
            return types
    return None


def _fits(given: np.dtype[Any], wanted: np.dtype[Any], mixed: bool, casting: Any = "safe") -> bool:
    if mixed and given.kind in "iu" and wanted.kind in "cf":
        return True
    return np.can_cast(given, wanted, casting)


class Plan(NamedTuple):
    """How a ufunc computes operands of certain types."""

    inner: tuple[np.dtype[Any], ...] | None
    """The types to which the operands are converted; None if NumPy's result has Numba's type anyway."""
    operations: int
    special: int


_plans: dict[tuple[Any, ...], Plan] = {}


def _plan(ufunc: np.ufunc, values: tuple[Any, ...], outputs: tuple[Any, ...]) -> Plan:
    given = tuple(value.dtype for value in values)
    if ufunc is np.isnat and given[0].kind in "mM":
        return Plan(None, 0, 0)
    types = _loop(ufunc, given, tuple(array.dtype for array in outputs))
    if types is None:
        raise KernelError(
            f"np.{ufunc.__name__} has no loop for ({', '.join(map(str, given))}) in Numba, {source_line()}"
        )
    letters, result = types.split("->")
    inner: tuple[np.dtype[Any], ...] | None = tuple(map(np.dtype, letters))
    name = ufunc.__name__
    try:
        ones = [np.ones(1, dtype) for dtype in given]
        made = ufunc(*ones)
        found = "".join(part.dtype.char for part in (made if isinstance(made, tuple) else (made,)))
        if found == result and ufunc.resolve_dtypes((*given, *[None] * ufunc.nout))[: ufunc.nin] == inner:
            inner = None
    except TypeError:  # NumPy has no such loop for the types as they are
        pass
    return Plan(inner, int(name in _OPERATIONS), int(name not in _OPERATIONS | _FREE))


def computed(
    machine: Machine, mask: Mask, ufunc: np.ufunc, values: tuple[Any, ...], outputs: tuple[Any, ...] = ()
) -> Any:
    """Return the result of a ufunc on numbers: a number, or a tuple of them."""
    key = (ufunc, *[value.dtype.num for value in values], *[array.dtype for array in outputs])
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = _plan(ufunc, values, outputs)
    if plan.inner is not None:
        values = tuple(map(arithmetic.convert, values, plan.inner))
    if ufunc is np.power and values[0].dtype.kind in "iu":
        made = arithmetic.power(*values).astype(values[0].dtype)
    else:
        made = ufunc(*values)
    machine.compute(mask, values[0].dtype, plan.operations, plan.special)
    return made


def call(ufunc: Any, machine: Machine, mask: Mask, *given: Any, out: Any = None) -> Any:
    """``ufunc(…)`` in a kernel, on numbers and arrays.

    Raises
    ------
    KernelError
        If Numba has no loop for the types, or the shapes do not fit.
    UnsupportedConstructError
        If the result would be an array that Numba must allocate.
    """
    if out is not None:
        given = (*given, *(out if isinstance(out, tuple) else (out,)))
    values, outputs = given[: ufunc.nin], given[ufunc.nin :]
    if not ufunc.nin <= len(given) <= ufunc.nargs or (outputs and len(outputs) != ufunc.nout):
        raise KernelError(
            f"np.{ufunc.__name__} takes {ufunc.nin} arguments, got {len(given)}, {source_line()}"
        )
    if not outputs:
        if any(isinstance(value, LaneArray) for value in values):
            raise refuse(
                f"np.{ufunc.__name__} of an array without an output array",
                f"np.{ufunc.__name__}(…, out), or a loop",
            )
        return computed(machine, mask, ufunc, values)
    if not all(isinstance(array, LaneArray) for array in outputs):
        raise KernelError(f"the output of np.{ufunc.__name__} must be an array, {source_line()}")
    into(machine, mask, ufunc, values, outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def into(
    machine: Machine, mask: Mask, ufunc: np.ufunc, values: tuple[Any, ...], outputs: tuple[Any, ...]
) -> None:
    """Compute a ufunc element by element, in C order, and store the results."""
    lengths = outputs[0].lengths
    values = tuple(v.broadcast(mask, outputs[0]) if isinstance(v, LaneArray) else v for v in values)
    for array in outputs[1:]:
        array.broadcast(mask, outputs[0])
    for place in np.ndindex(*(masks.most(mask, n) for n in lengths)):
        here = mask
        for i, n in zip(place, lengths, strict=True):
            here = narrow(here, i < n) if isinstance(n, np.ndarray) else here
        if here is False:
            continue
        where = tuple(map(np.int64, place))
        operands = tuple(v.load(here, where) if isinstance(v, LaneArray) else v for v in values)
        made = computed(machine, here, ufunc, operands, outputs)
        for array, value in zip(outputs, made if isinstance(made, tuple) else (made,), strict=True):
            array.store(here, where, arithmetic.convert(value, array.dtype))
