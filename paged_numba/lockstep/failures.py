"""Errors of kernels: turns errors inside the machine into KernelErrors that name a line of the kernel.

``PAGED_NUMBA_FULL_TRACEBACK=1`` keeps the frames of the machine in tracebacks.
"""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ..errors import KernelError, PagedNumbaError
from .language.access import kind_of
from .machine.lanes import SOURCE_MARK, file_name

FULL_TRACEBACK = "PAGED_NUMBA_FULL_TRACEBACK"

_HERE = Path(__file__).parent
_MACHINE = tuple(str(_HERE / part) + os.sep for part in ("machine", "language", "compiler", "observe"))
"""Folders whose errors, while a lane program runs, are errors of the kernel; not those of observers, for example."""


def hide(excinfo: Any = None) -> bool:
    """Tell whether tracebacks leave out the frames of the machine: the value of ``__tracebackhide__``, for pytest."""
    return os.environ.get(FULL_TRACEBACK, "0") in ("", "0")


def presentable(error: Exception) -> Exception | None:
    """Return the error that a launch raises instead of `error`, or None if the kernel did not cause `error`.

    Its message names the kernel's line, and its traceback has only the frames of the kernel and of the device
    functions.
    """
    entries = list(_entries(error.__traceback__))
    kernels = [entry for entry in entries if SOURCE_MARK in entry.tb_frame.f_globals]
    shown: Exception = error
    if kernels:
        frame, line = kernels[-1].tb_frame, kernels[-1].tb_lineno
        file = frame.f_globals[SOURCE_MARK]
        where = f"{file_name(file)}:{line}"
    if not isinstance(error, PagedNumbaError):
        if not kernels or not isinstance(error, _ERRORS_OF_KERNELS):
            return None
        frames = [entry.tb_frame for entry in entries[entries.index(kernels[-1]) :]]
        # Endless calls of a device function may reach Python's limit in an observer that they call.
        codes = {kernel.tb_frame.f_code for kernel in kernels}
        endless = isinstance(error, RecursionError) and len(codes) < len(kernels)
        observed = any(_observes(caller) and not _of_machine(callee) for caller, callee in pairwise(frames))
        if observed and not endless:
            return None
        text = linecache.getline(file, line).strip() or frame.f_code.co_name
        shown = KernelError(f"`{text}` cannot run: {reason(error)}, {where}")
        shown.__cause__ = error
    elif (
        kernels
        and isinstance(error, KernelError)
        and len(error.args) == 1
        and f"{file_name(file)}:" not in str(error)
    ):
        error.args = (f"{error}, {where}",)
    if hide():
        trimmed = None
        for entry in reversed(kernels):
            trimmed = TracebackType(trimmed, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
        error.__traceback__ = trimmed
        shown.__traceback__ = trimmed
    return shown


_ERRORS_OF_KERNELS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    Warning,
)
"""What Python and NumPy raise if an operation does not take its operands."""


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _observes(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(str(_HERE / "observe") + os.sep)


def _of_machine(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(_MACHINE) or f"{os.sep}numpy{os.sep}" in file or SOURCE_MARK in frame.f_globals


def reason(error: Exception) -> str:
    """Return why a lane program failed, in words that make sense without the machine's code."""
    if isinstance(error, RecursionError):
        return "a device function calls itself endlessly"
    if isinstance(error, AttributeError) and error.name is not None:
        return f"{kind_of(error.obj)} cannot be used there"
    lines = str(error).strip().splitlines() or ["no reason is known"]
    words = re.sub(r"\b(Lane|Local|Observed)Array\b", "array", lines[0])
    # The function that takes or misses an argument has another name in the machine.
    words = re.sub(r"^[\w.<>]+\(\) (?=takes|missing|got)", "the call ", words)
    return f"{words} ({type(error).__name__})"
