"""Members of an ``enum``, as Numba's CUDA target knows them.

A member of an ``IntEnum`` is an int64. A member of any other enum has a value, and compares with members of the same
enum only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from ...machine.arithmetic import select


class IntMember(np.int64):
    """A member of an ``IntEnum``: an int64 that knows its enum."""

    __lane_attributes__ = ("value",)
    kind: Any

    @property
    def value(self) -> Any:
        """The member as a plain number."""
        return np.int64(self)


class Member:
    """A member of an enum, or of several members of the same enum one for each lane.

    Parameters
    ----------
    kind : type
        The enum.
    value : lane value
        The value of the member.
    """

    __slots__ = ("kind", "value")
    __array_ufunc__ = None
    __lane_attributes__ = ("value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, kind: Any, value: Any) -> None:
        self.kind = kind
        self.value = value

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, Member) or other.kind is not self.kind:
            raise TypeError(f"a member of {self.kind.__name__} compares only with members of it")
        return self.value == other.value

    def __ne__(self, other: object) -> Any:
        return np.logical_not(self == other)

    def _no_order(self, other: object) -> Any:
        raise TypeError(f"members of {self.kind.__name__} have no order")

    __lt__ = __le__ = __gt__ = __ge__ = _no_order

    def where(self, condition: Any, other: Any) -> Member:
        """Return this member where `condition` holds, and `other` elsewhere."""
        if not isinstance(other, Member) or other.kind is not self.kind:
            raise TypeError(f"a variable must hold members of {self.kind.__name__} in all threads or in none")
        return Member(self.kind, select(condition, self.value, other.value))


def member(value: enum.Enum, typed: Callable[[Any], Any]) -> Any:
    """Return the lane value of a member of an enum; `typed` makes that of its value."""
    if isinstance(value, int) and not isinstance(value, enum.IntEnum):
        return typed(int(value))
    if isinstance(value, enum.IntEnum):
        made = IntMember(int(value))
        made.kind = type(value)
        return made
    return Member(type(value), typed(value.value))
