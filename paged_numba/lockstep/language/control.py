"""Assignment, short circuits and loops under a mask; `NAMES` holds all functions that lane programs call by name.

A lane program changes its mask explicitly (see `compiler`); the functions here run a single expression or statement
under a mask. ``blend(mask, new, old)`` is an assignment, `Trips` yields the iterations of a ``for`` loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...errors import KernelError
from ..machine import arithmetic, masks
from ..machine.arithmetic import LaneTuple, truth, tuple_like, unify, where
from ..machine.lanes import source_line
from ..machine.machine import Machine
from ..machine.masks import Mask, minus, narrow, split
from ..machine.memory import LaneArray
from .access import attribute, equal_texts, load, same, set_attribute, store
from .arrays.iteration import Items, each
from .arrays.ranges import Range, range_bounds
from .arrays.reductions import has_element
from .intrinsics import floordiv, mod, nonzero, raise_in_kernel
from .types.enums import Member
from .types.function_values import FunctionValue
from .types.instances import is_instance


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
        if isinstance(new, Items):
            raise KernelError(f"a variable must hold the same iterator in all threads, {source_line()}")
        if not isinstance(old, tuple):
            raise KernelError(
                f"a variable must hold a tuple in all threads or in none: use two variables, {source_line()}"
            )
        if len(new) != len(old):
            raise KernelError(
                f"a variable must hold tuples of one length in all threads: use two variables, {source_line()}"
            )
        return tuple_like([blend(mask, n, o) for n, o in zip(new, old, strict=True)], new)
    if isinstance(new, LaneArray):
        return _blend_views(mask, new, old)
    if new is None or isinstance(new, (str, bool, Member, FunctionValue, np.dtype)) or old is None:
        if isinstance(new, Member):
            return new.where(mask, old)
        if isinstance(new, FunctionValue):
            return new if new == old else new.blend(mask, old)
        if new is None or old is None:
            raise KernelError(
                f"a variable must be None in all threads or in none: use two variables, {source_line()}"
            )
        if type(new) is type(old) and new == old:
            return new
        kind = "dtype" if isinstance(new, np.dtype) else "text" if isinstance(new, str) else "value"
        raise KernelError(f"a variable must hold one {kind} in all threads, {source_line()}")
    return where(mask, new, old)


def _blend_views(mask: Mask, new: LaneArray, old: Any) -> LaneArray:
    if not isinstance(old, LaneArray):
        new.__array__()
    same = old.buffer is new.buffer and old.strides == new.strides
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
    return where(condition, *unify((a, b)))


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


def contains(mask: Mask, item: Any, values: Any) -> Any:
    """``item in values``, for a tuple, an array or a range."""
    if isinstance(values, LaneArray):
        return has_element(mask, values, item)
    if isinstance(values, Range):
        return values.holds(item)
    return arithmetic.contains(item, values)


# Loops.


class Trips:
    """The iterations of ``range(*bounds)``.

    Iterating yields the index and, once some lanes are done, the mask of the others.
    """

    __slots__ = ("count", "index", "least", "start", "step", "uniform")

    def __init__(self, mask: Mask, *bounds: Any) -> None:
        start, stop, step = range_bounds(bounds)
        self.index = start.dtype.type
        self.uniform = None
        if not any(isinstance(bound, np.ndarray) for bound in (start, stop, step)):
            if step == 0:
                raise KernelError(f"range() needs a step that is not zero, {source_line()}")
            self.uniform = range(int(start), int(stop), int(step))
            return
        if np.any((step == 0) & mask):
            raise KernelError(f"range() needs a step that is not zero, {source_line()}")
        self.start, stop, self.step = (bound.astype(np.int64) for bound in (start, stop, step))
        count = np.maximum(0, -((self.start - stop) // self.step))
        self.count = count if mask is True else np.where(mask, count, 0)
        self.least = int((count if mask is True else np.where(mask, count, count.max())).min())

    def __iter__(self) -> Iterator[tuple[Any, Mask | None]]:
        index = self.index
        if self.uniform is not None:
            for i in self.uniform:
                yield index(i), None
            return
        for k in range(int(self.count.max())):
            i = (self.start + k * self.step).astype(index)
            yield i, None if k < self.least else self.count > k

    def gather(self, take: Callable[[Any], Any]) -> None:
        """Leave out lanes: `take` returns a value in those that are left, which all go on."""
        if self.uniform is None:
            self.start, self.step, self.count = map(take, (self.start, self.step, self.count))
            self.least = int(self.count.min())


NAMES: dict[str, Any] = {
    **{
        name: getattr(arithmetic, name)
        for name in (
            "add sub mul truediv power power_literal bit_and bit_or bit_xor lshift rshift "
            "positive negative invert logical_not"
        ).split()
    },
    "LaneTuple": LaneTuple,
    "equal_texts": equal_texts,
    "same": same,
    "is_instance": is_instance,
    "join": masks.join,
    "union": masks.union,
    **{
        function.__name__: function
        for function in (
            assigned,
            attribute,
            blend,
            conditional,
            contains,
            each,
            floordiv,
            keep,
            load,
            logical_and,
            logical_or,
            minus,
            mod,
            narrow,
            nonzero,
            partly,
            raise_in_kernel,
            returned,
            set_attribute,
            split,
            store,
            unpack,
            Trips,
        )
    },
    "UNSET": UNSET,
    "Unset": Unset,
}
"""The globals of every lane program."""
