"""Errors of answers as a learner reads them: the lines of the learner's own file, and the error."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from ...errors import KernelError

OWN = str(Path(__file__).parents[2])
"""Folder of the package, whose frames say nothing to a learner."""


MOST = 2000
"""Most characters that are shown of what an error says, or of a value; of a line of code, a tenth."""


_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


class LearnersError(Exception):
    """An answer cannot be examined, for a reason that the message says."""


class StopError(BaseException):
    """Ends a run of an answer, or a search; neither answers nor Hypothesis catch it as an Exception."""


NOT_OF_THE_ANSWER = (StopError, KeyboardInterrupt)
"""What a run of an answer may raise that is no mistake of the answer."""


def cut(text: str, most: int = MOST) -> str:
    """Return a text, or its beginning and how long it is."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text):,} characters)"


def said_briefly(error: BaseException) -> str:
    """Return the message of an error, whose ``__str__`` may be the learner's."""
    try:
        return cut(str(error))
    except Exception as failure:
        return f"(its __str__ raises {type(failure).__name__})"


def said(error: BaseException) -> str:
    """Return an error as text: where in the learner's file it was raised, and what it says."""
    if isinstance(error, KernelError):
        # It names the line of the kernel.
        return said_briefly(error)
    if isinstance(error, SyntaxError) and error.lineno is not None:
        line = cut((error.text or "").strip(), MOST // 10)
        return (
            f"line {error.lineno}: {error.msg}\n    {line}" if line else f"line {error.lineno}: {error.msg}"
        )
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((OWN, "<frozen"))
    ]
    message = said_briefly(error)
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if not frames:
        return text
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    last = (own or frames)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"
    return f"{text}\n{where}:\n    {cut(last.line, MOST // 10)}" if last.line else f"{text}\n{where}"
