"""Attention over packed caches: the layout of the first vLLM kernels, made for threads that each compute a score."""

import math

import numpy as np
from numba import cuda, float32

from .columns import ROW_END, ROW_FIRST, ROW_POSITION, ROW_SEQ, ROW_TOKEN
from .reduce import segment_max, segment_sum
from .score import adjusted_score

MAX_HEAD_DIM = 256
MAX_THREADS = 256
LANES = 16  # neighbouring threads that share a dimension of V
NEG_INF = np.float32(-np.inf)


@cuda.jit
def attention_packed_kernel(
    out, lse, query, key_cache, value_cache, block_tables, rows,
    alibi_slopes, sinks, k_scales, v_scales, scale, softcap,
):  # fmt: skip
    """Online softmax as in `attention_block_kernel`, with K and V laid out for the threads that read them.

    In `attention_block_kernel` thread t reads row t of K, so the 32 numbers that a warp asks for at once lie in 32
    rows: 32 sectors of 32 bytes. In this layout K is cut into pieces of 16 bytes, x numbers each, and within a
    block the same piece of all tokens is contiguous; V is stored by dimension, again with the tokens of a block
    contiguous::

        K, NHD     token 0  [ piece 0 | piece 1 | ... ]     thread 0
                   token 1  [ piece 0 | piece 1 | ... ]     thread 1

        K, packed  piece 0  [ token 0 | token 1 | ... ]     threads 0, 1, ...
                   piece 1  [ token 0 | token 1 | ... ]     then, again, threads 0, 1, ...

        V, packed  dim 0    [ token 0 | token 1 | ... ]     lanes 0, 1, ... of 16
                   dim 1    [ token 0 | token 1 | ... ]     lanes 0, 1, ... of the next 16

    For each tile, with one token per thread,

    1. thread t computes the score of token t, piece by piece;
    2. two tree reductions give the tile's largest score and the sum of its weights;
    3. 16 lanes share a dimension of V: lane l adds up tokens l, l + 16, ... The next 16 threads take the next
       dimension; threads whose first dimension is d also take d + threads / 16, ...

    After the last tile, the 16 shares of each dimension are summed.

    Loads of V are coalesced: in float32 the 32 numbers of a warp lie in 4 sectors, all of them used, if block_size is
    a multiple of 8. A thread for each dimension, as in `attention_block_kernel`, would touch 32 sectors. Loads of K
    are coalesced in part: 32 pieces lie in 16 sectors, half as many as 32 rows, but a thread loads one number of its
    piece at a time, so the warp asks x times for the same 16 sectors, and relies on the L1 cache to keep them. vLLM's
    threads load all 16 bytes at once; Numba has no such load. `attention_tile_kernel` reads whole sectors of NHD
    rows through shared memory, so the layout need not suit one kernel's threads.

    Launch: ``[(num_rows, num_q_heads), threads]``, with threads a power of two, 64 at least, at least head_dim and
    value_head_dim, at most 256. Bytes read: K and V of every token, once for each query head. Operations:
    2 head_dim + 2 value_head_dim for each key that a head sees.
    """
    # out           float[num_rows, num_q_heads, value_head_dim]
    # lse           float32[num_rows, num_q_heads], natural logarithm
    # query         float[num_tokens, num_q_heads, head_dim]
    # key_cache     float[num_blocks, num_kv_heads, head_dim // x, block_size, x], x numbers are 16 bytes
    # value_cache   float[num_blocks, num_kv_heads, value_head_dim, block_size]
    # block_tables  int32[num_seqs, max_blocks]
    # rows          int32[num_rows, 5], see columns.py
    # alibi_slopes, sinks  float32[num_q_heads], 0 and -inf for none
    # k_scales, v_scales   float32[num_kv_heads]
    # scale, softcap       float32, softcap 0 for none
    row = cuda.blockIdx.x
    q_head = cuda.blockIdx.y
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x

    num_q_heads, head_dim, value_head_dim = query.shape[1], query.shape[2], out.shape[2]
    num_kv_heads, num_pieces = key_cache.shape[1], key_cache.shape[2]
    block_size, piece_size = key_cache.shape[3], key_cache.shape[4]
    kv_head = q_head // (num_q_heads // num_kv_heads)
    token, seq, query_position = rows[row, ROW_TOKEN], rows[row, ROW_SEQ], rows[row, ROW_POSITION]
    first_key, end_key = rows[row, ROW_FIRST], rows[row, ROW_END]
    slope, sink = alibi_slopes[q_head], sinks[q_head]

    query_shared = cuda.shared.array(MAX_HEAD_DIM, float32)
    weights = cuda.shared.array(MAX_THREADS, float32)
    scratch = cuda.shared.array(MAX_THREADS, float32)
    if thread < head_dim:
        query_shared[thread] = float32(query[token, q_head, thread]) * (scale * k_scales[kv_head])

    # This thread adds up the values of every 16th token, in every `dim_step`-th dimension.
    lane, first_dim = thread % LANES, thread // LANES
    dim_step = threads // LANES
    weighted = cuda.local.array(LANES, float32)
    for i in range(LANES):
        weighted[i] = float32(0)
    cuda.syncthreads()  # the query is in shared memory

    largest = sink
    total = float32(1) if sink > NEG_INF else float32(0)
    # Start at the beginning of a block, so that neighbouring threads read the same block.
    for first in range(first_key - first_key % block_size, end_key, threads):
        # 1. One score per thread; threads without a token add nothing: exp(-inf) is 0.
        position = first + thread
        score = NEG_INF
        if position >= first_key and position < end_key:
            kv_block = block_tables[seq, position // block_size]
            offset = position % block_size
            score = float32(0)
            for piece in range(num_pieces):
                # Sum each piece on its own: rounding errors grow with the number of additions in a row.
                part = float32(0)
                for i in range(piece_size):
                    key = float32(key_cache[kv_block, kv_head, piece, offset, i])
                    part += query_shared[piece * piece_size + i] * key
                score += part
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

        # 3. A share of the weighted sums. Unseen values may be NaN, and 0 * NaN is NaN: exclude them.
        for i in range(LANES):
            weighted[i] *= rescale
        for tile_token in range(lane, min(threads, end_key - first), LANES):
            position = first + tile_token
            if position >= first_key:
                kv_block = block_tables[seq, position // block_size]
                offset = position % block_size
                for i in range(LANES):
                    dim = first_dim + i * dim_step
                    if dim < value_head_dim:
                        value = float32(value_cache[kv_block, kv_head, dim, offset])
                        weighted[i] += weights[tile_token] * value
        # No barrier here: the next tile writes its weights after the barriers of segment_max.

    for i in range(LANES):
        dim = first_dim + i * dim_step
        result = segment_sum(weighted[i], scratch, LANES)
        if lane == 0 and dim < value_head_dim:
            out[row, q_head, dim] = result / total * v_scales[kv_head] if total != 0 else float32(0)
    if thread == 0:
        lse[row, q_head] = largest + math.log(total) if total != 0 else NEG_INF
