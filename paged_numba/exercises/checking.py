"""`check`: examines an answer, from a file or from a notebook."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..arguments import between, shown
from .catalogue import Exercise, exercise
from .process import SECONDS, check_file
from .verdict import Stage, Verdict


def check(number: int, answer: Any, *, hints: int = 0) -> Verdict:
    """Examine an answer to an exercise.

    Parameters
    ----------
    number : int
        Number of the exercise.
    answer : kernel, function, class, str or Path
        What the exercise asks for, or the name of a file that defines it. A file is run in a process of its own.
    hints : int, default: 0
        How many hints to show, if the answer is not right.

    Returns
    -------
    Verdict
        What was found. A notebook shows it with its picture; ``print`` shows it as text.

    Raises
    ------
    ValueError
        There is no such exercise.
    InputError
        There is no such file, or Hypothesis is not installed.

    See Also
    --------
    start : Writes the file to begin with.

    Examples
    --------
    >>> from paged_numba import cuda, exercises
    >>> @cuda.jit
    ... def scale(out, x, factor):
    ...     i = cuda.grid(1)
    ...     if i < x.size:
    ...         out[i] = factor * x[i]
    >>> exercises.check(1, scale).passed
    True
    """
    chosen, num_hints = exercise(number), between("hints", hints, 0, 100)
    task = chosen.task()
    if isinstance(answer, (str, Path)):
        verdict = check_file(chosen, Path(answer))
    else:
        verdict = _examined(chosen, task, answer)
    verdict.num_hints = min(num_hints, len(verdict.hints))
    return verdict


def _examined(chosen: Exercise, task: Any, answer: Any) -> Verdict:
    """Examine an answer in this process."""
    from .checker.answers import prepared
    from .checker.examination import Examination
    from .checker.failures import LearnersError

    name = getattr(getattr(answer, "py_func", answer), "__name__", shown(answer))
    verdict = Verdict(chosen.number, chosen.title, name, hints=list(task.hints))
    last = "runs"

    def watch(stage: str, case: str) -> None:
        nonlocal last
        last, verdict.input = stage, case

    try:
        with _stopped_after(SECONDS):
            Examination(task, verdict, watch).run(prepared(answer, task))
    except (LearnersError, _OutOfTimeError) as error:
        verdict.problem = str(error)
        verdict.stages = [
            Stage(stage, "failed" if stage == last else "not reached") for stage in task.stages()
        ]
    else:
        if verdict.passed:
            verdict.input = ""
    return verdict


class _OutOfTimeError(BaseException):
    def __str__(self) -> str:
        return f"your answer was stopped after {SECONDS:g} s without an end; does one of its loops never end?"


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Raise an error in this thread if the ``with`` statement takes longer."""
    thread = ctypes.c_ulong(threading.get_ident())

    def stop() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_OutOfTimeError))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
