"""The file that ``pytest --profile-kernels`` writes and ``--traffic-baseline`` reads."""

from __future__ import annotations

import json
from pathlib import Path

from ... import files
from .counting import Traffic

_FORMAT = "paged_numba kernel traffic 1"


class BaselineError(ValueError):
    """The file is no traffic file."""


def write(path: Path, traffic: Traffic) -> None:
    """Write the traffic of tests as JSON, sorted, so that two versions can be compared line by line."""
    content = {"format": _FORMAT, "tests": traffic}
    files.write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read(path: Path) -> Traffic:
    """Return the traffic of tests that `write` has written.

    Raises
    ------
    BaselineError
        There is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BaselineError(f"the file cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BaselineError(f"the file is not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise BaselineError(f"the file must have the format {_FORMAT!r}")
    tests: Traffic = content["tests"]
    return tests
