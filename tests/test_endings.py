"""However a program or a command ends, its report is printed, and its status says what happened."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.commands import main as cli
from paged_numba.lockstep.cuda import facade
from paged_numba.lockstep.observe import observer

PROGRAM = """
import asyncio, atexit, os, sys, threading, time
import numpy as np
from numba import cuda

@cuda.jit
def sound(x):
    x[cuda.grid(1)] = 1

@cuda.jit
def racy(x):
    x[0] = cuda.grid(1)

@cuda.jit
def failing(x):
    assert x[cuda.grid(1)]

@cuda.jit
def unsupported(x):
    with x:
        pass

def launch(kernel):
    kernel[1, 64](np.zeros(64))

def in_thread(function, *given):
    thread = threading.Thread(target=function, args=given)
    thread.start()
    return thread

class Late:
    def __init__(self, kernel):
        self.kernel = kernel

    def run(self):
        time.sleep(0.3)
        launch(self.kernel)
"""

ENDS = {
    "returns": "return 7",
    "exits": "sys.exit()",
    "exits with 0": "sys.exit(0)",
    "exits with 3": "sys.exit(3)",
    "exits with a text": 'raise SystemExit("text")',
    "raises": "1 / 0",
    "raises a BaseException": "raise asyncio.CancelledError",
    "is interrupted": "raise KeyboardInterrupt",
    "fails in a thread": "in_thread(divmod, 1, 0).join()",
    "closes standard output": "sys.stdout.close()",
    "takes standard output": "sys.stdout = None",
    "leaves the folder": 'os.chdir("/")',
}
"""How a program may end after its launch: the statement."""

GOOD = {"returns", "exits", "exits with 0", "takes standard output", "leaves the folder"}


@pytest.fixture
def program(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.chdir(tmp_path)

    def write(*statements, name="f.py"):
        body = "\n".join(f"    {statement}" for statement in statements)
        (tmp_path / name).write_text(f"{PROGRAM}\ndef f():\n{body}\n", encoding="utf-8")
        return f"{name}::f"

    return write


def run(*words):
    """Return the exit status, stdout and stderr of a command, which may close or replace its streams."""
    buffers = io.BytesIO(), io.BytesIO()
    out, err = (Stream(buffer, "utf-8", newline="\n", write_through=True) for buffer in buffers)
    hook = mock.patch.object(threading, "excepthook", threading.__excepthook__)  # not that of pytest
    with hook, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, *(buffer.getvalue().decode() for buffer in buffers)


class Stream(io.TextIOWrapper):
    """A text stream that can be closed without closing what it writes to."""

    def close(self):
        if not self.closed:
            self.detach()

    @property
    def closed(self):
        try:
            return super().closed
        except ValueError:
            return True


@pytest.mark.parametrize("kernel", ["sound", "racy"])
@pytest.mark.parametrize("end", ENDS)
def test_sanitize_prints_what_it_found_however_the_program_ends(program, tmp_path, end, kernel):
    status, out, err = run("sanitize", program(f"launch({kernel})", ENDS[end]), "--json", "found.json")
    shown = err if end == "closes standard output" else out
    assert ("data race: x[0]" in shown) == (kernel == "racy")
    assert "1 launch on the lockstep machine: " in shown
    assert (status == 0) == (kernel == "sound" and end in GOOD)
    if end == "is interrupted":
        assert (status, err) == (130, "paged-numba sanitize: interrupted\n")
        assert not (tmp_path / "found.json").exists()
        return
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["findings"]
    assert len(found) == (kernel == "racy")
    assert status == (2 if end not in GOOD else 1 if kernel == "racy" else 0)
    assert ("paged-numba sanitize: error: " in err) == (end not in GOOD)


@pytest.mark.parametrize("end", ENDS)
def test_profile_prints_its_report_however_the_program_ends(program, tmp_path, end):
    words = program("launch(racy)", ENDS[end]), "--json", "counts.json", "--html", "page.html"
    status, out, err = run("profile", *words)
    assert "racy: 1 launch of 1 thread block of 64 threads" in (
        err if end == "closes standard output" else out
    )
    assert status == (0 if end in GOOD else 130 if end == "is interrupted" else 2)
    written = {path.name for path in tmp_path.iterdir()} & {"counts.json", "page.html"}
    assert len(written) == (0 if end == "is interrupted" else 2)


@pytest.mark.parametrize("command", ["sanitize", "profile"])
@pytest.mark.parametrize("end", ENDS)
def test_a_program_without_launches_is_no_pass(program, command, end):
    status, out, err = run(command, program("if False: yield" if end == "returns" else ENDS[end]))
    assert status == (130 if end == "is interrupted" else 2)
    assert out == ""
    if end in GOOD:
        assert err == f"paged-numba {command}: error: f.py::f must launch a kernel, got no launch\n"


@pytest.mark.parametrize("command", ["sanitize", "profile"])
@pytest.mark.parametrize("statement", ["sys.exit(0)", "raise SystemExit", "1 / 0", "raise GeneratorExit"])
def test_a_file_that_ends_the_program_on_import_is_no_pass(program, tmp_path, command, statement):
    what = program("launch(sound)")
    (tmp_path / "f.py").write_text(f"import sys\n{statement}\ndef f(): pass", encoding="utf-8")
    status, out, err = run(command, what)
    assert (status, out) == (2, "")
    assert f"paged-numba {command}: error: f.py failed: " in err


# Threads.


@facade.jit
def add_one(x):
    x[facade.grid(1)] += 1


def launch(times=1):
    for _ in range(times):
        lockstep.launch(add_one, 2, 64, np.zeros(128, np.float32))


def in_threads(count, function, *given):
    threads = [threading.Thread(target=function, args=given) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Door(observer.Observer):
    """Counts the launches that are inside."""

    def __init__(self):
        self.inside = self.most = 0

    def begin_launch(self, machine, function, arguments):
        self.inside += 1
        time.sleep(0.01)  # for another thread to come in
        self.most = max(self.most, self.inside)

    def end_launch(self, machine):
        self.inside -= 1


def test_observed_launches_run_one_after_the_other():
    door = Door()
    with observer.observing(door):
        in_threads(3, launch)
    assert (door.inside, door.most) == (0, 1)


def test_a_launch_that_nobody_observes_waits_for_no_other():
    inside, done = threading.Event(), threading.Event()

    class Slow(observer.Observer):
        def begin_launch(self, machine, function, arguments):
            inside.set()
            assert done.wait(60)

    def other():
        inside.wait()
        launch()
        done.set()

    stranger = threading.Thread(target=other)
    stranger.start()
    with observer.observing(Slow()):
        launch()
    stranger.join()


def test_launches_of_threads_started_in_the_statement_are_seen_without_loss():
    with lockstep.profiling() as alone:
        launch(24)
    with lockstep.profiling() as report, lockstep.sanitizing() as findings:
        in_threads(4, launch, 3)
        with ThreadPoolExecutor(2) as pool:
            pool.submit(launch, 3).result()
            pool.submit(in_threads, 3, launch, 3).result()  # threads of threads
    assert report.to_dict() == alone.to_dict()
    assert (report.num_unseen, findings.num_unseen) == (0, 0)
    assert repr(findings) == "Findings(no findings)"


def test_launches_of_other_threads_are_counted_as_unseen():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(launch).result()
        with lockstep.profiling() as report, lockstep.sanitizing() as findings:
            launch()
            pool.submit(launch, 2).result()
        pool.submit(launch).result()
    assert sum(kernel["launches"] for kernel in report.kernels) == 1
    assert (report.num_unseen, findings.num_unseen) == (2, 2)
    assert report.text().splitlines()[1] == "2 launches of other threads were not counted"
    assert repr(findings) == "Findings(no findings, 2 launches of other threads were not checked)"
    assert str(findings) == "no findings; 2 launches of other threads were not checked"
    assert report.to_dict()["unseen_launches"] == findings.to_dict()["unseen_launches"] == 2


def test_profiles_of_two_threads_do_not_mix():
    meet, reports = threading.Barrier(2), {}

    def work(times):
        with lockstep.profiling() as report:
            meet.wait()
            launch(times)
            meet.wait()
        reports[times] = report

    threads = [threading.Thread(target=work, args=(times,)) for times in (3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for times, report in reports.items():
        assert [kernel["launches"] for kernel in report.kernels] == [times]
        # The other thread's launches are none of this one's business.
        assert report.num_unseen == 0


def test_a_thread_that_goes_on_after_the_statement_is_not_seen_any_more():
    go, done = threading.Event(), threading.Event()

    def work():
        launch()
        done.set()
        go.wait()
        launch()

    with lockstep.profiling() as report:
        thread = threading.Thread(target=work)
        thread.start()
        done.wait()
    go.set()
    thread.join()
    assert sum(kernel["launches"] for kernel in report.kernels) == 1


def test_a_launch_that_begins_after_the_statement_ended_is_not_seen():
    """The statement ends in one thread while another prepares its launch."""
    between = mock.Mock()
    with contextlib.ExitStack() as statement:
        report = statement.enter_context(lockstep.profiling())
        translate = lockstep.launch.__globals__["translate"]

        def end(*given, **options):
            between()
            statement.close()
            return translate(*given, **options)

        with mock.patch.dict(lockstep.launch.__globals__, translate=end):
            launch()
    assert between.called
    assert report.kernels == []
    assert not lockstep.sanitize(add_one, 1, 32, np.zeros(32, np.float32))


def test_a_failing_observer_leaves_no_lock_behind():
    outside = pytest.raises(ValueError, match="thread_block must lie in the grid")
    with lockstep.profiling() as report, outside, lockstep.tracing((9, 0, 0)):
        launch()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(lockstep.profile(add_one, 1, 32, np.zeros(32))))
    thread.start()
    thread.join(60)
    assert len(seen) == 1
    assert sum(kernel["launches"] for kernel in report.kernels) == 1


class NoLock:
    def __enter__(self, *error):
        pass

    __exit__ = acquire = release = __enter__


def of_anybody():
    return observer._open


MUTANTS = {
    "launches run side by side": (
        "launching", NoLock(), test_observed_launches_run_one_after_the_other,
    ),
    "threads are not followed": (
        "_current", observer._scopes.get, test_launches_of_threads_started_in_the_statement_are_seen_without_loss,
    ),
    "every thread is seen": ("_current", of_anybody, test_profiles_of_two_threads_do_not_mix),
    "nothing is missed": ("miss", lambda: None, test_launches_of_other_threads_are_counted_as_unseen),
    "the statement goes on": (
        "listening", lambda listeners: listeners, test_a_launch_that_begins_after_the_statement_ended_is_not_seen,
    ),
}  # fmt: skip
"""Registries of observers with one mistake each: the name, its replacement, and the test that must find it."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_registry_with_a_mistake_is_noticed(name, monkeypatch):
    replaced, replacement, test = MUTANTS[name]
    monkeypatch.setattr(observer, replaced, replacement)
    with pytest.raises((AssertionError, KeyError, RuntimeError, IndexError)):
        test()


