"""Exercises in which the learner writes the property: what they show of a wrong one, and what does not pass."""

import itertools

import numpy as np
import pytest

from paged_numba import reference
from paged_numba.exercises import check
from paged_numba.exercises.catalogue import exercises
from paged_numba.exercises.checker.examination import smallest
from paged_numba.exercises.checker.property_task import PropertyTask

TASKS = [task for task in (exercise.task() for exercise in exercises()) if isinstance(task, PropertyTask)]
SUBJECTS = [
    (task, subject) for task in TASKS for subject in (task.right_subjects()[0], *task.wrong_subjects())
]


@pytest.mark.parametrize(
    ("task", "subject"), SUBJECTS, ids=lambda one: getattr(one, "answer", None) or one.name
)
def test_inputs_tell_wrong_subjects_from_right_ones(task, subject):
    with subject.installed() as value:
        found = smallest(task.inputs(), lambda given: task.compared(value, given) is not None, 60, seconds=0)
    assert (found is None) == (subject.name == task.right_subjects()[0].name)


def test_there_are_three_and_one_at_least_draws_its_inputs():
    assert len(TASKS) >= 3
    assert any(task.max_examples == 0 for task in TASKS)


def agrees(attend, num_tokens=3):
    query, key, value = np.zeros((1, 1)), np.zeros((num_tokens, 1, 1)), np.arange(num_tokens)[:, None, None]
    right = reference.attention(query[None], key, value)[0]
    np.testing.assert_allclose(attend(query, key, value), right, atol=1e-3)


def test_a_survivor_is_shown_on_an_input_that_the_property_does_not_draw():
    verdict = check(3, agrees)
    assert [stage.state for stage in verdict.stages] == ["passed", "passed", "failed"]
    found = sum(kill["killed"] for kill in verdict.kills)
    assert 0 < found < len(verdict.kills)
    assert f"finds {found} of {len(verdict.kills)} wrong ones" in verdict.problem
    assert verdict.input.startswith("query = [[")
    assert verdict.got != verdict.expected


def test_a_property_that_raises_after_a_while_finds_nothing():
    calls = itertools.count()

    def raises_later(attend):
        agrees(attend)
        assert next(calls) < len(TASKS[0].right_subjects())

    verdict = check(3, raises_later)
    assert all(kill["killed"] for kill in verdict.kills)
    assert [stage.state for stage in verdict.stages] == ["passed", "passed", "failed"]
    assert "refuses the textbook kernel, which is right" in verdict.problem


def test_a_refusal_shows_the_input_and_the_message():
    def refuses(attend):
        agrees(attend, 2)
        raise AssertionError("two tokens")

    verdict = check(3, refuses)
    assert "which is right: two tokens" in verdict.problem
    assert verdict.input.splitlines()[1] == "key = [[[0]], [[0]]]"


def test_a_property_may_run_hypothesis_in_the_process_of_a_check(tmp_path):
    # Hypothesis reads the source of what a failed test called, also that of the exercises.
    exercise = next(exercise for exercise in exercises() if exercise.number == 8)
    path = tmp_path / exercise.file_name
    path.write_text(exercise.solution, encoding="utf-8")
    verdict = check(8, path)
    assert verdict.passed, verdict.text()
    assert list(tmp_path.iterdir()) == [path]


def test_hypothesis_is_as_it_was_after_a_check():
    from hypothesis import settings

    before = settings.default
    check(3, agrees)
    assert settings.default.max_examples == before.max_examples
    assert settings.default.phases == before.phases
