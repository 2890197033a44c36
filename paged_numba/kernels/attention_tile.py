"""Attention, third rung: a thread block works on one KV head and all query rows that share its keys."""

import functools
import math

import numpy as np
from numba import cuda, float32, int64

from .reduce import segment_max, segment_sum
from .score import adjusted_score

LOADERS = 8  # neighbouring threads that load one key: 8 floats fill a sector of 32 bytes
UNROLLED = 16  # values that a thread has on their way from memory at once
NEG_INF = np.float32(-np.inf)


@functools.cache
def attention_tile_kernel_for(rows_per_tile, threads):
    """Return the kernel for tiles of so many query rows and thread blocks of so many threads.

    Both are powers of two, at most 16 and 256, `threads` is at least head_dim, 64 and `rows_per_tile`. As constants
    they let the compiler unroll the loops over rows and keep each thread's sums in registers.
    """
    # Dimensions of a chunk of keys in shared memory, of which a thread block has 48 KiB. With the odd pitch the same
    # dimension of 32 keys lies in 32 banks, and so do 8 dimensions of 4 keys that are 8 apart.
    chunk = 32 if threads <= 128 else 16
    pitch = chunk + 1
    # Threads of a row in softmax; a row of weights is that much longer than a tile, for the banks again.
    width = threads // rows_per_tile
    weight_pitch = threads + width

    @cuda.jit
    def attention_tile_kernel(
        out, lse, query, key_cache, value_cache, block_tables, rows, tiles, row_step,
        alibi_slopes, sinks, k_scales, v_scales, scale, softcap,
    ):  # fmt: skip
        """Online softmax over tiles of keys (Milakov & Gimelshein, 2018; Dao et al., FlashAttention, 2022).

        Query rows are pairs of a query token and a head: all heads of the KV head (grouped queries), for one
        token (decode) or several neighbouring ones (prefill). A tile of keys has one key a thread.

        1. Threads look up where the tile's keys lie.
        2. Chunk by chunk of dimensions, K goes through shared memory: 8 neighbouring threads load 8 neighbouring
           numbers, then thread t multiplies those of key t with every query row.
        3. Softmax, several threads a row: mask, largest score so far, weights, their sum.
        4. Thread d loads dimension d of the values and adds it, weighted, to each row's sum.

        So each element of K and V is loaded once for all rows, in whole sectors. When a tile raises a row's largest
        score, what was added up before is rescaled by ``exp(old largest - new largest)``. A sink (Xiao et al.,
        2023) is what was added up before the first tile.

        Launch: ``[(num_tiles, num_kv_heads * parts), threads]``; more heads to a KV head than `rows_per_tile` go in
        several `parts`. Bytes read: K and V that a tile of query rows sees, once.
        """
        # out                     float[num_rows, num_q_heads, head_dim]
        # lse                     float32[num_rows, num_q_heads], natural logarithm
        # query                   float[num_tokens, num_q_heads, head_dim]
        # key_cache, value_cache  float[num_blocks, block_size, num_kv_heads, head_dim]
        # block_tables            int32[num_seqs, max_blocks]
        # rows                    int32[num_rows, 5]: query token, its sequence, its position, and the keys that
        #                         it sees: the first and one past the last
        # tiles                   int32[num_tiles, 6]: first row, number of rows; keys that any of them sees, and
        #                         keys that all see: the first and one past the last
        # row_step                from a row of a tile to its next
        # alibi_slopes, sinks     float32[num_q_heads], 0 and -inf for none
        # k_scales, v_scales      float32[num_kv_heads]
        # scale, softcap          float32, softcap 0 for none
        tile = cuda.blockIdx.x
        thread = cuda.threadIdx.x
        num_q_heads, head_dim = query.shape[1], query.shape[2]
        block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]

        group = num_q_heads // num_kv_heads
        parts = cuda.gridDim.y // num_kv_heads
        heads = (group + parts - 1) // parts
        kv_head, part = cuda.blockIdx.y // parts, cuda.blockIdx.y % parts
        first_head = kv_head * group + part * heads
        heads_here = min(heads, group - part * heads)

        first_row, num_tokens = tiles[tile, 0], tiles[tile, 1]
        first_key, end_key = tiles[tile, 2], tiles[tile, 3]
        first_common, end_common = tiles[tile, 4], tiles[tile, 5]
        seq = rows[first_row, 1]

        key_blocks = cuda.shared.array(threads, int64)
        key_offsets = cuda.shared.array(threads, int64)
        keys = cuda.shared.array((threads, pitch), float32)
        row_data = cuda.shared.array((rows_per_tile, threads), float32)  # queries; at the end, outputs
        weights = cuda.shared.array((rows_per_tile, weight_pitch), float32)
        factors = cuda.shared.array(rows_per_tile, float32)
        scratch = cuda.shared.array(threads, float32)
        scores = cuda.local.array(rows_per_tile, float32)
        values = cuda.local.array(UNROLLED, float32)
        weighted = cuda.local.array(rows_per_tile, float32)

        # Query rows; 0 where there is no row or no dimension.
        for row in range(rows_per_tile):
            token, head = row // heads, row % heads
            element = float32(0)
            if token < num_tokens and head < heads_here and thread < head_dim:
                query_token = rows[first_row + token * row_step, 0]
                element = float32(query[query_token, first_head + head, thread]) * (scale * k_scales[kv_head])
            row_data[row, thread] = element
        for row in range(rows_per_tile):
            weighted[row] = float32(0)

        # In softmax this thread is the `lane`-th of those that work on `my_row`.
        my_row, lane = thread // width, thread % width
        my_token, my_head = my_row // heads, first_head + my_row % heads
        my_index = first_row + my_token * row_step
        is_row = my_token < num_tokens and my_row % heads < heads_here
        position, first_seen, end_seen, slope, largest = 0, 0, 0, float32(0), NEG_INF
        if is_row:
            position, first_seen, end_seen = rows[my_index, 2], rows[my_index, 3], rows[my_index, 4]
            slope, largest = alibi_slopes[my_head], sinks[my_head]
        total = float32(1) if largest > NEG_INF else float32(0)

        loader, load_dim = thread // LOADERS, thread % LOADERS
        for first in range(first_key, end_key, threads):
            count = min(threads, end_key - first)

            # 1. Where keys lie. Threads past the last one have none, and what stands there is never used.
            key = first + thread
            if thread < count:
                key_blocks[thread] = block_tables[seq, key // block_size]
                key_offsets[thread] = key % block_size
            for row in range(rows_per_tile):
                scores[row] = float32(0)
            cuda.syncthreads()  # the places of the keys (and the query rows) are in shared memory

            # 2. Scores. A dimension past the last is the last, and multiplied with the 0 of the query row.
            for first_dim in range(0, head_dim, chunk):
                for i in range(LOADERS):
                    token = loader * LOADERS + i
                    if token < count:
                        source = key_cache[key_blocks[token], key_offsets[token], kv_head]
                        target = keys[token]
                        for j in range(0, chunk, LOADERS):
                            dim = load_dim + j
                            target[dim] = float32(source[min(first_dim + dim, head_dim - 1)])
                cuda.syncthreads()  # the chunk is in shared memory
                if thread < count:
                    for row in range(rows_per_tile):
                        # A sum for each chunk: rounding errors grow with the additions in a row.
                        score = float32(0)
                        for dim in range(chunk):
                            score += row_data[row, first_dim + dim] * keys[thread, dim]
                        scores[row] += score
                cuda.syncthreads()  # all have used the chunk: the next may come
            for row in range(rows_per_tile):
                weights[row, thread] = scores[row]
            cuda.syncthreads()  # scores are in shared memory

            # 3. Softmax; exp(-inf) is 0 for keys that the row does not see.
            tile_largest = NEG_INF
            for i in range(rows_per_tile):
                token = i * width + lane
                score = NEG_INF
                if first + token >= first_seen and first + token < end_seen:
                    score = adjusted_score(weights[my_row, token], softcap, slope, first + token - position)
                weights[my_row, token] = score
                tile_largest = max(tile_largest, score)
            new_largest = max(largest, segment_max(tile_largest, scratch, width))
            # A row that saw no key yet has -inf, and -inf less -inf would be NaN.
            shift = new_largest if new_largest > NEG_INF else float32(0)
            tile_total = float32(0)
            for i in range(rows_per_tile):
                token = i * width + lane
                weight = math.exp(weights[my_row, token] - shift)
                weights[my_row, token] = weight
                tile_total += weight
            rescale = math.exp(largest - shift)
            total = total * rescale + segment_sum(tile_total, scratch, width)
            largest = new_largest
            if lane == 0:
                factors[my_row] = rescale
            cuda.syncthreads()  # weights and factors are in shared memory

            # 4. Weighted sums.
            if thread < head_dim:
                for row in range(rows_per_tile):
                    weighted[row] *= factors[row]
                # The keys that all rows see.
                lead = min(max(first_common - first, 0), count)
                end = max(min(end_common - first, count), lead)
                for first_token in range(lead // UNROLLED * UNROLLED, end, UNROLLED):
                    for i in range(UNROLLED):
                        token = first_token + i
                        values[i] = float32(0)
                        if token >= lead and token < end:
                            value = value_cache[key_blocks[token], key_offsets[token], kv_head, thread]
                            values[i] = float32(value)
                    for row in range(rows_per_tile):
                        row_sum = weighted[row]
                        for i in range(UNROLLED):
                            row_sum += weights[row, first_token + i] * values[i]
                        weighted[row] = row_sum
                # Those before and after, which some rows do not see: their weight is 0, but 0 * NaN is NaN.
                for i in range(lead + count - end):
                    token = i if i < lead else end + i - lead
                    value = float32(value_cache[key_blocks[token], key_offsets[token], kv_head, thread])
                    for row in range(rows_per_tile):
                        if weights[row, token] > 0:
                            weighted[row] += weights[row, token] * value
            cuda.syncthreads()  # all have used places and weights: the next tile may come

        if lane == 0:
            factors[my_row] = v_scales[kv_head] / total if total > 0 else float32(0)
            if is_row:
                lse[my_index, my_head] = largest + math.log(total) if total > 0 else NEG_INF
        cuda.syncthreads()  # factors are in shared memory
        for row in range(rows_per_tile):
            row_data[row, thread] = weighted[row] * factors[row]
        if thread < head_dim:
            for row in range(num_tokens * heads):
                token, head = row // heads, row % heads
                if head < heads_here:
                    out[first_row + token * row_step, first_head + head, thread] = row_data[row, thread]

    return attention_tile_kernel
