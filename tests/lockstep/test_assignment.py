"""A variable that a thread has not assigned is an error in that thread, and only there."""

import inspect

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.cuda import facade as cuda

ORDERS = [
    {"order": "together"},
    {"order": "forward", "max_lanes": 64},
    {"order": "reverse"},
    {"order": "together", "max_lanes": 1},
]


@cuda.jit(device=True)  # noqa: RET503 (that is the error)
def large_only(value):
    if value > 2:
        return value * 10


@cuda.jit(device=True)
def two_or_none(value):
    if value > 2:
        return value, value + 1
    return None


@cuda.jit(device=True)
def always(value):
    if value > 2:
        return value
    return -value


@cuda.jit(device=True)
def unassigned_inside(value):
    if value > 2:
        found = value
    return found


# Each kernel has the line of its error marked with `# here`; threads 0, 1, 2 make the error.


@cuda.jit
def branch(a, o):
    i = cuda.grid(1)
    if i > 2:
        y = a[i]
    o[i] = y  # here


@cuda.jit
def chain(a, o):
    i = cuda.grid(1)
    if i > 40:
        y = 1
    elif i > 2:
        y = 2
    o[i] = y  # here


@cuda.jit
def nested(a, o):
    i = cuda.grid(1)
    if i >= 0:
        if i > 2:  # noqa: SIM102 (nested on purpose)
            if a[i] >= 0:
                y = a[i]
        if i < 2000:
            o[i] = y + 1  # here


@cuda.jit
def accumulator(a, o):
    i = cuda.grid(1)
    if i > 2:
        total = 0
    for j in range(8):
        total += a[j]  # here
    o[i] = total


@cuda.jit
def loop_variable(a, o):
    i = cuda.grid(1)
    for j in range(i - 2):
        o[i] += a[j]
    o[i] = j  # here


@cuda.jit
def item_of_a_loop(a, o):
    i = cuda.grid(1)
    if i > 2:
        for place, value in enumerate(a[:2]):  # noqa: B007 (used after the loop)
            o[i] = place
    o[i] = value  # here


@cuda.jit
def in_a_while(a, o):
    i = cuda.grid(1)
    n = i
    while n > 2:
        last = n
        n -= 1
    o[i] = last  # here


@cuda.jit
def before_a_break(a, o):
    i = cuda.grid(1)
    for j in range(4):
        if i < 3:
            break
        y = j
    o[i] = y  # here


@cuda.jit
def before_a_continue(a, o):
    i = cuda.grid(1)
    for j in range(4):
        if i < 3:
            continue
        y = j
        o[i] = y
    o[i] = y  # here


@cuda.jit
def parts(a, o):
    i = cuda.grid(1)
    if i > 2:
        x, (y, z) = 1, (2, 3)
    o[i] = x + y + z  # here


@cuda.jit
def in_a_condition(a, o):
    i = cuda.grid(1)
    if i > 2:
        y = i
    if i > 2 or y > 1:  # here
        o[i] = 1


@cuda.jit
def in_a_ternary(a, o):
    i = cuda.grid(1)
    if i > 2:
        y = i
    o[i] = y if i < 5 else 0  # here


@cuda.jit
def index_and_bounds(a, o):
    i = cuda.grid(1)
    if i > 2:
        y = 3
    for j in range(y):  # here
        o[i] = j


@cuda.jit
def array_of_some(a, o):
    i = cuda.grid(1)
    if i > 2:
        row = a[i:]
    o[i] = row[0]  # here


@cuda.jit
def result(a, o):
    i = cuda.grid(1)
    o[i] = large_only(i)  # here


@cuda.jit
def results(a, o):
    i = cuda.grid(1)
    x, y = two_or_none(i)  # here
    o[i] = x + y


