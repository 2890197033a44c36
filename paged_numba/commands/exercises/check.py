"""``paged-numba check``: examines an answer to an exercise."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from ...errors import InputError
from ...exercises.catalogue import Exercise
from ...exercises.checking import check
from ...exercises.folder import record_progress
from ..options import check_outputs, deliver, file_to_write
from .number import add_number

SECONDS_BETWEEN_LOOKS = 0.2
BAD_FILE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``paged-numba check``."""
    add_number(parser)
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="the file with your answer (default: the file that start wrote here)",
    )
    parser.add_argument(
        "--hint", action="count", default=0, help="show a hint; given twice, two hints, and so on"
    )
    parser.add_argument(
        "--watch", action="store_true", help="check again each time the file is saved, until Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument(
        "--html",
        type=file_to_write,
        metavar="FILE",
        help="write the verdict with its picture as a page to FILE",
    )
    parser.epilog = (
        "The file runs in a process of its own, which is stopped if it does not end. Exit status: 0 if the answer is "
        "right, 1 if not, 2 if nothing could be checked."
    )


def run(options: argparse.Namespace) -> int:
    """Examine the answer once or, with ``--watch``, each time that the file changes.

    Returns
    -------
    int
        0 if the answer passed all stages, else 1.

    Raises
    ------
    InputError
        There is no such file, or Hypothesis is not installed.
    """
    chosen: Exercise = options.exercise
    path = options.file or Path(chosen.file_name)
    check_outputs(options, "html", read=path)
    if not path.exists() and options.file is None:
        raise InputError(f"there is no {path} here; paged-numba start {chosen.number} writes it")
    seen = _version(path)
    status = _check(chosen, path, options)
    while options.watch:
        print(f"\nWaiting for {path} to be saved; Ctrl-C ends.", flush=True, file=sys.stderr)
        try:
            seen = _next_version(path, seen)
            status = _check(chosen, path, options)
        except KeyboardInterrupt:
            break
        except (InputError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            # An editor may delete the file before it writes the new one.
            print(f"paged-numba check: error: {error}", file=sys.stderr)
            status = BAD_FILE
    return status


def _check(chosen: Exercise, path: Path, options: argparse.Namespace) -> int:
    try:
        verdict = check(chosen.number, path, hints=min(options.hint, 100))
    except RuntimeError as error:
        raise InputError(str(error)) from error
    text = verdict.json() if options.json else verdict.text(colour=_has_colour())
    deliver(text, (options.html, verdict.page))
    if verdict.passed:
        _record(chosen, path)
    return 0 if verdict.passed else 1


def _record(chosen: Exercise, path: Path) -> None:
    """Write down that the exercise is done; the verdict stands even if that fails."""
    try:
        record_progress(path.parent, chosen.number)
    except (OSError, ValueError) as error:
        print(f"paged-numba check: the progress is not written down: {error}", file=sys.stderr)


def _version(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is saved, None while an editor replaces it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _next_version(path: Path, seen: tuple[int, int] | None) -> tuple[int, int]:
    """Wait until a file differs from what was seen of it."""
    while (now := _version(path)) is None or now == seen:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return now


def _has_colour() -> bool:
    """Tell whether standard output is a terminal that shows colours."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if os.name == "nt":
        os.system("")  # makes the terminal of Windows read colours
    return True