def test_sanitize_sees_threads_and_refuses_those_it_cannot_see(program):
    assert run("sanitize", program("in_thread(launch, sound).join()"))[0] == 0
    status, out, _ = run("sanitize", program("in_thread(launch, racy).join()"))
    assert status == 1
    assert "data race" in out
    statements = (
        "import _thread",
        "launch(sound)",
        "_thread.start_new_thread(launch, (sound,))",
        "time.sleep(0.5)",
    )
    status, out, err = run("sanitize", program(*statements))
    assert status == 2
    assert out.endswith("no findings; 1 launch of other threads was not checked\n")
    assert (
        "f.py::f must start the threads that launch kernels: 1 launch of other threads was not checked" in err
    )


@pytest.mark.parametrize(("kernel", "launches"), [("failing", "2 launches"), ("unsupported", "1 launch")])
def test_an_error_of_a_kernel_that_the_program_catches_is_no_pass(program, kernel, launches):
    failing = f"try: launch({kernel})", "except Exception: pass"
    status, out, err = run("sanitize", program("launch(sound)", *failing))
    assert status == 1
    assert out == f"{launches} on the lockstep machine: no findings; 1 launch ended with an error\n"
    assert err == "paged-numba sanitize: the kernel failed: f.py::f caught the error and went on\n"
    # What a GPU refuses is no error of a kernel.
    refused = "try: sound[1, 2000](np.zeros(64))", "except Exception: pass"
    assert run("sanitize", program("launch(sound)", *refused))[0] == 0


