"""Breakpoints in kernels: the variables, lines and steps that a debugger sees, against plain Python by thread."""

import io
import os
import pdb
import re
import subprocess
import sys
from bdb import BdbQuit
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_random_programs import DATA, OneThread, load, programs

from paged_numba import lockstep
from paged_numba.errors import KernelError, UnsupportedConstructError
from paged_numba.lockstep.compiler.shortcuts.compaction import Compaction
from paged_numba.lockstep.cuda import facade as cuda

THREADS, BLOCKS = 5, 2


# What a debugger would see.


class Stops:
    """Records the line and the variables of the frame that calls the hook."""

    def __init__(self):
        self.seen = []

    def __call__(self):
        self.look(sys._getframe(1))

    def look(self, frame):
        held = {name: copied(value) for name, value in frame.f_locals.items()}
        self.seen.append((frame.f_code.co_name, frame.f_lineno, held))


def copied(value):
    return value.copy() if isinstance(value, np.ndarray) else value


def same(a, b):
    """Tell whether two records of stops are the same."""
    return len(a) == len(b) and all(
        one[:2] == other[:2]
        and one[2].keys() == other[2].keys()
        and all(np.array_equal(value, other[2][name]) for name, value in one[2].items())
        for one, other in zip(a, b, strict=True)
    )


@pytest.fixture
def stops(monkeypatch):
    found = Stops()
    monkeypatch.setattr(sys, "breakpointhook", found)
    return found


INNER = ("def inner(p, q):", "# inner ends")
"""The first line of a function inside the kernel, and the line after it."""


def with_breakpoint(source, place, call):
    """Return the program with a call before one of its statements, the `place`-th modulo their number."""
    lines = source.split("\n")
    start, end = (lines.index(f"    {line}") if f"    {line}" in lines else 0 for line in INNER)
    firsts = [
        number
        for number, line in enumerate(lines)
        if line.startswith("    ")
        and not re.match(r"\s*(else|elif)\b", line)
        and not start < number <= end  # refused in a function inside a kernel
    ]
    number = firsts[place % len(firsts)]
    indent = re.match(r"\s*", lines[number])[0]
    return "\n".join([*lines[:number], indent + call, *lines[number:]])


@given(
    source=programs(),
    place=st.integers(0, 60),
    thread=st.integers(0, THREADS - 1),
    block=st.integers(0, BLOCKS - 1),
    order=st.sampled_from(["together", "forward", "reverse", "sanitized"]),
)
def test_the_debugger_sees_what_the_thread_sees_in_plain_python(source, place, thread, block, order):
    source = with_breakpoint(source, place, f"debugger.breakpoint(thread={thread}, block={block})")
    expected, seen = Stops(), Stops()
    one = OneThread()
    module = load(source, one)

    def look(**_):
        if one.thread == block * THREADS + thread:
            expected.look(sys._getframe(1))

    module.debugger = SimpleNamespace(breakpoint=look)
    out = np.full((THREADS * BLOCKS, 3), -1)
    for one.thread in range(THREADS * BLOCKS):
        try:
            module.kernel(out, DATA)
        except NameError:  # noqa: PERF203 (each thread goes its own way)
            return
    module = load(source, cuda)
    module.device = cuda.jit(device=True)(module.device)
    module.debugger = lockstep
    before, sys.breakpointhook = sys.breakpointhook, seen
    found = np.full((THREADS * BLOCKS, 3), -1)
    try:
        if order == "sanitized":
            with lockstep.sanitizing():
                lockstep.launch(module.kernel, BLOCKS, THREADS, found, DATA)
        else:
            with lockstep.options(order=order):
                lockstep.launch(module.kernel, BLOCKS, THREADS, found, DATA)
    finally:
        sys.breakpointhook = before
    np.testing.assert_array_equal(found, out)
    for record in (expected, seen):
        for _, _, held in record.seen:
            held.pop("out", None)  # holds what other threads have stored
            held.pop("inner", None)
    assert same(expected.seen, seen.seen), f"{source}\n{expected.seen}\n{seen.seen}"


