"""Options that several commands share: positive integers, files to write, the sizes of ``--shape``."""

from __future__ import annotations

import argparse
import os
import reprlib
import sys
from collections.abc import Callable
from pathlib import Path

from .. import files
from ..errors import InputError

DEFAULT_SHAPE = {
    "num_seqs": 2,
    "seq_len": 100,
    "num_q_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 64,
    "block_size": 16,
}
"""The sizes that ``--shape`` takes, with their defaults."""

MOST = 2**63 - 1
"""Largest integer that an option takes: the largest `len` and array size."""


def positive(text: str) -> int:
    """Return a positive integer: a ``type`` for argparse."""
    number = _integer(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {reprlib.repr(text)}")
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    if number > MOST:
        raise argparse.ArgumentTypeError(f"must be at most {MOST}, got {reprlib.repr(text)}")
    return number


def _integer(text: str) -> int | None:
    """Return an integer, or None if the text is not one; more than `MOST` if it has too many digits for Python."""
    digits = text.strip()
    if len(digits) > 100 and digits.isdecimal():
        return MOST + 1
    try:
        return int(digits)
    except ValueError:
        return None


def file_to_write(text: str) -> Path:
    """Return the path of a file that can be written: a ``type`` for argparse."""
    path = Path(text)
    try:
        if text == "-":
            raise argparse.ArgumentTypeError("must name a file, got -")
        if path.is_dir() or text.endswith(os.sep):
            raise argparse.ArgumentTypeError(f"must name a file, got a directory, {text or repr(text)}")
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"must name a file in a directory that exists, got {text}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"must name a file that can be written, got {text}")
    except OSError as error:  # such as a name that is too long
        raise argparse.ArgumentTypeError(
            f"must name a file, got {reprlib.repr(text)}: {error.strerror}"
        ) from None
    return path


def check_outputs(options: argparse.Namespace, *names: str, read: str | Path | None = None) -> None:
    """Raise InputError if an option names the file that another option names, or the file that is read.

    Parameters
    ----------
    options : argparse.Namespace
    *names : str
        Options that take a file to write, without their dashes.
    read : str or Path, optional
        The file that the command reads.
    """
    given = {name: path for name in names if (path := getattr(options, name)) is not None}
    for place, (name, path) in enumerate(given.items()):
        if read is not None and files.same_file(path, read):
            raise InputError(f"--{name} must not name the file that is read, {read}, got --{name} {path}")
        for other in list(given)[:place]:
            if files.same_file(path, given[other]):
                raise InputError(
                    f"--{other} and --{name} must name different files, "
                    f"got --{other} {given[other]} --{name} {path}"
                )


def deliver(text: str, *outputs: tuple[Path | None, Callable[[], str | bytes]]) -> None:
    """Write output files, those whose path is not None, and print a text.

    The files come first, since standard output may be a pipe that its reader has closed. If a file cannot be written,
    the rest is still written.

    Raises
    ------
    OSError
        The first error of writing a file, once everything else is written.
    """
    failure: OSError | None = None
    for path, content in outputs:
        if path is not None:
            try:
                files.write(path, content())
            except OSError as error:
                failure = failure or error
    # A user's program may have closed standard output.
    print(text, file=sys.stderr if getattr(sys.stdout, "closed", False) else None)
    if failure is not None:
        raise failure


def shape(words: list[str]) -> dict[str, int]:
    """Return the sizes of ``--shape NAME=SIZE ...``; raise InputError for a name or size that is invalid."""
    sizes: dict[str, int] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in DEFAULT_SHAPE:
            raise InputError(f"--shape takes {', '.join(DEFAULT_SHAPE)}, got {reprlib.repr(word)}")
        number = _integer(text) if text.isascii() and text.isdecimal() else None
        if not number:
            raise InputError(f"--shape {name} must be a positive integer, got {reprlib.repr(word)}")
        if name in sizes:
            raise InputError(
                f"--shape takes each name once, got {name}={sizes[name]} and {reprlib.repr(word)}"
            )
        if number > MOST_SIZE:
            raise InputError(f"--shape {name} must be at most {MOST_SIZE}, got {reprlib.repr(word)}")
        sizes[name] = number
    sizes = {**DEFAULT_SHAPE, **sizes}
    if sizes["num_q_heads"] % sizes["num_kv_heads"]:
        raise InputError(
            f"--shape num_q_heads must be a multiple of num_kv_heads={sizes['num_kv_heads']}, "
            f"got {sizes['num_q_heads']}"
        )
    return sizes


MOST_SIZE = 2**31 - 1
"""Largest size of ``--shape``: no grid of thread blocks, and no index of a block, is larger."""
