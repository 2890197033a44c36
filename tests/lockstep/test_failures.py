"""Whatever a kernel does wrong, the error names its construct and line, and the traceback shows the kernel."""

import contextlib
import io
import math
import os
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_kernels import written

import paged_numba
from paged_numba import lockstep
from paged_numba.errors import KernelError, LaunchError, PagedNumbaError
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.observe.observer import Observer, observing

Point = namedtuple("Point", "x y")
POINT = Point(3, 4.5)
RECORD = np.dtype(
    [("s", np.float32), ("a", np.float64, (3,)), ("m", np.int32, (2, 2)), ("t", "U3")], align=True
)


@cuda.jit(device=True)
def endless(n):
    return endless(n + 1)


@cuda.jit(device=True)
def both(a, b):
    return a + b


NAMES = {
    "math": math, "endless": endless, "both": both, "Point": Point, "POINT": POINT, "TUPLE": (1, 2, 3),
    "ARRAY": np.arange(4.0), "BIG": 2**64,
}  # fmt: skip

WRONG = {
    "float('abc')": "could not convert string to float",
    "sum(1)": "a loop needs",
    "TUPLE.no_such": "a tuple has no attribute 'no_such'",
    "len(1.5)": "len() needs a tuple",
    "TUPLE[3]": "a tuple of 3 elements has no element 3",
    "TUPLE[-4]": "a tuple of 3 elements has no element -4",
    "TUPLE[i + 3]": "a tuple of 3 elements has no element 3",
    "x.shape[1]": "a tuple of 1 elements has no element 1",
    "endless(1)": "a device function calls itself endlessly",
    "both(1)": "missing a required argument: 'b'",
    "both(x, 1)": "operator on the whole array",
    "x['a']": "the array x has no field 'a'",
    "x.a": "the array x has no attribute 'a'",
    "'a' + 'b'": "the text 'a' cannot be used there",
    "None": "the array x cannot hold None",
    "x": "x takes numbers, not x, which is an array",
    "'a'": "the array x cannot hold the text 'a'",
    "(1, 2)": "the array x cannot hold a tuple",
    "1j": "the array x holds real numbers",
    "np.float32": "the array x cannot hold the dtype float32",
    "2 ** 64": "too large",
    "BIG": "too large",
    "-9223372036854775809": "too large",
    "cuda.local.array(-1, np.float32)": "must not be negative",
    "max(1)": "min and max take a tuple",
    "abs()": "missing 1 required positional argument",
    "math.sqrt('a')": "the text 'a' cannot be used there",
    "x[0.5]": "must be indexed with integers",
    "x[0, 0]": "at most 1 indices",
    "x[::0][0]": "step cannot be zero",
    "x.size()": "not callable",
    "cuda.grid(4)": "must be the literal 1, 2 or 3",
    "cuda.threadIdx.w": "cannot be used there",
    "cuda.shfl_sync(1)": "missing 2 required positional arguments",
    "cuda.popc(1.5)": "an integer intrinsic needs an integer",
    "cuda.atomic.add(x, 0, 'a')": "could not convert string to float",
    "x.reshape(3, 'a')": "invalid literal for int",
    "print(x)": "print takes numbers, bools, constant texts and tuples of them",
}


@pytest.mark.parametrize("launcher", [lockstep.launch, lockstep.profile])
@pytest.mark.parametrize("expression", WRONG)
def test_a_wrong_expression_is_a_kernel_error_with_its_line(expression, launcher):
    kernel = written(f"def kernel(x):\n    i = cuda.threadIdx.x\n    x[i] = {expression}\n", **NAMES)
    with pytest.raises(KernelError, match=r"(<written \d+>|test_failures\.py):\d+$") as caught:
        launcher(kernel, 1, 2, np.zeros(2))
    assert WRONG[expression] in str(caught.value)


