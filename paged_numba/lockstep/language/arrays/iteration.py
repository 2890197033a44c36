"""What a ``for`` loop iterates over if it is not a plain range: tuples, arrays, ``zip``, ``np.ndindex`` and others.

Each becomes `Items`: a length, by lane if it differs, and a function that returns the item of one iteration.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ....errors import KernelError
from ...machine import masks
from ...machine.arithmetic import LaneTuple, add, maximum, minimum, unify
from ...machine.lanes import source_line
from ...machine.machine import Machine
from ...machine.masks import Mask, narrow
from ...machine.memory import LaneArray
from ..intrinsic import Intrinsic
from .ranges import Range, make_range
from .views import Flat, is_contiguous, refuse


class Items(NamedTuple):
    """What a loop iterates over if it is not a range.

    An item is loaded when its iteration begins, after the stores of earlier iterations.
    """

    length: Any
    """An array by lane if it differs."""
    item: Callable[[Mask, int], Any]
    """Returns an item, loaded in the lanes of a mask."""


class Unrolled(LaneTuple):
    """The tuple of ``literal_unroll``, whose items may have different types."""

    __slots__ = ()


def items(values: Any) -> Items:
    """Return what a loop over `values` iterates over.

    Raises
    ------
    KernelError
        If `values` cannot be iterated over, or is a tuple of different types, which Numba does not compile.
    """
    if isinstance(values, Items):
        return values
    if isinstance(values, Range):
        return Items(values.length, lambda _, place: values.item(place))
    if isinstance(values, LaneArray):
        return Items(values.lengths[0], lambda mask, place: values.load(mask, np.int64(place)))
    if isinstance(values, tuple):
        if len(set(map(_kind, values))) > 1 and not isinstance(values, Unrolled):
            raise KernelError(
                "a loop needs a tuple whose items have one type: literal_unroll(…) of numba.cuda.misc.special "
                f"around the tuple runs the body for each type, {source_line()}"
            )
        return Items(len(values), lambda _, place: values[place])
    if isinstance(values, Flat):
        return Items(values.size, lambda mask, place: values.load(mask, np.int64(place)))
    raise KernelError(
        f"a loop needs range(), a tuple or an array, got {type(values).__name__}, {source_line()}"
    )


def _kind(value: Any) -> Any:
    """Return what two items of a tuple must share for Numba to give them one type."""
    if isinstance(value, LaneArray):
        layout = "C" if is_contiguous(value) else "F" if is_contiguous(value, -1) else "A"
        return value.dtype, len(value.lengths), layout, bool(value.buffer.flags.writeable)
    if isinstance(value, tuple):
        return tuple(map(_kind, value))
    return getattr(value, "dtype", type(value))


def each(machine: Machine, lanes: Callable[[], Mask], values: Any) -> Iterator[tuple[Any, Mask | None]]:
    """Iterate over a tuple, an array's first axis, or `Items`: yield each item and a mask, as `control.trips` does.

    `lanes` returns the lanes that are still in the loop.
    """
    length, item = items(values)
    for place in range(masks.most(lanes(), length)):
        inside = place < length if isinstance(length, np.ndarray) else None
        here = lanes() if inside is None else narrow(lanes(), inside)
        if here is False:
            return
        yield item(here, place), inside


def enumerate_lanes(values: Any, start: Any = None) -> Items:
    """``enumerate(values, start)``."""
    length, item = items(values)
    start = np.int64(0) if start is None else start
    return Items(
        length, lambda mask, place: LaneTuple((start.astype(np.int64) + np.int64(place), item(mask, place)))
    )


def zip_lanes(*values: Any) -> Items:
    """``zip(*values)``, as long as the shortest of them."""
    parts = [items(value) for value in values]
    length: Any = 0
    for number, part in enumerate(parts):
        length = part.length if number == 0 else np.minimum(length, part.length)
    return Items(length, lambda mask, place: LaneTuple(part.item(mask, place) for part in parts))


def unroll(values: Any) -> Unrolled:
    """``literal_unroll(values)``."""
    if not isinstance(values, tuple):
        raise KernelError(f"literal_unroll needs a tuple, {source_line()}")
    return Unrolled(values)


# NumPy's iterators.


def _box(lengths: tuple[Any, ...]) -> Items:
    """Return the indices of an array with these lengths, in C order, as tuples of int64."""
    total: Any = np.int64(1)
    for length in lengths:
        total = total * np.maximum(length, 0)

    def item(mask: Mask, place: int) -> LaneTuple:
        rest: Any = np.int64(place)
        places = []
        for length in reversed(lengths[1:]):
            inner = np.maximum(length, 1)
            places.append(rest % inner)
            rest = rest // inner
        return LaneTuple((rest, *reversed(places)) if lengths else ())

    return Items(total, item)


def ndindex(*shape: Any) -> Items:
    """``np.ndindex(shape)`` and ``np.ndindex(*shape)``."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
    return _box(tuple(n.astype(np.int64) for n in given))


