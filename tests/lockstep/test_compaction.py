"""Loops that continue with the lanes that are left: the same results, errors and output as with all lanes."""

import re
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from written_kernels import written

from paged_numba import cuda, lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.compiler.shortcuts import compaction
from paged_numba.lockstep.compiler.shortcuts.compaction import Compaction, FewLanes

BLOCKS, THREADS = 3, 8
LANES = BLOCKS * THREADS


class Pair(NamedTuple):
    """A tuple with names."""

    low: int
    high: int


@cuda.jit(device=True)
def halvings(n, limit):
    """Return how often n can be halved; -1 beyond the limit."""
    count = 0
    while n % 2 == 0:
        n //= 2
        count += 1
        if count > limit:
            return -1
    return count


@cuda.jit(device=True)
def first_beyond(x, limit):
    """Return the first index whose element is larger, in the lanes that find one."""
    for i in range(x.shape[0]):
        if x[i] > limit:
            return i
    return -1


@cuda.jit
def variables_of_all_kinds(out, x):
    i = cuda.grid(1)
    n, total, pair, place, row = i, 0, Pair(0, i), (i, 0), x[0]
    scale = np.float32(0.5)
    z = complex(i, 1)
    while n > 0:
        n -= 1 + i % 3
        total += n
        pair = Pair(pair.low + 1, pair.high - 1)
        place = (place[1], place[0] + n)
        row = x[n % 4]
        scale = scale * np.float32(1.5)
        z = z * 0.5j
        if n % 5 == 4:
            only_some = n
            total += only_some
    out[i, 0], out[i, 1] = total, pair.low * 100 + pair.high
    out[i, 2], out[i, 3] = place[0] * 1000 + place[1], row[1]
    out[i, 4], out[i, 5] = scale, z.real + 10 * z.imag


@cuda.jit
def trips_that_differ(out, x):
    i = cuda.grid(1)
    count = 0
    for j in range(i % 7, i, 1 + i % 2):
        if j == 13:
            break
        if j % 3 == 1:
            continue
        for k in range(j % 4):
            count += k + x[k, j % 4]
    else:
        count += 1000
    out[i, 0] = count
    out[i, 1] = cuda.threadIdx.x + 10 * cuda.blockIdx.x + 100 * cuda.blockDim.x


@cuda.jit
def returns_in_loops(out, x):
    i = cuda.grid(1)
    out[i, 0] = halvings(i + 8, 2)
    out[i, 1] = first_beyond(x[i % 4], i // 4)
    for j in range(9):
        while (i + j) % 4 != 0:
            out[i, 2] += 1
            if out[i, 2] > 12:
                return
            if i % 3 == j:
                break
            j += 1
        out[i, 3] += j
    out[i, 4] = 1


@cuda.jit
def local_memory(out, x):
    i = cuda.grid(1)
    own, kept = cuda.local.array((3, 2), np.float64), cuda.local.array(2, np.int64)
    kept[0] = kept[1] = i
    for k in range(3):
        own[k, 0] = own[k, 1] = k
    part = own[2]
    n = i
    while n > 0:
        own[n % 3, 0] += n
        own[1, 1] += 1
        part = own[n % 2]
        part[1] += 0.5
        kept[n % 2] -= 1
        kept[0] += n
        n //= 2
    kept[1] += kept[0]
    part[0] = 100 + kept[1]
    own[2, 0] += 1
    for k in range(3):
        out[i, 2 * k], out[i, 2 * k + 1] = own[k, 0], own[k, 1]


@cuda.jit
def shared_memory_and_atomics(out, x):
    i, t = cuda.grid(1), cuda.threadIdx.x
    tile, taken = cuda.shared.array(8, np.int64), cuda.shared.array(1, np.int32)
    tile[t] = t
    if t == 0:
        taken[0] = 0
    cuda.syncthreads()
    n = i
    while n % 8 != 7:
        out[i, 0] = out[i, 0] * 10 + cuda.atomic.add(taken, 0, 1)
        tile[t] += n
        cuda.atomic.max(x, (n % 4, 1), n)
        n += 1
    cuda.syncthreads()
    out[i, 1] = tile[7 - t] + taken[0]


@cuda.jit
def numbers_that_change_type(out, x):
    i = cuda.grid(1)
    value, flag = 1, False
    n = 0
    while n < i % 6:
        value = value * 1.25
        flag = not flag
        n += 1
    out[i, 0], out[i, 1] = value, flag


@cuda.jit
def conditions(out, x):
    i = cuda.grid(1)
    n = count = 0
    while (last := x[n % 4, i % 4]) < 9 and (n < i or count < 2):
        n += 1
        count += 2 if n % 2 else last
    out[i, 1] = last
    out[i, 0] = count


ALL = (
    variables_of_all_kinds,
    trips_that_differ,
    returns_in_loops,
    local_memory,
    shared_memory_and_atomics,
    numbers_that_change_type,
    conditions,
)
everywhere = pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.py_func.__name__)


