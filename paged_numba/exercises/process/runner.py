"""Runs an examination in a process of its own, which is stopped after a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..catalogue import Exercise
from ..verdict import Stage, Verdict
from . import events

SECONDS, SECONDS_OF_A_RUN = 60.0, 10.0
"""Time after which an examination, or one run of the answer, is stopped. Right answers take 2 to 4 seconds in all."""

MOST_SAID = 3000
"""Bytes that are kept of the end of the process's standard error."""

_START = (
    # The working directory holds the learner's files, whose names may be those of modules. No name is left in
    # `__main__` that leads to the checker.
    "import sys; sys.path[:] = [place for place in sys.path if place]; "
    "__import__('paged_numba.exercises.process.main', fromlist=['main']).main()"
)
_NOT_INHERITED = ("PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONINSPECT")
"""Variables that change what an answer does: without assertions, for example, a property finds nothing."""


def check_file(exercise: Exercise, path: Path, seconds: float = SECONDS_OF_A_RUN) -> Verdict:
    """Examine a learner's file; one run of the answer is stopped after some seconds.

    Raises
    ------
    InputError
        The file does not exist.
    OSError
        The file cannot be read.
    RuntimeError
        The examination failed, which is not the answer's fault.
    """
    if not path.is_file():
        what = "a directory" if path.is_dir() else "a pipe or a device" if path.exists() else "no such file"
        raise InputError(f"{path} must be the file with your answer, got {what}")
    text = path.read_bytes().decode("utf-8-sig", "replace")
    # Whoever knows the key can write a verdict: it must be in no file, argument or variable of the environment.
    key = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        record = Path(folder) / "record"
        record.touch()
        ended, limit, said = _run([str(exercise.number), str(path), str(record)], record, key, seconds)
        found = events.read(record.read_bytes(), key)
    verdict = _verdict(found, ended, said, limit)
    verdict.is_skeleton = text.split() == exercise.skeleton.split()
    return verdict


def _run(arguments: list[str], record: Path, key: str, seconds: float) -> tuple[int | None, float, str]:
    """Run the process; return its status, or None if it was stopped, the time that it had, and what it said."""
    here = str(Path(__file__).parents[3])
    environment = {
        **{name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
        "PAGED_NUMBA_TARGET": "lockstep",
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    with _end_of(process.stderr) as said:
        try:
            # The pipe stays open: if this process is killed, the other one sees its end, and ends, too.
            with contextlib.suppress(OSError):
                process.stdin.write(f"{key}\n".encode())
                process.stdin.flush()
            ended, limit = _wait(process, record, seconds)
        finally:
            _kill(process)
    return ended, limit, said.decode("utf-8", "replace").strip()


def _wait(process: Any, record: Path, seconds: float) -> tuple[int | None, float]:
    """Wait for the end; return the status, or None once the record did not grow for some seconds, and the limit."""
    began = grown = time.monotonic()
    size = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.1), SECONDS
        now = time.monotonic()
        if record.stat().st_size > size:
            size, grown = record.stat().st_size, now
        if now - began > SECONDS:
            return None, SECONDS
        # Before the first line, the process imports what it needs, which may take long on a busy machine.
        if size and now - grown > seconds:
            return None, seconds


def _kill(process: Any) -> None:
    """Kill the process, and all that it has started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):
        process.stdin.close()


@contextlib.contextmanager
def _end_of(stream: Any) -> Any:
    """Read a stream in a ``with`` statement; yield a bytearray, which holds the end of what came."""
    end = bytearray()

    def read() -> None:
        while block := os.read(stream.fileno(), 2**16):
            end.extend(block)
            del end[:-MOST_SAID]

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield end
    finally:
        # A process that left the group may still hold the other end of the pipe.
        reader.join(1)
        if not reader.is_alive():
            stream.close()


def _verdict(found: list[dict[str, Any]], ended: int | None, said: str, seconds: float) -> Verdict:
    last: dict[str, Any] = found[-1] if found else {"failed": said}
    if "failed" in last:
        raise RuntimeError(f"the check itself failed: please report this\n{last['failed'][-MOST_SAID:]}")
    if "done" in last:
        verdict = Verdict.from_dict(last["done"])
        if verdict.passed and not verdict.num_cases:
            raise RuntimeError(
                "the check ran no test, so it says nothing about the answer: please report this"
            )
        return verdict
    verdict = Verdict.from_dict(found[0]["verdict"])
    if "stage" not in last:
        last = {"stage": "runs", "case": ""}
    verdict.stages = stages_to(last["stage"], found[0]["order"])
    verdict.input = last["case"]
    if ended is None:
        verdict.problem = stopped_after(seconds)
        runs = sum("stage" in event for event in found)
        if seconds == SECONDS and runs > 1:
            stopped = f"stopped after {seconds:g} s, in run {runs} of it"
            verdict.problem = f"your answer was {stopped}: each run must take less time"
    elif ended < 0:
        verdict.problem = f"your answer ended the process by {_signal(-ended)}"
    else:
        verdict.problem = f"your answer ended the process with status {ended}"
    return verdict


def stopped_after(seconds: float) -> str:
    """Return what is said of an answer that was stopped."""
    return f"your answer was stopped after {seconds:g} s without an end; does one of its loops never end?"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def stages_to(failed: str, order: Sequence[str]) -> list[Stage]:
    """Return the stages of an examination that failed in one of them."""
    at = order.index(failed)
    return [
        Stage(name, "passed" if i < at else "failed" if i == at else "not reached")
        for i, name in enumerate(order)
    ]
