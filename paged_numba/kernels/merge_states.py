"""Merge attention over disjoint sets of keys, by their LSEs."""

import math

import numpy as np
from numba import cuda, float32

NEG_INF = np.float32(-np.inf)


@cuda.jit
def merge_states_kernel(out, lse, out_a, lse_a, out_b, lse_b):
    """Average two outputs, each weighted by ``exp`` of its LSE (FlashAttention; FlashInfer, 2024).

    ``lse = log(exp(lse_a) + exp(lse_b))``, computed relative to the larger of the two. A set without keys has LSE
    -inf and weight 0; the kernel never computes -inf - -inf, which is NaN. Weights are as exact as the LSEs:
    neighbouring float32 numbers near 1e6 are 0.06 apart. `merge_splits_kernel` needs no LSEs.

    Launch: ``[(num_tokens, num_q_heads), at least value_head_dim]``. A thread computes one dimension. Bytes moved: each
    element of both outputs is read once, each element of the result is written once.
    """
    # out, out_a, out_b  float[num_tokens, num_q_heads, value_head_dim]
    # lse, lse_a, lse_b  float32[num_tokens, num_q_heads], natural logarithm
    token = cuda.blockIdx.x
    q_head = cuda.blockIdx.y
    dim = cuda.threadIdx.x

    of_a, of_b = lse_a[token, q_head], lse_b[token, q_head]
    largest = max(of_a, of_b)
    weight_a = math.exp(of_a - largest) if of_a != NEG_INF else float32(0)
    weight_b = math.exp(of_b - largest) if of_b != NEG_INF else float32(0)
    total = weight_a + weight_b
    if dim < out.shape[2]:
        weighted = float32(0)
        # The output of a set without keys may be NaN, and 0 * NaN is NaN.
        if weight_a != 0:
            weighted += weight_a * float32(out_a[token, q_head, dim])
        if weight_b != 0:
            weighted += weight_b * float32(out_b[token, q_head, dim])
        out[token, q_head, dim] = weighted / total if total != 0 else float32(0)
    if dim == 0:
        lse[token, q_head] = largest + math.log(total) if total != 0 else NEG_INF
