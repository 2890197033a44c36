"""The machine runs the code that was imported, and globals have the values of the first launch."""

import ast
import gc
import importlib.util
import itertools
import linecache
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import paged_numba
from paged_numba import lockstep
from paged_numba.errors import UnsupportedConstructError
from paged_numba.lockstep.cuda import facade
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.language import intrinsics
from paged_numba.lockstep.machine.identity import IdentityMap

PACKAGE = Path(paged_numba.__file__).parent

# Tables by identity.


def kernel_with_its_own_function(factor):
    @cuda.jit(device=True)
    def fn(a, b):
        return a * factor + b

    @cuda.jit
    def kernel(out):
        out[0] = fn(out[0], factor)

    return kernel


def test_each_kernel_calls_its_own_device_function_while_the_facade_stands_in_for_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba.cuda", facade)
    monkeypatch.setattr(intrinsics, "_objects_of", None)
    kernels = []
    for factor in range(1000):
        kernels.append(kernel_with_its_own_function(factor))
        out = np.array([3])
        kernels[-1][1, 1](out)
        assert out[0] == 4 * factor
        if factor % 3:
            kernels.pop()  # its functions go, and others get their addresses


def test_identity_map_keeps_its_keys_alive():
    table = IdentityMap()
    for number in range(1000):
        key = [number]  # cannot be hashed
        assert table.get(key) is None
        assert table.setdefault(key, number) == number
    assert table.get([0]) is None
    assert IdentityMap([(key, 1)]).get(key) == 1


# Each use of `id` outside `IdentityMap`, and what keeps the object alive as long as its id is in use.
KEPT_ALIVE = {
    "lockstep/machine/identity.py": "the table holds the key",
    "lockstep/machine/memory.py": "`origins` holds the index",
    "lockstep/machine/poison.py": "the table holds the allocation weakly, and `is` checks it",
    "lockstep/observe/observed_machine.py": "`_counted` holds the mask",
    "lockstep/observe/observed_warp.py": "`_spread_masks` holds the mask",
    "lockstep/observe/observer.py": "the ids are compared at once",
    "lockstep/profiler/profiler.py": "`_touched` holds the allocation",
    "lockstep/sanitizer/races.py": "`_shadows` holds the allocation",
    "lockstep/sanitizer/sanitizer.py": "the launch holds its arguments",
    "lockstep/sanitizer/unwritten.py": "`_words` and `_local` hold the allocation",
    "lockstep/tracer/recorder.py": "`_lanes` holds the mask",
    "cache/debug.py": "`_written` holds the cache",
}


def test_an_id_is_used_only_where_its_object_is_kept_alive():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "id" and isinstance(node.ctx, ast.Load)
    }
    assert found == set(KEPT_ALIVE)


# The source on disk.

MODULE = """
from paged_numba.lockstep.cuda import facade as cuda

STEP = 2


@cuda.jit
def first(out):
    out[0] = 1


@cuda.jit
def second(out):
    for i in range(3):
        out[i] = i + STEP
"""
_modules = itertools.count()


def imported(path, text):
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(f"module_{next(_modules)}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("i + STEP", "i - STEP"),
        ("i + STEP", "i + STOP"),
        ("def second", "def other"),
        ("range(3)", "range(4)"),
        ("def second(out):", "def second(put):"),
        ("    for i", "    for for i"),
        (MODULE, ""),
        ("    out[i]", "    out[i] = 0\n        out[i]"),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_a_file_that_changed_after_import_is_refused(tmp_path, old, new):
    path = tmp_path / "edited.py"
    kernel = imported(path, MODULE).second
    path.write_text(MODULE.replace(old, new))
    out = np.zeros(3)
    with pytest.raises(UnsupportedConstructError, match=r"second.* has changed since .*import it again"):
        kernel[1, 1](out)
    assert not out.any()
    path.write_text(MODULE)
    kernel[1, 1](out)
    assert out.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    "changed",
    [
        MODULE.replace("out[0] = 1", "out[0] = 7") + "\n\nclass Later:\n    pass\n",
        MODULE.replace("out[0] = 1", "out[0] = 1\n    out[1] = 2"),
        "\n" * 20 + MODULE,
        MODULE.replace("@cuda.jit\ndef first", "def first"),
        MODULE.replace("@cuda.jit\ndef first", "def second(out):\n    pass\n\n\ndef first"),
    ],
)
def test_a_change_elsewhere_in_the_file_does_not_matter(tmp_path, changed):
    path = tmp_path / "edited.py"
    kernel = imported(path, MODULE).second
    path.write_text(changed)
    out = np.zeros(3)
    kernel[1, 1](out)
    assert out.tolist() == [2, 3, 4]
    line = changed.splitlines().index("        out[i] = i + STEP") + 1
    with pytest.raises(IndexError, match=rf"edited\.py:{line}$"):
        kernel[1, 1](np.zeros(1))


