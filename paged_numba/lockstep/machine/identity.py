"""`IdentityMap`: a table keyed by objects themselves, whether or not they can be hashed or compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class IdentityMap(Generic[Value]):
    """A table whose keys are objects, not their values.

    The table keeps its keys alive: Python may give the id of a deleted object to a new one.

    Parameters
    ----------
    items : iterable of (object, value)
    """

    def __init__(self, items: Iterable[tuple[Any, Value]] = ()) -> None:
        self._items: dict[int, tuple[Any, Value]] = {}
        for key, value in items:
            self.setdefault(key, value)

    def get(self, key: Any) -> Value | None:
        """Return the value of an object, or None if it is not in the table."""
        found = self._items.get(id(key))
        return None if found is None else found[1]

    def setdefault(self, key: Any, value: Value) -> Value:
        """Return the value of an object, after adding it with `value` if the table lacks it."""
        return self._items.setdefault(id(key), (key, value))[1]
