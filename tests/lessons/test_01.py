"""Lesson 01: the numbers in its prose, and what its questions say."""

import numpy as np
import pytest
from reading import lesson

import paged_numba as pn
from paged_numba import cuda, lockstep
from paged_numba.lockstep.launch import MAX_THREADS_PER_BLOCK

LESSON = lesson(1)


@cuda.jit
def double_without_blocks(out, x, times):
    i = cuda.threadIdx.x
    if i < out.size:
        out[i] = 2 * x[i]
        cuda.atomic.add(times, i, 1)


@cuda.jit
def double_in_a_loop(out, x):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = 2 * x[i]


@cuda.jit
def scale_with_half_a_guard(out, keys, factor):
    column, token = cuda.grid(2)
    if token < keys.shape[0]:
        out[token, column] = factor * keys[token, column]


def test_numbers_in_the_prose():
    made = LESSON.run()
    block, thread = made["thread_block"][37], made["thread"][37]
    rows = pn.draw.Threads((2, 2), (8, 4), (5, 12))
    ((block_x, block_y), (thread_x, thread_y)) = rows.thread_of(4, 9)
    blocks = -(-1000 // 256)
    LESSON.check_numbers(
        claims={
            "at most 1,024 threads": MAX_THREADS_PER_BLOCK,
            "take 3 thread blocks": -(-40 // 16),
            "3 thread blocks of 16 threads are 48 threads, 8 too many": (3, 16, 3 * 16, 3 * 16 - 40),
            "Thread block 2 begins at element 32": (2, 2 * 16),
            "the last element is 39": made["x"].size - 1,
            "its threads 8 to 15": (40 - 32, 15),
            "37 = 2 * 16 + 5, so thread 5 of thread block 2": (37, block, 16, thread, thread, block),
            "Column 9 is x = 1 * 8 + 1": (9, block_x, 8, thread_x),
            "row 4 is y = 1 * 4 + 0": (4, block_y, 4, thread_y),
            "thread (1, 0) of thread block (1, 1)": (thread_x, thread_y, block_x, block_y),
            "4 thread blocks, since 3 have only 768 threads": (blocks, blocks - 1, (blocks - 1) * 256),
            "1,024 - 1,000 = 24 threads": (blocks * 256, 1000, blocks * 256 - 1000),
            "The other 24 stay 0": (40 - 16, 0),
        },
        given=[
            "with 1 group of 8 threads",
            "start from 0 again",
            "with 16 threads in a thread block",
            "launch 40 threads",
            "takes element 37",
            "with 8 by 4 threads",
            "1,000 elements, 256 threads",
            "Elements 0 to 15",
            "vLLM 0.6",
        ],
    )


def test_the_sanitizer_names_the_threads_beyond_the_array():
    text = str(lockstep.sanitize(LESSON.run()["double_unguarded"], 3, 16, np.zeros(40), np.zeros(40)))
    assert "x[40] out of bounds" in text
    assert "out[40] out of bounds" in text
    assert "thread 8 of thread block 2" in text
    assert text in LESSON.output


def test_answers():
    out, times = np.zeros(40), np.zeros(40, np.int64)
    double_without_blocks[3, 16](out, np.arange(40.0), times)
    np.testing.assert_array_equal(out, np.where(np.arange(40) < 16, 2 * np.arange(40), 0))
    np.testing.assert_array_equal(times, np.where(np.arange(40) < 16, 3, 0))
    keys = np.arange(60.0).reshape(5, 12)
    assert keys.ravel()[0 * 12 + 12] == keys[1, 0]
    findings = lockstep.sanitize(scale_with_half_a_guard, (2, 2), (8, 4), np.zeros_like(keys), keys, 0.5)
    assert "keys[0, 12] out of bounds" in str(findings)


def test_try_next():
    double, x = LESSON.run()["double"], np.arange(40.0)
    out = np.zeros(40)
    double[1, 16](out, x)
    np.testing.assert_array_equal(out, np.where(np.arange(40) < 16, 2 * x, 0))
    for blocks in (1, 2, 3, 4):
        out = np.zeros(40)
        double_in_a_loop[blocks, 16](out, x)
        np.testing.assert_array_equal(out, 2 * x)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40, 48])
def test_the_guarded_kernel_is_right_for_any_size(count):
    made, x = LESSON.run(), np.arange(float(count))
    out = np.zeros(count)
    made["double"][-(-count // 16), 16](out, x)
    np.testing.assert_array_equal(out, 2 * x)
