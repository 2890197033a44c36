"""Lesson 11: the numbers in its prose, its sum and its kernel beside the package's, its answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import float32
from reading import lesson

import paged_numba as pn
from paged_numba import cuda, lockstep
from paged_numba.errors import SynchronizationError
from paged_numba.kernels.reduce import warp_sum

LESSON = lesson(11)


@cuda.jit
def package_sums(out, x):
    out[cuda.threadIdx.x] = warp_sum(x[cuda.threadIdx.x])


@cuda.jit
def sum_of_four_warps(out, x):
    part = cuda.shared.array(4, float32)
    thread = cuda.threadIdx.x
    in_warp = warp_sum(x[thread])
    if thread % 32 == 0:
        part[thread // 32] = in_warp
    cuda.syncthreads()
    out[thread] = part[0] + part[1] + part[2] + part[3]


def letters(distances, xor):
    """Return which letters each of 8 lanes has after the steps."""
    numbers, out = np.zeros(32, np.int32), np.zeros(32, np.int32)
    numbers[:8] = 1 << np.arange(8)
    lockstep.launch(LESSON.run()["totals"], 1, 32, out, numbers, distances, xor)
    return ["".join(letter for bit, letter in enumerate("abcdefgh") if n >> bit & 1) for n in out[:8]]


def report(way):
    made = LESSON.run()
    arguments = (made[name] for name in ("query", "key_cache", "value_cache", "block_table"))
    return lockstep.profile(made["attention"], 2, 32, np.zeros((2, 64), np.float32), *arguments, 100, way)


def test_numbers_in_the_prose():
    made = LESSON.run()
    tree, butterfly = report(made["TREE"]), report(made["BUTTERFLY"])
    scores = 100 * 2
    LESSON.check_numbers(
        claims={
            "loses all its 1,400 barriers": tree.work().barriers,
            "of a warp, 0 to 31": (0, 31),
            "Must 32 threads meet in shared memory to add up 32 numbers": (32, 32),
            "7 barriers, after the store, each of 5 rounds, and the load of the result: 1,400": (
                tree.work().barriers / scores,
                len(made["FIVE_STEPS"]),
                tree.work().barriers,
            ),
            "are 17 requests: 3,400": (
                tree.memory("shared").requests / scores,
                tree.memory("shared").requests,
            ),
            "sum in all lanes after 5 steps": len(made["FIVE_STEPS"]),
        },
        given=[
            "such as 0 and 4 at distance 4",
            "32 bits, says",
            "lane 0 brings an",
            "lane 1 a",
            "does lane 3 have after the distances 4, 2 and 1",
            "lane 0 alone has all of them",
            "100 tokens and 2 heads",
            "the dimensions of lane 0",
            "promises 32 lanes",
            "For 24 numbers",
            "all 32 lanes call, 8 with 0.",
            "with 16 lanes for each",
            "How do 4 warps add up 128 numbers",
            "at the distances 8, 4, 2 and 1",
            "distances, 1, 2, 4. Which has lane 3",
            "is answer 1",
            "is answer 3",
        ],
    )
    assert (butterfly.work().barriers, butterfly.memory("shared").requests) == (0, 0)
    per_request = butterfly.memory("global", "load", array="key_cache").sectors_per_request
    assert per_request == 4, "coalesced"


def test_what_each_lane_has():
    assert letters((4, 2, 1), False)[3] == "defgh"
    assert letters((4, 2, 1), False)[0] == "abcdefgh"
    assert letters((4, 2, 1), True) == ["abcdefgh"] * 8
    assert letters((1, 2, 4), True) == ["abcdefgh"] * 8
    assert [letters((1, 2, 4)[:steps], True)[3] for steps in (1, 2)] == ["cd", "abcd"]
    for row in (letters((4,), False), letters((4, 2), True)):
        assert " ".join(f"{text:8}" for text in row) in LESSON.output


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=32, max_size=32))
def test_warp_sum_is_the_package_s(numbers):
    made, x = LESSON.run(), np.array(numbers, np.float32)
    ours, theirs = np.zeros(32, np.float32), np.zeros(32, np.float32)
    lockstep.launch(made["totals"], 1, 32, ours, x, made["FIVE_STEPS"], True)
    lockstep.launch(package_sums, 1, 32, theirs, x)
    np.testing.assert_array_equal(ours, theirs)
    assert np.unique(ours).size == 1, "all lanes have the same bits"


@given(seq_len=st.integers(1, 100), seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.1, 1, 4]))
def test_attention_is_the_rung_attention_warp(seq_len, seed, size):
    made, rng = LESSON.run(), np.random.default_rng(seed)
    query = size * rng.standard_normal((2, 64), np.float32)
    keys, values = rng.standard_normal((2, 10, 16, 2, 64), np.float32)
    table = rng.permutation(10)[:7]
    theirs = pn.paged_attention(
        query[None], keys, values, table[None], [seq_len], scale=1, algorithm="warp", target="lockstep"
    )[0]
    for way in ("TREE", "BUTTERFLY"):
        out = np.zeros_like(query)
        lockstep.launch(made["attention"], 2, 32, out, query, keys, values, table, seq_len, made[way])
        np.testing.assert_allclose(out, theirs, rtol=1e-3, atol=1e-4)


def test_only_lane_0_is_right_with_shfl_down():
    made, out = LESSON.run(), np.zeros((2, 64), np.float32)
    arguments = (made[name] for name in ("query", "key_cache", "value_cache", "block_table"))
    lockstep.launch(made["attention"], 2, 32, out, *arguments, 100, made["DOWN"])
    right = np.isclose(out, made["oracle"], rtol=1e-4, atol=1e-5)
    assert [np.flatnonzero(head).tolist() for head in right] == [[0, 32], [0, 32]]


def test_a_guard_keeps_lanes_from_the_shuffle():
    made = LESSON.run()
    with pytest.raises(SynchronizationError, match="lane 24 is elsewhere"):
        lockstep.launch(made["totals"], 1, 32, np.zeros(24), np.ones(24), made["FIVE_STEPS"], True)
    out = np.zeros(32)
    lockstep.launch(made["totals"], 1, 32, out, np.r_[np.ones(24), np.zeros(8)], made["FIVE_STEPS"], True)
    assert (out == 24).all()


def test_answers():
    made, out = LESSON.run(), np.zeros(32, np.int32)
    lockstep.launch(made["totals"], 1, 32, out, np.arange(32, dtype=np.int32), (8, 4, 2, 1), True)
    assert out.tolist() == [sum(range(16))] * 16 + [sum(range(16, 32))] * 16
    x, of_four = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    counts = lockstep.profile(sum_of_four_warps, 1, 128, of_four, x)
    assert (of_four == x.sum()).all()
    assert counts.work().barriers == 4, "one barrier for each of 4 warps"
    assert str(lockstep.sanitize(sum_of_four_warps, 1, 128, of_four, x)) == "no findings"