def ndenumerate(array: Any) -> Items:
    """``np.ndenumerate(array)``."""
    length, index = _box(array.shape)

    def item(mask: Mask, place: int) -> LaneTuple:
        where = index(mask, place)
        return LaneTuple((where, array.load(mask, tuple(where))))

    return Items(length, item)


def is_backwards(array: LaneArray) -> bool:
    """Tell whether `nditer` takes the first axis fastest: for arrays in Fortran order."""
    return is_contiguous(array, -1) and not is_contiguous(array)


def nditer(arrays: Any) -> Items:
    """``np.nditer(array)`` and ``np.nditer((a, b))``: arrays without axes, one for each element."""
    given = arrays if isinstance(arrays, tuple) else (arrays,)
    views = [value for value in given if isinstance(value, LaneArray)]
    lengths: tuple[Any, ...] = max((value.shape for value in views), key=len, default=())
    for value in views:
        tail = value.shape[::-1]
        if any(np.any(n != m) for n, m in zip(tail, lengths[::-1], strict=False)):
            raise refuse("np.nditer over arrays of different shapes", "write a loop for each axis")
    backwards = all(map(is_backwards, views))
    length, index = _box(lengths[::-1] if backwards else lengths)

    def item(mask: Mask, place: int) -> Any:
        where = index(mask, place)
        where = where[::-1] if backwards else where
        parts = LaneTuple(
            value.view(mask, where[len(where) - len(value.lengths) :])
            if isinstance(value, LaneArray)
            else value
            for value in given
        )
        return parts if isinstance(arrays, tuple) else parts[0]

    return Items(length, item)


# Builtins that go through an iterable.


def each_item(mask: Mask, values: Any) -> Iterator[tuple[Mask, Any]]:
    """Yield each item, and the lanes that have it."""
    length, item = items(values)
    for place in range(masks.most(mask, length)):
        here = narrow(mask, place < length) if isinstance(length, np.ndarray) else mask
        if here is False:
            return
        yield here, item(here, place)


def total(machine: Machine, mask: Mask, values: Any, start: Any = None) -> Any:
    """``sum(values, start)``, which starts at an integer 0."""
    result: Any = np.int64(0) if start is None else start
    if type(values) in (tuple, LaneTuple):
        for value in values:
            result = add(result, value)
            machine.compute(mask, result.dtype, 1, 0)
        return result
    for here, value in each_item(mask, values):
        old, new = unify((result, add(result, value)))
        result = new if here is mask else np.where(here, new, old)
        machine.compute(here, result.dtype, 1, 0)
    return result


def extreme(
    of_numbers: Callable[..., Any],
    better: Callable[[Any, Any], Any],
    machine: Machine,
    mask: Mask,
    *values: Any,
) -> Any:
    """``min(…)`` and ``max(…)`` of numbers, of a tuple, or of what a loop can iterate over."""
    if len(values) > 1:
        return of_numbers(*values)
    given = values[0] if values else ()
    if isinstance(given, tuple) and not isinstance(given, (Items, Range)) and given:
        return of_numbers(*given) if len(given) > 1 else given[0]
    if isinstance(given, (np.generic, np.ndarray)):
        raise KernelError(f"min and max take a tuple, an array or at least two numbers, {source_line()}")
    result: Any = None
    for here, value in each_item(mask, given):
        if result is None:
            if here is not mask:
                raise KernelError(f"min and max need at least one item, {source_line()}")
            result = value
            continue
        improved = better(value, result)
        result = np.where(improved if here is True else improved & here, value, result)[()]
    if result is None:
        raise KernelError(f"min and max take numbers, or at least one item, {source_line()}")
    return result


def length_of(values: Any) -> Any:
    """``len(values)``, int64."""
    if isinstance(values, (LaneArray, Range, Flat)):
        length = items(values).length
        return length if isinstance(length, np.ndarray) else np.int64(length)
    if isinstance(values, (tuple, str, bytes)) and not isinstance(values, Items):
        return np.int64(len(values))
    raise KernelError(f"len() needs a tuple, an array or a range, {source_line()}")


BUILTINS: list[tuple[Any, Intrinsic]] = [
    (enumerate, Intrinsic(enumerate_lanes)),
    (len, Intrinsic(length_of)),
    (max, Intrinsic(partial(extreme, maximum, operator.gt), masked=True)),
    (min, Intrinsic(partial(extreme, minimum, operator.lt), masked=True)),
    (range, Intrinsic(make_range)),
    (slice, Intrinsic(slice)),
    (sum, Intrinsic(total, masked=True)),
    (zip, Intrinsic(zip_lanes)),
]
"""Builtins of Python, with what a kernel calls."""
