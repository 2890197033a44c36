"""Answers that reach for the check, and those that only look as if they broke it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from paged_numba import exercises
from paged_numba.commands import main as cli
from paged_numba.commands.exercises import check as command
from paged_numba.errors import InputError
from paged_numba.exercises import catalogue
from paged_numba.exercises.checker.values import difference, plain, shown_value
from paged_numba.exercises.folder import PROGRESS
from paged_numba.exercises.process import events, runner
from paged_numba.exercises.verdict.verdict import Verdict

ROOT = Path(__file__).parents[2]
SCALE = catalogue.exercise(1)
SOLUTION = SCALE.solution
FILE = str(catalogue.SOLUTIONS / SCALE.file_name)

# Each of these must fail where it stands; what follows the answer is not reached.
REACHES = {
    "a file by bytes": f"open({os.fsencode(FILE)!r})",
    "a file by a detour": f"open({FILE.replace('exercises', 'lockstep/../exercises', 1)!r})",
    "a file from its folder": f"import os; os.chdir({os.path.dirname(FILE)!r}); open({SCALE.file_name!r})",
    "a file by a link": f"import os; os.symlink({FILE!r}, LINK); open(LINK)",
    "a file by another name": f"import os; os.link({FILE!r}, LINK + '2')",
    "a descriptor": f"import os; os.open({FILE!r}, os.O_RDONLY)",
    "package data": "import pkgutil; pkgutil.get_data('paged_numba', 'exercises/solutions/01_scale.py')",
    "a script": f"import runpy; runpy.run_path({FILE!r})",
    "a module": "import importlib; importlib.import_module('.'.join(['paged_numba', 'exercises', 'tasks']))",
    "a thread": f"in_thread(lambda: open({FILE!r}))",
    "a program": "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
    "a shell": "import os; os.system('true')",
    "frames": "import sys; sys._getframe(1)",
    "frames by inspect": "import inspect; inspect.currentframe().f_back",
    "frames of an error": "frame_of_error()",
    "objects": "import gc; gc.get_objects()",
    "code of a function": "import numpy; numpy.isclose.__wrapped__.__code__ = (lambda: 0).__code__",
    "the record": "import sys; open(sys.argv[3], 'a')",
    "the checker by its name": "import __main__; __main__.main",
}
TRIES = """
def in_thread(call):
    import threading
    failed = []

    def run():
        try:
            call()
        except Exception:
            failed.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed


def frame_of_error():
    try:
        1 / 0
    except ZeroDivisionError as error:
        error.__traceback__.tb_frame


succeeded = []
for name, code in REACHES.items():
    try:
        exec(code)
        succeeded.append(name)
    except BaseException:
        pass
import pathlib
pathlib.Path(PLACE).write_text(repr(succeeded))
"""


def check(path, source, seconds=10):
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return runner.check_file(SCALE, path, seconds)


def said(verdict):
    return " ".join(verdict.text().split())


@pytest.mark.skipif(os.name != "posix", reason="commands of a POSIX shell")
def test_answer_reaches_neither_the_exercises_nor_the_check(tmp_path):
    place = tmp_path / "succeeded"
    source = f"{SOLUTION}\nREACHES = {REACHES!r}\nPLACE = {str(place)!r}\nLINK = PLACE + '.txt'\n{TRIES}"
    verdict = check(tmp_path / "answer.py", source)
    assert place.read_text() == "[]"
    # Catching the error does not help.
    assert not verdict.passed
    assert "must" in verdict.problem


def test_what_an_answer_replaces_is_put_back_before_the_verdict_is_written(tmp_path):
    replaces = """
import json, time
json.JSONEncoder.encode = lambda self, value: '{"done": {}}'
time.monotonic = lambda: 1e18
for one in object.__subclasses__():
    if one.__name__ == "Task":
        one.judge.__globals__["bool"] = lambda value: True
        for task in one.__subclasses__():
            task.rtol, task.attempt = 1e9, lambda self, answer, case: None
