"""Loops whose iterations run at once compute the same bits as one by one, and fail at the same place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.errors import KernelIndexError
from paged_numba.lockstep.compiler import at_once
from paged_numba.lockstep.cuda import facade as cuda


@cuda.jit
def dot_products(out, last, a, b, counts):
    t = cuda.threadIdx.x
    total = np.float32(0)
    row = a[t]
    i = -1
    x = 0.0
    if counts[cuda.blockIdx.x] > 2:
        for i in range(counts[cuda.blockIdx.x]):
            x = row[i] * 3
            total += x * b[i, t] + i
    out[cuda.blockIdx.x, t] = total
    last[cuda.blockIdx.x, t] = 1000 * i + x


def run(counts, threads, limit, monkeypatch, seed=0):
    rng = np.random.default_rng(seed)
    a, b = (
        rng.standard_normal((threads, 40)).astype(np.float32),
        rng.standard_normal((40, threads)).astype(np.float32),
    )
    out, last = np.zeros((2, len(counts), threads))
    with monkeypatch.context() as patch:
        patch.setattr(at_once, "MOST_VALUES", limit)
        lockstep.launch(dot_products, len(counts), threads, out, last, a, b, np.array(counts))
    return out, last


@given(
    counts=st.one_of(
        st.lists(st.integers(0, 40), min_size=1, max_size=4),
        st.builds(lambda n, k: [n] * k, st.integers(0, 40), st.integers(1, 3)),
    ),
    threads=st.sampled_from((1, 2, 7, 33)),
)
def test_sums_are_the_same_bits(counts, threads):
    with pytest.MonkeyPatch.context() as monkeypatch:
        slow = run(counts, threads, 0, monkeypatch)
        fast = run(counts, threads, 1 << 17, monkeypatch)
    np.testing.assert_array_equal(fast, slow)


def test_index_out_of_bounds_is_found_at_its_iteration(monkeypatch):
    messages = []
    for limit in (0, 1 << 17):
        with pytest.raises(KernelIndexError) as caught:
            run([41], 3, limit, monkeypatch)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("a[0, 40] out of bounds")


def test_loop_that_only_adds_up_is_found():
    assert "at_once(" in lockstep.lane_program(dot_products)
    assert "at_once(" not in lockstep.lane_program(carries)
    assert "at_once(" not in lockstep.lane_program(reads_its_sum)


@cuda.jit
def carries(out):
    t = cuda.threadIdx.x
    total = 0.0
    previous = 1.0
    for i in range(9):
        total += previous
        previous = total * 0.5 + i
    out[t] = total


@cuda.jit
def reads_its_sum(out):
    total = 1.0
    for i in range(9):
        total += total * i
    out[cuda.threadIdx.x] = total


@cuda.jit
def changes_its_type(out):
    total = 0
    for i in range(9):
        total += i * 0.5
    out[cuda.threadIdx.x] = total


@cuda.jit
def adds_a_constant(out):
    total = 0.0
    for _ in range(9):
        total += 0.1
    out[cuda.threadIdx.x] = total


@pytest.mark.parametrize(
    "kernel", [carries, reads_its_sum, changes_its_type, adds_a_constant], ids=lambda k: k.py_func.__name__
)
def test_loops_that_must_go_one_by_one(kernel):
    out = np.zeros(3)
    lockstep.launch(kernel, 1, 3, out)
    expected = np.zeros(3)

    class Lane:
        threadIdx = type("", (), {"x": 0})  # noqa: N815 (CUDA's name)

    code = kernel.py_func
    original = code.__globals__["cuda"]
    code.__globals__["cuda"] = Lane
    try:
        code(expected)
    finally:
        code.__globals__["cuda"] = original
    np.testing.assert_array_equal(out, np.full(3, expected[0]))
