"""Assignment, short circuits and loops under a mask; `NAMES` holds all functions that lane programs call by name.

A lane program changes its mask explicitly (see `compiler`); the functions here run a single expression or statement
under a mask. ``blend(mask, new, old)`` is an assignment, ``trips`` yields the iterations of a ``for`` loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...errors import KernelError
from ..machine import arithmetic, masks
from ..machine.arithmetic import LaneTuple, convert, truth, tuple_like, unify
from ..machine.lanes import source_line
from ..machine.machine import Machine
from ..machine.masks import Mask, minus, narrow, split
from ..machine.memory import LaneArray
from .access import attribute, equal_texts, load, same, set_attribute, store
from .intrinsics import floordiv, mod, raise_in_kernel
from .signatures import Scalar, Signature, choose
from .types.enums import Member
from .types.function_values import FunctionValue


class Unset:
    """The value of a variable before its first assignment; any use of it raises KernelError."""

    __array_ufunc__ = None

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def _refuse(self, *_: Any) -> Any:
        raise KernelError(f"{self.__dict__['_name']!r} is read before it is assigned, {source_line()}")

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __getattr__ = _refuse
    __hash__ = None  # type: ignore[assignment]


UNSET = Unset("return value")


def assigned(machine: Machine, mask: Mask, lanes: Mask, value: Any, name: str) -> Any:
    """Return the value of the variable `name`, which `lanes` have assigned.

    Raises
    ------
    KernelError
        An active lane has not assigned it.
    """
    if lanes is not True and lanes is not mask:
        missing = minus(mask, lanes)
        if missing is not False:
            what = f"{name!r} is read before it is assigned"
            if lanes is False:  # there is no value with which a sanitized launch could continue
                raise KernelError(f"{what}, {machine.whereabouts(machine.first_lane(missing))}")
            machine.misses(missing, "unassigned variable", what, name)
    return value


class Partial:
    """The result of a device function that returned a value in some lanes only.

    Parameters
    ----------
    value : value
        The value, in the lanes that returned one.
    missing : mask
        The lanes that did not.
    name : str
        The function.
    """

    def __init__(self, value: Any, missing: Mask, name: str) -> None:
        self.value = value
        self.missing = missing
        self.name = name


def partly(mask: Mask, lanes: Mask, value: Any, name: str) -> Any:
    """Return the result of a device function that was called in `mask` and returned a value in `lanes`."""
    if lanes is False:
        return None
    missing = minus(mask, lanes)
    return value if missing is False else Partial(value, missing, name)


def returned(machine: Machine, result: Any) -> Any:
    """Return the result of a device function, which the caller uses.

    Raises
    ------
    KernelError
        The function returned a value in some lanes only.
    """
    if type(result) is not Partial:
        return result
    what = f"the device function {result.name!r} returns a value in other threads but not in this one"
    machine.misses(result.missing, "missing result", what, "")
    return result.value


def blend(mask: Mask, new: Any, old: Any) -> Any:
    """Return `new` in the active lanes and `old` in the others."""
    if mask is True or new is old or isinstance(old, Unset):
        return new
    if isinstance(new, tuple):
        if not isinstance(old, tuple) or len(new) != len(old):
            raise KernelError(f"a variable must hold tuples of one length in all threads, {source_line()}")
        return tuple_like([blend(mask, n, o) for n, o in zip(new, old, strict=True)], new)
    if isinstance(new, LaneArray):
        return _blend_views(mask, new, old)
    if new is None or isinstance(new, (str, bool, Member, FunctionValue, np.dtype)) or old is None:
        if isinstance(new, Member):
            return new.where(mask, old)
        if new == old:
            return new
        if isinstance(new, FunctionValue):
            return new.blend(mask, old)
        if isinstance(new, np.dtype):
            raise KernelError(f"a variable must hold one dtype in all threads, {source_line()}")
        raise KernelError(f"a variable must be None in all threads or in none, {source_line()}")
    return np.where(mask, new, old)


def _blend_views(mask: Mask, new: LaneArray, old: Any) -> LaneArray:
    same = isinstance(old, LaneArray) and old.buffer is new.buffer and old.strides == new.strides
    if not same:
        raise KernelError(f"a variable must hold the same array in all threads, {source_line()}")
    shape = tuple(
        n if n is o or (np.ndim(n) == 0 and np.ndim(o) == 0 and n == o) else np.where(mask, n, o)
        for n, o in zip(new.lengths, old.lengths, strict=True)
    )
    return new.like(np.where(mask, new.offset, old.offset), shape, new.strides, None)


def keep(mask: Mask, home: Mask, new: Any, old: Any) -> Any:
    """Return the value of an assignment expression, `new` in the active lanes and `old` in the others."""
    return new if mask is home else blend(mask, new, old)


def unpack(mask: Mask, value: Any, count: int) -> tuple[Any, ...]:
    """Return the `count` parts of a tuple or of an array's first axis."""
    if isinstance(value, LaneArray):
        length = masks.common(mask, value.lengths[0])
        if length is None:
            raise KernelError(
                f"{value.name} must have one length in all threads to be unpacked, {source_line()}"
            )
        value = tuple(value.load(mask, np.int64(i)) for i in range(int(length)))
    if not isinstance(value, tuple) or len(value) != count:
        got = len(value) if isinstance(value, tuple) else type(value).__name__
        raise KernelError(f"{count} names need {count} values to unpack, got {got}, {source_line()}")
    return value


