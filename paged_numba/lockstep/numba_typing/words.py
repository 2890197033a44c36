"""What the errors of Numba's type inference say."""

from __future__ import annotations

import re
from typing import Any

from ..machine.lanes import file_name


def plain(error: BaseException) -> str:
    """Return the message of an error without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()


def words(error: BaseException) -> str:
    """Return the useful part of Numba's message: its first sentence, or the call that has no implementation."""
    text = plain(error)
    lines = [line.strip() for line in text.splitlines()]
    useful = [line for line in lines if line and not _NOISE.match(line)]
    if not useful:
        return type(error).__name__
    first = re.sub(r", location: .*", "", useful[0])
    call = next((line.removeprefix(">>>").strip() for line in useful if line.startswith(">>>")), None)
    if call is not None and first.startswith("No implementation of function"):
        return f"no implementation of {call}"
    return first if _is_numba_error(error) else f"{type(error).__name__}: {first}"


_NOISE = re.compile(r"Failed in |- Resolution failure|During: |File .*line \d+|- Of which|\^+$")


def _is_numba_error(error: BaseException) -> bool:
    return any(base.__name__ == "NumbaError" for base in type(error).__mro__)


def is_typing_error(error: BaseException) -> bool:
    """Tell whether Numba's type inference refuses the code."""
    return any(base.__name__ == "TypingError" for base in type(error).__mro__)


def place(error: BaseException, function: Any) -> str:
    """Return the line at which Numba failed."""
    text = plain(error)
    found = re.findall(r"(?:at|location:) (\S.*?) \((\d+)\)", text) or re.findall(
        r'File "(.*?)", line (\d+)', text
    )
    location = getattr(error, "loc", None)
    places = [(file, int(line)) for file, line in found] + (
        [(location.filename, location.line)] if location else []
    )
    code = function.__code__
    file, line = next(
        (place for place in reversed(places) if place[1]), (code.co_filename, code.co_firstlineno)
    )
    return f"{file_name(file)}:{line}"