def test_a_kernel_that_has_run_does_not_need_its_file(tmp_path):
    path = tmp_path / "edited.py"
    kernel = imported(path, MODULE).second
    kernel[1, 1](np.zeros(3))
    path.unlink()
    out = np.zeros(3)
    lockstep.profile(kernel, 1, 1, out)
    assert out.tolist() == [2, 3, 4]


def test_code_replaced_in_place_gets_a_new_program(tmp_path):
    old = imported(tmp_path / "old.py", MODULE)
    new = imported(tmp_path / "new.py", MODULE.replace("i + STEP", "i * STEP"))
    out = np.zeros(3)
    old.second[1, 1](out)
    assert out.tolist() == [2, 3, 4]
    old.second.py_func.__code__ = new.second.py_func.__code__
    old.second[1, 1](out)
    assert out.tolist() == [0, 2, 4]
    lockstep.sanitize(old.second, 1, 1, out)
    assert out.tolist() == [0, 2, 4]


AWKWARD = '''
import functools
from paged_numba.lockstep.cuda import facade as cuda

def named(*names):
    return lambda function: function

class Holder:
    if True:
        @staticmethod
        @named(
            "a",
            "b",
        )
        @named("c")
        def kernel(out):
            """A docstring
with a line that is not indented.
            """
# A comment that is not indented.
            out[0] = (
                1
                + 2
            )

def make(value):
    def kernel(out): out[0] = value; out[1] = 4
    return kernel

other, kernel = [make(value) for value in (5, 6)]
def kernel_with_assert(out):
    assert out.size > 1, "two elements"
    if out[0] == 0: assert out[1] == 0
    out[0] = 8
'''


def test_functions_are_found_wherever_they_stand(tmp_path):
    module = imported(tmp_path / "awkward.py", AWKWARD)
    results = []
    for function in (module.Holder.kernel, module.other, module.kernel, module.kernel_with_assert):
        out = np.zeros(2)
        lockstep.launch(function, 1, 1, out)
        results.append(out.tolist())
    assert results == [[3, 0], [5, 4], [6, 4], [8, 0]]


def test_asserts_that_pytest_has_rewritten_do_not_count_as_a_change():
    @cuda.jit
    def kernel(out):
        assert out.size == 2, "two elements"
        out[0] = 1
        if out[1] == 0:
            assert out[0] == 1
        out[1] = out[0] + 1

    assert any("@py" in name for name in kernel.py_func.__code__.co_varnames), "pytest rewrites this file"
    out = np.zeros(2)
    kernel[1, 1](out)
    assert out.tolist() == [1, 2]


def test_source_in_linecache_is_enough_and_source_of_other_code_is_not():
    text = "def kernel(out):\n    out[0] = 4\n"
    namespace = {}
    exec(compile(text, "<kernel 1>", "exec"), namespace)
    with pytest.raises(
        UnsupportedConstructError, match=r"'kernel' must be readable.*<kernel 1>.*save it to a file"
    ):
        lockstep.launch(namespace["kernel"], 1, 1, np.zeros(1))
    linecache.cache["<kernel 1>"] = len(text), None, text.splitlines(keepends=True), "<kernel 1>"
    try:
        out = np.zeros(1)
        lockstep.launch(namespace["kernel"], 1, 1, out)
        assert out[0] == 4
        exec(compile(text.replace("4", "5"), "<kernel 1>", "exec"), namespace)
        with pytest.raises(UnsupportedConstructError, match="has changed"):
            lockstep.launch(namespace["kernel"], 1, 1, out)
    finally:
        del linecache.cache["<kernel 1>"]


def test_lambdas_of_one_line_are_told_apart():
    first, second, third = (
        cuda.jit(device=True)(f) for f in (lambda x: x + 1, lambda x: x * 5, lambda x: -x)
    )

    def kernel(out):
        out[0], out[1], out[2] = first(7), second(7), third(7)

    out = np.zeros(3)
    lockstep.launch(kernel, 1, 1, out)
    assert out.tolist() == [8, 35, -7]


def test_a_lambda_that_cannot_be_found_is_refused_by_name():
    text = "first, second = eval('lambda out: None'), 2\n"
    linecache.cache["<string>"] = (len(text), None, [text], "<string>")
    try:
        with pytest.raises(UnsupportedConstructError, match="the source of a lambda: write it with def"):
            lockstep.launch(eval("lambda out: None"), 1, 1, np.zeros(1))
    finally:
        del linecache.cache["<string>"]


