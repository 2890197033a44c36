"""Checks of single arguments. Each returns the argument, or raises an error that names it."""

from __future__ import annotations

import numbers
import operator
from typing import Any, SupportsIndex

import numpy as np


def integer(name: str, value: SupportsIndex) -> int:
    """Return an integer as an int; reject a bool."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {name}={value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {name}={value!r}") from None


def positive(name: str, value: SupportsIndex) -> int:
    """Return an integer as an int; require it to be 1 or more."""
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be positive, got {name}={number}")
    return number


def not_negative(name: str, value: SupportsIndex) -> int:
    """Return an integer as an int; require it to be 0 or more."""
    number = integer(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {name}={number}")
    return number


def is_number(value: Any) -> bool:
    """Tell whether a value is a real number; a bool does not count as one."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.timedelta64))


def fraction(name: str, value: Any) -> float:
    """Return a number in 0 .. 1 as a float."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {name}={value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in 0 .. 1, got {name}={value}")
    return float(value)


def truth(name: str, value: Any) -> bool:
    """Return True or False as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {name}={value!r}")
    return bool(value)


def hashable(name: str, value: Any) -> Any:
    """Return the value if it can be a dictionary key."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"{name} must be hashable, got {name}={value!r}") from None
    return value
