"""The learner's folder: the files that `start` writes there, and the file that keeps the progress."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from .. import files
from ..arguments import shown
from ..errors import InputError
from .catalogue import exercise

PROGRESS = "paged_numba_progress.json"
"""The file in the learner's folder that says which exercises are done."""


def start(number: int, folder: str | Path = ".") -> Path:
    """Write the skeleton of an exercise to a folder, unless there is such a file.

    Parameters
    ----------
    number : int
        Number of the exercise.
    folder : str or Path, default: "."
        Folder of the learner's files.

    Returns
    -------
    Path
        The file, such as ``01_scale.py``.

    Raises
    ------
    ValueError
        There is no such exercise.
    InputError
        The folder does not exist, or has the file already.

    See Also
    --------
    check : Examines an answer.

    Examples
    --------
    >>> import tempfile
    >>> from paged_numba import exercises
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exercises.start(1, folder).name
    '01_scale.py'
    """
    chosen = exercise(number)
    if not isinstance(folder, (str, Path)):
        raise TypeError(f"folder must be a str or Path, got folder={shown(folder)}")
    path = Path(folder) / chosen.file_name
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(chosen.skeleton)
    except FileExistsError:
        raise InputError(
            f"{path} exists and stays as it is; move or delete it to begin again from the skeleton"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"folder must be a directory to write to, got {shown(str(folder))}: {why}") from None
    return path


def read_progress(folder: Path) -> dict[int, str]:
    """Return the day on which each exercise that is done was first done.

    Raises
    ------
    InputError
        The file does not hold what `record_progress` writes.
    """
    path = folder / PROGRESS
    try:
        if path.exists() and not path.is_file():  # to read a pipe would take for ever
            raise ValueError
        done: Any = json.loads(path.read_text(encoding="utf-8"))
        return {int(number): date.fromisoformat(day).isoformat() for number, day in done.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{path} must be the progress that paged-numba wrote, got something else; move or delete it"
        ) from None


def record_progress(folder: Path, number: int) -> None:
    """Write to the file of progress that an exercise is done, and when; the first day stays."""
    done = read_progress(folder)
    if number not in done:
        done[number] = date.today().isoformat()
        lines = {str(number): done[number] for number in sorted(done)}
        files.write(folder / PROGRESS, json.dumps(lines, indent=1) + "\n")