SCRIPT = """
import numpy as np
from paged_numba import lockstep
def kernel(out):
    out[0] = 4
out = np.zeros(1)
try:
    lockstep.launch(kernel, 1, 1, out)
    print(out[0])
except NotImplementedError as error:
    print(error)
"""


@pytest.mark.parametrize("way", ["-c", "stdin"])
def test_a_kernel_without_a_file_says_what_to_do(way):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT] if way == "-c" else [sys.executable],
        input=SCRIPT if way == "stdin" else None,
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        check=True,
    )
    assert ("4.0" if way == "-c" else "save it to a file") in done.stdout


MADE = """
def kernel(out):
    {first}
    out[0] = {value}
"""


def test_functions_that_a_project_makes_by_exec_run_while_lockstep_is_installed():
    # All have one file name, one function name and one line: only their code tells them apart.
    texts = [MADE.format(first=first, value=value) for first in ("pass", "out[1] = 2") for value in (3, 4)]
    made = {}
    with lockstep.installed():
        for text in texts:
            exec(text, names := {})
            made[text] = names["kernel"]
    exec(texts[0].replace("3", "5"), names := {})
    for text, kernel in made.items():
        got, expected = np.zeros(2), np.zeros(2)
        lockstep.launch(kernel, 1, 1, got)
        kernel(expected)
        assert got.tolist() == expected.tolist(), text
    with pytest.raises(UnsupportedConstructError, match="must be readable"):
        lockstep.launch(names["kernel"], 1, 1, np.zeros(2))


def test_an_error_in_executed_code_names_its_line():
    with lockstep.installed():
        exec("def kernel(out):\n    x = 1\n    out[9] = x\n", names := {})
    with pytest.raises(IndexError, match=r"out\[9\] out of bounds.*<string>:3"):
        lockstep.launch(names["kernel"], 1, 1, np.zeros(2))


# Globals and closure variables.

SCALE = 2
TABLE = np.array([1, 2])
SETTINGS = sys.modules[__name__]


@cuda.jit(device=True)
def scaled(value):
    return value * SCALE


@cuda.jit
def from_outside(out, branch):
    out[0] = SCALE
    out[1] = TABLE[0]
    out[2] = SETTINGS.SCALE
    if branch > 0:
        out[3] = scaled(10)


def test_globals_are_constants_from_the_first_launch_on(monkeypatch):
    monkeypatch.setitem(globals(), "TABLE", TABLE.copy())

    def run(launcher, branch=1):
        out = np.zeros(4, np.int64)
        launcher(from_outside, 1, 1, out, branch)
        return out.tolist()

    assert run(lockstep.launch, branch=0) == [2, 1, 2, 0]
    monkeypatch.setitem(globals(), "SCALE", 3)
    TABLE[0] = 9
    # Also in a device function that has not run yet: Numba compiles it with the kernel.
    for launcher in (lockstep.launch, lockstep.profile, lockstep.sanitize):
        assert run(launcher) == [2, 1, 2, 20]


def test_closure_variables_are_constants_from_the_first_launch_on():
    value = 1

    @cuda.jit
    def kernel(out):
        out[0] = value

    out = np.zeros(1)
    value = 2  # before the first launch
    kernel[1, 1](out)
    assert out[0] == 2
    value = 3
    kernel[1, 1](out)
    assert out[0] == 2


def test_a_kernel_with_a_signature_has_the_globals_of_its_decoration(monkeypatch):
    monkeypatch.setitem(globals(), "TABLE", TABLE.copy())
    monkeypatch.setattr(SETTINGS, "SCALE", 2)
    value = 10

    def function(out):
        out[0] = SCALE
        out[1] = TABLE[0]
        out[2] = SETTINGS.SCALE
        out[3] = value

    numba = pytest.importorskip("numba")
    eager = cuda.jit("void(int64[::1])")(function)
    compiled = numba.njit("void(int64[::1])")(function)
    monkeypatch.setitem(globals(), "SCALE", 3)
    monkeypatch.setattr(SETTINGS, "SCALE", 4)
    TABLE[0] = 9
    value = 11
    ours, profiled, theirs = np.zeros((3, 4), np.int64)
    eager[1, 1](ours)
    compiled(theirs)
    assert ours.tolist() == theirs.tolist() == [2, 1, 2, 10]
    lockstep.profile(eager, 1, 1, profiled)
    assert profiled.tolist() == theirs.tolist()


@pytest.mark.parametrize("signature", [None, "void(float64[::1])"])
def test_a_function_that_is_decorated_again_has_the_globals_of_then(signature):
    table = np.zeros(1)
    values = (table, 0)

    def function(out):
        out[0] = table[0]
        out[1] = values[1]

    kernels = []
    for value in range(3):
        table[0] = value
        values = (table, value)
        kernels.append(cuda.jit(signature)(function) if signature else cuda.jit(function))
        kernels[-1][1, 1](np.zeros(2))
    assert kernels[0].py_func is function
    for value, kernel in enumerate(kernels):
        out = np.zeros(2)
        kernel[1, 1](out)
        assert out.tolist() == [value, value]
        assert kernel.__name__ == "function"
    table[0] = 7
    kernels[0].recompile()
    kernels[0][1, 1](out)
    assert out.tolist() == [7, 2]