def test_the_property_would_notice_the_wrong_lane(monkeypatch):
    source = (
        "def kernel(out, data):\n    t = cuda.grid(1)\n    debugger.breakpoint(thread=2)\n    out[t, 0] = t\n"
    )
    seen = Stops()
    monkeypatch.setattr(sys, "breakpointhook", seen)
    module = load(source, cuda)
    module.debugger = lockstep
    lockstep.launch(module.kernel, 1, THREADS, np.zeros((THREADS, 3)), DATA)
    assert [held["t"] for _, _, held in seen.seen] == [2]


# Which thread, how often.


@cuda.jit(device=True)
def doubled(value, low):
    twice = value * 2
    if value > low:
        breakpoint()
        twice += 1
    return twice


@cuda.jit
def calling(x, out):
    i = cuda.grid(1)
    local = cuda.local.array(2, np.float32)
    local[0] = i
    pair = (i, x[i])
    for k in range(2):
        out[i] = doubled(x[i], 3) + k + pair[0]


@cuda.jit
def branching(x, out):
    i, j = cuda.grid(2)
    if i >= 3:
        late = x[i] + j
        breakpoint()
        out[i] = late
    else:
        out[i] = 0


@cuda.jit
def with_block(x, out):
    i = cuda.grid(1)
    n = 2
    lockstep.breakpoint(block=n)
    out[i] = x[i]


@cuda.jit
def with_thread(x, out):
    i = cuda.grid(1)
    lockstep.breakpoint(cuda.blockDim.x - 1)
    out[i] = x[i]


X = np.arange(12.0)


def test_without_a_thread_the_first_active_one_stops_once(stops):
    lockstep.launch(branching, (2, 2), (4, 2), X, np.zeros(12))
    [(name, line, held)] = stops.seen
    assert (name, line) == ("branching", branching.py_func.__code__.co_firstlineno + 5)
    assert (held["i"], held["j"], held["late"]) == (3, 0, 3.0)
    assert type(held["late"]) is np.float64
    assert held["x"] is not X
    np.testing.assert_array_equal(held["x"], X)


@pytest.mark.parametrize("options", [{}, {"order": "reverse"}, {"max_lanes": 4}])
def test_a_breakpoint_in_a_loop_follows_one_thread(stops, options):
    with lockstep.options(**options):
        lockstep.launch(calling, 3, 4, X, np.zeros(12))
    assert [name for name, _, _ in stops.seen] == ["doubled"] * 2
    values = {(held["value"], held["twice"], held["low"]) for _, _, held in stops.seen}
    assert values == {(4.0, 8.0, 3)} or (options == {"order": "reverse"} and len(values) == 1)


@pytest.mark.parametrize(("kernel", "expected"), [(with_block, 8), (with_thread, 3)], ids=["block", "thread"])
def test_one_of_thread_and_block_is_enough(stops, kernel, expected):
    lockstep.launch(kernel, 3, 4, X, np.zeros(12))
    assert [held["i"] for _, _, held in stops.seen] == [expected]


@cuda.jit
def outside(x):
    lockstep.breakpoint(thread=(0, 1))
    x[0] = 1


@cuda.jit
def varying(x):
    lockstep.breakpoint(cuda.threadIdx.x)
    x[0] = 1


@cuda.jit
def with_argument(x):
    breakpoint(1)
    x[0] = 1


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (outside, KernelError, r"thread must lie inside \(4, 1, 1\), got thread=\(0, 1, 0\), test_breakpoints.py:"),
        (varying, KernelError, "thread must be an int or up to 3 ints, the same in all threads, test_breakpoints"),
        (with_argument, UnsupportedConstructError, r"`breakpoint\(1\)`: write lockstep.breakpoint\(thread="),
    ],
)  # fmt: skip
def test_a_breakpoint_that_names_no_thread_is_refused(stops, kernel, error, message):
    x = np.zeros(1)
    with pytest.raises(error, match=message):
        lockstep.launch(kernel, 1, 4, x)
    assert x[0] == 0
    assert not stops.seen