# The project of a file.


def test_a_file_finds_its_project(program, tmp_path, monkeypatch):
    program("launch(sound)", name="kernels.py")
    package = tmp_path / "package" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "data.py").write_text("state = []", encoding="utf-8")
    (package / "inside.py").write_text(
        "import kernels, package.inner.data\nfrom . import data\nassert __name__ == 'package.inner.inside'\n"
        "def f():\n    from package.inner import data as again\n    assert data is again is package.inner.data\n"
        "    kernels.f()\n",
        encoding="utf-8",
    )
    eager = tmp_path / "eager"
    eager.mkdir()
    (eager / "__init__.py").write_text("from .inside import f", encoding="utf-8")
    (eager / "inside.py").write_text("import kernels\ndef f(): kernels.f()", encoding="utf-8")
    (tmp_path / "two.parts.py").write_text("import kernels\ndef f(): kernels.f()", encoding="utf-8")
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "helper.py").write_text("state = []", encoding="utf-8")
    (tests / "test_it.py").write_text(
        "import kernels, helper\ndef test():\n    from helper import state\n"
        "    assert state is helper.state\n    kernels.f()\n",
        encoding="utf-8",
    )
    modules, path = dict(sys.modules), list(sys.path)
    inside = "package/inner/inside.py::f", "eager/inside.py::f", "eager/__init__.py::f", "two.parts.py::f"
    for what in ("tests/test_it.py::test", *inside, tests / "test_it.py::test"):
        assert run("sanitize", what) == (0, "1 launch on the lockstep machine: no findings\n", ""), what
    assert sys.path == path
    assert not {"kernels", "helper", "package", "eager", "test_it"} & set(sys.modules) - set(modules)


