"""Loops that wait for memory: what the owner of a lock can end runs, and what nobody can end is an error."""

import inspect

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.compiler.translate import translate
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.language import patience

ORDERS = ["together", "forward", "reverse"]


@cuda.jit
def one_of_a_block(lock, x):
    if cuda.threadIdx.x == 0:
        while cuda.atomic.cas(lock, 0, 0, 1) != 0:  # here
            pass
        x[0] += 1
        cuda.threadfence()
        cuda.atomic.exch(lock, 0, 0)


@cuda.jit
def with_exchange(lock, x):
    if cuda.threadIdx.x == 0:
        while True:
            if cuda.atomic.exch(lock, 0, 1) == 0:
                break
            cuda.nanosleep(100)
        x[0] += 1
        lock[0] = 0


@cuda.jit
def with_a_variable(lock, x):
    tries = 0
    if cuda.threadIdx.x == 0:
        old = cuda.atomic.compare_and_swap(lock, 0, 1)
        while old != 0:
            old = cuda.atomic.compare_and_swap(lock, 0, 1)
            tries += 1
        x[0] += 1
        lock[0] = tries


@cuda.jit(device=True)
def acquire(lock):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        cuda.nanosleep(20)


@cuda.jit(device=True)
def try_lock(lock):
    return cuda.atomic.cas(lock, 0, 0, 1) == 0


@cuda.jit
def in_a_device_function(lock, x):
    if cuda.threadIdx.x == 0:
        acquire(lock)
        x[0] += 1
        cuda.atomic.exch(lock, 0, 0)


@cuda.jit
def by_a_device_function(lock, x):
    if cuda.threadIdx.x == 0:
        while not try_lock(lock):
            pass
        x[0] += 1
        cuda.atomic.exch(lock, 0, 0)


@cuda.jit
def one_of_a_warp(lock, x):
    if cuda.laneid == 0:
        while cuda.atomic.cas(lock, 0, 0, 1) != 0:
            pass
        x[0] += 1
        cuda.atomic.exch(lock, 0, 0)
    cuda.syncthreads()


@cuda.jit
def released_inside(lock, x):
    done = False
    while not done:
        if cuda.atomic.cas(lock, 0, 0, 1) == 0:
            x[0] += 1
            cuda.atomic.exch(lock, 0, 0)
            done = True


@cuda.jit
def compare_and_update(lock, x):
    old = x[0]
    while True:
        assumed = old
        old = cuda.atomic.cas(x, 0, assumed, assumed + 1)
        if old == assumed:
            break


@cuda.jit
def reads_again(lock, x):
    while True:
        old = x[0]
        if cuda.atomic.cas(x, 0, old, old + 1) == old:
            break


@cuda.jit
def handed_on(lock, x):
    """Each thread block waits for the one before it, as in a chained scan."""
    block = cuda.blockIdx.x
    if cuda.threadIdx.x == 0:
        while block > 0 and lock[0] != block:
            pass
        x[0] += 1
        lock[0] = block + 1


@cuda.jit
def between_warps(lock, x):
    t = cuda.threadIdx.x
    if t == 0:
        while lock[0] == 0:
            pass
        x[0] += 1
    if t == 32:
        cuda.atomic.exch(lock, 0, 1)


@cuda.jit
def work_queue(lock, x):
    while True:
        task = cuda.atomic.add(lock, 0, 1)
        if task >= 25:
            break
        cuda.atomic.add(x, 0, 1)


@cuda.jit
def counts_down(lock, x):
    n = 5 + cuda.grid(1) % 7
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
    cuda.atomic.add(x, 0, n)


@cuda.jit
def until_it_is_small(lock, x):
    """All threads leave together, after many iterations that change memory."""
    i = cuda.grid(1)
    while x[0] < 2000:
        if i == 0:
            x[0] += 1
        cuda.syncthreads()


