"""A kernel's lines run under a tracer exactly if a lane runs them: what coverage.py and debuggers count on."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_random_programs import DATA, OneThread, load, programs, run_lockstep

from paged_numba.lockstep.compiler.analysis import branches
from paged_numba.lockstep.compiler.statements import Statements
from paged_numba.lockstep.observe.observer import Observer, observing


@contextlib.contextmanager
def traced(lines, arcs=None):
    """Add to `lines` each line of a random program that runs in this thread, those of ``def`` apart.

    Add to `arcs` each pair of lines that follow one another in a call, as coverage.py does: a call begins and ends
    with the number of its first line, negated.
    """
    last = {}

    def trace(frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith("random_program") or code.co_name == "<module>":
            return None
        end = -code.co_firstlineno
        if event == "line" and frame.f_lineno != code.co_firstlineno:
            lines.add(frame.f_lineno)
        if event in ("line", "return") and arcs is not None:
            line = frame.f_lineno if event == "line" else end
            arcs.add((last.get(frame, end), line))
            last[frame] = line
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_one_by_one(source, threads, arcs=None):
    """Return the lines that plain Python runs, thread after thread; None if a thread fails."""
    cuda = OneThread()
    module = load(source, cuda)
    out = np.zeros((threads, 3), int)
    lines = set()
    for cuda.thread in range(threads):
        try:
            with traced(lines, arcs):
                module.kernel(out, DATA)
        except NameError:  # noqa: PERF203 (each thread goes its own way)
            return None
    return lines


def lines_on_lockstep(source, blocks, threads, arcs=None):
    lines = set()
    with traced(lines, arcs):
        run_lockstep(source, blocks, threads, DATA)
    return lines


def possible_branches(source):
    """Return the branches that coverage.py finds in the source: pairs of lines."""
    parser = pytest.importorskip("coverage.parser").PythonParser(text=source)
    parser.parse_source()
    several = {line for line, count in parser.exit_counts().items() if count > 1}
    return {arc for arc in parser.arcs() if arc[0] in several}


def differences(source, observed):
    """Return the lines and the branches that run on lockstep alone or in plain Python alone; None if a thread fails."""
    expected, found = set(), set()
    expected_lines = lines_one_by_one(source, 10, expected)
    if expected_lines is None:
        return None
    with observing(Observer()) if observed else contextlib.nullcontext():
        lines = lines_on_lockstep(source, 2, 5, found)
    return expected_lines ^ lines, (expected ^ found) & possible_branches(source)


@given(source=programs(), observed=st.booleans())
def test_lines_and_branches_that_run_are_those_that_a_lane_runs(source, observed):
    assert differences(source, observed) in (None, (set(), set())), source


@pytest.mark.parametrize("line", [7, 8, 10])
def test_the_property_of_branches_would_notice_a_branch_without_its_function(monkeypatch, line):
    source = (
        "def device(a, b):\n    return a\n\n\ndef kernel(out, data):\n    t = cuda.grid(1)\n    if t < 9:\n"
        "        if t < 5:\n            t = 1\n        for i in range(t):\n            if i == 2: break\n"
    )
    assert differences(source, False) == (set(), set())
    goes = branches.goes
    monkeypatch.setattr(branches, "goes", lambda *given: (lambda: None) if given[2] == line else goes(*given))
    assert differences(source, False)[1]


@pytest.mark.parametrize(
    "body",
    [
        "if t < 0:\n        a = 1\n    b = 2",
        "for i in range(3):\n        if t < 90:\n            return\n        a = 1\n    b = 2",
        "while t < 0:\n        a = 1\n        if t < -5:\n            break\n    else:\n        a = 2",
    ],
)
def test_lines_would_differ_if_bookkeeping_had_a_line(monkeypatch, body):
    source = (
        f"def device(a, b):\n    return a\n\n\ndef kernel(out, data):\n    t = cuda.grid(1)\n    {body}\n"
    )
    expected = lines_one_by_one(source, 10)
    assert lines_on_lockstep(source, 2, 5) == expected

    def with_line(self, text):
        # As before: the line of the last statement inside.
        self.line = getattr(self, "last", self.line)
        self.emit(text)

    def emit(self, text):
        self.last = self.line
        plain(self, text)

    plain = Statements.emit
    monkeypatch.setattr(Statements, "emit", emit)
    monkeypatch.setattr(Statements, "settle", with_line)
    assert lines_on_lockstep(source, 2, 5) != expected


# coverage.py.

HERE = Path(__file__).parent


def measured(folder, who, core, branches):
    """Return what coverage.py says of the kernels, run on lockstep or thread by thread in plain Python."""
    coverage = pytest.importorskip("coverage", reason="pip install coverage")
    data = folder / f"{who}-{core}"
    options = ["--branch"] * branches
    done = subprocess.run(
        [sys.executable, "-m", "coverage", "run", f"--data-file={data}", *options, "--include=*/covered_kernels.py",
         str(HERE / "run_covered.py")],
        env={**os.environ, "WHO": who, "COVERAGE_CORE": core, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    report = coverage.Coverage(data_file=str(data), config_file=False)
    report.load()
    report.json_report(outfile=f"{data}.json")
    [found] = json.loads(Path(f"{data}.json").read_text(encoding="utf-8"))["files"].values()
    return found, done.stdout


@pytest.fixture(scope="module")
def thread_by_thread(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("threads"), "threads", "ctrace", True)


def in_kernels(lines):
    """Return the lines or branches after the import of ``cuda``, which is another one for the plain Python."""
    return {tuple(np.atleast_1d(place)) for place in lines if np.ravel(place)[0] > 14}


CORES = [
    "ctrace",
    "pytrace",
    pytest.param("sysmon", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")),
]


@pytest.mark.parametrize("core", CORES)
def test_coverage_counts_the_lines_and_branches_that_a_lane_runs(thread_by_thread, tmp_path, core):
    expected, results = thread_by_thread
    kinds = ["executed_lines", "missing_lines"]
    if core != "sysmon":  # which sees no branches before Python 3.14
        kinds += ["executed_branches", "missing_branches"]
    found, same_results = measured(tmp_path, "lockstep", core, len(kinds) == 4)
    assert results == same_results
    for kind in kinds:
        ran = in_kernels(found[kind])
        assert ran == in_kernels(expected[kind])
        assert len(ran) > 15
