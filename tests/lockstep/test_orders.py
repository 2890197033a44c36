"""Traced, profiled and sanitized launches in each order of the warps: counts and findings are the same in all."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paged_numba import draw, lockstep
from paged_numba.errors import SynchronizationError
from paged_numba.lockstep.cuda import facade as cuda

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
kernels = pytest.importorskip("tutorial_kernels", reason="Numba is not installed")
racy = pytest.importorskip("racy_kernels")
from test_profiler import CASES  # noqa: E402
from test_sanitized_kernels import use_everything  # noqa: E402
from test_sanitizer import TWINS  # noqa: E402

ORDERS = ("together", "forward", "reverse")


def in_each_order(watch, kernel, grid, thread_block, make):
    """Return what `watch` (profile, sanitize or trace) returns in each order, with equal arguments."""
    given_arguments, results = make(), []
    for order in ORDERS:
        fresh = [a.copy() if isinstance(a, np.ndarray) else a for a in given_arguments]
        with lockstep.options(order=order):
            results.append(watch(kernel, grid, thread_block, *fresh))
    return results


@cuda.jit
def of_all_kinds(out):
    # Local and complex shared arrays, a last warp of one thread, divergence, atomics, shuffles, votes, an early return.
    numbers, mine = cuda.shared.array(80, np.complex128), cuda.local.array(3, np.float32)
    i = cuda.threadIdx.x
    for k in range(3):
        mine[k] = i * k
    numbers[i] = mine[i % 3] * 1j
    cuda.atomic.add(out, i % 5, 1)
    if i % 7 == 3:
        numbers[i] += 2
    waiting = cuda.syncthreads_count(i % 2)
    if i >= 70:
        return
    if i < 32:
        out[i] += cuda.shfl_down_sync(0xFFFFFFFF, i, 1) + cuda.ballot_sync(0xFFFFFFFF, i % 2)
    cuda.syncthreads()
    out[i] = numbers[0].real + numbers[79 - i].imag + waiting


OTHER_CASES = {
    "of_all_kinds": (3, 80, lambda: (np.zeros(240),)),
    "one_lane": (2, 33, lambda: (np.zeros(80),)),
}


def case(name):
    if name == "one_lane":
        return of_all_kinds_in_33, *OTHER_CASES[name]
    return (
        (of_all_kinds, *OTHER_CASES[name]) if name in OTHER_CASES else (getattr(kernels, name), *CASES[name])
    )


@cuda.jit
def of_all_kinds_in_33(out):
    tile = cuda.shared.array(33, np.complex128)
    i = cuda.threadIdx.x
    tile[i] = i
    cuda.syncthreads()
    if i == 0:
        tile[32] = 1
    cuda.syncthreads()
    out[i] = tile[32].real + tile[32].real * (i == 32)
    if i == 32:
        out[i] += tile[32].real


@pytest.mark.parametrize("name", [*CASES, *OTHER_CASES])
def test_counts_do_not_depend_on_the_order(name):
    together, *others = (report.to_dict() for report in in_each_order(lockstep.profile, *case(name)))
    assert together["memory"]
    assert others == [together, together]


@pytest.mark.parametrize("name", [*CASES, *OTHER_CASES])
def test_the_accesses_of_an_epoch_do_not_depend_on_the_order(name):
    def by_epoch(accesses):
        return Counter(
            (access.epoch, access.line.number, access.array, access.kind, thread, byte)
            for access in accesses
            for thread, byte in zip(access.threads, access.bytes, strict=True)
        )

    together, *others = map(by_epoch, in_each_order(lockstep.trace, *case(name)))
    assert max(epoch for epoch, *_ in together) > 0 or name in ("vector_add", "monte_carlo_pi")
    assert others == [together, together]


def set_of(findings):
    return {(found.kind, found.array, frozenset((found.line, found.other_line))) for found in findings}


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins[0])
def test_findings_do_not_depend_on_the_order(twins):
    clean, wrong, _, grid, thread_block, make = twins
    for findings in in_each_order(lockstep.sanitize, getattr(kernels, clean), grid, thread_block, make):
        assert not findings, str(findings)
    found = in_each_order(lockstep.sanitize, getattr(kernels, wrong), grid, thread_block, make)
    assert set_of(found[0])
    assert set_of(found[0]) == set_of(found[1]) == set_of(found[2])


@pytest.mark.parametrize(
    ("kernel", "threads", "argument"),
    [
        (racy.divergent_barrier, 64, 40),
        (racy.divergent_barrier, 64, 32),
        (racy.sum_shared, 64, 20),
        (racy.exchange_with_syncwarp, 64, 32),
        (racy.exchange_with_syncwarp, 64, 16),
    ],
)  # fmt: skip
def test_other_findings_do_not_depend_on_the_order(kernel, threads, argument):
    found = in_each_order(
        lockstep.sanitize, kernel, 1, threads, lambda: (np.zeros(threads, np.int64), argument)
    )
    assert set_of(found[0]) == set_of(found[1]) == set_of(found[2])


@settings(max_examples=15 if settings.default.max_examples > 100 else 2)
@given(
    lens=st.lists(st.integers(1, 40), min_size=1, max_size=2),
    block_size=st.sampled_from([3, 16]),
    heads=st.integers(1, 2),
    dim=st.sampled_from([4, 33]),
    order=st.sampled_from(["forward", "reverse"]),
)
def test_kernels_of_the_package_count_the_same_in_any_order(lens, block_size, heads, dim, order):
    reports = []
    for way in ("together", order):
        with lockstep.options(order=way), lockstep.sanitizing() as findings, lockstep.profiling() as report:
            use_everything([*lens, block_size - 1], block_size, heads, 2, dim, 7)
        assert not findings, str(findings)
        reports.append(report.to_dict())
    assert reports[0] == reports[1]


# The wrong run itself.


@cuda.jit
def neighbour(values):
    tile = cuda.shared.array(64, np.float32)
    i = cuda.threadIdx.x
    tile[i] = values[i]
    # A barrier is missing here.
    values[i] = tile[63 - i]


@pytest.mark.parametrize("watch", [lockstep.launch, lockstep.profile, lockstep.sanitize, lockstep.trace])
@pytest.mark.parametrize("order", ORDERS)
def test_a_watched_launch_computes_what_an_unwatched_one_does(order, watch):
    values = np.arange(64, dtype=np.float32)
    with lockstep.options(order=order):
        watch(neighbour, 1, 64, values)
    first, second = np.split(np.arange(64, dtype=np.float32)[::-1], 2)
    poison = np.full(32, np.nan, np.float32)
    expected = {"together": (first, second), "forward": (poison, second), "reverse": (first, poison)}[order]
    np.testing.assert_array_equal(values, np.concatenate(expected))


def test_warps_take_turns_in_a_trace():
    def warps(order):
        with lockstep.options(order=order):
            accesses = lockstep.trace(neighbour, 1, 64, np.zeros(64, np.float32))
        return [sorted({thread // 32 for thread in access.threads}) for access in accesses]

    assert warps("together") == [[0, 1]] * 4
    assert warps("forward") == [[0]] * 4 + [[1]] * 4
    assert warps("reverse") == [[1]] * 4 + [[0]] * 4


def test_a_race_is_no_read_of_unwritten_memory_too():
    for findings in in_each_order(lockstep.sanitize, neighbour, 1, 64, lambda: (np.zeros(64, np.float32),)):
        assert [found.kind for found in findings] == ["data race"]


@cuda.jit
def reads_before_anything_is_written(out):
    tile = cuda.shared.array(64, np.float32)
    i = cuda.threadIdx.x
    out[i] = tile[63 - i]
    cuda.syncthreads()
    tile[i] = i


@pytest.mark.parametrize("max_lanes", [64, 32768])
def test_a_read_that_a_barrier_orders_before_the_store_is_one_of_unwritten_memory(max_lanes):
    with lockstep.options(max_lanes=max_lanes):
        found = in_each_order(
            lockstep.sanitize, reads_before_anything_is_written, 2, 64, lambda: (np.zeros(64, np.float32),)
        )
    for order, findings in zip(ORDERS, found, strict=True):
        [unwritten] = [finding for finding in findings if finding.array == "tile"]
        # In reverse order, small batches begin with the last thread block, and each batch with its last warp.
        block, thread = int(order == "reverse" and max_lanes == 64), 32 * (order == "reverse")
        assert unwritten.example.thread == f"thread {thread} of thread block {block}"
        assert [(found.kind, found.count) for found in findings if found.array == "tile"] == [
            ("uninitialised read", 128)
        ]


@cuda.jit
def two_barriers(out):
    if cuda.threadIdx.x < 32:
        cuda.syncthreads()
    else:
        out[cuda.threadIdx.x] = 1
        cuda.syncthreads()


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_a_profiled_launch_raises_the_error_of_its_barrier(order):
    with lockstep.options(order=order), pytest.raises(SynchronizationError, match="some are at"):
        lockstep.profile(two_barriers, 1, 64, np.zeros(64))


def test_a_tree_of_a_wrong_order_can_be_drawn():
    with lockstep.options(order="forward"):
        accesses = lockstep.trace(
            kernels.reduce_without_barrier, 1, 64, np.ones(64, np.float32), np.zeros(1, np.float32)
        )
    assert draw.Tree.of(accesses, "partial").steps
