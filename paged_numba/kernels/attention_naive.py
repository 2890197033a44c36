"""Attention, second rung: the textbook kernel for prompts as well as decode, with the options that models use."""

import math

import numpy as np
from numba import cuda, float32

from .columns import ROW_END, ROW_FIRST, ROW_POSITION, ROW_SEQ, ROW_TOKEN
from .score import adjusted_score, dot

MAX_VALUE_HEAD_DIM = 512
NEG_INF = np.float32(-np.inf)


@cuda.jit
def attention_naive_kernel(
    out, lse, query, key_cache, value_cache, block_tables, rows,
    alibi_slopes, sinks, k_scales, v_scales, scale, softcap,
):  # fmt: skip
    """Attend from any query tokens of each sequence, one thread per query token and head, in two passes over the keys.

    A row describes a query token: its sequence, its position there, and the range of keys that it sees. Causality,
    chunks and windows are in that range, so the kernel only walks through it. Options act on a score in this order:
    scale, soft cap, ALiBi. A sink is a key with its own score and a value of 0 (Xiao et al., 2023). The LSE is the
    logarithm of the sum of ``exp(score)``; `merge_states_kernel` needs it.

    The weighted sum is in local memory, which is a thread's own part of global memory; value_head_dim is 512 at most.

    Launch: a 1-D grid of at least ``num_rows * num_q_heads`` threads. Bytes read: K twice and V once, for each query
    head. Operations: 4 head_dim + 2 value_head_dim for each key that a head sees. Slow, like the textbook kernel: the
    threads of a warp read addresses far apart, and decode of 16 sequences with 8 query heads keeps 128 threads busy.
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
    num_q_heads, head_dim, value_head_dim = query.shape[1], query.shape[2], out.shape[2]
    thread = cuda.grid(1)
    if thread >= rows.shape[0] * num_q_heads:
        return
    row = thread // num_q_heads
    q_head = thread % num_q_heads
    kv_head = q_head // (num_q_heads // key_cache.shape[2])
    block_size = key_cache.shape[1]
    token, seq, query_position = rows[row, ROW_TOKEN], rows[row, ROW_SEQ], rows[row, ROW_POSITION]
    first_key, end_key = rows[row, ROW_FIRST], rows[row, ROW_END]
    slope, sink = alibi_slopes[q_head], sinks[q_head]
    scale *= k_scales[kv_head]

    # Pass 1: the largest score.
    largest = sink
    for position in range(first_key, end_key):
        kv_block = block_tables[seq, position // block_size]
        offset = position % block_size
        score = dot(query[token, q_head], key_cache[kv_block, offset, kv_head], head_dim)
        score = adjusted_score(score * scale, softcap, slope, position - query_position)
        largest = max(largest, score)
    # If every score is -inf, subtract 0: -inf - -inf would be NaN.
    shift = largest if largest > NEG_INF else float32(0)

    # Pass 2: weights, their sum, and the weighted sum of the values.
    total = math.exp(sink - shift)
    weighted = cuda.local.array(MAX_VALUE_HEAD_DIM, float32)
    for dim in range(value_head_dim):
        weighted[dim] = 0
    for position in range(first_key, end_key):
        kv_block = block_tables[seq, position // block_size]
        offset = position % block_size
        score = dot(query[token, q_head], key_cache[kv_block, offset, kv_head], head_dim)
        score = adjusted_score(score * scale, softcap, slope, position - query_position)
        weight = math.exp(score - shift)
        total += weight
        for dim in range(value_head_dim):
            weighted[dim] += weight * float32(value_cache[kv_block, offset, kv_head, dim])

    if total == 0:  # no key has weight: merging with this result changes nothing
        lse[row, q_head] = NEG_INF
        for dim in range(value_head_dim):
            out[row, q_head, dim] = float32(0)
        return
    lse[row, q_head] = largest + math.log(total)
    for dim in range(value_head_dim):
        out[row, q_head, dim] = weighted[dim] / total * v_scales[kv_head]
