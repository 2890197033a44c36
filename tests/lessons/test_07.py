"""Lesson 07: the numbers in its prose, and its kernel held to the package's reduction."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda, float32
from reading import lesson

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.errors import KernelError
from paged_numba.kernels.reduce import segment_max
from paged_numba.kernels.score import dot

LESSON = lesson(7)
ORDERS = ("together", "forward", "reverse")
NEG_INF = np.float32(-np.inf)


def run(arguments, second_barrier=True, threads=128):
    out = np.full(1, np.nan, np.float32)
    lockstep.launch(LESSON.run()["largest_score"], 1, threads, out, *arguments[1:], second_barrier)
    return out[0]


def test_numbers_in_the_prose():
    made = LESSON.run()
    report, key = made["report"], made["key"]
    shared = report.memory("shared")
    (launch,) = report.kernels
    threads = launch["threads_per_block"][0]
    warps, rounds = threads // 32, int(math.log2(threads))
    working = [max(1, threads // 2**done // 32) for done in range(1, rounds + 1)]
    tree = pn.draw.Tree.of(made["accesses"], "scores")
    busy = [len({step.thread for step in tree.steps if step.epoch == epoch}) for epoch in tree.epochs]
    LESSON.check_numbers(
        claims={
            "128 threads agree": threads,
            "each of 120 keys": len(key),
            "The key of token 110": (made["query"] == key[:, 0]).all(1).argmax(),
            "loses token 110": 110,
            "scores 96 to 127 yet. The winner, 110": (96, 127, 110),
            "lost token 110: scores 32 to 63": (110, 32, 63),
            "64, 32, 16, 8, 4, 2 and 1: half": tuple(busy[1:]),
            "29. Each warp stores its scores: 4": (shared.requests, warps),
            "2, 1, 1, 1, 1, 1 and 1 warps have work, 8 in all": (*working, sum(working)),
            "two loads and a store: 24": 3 * sum(working),
            "reaches 8 barriers: 32": (report.work().barriers // warps, report.work().barriers),
        },
        given=["runs threads in groups of 32", "warp 0 takes scores 32 to 63, which warp 1 has",
               "scores 96 to 127 are minus infinity", "distances 1, 2, 4"],
    )  # fmt: skip
    assert shared.requests == warps + 3 * sum(working) + 1


def test_only_one_order_loses_the_winner():
    made = LESSON.run()
    found = {}
    for order in ORDERS:
        with lockstep.options(order=order):
            found[order] = run(made["arguments"], second_barrier=False)
    right = (made["key"][:, 0] @ made["query"]).max()
    assert {order: bool(np.isclose(score, right)) for order, score in found.items()} == {
        "together": True,
        "forward": False,
        "reverse": True,
    }
    for order, score in found.items():
        assert f"{order:8}  {score:5.2f}" in LESSON.output
    # The broken run takes the largest of the scores up to 95.
    assert found["forward"] == pytest.approx((made["key"][:96, 0] @ made["query"]).max(), rel=1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seq_len", [90, 120])
def test_the_sanitizer_names_the_race_in_every_order(order, seq_len):
    _, *arrays, _ = LESSON.run()["arguments"]
    with lockstep.options(order=order), lockstep.sanitizing() as findings:
        run((None, *arrays, seq_len), second_barrier=False)
    assert {(finding.kind, finding.array) for finding in findings.errors} == {("data race", "scores")}
    with lockstep.options(order=order), lockstep.sanitizing() as findings:
        run((None, *arrays, seq_len))
    assert not findings


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_gives_a_wrong_result_for_90_tokens(order):
    made = LESSON.run()
    _, *arrays, _ = made["arguments"]
    with lockstep.options(order=order):
        score = run((None, *arrays, 90), second_barrier=False)
    assert score == pytest.approx((made["key"][:90, 0] @ made["query"]).max(), rel=1e-5)


@cuda.jit
def largest_by_package(out, query, key_cache, block_table, seq_len, _):
    scratch = cuda.shared.array(128, float32)
    thread, block_size = cuda.threadIdx.x, key_cache.shape[1]
    score = NEG_INF
    if thread < seq_len:
        kv_block, offset = block_table[thread // block_size], thread % block_size
        score = dot(query, key_cache[kv_block, offset, 0], query.size)
    largest = segment_max(score, scratch, cuda.blockDim.x)
    if thread == 0:
        out[0] = largest


@given(data=st.data(), order=st.sampled_from(ORDERS))
def test_the_kernel_agrees_with_the_package(data, order):
    threads = 2 ** data.draw(st.integers(0, 7))
    seq_len, block_size = data.draw(st.integers(1, threads)), data.draw(st.integers(1, 16))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    query, key = (rng.standard_normal(shape, dtype=np.float32) for shape in (8, (seq_len, 1, 8)))
    cache = pn.PagedKVCache(2 + seq_len, block_size, 1, 8, target="lockstep")
    cache.key_cache[:] = np.nan
    cache.add("other", key[:1], key[:1])
    cache.add("ours", key, key)
    arguments = None, query, cache.key_cache, cache.allocator.block_table("ours"), seq_len
    with lockstep.options(order=order):
        score = run(arguments, threads=threads)
        same = np.zeros(1, np.float32)
        lockstep.launch(largest_by_package, 1, threads, same, *arguments[1:], True)
    np.testing.assert_allclose(score, same[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(score, (key[:, 0] @ query).max(), rtol=1e-5, atol=1e-6)


@lockstep.jit
def barrier_inside_the_guard(scores):
    thread, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            scores[thread] = max(scores[thread], scores[thread + half])
            cuda.syncthreads()
        half //= 2


def test_a_barrier_inside_the_guard_is_an_error_that_names_threads():
    with pytest.raises(KernelError, match="thread"):
        barrier_inside_the_guard[1, 64](np.zeros(64, np.float32))
