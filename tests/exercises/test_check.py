"""Whatever a learner's file does, the check says what is wrong with it, and passes only a right answer."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paged_numba import exercises
from paged_numba.commands import main as cli
from paged_numba.exercises import catalogue
from paged_numba.exercises.checker.answers import load, prepared
from paged_numba.exercises.checker.failures import LearnersError
from paged_numba.exercises.folder import PROGRESS
from paged_numba.exercises.process import runner as process
from paged_numba.exercises.verdict import Verdict

ROOT = Path(__file__).parents[2]
SCALE = catalogue.exercise(1)
SOLUTION = SCALE.solution
WRITE = "out[i] = factor * x[i]"

# Told when the file is loaded.
REFUSED = {
    "raises": (f"{SOLUTION}\nraise ValueError('oops')\n", "ValueError: oops\nanswer.py, line 33"),
    "raises what is no Exception": (f"{SOLUTION}\nraise GeneratorExit\n", "cannot be run: GeneratorExit"),
    "ends by sys.exit": (f"{SOLUTION}\nimport sys\nsys.exit(0)\n", "ends the process by SystemExit: 0"),
    "is not Python": ("def (\n", "is not Python: line 1: invalid syntax"),
    "holds a null": ("x = '\0'\n", "is not Python"),
    "does not define the answer": ("def other():\n    pass\n", "must define scale, got other"),
    "is empty": ("", "must define scale, got nothing"),
    "no decorator": (
        SOLUTION.replace("@cuda.jit\n", ""),
        "must be a kernel, decorated with @cuda.jit, got a function",
    ),
    "a number": ("scale = 3\n", "must be a kernel, decorated with @cuda.jit, got int"),
    "imports the exercises": (
        f"from paged_numba.exercises import catalogue\n{SOLUTION}",
        "must be your own, got paged_numba.exercises in line 1",
    ),
    "imports an operation": (
        "from paged_numba import write_kv as scale\n",
        "got paged_numba.write_kv in line 1",
    ),
    "imports all": (
        f"import paged_numba as pn\n{SOLUTION}\npn.reference\n",
        "got paged_numba.reference in line 3",
    ),
    "takes a kernel of the package": (
        "import importlib\nscale = importlib.import_module('paged_numba.kernels').write_kv_kernel\n",
        "must be your own, got paged_numba.kernels",
    ),
}


@pytest.mark.parametrize(("source", "says"), REFUSED.values(), ids=REFUSED)
def test_file_that_cannot_be_an_answer_is_refused(source, says, tmp_path):
    path = tmp_path / "answer.py"
    path.write_text(source, encoding="utf-8")
    task = SCALE.task()
    with pytest.raises(LearnersError) as refusal:
        prepared(load(path, task), task)
    assert says in str(refusal.value)


def test_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "answer.py"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LearnersError, match=r"answer\.py must be text in UTF-8"):
        load(path, SCALE.task())


# Seen only where the file runs in a process of its own.
HOSTILE = {
    "ends the process": (f"{SOLUTION}\nimport os\nos._exit(0)\n", "ended the process with status 0"),
    "never ends": (
        SOLUTION.replace(WRITE, f"while i < x.size:\n            {WRITE}\n            i += 0"),
        "stopped after 5 s without an end",
    ),
    "has a loop that changes nothing": (
        SOLUTION.replace(WRITE, f"while i < x.size:\n            {WRITE}"),
        "Does the loop change what its condition tests?",
    ),
    "never ends as it is loaded": (
        f"{SOLUTION}\nwhile True:\n    pass\n",
        "stopped after 5 s without an end",
    ),
    "writes to an input": (
        SOLUTION.replace(WRITE, f"{WRITE}\n        x[i] = 0"),
        "wrote to x, which is an input",
    ),
    "takes its arguments in another order": (
        SOLUTION.replace("out, x, factor", "x, out, factor"),
        "must have the arguments out, x, factor, got x, out, factor",
    ),
    "replaces what compares": (f"import numpy\nnumpy.isclose = all\n{SOLUTION}", "replaces numpy.isclose"),
    "replaces it later": (
        SOLUTION + "\nimport numpy, threading\n"
        "threading.Timer(0.01, lambda: setattr(numpy, 'isclose', lambda *a, **k: numpy.ones(1, bool))).start()\n"
        + "import time\ntime.sleep(0.1)\n",
        "replaces numpy.isclose",
    ),
    "replaces the checker": (
        f"for one in object.__subclasses__():\n"
        f"    if one.__name__ == 'Examination':\n        one._right = lambda self: False\n"
        f"{SOLUTION.replace(WRITE, 'out[i] = 0')}",
        "Examination._right, which the check uses",
    ),
    "reads the solution": (
        f"import importlib\nimportlib.import_module('.'.join(['paged_numba', 'exercises']))\n{SOLUTION}",
        "must be your own, but answer.py reads the exercises",
    ),
}


@pytest.mark.parametrize(("source", "says"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_fails_with_that_said(source, says, tmp_path):
    path = tmp_path / "answer.py"
    path.write_text(source, encoding="utf-8")
    verdict = process.check_file(SCALE, path, seconds=5)
    assert not verdict.passed
    assert says in " ".join(verdict.text().split()), verdict.text()


def test_what_the_file_prints_is_shown_once(tmp_path):
    path = tmp_path / "answer.py"
    path.write_text(f"print('hello')\n{SOLUTION}", encoding="utf-8")
    verdict = process.check_file(SCALE, path)
    assert verdict.passed
    assert verdict.printed == "hello\n"


def test_modules_of_the_learner_do_not_replace_those_of_the_checker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("random.py").write_text("raise ImportError\n")
    Path("helper.py").write_text("ten = 10\n")
    Path("answer.py").write_text(f"import helper\nassert helper.ten == 10\n{SOLUTION}", encoding="utf-8")
    assert process.check_file(SCALE, Path("answer.py")).passed


def test_check_that_ran_no_test_is_our_error():
    empty = Verdict(1, "title", "answer.py").to_dict()
    empty["stages"] = [{"name": "runs", "state": "passed"}]
    with pytest.raises(RuntimeError, match="ran no test"):
        process._verdict([{"verdict": empty, "order": ["runs"]}, {"done": empty}], 0, "", 1)


def test_error_of_the_checker_is_not_blamed_on_the_answer():
    with pytest.raises(RuntimeError, match=r"the check itself failed(.|\n)*NameError"):
        process._verdict([], 1, "NameError: x", 1)


# From Python.


def test_kernel_of_a_notebook_is_checked_in_place(tmp_path):
    path = tmp_path / "answer.py"
    path.write_text(SOLUTION.replace("factor * ", ""), encoding="utf-8")
    verdict = exercises.check(1, load(path, SCALE.task()), hints=2)
    assert not verdict.passed
    assert (verdict.got, verdict.expected) == ("[1]", "[10]")
    assert verdict.num_hints == 2
    assert "exercises.check(1, scale, hints=3)" in verdict.text()
    assert "<svg" in verdict._repr_html_()


def test_kernel_of_a_notebook_that_never_ends_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("paged_numba.exercises.checking.SECONDS", 0.5)
    path = tmp_path / "answer.py"
    path.write_text(HOSTILE["never ends"][0], encoding="utf-8")
    verdict = exercises.check(1, load(path, SCALE.task()))
    assert not verdict.passed
    assert "stopped after 0.5 s without an end" in verdict.problem


@pytest.mark.parametrize("number", [0, 99, True, "1", 1.5, None])
def test_number_of_no_exercise_is_refused(number):
    with pytest.raises(
        (TypeError, ValueError), match=r"number must (be an integer|lie in 1 .. \d+ \(the exercises\)), got"
    ):
        exercises.check(number, None)


# Commands.


def run(*words):
    return cli.main(list(words))


def test_an_exercise_from_the_start_to_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("check", "1") == 2
    assert "there is no 01_scale.py here; paged-numba start 1 writes it" in capsys.readouterr().err
    assert run("start", "1") == 0
    assert "Then: paged-numba check 1" in capsys.readouterr().out
    skeleton = Path("01_scale.py").read_text(encoding="utf-8")
    assert skeleton == SCALE.skeleton

    assert run("start", "1") == 2
    assert "01_scale.py exists and stays as it is" in capsys.readouterr().err
    assert Path("01_scale.py").read_text(encoding="utf-8") == skeleton

    assert run("check", "1", "--hint", "--hint", "--html", "page.html") == 1
    said = capsys.readouterr().out
    assert "This is still the skeleton" in said
    assert "Hint 2 of" in said
    assert "--hint --hint --hint" in said
    assert "\x1b" not in said
    assert "Hint 2 of" in Path("page.html").read_text(encoding="utf-8")
    assert run("progress") == 0
    assert f"0 of {len(catalogue.exercises())} done. Next: paged-numba check 1" in capsys.readouterr().out

    Path("01_scale.py").write_text(SOLUTION, encoding="utf-8")
    assert run("check", "1", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["passed"]
    assert Verdict.from_dict(verdict).passed
    assert run("progress") == 0
    assert f"1 of {len(catalogue.exercises())} done." in capsys.readouterr().out
    assert list(json.loads(Path(PROGRESS).read_text())) == ["1"]

    Path(PROGRESS).write_text("[]")
    assert run("progress") == 2
    assert f"{PROGRESS} must be the progress that paged-numba wrote" in capsys.readouterr().err
    assert run("check", "1") == 0
    assert "the progress is not written down" in capsys.readouterr().err


def test_without_hypothesis_the_check_names_the_command_that_brings_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("start", "1")
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    assert run("check", "1") == 2
    assert "pip install hypothesis installs it" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "99", "one", "-1"])
def test_the_command_refuses_numbers_of_no_exercise(number, capsys):
    assert run("start", number) == 2
    assert "N" in capsys.readouterr().err


def test_watch_checks_again_when_the_file_is_saved(tmp_path):
    path = tmp_path / "01_scale.py"
    path.write_text(SCALE.skeleton, encoding="utf-8")
    command = [sys.executable, "-m", "paged_numba", "check", "1", str(path), "--watch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    try:
        lines = iter(watching.stdout.readline, "")
        assert any("FAILED" in line for line in lines)
        assert any("For a hint" in line for line in lines)
        time.sleep(0.3)
        # As editors do: a new file takes the place of the old one.
        saved = tmp_path / "saved"
        saved.write_text(SOLUTION, encoding="utf-8")
        saved.replace(path)
        assert any("Done:" in line for line in lines)
    finally:
        watching.kill()
        watching.communicate()


def test_colour_marks_the_stages_in_a_terminal():
    verdict = Verdict(1, "title", "answer.py", stages=[process.Stage("runs", "failed")])
    assert "\x1b[31;1mFAILED" in verdict.text(colour=True)


def test_wheel_in_an_empty_folder_has_the_exercises(tmp_path):
    pytest.importorskip("hatchling", reason="pip install '.[test]' brings hatchling")
    place, folder = tmp_path / "place", tmp_path / "empty"
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(place), str(ROOT)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(place)}

    def installed(*words):
        command = [sys.executable, "-m", "paged_numba", *words]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    assert installed("start", "1").returncode == 0
    assert installed("check", "1").returncode == 1
    answer = folder / "01_scale.py"
    answer.write_text(
        answer.read_text(encoding="utf-8").replace(
            "pass", "i = cuda.grid(1)\n    if i < x.size:\n        " + WRITE
        )
    )
    done = installed("check", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done:" in done.stdout
