"""The process that examines a learner's file; `process.check_file` starts it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from hypothesis.configuration import set_hypothesis_home_dir

from ..catalogue import exercise
from ..checker.answers import in_order, load, lockstep_as_numba_cuda, prepared
from ..checker.examination import Examination, can_compile
from ..checker.failures import LearnersError, said
from ..checker.task import Task
from ..verdict import Stage, Verdict
from . import events
from .guard import Guard, hidden


def main() -> None:
    """Examine the file that the command line names, and write events and the verdict to the file named after it."""
    number, path, record = int(sys.argv[1]), Path(sys.argv[2]), open(sys.argv[3], "a", encoding="utf-8")  # noqa: SIM115
    # Hypothesis must leave nothing in the learner's folder; this one is removed.
    set_hypothesis_home_dir(Path(sys.argv[3]).parent)
    # Nor must imports of the answer.
    sys.dont_write_bytecode = True
    del sys.argv[1:]
    key, leave = _key(), os._exit

    def write(**event: Any) -> None:
        record.write(events.line(event, key))
        record.flush()

    try:
        _examine(number, path, write)
    except BaseException:
        write(failed=traceback.format_exc())
    # Threads and exit handlers of the answer must not keep the process.
    leave(0)


def _examine(number: int, path: Path, write: Any) -> None:
    chosen = exercise(number)
    task: Task = chosen.task()
    verdict = Verdict(number, chosen.title, path.name, hints=list(task.hints))
    examination = Examination(task, verdict, lambda stage, case: write(stage=stage, case=case))
    if task.launches:
        can_compile()  # imports what it needs before the guard looks
    guard = Guard(path, task)
    refuse = guard.refuse
    write(verdict=verdict.to_dict(), order=task.stages())
    with hidden():
        try:
            with contextlib.redirect_stdout(examination.printed), lockstep_as_numba_cuda():
                answer = prepared(in_order(load(path, task), chosen.skeleton, task), task)
            refuse()
            examination.run(answer)
            refuse()
        except (LearnersError, KeyboardInterrupt) as error:
            # Nobody but the answer interrupts this process, which has no terminal.
            guard.restore()
            problem = str(error) if isinstance(error, LearnersError) else said(error)
            verdict.problem = guard.seen or problem
            verdict.stages = [
                Stage(name, "failed" if i == 0 else "not reached") for i, name in enumerate(task.stages())
            ]
    write(done=verdict.to_dict())


def _key() -> str:
    """Return the key, the first line of standard input, and end this process when the pipe is closed.

    The answer gets the null device as its standard input.
    """
    pipe = os.fdopen(os.dup(0), "rb", buffering=0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    key = pipe.readline().decode().strip()
    leave = os._exit

    def watch() -> None:
        pipe.read()
        leave(1)

    threading.Thread(target=watch, daemon=True).start()
    return key