RIGHT = {
    "len('abc')": 3,
    "float('-inf')": -np.inf,
    "float('1.5')": 1.5,
    "POINT.y": 4.5,
    "POINT[0]": 3,
    "Point(1, 2).y": 2,
    "Point(y=1, x=2).x": 2,
    "p.x + p.y": 3.5,
    "p[1]": 1.5,
    "max(TUPLE)": 3,
    "max((2, 1.5))": 2,
    "TUPLE[i - 1]": 3,
    "2 ** 63": 2.0**63,
    "-(2 ** 63)": -(2.0**63),
    "2 ** -1": 0.5,
    "x is None": 0,
    "x == None": 0,
    "None is None": 1,
    "i is not None": 1,
}


@pytest.mark.parametrize("launcher", [lockstep.launch, lockstep.profile, lockstep.sanitize])
@pytest.mark.parametrize("expression", RIGHT)
def test_what_numba_compiles_runs(expression, launcher):
    kernel = written(f"def kernel(x, p, /):\n    i = cuda.threadIdx.x\n    x[i] = {expression}\n", **NAMES)
    x = np.zeros(1)
    launcher(kernel, 1, 1, x, Point(2, 1.5))
    assert x[0] == RIGHT[expression]


@pytest.mark.parametrize("launcher", [lockstep.launch, lockstep.profile, lockstep.sanitize, lockstep.record])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("x", "2.5", "must hold an array, as x is, in all threads or in none: use two variables"),
        ("2.5", "x", "must hold an array, as x is, in all threads or in none: use two variables"),
        ("r[i]", "i", "must hold a record, as r is, in all threads or in none"),
        ("(1, 2)", "i", "must hold a tuple in all threads or in none: use two variables"),
        ("i", "(1, 2)", "must hold a tuple in all threads or in none: use two variables"),
        ("(1, 2)", "(1, 2, 3)", "must hold tuples of one length in all threads: use two variables"),
        ("None", "i", "must be None in all threads or in none: use two variables"),
        ("i", "None", "must be None in all threads or in none: use two variables"),
        ("'a'", "'b'", "must hold one text in all threads"),
    ],
)
def test_a_variable_of_two_kinds_is_refused(first, second, message, launcher):
    body = f"    i = cuda.threadIdx.x\n    v = {first}\n    if i > 0:\n        v = {second}\n"
    kernel = written(f"def kernel(x, r):\n{body}", **NAMES)
    with pytest.raises(KernelError, match=message):
        launcher(kernel, 1, 2, np.zeros(2), np.zeros(2, RECORD))


@pytest.mark.parametrize("launcher", [lockstep.launch, lockstep.profile, lockstep.sanitize, lockstep.record])
@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("v = x[a]", r"does not run .* array (\(a\)|a): write a loop"),
        ("r[i] = x[i]", "r holds records, not numbers"),
        ("v = (both, min)[i]", "a tuple that holds a function needs the same index"),
    ],
)
def test_a_wrong_statement_is_refused_by_each_instrument(statement, message, launcher):
    kernel = written(f"def kernel(x, r, a):\n    i = cuda.threadIdx.x\n    {statement}\n", **NAMES)
    with pytest.raises(KernelError, match=message):
        launcher(kernel, 1, 2, np.zeros(2), np.zeros(2, RECORD), np.arange(2))


