"""
12 · Which token has the largest score?
=======================================

Write the kernel ``argmax``: ``out[0]`` is the index of the largest of ``n`` scores, which greedy decoding needs. Of
several equal scores, the one with the smallest index counts.

One thread block does the work, with one thread for each score; some threads may have no score. The threads compare
scores in a tree and carry the index of each score along: ``values[t]`` is the largest score that thread ``t`` knows,
and ``indices[t]`` is its index. Scores may be negative, and a masked token has the score ``-inf``; at least one score
is finite.

Shapes::

    out       int32[1]
    scores    float32[n]     1 <= n <= blockDim.x, which is a power of two, at most 128
    values    float32[128]
    indices   int32[128]

8 threads and 6 scores; each cell is ``value @ index``::

    thread      0      1      2      3      4      5      6       7
    start     1 @ 0  5 @ 1  5 @ 2  0 @ 3  4 @ 4  2 @ 5  -inf @ 6  -inf @ 7
    half = 4  4 @ 4  5 @ 1  5 @ 2  0 @ 3     thread 0 compares with 4, 1 with 5, 2 with 6, 3 with 7
    half = 2  5 @ 2  5 @ 1                   thread 0 compares with 2, 1 with 3
    half = 1  5 @ 1                          thread 0 compares with 1: equal, so the smaller index

Example: ``scores = [1, 5, 5, 0, 4, 2]`` gives ``out = [1]``.

What is checked: each score is read once. In each round, only the first ``half`` threads work, so whole warps fall
idle: with 128 threads, 90 memory requests to shared memory are enough.
"""

import numpy as np
from numba import float32, int32

from paged_numba import cuda


@cuda.jit
def argmax(out, scores):
    values = cuda.shared.array(128, float32)
    indices = cuda.shared.array(128, int32)
    thread = cuda.threadIdx.x
    # >>> Your code: store each thread's score and its index; the rounds; the result (14 lines).
    values[thread] = scores[thread] if thread < scores.size else float32(-np.inf)
    indices[thread] = thread
    cuda.syncthreads()  # all scores are there
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            mine, other = values[thread], values[thread + half]
            if other > mine or (other == mine and indices[thread + half] < indices[thread]):
                values[thread] = other
                indices[thread] = indices[thread + half]
        cuda.syncthreads()  # this round is over
        half //= 2
    if thread == 0:
        out[0] = indices[0]
    # <<<
