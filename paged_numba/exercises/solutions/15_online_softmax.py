"""
15 · The LSE of a row, in one pass
==================================

Write the kernel ``lse``: each thread block computes the logarithm of the sum of ``exp(score)`` over one row of
scores, and reads each score once. So it must find the maximum and the sum in the same pass.

Thread ``t`` takes the scores ``t``, ``t + blockDim.x``, ``t + 2 * blockDim.x`` and so on. It keeps the largest of its
scores so far and the sum of ``exp(score - largest)``. When a larger score comes, the thread rescales its sum. At the
end, the sums of the threads are relative to different maxima. Each thread rescales its sum to the maximum of the row,
which ``segment_max`` finds, and ``segment_sum`` adds the sums up. All threads must call both functions.

Scores may be as large as 1000 and as small as -1000. A masked token has the score ``-inf`` and adds nothing to the
sum. If a row has no other scores, its LSE is ``-inf``. Some threads may have no score at all.

Shapes::

    out       float32[num_rows]
    scores    float32[num_rows, n]
    scratch   float32[128]           for thread blocks of 1, 2, 4 and so on up to 128 threads

Two threads, and a row of 4 scores::

    thread   scores   largest            sum
    0        1, 3     1, then 3          1, then exp(1 - 3) + 1 = 1.135
    1        2, 0     2, and still 2     1, then 1 + exp(0 - 2) = 1.135
    row               3                  1.135 * exp(3 - 3) + 1.135 * exp(2 - 3) = 1.553

Example: ``scores = [[1, 2, 3, 0]]`` gives ``out = [3 + log(1.553)] = [3.44]``.

What is checked: each score is read once.
"""

import math

import numpy as np
from numba import float32

from paged_numba import cuda
from paged_numba.kernels.reduce import segment_max, segment_sum


@cuda.jit
def lse(out, scores):
    scratch = cuda.shared.array(128, float32)
    row, thread, num_threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    # >>> Your code: one loop over the thread's scores; the row's maximum; its sum; the LSE (13 lines).
    largest, total = float32(-np.inf), float32(0)
    for i in range(thread, scores.shape[1], num_threads):
        score = scores[row, i]
        if score > largest:
            total *= math.exp(largest - score)
            largest = score
        if score > -np.inf:
            total += math.exp(score - largest)
    row_largest = segment_max(largest, scratch, num_threads)
    total *= math.exp(largest - row_largest)  # nan if the whole row is masked
    total = segment_sum(total, scratch, num_threads)
    if thread == 0:
        out[row] = row_largest + math.log(total) if row_largest > -np.inf else row_largest
    # <<<