@pytest.mark.parametrize("launcher", [lockstep.launch, lockstep.profile, lockstep.sanitize])
def test_array_fields_of_records_are_arrays(launcher):
    kernel = written(
        """
def kernel(r, out):
    i = cuda.threadIdx.x
    one = r[i]
    for j in range(3):
        one.a[j] = i + j
    one.m[1, 0] = 7
    r[i]["m"][0][1] = 8
    r["a"][i, 2] += 10
    one.a[0:1] = (5,)
    one.t = "ab"
    spare = cuda.local.array(2, RECORD)
    spare[1].s, spare[1].a[2] = i, 2
    out[i] = spare[1].s + spare[1].a[2]
    one.s = one.a.size + one.m.ndim + len(one.a)
    total = 0.0
    for value in r.a[i]:
        total += value
    out[i] += total + one.a[-1]
""",
        RECORD=RECORD,
    )
    records, out = np.zeros(2, RECORD), np.zeros(2)
    launcher(kernel, 1, 2, records, out)
    assert records["a"].tolist() == [[5, 1, 12], [5, 2, 13]]
    assert records["m"].tolist() == [[[0, 8], [7, 0]]] * 2
    assert records["s"].tolist() == [3 + 2 + 3] * 2
    assert records["t"].tolist() == ["ab"] * 2
    assert out.tolist() == [2 + 5 + 1 + 12 + 12, 3 + 5 + 2 + 13 + 13]
    beyond = written("def kernel(r):\n    r[cuda.threadIdx.x].a[3] = 1\n")
    if launcher is not lockstep.sanitize:
        with pytest.raises(IndexError, match=r"r\[0, 3\] out of bounds for its last axis, of shape \(3,\)"):
            launcher(beyond, 1, 2, records)
    else:
        assert {finding.kind for finding in launcher(beyond, 1, 2, records)} == {"out of bounds"}


def test_a_tuple_is_stored_into_a_slice_of_its_length():
    x = np.zeros(3)
    lockstep.launch(written("def kernel(x):\n    x[:] = 1, 2.5, 3\n"), 1, 1, x)
    assert x.tolist() == [1, 2.5, 3]
    with pytest.raises(KernelError, match="cannot hold a tuple of 3"):
        lockstep.launch(written("def kernel(x):\n    x[:] = 1, 2.5, 3\n"), 1, 1, np.zeros(4))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (2**64, "a must fit in 64 bits"),
        (-(2**63) - 1, "a must fit in 64 bits"),
        ((1, 2**64), r"a\[1\] must fit in 64 bits"),
        ("text", "a must be an array or a number, got str"),
        ([1], "got list"),
        (np.array([object()]), "dtype of fixed size"),
    ],
)
def test_an_argument_that_no_gpu_takes_is_refused(argument, message):
    with pytest.raises(LaunchError, match=message):
        lockstep.launch(written("def kernel(a):\n    pass\n"), 1, 1, argument)
    lockstep.launch(written("def kernel(a):\n    pass\n"), 1, 1, 2**64 - 1)


def test_a_device_array_from_outside_is_no_dtype_and_is_not_copied():
    outside = cuda.to_device(np.ones(1))
    kernel = written("def kernel(x):\n    x[0] = OUTSIDE(x[0])\n", OUTSIDE=outside)
    with pytest.raises(PagedNumbaError, match=r"does not run .*OUTSIDE"):
        lockstep.launch(kernel, 1, 1, np.zeros(1))
    kernel = written("def kernel(x):\n    x[0] = OUTSIDE[0]\n    OUTSIDE[0] += 1\n", OUTSIDE=outside)
    x = np.zeros(1)
    for expected in (1, 2, 30):
        lockstep.launch(kernel, 1, 1, x)
        assert x[0] == expected
        if expected == 2:
            outside.copy_to_device(np.array([30.0]))


class Broken(Observer):
    def store(self, machine, array, mask, position, value):
        raise TypeError("the observer's own")


def test_the_error_of_an_observer_is_its_own():
    with observing(Broken()), pytest.raises(TypeError, match="the observer's own"):
        lockstep.launch(written("def kernel(x):\n    x[0] = 1\n"), 1, 1, np.zeros(1))


class Overflowing(Observer):
    """Reaches Python's recursion limit in its 20th statement, as any observer may that a deep recursion calls."""

    statements = 0

    def statement(self, machine, mask):
        self.statements += 1
        if self.statements == 20:
            raise RecursionError("too deep")