def test_host_code_does_not_stop_at_a_lockstep_breakpoint():
    with pytest.raises(KernelError, match="not host code"):
        lockstep.breakpoint()


# pdb.


@pytest.fixture
def debug(monkeypatch):
    """Return a function that runs pdb with some commands at the next breakpoint, and returns what pdb wrote."""
    before = sys.gettrace()

    def run(commands, *launch, **options):
        written = io.StringIO()

        def hook():
            debugger = pdb.Pdb(stdin=io.StringIO(commands), stdout=written, nosigint=True, readrc=False)
            debugger.use_rawinput = False
            debugger.set_trace(sys._getframe(1))

        monkeypatch.setattr(sys, "breakpointhook", hook)
        try:
            with lockstep.options(**options):
                lockstep.launch(*launch)
        finally:
            sys.settrace(before)
        return written.getvalue()

    return run


@cuda.jit
def stepping(x, out):
    i = cuda.grid(1)
    lockstep.breakpoint(thread=1)
    total = 0.0  # line 3
    for k in range(i + 1):
        if x[k] > 0:
            total += x[k]  # line 6
        else:
            total -= 10
    while total > 0:
        total -= 5  # line 10
        if total < -8:
            return
    if i == 0:
        total = 7
    out[i] = total  # line 15


def lines_shown(text, kernel):
    """Return the lines that pdb showed, counted from the kernel's ``def``, which has number 0."""
    first = kernel.py_func.__code__.co_firstlineno + 1
    return [int(line) - first for line in re.findall(r"> .*?\((\d+)\)", text)]


@pytest.mark.parametrize("options", [{}, {"order": "forward"}, {"order": "reverse"}])
def test_n_goes_to_the_next_statement_of_the_thread(debug, options):
    out = np.zeros(4)
    text = debug("n\n" * 30, stepping, 1, 4, X, out, **options)
    expected = [2, 3, 4, 5, 8, 4, 5, 6, 9, 13, 15]
    assert lines_shown(text, stepping) == expected, text
    assert out.tolist() == [7, -9, -7, -4]


def test_pdb_shows_source_variables_and_callers(debug):
    text = debug("p value, twice\nl\nw\nu\np i, k, pair, local[0]\nc\n",
                 calling, 1, 8, X, np.zeros(8))  # fmt: skip
    assert "(np.float64(4.0), np.float64(8.0))" in text
    assert "->	        breakpoint()" in text
    assert re.search(r"\(\d+\)calling\(\)\n-> out\[i\] = doubled.*\n> .*\(\d+\)doubled\(\)", text)
    assert "(np.int64(4), np.int64(0), (np.int64(4), np.float64(4.0)), np.float32(4.0))" in text


@pytest.mark.parametrize("commands", ["n\n" * 30, "c\n", "r\n", f"b {__file__}:3\n" + "n\n" * 30])
def test_pdb_traces_the_program_after_the_kernel_only_if_it_has_a_breakpoint(debug, monkeypatch, commands):
    after = []
    launch = lockstep.launch

    def observed(*arguments):
        launch(*arguments)
        after.append(sys.gettrace())

    monkeypatch.setattr(lockstep, "launch", observed)
    debug(commands, stepping, 1, 4, X, np.zeros(4))
    assert [trace is not None for trace in after] == [commands.startswith("b")]


def test_fields_of_records_are_attributes(debug):
    @cuda.jit
    def moving(points, out):
        i = cuda.grid(1)
        point = points[i]
        breakpoint()
        out[i] = point.at.x

    points = np.zeros(3, np.dtype([("mass", "f4"), ("at", [("x", "i2"), ("y", "i2")])], align=True))
    points["at"]["x"] = [7, 8, 9]
    text = debug("p point.at.x, points[1].at.x, points.mass\n!point.at.x = 5\nc\n",
                 moving, 1, 3, points, out := np.zeros(3))  # fmt: skip
    assert "7, 8, array([0., 0., 0.], dtype=float32))" in text.replace("np.int16(7)", "7").replace(
        "np.int16(8)", "8"
    )
    assert out.tolist() == [5, 8, 9]


