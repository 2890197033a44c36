"""A barrier waits for the threads that have not exited, in every order of the warps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.errors import SynchronizationError
from paged_numba.lockstep.cuda import facade as cuda

ORDERS = ["together", "forward", "reverse"]
EXITED = "barrier after some threads exited"


@cuda.jit
def guarded(x, out):
    """Sum of the thread block and votes at barriers, behind a guard that returns."""
    tile = cuda.shared.array(96, np.int64)
    i, t = cuda.grid(1), cuda.threadIdx.x
    if i >= x.size:
        return
    tile[t] = x[i]
    cuda.syncthreads()
    total = 0
    for j in range(min(cuda.blockDim.x, x.size - (i - t))):
        total += tile[j]
    even = cuda.syncthreads_count(x[i] % 2 == 0)
    every = cuda.syncthreads_and(x[i] >= 0)
    some = cuda.syncthreads_or(x[i] == 7)
    out[i, 0], out[i, 1], out[i, 2], out[i, 3] = total, even, every, some


@settings(max_examples=25, deadline=None)
@given(
    x=st.lists(st.integers(-2, 9), min_size=1, max_size=150),
    threads=st.sampled_from([1, 31, 32, 33, 64, 96]),
    max_lanes=st.sampled_from([1, 100, 32768]),
)
def test_threads_that_return_early_are_not_waited_for(x, threads, max_lanes):
    x = np.array(x)
    blocks = -(-x.size // threads)
    expected = np.empty((x.size, 4), int)
    for start in range(0, x.size, threads):
        part = x[start : start + threads]
        expected[start : start + threads] = (
            part.sum(),
            (part % 2 == 0).sum(),
            (part >= 0).all(),
            (part == 7).any(),
        )
    for order in ORDERS:
        out = np.full((x.size, 4), -1)
        with lockstep.options(order=order, max_lanes=max_lanes):
            lockstep.launch(guarded, blocks, threads, x, out)
        np.testing.assert_array_equal(out, expected, err_msg=order)


def test_the_sanitizer_notes_that_threads_have_exited():
    findings = lockstep.sanitize(guarded, 2, 64, np.arange(100), np.zeros((100, 4), int))
    assert {finding.kind for finding in findings} == {EXITED}
    assert not findings.errors
    example = next(iter(findings)).example.what
    gone = "thread 36 of thread block 1"
    assert example.startswith(f"only 36 of 64 threads wait, since others, such as {gone}, have exited")
    assert example.endswith("allowed since compute capability 7.0")
    assert not lockstep.sanitize(guarded, 2, 64, np.arange(128), np.zeros((128, 4), int))


@cuda.jit
def in_the_guard(x, out):
    i = cuda.grid(1)
    if i < x.size:
        cuda.syncthreads()
        out[i] = x[i]


@cuda.jit
def guard_or_return(x, out):
    i = cuda.grid(1)
    if i < x.size:
        cuda.syncthreads()
        out[i] = x[i]
    else:
        return


@cuda.jit
def return_in_a_loop(x, out):
    i = cuda.grid(1)
    for j in range(4):
        if i >= x.size - 16 * j:
            return
        out[i] = cuda.syncthreads_count(1)


@cuda.jit
def leaves_the_loop(x, out):
    i = cuda.grid(1)
    for _ in range(4):
        if i >= x.size:
            break
        cuda.syncthreads()
    out[0] = 1


@cuda.jit
def skips_after_others_returned(x, out):
    i = cuda.threadIdx.x
    if i >= 60:
        return
    if i < x.size:
        cuda.syncthreads()
    out[0] = 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", [in_the_guard, leaves_the_loop, skips_after_others_returned])
def test_a_barrier_that_live_threads_skip_is_an_error(kernel, order):
    with (
        lockstep.options(order=order),
        pytest.raises(SynchronizationError, match=r"thread 40 is in another branch"),
    ):
        lockstep.launch(kernel, 1, 64, np.arange(40), np.zeros(64))
    assert {f.kind for f in lockstep.sanitize(kernel, 1, 64, np.arange(40), np.zeros(64)).errors} >= {
        "synchronization"
    }


@pytest.mark.parametrize("order", ORDERS)
def test_threads_that_return_elsewhere_are_not_waited_for(order):
    with lockstep.options(order=order):
        out = np.zeros(40)
        lockstep.launch(guard_or_return, 2, 64, np.arange(40), out)
        np.testing.assert_array_equal(out, np.arange(40))
        out = np.zeros(64)
        lockstep.launch(return_in_a_loop, 1, 64, np.arange(64), out)
        np.testing.assert_array_equal(out, np.repeat([16, 32, 48, 64], 16))


@cuda.jit
def grid_barrier(out, n):
    if cuda.grid(1) >= n:
        return
    cuda.cg.this_grid().sync()
    out[cuda.grid(1)] = 1


@pytest.mark.parametrize("n", [32, 40])
def test_the_barrier_of_the_grid_waits_for_every_thread(n):
    with pytest.raises(SynchronizationError, match=r"grid\.sync\(\) must be reached by"):
        lockstep.launch(grid_barrier, 2, 32, np.zeros(64), n)
    lockstep.launch(grid_barrier, 2, 32, np.zeros(64), 64)


@cuda.jit
def votes(out, n):
    i = cuda.threadIdx.x
    if i >= n:
        return
    out[i, 0] = cuda.ballot_sync(0xFFFFFFFF, i % 2 == 0)
    out[i, 1] = cuda.all_sync(0xFFFFFFFF, True)
    out[i, 2] = cuda.any_sync(0xFFFFFFFF, i == 31)
    cuda.syncwarp()


@cuda.jit
def shuffle(out, n, source):
    i = cuda.threadIdx.x
    if i >= n:
        return
    out[i] = cuda.shfl_sync(0xFFFFFFFF, i, source)


def test_lanes_that_have_exited_vote_nothing_and_have_no_value():
    out = np.zeros((10, 3), int)
    lockstep.launch(votes, 1, 32, out, 10)
    np.testing.assert_array_equal(out, [[0b0101010101, 1, 0]] * 10)
    lockstep.launch(shuffle, 1, 32, np.zeros(10), 10, 9)
    with pytest.raises(SynchronizationError, match="lane 10, which does not take part"):
        lockstep.launch(shuffle, 1, 32, np.zeros(10), 10, 10)


@pytest.mark.parametrize("wrong", [9, (9,), (9, 0, 0), "9.0", (9.0, 0)])
def test_compute_capability_is_a_pair(wrong):
    with pytest.raises(ValueError, match="compute_capability must be two integers"):
        lockstep.Options(compute_capability=wrong)


def test_the_device_has_the_compute_capability_of_the_options():
    assert cuda.get_current_device().compute_capability == (9, 0)
    with lockstep.options(compute_capability=(6, 1)):
        assert cuda.get_current_device().compute_capability == (6, 1)