# Short circuits: later operands are functions of the mask of the lanes that evaluate them.


def _merged(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(a, tuple):
        return tuple_like([_merged(condition, x, y) for x, y in zip(a, b, strict=True)], a)
    if isinstance(a, (LaneArray, Member, FunctionValue)):
        return blend(condition, a, b)
    return np.where(condition, *unify((a, b)))


def logical_and(mask: Mask, left: Any, right: Callable[[Mask], Any]) -> Any:
    """``left and right``."""
    holds, _ = split(mask, left)
    if holds is False:
        return left
    value = right(holds)
    return value if holds is mask else _merged(truth(left), value, left)


def logical_or(mask: Mask, left: Any, right: Callable[[Mask], Any]) -> Any:
    """``left or right``."""
    _, fails = split(mask, left)
    if fails is False:
        return left
    value = right(fails)
    return value if fails is mask else _merged(truth(left), left, value)


def conditional(
    mask: Mask, condition: Any, body: Callable[[Mask], Any], orelse: Callable[[Mask], Any]
) -> Any:
    """``body if condition else orelse``."""
    then, otherwise = split(mask, condition)
    if otherwise is False:
        return body(then)
    if then is False:
        return orelse(otherwise)
    return _merged(truth(condition), body(then), orelse(otherwise))


# Loops.


def trips(mask: Mask, *bounds: Any) -> Iterator[tuple[Any, Mask | None]]:
    """Iterate over ``range(*bounds)``: yield the index and, once some lanes are done, the mask of the others."""
    start, stop, step = range_bounds(bounds)
    index = start.dtype.type
    if not any(isinstance(bound, np.ndarray) for bound in (start, stop, step)):
        if step == 0:
            raise KernelError(f"range() needs a step that is not zero, {source_line()}")
        for i in range(int(start), int(stop), int(step)):
            yield index(i), None
        return
    if np.any((step == 0) & mask):
        raise KernelError(f"range() needs a step that is not zero, {source_line()}")
    wide = [bound.astype(np.int64) for bound in (start, stop, step)]
    count = np.maximum(0, -((wide[0] - wide[1]) // wide[2]))
    active = count if mask is True else np.where(mask, count, 0)
    least = int(count.min() if mask is True else np.where(mask, count, count.max()).min())
    for k in range(int(active.max())):
        i = (wide[0] + k * wide[2]).astype(index)
        yield i, None if k < least else count > k


_RANGE_TYPES = tuple(map(np.dtype, (np.int32, np.int64, np.uint64)))


@lru_cache(maxsize=256)
def _range_type(*dtypes: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the type of ``range`` for arguments of these types, or None if it takes no such arguments.

    It is the type whose signature fits best, and the first of them if several fit equally well.
    """
    candidates = {Signature((Scalar(wanted),) * len(dtypes)): wanted for wanted in _RANGE_TYPES}
    found = choose(list(candidates), tuple(map(Scalar, dtypes)))
    return candidates[found[0]] if found else None


def range_bounds(bounds: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Return start, stop and step of ``range(*bounds)`` in the type that Numba gives its index."""
    dtype = _range_type(*[bound.dtype for bound in bounds])
    if dtype is None:
        given = ", ".join(str(bound.dtype) for bound in bounds)
        raise KernelError(f"range() needs real numbers, got {given}, {source_line()}")
    one, zero = dtype.type(1), dtype.type(0)
    typed = [bound if bound.dtype is dtype else convert(bound, dtype) for bound in bounds]
    if len(typed) == 1:
        return zero, typed[0], one
    # If every lane starts at the same value, keep the index a scalar.
    start = uniform(typed[0])
    return start, typed[1], typed[2] if len(typed) == 3 else one


def uniform(value: Any) -> Any:
    """Return the common element of an array whose elements are all equal, else `value` itself."""
    if isinstance(value, np.ndarray) and value.size and value.min() == value.max():
        return value.flat[0]
    return value


class Items(NamedTuple):
    """What a loop iterates over if it is not a range.

    An item is loaded when its iteration begins, after the stores of earlier iterations.
    """

    length: Any
    """An array by lane if it differs."""
    item: Callable[[Mask, int], Any]
    """Returns an item, loaded in the lanes of a mask."""


def _items(values: Any) -> Items:
    if isinstance(values, Items):
        return values
    if isinstance(values, LaneArray):
        return Items(values.lengths[0], lambda mask, place: values.load(mask, np.int64(place)))
    if isinstance(values, tuple):
        return Items(len(values), lambda _, place: values[place])
    raise KernelError(
        f"a loop needs range(), a tuple or an array, got {type(values).__name__}, {source_line()}"
    )


def each(machine: Machine, lanes: Callable[[], Mask], values: Any) -> Iterator[tuple[Any, Mask | None]]:
    """Iterate over a tuple, an array's first axis, or `Items`: yield each item and a mask, as `trips` does.

    `lanes` returns the lanes that are still in the loop.
    """
    length, item = _items(values)
    for place in range(masks.most(lanes(), length)):
        inside = place < length if isinstance(length, np.ndarray) else None
        here = lanes() if inside is None else narrow(lanes(), inside)
        if here is False:
            return
        yield item(here, place), inside


def enumerate_lanes(values: Any, start: Any = None) -> Items:
    """``enumerate(values, start)``."""
    length, item = _items(values)
    start = np.int64(0) if start is None else start
    return Items(length, lambda mask, place: (start.astype(np.int64) + np.int64(place), item(mask, place)))


def zip_lanes(*values: Any) -> Items:
    """``zip(*values)``, as long as the shortest of them."""
    parts = [_items(value) for value in values]
    length: Any = 0
    for number, part in enumerate(parts):
        length = part.length if number == 0 else np.minimum(length, part.length)
    return Items(length, lambda mask, place: tuple(part.item(mask, place) for part in parts))


NAMES: dict[str, Any] = {
    **{
        name: getattr(arithmetic, name)
        for name in (
            "add sub mul truediv power power_literal bit_and bit_or bit_xor lshift rshift "
            "positive negative invert logical_not contains"
        ).split()
    },
    "LaneTuple": LaneTuple,
    "equal_texts": equal_texts,
    "same": same,
    "join": masks.join,
    "union": masks.union,
    **{
        function.__name__: function
        for function in (
            assigned,
            attribute,
            blend,
            conditional,
            each,
            enumerate_lanes,
            floordiv,
            keep,
            load,
            logical_and,
            logical_or,
            minus,
            mod,
            narrow,
            partly,
            raise_in_kernel,
            returned,
            set_attribute,
            split,
            store,
            trips,
            unpack,
            zip_lanes,
        )
    },
    "UNSET": UNSET,
    "Unset": Unset,
}
"""The globals of every lane program."""
