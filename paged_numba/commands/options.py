"""Options that several commands share: positive integers, files to write, the sizes of ``--shape``."""

from __future__ import annotations

import argparse
from pathlib import Path

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


def shape(words: list[str]) -> dict[str, int]:
    """Return the sizes of ``--shape NAME=SIZE ...``; raise InputError for a name or size that is invalid."""
    sizes = dict(DEFAULT_SHAPE)
    for word in words:
        name, _, text = word.partition("=")
        if name not in sizes:
            raise InputError(f"--shape takes {', '.join(DEFAULT_SHAPE)}, got {word!r}")
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"--shape {name} must be a positive integer, got {word!r}")
        sizes[name] = int(text)
    if sizes["num_q_heads"] % sizes["num_kv_heads"]:
        raise InputError(
            f"--shape num_q_heads must be a multiple of num_kv_heads={sizes['num_kv_heads']}, "
            f"got {sizes['num_q_heads']}"
        )
    return sizes
