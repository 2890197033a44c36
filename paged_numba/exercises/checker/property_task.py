"""`PropertyTask`: the learner writes the property, and the score is how many wrong subjects it finds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from ...draw.picture import Picture
from .failures import NOT_OF_THE_ANSWER, cut, said, said_briefly
from .task import Task
from .values import Mistake

PROFILE = "paged-numba exercises"
"""Hypothesis settings of tests that the learner's property runs."""

MOST_LINES = 12
"""Most lines of the learner's message that are shown."""


@dataclass(frozen=True)
class Subject:
    """A kernel, operation or allocator that a property is tried on.

    Attributes
    ----------
    name : str
        What is wrong with it, or what it is if it is right.
    installed : callable
        Returns a context manager; the property is called with its value, within it.
    """

    name: str
    installed: Callable[[], AbstractContextManager[Any]]


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

    def call(self, answer: Any, subject: Any, case: Any) -> Any:
        """Call the learner's property."""
        return answer(subject, case)

    def inputs(self) -> st.SearchStrategy[Any]:
        """Return what draws inputs: on one of them, a wrong subject that was not found is shown to be wrong."""
        return self.cases()

    def compared(self, subject: Any, given: Any) -> Mistake | None:
        """Return what comes out of a subject on an input beside what should, or None if that is the same."""
        raise NotImplementedError

    def describe_input(self, given: Any) -> str:
        """Return an input as lines of text."""
        return self.describe(given)

    def pictured(self, subject: Any, given: Any) -> Picture | None:
        """Return a picture of what a wrong subject does with an input, or None."""
        del subject, given
        return None

    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages that an answer goes through."""
        return ("runs", "right", "kills")

    def attempt(self, answer: Any, case: Any) -> Mistake | None:
        """Try the property on the right subjects; return which one it refuses."""
        for subject in self.right_subjects():
            with subject.installed() as value:
                try:
                    returned = self.call(answer, value, copy.deepcopy(case))
                except AssertionError as refusal:
                    return Mistake(_refused(subject, refusal))
                except Exception as error:
                    what = f"your property ends with an error on {subject.name}, which is right"
                    return Mistake(f"{what}\n{said(error)}", raised=True)
            if isinstance(returned, (bool, np.bool_)):
                return _returns(returned)
        return None

    def kills(self, answer: Any, subject: Any, case: Any) -> bool:
        """Tell whether the property finds a wrong subject by a case; any error is a find."""
        try:
            self.call(answer, subject, copy.deepcopy(case))
        except NOT_OF_THE_ANSWER:
            raise
        except BaseException:  # also of `pytest.fail`
            return True
        return False


class OwnInputs(PropertyTask):
    """Base class of tasks in which the property makes its inputs, too: it is a function of the subject alone.

    A subject is a function, and an input is the tuple of its arguments. There is no case: the last call that the
    property made takes its place. Under Hypothesis, that is the smallest input that fails.
    """

    max_examples: ClassVar[int] = 0

    def worked(self) -> None:
        """Return no case."""

    def cases(self) -> st.SearchStrategy[Any]:
        """Return what draws no case."""
        return st.none()

    def inputs(self) -> st.SearchStrategy[Any]:
        """Return what draws the arguments of a subject."""
        raise NotImplementedError

    def describe(self, case: Any) -> str:
        """Return no text: the property makes its inputs."""
        del case
        return ""

    def describe_input(self, given: Any) -> str:
        """Return the arguments of a subject as lines of text."""
        raise NotImplementedError

    def accuracy(self, subject: Any, given: Any) -> str:
        """Return how far a right subject is from the exact result, or no text if they are equal."""
        del subject, given
        return ""

    def call(self, answer: Any, subject: Any, case: Any) -> None:
        """Call the learner's property; Hypothesis looks for no smaller input, since any that fails is enough."""
        del case
        with quick_hypothesis([Phase.explicit, Phase.generate]):
            answer(Watched(subject))

    def attempt(self, answer: Any, case: Any) -> Mistake | None:
        """Try the property on the right subjects; return which one it refuses, with the last input."""
        del case
        for subject in self.right_subjects():
            with subject.installed() as value, quick_hypothesis([*Phase]):
                watched = Watched(value)
                try:
                    returned = answer(watched)
                except AssertionError as refusal:
                    what, given = _refused(subject, refusal), watched.given
                    if given is None:
                        return Mistake(what)
                    close = self.accuracy(value, given)
                    return Mistake(f"{what}\n{close}" if close else what, input=self.describe_input(given))
                if watched.given is None:
                    what = "your property never calls the function that it is given"
                    return Mistake(f"{what}; a test with @given runs only when it is called itself")
                if isinstance(returned, (bool, np.bool_)):
                    return _returns(returned)
        return None


class Watched:
    """A subject that keeps the arguments of its last call."""

    def __init__(self, subject: Callable[..., Any]) -> None:
        self._subject = subject
        self.given: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the subject."""
        before = copy.deepcopy(arguments)
        result = self._subject(*arguments)
        self.given = before  # a call that raises does not count
        return result


@contextmanager
def quick_hypothesis(phases: Sequence[Phase]) -> Iterator[None]:
    """In a ``with`` statement, Hypothesis runs tests the same each time, without files and deadlines."""
    before = settings.default
    settings.register_profile(
        PROFILE,
        max_examples=60,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile(PROFILE)
    try:
        yield
    finally:
        settings.register_profile(PROFILE, before)
        settings.load_profile(PROFILE)


def _refused(subject: Subject, refusal: AssertionError) -> str:
    what = f"your property refuses {subject.name}, which is right"
    lines = said_briefly(refusal).strip().splitlines()[:MOST_LINES]
    why = "\n".join(cut(line, 200) for line in lines)
    return f"{what}: {why}" if why else f"{what}: {said(refusal)}"


def _returns(returned: Any) -> Mistake:
    what = f"your property returns {returned}, and nobody looks at that: it must raise AssertionError"
    return Mistake(f"{what}, by assert or np.testing, if the result is wrong")
