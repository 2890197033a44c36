"""Values as a learner reads them: what came out beside what should, and inputs that can be typed in."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from .failures import cut

MOST_ELEMENTS = 40
"""Arrays of more elements are not written out whole."""

ROWS = 8
"""Most wrong elements of a large array that are listed."""


@dataclass(frozen=True)
class Mistake:
    """What is wrong with an outcome.

    Attributes
    ----------
    what : str
        A sentence without its full stop.
    got, expected : str
        What came out, and what should; empty where there is nothing to compare.
    raised : bool
        Whether the answer raised an error.
    input : str
        The input, where it is not the case.
    """

    what: str
    got: str = ""
    expected: str = ""
    raised: bool = False
    input: str = ""


def difference(name: str, got: Any, right: Any, rtol: float = 0, atol: float = 0) -> Mistake | None:
    """Return how a value differs from the right one, or None; floats may differ by rounding."""
    if isinstance(right, np.ndarray):
        return _difference_of_arrays(name, got, right, rtol, atol)
    if isinstance(right, float) and isinstance(got, (float, int, np.floating, np.integer)):
        same = bool(np.isclose(float(got), right, rtol=rtol, atol=atol, equal_nan=True))
    else:
        try:
            # Not `got == right`: an object of the learner's would decide.
            same = plain(got) == right and (isinstance(got, bool) == isinstance(right, bool))
        except Exception:
            same = False
    return None if same else Mistake(f"{name} is wrong", shown_value(got), shown_value(right))


class Other:
    """A value of a class that no result has. It is equal to nothing, whatever its own class says."""

    def __init__(self, value: Any) -> None:
        self._text = shown_value(value)

    def __repr__(self) -> str:
        return self._text


def plain(value: Any) -> Any:
    """Return a copy of a value in Python's own types, whose comparisons the learner has not written.

    >>> plain((np.int64(3), [range(2)]))
    (3, [range(0, 2)])
    """
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return np.asarray(value).tolist()
    return Other(value)


def _difference_of_arrays(name: str, got: Any, right: Any, rtol: float, atol: float) -> Mistake | None:
    try:
        found = np.asarray(got)
    except Exception:
        return Mistake(f"{name} must be an array", shown_value(got), shown_value(right))
    if found.shape != right.shape:
        what = f"{name} must have shape {right.shape}, got {found.shape}"
        return Mistake(what, shown_value(found), shown_value(right))
    if found.dtype.kind not in "biuf":
        return Mistake(f"{name} must hold numbers, got {found.dtype}", shown_value(found), shown_value(right))
    with np.errstate(invalid="ignore", over="ignore"):
        if right.dtype.kind == "f":
            close = np.isclose(
                found.astype(np.float64), right.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True
            )
        else:
            close = found == right
    if close.all():
        return None
    wrong = np.argwhere(~close)
    what = f"{len(wrong)} of {right.size} elements of {name} are wrong"
    if right.size == 1:
        what = f"{name} is wrong"
    elif len(wrong) == 1:
        what = f"1 of {right.size} elements of {name} is wrong"
    if right.size <= MOST_ELEMENTS:
        return Mistake(what, shown_array(found), shown_array(right))
    places = [tuple(place) for place in wrong[:ROWS].tolist()]
    more = f"\n... and {len(wrong) - ROWS} more" * (len(wrong) > ROWS)

    def listed(values: Any) -> str:
        return "\n".join(f"{name}[{', '.join(map(str, p))}] = {_number(values[p])}" for p in places) + more

    return Mistake(what, listed(found), listed(right))


def shown_array(array: Any) -> str:
    """Return an array in brackets, with the numbers that stand for it in NumPy."""
    text = np.array2string(
        np.asarray(array),
        separator=", ",
        max_line_width=88,
        threshold=MOST_ELEMENTS,
        formatter={"float_kind": _number},
    )
    return re.sub(r"\n+", "\n", text)


def shown_list(array: Any) -> str:
    """Return an array as nested lists in one line, with few digits; of a large one, how it begins."""
    if np.size(array) > MOST_ELEMENTS:
        return shown_value(array)
    if np.ndim(array):
        return f"[{', '.join(map(shown_list, array))}]"
    return f"{float(array):.4g}"


def _number(value: Any) -> str:
    return f"{float(value):.6g}" if isinstance(value, (float, np.floating)) else str(value)


def shown_value(value: Any) -> str:
    """Return a value of a case as text: arrays whole if they are small, else their shape, dtype and first elements."""
    if isinstance(value, np.ndarray):
        if value.size <= MOST_ELEMENTS:
            return f"{shown_array(value)}  # {value.dtype}{list(value.shape)}"
        start = ", ".join(_number(one) for one in value.ravel()[:6])
        return f"{value.dtype}{list(value.shape)}, which begins with {start}"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({', '.join(f'{f.name}={getattr(value, f.name)!r}' for f in fields(value))})"
    if isinstance(value, (float, np.floating)):
        return _number(value)
    try:
        return cut(repr(value))
    except Exception as error:
        return f"a {type(value).__name__}, whose __repr__ raises {type(error).__name__}"


def assigned(name: str, value: Any) -> str:
    """Return ``name = value`` as text, with the rows of an array below one another.

    Examples
    --------
    >>> print(assigned("scales", np.eye(2, dtype=int)))
    scales = [[1, 0],
              [0, 1]]  # int64[2, 2]
    """
    start = f"{name} = "
    return start + shown_value(value).replace("\n", "\n" + " " * len(start))


def size_of(value: Any) -> int:
    """Return how large a value is: elements of arrays and lists, and the sizes of integers."""
    if isinstance(value, np.ndarray):
        return int(value.size)
    if isinstance(value, (list, tuple)):
        return 1 + sum(map(size_of, value))
    if isinstance(value, dict):
        return 1 + sum(map(size_of, value.values()))
    if is_dataclass(value) and not isinstance(value, type):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    return abs(value) if isinstance(value, int) else 1
