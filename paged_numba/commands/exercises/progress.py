"""``paged-numba progress``: lists the exercises and says which are done in the working directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...draw.text import table
from ...exercises.catalogue import exercises
from ...exercises.folder import PROGRESS, read_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare that ``paged-numba progress`` has no options."""
    parser.epilog = f"The check writes what is done to {PROGRESS} beside the answer."


def run(options: argparse.Namespace) -> int:
    """Print a line for each exercise, and which one comes next."""
    del options
    done = read_progress(Path())
    rows, left = [], []
    for one in exercises():
        state = f"done {done[one.number]}" if one.number in done else ""
        if not state:
            left.append(one.number)
            state = "started" if Path(one.file_name).exists() else "-"
        rows.append([f"{one.number}", one.title, state])
    print(table(["", "exercise", "state"], rows, left=3))
    print(f"\n{len(rows) - len(left)} of {len(rows)} done.", end="")
    if left:
        word = "check" if Path(exercises()[left[0] - 1].file_name).exists() else "start"
        print(f" Next: paged-numba {word} {left[0]}", end="")
    print()
    return 0
