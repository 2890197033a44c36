"""
14 · Softmax of a row
=====================

Write the kernel ``softmax``: each thread block turns one row of scores into weights. The weight of a score is
``exp(score - largest)``, divided by the sum of these exponentials over the row, where ``largest`` is the largest
score of the row.

A row may be longer than a thread block, or shorter: thread ``t`` takes the scores ``t``, ``t + blockDim.x``,
``t + 2 * blockDim.x`` and so on. ``segment_max(mine, scratch, cuda.blockDim.x)`` returns to each thread the largest
``mine`` of all threads, and ``segment_sum`` the sum of ``mine`` over all threads (lesson 08). All threads of the
thread block must call both.

A score of ``-inf`` belongs to a masked token: its weight is 0. If all scores of a row are ``-inf``, all weights of
the row are 0.

Shapes::

    weights, scores   float32[num_rows, n]
    scratch           float32[128]           for thread blocks of 1, 2, 4 and so on up to 128 threads

A thread block of 4 threads, and a row of 6 scores::

    score      0   1   2   3   4   5
    thread     0   1   2   3   0   1

Example: the row ``[1, 1, -inf, 1, 1, -inf]`` gives ``[0.25, 0.25, 0, 0.25, 0.25, 0]``.

What is checked: the weights, for scores as large as 1000 and as small as -1000, and the traffic. Three passes over a
row are enough, if neighbouring threads read neighbouring scores.
"""

import math

import numpy as np
from numba import float32

from paged_numba import cuda
from paged_numba.kernels.reduce import segment_max, segment_sum


@cuda.jit
def softmax(weights, scores):
    scratch = cuda.shared.array(128, float32)
    row, thread, num_threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    # >>> Your code: the largest score of the row; the sum; the weights (10 lines).
    largest = float32(-np.inf)
    for i in range(thread, scores.shape[1], num_threads):
        largest = max(largest, scores[row, i])
    largest = segment_max(largest, scratch, num_threads)
    total = float32(0)
    for i in range(thread, scores.shape[1], num_threads):
        total += math.exp(scores[row, i] - largest)
    total = segment_sum(total, scratch, num_threads)
    for i in range(thread, scores.shape[1], num_threads):  # of a row that is masked, total is nan
        weights[row, i] = math.exp(scores[row, i] - largest) / total if total > 0 else float32(0)
    # <<<