@pytest.mark.parametrize("what", ["::ok", "f.py::", "::", "f.py::::"])
def test_half_a_name_is_refused(program, what):
    program("launch(sound)")
    for command in ("profile", "sanitize"):
        status, out, err = run(command, what)
        assert (status, out) == (2, "")
        expected = f"FILE.py::function must name a file and a function, got {what!r}\n"
        assert err.endswith(expected)


# Options that no kernel and no machine can take.

DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"tour --requests {DIGITS}", "argument --requests: must be at most 9223372036854775807, got '99"),
        (f"replay t.csv --pool-tokens {DIGITS}", "argument --pool-tokens: must be at most 9223372036854775807, got "),
        (f"replay t.csv --block-sizes 16 {DIGITS}", "argument --block-sizes: must be at most 9223372036854775807"),
        (f"replay t.csv --requests x{DIGITS}", "argument --requests: must be a positive integer, got 'x999999999"),
        (f"profile write_kv --shape seq_len={DIGITS}", "--shape seq_len must be at most 2147483647, got 'seq_len=99"),
        (f"profile write_kv --shape x{DIGITS}", "--shape takes num_seqs, seq_len, "),
        ("profile write_kv --shape seq_len=\u0663", "--shape seq_len must be a positive integer, got 'seq_len="),
        ("profile write_kv --shape seq_len=3 seq_len=4", "--shape takes each name once, got seq_len=3 and 'seq_len=4'"),
        ("profile write_kv --shape seq_len=3 --shape seq_len=3", "--shape takes each name once, got seq_len=3 and "),
        ("profile write_kv --shape num_seqs=9999999", "must give a cache and a query of at most 4.0 GiB, got 2,1"),
        ("profile write_kv --shape seq_len=1 head_dim=1 num_kv_heads=65536 num_q_heads=65536", "must lie in 1 .. 6"),
        ("profile paged_attention --shape num_q_heads=131072", "--shape must give sizes that a kernel can take, got: "),
        (f"profile {DIGITS}.py::f", "File name too long"),
        (f"replay {DIGITS}", "File name too long"),
        ("replay .", "Is a directory: '.'"),
        ("tour --text .", "Is a directory: '.'"),
    ],
)  # fmt: skip
@pytest.mark.skipif(os.name == "nt", reason="messages of POSIX")
def test_sizes_that_nothing_can_take_are_refused_in_few_words(tmp_path, monkeypatch, words, message):
    if "paged_attention" in words:
        pytest.importorskip("numba")
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*words.split())
    assert (status, out) == (2, "")
    assert message in err
    assert len(err) < 2500


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode on Windows")
def test_names_that_are_no_text_do_not_stop_a_report(program, tmp_path):
    name = os.fsdecode(b"b\xff\n.py")
    try:
        what = program("launch(sound)", name=name)
    except OSError:
        pytest.skip("this file system takes no such name")
    status, out, err = run("profile", what, "--html", f"{name}.html", "--json", f"{name}.json")
    assert (status, err) == (0, "")
    assert r"b\udcff" in out
    page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
    assert r"b\udcff" in page
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["work"][0]["file"] == name
    status, _, err = run("sanitize", f"no{name}::f")
    assert (status, err) == (
        2,
        "paged-numba sanitize: error: nob\\udcff\n.py must be a Python file, got no such file\n",
    )