def test_endless_calls_are_an_error_of_the_kernel_where_an_observer_meets_the_limit():
    kernel = written("def kernel(x):\n    x[0] = endless(1)\n", **NAMES)
    with (
        observing(Overflowing()),
        pytest.raises(KernelError, match="a device function calls itself endlessly"),
    ):
        lockstep.launch(kernel, 1, 1, np.zeros(1))
    plain = written("def kernel(x):\n    for i in range(40):\n        x[0] = i\n", **NAMES)
    with observing(Overflowing()), pytest.raises(RecursionError, match="too deep"):
        lockstep.launch(plain, 1, 1, np.zeros(1))


# Tracebacks.

SCRIPT = """
import sys, traceback
import numpy as np
from paged_numba import lockstep
from paged_numba.lockstep.cuda import facade as cuda

@cuda.jit(device=True)
def helper(x, i):
    return x[i + 100]

@cuda.jit
def beyond(x):
    x[cuda.grid(1)] = helper(x, 0)

@cuda.jit
def wrong(x):
    x[0] = abs()

@cuda.jit
def unsupported(x):
    x[0] = [1]

def test_it():
    beyond[1, 64](np.zeros(64))

if __name__ == "__main__":
    for kernel, order in (beyond, "together"), (beyond, "forward"), (wrong, "together"), (unsupported, "together"):
        print("-----")
        try:
            with lockstep.options(order=order):
                kernel[1, 64](np.zeros(64))
        except Exception:
            traceback.print_exc(file=sys.stdout)
"""


def output_of(tmp_path, *command, full=False):
    script = tmp_path / "test_script.py"
    script.write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(paged_numba.__file__).parents[1]),
        "PAGED_NUMBA_FULL_TRACEBACK": str(int(full)),
    }
    command = [sys.executable, *command, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    return done.stdout


PYTEST = "-m", "pytest", "-q", "-p", "no:cacheprovider"
MACHINE = ("memory.py", "schedule.py", "access.py", "in _launch", "run_batch")


def test_a_traceback_shows_the_kernel_and_nothing_of_the_machine(tmp_path):
    _, together, forward, wrong, unsupported = output_of(tmp_path).split("-----")
    for text in (together, forward):
        assert "line 13, in beyond\n    x[cuda.grid(1)] = helper(x, 0)\n" in text
        assert "line 9, in helper\n    return x[i + 100]\n" in text
        assert "x[100] out of bounds" in text
        assert len(text.splitlines()) <= 16
    assert wrong.count("line 17, in wrong\n    x[0] = abs()\n") == 2  # for the error and its cause
    assert "test_script.py:21" in unsupported
    for text in (together, forward, wrong, unsupported):
        assert not any(part in text for part in MACHINE)


def test_a_traceback_in_pytest_shows_the_kernel_and_nothing_of_the_package(tmp_path):
    text = output_of(tmp_path, *PYTEST)
    assert "beyond[1, 64](np.zeros(64))" in text
    assert ">       return x[i + 100]" in text
    assert "facade.py" not in text
    assert "launch.py" not in text


def test_full_tracebacks_show_the_machine(tmp_path):
    text = output_of(tmp_path, full=True)
    for part in ("launch.py", "memory.py", "access.py"):
        assert part in text


# Odd kernels.

ATOMS = (
    "x x[0] x[1:] i 0 1 -1 2.5 True None 'a' (1,2) () TUPLE POINT POINT.x ARRAY r r[0] r.a r.s r[0].m 1j BIG 2**64 p q "
    "cuda.threadIdx cuda.threadIdx.x cuda.blockDim np.float32 np.int8 math math.pi local shared local[0] both endless "
    "v x.shape x.dtype x.T Ellipsis float('nan') cuda cuda.shared range 1e400 u8"
).split()
FUNCTIONS = (
    "min max abs len sum round float int bool complex divmod pow print enumerate zip math.sqrt math.floor math.pow "
    "math.frexp np.sqrt np.add np.float32 np.int16 cuda.grid cuda.popc cuda.clz cuda.ffs cuda.selp cuda.fma "
    "cuda.shfl_sync cuda.shfl_down_sync cuda.ballot_sync cuda.syncwarp cuda.atomic.add cuda.atomic.max cuda.atomic.cas "
    "cuda.fp16.hadd cuda.float32x2 cuda.const.array_like cuda.ldcg cuda.stcg both Point x.reshape x.foo TUPLE sorted "
    "cuda.libdevice.expf cuda.match_any_sync cuda.syncthreads cuda.syncthreads_count cuda.nanosleep cuda.activemask"
).split()
OPERATORS = [*"+ - * / // % ** << >> & | ^ @ < <= == != is in and or".split(), "not in", "is not"]
ATTRIBUTES = "size shape ndim dtype real imag T foo x a s strides itemsize conjugate nbytes".split()


def larger(parts):
    return st.one_of(
        st.tuples(parts, st.sampled_from(OPERATORS), parts).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["-", "~", "not ", "+"]), parts).map(lambda t: f"({t[0]}{t[1]})"),
        st.tuples(parts, parts).map(lambda t: f"{t[0]}[{t[1]}]"),
        st.tuples(parts, parts, parts).map(lambda t: f"{t[0]}[{t[1]}:{t[2]}]"),
        st.tuples(parts, parts).map(lambda t: f"({t[0]}, {t[1]})"),
        st.tuples(parts, parts, parts).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        st.tuples(parts, st.sampled_from(ATTRIBUTES)).map(lambda t: f"({t[0]}).{t[1]}"),
        st.tuples(st.sampled_from(FUNCTIONS), st.lists(parts, max_size=3)).map(
            lambda t: f"{t[0]}({', '.join(t[1])})"
        ),
    )


