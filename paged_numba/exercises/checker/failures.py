"""Errors of answers as a learner reads them: the lines of the learner's own file, and the error."""

from __future__ import annotations

import traceback
from pathlib import Path

from ...errors import KernelError

OWN = str(Path(__file__).parents[2])
"""Folder of the package, whose frames say nothing to a learner."""


class LearnersError(Exception):
    """An answer cannot be examined, for a reason that the message says."""


def said(error: BaseException) -> str:
    """Return an error as text: where in the learner's file it was raised, and what it says."""
    if isinstance(error, KernelError):
        # It names the line of the kernel.
        return str(error)
    if isinstance(error, SyntaxError) and error.lineno is not None:
        line = (error.text or "").strip()
        return (
            f"line {error.lineno}: {error.msg}\n    {line}" if line else f"line {error.lineno}: {error.msg}"
        )
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((OWN, "<frozen"))
    ]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if not frames:
        return text
    last = frames[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"
    return f"{text}\n{where}:\n    {last.line}" if last.line else f"{text}\n{where}"