def test_an_error_without_a_text_has_one(program, monkeypatch):
    monkeypatch.setattr("paged_numba.traces.read", mock.Mock(side_effect=MemoryError))
    assert run("replay", "t.csv") == (2, "", "paged-numba replay: error: out of memory\n")


# Processes.


def start(*words, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PAGED_NUMBA_TARGET": "lockstep"}
    return subprocess.Popen(
        [sys.executable, "-m", "paged_numba", *map(str, words)], text=True, env=environment,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="signals and descriptors of POSIX")
def test_processes_end_with_a_line_and_a_status(program, tmp_path):
    """All run at once, since most of their time is that of importing Numba."""
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,40,3\n", encoding="utf-8")
    (tmp_path / "old.json").write_text("old", encoding="utf-8")
    slow = program("launch(racy)", 'print("waits", flush=True)', "time.sleep(60)", name="slow.py")
    late = program(
        "launch(sound)", "atexit.register(launch, racy)", "in_thread(Late(racy).run)", name="late.py"
    )
    forks = "pid = os.fork()", "if pid == 0: os._exit(0)", "os.waitpid(pid, 0)"
    exits = "atexit.register(os._exit, 0)", "os._exit(0)"
    ends = program("launch(racy)", *forks, *exits, name="ends.py")

    def close(descriptor):
        return lambda: os.close(descriptor)

    interrupted = start(
        "sanitize",
        slow,
        "--json",
        "old.json",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    importing = start("bench", "lockstep", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    full = "/dev/full" if Path("/dev/full").exists() else os.devnull
    handle = os.open(full, os.O_WRONLY)
    started = {
        "late": start("sanitize", late),
        "ends": start("sanitize", ends),
        "no stdout": start("replay", "t.csv", "--json", "out.json", stdout=None, preexec_fn=close(1)),
        "no stderr": start("replay", "t.csv", stderr=None, preexec_fn=close(2)),
        "full": start("replay", "t.csv", "--json", "full.json", stdout=handle),
        "pipe": start("replay", "t.csv", "--json", "piped.json"),
    }
    os.close(handle)
    started["pipe"].stdout.close()
    assert interrupted.stdout.readline() == "waits\n"
    interrupted.send_signal(signal.SIGINT)
    time.sleep(0.2)
    importing.send_signal(signal.SIGINT)

    def end(process):
        with process:
            out, err = (
                stream and not stream.closed and stream.read() for stream in (process.stdout, process.stderr)
            )
        return process.returncode, out, err

    status, out, err = end(interrupted)
    assert (status, err) == (130, "paged-numba sanitize: interrupted\n")
    assert "data race: x[0]" in out
    assert (tmp_path / "old.json").read_text(encoding="utf-8") == "old"
    status, _, err = end(importing)
    assert status == 130
    assert re.fullmatch(r"paged-numba( bench)?: interrupted\n", err)
    status, out, err = end(started["late"])
    assert (status, out) == (2, "1 launch on the lockstep machine: no findings\n")
    expected = "late.py::f must launch its kernels before it ends, got 2 later, not checked\n"
    assert err == f"paged-numba sanitize: error: {expected}"
    status, out, err = end(started["ends"])
    assert status == 2
    assert out.count("data race: x[0]") == 1
    assert err.count("a program that is sanitized must not end its process with os._exit") == 3
    lost = "paged-numba: error: standard output must be open, got a closed one\n"
    assert end(started["no stdout"]) == (2, None, lost)
    status, out, _ = end(started["no stderr"])
    assert status == 0
    assert out.startswith("t.csv: 1 request ")
    status, _, err = end(started["full"])
    if full == "/dev/full":
        assert (status, err) == (2, "paged-numba replay: error: [Errno 28] No space left on device\n")
    status, _, err = end(started["pipe"])
    assert (status, err) == (1, "")
    for name in ("out.json", "full.json", "piped.json"):
        json.loads((tmp_path / name).read_text(encoding="utf-8"))
