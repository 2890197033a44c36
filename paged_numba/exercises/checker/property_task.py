"""`PropertyTask`: the learner writes the property, and the score is how many wrong subjects it finds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from .task import Task
from .values import Mistake


@dataclass(frozen=True)
class Subject:
    """A kernel, operation or allocator that a property is tried on.

    Attributes
    ----------
    name : str
        What is wrong with it, or what it is if it is right.
    installed : callable
        Returns a context manager; the property is called with its value, within it.
    shows : str
        For a wrong one: an input on which it is wrong, and what comes out there. The learner sees it if it survives.
    """

    name: str
    installed: Callable[[], AbstractContextManager[Any]]
    shows: str = ""


class PropertyTask(Task):
    """Base class of tasks in which the learner writes a property.

    The answer is a function of a subject and a case, which raises AssertionError if the subject is wrong.
    """

    kernel: ClassVar[bool] = False
    launches: ClassVar[bool] = False

    def right_subjects(self) -> Sequence[Subject]:
        """Return subjects that a property must not refuse."""
        raise NotImplementedError

    def wrong_subjects(self) -> Sequence[Subject]:
        """Return subjects that a property should find, easy ones first."""
        raise NotImplementedError

    def call(self, answer: Any, subject: Any, case: Any) -> None:
        """Call the learner's property."""
        answer(subject, case)

    def cases_for(self, answer: Any) -> Any:
        """Return the strategy that draws cases: that of the task, unless the learner writes it, too."""
        del answer
        return self.cases()

    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages that an answer goes through."""
        return ("runs", "right", "kills")

    def attempt(self, answer: Any, case: Any) -> Mistake | None:
        """Try the property on the right subjects; return which one it refuses."""
        for subject in self.right_subjects():
            with subject.installed() as value:
                try:
                    self.call(answer, value, copy.deepcopy(case))
                except AssertionError as refusal:
                    why = str(refusal).strip().splitlines()
                    what = f"your property refuses {subject.name}, which is right"
                    return Mistake(f"{what}: {why[0]}" if why else what)
        return None

    def kills(self, answer: Any, subject: Any, case: Any) -> bool:
        """Tell whether the property finds a wrong subject by a case; any error is a find."""
        try:
            self.call(answer, subject, copy.deepcopy(case))
        except Exception:
            return True
        return False
