"""Types of command-line options: a positive integer, a file to write."""

from __future__ import annotations

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """Return a positive integer: a ``type`` for argparse."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return number


def file_to_write(text: str) -> Path:
    """Return the path of a file that can be written: a ``type`` for argparse."""
    path = Path(text)
    if text == "-":
        raise argparse.ArgumentTypeError("must name a file, got -")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must name a file, got a directory, {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must name a file in a directory that exists, got {text}")
    return path
