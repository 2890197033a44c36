"""Attention, third rung: a warp works on one query token and head, and its lanes exchange values by shuffles."""

import math

import numpy as np
from numba import cuda, float32

from .columns import ROW_END, ROW_FIRST, ROW_POSITION, ROW_SEQ, ROW_TOKEN
from .reduce import warp_sum
from .score import adjusted_score

WARP = 32
DIMS_PER_LANE = 8  # head_dim and value_head_dim are 256 at most
NEG_INF = np.float32(-np.inf)


@cuda.jit
def attention_warp_kernel(
    out, lse, query, key_cache, value_cache, block_tables, rows,
    alibi_slopes, sinks, k_scales, v_scales, scale, softcap,
):  # fmt: skip
    """Online softmax, token by token (Milakov & Gimelshein, 2018): one pass over the keys, and K is read once.

    Lane l holds dimensions l, l + 32, ... of the query, of the current key and value, and of the weighted sum, all in
    registers. For each token

    1. each lane multiplies its dimensions of the query and the key, and `warp_sum` adds up the 32 products: now each
       lane has the score;
    2. if the score is the largest so far, the sums so far are rescaled by ``exp(old largest - new largest)``, so that
       all weights are relative to the same score;
    3. each lane adds its dimensions of the value, weighted.

    A sink (Xiao et al., 2023) counts as a key with value 0 before the first token.

    Shuffles keep the threads of a warp together with no shared memory and no barrier. The price is 5 shuffles per
    token, one after the other: `attention_block_kernel` computes one score per thread instead, and reduces once for
    a whole tile of tokens.

    Launch: ``[(num_rows, num_q_heads), 32]``. Bytes read: K and V of every token, once for each query head; a warp
    reads 32 neighbouring numbers at a time. Operations: 2 head_dim + 2 value_head_dim for each key that a head sees.
    """
    # out                     float[num_rows, num_q_heads, value_head_dim]
    # lse                     float32[num_rows, num_q_heads], natural logarithm
    # query                   float[num_tokens, num_q_heads, head_dim]
    # key_cache               float[num_blocks, block_size, num_kv_heads, head_dim]
    # value_cache             float[num_blocks, block_size, num_kv_heads, value_head_dim]
    # block_tables            int32[num_seqs, max_blocks]
    # rows                    int32[num_rows, 5], see columns.py
    # alibi_slopes, sinks     float32[num_q_heads], 0 and -inf for none
    # k_scales, v_scales      float32[num_kv_heads]
    # scale, softcap          float32, softcap 0 for none
    row = cuda.blockIdx.x
    q_head = cuda.blockIdx.y
    lane = cuda.threadIdx.x

    num_q_heads, head_dim, value_head_dim = query.shape[1], query.shape[2], out.shape[2]
    block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]
    kv_head = q_head // (num_q_heads // num_kv_heads)
    token, seq, query_position = rows[row, ROW_TOKEN], rows[row, ROW_SEQ], rows[row, ROW_POSITION]
    slope, sink = alibi_slopes[q_head], sinks[q_head]

    lane_query = cuda.local.array(DIMS_PER_LANE, float32)
    weighted = cuda.local.array(DIMS_PER_LANE, float32)
    for i in range(DIMS_PER_LANE):
        dim = i * WARP + lane
        lane_query[i] = float32(0)
        if dim < head_dim:
            lane_query[i] = float32(query[token, q_head, dim]) * (scale * k_scales[kv_head])
        weighted[i] = float32(0)

    largest = sink
    total = float32(1) if sink > NEG_INF else float32(0)
    for position in range(rows[row, ROW_FIRST], rows[row, ROW_END]):
        kv_block = block_tables[seq, position // block_size]
        offset = position % block_size

        # 1. The score.
        product = float32(0)
        for i in range(DIMS_PER_LANE):
            dim = i * WARP + lane
            if dim < head_dim:
                product += lane_query[i] * float32(key_cache[kv_block, offset, kv_head, dim])
        score = adjusted_score(warp_sum(product), softcap, slope, position - query_position)

        # 2. Largest score so far, weight relative to it, sum of the weights.
        new_largest = max(largest, score)
        # While every score is -inf, subtract 0: -inf - -inf would be NaN.
        shift = new_largest if new_largest > NEG_INF else float32(0)
        weight = math.exp(score - shift)
        rescale = math.exp(largest - shift)
        total = total * rescale + weight
        largest = new_largest

        # 3. The weighted sum.
        for i in range(DIMS_PER_LANE):
            dim = i * WARP + lane
            if dim < value_head_dim:
                value = float32(value_cache[kv_block, offset, kv_head, dim])
                weighted[i] = weighted[i] * rescale + weight * value

    for i in range(DIMS_PER_LANE):
        dim = i * WARP + lane
        if dim < value_head_dim:
            out[row, q_head, dim] = weighted[i] / total * v_scales[kv_head] if total != 0 else float32(0)
    if lane == 0:
        lse[row, q_head] = largest + math.log(total) if total != 0 else NEG_INF