@pytest.fixture
def compactions(monkeypatch):
    """Count the compactions."""
    done = []
    gather = Compaction.gather

    def counted(self, *given):
        result = gather(self, *given)
        done.extend(self.levels[-1:])
        return result

    monkeypatch.setattr(Compaction, "gather", counted)
    return done


def compacting():
    """Compact each loop in every iteration that some lanes have left."""
    return mock.patch.multiple(compaction, EVERY=1, LEAST_LANES=0, MOST_LEFT=1)


def run(kernel, **options):
    """Return the arrays that the kernel changes."""
    out, x = np.zeros((LANES, 6)), np.array([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8], [9, 7, 9, 3]])
    with lockstep.options(**options):
        lockstep.launch(kernel, BLOCKS, THREADS, out, x)
    return out, x


def check(kernel, **options):
    plain = run(kernel, **options)
    with compacting():
        compacted = run(kernel, **options)
    for array, expected in zip(compacted, plain, strict=True):
        np.testing.assert_array_equal(array, expected)


@everywhere
@pytest.mark.parametrize("options", [{}, {"order": "forward"}, {"order": "reverse"}, {"max_lanes": 8}])
def test_the_lanes_that_are_left_compute_the_same(kernel, options, compactions):
    check(kernel, **options)
    assert compactions


def test_a_kernel_does_what_plain_python_does():
    out, _ = run(variables_of_all_kinds)
    for i in range(LANES):
        n, total, steps = i, 0, 0
        while n > 0:
            n -= 1 + i % 3
            total += n + n * (n % 5 == 4)
            steps += 1
        assert out[i, 0] == total
        assert out[i, 1] == 100 * steps + i - steps


