"""Statements behind a guard compute what Python computes, whatever the threads outside would compute."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_random_programs import OneThread, load

from paged_numba import lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.cuda import facade as cuda

BODIES = [
    "p = x[2 * i : 2 * i + 2]; o[i] = p[0] + p[1]",
    "p = x[2 * i : 2 * i + 2]; q = p[1:]; o[i] = q[0] + p.size + q.shape[0]",
    "o[i] = x[2 * i :][1] + x[: 2 * i + 2][2 * i]",
    "o[i] = x[2 * i : 2 * n][0] + x[i : n : 2][0]",
    "x[2 * i : 2 * i + 2] = i",
    "x[2 * i : 2 * i + 2] = y[i : i + 2]",
    "x[2 * i : 2 * i + 1 + i % 2] = y[i : i + 1 + i % 2]",  # lengths that differ by thread
    "for v in x[2 * i : 2 * i + 2]: o[i] += v",
    "for v in x[i : 2 * i]: o[i] += v",
    "for k, v in enumerate(x[2 * i : 2 * i + 1 + i % 2], i): o[i] += k * v",
    "for v, w in zip(x[2 * i : 2 * i + 2], (1, 2, 3)): o[i] += v * w",
    "for w, v in zip((1, 2, 3), x[2 * i : 2 * i + 1 + i % 2]): o[i] += v * w",
    "u, v = x[2 * i : 2 * i + 2]; o[i] = u - v",
    "o[i] = x[2 * i : 2 * i + 2].reshape(2, 1)[1, 0]",
    "o[i] = m[i][1] + m[i, 1] + m[i, :][0] + m.T[0, i] + m[i : i + 1, 1:][0, 0]",
    "o[i] = (5, 6, 7, 8)[min(i, 3)]",
    "for j in range(0, 3, n - i): o[i] += j + 1",
    "for j in range(i, n): o[i] += j",
    "o[i] = 7 // (n - i) + 7 % (n - i)",
    "o[i] = (1 << (n - i)) + (1024 >> (n - i))",
    "o[i] = int(math.sqrt(n - 1 - i) + math.log(n - i))",
    "o[i] = round(10 / (n - i)) + int(1e9 / (n - i))",
    "o[i] = (n - i) ** (n - 1 - i)",
    "o[i] = n - i if x[2 * i] >= 0 and x[2 * i + 1] >= 0 else 0",
]


def run(body, n, threads, cuda, launch):
    source = "\n".join([
        "def kernel(o, x, y, m, n):", "    i = cuda.grid(1)", "    if i < n:",
        *("        " + line for line in body.split("; ")), "",
    ])  # fmt: skip
    module = load(source, cuda)
    module.math = math
    x, y = np.arange(2 * n) + 3, np.arange(n + 1) * 5 + 1
    o, m = np.zeros(n, np.int64), np.arange(2 * n).reshape(n, 2)
    launch(module.kernel, o, x, y, m, n)
    return np.concatenate([o, x])


@pytest.mark.parametrize("body", BODIES)
@settings(max_examples=4, deadline=None)
@given(n=st.integers(1, 9), order=st.sampled_from(["together", "forward", "reverse"]))
def test_threads_behind_a_guard_compute_what_python_computes(body, n, order):
    one = OneThread()

    def each_thread(kernel, *arguments):
        for one.thread in range(40):
            kernel(*arguments)

    expected = run(body, n, 40, one, each_thread)

    def all_threads(kernel, *arguments):
        with lockstep.options(order=order):
            lockstep.launch(kernel, 1, 40, *arguments)

    np.testing.assert_array_equal(run(body, n, 40, cuda, all_threads), expected)

    def sanitized(kernel, *arguments):
        assert not lockstep.sanitize(kernel, 1, 40, *arguments).errors

    np.testing.assert_array_equal(run(body, n, 40, cuda, sanitized), expected)


@cuda.jit
def step_of_zero(o, n):
    i = cuda.grid(1)
    if i <= n:
        for _ in range(0, 3, n - i):
            o[i] += 1


@cuda.jit
def two_shapes(o, x):
    i = cuda.grid(1)
    o[i] = x[: i + 1].reshape(i + 1, 1)[0, 0]


@cuda.jit
def two_lengths(o, x):
    i = cuda.grid(1)
    u, v = x[: i + 1]
    o[i] = u + v


@cuda.jit
def two_steps(o, x):
    i = cuda.grid(1)
    o[i] = x[:: i + 1][0]


@pytest.mark.parametrize(
    ("kernel", "argument", "message"),
    [
        (step_of_zero, 2, "step that is not zero"),
        (two_shapes, np.arange(4), "x must have one shape in all threads"),
        (two_lengths, np.arange(4), "x must have one length in all threads"),
        (two_steps, np.arange(4), "same step in all threads"),
    ],
)
def test_what_active_threads_do_wrong_is_an_error(kernel, argument, message):
    with pytest.raises(KernelError, match=rf"{message}.*test_inactive.py:\d+"):
        lockstep.launch(kernel, 1, 4, np.zeros(4), argument)


@cuda.jit
def reads_what_it_stores(o):
    for k, v in enumerate(o):
        if k < 3:
            o[k + 1] += v


def test_a_loop_loads_an_item_when_its_iteration_begins():
    o = np.arange(1, 5)
    lockstep.launch(reads_what_it_stores, 1, 1, o)
    np.testing.assert_array_equal(o, [1, 3, 6, 10])


@cuda.jit
def local_and_strides(o, x):
    mine = cuda.local.array(3, np.int64)
    for k in range(2):
        mine[k] = k + 1
    for value, stride in zip(mine, x.strides):  # noqa: B905 (Numba knows no strict=)
        o[0] += value * stride


@cuda.jit
def breaks(o, x):
    i = cuda.grid(1)
    mine = cuda.local.array(4, np.int64)
    for k in range(i + 1):
        mine[k] = x[k, 0]
    for k, value in enumerate(mine):
        o[i] += value
        if k == i:
            break


@pytest.mark.parametrize(("kernel", "threads"), [(local_and_strides, 1), (breaks, 4)])
def test_a_loop_loads_no_item_that_it_does_not_use(kernel, threads):
    assert not lockstep.sanitize(kernel, 1, threads, np.zeros(4, np.int64), np.zeros((4, 4), np.int64))
