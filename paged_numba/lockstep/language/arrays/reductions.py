"""Reductions of an array to one number in each lane: ``sum``, ``min``, ``argmax``, ``np.nanmean`` and others.

They run the loops that Numba compiles: one element after the other in the order of `nditer`, in the same types. A lane
that has found its result, such as the first NaN of ``min``, loads no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ....errors import KernelError
from ...machine import arithmetic, masks
from ...machine.arithmetic import truth
from ...machine.lanes import source_line
from ...machine.local_memory import LocalArray
from ...machine.machine import Machine
from ...machine.masks import Mask, minus, narrow
from ...machine.memory import LaneArray
from .iteration import each_item, is_backwards, ndenumerate, nditer
from .views import refuse

MOST_GATHERED = 1 << 20
"""Most values, over all lanes and elements, that are loaded at once."""


def check(name: str, array: Any, axis: Any = None) -> LaneArray:
    """Return an array of numbers that a function of NumPy got."""
    if not isinstance(array, LaneArray):
        raise KernelError(f"{name} needs an array, {source_line()}")
    if axis is not None:
        raise refuse(f"{name} along an axis, which makes an array", "write loops")
    if array.dtype.kind not in "biufc":
        raise KernelError(
            f"{name} needs numbers, got {array.name}, which holds {array.dtype}, {source_line()}"
        )
    return array


def _loaded(mask: Mask, array: LaneArray) -> Iterator[tuple[Mask, Any]]:
    """Yield each element in the order of `nditer`, and the lanes that have loaded it."""
    for here, element in each_item(mask, nditer(array)):
        yield here, element.load(here, ())


def _gathered(array: LaneArray) -> Any:
    """Return all elements along a first axis, in the order of `nditer`; None if they are loaded one by one."""
    if type(array) not in (LaneArray, LocalArray) or any(isinstance(n, np.ndarray) for n in array.lengths):
        return None
    size = int(array.size)
    if size < 2 or size * np.size(array.offset) > MOST_GATHERED:
        return None
    if isinstance(array, LocalArray):
        array.settle()
    steps: Any = np.zeros((), np.int64)
    order = -1 if is_backwards(array) else 1
    for n, stride in zip(array.lengths[::order], array.strides[::order], strict=True):
        steps = steps[..., None] + np.arange(n, dtype=np.int64) * stride
    return array.buffer[steps.reshape(-1, 1, 1) + array.offset]


def _kept(here: Mask, mask: Mask, new: Any, old: Any) -> Any:
    return new if here is mask else np.where(here, new, old)


Operator = Callable[[Any, Any], Any]


def _fold(
    machine: Machine,
    mask: Mask,
    array: LaneArray,
    start: Any,
    term: Callable[[Any], Any] = lambda value: value,
    operator: Operator = arithmetic.add,
    dtype: np.dtype[Any] | None = None,
) -> Any:
    """Return ``start + term(a) + term(b) + …``, added in this order, or multiplied; `dtype` is that of the sums."""
    result = operator(start, term(array.dtype.type(1))).dtype
    dtype = dtype or result
    total = start.astype(dtype)
    values = _gathered(array) if dtype == result else None
    if values is not None:
        terms = term(values)
        ufunc = np.add if operator is arithmetic.add else np.multiply
        chain = np.empty((len(terms) + 1, *terms.shape[1:]), dtype)
        chain[0], chain[1:] = total, terms
        # Along the first axis NumPy adds row by row, but it would add a single column in pairs.
        if chain[0].size > 1:
            return ufunc.reduce(chain, axis=0, dtype=dtype)
        return ufunc.accumulate(chain, axis=0, dtype=dtype)[-1, 0, 0]
    operations = (1 if operator is arithmetic.add else 3) if dtype.kind == "c" else 1
    for here, value in _loaded(mask, array):
        total = _kept(here, mask, operator(total, term(value)).astype(dtype), total)
        machine.compute(here, dtype, 2 * operations if dtype.kind == "c" else 1, 0)
    return total


def added(machine: Machine, mask: Mask, array: Any, start: Any) -> Any:
    """Return ``start + a + b + …`` over the elements, in the type of these sums."""
    return _fold(machine, mask, check("sum", array), start)


def _sum(machine: Machine, mask: Mask, array: Any, axis: Any = None, dtype: Any = None) -> Any:
    array = check("sum", array, axis)
    kind = array.dtype.kind
    wanted = dtype or np.dtype({"b": "i8", "i": "i8", "u": "u8"}.get(kind, array.dtype))
    return _fold(machine, mask, array, wanted.type(0), dtype=wanted)


def _prod(machine: Machine, mask: Mask, array: Any) -> Any:
    array = check("prod", array)
    return _fold(machine, mask, array, array.dtype.type(1), operator=arithmetic.mul)


def _mean(machine: Machine, mask: Mask, array: Any) -> Any:
    array = check("mean", array)
    start = np.float64(0) if array.dtype.kind in "biu" else array.dtype.type(0)
    total = _fold(machine, mask, array, start)
    return _divided(machine, mask, total, array.size)


def _divided(machine: Machine, mask: Mask, total: Any, count: Any) -> Any:
    result = arithmetic.truediv(total, count)
    machine.compute(mask, result.dtype, 0, 1)
    return result


def _squares(mean: Any) -> Callable[[Any], Any]:
    """Return the square of the distance from the mean, as ``np.real(d * np.conj(d))``."""

    def square(value: Any) -> Any:
        difference = arithmetic.sub(value, mean)
        return np.real(difference * np.conj(difference))

    return square


def _var(machine: Machine, mask: Mask, array: Any) -> Any:
    array = check("var", array)
    total = _fold(machine, mask, array, np.int64(0), _squares(_mean(machine, mask, array)))
    return _divided(machine, mask, total, array.size)


def _root(variance: Callable[..., Any], machine: Machine, mask: Mask, array: Any) -> Any:
    return arithmetic.power(variance(machine, mask, array), np.float64(0.5))


def _any(machine: Machine, mask: Mask, array: Any) -> Any:
    return _first(mask, check("any", array), truth)


def _all(machine: Machine, mask: Mask, array: Any) -> Any:
    return ~_first(mask, check("all", array), arithmetic.logical_not)


def has_element(mask: Mask, array: LaneArray, item: Any) -> Any:
    """``item in array``."""
    return _first(mask, check("in", array), lambda value: value == item)


def _first(mask: Mask, array: LaneArray, test: Callable[[Any], Any]) -> Any:
    """Tell whether an element passes a test; lanes that have found one load no more."""
    values = _gathered(array)
    if values is not None:
        return np.logical_or.reduce(test(values), axis=0)[()] if values.ndim else values
    found: Any = np.bool_(False)
    length, item = nditer(array)
    left = mask
    for place in range(masks.most(mask, length)):
        here = narrow(left, place < length)
        if here is False:
            break
        passed = test(item(here, place).load(here, ()))
        found = _kept(here, mask, found | passed, found)
        left = minus(left, narrow(here, passed))
        if left is False:
            break
    return found


def _count_nonzero(machine: Machine, mask: Mask, array: Any, axis: Any = None) -> Any:
    array = check("count_nonzero", array, axis)
    return _fold(machine, mask, array, np.int64(0), lambda value: (value != 0).astype(np.int64))


# The least and the greatest element.


def _less(a: Any, b: Any) -> Any:
    if np.dtype(a.dtype).kind == "c":
        return (a.real < b.real) | ((a.real == b.real) & (a.imag < b.imag))
    return a < b


def _greater(a: Any, b: Any) -> Any:
    return _less(b, a)


def _require_elements(mask: Mask, array: LaneArray, name: str) -> None:
    empty = narrow(mask, array.size == 0)
    if empty is not False:
        machine = array.machine
        raise KernelError(
            f"{name} needs an array that is not empty, got {array.name}, "
            f"{machine.whereabouts(machine.first_lane(empty))}"
        )


def _search(mask: Mask, array: LaneArray, name: str, better: Operator, flat: bool) -> tuple[Any, Any]:
    """Return the best element and its place; of a floating-point array the first NaN, where the search ends."""
    _require_elements(mask, array, name)
    length, item = ndenumerate(array) if flat else nditer(array)
    best: Any = None
    found: Any = None
    left = mask
    for place in range(masks.most(mask, length)):
        here = narrow(left, place < length)
        if here is False:
            break
        value = item(here, place)[1] if flat else item(here, place).load(here, ())
        if best is None:
            best, found = value, np.int64(0)
        else:
            improved = better(value, best)
            if array.dtype.kind == "f":
                improved = improved | np.isnan(value)
            improved = improved if here is True else improved & here
            best, found = np.where(improved, value, best), np.where(improved, np.int64(place), found)
        if array.dtype.kind == "f":
            left = minus(left, narrow(here, np.isnan(value)))
            if left is False:
                break
    return best[()], found[()]


def _extreme(name: str, better: Operator, machine: Machine, mask: Mask, array: Any, axis: Any = None) -> Any:
    return _search(mask, check(name, array, axis), name, better, False)[0]


def _place(name: str, better: Operator, machine: Machine, mask: Mask, array: Any, axis: Any = None) -> Any:
    array = check(name, array, axis)
    if array.dtype.kind == "c":
        raise KernelError(f"{name} needs real numbers, got {array.dtype}, {source_line()}")
    return _search(mask, array, name, better, True)[1]


def _ptp(machine: Machine, mask: Mask, array: Any) -> Any:
    array = check("ptp", array)
    greatest = _search(mask, array, "ptp", _greater, False)[0]
    return arithmetic.sub(greatest, _search(mask, array, "ptp", _less, False)[0])


# Reductions that leave out NaN.


def _isnan(value: Any) -> Any:
    return np.isnan(value) if value.dtype.kind in "fc" else np.zeros_like(value, bool)[()]


def _nan_extreme(name: str, better: Operator, machine: Machine, mask: Mask, array: Any) -> Any:
    array = check(name, array)
    _require_elements(mask, array, name)
    best: Any = None
    for here, value in _loaded(mask, array):
        if best is None:
            best = value
            continue
        if array.dtype.kind == "c":
            best_is_nan, is_nan = np.isnan(best.real), np.isnan(value.real)
            improved = (best_is_nan & ~is_nan) | better(value, best)
        else:
            improved = ~_isnan(value) & ~better(best, value)
        best = np.where(improved if here is True else improved & here, value, best)
    return best[()]


def _nansum(machine: Machine, mask: Mask, array: Any) -> Any:
    return _nan_fold(machine, mask, check("nansum", array), 0, arithmetic.add)


def _nanprod(machine: Machine, mask: Mask, array: Any) -> Any:
    return _nan_fold(machine, mask, check("nanprod", array), 1, arithmetic.mul)


def _nan_fold(machine: Machine, mask: Mask, array: LaneArray, start: int, operator: Operator) -> Any:
    wanted = np.dtype(np.int64) if array.dtype.kind in "iu" else array.dtype
    neutral = array.dtype.type(start)
    return _fold(
        machine, mask, array, wanted.type(start), lambda v: np.where(_isnan(v), neutral, v)[()], operator
    )


def _nanmean(
    machine: Machine, mask: Mask, array: Any, term: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Return the mean of ``term(v)`` over the elements v that are not NaN; of no elements it is NaN."""
    array = check("nanmean", array)
    total: Any = np.float64(0)
    count: Any = np.int64(0)
    for here, value in _loaded(mask, array):
        counts = ~_isnan(value) if here is mask else ~_isnan(value) & here
        added = arithmetic.add(total, term(value))
        total, count = np.where(counts, added, total)[()], count + counts
        machine.compute(here, total.dtype, 2 if total.dtype.kind == "c" else 1, 0)
    return _divided(machine, mask, total, count)


def _nanvar(machine: Machine, mask: Mask, array: Any) -> Any:
    array = check("nanvar", array)
    return _nanmean(machine, mask, array, _squares(_nanmean(machine, mask, array)))


METHODS: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "prod": _prod,
    "mean": _mean,
    "var": _var,
    "std": partial(_root, _var),
    "any": _any,
    "all": _all,
    "min": partial(_extreme, "min", _less),
    "max": partial(_extreme, "max", _greater),
    "argmin": partial(_place, "argmin", _less),
    "argmax": partial(_place, "argmax", _greater),
}
"""Methods of arrays, which are functions of NumPy too: ``method(machine, mask, array, ...)``."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **METHODS,
    "amin": METHODS["min"],
    "amax": METHODS["max"],
    "count_nonzero": _count_nonzero,
    "ptp": _ptp,
    "nansum": _nansum,
    "nanprod": _nanprod,
    "nanmean": _nanmean,
    "nanvar": _nanvar,
    "nanstd": partial(_root, _nanvar),
    "nanmin": partial(_nan_extreme, "nanmin", _less),
    "nanmax": partial(_nan_extreme, "nanmax", _greater),
}
"""Functions of NumPy: ``function(machine, mask, array, ...)``."""
