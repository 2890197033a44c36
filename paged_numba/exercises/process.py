"""Runs an examination in a process of its own, which is stopped after a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ..errors import InputError
from .catalogue import Exercise
from .verdict import Stage, Verdict

SECONDS, SECONDS_OF_A_RUN = 60.0, 10.0
"""Time after which an examination, or one run of the answer, is stopped. Right answers take 2 to 4 seconds in all."""

_START = (
    # The working directory holds the learner's files, whose names may be those of modules.
    "import sys; sys.path[:] = [place for place in sys.path if place]; "
    "from paged_numba.exercises.checker.child import main; main()"
)


def check_file(exercise: Exercise, path: Path, seconds: float = SECONDS_OF_A_RUN) -> Verdict:
    """Examine a learner's file; one run of the answer is stopped after some seconds.

    Raises
    ------
    InputError
        The file does not exist.
    RuntimeError
        The examination failed, which is not the answer's fault.
    """
    if not path.is_file():
        what = "a directory" if path.is_dir() else "no such file"
        raise InputError(f"{path} must be the file with your answer, got {what}")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        record.touch()
        errors = Path(folder) / "errors"
        with errors.open("w") as stream:
            ended = _run([str(exercise.number), str(path), str(record)], record, stream, seconds)
        events = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        said = errors.read_text(encoding="utf-8", errors="replace").strip()
    verdict = _verdict(events, ended, said, seconds)
    verdict.is_skeleton = path.read_bytes().decode("utf-8", "replace").split() == exercise.skeleton.split()
    return verdict


def _run(arguments: list[str], record: Path, errors: Any, seconds: float) -> int | None:
    """Run the process; return its status, or None if it was stopped, since its record did not grow."""
    here = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PAGED_NUMBA_TARGET": "lockstep",
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=environment,
    )
    began = grown = time.monotonic()
    size = 0
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.1)
            now = time.monotonic()
            if record.stat().st_size > size:
                size, grown = record.stat().st_size, now
            # Before the first line, the process imports what it needs, which may take long on a busy machine.
            if now - began > SECONDS or (size and now - grown > seconds):
                return None
    finally:
        process.kill()
        process.wait()


def _verdict(events: list[dict[str, Any]], ended: int | None, said: str, seconds: float) -> Verdict:
    if events and "done" in events[-1]:
        verdict = Verdict.from_dict(events[-1]["done"])
        if verdict.passed and not verdict.num_cases:
            raise RuntimeError(
                "the check ran no test, so it says nothing about the answer: please report this"
            )
        return verdict
    if not events or (ended and said):
        raise RuntimeError(f"the check itself failed: please report this\n{said[-3000:]}")
    verdict = Verdict.from_dict(events[0]["verdict"])
    last = events[-1] if "stage" in events[-1] else {"stage": "runs", "case": ""}
    verdict.stages = _stages(last["stage"])
    verdict.input = last["case"]
    if ended is None:
        verdict.problem = (
            f"your answer was stopped after {seconds:g} s without an end; does one of its loops never end?"
        )
    else:
        verdict.problem = f"your answer ended the process with status {ended}"
    return verdict


def _stages(failed: str) -> list[Stage]:
    order = ["runs", "right", "sanitizer", "traffic"]
    if failed == "kills":
        order = ["runs", "right", "kills"]
    at = order.index(failed)
    return [
        Stage(name, "passed" if i < at else "failed" if i == at else "not reached")
        for i, name in enumerate(order)
    ]
