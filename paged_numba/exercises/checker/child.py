"""The process that examines a learner's file; `process.check_file` starts it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from hypothesis.configuration import set_hypothesis_home_dir

from ..catalogue import exercise
from ..verdict import Stage, Verdict
from .answers import Guard, hidden, load, lockstep_as_numba_cuda, prepared
from .examination import Examination
from .failures import LearnersError
from .task import Task


def main() -> None:
    """Examine the file that the command line names, and write events and the verdict to the file named after it."""
    number, path, record = int(sys.argv[1]), Path(sys.argv[2]), open(sys.argv[3], "a", encoding="utf-8")  # noqa: SIM115

    def write(**event: Any) -> None:
        record.write(json.dumps(event) + "\n")
        record.flush()

    # Hypothesis must leave nothing in the learner's folder; this one is removed.
    set_hypothesis_home_dir(Path(sys.argv[3]).parent)
    chosen = exercise(number)
    task: Task = chosen.task()
    verdict = Verdict(number, chosen.title, path.name, hints=list(task.hints))
    examination = Examination(task, verdict, lambda stage, case: write(stage=stage, case=case))
    guard = Guard(path)
    write(verdict=verdict.to_dict())
    with lockstep_as_numba_cuda(), hidden():
        try:
            with contextlib.redirect_stdout(examination.printed):
                answer = prepared(load(path, task), task)
            _refuse(guard)
            examination.run(answer)
            _refuse(guard)
        except LearnersError as error:
            verdict.problem = guard.seen or str(error)
            verdict.stages = [
                Stage(name, "failed" if i == 0 else "not reached") for i, name in enumerate(task.stages())
            ]
    write(done=verdict.to_dict())
    record.close()
    # Threads and exit handlers of the answer must not keep the process.
    os._exit(0)


def _refuse(guard: Guard) -> None:
    complaint = guard.complaint()
    if complaint is not None:
        raise LearnersError(complaint)