WRONG = [
    branch, chain, nested, accumulator, loop_variable, item_of_a_loop, in_a_while, before_a_break,
    before_a_continue, parts, in_a_condition, in_a_ternary, index_and_bounds, array_of_some, result, results,
]  # fmt: skip
NAMES = {
    "accumulator": "total", "loop_variable": "j", "item_of_a_loop": "value", "in_a_while": "last", "parts": "x",
    "array_of_some": "row", "result": "large_only", "results": "two_or_none",
}  # fmt: skip


def place_of(kernel):
    """Return the line of the error that a kernel makes."""
    lines, first = inspect.getsourcelines(kernel.py_func)
    return first + next(i for i, line in enumerate(lines) if "# here" in line)


@pytest.mark.parametrize("options", ORDERS, ids=str)
@pytest.mark.parametrize("kernel", WRONG, ids=lambda kernel: kernel.__name__)
def test_a_value_that_only_other_threads_have_is_an_error(kernel, options):
    message = (
        rf"'{NAMES.get(kernel.__name__, 'y')}'.*, thread [012] of thread block 0, "
        rf"test_assignment\.py:{place_of(kernel)}$"
    )
    with lockstep.options(**options), pytest.raises(KernelError, match=message):
        lockstep.launch(kernel, 3, 40, np.arange(120), np.zeros(120, int))


@pytest.mark.parametrize("kernel", WRONG, ids=lambda kernel: kernel.__name__)
def test_the_sanitizer_reports_the_value_and_goes_on(kernel):
    o = np.zeros(120, int)
    found = lockstep.sanitize(kernel, 3, 40, np.arange(120), o)
    assert found.errors
    finding = found.errors[0]
    assert finding.kind == ("missing result" if kernel in (result, results) else "unassigned variable")
    assert NAMES.get(kernel.__name__, "y") in finding.example.what
    assert finding.example.thread == "thread 0 of thread block 0"
    assert finding.line == f"test_assignment.py:{place_of(kernel)}"
    assert o[3:].any()


@cuda.jit
def right(a, o):
    """Assigned in every thread that reads it."""
    i = cuda.grid(1)
    if i >= 100:
        return
    if i > 2:
        y = a[i]
    if i > 5:
        o[i] += y  # read under a narrower condition
    if i % 2 == 0:
        z = 1
    else:
        z = 2
    if i < 3:
        y = 7  # now the others too
    o[i] += y + z
    for j in range(i % 3, 3):  # each thread runs at least once
        last = j
    while True:
        w = last
        if w > 0:
            break
        return
    o[i] += w + always(i)
    large_only(i)  # no thread uses the result
    if i > 2:
        o[i] += large_only(i)
    for j in range(4):
        if j == 0:
            carried = i  # assigned in an earlier iteration
        o[i] += carried


@pytest.mark.parametrize("options", ORDERS, ids=str)
def test_threads_that_have_assigned_go_on(options):
    a, o = np.arange(120), np.zeros(120, int)
    with lockstep.options(**options):
        lockstep.launch(right, 3, 40, a, o)
    i = np.arange(100)
    y = np.where(i < 3, 7, i)
    expected = np.where(i > 5, i, 0) + y + np.where(i % 2 == 0, 1, 2) + 2 + np.where(i > 2, i, -i)
    expected = expected + np.where(i > 2, 10 * i, 0) + 4 * i
    np.testing.assert_array_equal(o, np.r_[expected, np.zeros(20)])
    assert not lockstep.sanitize(right, 3, 40, a, o).errors


@cuda.jit
def fails_inside(a, o):
    i = cuda.grid(1)
    o[i] = unassigned_inside(i)


def test_a_variable_of_a_device_function_is_named_with_its_line():
    with pytest.raises(
        KernelError, match=r"'found' is read .* thread 0 of thread block 0, test_assignment.py:\d+$"
    ):
        lockstep.launch(fails_inside, 1, 8, np.arange(8), np.zeros(8))


def test_variables_that_every_path_assigns_cost_nothing():
    program = lockstep.lane_program(right)
    assert "a_y" in program
    assert "a_last" in program
    assert not any(f"a_{name}" in program for name in ("i", "z", "w", "j"))