"""
    verdict = check(tmp_path / "answer.py", SOLUTION.replace("factor * ", "") + replaces)
    assert not verdict.passed
    assert "which the check uses" in said(verdict)


def test_harmless_oddities_of_a_file_pass_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "helper.py").write_text("")
    for name in ("difflib", "random", "unittest"):  # the check imports some of them late
        (tmp_path / f"{name}.py").write_text("raise ImportError\n")
    odd = """
import helper, os, sys, threading
from dataclasses import dataclass

@dataclass
class Point:
    x: "int"

try:
    assert False
except AssertionError:
    pass
else:
    raise ValueError("assertions are off")

def prints():
    while True:
        print("x" * 1000)

print(os.environ["PYTHONPATH"].partition(os.pathsep)[0])
threading.Thread(target=prints).start()
sys.stdout.close()
sys.setrecursionlimit(400)
os.remove(__file__)
"""
    before = sorted(path.name for path in tmp_path.iterdir())
    source = SOLUTION.replace("import cuda", "import cuda  # é", 1) + odd
    verdict = check(tmp_path / "my answer.2.py", b"\xef\xbb\xbf" + source.replace("\n", "\r\n").encode())
    assert verdict.passed, verdict.text()
    assert verdict.printed.splitlines()[0] == str(ROOT)  # its own place comes first
    assert len(verdict.printed) <= 2000
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_file_that_declares_its_encoding_is_read_so(tmp_path):
    source = f"# -*- coding: latin-1 -*-\nraise ValueError('{chr(233)}')\n"
    assert "ValueError: é" in said(check(tmp_path / "answer.py", source.encode("latin-1")))


ENDS = {
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt answer.py, line 1"),
    "a message, then the end": (
        "import os, sys\nsys.stderr.write('x')\nsys.stderr.flush()\nos._exit(1)",
        "ended the process with status 1",
    ),
    "an error that cannot be said": (
        "class E(BaseException):\n    def __str__(self):\n        return 1 / 0\nraise E",
        "E: (its __str__ raises ZeroDivisionError) answer.py, line 4",
    ),
}


@pytest.mark.parametrize(("source", "says"), ENDS.values(), ids=ENDS)
def test_end_is_blamed_on_the_answer(source, says, tmp_path):
    assert says in said(check(tmp_path / "answer.py", source))


def test_only_lines_with_the_key_count():
    lines = events.line({"stage": "runs"}, "key") + events.line({"done": {}}, "guess")
    cut = events.line({"stage": "right"}, "key")[:-5]
    assert events.read((lines + "no event\n" + cut).encode() + b"\xff", "key") == [{"stage": "runs"}]


def test_end_of_the_process_is_said_with_the_stages_of_the_exercise():
    began = {"verdict": Verdict(3, "title", "a.py").to_dict(), "order": ["runs", "right", "kills"]}
    killed = runner._verdict([began, {"stage": "right", "case": "x = 1"}], -9, "", 60)
    assert killed.problem == "your answer ended the process by SIGKILL"
    assert [stage.state for stage in killed.stages] == ["passed", "failed", "not reached"]
    run = {"stage": "right", "case": ""}
    assert runner._verdict([began, run], None, "", 60).problem.endswith("one of its loops never end?")
    slow = runner._verdict([began, *[run] * 7], None, "", 60).problem
    assert slow == "your answer was stopped after 60 s, in run 7 of it: each run must take less time"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_process_of_the_answer_ends_with_the_command(tmp_path):
    number = tmp_path / "pid"
    answer = tmp_path / "answer.py"
    answer.write_text(
        f"import os\nopen({str(number)!r}, 'w').write(str(os.getpid()))\nwhile True:\n    pass\n"
    )
    words = [sys.executable, "-m", "paged_numba", "check", "1", str(answer)]
    command = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_until(lambda: number.exists() and number.read_text())
    finally:
        command.kill()
        command.wait()
    wait_until(lambda: not runs(int(number.read_text())))


def runs(pid):
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        # One whose parent is gone may stay as a zombie in a container.
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# In this process.


def raising(error):
    def answer(*arguments):
        raise error

    return answer


@pytest.mark.parametrize("error", [GeneratorExit(), SystemExit(2), StopIteration(), MemoryError()], ids=repr)
def test_error_of_any_class_is_a_mistake_of_the_answer(error):
    assert type(error).__name__ in exercises.check(4, raising(error)).problem


def test_pytest_fail_is_a_find_and_a_refusal():
    def check_attention(attend):
        attend(np.ones((1, 2)), np.ones((1, 1, 2)), np.ones((1, 1, 2)))
        pytest.fail("all are wrong")

    problem = exercises.check(3, check_attention).problem
    assert problem.startswith(f"Failed: all are wrong\n{Path(__file__).name}, line")


def test_property_cannot_tell_wrong_functions_by_their_class():
    def check_attention(attend):
        attend(np.ones((1, 2), np.float32), np.ones((1, 1, 2)), np.ones((1, 1, 2)))
        assert type(attend).__name__ == "Watched"

    assert "finds 0 of" in exercises.check(3, check_attention).problem


class Yes:
    """Says that it is equal to anything, and does not say what it is."""

    def __eq__(self, other):
        return True

    __hash__ = None

    def __repr__(self):
        raise ValueError

    def insert(self, *arguments):
        return None

    def find(self, *arguments):
        return Yes()


def test_value_that_claims_to_be_equal_is_not():
    assert difference("x", Yes(), 3)
    assert difference("x", [Yes()], [3])
    assert difference("x", (np.int64(3), [4.0]), (3, [4])) is None
    assert repr(plain(Yes())) == "a Yes, whose __repr__ raises ValueError"
    assert len(shown_value("x" * 10**6)) < 3000
    verdict = exercises.check(24, lambda block_size: Yes())
    assert not verdict.passed
    assert "a Yes, whose __repr__" in verdict.got


@pytest.mark.parametrize(
    "answer", [None, 3, type("M", (), {"__getattr__": lambda self, name: 1 / 0})()], ids=[*"abc"]
)
def test_thing_that_is_no_kernel_is_refused(answer):
    assert "must be a kernel, decorated with @cuda.jit" in exercises.check(1, answer).problem


# Commands.


def test_progress_of_somebody_else_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(PROGRESS).write_text("[" * 100_000)
    assert cli.main(["progress"]) == 2
    Path(PROGRESS).unlink()
    Path(PROGRESS).mkdir()
    assert cli.main(["progress"]) == 2
    assert capsys.readouterr().err.count("must be the progress that paged-numba wrote") == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_pipes_are_not_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(PROGRESS)
    assert cli.main(["progress"]) == 2
    os.mkfifo("answer.py")
    assert cli.main(["check", "1", "answer.py"]) == 2
    assert "got a pipe or a device" in capsys.readouterr().err


def test_error_of_the_checker_has_no_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("01_scale.py").write_text(SOLUTION)
    monkeypatch.setattr(runner, "_run", lambda *arguments: (1, 1, "NameError: x"))
    assert cli.main(["check", "1"]) == 2
    assert "the check itself failed: please report this\nNameError: x" in capsys.readouterr().err


def test_watch_goes_on_when_the_file_is_gone_for_a_moment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("01_scale.py").write_text(SOLUTION)
    outcomes = iter([1, InputError("no such file"), 0, KeyboardInterrupt()])

    def examine(*arguments):
        outcome = next(outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(command, "_check", examine)
    monkeypatch.setattr(command, "_next_version", lambda path, seen: seen)
    assert cli.main(["check", "1", "--watch"]) == 0
    assert capsys.readouterr().err.count("Waiting for") == 3


def test_verdict_of_the_command_is_json_whatever_the_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("</script>é.py".replace("/", "_")).write_text("raise ValueError('\\ud800')\n")
    assert cli.main(["check", "1", "<_script>é.py", "--json", "--html", "page.html"]) == 1
    assert not json.loads(capsys.readouterr().out)["passed"]
    assert "<_script>" not in Path("page.html").read_text(encoding="utf-8")


def test_signal_without_a_name_is_said_by_its_number():
    assert runner._signal(signal.SIGTERM) == "SIGTERM"
    assert runner._signal(99) == "signal 99"
