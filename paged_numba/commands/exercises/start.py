"""``paged-numba start``: writes the skeleton of an exercise into the working directory."""

from __future__ import annotations

import argparse

from ...exercises.folder import start
from .number import add_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``paged-numba start``."""
    add_number(parser)


def run(options: argparse.Namespace) -> int:
    """Write the file and say what to do next."""
    chosen = options.exercise
    path = start(chosen.number)
    print(f"Exercise {chosen.number} · {chosen.title}")
    print(f"Wrote {path}. The task stands at its top; your code goes where a comment says so.")
    print(f"Then: paged-numba check {chosen.number}")
    return 0