def test_q_ends_the_launch(debug):
    with pytest.raises(BdbQuit):
        debug("q\n", stepping, 1, 4, X, np.zeros(4))


def test_changes_in_the_debugger_do_not_reach_the_kernel_but_arrays_are_its_memory(debug):
    out = np.zeros(4)
    debug("!total = 100\n!x[0] = 50\nc\n", stepping, 1, 4, x := X.copy(), out)
    assert x[0] == 50
    assert out[1] == 41 - 9 * 5


# The debugger that is called.

SCRIPT = """
import numpy as np
from paged_numba import cuda, lockstep

@cuda.jit
def kernel(x):
    i = cuda.grid(1)
    breakpoint()
    x[i] = i

x = np.zeros(3)
lockstep.launch(kernel, 1, 3, x)
print(x)
"""


def run_script(path, hook=None):
    path.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(lockstep.__file__).parents[2])}
    environment.pop("PYTHONBREAKPOINT", None)
    if hook is not None:
        environment["PYTHONBREAKPOINT"] = hook
    return subprocess.run(
        [sys.executable, path.name], cwd=path.parent, env=environment, input="p i\nn\np i\nc\n",
        capture_output=True, text=True, check=True,
    )  # fmt: skip


def test_python_starts_pdb_and_says_which_thread(tmp_path):
    done = run_script(tmp_path / "script.py")
    assert "thread 0 of thread block 0, on lockstep" in done.stdout
    assert "script.py(8)kernel()\n-> breakpoint()" in done.stdout
    assert "script.py(9)kernel()\n-> x[i] = i" in done.stdout
    assert done.stdout.count("np.int64(0)") == 2
    assert "[0. 1. 2.]" in done.stdout


def test_pythonbreakpoint_turns_breakpoints_off_or_names_another_debugger(tmp_path):
    assert run_script(tmp_path / "script.py", "0").stdout == "[0. 1. 2.]\n"
    (tmp_path / "other.py").write_text("import sys\ndef stop():\n    print(sys._getframe(1).f_locals['i'])\n")
    done = run_script(tmp_path / "script.py", "other.stop")
    assert done.stdout == "0\n[0. 1. 2.]\n"
    assert "thread 0 of thread block 0, on lockstep" in done.stderr


def test_kernels_without_a_breakpoint_have_no_steps():
    assert "_stop" not in lockstep.lane_program(cuda.jit(load("def kernel(x):\n    x[0] = 1\n", cuda).kernel))
    assert "_stop.step" in lockstep.lane_program(stepping)


# Loops that go on with few lanes, unless they have a breakpoint.


@cuda.jit(device=True)
def halved(value, i):
    if i == 4000 and value < 100:
        breakpoint()
    return value // 2 if value % 2 == 0 else 3 * value + 1


@cuda.jit
def collatz(steps):
    i = cuda.grid(1)
    value, count = i + 1, 0
    while value > 1:
        value = halved(value, i)
        count += 1
    steps[i] = count


def test_a_loop_with_a_breakpoint_keeps_all_lanes(stops, monkeypatch):
    steps = np.zeros(8192, np.int64)
    compacted = []
    gather = Compaction.gather
    monkeypatch.setattr(Compaction, "gather", lambda *given: compacted.append(1) or gather(*given))
    lockstep.launch(collatz, 64, 128, steps)
    value, expected = 4001, []
    while value > 1:
        expected += [value] * (value < 100)
        value = value // 2 if value % 2 == 0 else 3 * value + 1
    assert [(held["i"], held["value"]) for _, _, held in stops.seen] == [(4000, v) for v in expected]
    assert not compacted