def test_a_loop_that_changes_memory_may_run_for_long(monkeypatch):
    monkeypatch.setattr(patience, "MOST_ITERATIONS", 300)
    x = np.zeros(1, np.int64)
    lockstep.launch(until_it_is_small, 1, 8, np.zeros(1), x)
    assert x[0] == 2000
    assert "Patience" in lockstep.lane_program(until_it_is_small)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "blocks", "threads", "expected"),
    [
        (one_of_a_block, 20, 32, 20),
        (with_exchange, 20, 40, 20),
        (with_a_variable, 1, 32, 1),
        (in_a_device_function, 20, 8, 20),
        (by_a_device_function, 20, 8, 20),
        (one_of_a_warp, 3, 128, 12),
        (released_inside, 3, 40, 120),
        (compare_and_update, 3, 40, 120),
        (reads_again, 3, 40, 120),
        (between_warps, 1, 64, 1),
        (work_queue, 2, 8, 25),
        (counts_down, 2, 8, 16),
    ],
)
def test_a_loop_that_some_thread_can_end_ends(kernel, blocks, threads, expected, order):
    lock, x = np.zeros(1, np.int32), np.zeros(1, np.int64)
    with lockstep.options(order=order):
        lockstep.launch(kernel, blocks, threads, lock, x)
    assert x[0] == expected
    if kernel not in (one_of_a_warp, between_warps):  # observed warps run together
        lock[:] = x[:] = 0
        lockstep.profile(kernel, blocks, threads, lock, x)
        assert x[0] == expected


def test_thread_blocks_may_wait_for_earlier_ones_only():
    lock, x = np.zeros(1, np.int32), np.zeros(1, np.int64)
    lockstep.launch(handed_on, 9, 32, lock, x)
    assert x[0] == 9
    with (
        lockstep.options(order="reverse"),
        pytest.raises(KernelError, match=r"waits forever in thread 0 of thread block 8"),
    ):
        lockstep.launch(handed_on, 9, 32, np.zeros(1, np.int32), x)


@cuda.jit
def counts_nothing(x):
    i = 0
    while i < x.shape[0]:
        x[i] = 1


def test_a_loop_that_does_not_change_its_condition_is_an_error():
    with pytest.raises(KernelError, match=r"waits forever .* change what its condition tests\?$"):
        lockstep.launch(counts_nothing, 1, 8, np.zeros(4))


@cuda.jit
def all_of_a_block(lock, x):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:  # here
        pass
    x[0] += 1
    cuda.atomic.exch(lock, 0, 0)


@cuda.jit
def never_released(lock, x):
    while True:
        x[1] = x[1]
        if lock[0] == 1:  # here
            break


@cuda.jit
def counts_its_tries(lock, x):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:  # here
        x[1] += 1


@cuda.jit
def in_shared_memory(lock, x):
    mutex = cuda.shared.array(1, np.int32)
    mutex[0] = 0
    cuda.syncthreads()
    while cuda.atomic.cas(mutex, 0, 0, 1) != 0:  # here
        pass
    x[0] += 1
    cuda.atomic.exch(mutex, 0, 0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", [all_of_a_block, never_released, counts_its_tries, in_shared_memory])
def test_a_loop_that_nobody_can_end_is_an_error(kernel, order, monkeypatch):
    monkeypatch.setattr(patience, "MOST_ITERATIONS", 300)
    lines, first = inspect.getsourcelines(kernel.py_func)
    line = first + next(i for i, text in enumerate(lines) if "# here" in text)
    # The loop's first line, or the line of its condition.
    message = (
        rf"^a loop waits forever in thread [01] of thread block 0, test_waiting\.py:({line}|{line - 2})"
        ": no thread leaves it, since (memory does not change|none has in 300 iterations).*inside the loop$"
    )
    with lockstep.options(order=order), pytest.raises(KernelError, match=message):
        lockstep.launch(kernel, 1, 8, np.zeros(1, np.int32), np.zeros(2, np.int64))
    if order == "together":
        with pytest.raises(KernelError, match="waits forever"):
            lockstep.sanitize(kernel, 1, 8, np.zeros(1, np.int32), np.zeros(2, np.int64))


def test_thread_blocks_run_one_by_one_only_where_they_may_wait():
    def waits(kernel):
        return translate(kernel.py_func, kernel=True).waits

    assert all(
        map(waits, [one_of_a_block, with_a_variable, in_a_device_function, by_a_device_function, handed_on])
    )
    assert not any(map(waits, [compare_and_update, work_queue, counts_down]))
    assert "Patience" not in lockstep.lane_program(counts_down)
    assert "Patience" not in lockstep.lane_program(compare_and_update)
