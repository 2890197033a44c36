"""Examines one answer: stage by stage, up to the first that fails."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings

from ... import lockstep
from ...errors import TargetUnavailableError
from ...lockstep.profiler.report import Report
from ...lockstep.sanitizer.findings import Findings
from ..verdict import Picture, Stage, Verdict
from .failures import NOT_OF_THE_ANSWER, LearnersError, StopError, said
from .printed import NOWHERE, Printed
from .property_task import PropertyTask, Subject
from .task import Task
from .values import Mistake

MOST_PRINTED = 2000
"""Most characters that are kept of what an answer prints."""

MOST_FINDINGS = 2
"""Most findings of the sanitizer that are shown with a wrong result."""

SECONDS_TO_SHRINK = 4
"""After this time, the smallest case that was found by then is taken."""

LESSON_OF_SECTORS = "06"
"""Sectors are explained to those who have not reached this lesson."""

MOST_TO_DIFFER = 500
"""Inputs that are tried to show what is wrong with a subject that a property did not find."""

Watch = Callable[[str, str], None]


class Examination:
    """An examination of one answer.

    Parameters
    ----------
    task : Task
    verdict : Verdict
        Filled in.
    watch : callable
        Called with the name of the stage and the description of the case before each run.
    """

    def __init__(self, task: Task, verdict: Verdict, watch: Watch) -> None:
        self.task, self.verdict, self.watch = task, verdict, watch
        self.stage = "runs"
        self.printed = Printed(MOST_PRINTED)
        self.answer: Any = None
        self.of_worked: Mistake | None = None

    def run(self, answer: Any) -> None:
        """Examine an answer, a kernel, function or class; the verdict then has each stage of the task."""
        self.answer = answer
        methods = {
            "runs": self._runs,
            "right": self._right,
            "sanitizer": self._sanitizer,
            "traffic": self._traffic,
            "kills": self._kills,
        }
        names = self.task.stages()
        for i, name in enumerate(names):
            self.stage = name
            failed = methods[name]()
            self.verdict.stages.append(Stage(name, "failed" if failed else "passed"))
            if failed:
                self.verdict.stages += [Stage(later, "not reached") for later in names[i + 1 :]]
                break
        self.verdict.printed = self.printed.text

    def _attempt(self, case: Any, quiet: bool = True) -> Mistake | None:
        """Run the answer on a case; an error that it raises is a mistake."""
        self.verdict.num_cases += 1
        self.watch(self.stage, self.task.describe(case))
        return self._tried(case, NOWHERE if quiet else self.printed)

    def _tried(self, case: Any, printed: Printed) -> Mistake | None:
        with contextlib.redirect_stdout(printed):
            try:
                return self.task.attempt(self.answer, case)
            except NOT_OF_THE_ANSWER:
                raise
            except BaseException as error:  # also of `sys.exit` and `pytest.fail`
                return Mistake(said(error), raised=True)

    def _runs(self) -> bool:
        case = self.task.worked()
        # Lockstep runs some kernels that Numba does not compile.
        with lockstep.options(check_compiles=self.task.launches and can_compile()):
            mistake = self.of_worked = self._attempt(case, quiet=False)
        if mistake is None or not mistake.raised:
            return False
        self._explain(case, mistake)
        return True

    def _right(self) -> bool:
        found = self._smallest()
        if found is None:
            return False
        case, mistake = found
        self._explain(case, mistake)
        if self.task.launches and not mistake.raised:
            # A race or a read of unwritten memory may be the cause.
            findings, _ = self._sanitized(case)
            self.verdict.finding = "\n\n".join(map(str, findings.errors[:MOST_FINDINGS]))
        return True

    def _smallest(self) -> tuple[Any, Mistake] | None:
        """Return the smallest case on which the answer is wrong, and what is wrong."""
        first = None
        for case in self.task.boundaries():
            mistake = self._attempt(case)
            if mistake is not None:
                first = case, mistake
                break
        else:
            if self.of_worked is not None:
                first = self.task.worked(), self.of_worked
        drawn = self._drawn()
        both = [one for one in (drawn, first) if one is not None]
        return min(both, key=lambda one: self.task.weight(one[0]), default=None)

    def _drawn(self) -> tuple[Any, Mistake] | None:
        """Return the smallest case that Hypothesis finds."""
        found = smallest(
            self.task.cases(), lambda case: self._attempt(case) is not None, self.task.max_examples
        )
        if found is None:
            return None
        mistake = self._attempt(found[0])
        # An answer that depends on what ran before may be right this time.
        return found[0], mistake or Mistake("the same input gives one result now and another one later")

    def _sanitizer(self) -> bool:
        for case in self.task.sanitized():
            self.watch(self.stage, self.task.describe(case))
            self.verdict.num_cases += 1
            findings, mistake = self._sanitized(case)
            if findings.errors and not (mistake and mistake.raised):
                mistake = Mistake("\n\n".join(map(str, findings.errors)))
            if mistake is not None:
                self._explain(case, mistake)
                return True
        return False

    def _sanitized(self, case: Any) -> tuple[Findings, Mistake | None]:
        """Run the answer on a case; return what the sanitizer finds, and what is wrong."""
        with lockstep.sanitizing() as findings:
            mistake = self._tried(case, NOWHERE)
        return findings, mistake

    def _traffic(self) -> bool:
        case = self.task.measured()
        self.watch(self.stage, self.task.describe(case))
        self.verdict.num_cases += 1
        report: Report
        with lockstep.profiling() as report:
            mistake = self._tried(case, NOWHERE)
        if mistake is not None:
            # It was right for all the smaller inputs.
            self._explain(case, mistake)
            return True
        if not report.kernels:
            self._explain(case, Mistake("your answer launched no kernel, so there is no traffic to count"))
            return True
        limits = self.task.limits(report)
        self.verdict.limits = [vars(limit) for limit in limits]
        over = [limit for limit in limits if limit.measured > limit.most]
        if not over:
            return False
        worst = over[0]
        sentence = (
            f"{worst.measured:,} {worst.what}, and {worst.most:,} are enough: {worst.why}".removesuffix(".")
        )
        if "sector" in worst.what and self.task.lesson < LESSON_OF_SECTORS:
            sentence += ". Memory moves in sectors of 32 bytes, each whole"
        self._explain(case, Mistake(sentence))
        return True

    def _kills(self) -> bool:
        task = self.task
        assert isinstance(task, PropertyTask)
        survivors = []
        for subject in task.wrong_subjects():
            killed = self._killed(task, subject)
            self.verdict.kills.append({"name": subject.name, "killed": killed})
            if not killed:
                survivors.append(subject)
        if not survivors:
            # A property that raises after some calls kills them all, and now the right ones, too.
            for case in (task.worked(), *task.boundaries()):
                mistake = self._attempt(case)
                if mistake is not None:
                    self._explain(case, mistake)
                    return True
            return False
        survivor, num = survivors[0], len(self.verdict.kills)
        with survivor.installed() as value:

            def difference(given: Any) -> Mistake | None:
                try:
                    return task.compared(value, given)
                except Exception as error:
                    return Mistake(said(error))

            shown = smallest(task.inputs(), lambda given: difference(given) is not None, MOST_TO_DIFFER)
            mistake = shown and difference(shown[0])
            drawn = task.pictured(value, shown[0]) if shown else None
        if not shown or not mistake:
            raise RuntimeError(f"no input was found on which this subject is wrong: {survivor.name}")
        self.verdict.problem = (
            f"your property finds {num - len(survivors)} of {num} wrong ones; this one passes: {survivor.name}; "
            f"on the input below, {mistake.what}"
        )
        if len(survivors) == num:
            self.verdict.problem += (
                ". Is there an assertion at all, and does no try of yours catch its AssertionError?"
            )
        self.verdict.input = task.describe_input(shown[0])
        self.verdict.got, self.verdict.expected = mistake.got, mistake.expected
        self._draw(drawn)
        return True

    def _killed(self, task: PropertyTask, subject: Subject) -> bool:
        with subject.installed() as value, contextlib.redirect_stdout(NOWHERE):

            def fails(case: Any) -> bool:
                self.verdict.num_cases += 1
                self.watch(self.stage, f"{subject.name}\n{task.describe(case)}")
                return task.kills(self.answer, value, case)

            if any(map(fails, (task.worked(), *task.boundaries()))):
                return True
            # Nothing is shrunk.
            return smallest(task.cases(), fails, task.max_examples, seconds=0) is not None

    def _explain(self, case: Any, mistake: Mistake, picture: bool = True) -> None:
        verdict, task = self.verdict, self.task
        verdict.problem, verdict.got, verdict.expected = mistake.what, mistake.got, mistake.expected
        verdict.raised = mistake.raised
        verdict.input = mistake.input or task.describe(case)
        if not picture:
            return
        with contextlib.redirect_stdout(NOWHERE), contextlib.suppress(LearnersError):
            try:
                drawn = task.picture(self.answer, case)
            except NOT_OF_THE_ANSWER:
                raise
            except BaseException:
                # The answer raises on this case, now or always, or what came out cannot be drawn.
                drawn = None
        self._draw(drawn)

    def _draw(self, drawn: Any) -> None:
        if drawn is not None:
            self.verdict.picture = Picture(drawn.text(), drawn._repr_html_())


@cache
def can_compile() -> bool:
    """Tell whether Numba's type inference can be asked here; where there is no numba.cuda, it cannot."""

    def nothing() -> None:
        """Do nothing."""

    try:
        lockstep.check_compiles(nothing, "void()")
    except TargetUnavailableError:
        return False
    return True


def smallest(
    cases: Any, condition: Callable[[Any], bool], max_examples: int, seconds: float = SECONDS_TO_SHRINK
) -> tuple[Any] | None:
    """Return the smallest case that Hypothesis finds for which a condition holds, in a tuple; None without any."""
    if not max_examples:
        return None
    found: tuple[Any] | None = None
    end = math.inf

    def holds(case: Any) -> bool:
        nonlocal found, end
        if time.monotonic() > end:
            raise _EnoughError
        if not condition(case):
            return False
        # Hypothesis tries smaller cases only, so the last one for which the condition holds is the smallest.
        found = (case,)
        end = min(end, time.monotonic() + seconds)
        return True

    with contextlib.suppress(_EnoughError, hypothesis.errors.NoSuchExample, hypothesis.errors.Flaky):
        # The same cases each time.
        hypothesis.find(cases, holds, settings=_settings(max_examples), random=random.Random(0))
    return found


class _EnoughError(StopError):
    """Ends a search."""


def _settings(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