MUTANTS = {
    "a variable is not scattered": ("scatter", lambda self, mask, new, gathered, old: old),
    "returned lanes are not scattered": ("scatter_mask", lambda self, new, gathered, old: old),
    "the wrong lanes are gathered": (
        "_index",
        lambda self, shape: (self.places if shape == self.whole.shape else self.places % 2)[::-1],
    ),
    "masks are not gathered": ("gather_mask", lambda self, mask: mask is not False),
    "local memory is not settled": ("gather", None),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_comparison_would_notice(monkeypatch, name):
    method, wrong = MUTANTS[name]
    if wrong is None:
        monkeypatch.setattr(compaction.LocalArray, "share", lambda self: None)
    else:
        monkeypatch.setattr(FewLanes, method, wrong)
    survived = []
    for kernel in ALL:
        try:
            check(kernel)
        except Exception:
            continue
        survived.append(kernel)
    assert len(survived) < len(ALL), name


PRINTS = """
def kernel(out, x):
    i = cuda.grid(1)
    n = i % 5
    while n > 0:
        print(i, n)
        n -= 2
    if i == 3:
        print("end", n)
"""


def test_prints_come_in_the_same_order(capsys, compactions):
    kernel = written(PRINTS)
    run(kernel)
    plain = capsys.readouterr().out
    with compacting():
        run(kernel)
    assert compactions
    assert capsys.readouterr().out == plain
    assert len(plain.splitlines()) > LANES


ERRORS = {
    "x[n, 0] = 1": r"x\[4, 0\] out of bounds for shape \(4, 4\), thread 4 of thread block 0, ",
    "x[0, 0] //= n - 6": "integer division by zero, thread 6 of thread block 0, ",
    "assert n != 12": "assertion failed: n != 12, thread 4 of thread block 1, ",
    "assert n < 3 or later": "'later' is read before it is assigned, thread 3 of thread block 0, ",
}


@pytest.mark.parametrize("statement", ERRORS)
def test_errors_name_the_same_thread(statement, compactions):
    text = f"""
def kernel(out, x):
    i = cuda.grid(1)
    n = 0
    while n != i:
        n += 1
        if n == i:
            {statement}
    later = 1
"""
    kernel = written(text)
    with pytest.raises(KernelError) as plain:
        run(kernel)
    with compacting(), pytest.raises(KernelError) as compacted:
        run(kernel)
    assert compactions
    assert re.match(ERRORS[statement], str(plain.value)), plain.value
    assert str(compacted.value) == str(plain.value)


WITH_ALL_LANES = {
    "a barrier": "cuda.syncthreads()",
    "a vote": "out[i, 0] = cuda.syncthreads_count(n)",
    "a shuffle": "out[i, 0] = cuda.shfl_sync(0xFFFFFFFF, n, 0)",
    "a ballot": "out[i, 0] = cuda.ballot_sync(0xFFFFFFFF, n)",
    "a barrier of a warp": "cuda.syncwarp()",
    "local memory": "own = cuda.local.array(2, np.int32)",
    "shared memory": "tile = cuda.shared.array(2, np.int32)",
    "a device function that waits": "wait()",
}


@pytest.mark.parametrize("what", WITH_ALL_LANES)
def test_lanes_that_wait_for_each_other_stay_together(what):
    @cuda.jit(device=True)
    def wait():
        cuda.syncwarp()

    def text(statement):
        return lockstep.lane_program(
            written(
                f"def kernel(out, x):\n    i = cuda.grid(1)\n    n = 9\n    while n > 0:\n        n -= 1\n"
                f"        {statement}\n    out[i, 1] = i",
                wait=wait,
            )
        )

    assert "Compaction" not in text(WITH_ALL_LANES[what])
    assert "Compaction" in text("out[i, 0] += n")


def test_a_loop_that_waits_for_memory_stays_together():
    text = "def kernel(out, lock):\n    while cuda.atomic.cas(lock, 0, 0, 1) != 0:\n        pass\n    lock[0] = 0"
    assert "Compaction" not in lockstep.lane_program(written(text))


@cuda.jit
def collatz(out, x):
    i = cuda.grid(1)
    n = i + 1
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    out[i] = steps


def test_a_long_loop_is_compacted_more_than_once(compactions):
    out = np.zeros(16384, np.int64)
    lockstep.launch(collatz, 64, 256, out, out)
    lanes = [few.num_lanes for few, *_ in compactions]
    assert len(lanes) > 2
    assert lanes == sorted(lanes, reverse=True)
    for i in (0, 26, 96, 16383):
        n, steps = i + 1, 0
        while n != 1:
            n, steps = n // 2 if n % 2 == 0 else 3 * n + 1, steps + 1
        assert out[i] == steps


def test_observed_launches_run_with_all_lanes(compactions):
    out = np.zeros(24, np.int64)
    with compacting():
        report = lockstep.profile(collatz, 3, 8, out, out)
    assert not compactions
    assert report.memory("global", "store").requests == 3
