"""`check`: examines an answer, from a file or from a notebook."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..arguments import between, shown
from ..errors import InputError
from .catalogue import Exercise, exercise
from .process.runner import SECONDS, check_file, stages_to, stopped_after
from .verdict import Verdict


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
    from .checker.failures import LearnersError, StopError
    from .checker.property_task import PropertyTask

    class OutOfTimeError(StopError):
        pass

    if isinstance(task, PropertyTask) and not __debug__:
        raise InputError(
            "a property says what is wrong by assert, which Python leaves out if it runs with -O"
        )
    verdict = Verdict(chosen.number, chosen.title, _name_of(answer), hints=list(task.hints))
    last = "runs"

    def watch(stage: str, case: str) -> None:
        nonlocal last
        last, verdict.input = stage, case

    try:
        with _stopped_after(SECONDS, OutOfTimeError):
            Examination(task, verdict, watch).run(prepared(answer, task))
    except (LearnersError, OutOfTimeError) as error:
        verdict.problem = str(error) or stopped_after(SECONDS)
        verdict.stages = stages_to(last, task.stages())
    else:
        if verdict.passed:
            verdict.input = ""
    return verdict


def _name_of(answer: Any) -> str:
    """Return the name of a kernel, function or class; of anything else, how it is written."""
    try:
        name = getattr(answer, "py_func", answer).__name__
    except Exception:
        name = None
    return name if isinstance(name, str) else shown(answer)


@contextmanager
def _stopped_after(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise an error in this thread if the ``with`` statement takes longer."""
    thread = ctypes.c_ulong(threading.get_ident())

    def stop() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(error))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
