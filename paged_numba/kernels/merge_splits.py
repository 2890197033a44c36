"""Split-KV: several thread blocks divide the keys of a query token, and this kernel merges their results."""

import math

import numpy as np
from numba import cuda, float32

NEG_INF = np.float32(-np.inf)


@cuda.jit
def merge_splits_kernel(out, lse, split_out, split_state, split_starts, sinks):
    """Merge the splits of each query token (Flash-Decoding, Dao et al., 2023).

    One thread block for each tile leaves most of a GPU idle when a small batch has long sequences. So the keys of
    each row are divided into splits, and the kernel of `attention_tile` attends to each split on its own. It leaves
    the split's largest score and the sum of its weights relative to that score, from which the weight of the split is
    ``sum * exp(its largest score - largest score of all)``. The logarithm that joins both to an LSE would lose the sum
    where scores are large: neighbouring float32 numbers near 1e6 are 0.06 apart. The sink is one more split, with
    a value of 0: it must count once, however many splits there are.

    Launch: ``[(num_tokens, num_q_heads), at least value_head_dim]``. A thread computes one dimension. Bytes read: the
    output of every split, once.
    """
    # out           float[num_tokens, num_q_heads, value_head_dim]
    # lse           float32[num_tokens, num_q_heads], natural logarithm
    # split_out     float32[num_rows, num_q_heads, value_head_dim]
    # split_state   float32[num_rows, 2 * num_q_heads]: largest score of each head, then sum of weights of each head
    # split_starts  int32[num_tokens + 1]: the rows of token t are split_starts[t] .. split_starts[t + 1] - 1
    # sinks         float32[num_q_heads], -inf for none
    token = cuda.blockIdx.x
    q_head = cuda.blockIdx.y
    num_q_heads = out.shape[1]
    dim = cuda.threadIdx.x
    first, end = split_starts[token], split_starts[token + 1]
    sink = sinks[q_head]

    largest = sink
    for row in range(first, end):
        largest = max(largest, split_state[row, q_head])
    total = math.exp(sink - largest) if sink > NEG_INF else float32(0)
    for row in range(first, end):
        split_total = split_state[row, num_q_heads + q_head]
        if split_total != 0:  # a split without keys has no weight; -inf - -inf would be NaN
            total += split_total * math.exp(split_state[row, q_head] - largest)
    if dim < out.shape[2]:
        weighted = float32(0)
        for row in range(first, end):
            split_total = split_state[row, num_q_heads + q_head]
            if split_total != 0:
                # Divided here, not at the end: the weight of a single split is 1, and its output stays as it is.
                weight = split_total * math.exp(split_state[row, q_head] - largest) / total
                weighted += weight * split_out[row, q_head, dim]
        out[token, q_head, dim] = weighted
    if dim == 0:
        lse[token, q_head] = largest + math.log(total) if total != 0 else NEG_INF
