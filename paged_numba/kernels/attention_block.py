"""Attention, fourth rung: a thread block works on one query token and one query head, a tile of tokens at a time."""

import math

import numpy as np
from numba import cuda, float32

from .columns import ROW_END, ROW_FIRST, ROW_POSITION, ROW_SEQ, ROW_TOKEN
from .reduce import segment_max, segment_sum
from .score import adjusted_score, dot

MAX_HEAD_DIM = 256
MAX_THREADS = 256
NEG_INF = np.float32(-np.inf)


@cuda.jit
def attention_block_kernel(
    out, lse, query, key_cache, value_cache, block_tables, rows,
    alibi_slopes, sinks, k_scales, v_scales, scale, softcap,
):  # fmt: skip
    """Online softmax over tiles of tokens (Milakov & Gimelshein, 2018; Dao et al., FlashAttention, 2022).

    A tile is as many whole KV blocks as fit with one thread per token. Threads change roles within a tile: first
    each handles a token, to compute its score, then a dimension, to sum the values. For each tile

    1. thread t computes the score of token t: a dot product with the query, which is in shared memory;
    2. two tree reductions give the tile's largest score and the sum of its weights;
    3. thread d adds the tile's values of dimension d to its accumulator: neighbouring threads read
       neighbouring floats.

    When a tile raises the largest score, the sums so far are rescaled by ``exp(old largest - new largest)``, so K and
    V are read once. A sink (Xiao et al., 2023) counts as a key with value 0 before the first tile.

    Launch: ``[(num_rows, num_q_heads), threads]``, with threads a power of two, at least head_dim,
    value_head_dim and block_size, at most 256. Bytes read: K and V of every token, once for each query head; K in
    small pieces, since neighbouring threads read different rows. Operations: 2 head_dim + 2 value_head_dim for each
    key that a head sees.
    """
    # out                     float[num_rows, num_q_heads, value_head_dim]
    # lse                     float32[num_rows, num_q_heads], natural logarithm; or, for `merge_splits`,
    #                         float32[num_rows, 2 * num_q_heads]: largest score, then sum of weights, of each head
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
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x

    num_q_heads, head_dim, value_head_dim = query.shape[1], query.shape[2], out.shape[2]
    block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]
    kv_head = q_head // (num_q_heads // num_kv_heads)
    token, seq, query_position = rows[row, ROW_TOKEN], rows[row, ROW_SEQ], rows[row, ROW_POSITION]
    first_key, end_key = rows[row, ROW_FIRST], rows[row, ROW_END]
    end_block = (end_key + block_size - 1) // block_size
    blocks_per_tile = threads // block_size
    slope, sink = alibi_slopes[q_head], sinks[q_head]

    query_shared = cuda.shared.array(MAX_HEAD_DIM, float32)
    weights = cuda.shared.array(MAX_THREADS, float32)
    scratch = cuda.shared.array(MAX_THREADS, float32)

    if thread < head_dim:
        query_shared[thread] = float32(query[token, q_head, thread]) * (scale * k_scales[kv_head])
    cuda.syncthreads()  # the query is in shared memory

    # This thread's token of a tile: the block within the tile, and the offset within the block.
    block_in_tile = thread // block_size
    offset = thread % block_size

    largest = sink
    total = float32(1) if sink > NEG_INF else float32(0)
    weighted = float32(0)
    for first_block in range(first_key // block_size, end_block, blocks_per_tile):
        # 1. One score per thread; threads without a token add nothing: exp(-inf) is 0.
        seq_block = first_block + block_in_tile
        position = seq_block * block_size + offset
        score = NEG_INF
        if block_in_tile < blocks_per_tile and position >= first_key and position < end_key:
            kv_block = block_tables[seq, seq_block]
            score = dot(query_shared, key_cache[kv_block, offset, kv_head], head_dim)
            score = adjusted_score(score, softcap, slope, position - query_position)

        # 2. Largest score so far, weights relative to it, their sum.
        new_largest = max(largest, segment_max(score, scratch, threads))
        # While every score is -inf, subtract 0: -inf - -inf would be NaN.
        shift = new_largest if new_largest > NEG_INF else float32(0)
        weight = math.exp(score - shift)
        weights[thread] = weight
        rescale = math.exp(largest - shift)
        # The barriers of segment_sum publish the weights, too.
        total = total * rescale + segment_sum(weight, scratch, threads)
        largest = new_largest

        # 3. One dimension per thread.
        if thread < value_head_dim:
            weighted *= rescale
            for tile_block in range(min(blocks_per_tile, end_block - first_block)):
                seq_block = first_block + tile_block
                kv_block = block_tables[seq, seq_block]
                # Bounded before multiplying: an unseen value may be NaN, and 0 * NaN is NaN.
                first_slot = max(0, first_key - seq_block * block_size)
                for slot in range(first_slot, min(block_size, end_key - seq_block * block_size)):
                    value = float32(value_cache[kv_block, slot, kv_head, thread])
                    weighted += weights[tile_block * block_size + slot] * value
        # No barrier here: the next tile writes its weights after the barriers of segment_max.

    if thread < value_head_dim:
        out[row, q_head, thread] = weighted / total * v_scales[kv_head] if total != 0 else float32(0)
    if thread == 0:
        if lse.shape[1] == num_q_heads:
            lse[row, q_head] = largest + math.log(total) if total != 0 else NEG_INF
        else:
            lse[row, q_head] = largest
            lse[row, num_q_heads + q_head] = total
