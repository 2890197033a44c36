"""Local arrays end with the call that declares them, and each running call has its own."""

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.lockstep.cuda import facade as cuda


@cuda.jit(device=True)
def pair(a, b):
    made = cuda.local.array(2, np.int64)
    made[0], made[1] = a, b
    return made


@cuda.jit
def used_in_turn(out):
    i = cuda.grid(1)
    p = pair(i, i + 1)
    out[i] = p[0] + p[1]
    p = pair(10 * i, 5)
    out[i] += p[0] + p[1]


@cuda.jit
def used_together(out):
    i = cuda.grid(1)
    p = pair(i, i + 1)
    q = pair(10 * i, 5)
    out[i] = p[0] + q[1]  # here


@cuda.jit
def stored_together(out):
    i = cuda.grid(1)
    p = pair(i, i + 1)
    q = pair(10 * i, 5)
    p[1:][0] = 3  # here
    out[i] = q[0]


@cuda.jit
def in_other_threads(out):
    i = cuda.grid(1)
    p = pair(i, i + 1)
    if i > 1:
        q = pair(10 * i, 5)
        out[i] = q[0]
    else:
        out[i] = p[0]


@cuda.jit
def in_a_loop(out):
    i = cuda.grid(1)
    for j in range(3):
        mine = cuda.local.array(2, np.int64)
        mine[j % 2] = j
        out[i] += mine[j % 2]


@pytest.mark.parametrize("kernel", [used_together, stored_together])
def test_a_local_array_of_an_earlier_call_is_found(kernel):
    errors = lockstep.sanitize(kernel, 1, 4, np.zeros(4, np.int64)).errors
    assert [finding.kind for finding in errors] == ["dangling local array"]
    finding = errors[0]
    assert finding.array == "made"
    assert finding.source.endswith("# here")
    assert "thread 0 of thread block 0" in finding.example.what


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(used_in_turn, [6, 18, 30, 42]), (in_other_threads, [0, 1, 20, 30]), (in_a_loop, [3, 3, 3, 3])],
)
def test_local_arrays_that_are_used_in_turn_are_fine(kernel, expected):
    out = np.zeros(4, np.int64)
    assert not lockstep.sanitize(kernel, 1, 4, out)
    np.testing.assert_array_equal(out, expected)


@cuda.jit(device=True)
def digits(n):
    """Sum of 10 ** k * k for k up to `n`, with an array in each call."""
    mine = cuda.local.array(2, np.int64)
    mine[0] = 10**n
    mine[1] = n
    rest = digits(n - 1) if n > 0 else 0
    return mine[0] * mine[1] + rest


@cuda.jit
def recursive(out):
    i = cuda.grid(1)
    out[i] = digits(i)


def test_each_call_of_a_recursive_function_has_its_own_local_array():
    out = np.zeros(4, np.int64)
    lockstep.launch(recursive, 1, 4, out)
    np.testing.assert_array_equal(out, [0, 10, 210, 3210])
    assert not lockstep.sanitize(recursive, 1, 4, out)
    np.testing.assert_array_equal(out, [0, 10, 210, 3210])
