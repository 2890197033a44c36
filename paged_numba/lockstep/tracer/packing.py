"""Values of lanes as JSON, in few characters: equal values once, evenly spaced integers by start and step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_LARGEST = 2**53
"""JavaScript reads larger integers inexactly: they are written as text."""


def packed(values: Any) -> Any:
    """Return an array's values as JSON.

    Parameters
    ----------
    values : ndarray
        At least one number.

    Returns
    -------
    object
        A number or text if all are equal, ``{"from": first, "by": step}`` for evenly spaced integers, else a list.
        Numbers that JSON lacks are text.

    Examples
    --------
    >>> packed(np.full(32, 0.1, np.float32)), packed(np.arange(3, 9, 2)), packed(np.array([1.5, np.nan]))
    (0.1, {'from': 3, 'by': 2}, [1.5, 'nan'])
    """
    numbers = [plain(value) for value in values]
    first = numbers[0]
    if all(number == first and type(number) is type(first) for number in numbers):
        return first
    if len(numbers) > 2 and all(type(number) is int for number in numbers):
        step = numbers[1] - first
        if numbers == list(range(first, first + step * len(numbers), step or 1)):
            return {"from": first, "by": step}
    return numbers


def unpacked(value: Any, count: int) -> list[Any]:
    """Return the list of `count` values that `packed` was given.

    >>> unpacked({"from": 3, "by": 2}, 3)
    [3, 5, 7]
    """
    if isinstance(value, dict):
        return [value["from"] + value["by"] * i for i in range(count)]
    return value if isinstance(value, list) else [value] * count


def amount(value: Any) -> int:
    """Return how many numbers a packed value holds."""
    return len(value) if isinstance(value, list) else 1


def plain(value: Any) -> Any:
    """Return a NumPy number as JSON: the shortest number that its dtype reads as the same, or text."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        number = int(value)
        return number if abs(number) <= _LARGEST else str(number)
    if isinstance(value, np.complexfloating):
        return str(value)
    # `str` writes as many digits as the dtype has; float64's would differ from those of the value's own type.
    real = float(str(value)) if value.dtype.itemsize < 8 else float(value)
    return real if math.isfinite(real) else str(real)


def ranges(lanes: Any) -> str:
    """Return lane numbers in ascending order as text.

    >>> ranges([0, 1, 2, 3, 32, 40, 41])
    '0-3 32 40-41'
    """
    parts: list[list[int]] = []
    for lane in lanes:
        if parts and lane == parts[-1][1] + 1:
            parts[-1][1] = int(lane)
        else:
            parts.append([int(lane), int(lane)])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
