"""``range``: its bounds in the type that Numba gives its index, and a range as a value."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ....errors import KernelError
from ...machine.arithmetic import convert
from ...machine.lanes import source_line
from ..signatures import Scalar, Signature, choose

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


class Range(NamedTuple):
    """``range(start, stop, step)`` as a value; the bounds have one type."""

    start: Any
    stop: Any
    step: Any

    @property
    def length(self) -> Any:
        """Number of items, int64."""
        if np.any(self.step == 0):
            raise KernelError(f"range() needs a step that is not zero, {source_line()}")
        start, stop, step = (bound.astype(np.int64) for bound in self)
        return np.maximum(np.int64(0), -((start - stop) // step))

    def item(self, place: Any) -> Any:
        """Return the item at a place."""
        made = self.start.astype(np.int64) + place * self.step.astype(np.int64)
        return made.astype(self.start.dtype)

    def holds(self, value: Any) -> Any:
        """``value in range(…)``."""
        start, stop, step = (bound.astype(np.int64) for bound in self)
        within = np.where(step > 0, (start <= value) & (value < stop), (stop < value) & (value <= start))
        return (within & ((value - start) % step == 0))[()]


def make_range(*bounds: Any) -> Range:
    """``range(…)`` outside the head of a loop."""
    return Range(*range_bounds(bounds))
