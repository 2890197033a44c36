"""What the stages after the first wrong result add: findings of the sanitizer, and results of larger inputs."""

import pytest

from paged_numba.exercises import catalogue
from paged_numba.exercises.checker.answers import load, prepared
from paged_numba.exercises.checker.examination import Examination
from paged_numba.exercises.verdict import Verdict


def verdict_of(number, old, new, folder):
    """Examine the solution with one place changed."""
    exercise = catalogue.exercise(number)
    assert exercise.solution.count(old) == 1
    path, task = folder / exercise.file_name, exercise.task()
    path.write_text(exercise.solution.replace(old, new), encoding="utf-8")
    verdict = Verdict(number, exercise.title, path.name)
    Examination(task, verdict, lambda stage, case: None).run(prepared(load(path, task), task))
    return verdict


def failed(verdict):
    return [stage.name for stage in verdict.stages if stage.state == "failed"]


@pytest.mark.parametrize(
    ("new", "finding"),
    [("if thread == 200:", "uninitialised read: tile[0]"), ("if thread == 1:", "")],
    ids=["nothing in the first place", "the wrong number in it"],
)
def test_wrong_result_comes_with_what_the_sanitizer_finds(new, finding, tmp_path):
    verdict = verdict_of(11, "if thread == 0:", new, tmp_path)
    title = "In the same run, the sanitizer finds:"
    assert failed(verdict) == ["right"]
    assert verdict.finding.startswith(finding)
    for text in (verdict.finding, verdict.text(), verdict.page()):
        assert ("uninitialised read" in text) == bool(finding)
    assert (title in verdict.text()) == (title in verdict.page()) == bool(finding)


def test_lanes_that_write_different_sums_are_found(tmp_path):
    verdict = verdict_of(
        19,
        """        part += cuda.shfl_xor_sync(ALL, part, distance)
    if g == 0 and token < scores.size:
""",
        """        part += cuda.shfl_down_sync(ALL, part, distance)
    if token < scores.size:
""",
        tmp_path,
    )
    assert failed(verdict) == ["right"]
    assert "write different" in verdict.finding


def test_result_that_is_wrong_for_the_measured_input_alone_fails(tmp_path):
    verdict = verdict_of(1, "if i < x.size:", "if i < x.size and x.size != 80:", tmp_path)
    assert failed(verdict) == ["traffic"]
    assert "elements of out are wrong" in verdict.problem
    assert "It moves too much" not in verdict.text()