expressions = st.recursive(st.sampled_from(ATOMS), larger, max_leaves=5)
simple = st.one_of(
    st.tuples(expressions, expressions).map(lambda t: f"x[{t[0]}] = {t[1]}"),
    expressions.map(lambda e: f"v = {e}"),
    expressions.map(lambda e: f"v += {e}"),
    expressions.map(lambda e: f"v, w = {e}"),
    expressions.map(lambda e: f"r[i].a = {e}"),
    expressions.map(lambda e: f"x[i] -= {e}"),
    expressions.map(lambda e: f"assert {e}, 'text'"),
    expressions,
)
statements = st.one_of(
    simple,
    st.tuples(st.sampled_from(["if {}:", "if i:  # {}", "for v in {}:", "for v in zip({}, x):",
                               "for v in range(2, {} % 4):"]),
              expressions, simple).map(lambda t: f"{t[0].format(t[1])}\n    {t[2]}"),
)  # fmt: skip


@given(
    st.lists(statements, min_size=1, max_size=4),
    st.sampled_from([lockstep.launch, lockstep.profile, lockstep.sanitize, lockstep.record]),
    st.sampled_from(["together", "reverse"]),
)
def test_an_odd_kernel_runs_or_raises_an_error_of_the_package(lines, launcher, order):
    head = ["i = cuda.threadIdx.x", "v = x[0]", "w = 1", "local = cuda.local.array(3, np.float64)"]
    head += ["shared = cuda.shared.array((2, 2), np.int32)"]
    body = textwrap.indent("\n".join(head + lines), "    ")
    try:
        kernel = written(f"def kernel(x, r, p, q, u8):\n{body}\n", **NAMES)
    except (SyntaxError, SyntaxWarning):
        return
    arguments = np.arange(4.0), np.zeros(2, RECORD), Point(1, 2.5), None, np.uint8(200)
    quiet, ordered = contextlib.redirect_stdout(io.StringIO()), lockstep.options(order=order)
    with quiet, ordered, contextlib.suppress(PagedNumbaError):
        launcher(kernel, 1, 2, *arguments)
