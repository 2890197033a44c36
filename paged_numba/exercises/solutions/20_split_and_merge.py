"""
20 · Merge the splits, also empty ones
======================================

Attention was computed for each split of a sequence separately. Each split has its result, ``part_out``, and its LSE,
``part_lse``: the logarithm of the sum of ``exp(score)`` over the tokens of the split. Write the kernel ``merge``,
which combines the splits: ``out`` is the attention over all tokens, and ``lse`` is the LSE over all tokens, so that
the merged state can be merged again.

The weight of a split is ``exp(part_lse - total)``, where ``total`` is the LSE over all tokens. LSEs may be as large
as 1000 and as small as -1000, so ``exp(part_lse)`` alone may overflow or be 0.

A split without tokens has an LSE of ``-inf``. Its ``part_out`` was never written and may hold NaN. If no split has
tokens, ``out`` is 0 and ``lse`` is ``-inf``.

Shapes::

    out        float32[num_heads, head_dim]
    lse        float32[num_heads]
    part_out   float32[num_splits, num_heads, head_dim]
    part_lse   float32[num_splits, num_heads]             to the base e

One thread block for each head, and one thread for each dimension::

    split                 0       1       2
    tokens              0 to 3  4 to 7   none
    part_out[:, 0, 0]     2       6       nan
    part_lse[:, 0]        0     log(3)   -inf
    weight              1 / 4    3 / 4     0

Example: these splits give ``out[0, 0] = 0.25 * 2 + 0.75 * 6 = 5`` and ``lse[0] = log(1 + 3) = 1.386``.

What is checked: each result is read once.
"""

import math

import numpy as np
from numba import float32

from paged_numba import cuda


@cuda.jit
def merge(out, lse, part_out, part_lse):
    head, dim = cuda.blockIdx.x, cuda.threadIdx.x
    # >>> Your code: the largest LSE; the sums of weights and of weighted results; the merged state (12 lines).
    largest = float32(-np.inf)
    for split in range(part_lse.shape[0]):
        largest = max(largest, part_lse[split, head])
    total, weighted = float32(0), float32(0)
    for split in range(part_lse.shape[0]):
        if part_lse[split, head] > -np.inf:  # else its result may be NaN, and 0 * NaN is NaN
            weight = math.exp(part_lse[split, head] - largest)
            total += weight
            weighted += weight * part_out[split, head, dim]
    out[head, dim] = weighted / total if total > 0 else float32(0)
    if dim == 0:
        lse[head] = largest + math.log(total) if total > 0 else float32(-np.inf)
    # <<<
