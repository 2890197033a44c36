"""Checks of single arguments. Each returns the argument, or raises an error that names it.

NumPy is imported where it is needed: `paged-numba doctor` runs without it.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, SupportsIndex

LONGEST_REPR = 200
"""Most characters of a value that a message shows."""


def shown(value: Any) -> str:
    """Return a value as text for a message: its repr, shortened, on one line.

    Examples
    --------
    >>> shown([1.5]), len(shown("x" * 1000)), shown(10**5000)
    ('[1.5]', 200, 'an int of 16610 bits')
    """
    try:
        text = repr(value)
    except Exception:
        # Python does not write out integers of more than 4,300 digits; any other __repr__ may be wrong.
        if isinstance(value, int):
            return f"an int of {value.bit_length()} bits"
        return f"an object of type {type(value).__name__}"
    text = re.sub(r"\s*\n\s*", " ", text)
    return text if len(text) <= LONGEST_REPR else f"{text[: LONGEST_REPR - 23]}...{text[-20:]}"


def integer(name: str, value: SupportsIndex) -> int:
    """Return an integer as an int; refuse a bool, and a NumPy duration, which NumPy counts as an integer."""
    if type(value) is int:
        return value
    import numpy as np

    why = None
    if not isinstance(value, (bool, np.bool_, np.timedelta64, np.ma.MaskedArray)):
        try:
            return operator.index(value)
        except TypeError:
            pass
        except Exception as error:
            why = error
    raise TypeError(f"{name} must be an integer, got {name}={shown(value)}") from why


def between(name: str, value: SupportsIndex, low: int, high: int, what: str = "") -> int:
    """Return an integer as an int; require it to lie in ``low .. high``; `what` says what these bounds are."""
    number = integer(name, value)
    if not low <= number <= high:
        bounds = f"{low} .. {high}{what and f' ({what})'}"
        raise ValueError(f"{name} must lie in {bounds}, got {name}={shown(number)}")
    return number


def positive(name: str, value: SupportsIndex) -> int:
    """Return an integer as an int; require it to be 1 or more."""
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be positive, got {name}={shown(number)}")
    return number


def not_negative(name: str, value: SupportsIndex) -> int:
    """Return an integer as an int; require it to be 0 or more."""
    number = integer(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {name}={shown(number)}")
    return number


def is_number(value: Any) -> bool:
    """Tell whether a value is a real number; a bool does not count as one."""
    import numpy as np

    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.timedelta64))


def finite(name: str, value: Any) -> float:
    """Return a number as a float; refuse NaN, infinity and what a float cannot hold."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {name}={shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {name}={shown(value)}")
    return number


def fraction(name: str, value: Any) -> float:
    """Return a number in 0 .. 1 as a float."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {name}={shown(value)}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in 0 .. 1, got {name}={shown(value)}")
    return float(value)


def truth(name: str, value: Any) -> bool:
    """Return True or False as a bool."""
    import numpy as np

    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {name}={shown(value)}")
    return bool(value)


def hashable(name: str, value: Any) -> Any:
    """Return the value if it can be a dictionary key."""
    why = None
    try:
        hash(value)
    except TypeError:
        pass
    except Exception as error:
        why = error
    else:
        return value
    raise TypeError(f"{name} must be hashable, got {name}={shown(value)}") from why


def one_of(name: str, value: Any, names: Iterable[str]) -> str:
    """Return a name as a str; require it to be one of `names`."""
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {name}={shown(value)}")
    return str(value)


def text(name: str, value: Any) -> str:
    """Return a text as a str."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {name}={shown(value)}")
    return str(value)


def path(name: str, value: Any) -> Path:
    """Return the path of a file as a Path."""
    try:
        found = Path(value)
        os.fsencode(found)
    except Exception:  # of the object's own __fspath__, too
        raise TypeError(f"{name} must be a path, got {name}={shown(value)}") from None
    if "\0" in str(found):
        raise ValueError(f"{name} must not contain a null character, got {name}={shown(found)}")
    return found


def is_name(value: Any, name: str) -> bool:
    """Tell whether a value is this name; comparing an array would give an array."""
    return isinstance(value, str) and value == name


MOST_LISTED = 2**22
"""Largest number of ids or points in a sequence: far more than anybody has, but few enough to fit into memory."""


def listed(name: str, value: Any, what: str) -> list[Any]:
    """Return a sequence as a list; refuse a string, which is a single value, and a set, which has no order."""
    why = None
    if not isinstance(value, (str, bytes, bytearray, set, frozenset)):
        try:
            items = list(islice(iter(value), MOST_LISTED + 1))
        except Exception as error:  # of the object's own methods, too
            why = error
        else:
            if len(items) > MOST_LISTED:
                raise ValueError(f"{name} must hold at most {MOST_LISTED} {what}, got {name}={shown(value)}")
            return items
    raise TypeError(f"{name} must be a sequence of {what}, got {name}={shown(value)}") from why


_ARRAYS = ("__array__", "__array_interface__", "__dlpack__")


def numpy_reads(value: Any) -> bool:
    """Tell whether NumPy may read a value: a number, a sequence or an array.

    Any other object with items might be endless.
    """
    sequence = isinstance(value, Sequence) or not hasattr(value, "__getitem__")
    return sequence or any(hasattr(value, way) for way in _ARRAYS)


def host_array(name: str, value: Any) -> Any:
    """Return an array in host memory, a number or nested lists as a NumPy array of numbers."""
    import numpy as np

    why = None
    try:
        value = getattr(value, "__lockstep_array__", value)
        if numpy_reads(value):
            array = np.asarray(value)
            if not array.dtype.hasobject and not isinstance(value, np.ma.MaskedArray):
                return array
    except Exception as error:  # of the object's own methods, too
        why = error
    raise TypeError(f"{name} must be an array of numbers, got {name}={shown(value)}") from why


_SMALL = 2**28
"""Bytes below which the free memory is not looked up."""


def require_memory(what: str, needed: int, memory: int | None = None) -> None:
    """Raise MemoryError if something takes more memory than is left.

    Parameters
    ----------
    what : str
        What takes the memory: the subject of the message.
    needed : int
        Bytes that it takes.
    memory : int, optional
        Bytes that are left; if None, those that this process can still allocate.
    """
    if needed < _SMALL:
        return
    memory = _memory_left() if memory is None else memory
    if needed > memory:
        got = f"{needed / 2**30:,.1f}" if needed < 2**100 else "more than 2**70"
        raise MemoryError(
            f"{what} must fit into memory, got {got} GiB, but {memory / 2**30:,.1f} GiB are left"
        )


def _memory_left() -> int:
    """Return how many bytes this process can still allocate, by the limits that the system reports."""
    bounds = [2**47]  # the address space of a process
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.exists():
        kibibytes = dict(re.findall(r"^(\w+): +(\d+) kB$", meminfo.read_text(encoding="ascii"), re.M))
        bounds.append(1024 * (int(kibibytes.get("MemAvailable", 2**37)) + int(kibibytes.get("SwapFree", 0))))
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    statm = Path("/proc/self/statm")
    if statm.exists():
        import resource  # a module of POSIX

        most, held = (
            resource.getrlimit(resource.RLIMIT_AS)[0],
            int(statm.read_text(encoding="ascii").split()[0]),
        )
        if most != resource.RLIM_INFINITY:
            bounds.append(most - held * resource.getpagesize())
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()).isdecimal():
        bounds.append(int(text))
    return min(bounds)
