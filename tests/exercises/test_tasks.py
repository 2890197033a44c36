"""Each solution passes, each skeleton fails, and each wrong answer fails for the reason that its author names."""

import re
from functools import cache

import pytest

from paged_numba.exercises.catalogue import exercises
from paged_numba.exercises.checker.answers import load, prepared
from paged_numba.exercises.checker.examination import Examination
from paged_numba.exercises.checker.failures import LearnersError
from paged_numba.exercises.checker.property_task import OwnInputs
from paged_numba.exercises.skeletons import lines_to_write
from paged_numba.exercises.verdict import Verdict

ALL = exercises()
WRONG = [(exercise, i) for exercise in ALL for i in range(len(exercise.task().wrong))]


@cache
def task_of(exercise):
    return exercise.task()


def examined(exercise, source, folder):
    """Examine an answer as the process of `check` does."""
    path = folder / exercise.file_name
    path.write_text(source, encoding="utf-8")
    task = task_of(exercise)
    verdict = Verdict(exercise.number, exercise.title, path.name, hints=list(task.hints))
    Examination(task, verdict, lambda stage, case: None).run(prepared(load(path, task), task))
    return verdict


def by_number(value):
    if isinstance(value, tuple):
        exercise, i = value
        return f"{exercise.number:02}-{task_of(exercise).wrong[i].what.replace(' ', '-')}"
    return f"{value.number:02}-{value.name}"


@pytest.mark.parametrize("exercise", ALL, ids=by_number)
def test_solution_passes(exercise, tmp_path):
    verdict = examined(exercise, exercise.solution, tmp_path)
    assert verdict.passed, verdict.text()
    assert verdict.num_cases > len(verdict.stages)
    kinds = {stage.name for stage in verdict.stages}
    assert ("traffic" in kinds) == bool(verdict.limits), "an exercise with launches counts their traffic"


@pytest.mark.parametrize("exercise", ALL, ids=by_number)
def test_skeleton_fails(exercise, tmp_path):
    if task_of(exercise).answer not in re.findall(r"^(?:def|class) (\w+)", exercise.skeleton, re.M):
        with pytest.raises(LearnersError, match=task_of(exercise).answer):
            examined(exercise, exercise.skeleton, tmp_path)
        return
    verdict = examined(exercise, exercise.skeleton, tmp_path)
    assert not verdict.passed
    assert verdict.problem
    assert verdict.input or isinstance(task_of(exercise), OwnInputs)


@pytest.mark.parametrize("case", WRONG, ids=by_number)
def test_wrong_answer_fails_for_its_reason(case, tmp_path):
    exercise, i = case
    wrong = task_of(exercise).wrong[i]
    assert exercise.solution.count(wrong.old) == 1, wrong.old
    verdict = examined(exercise, exercise.solution.replace(wrong.old, wrong.new), tmp_path)
    text = verdict.text()
    failed = [stage.name for stage in verdict.stages if stage.state == "failed"]
    assert failed == [wrong.stage], text
    assert " ".join(wrong.says.split()) in " ".join(text.split()), text


@pytest.mark.parametrize("exercise", ALL, ids=by_number)
def test_form(exercise):
    task, statement = task_of(exercise), exercise.statement
    assert re.fullmatch(rf"{exercise.number:02} · .{{4,60}}", statement.partition("\n")[0])
    said = re.findall(r"# (?:Your code|Mend this part): [^#]*?\((\d+) lines?\)", exercise.skeleton)
    assert sum(map(int, said)) == lines_to_write(exercise.marked) <= 25
    assert len(task.hints) >= 2
    assert len(task.wrong) >= 3
    assert "Shapes::" in statement or not task.kernel
    assert statement.count("::\n") >= 1 + task.kernel, "a picture in text"
    assert "Example: " in statement, "one worked number"
    assert exercise.skeleton != exercise.solution
    assert max(map(len, exercise.skeleton.splitlines())) <= 118
    for text in (exercise.solution, exercise.skeleton):
        compile(text, exercise.file_name, "exec")


def test_there_are_at_least_twenty_in_the_order_of_the_lessons():
    assert [exercise.number for exercise in ALL] == list(range(1, len(ALL) + 1))
    lessons = [task_of(exercise).lesson for exercise in ALL]
    assert lessons == sorted(lessons)
