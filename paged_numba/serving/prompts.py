"""Prompts of a text file: one for each paragraph."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ..errors import InputError


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, or of standard input for the path ``-``.

    Raises
    ------
    InputError
        The file is not UTF-8, or standard input is closed.
    """
    if str(path) == "-" and sys.stdin is None:
        raise InputError("standard input must be open, got a closed one")
    content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        name = "standard input" if str(path) == "-" else path
        raise InputError(
            f"{name} must be UTF-8 text, got byte {error.object[error.start]:#x} at {error.start}"
        ) from None


def paragraphs(text: str, source: str) -> list[str]:
    """Return the paragraphs of a text, which blank lines separate.

    Parameters
    ----------
    text : str
    source : str
        Name of the text's source, for the error message.

    Raises
    ------
    InputError
        The text is nothing but white space.
    """
    found = [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    if not found:
        raise InputError(f"{source} must hold at least one prompt, got nothing but white space")
    return found