def test_a_function_that_is_decorated_again_unchanged_is_not_translated_again():
    table, names, nan = np.ones(2), ("a", (1, table_of_nan())), float("nan")

    def function(out):
        out[0] = table[0] + names[1][0] + nan

    first = cuda.jit(function)
    first[1, 1](np.zeros(1))
    assert cuda.jit(function).py_func is function


def table_of_nan():
    return np.array([np.nan])


def test_numba_freezes_globals_alike(monkeypatch):
    numba = pytest.importorskip("numba")

    def function(out):
        out[0] = SCALE
        out[1] = TABLE[0]

    monkeypatch.setitem(globals(), "TABLE", np.array([1, 2]))
    compiled = numba.njit(function)
    results = []
    for scale in (2, 3):
        monkeypatch.setitem(globals(), "SCALE", scale)
        TABLE[0] = scale
        theirs, ours = np.zeros(2), np.zeros(2)
        compiled(theirs)
        lockstep.launch(function, 1, 1, ours)
        assert ours.tolist() == theirs.tolist()
        results.append(ours.tolist())
    assert results == [[2, 2], [2, 2]]


def test_a_device_function_that_cannot_run_is_refused_before_anything_runs():
    @cuda.jit(device=True)
    def bad(x):
        return [x]

    @cuda.jit
    def kernel(out):
        out[0] = 1
        if out.size > 5:
            out[1] = bad(out[0])

    out = np.zeros(1)
    for _ in range(2):
        with pytest.raises(UnsupportedConstructError, match="a list"):
            kernel[1, 1](out)
    assert out[0] == 0


def test_threads_may_launch_kernels_for_the_first_time_at_once():
    kernels = [kernel_with_its_own_function(factor) for factor in range(1, 5)]
    results = {}
    ready = threading.Barrier(4)

    def launch(number):
        out = np.ones(1)
        ready.wait()
        kernels[number][1, 1](out)
        results[number] = out[0]

    def let_others_run(phase, info):
        time.sleep(1e-4)

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(4)]
    # Another thread may run while `ast.parse` collects garbage, if a collection calls Python functions.
    threshold = gc.get_threshold()
    gc.callbacks.append(let_others_run)
    gc.set_threshold(200)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(let_others_run)
    assert results == {0: 2, 1: 4, 2: 6, 3: 8}


# Cells. A tool that runs a script cell by cell compiles each alone, with the line numbers of the file.

CELLS = """# %%
import numpy as np
from paged_numba.lockstep.cuda import facade as cuda

# %%
import math

@cuda.jit
def kernel(out):
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(out, 0, math.sqrt(4))
    cuda.syncthreads()
    out[1] = cuda.laneid

# %%
text = '''
# %%
def kernel(out):
'''
"""


def run_cells(path):
    namespace, line = {"__name__": "__main__", "__file__": str(path)}, 0
    for cell in CELLS.split("\n\n# %%"):
        exec(compile("\n" * line + cell, str(path), "exec", dont_inherit=True), namespace)
        line += cell.count("\n") + 2
    return namespace["kernel"]


def test_a_kernel_runs_whose_cell_was_compiled_alone(tmp_path):
    path = tmp_path / "cells.py"
    path.write_text(CELLS, encoding="utf-8")
    out = np.zeros(2)
    lockstep.launch(run_cells(path), 1, 1, out)
    assert out.tolist() == [2, 0]


def test_a_kernel_whose_cell_has_changed_does_not_run(tmp_path):
    path = tmp_path / "cells.py"
    path.write_text(CELLS.replace("out[1]", "out[0]"), encoding="utf-8")
    with pytest.raises(UnsupportedConstructError, match="has changed since 'kernel' was imported"):
        lockstep.launch(run_cells(path), 1, 1, np.zeros(2))


def test_a_kernel_runs_whose_statement_was_compiled_alone(tmp_path):
    # As IPython does with the cells of a notebook.
    path = tmp_path / "cell.py"
    path.write_text(CELLS, encoding="utf-8")
    namespace = {}
    for statement in ast.parse(CELLS).body:
        exec(compile(ast.Module([statement], []), str(path), "exec", dont_inherit=True), namespace)
    out = np.zeros(2)
    lockstep.launch(namespace["kernel"], 1, 1, out)
    assert out.tolist() == [2, 0]
