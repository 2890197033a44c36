"""`Task`: how an answer to an exercise is run, and what is expected of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st

from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from .values import Mistake, assigned, difference, size_of


@dataclass(frozen=True)
class Limit:
    """A count of the profiler, and the most that it may be.

    Attributes
    ----------
    what : str
        What is counted, such as ``sectors loaded from x``.
    measured, most : int
    why : str
        Where the limit comes from, as a sentence.
    """

    what: str
    measured: int
    most: int
    why: str


@dataclass(frozen=True)
class Wrong:
    """A plausible wrong answer: the solution with one place changed, and why it must fail.

    Attributes
    ----------
    what : str
        What is wrong.
    old, new : str
        Text of the solution, which occurs once in it, and what the learner wrote in its place.
    stage : str
        Where it fails: ``runs``, ``right``, ``sanitizer``, ``traffic`` or, for a property, ``kills``.
    says : str
        Part of the verdict's text that tells the learner the reason.
    """

    what: str
    old: str
    new: str
    stage: str
    says: str


class Task:
    """Base class of tasks: says how an answer is run, and what is expected of it.

    A case is one input: a dataclass of arrays and numbers, as a rule. `run` gets a copy of it, and the answer must
    leave the copy as it was. Arrays to write to are made in `run`, filled with what shows if it is not overwritten.
    """

    answer: ClassVar[str]
    """Name of the kernel, function or class that the learner writes."""

    kernel: ClassVar[bool] = True
    """Whether the answer is a kernel. It is then wrapped so that ``answer[blocks, threads](...)`` runs on lockstep."""

    launches: ClassVar[bool] = True
    """Whether `run` launches kernels, so that the sanitizer and the profiler have something to see."""

    lesson: ClassVar[str]
    """Name of the lesson that explains what is needed, such as ``01_threads``."""

    hints: ClassVar[tuple[str, ...]]
    """Sentences that say more each: the last one nearly gives the answer."""

    wrong: ClassVar[tuple[Wrong, ...]]
    """At least three wrong answers, each of which must fail for its reason."""

    max_examples: ClassVar[int] = 50
    """Cases that Hypothesis draws."""

    rtol: ClassVar[float] = 1e-5
    """Relative error that rounding explains, for floats."""

    atol: ClassVar[float] = 1e-6
    """Absolute error that rounding explains, for floats."""

    may_use: ClassVar[tuple[str, ...]] = ()
    """Names of `paged_numba` that an answer may use beside `cuda`, `draw` and `lockstep`."""

    def worked(self) -> Any:
        """Return the case that the statement works out; the first to be run."""
        raise NotImplementedError

    def boundaries(self) -> Sequence[Any]:
        """Return cases at boundaries, small ones first; all of them are run."""
        return ()

    def cases(self) -> st.SearchStrategy[Any]:
        """Return what draws cases; they shrink towards the simplest."""
        raise NotImplementedError

    def run(self, answer: Any, case: Any) -> dict[str, Any]:
        """Run an answer on a case and return what came out, by name."""
        raise NotImplementedError

    def expected(self, case: Any) -> dict[str, Any]:
        """Return what should come out, by name."""
        raise NotImplementedError

    def judge(self, case: Any, result: dict[str, Any]) -> Mistake | None:
        """Return the first difference between what came out and what should, or None."""
        for name, right in self.expected(case).items():
            mistake = difference(name, result[name], right, self.rtol, self.atol)
            if mistake is not None:
                return mistake
        return None

    def describe(self, case: Any) -> str:
        """Return a case as lines of text, which the learner can type in."""
        if is_dataclass(case):
            named = {field.name: getattr(case, field.name) for field in fields(case)}
        else:
            named = case if isinstance(case, dict) else {"input": case}
        return "\n".join(assigned(name, value) for name, value in named.items())

    def picture(self, answer: Any, case: Any) -> Picture | None:
        """Return a picture of what the answer does with a case, or None; `case` is the one that failed."""
        del answer, case
        return None

    def sanitized(self) -> Sequence[Any]:
        """Return the cases that the sanitizer watches: the worked one and those at boundaries, unless overridden."""
        return [self.worked(), *self.boundaries()]

    def measured(self) -> Any:
        """Return the case whose traffic is counted."""
        return self.worked()

    def limits(self, report: Report) -> Sequence[Limit]:
        """Return the counts of the profile of the measured case that have a limit."""
        del report
        return ()

    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages that an answer goes through."""
        return ("runs", "right", *("sanitizer", "traffic") * self.launches)

    def attempt(self, answer: Any, case: Any) -> Mistake | None:
        """Run an answer on a copy of a case; return what is wrong with the outcome."""
        given = copy.deepcopy(case)
        result = self.run(answer, given)
        changed = difference_of_inputs(case, given)
        return changed or self.judge(case, result)

    def weight(self, case: Any) -> int:
        """Return how large a case is: of two that fail, the smaller one is shown."""
        return size_of(case)


def difference_of_inputs(case: Any, given: Any) -> Mistake | None:
    """Return which array of a case the answer has changed, or None."""
    before, after = (vars(one) if hasattr(one, "__dict__") else one for one in (case, given))
    if not isinstance(before, dict):
        before, after = {"its input": before}, {"its input": after}
    for name, value in before.items():
        if not _same(value, after[name]):
            return Mistake(
                f"your answer wrote to {name}, which is an input",
                assigned(name, after[name]),
                assigned(name, value),
            )
    return None


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, also arrays in lists and in dataclasses; NaN is equal to NaN."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, np.asarray(other), equal_nan=one.dtype.kind in "fc")
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if is_dataclass(one):
        return all(_same(value, vars(other)[name]) for name, value in vars(one).items())
    return bool(one == other)
