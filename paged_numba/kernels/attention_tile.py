"""Attention, fifth rung: a thread block works on one KV head and on all query rows that share its keys."""

import functools
import math

import numpy as np
from numba import cuda, float32, int32

from .columns import (
    ROW_END,
    ROW_FIRST,
    ROW_POSITION,
    ROW_SEQ,
    ROW_TOKEN,
    TILE_ALL_END,
    TILE_ALL_FIRST,
    TILE_ANY_END,
    TILE_ANY_FIRST,
    TILE_ROW,
    TILE_SIZE,
)
from .reduce import segment_max, segment_sum
from .score import adjusted_score

LOADERS = 8  # neighbouring threads that load one key: 8 floats fill a sector of 32 bytes
WARP = 32
ROWS = 16  # query rows for which a thread holds scores
UNROLLED = 16  # loads that a thread has in flight at once
NEG_INF = np.float32(-np.inf)


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def load_queries(queries, query, row_indices, row_tokens, row_heads, first_dim, query_scale, threads):
    """Load a chunk of dimensions of all query rows, scaled; missing rows and dimensions become 0."""
    thread = cuda.threadIdx.x
    rows_per_tile, chunk = queries.shape
    for first_element in range(0, rows_per_tile * chunk, threads):
        row, dim = (first_element + thread) // chunk, (first_element + thread) % chunk
        if row < rows_per_tile:
            element = float32(0)
            if row_indices[row] >= 0 and first_dim + dim < query.shape[2]:
                element = float32(query[row_tokens[row], row_heads[row], first_dim + dim])
            queries[row, dim] = element * query_scale


@cuda.jit(device=True, inline="always")
def load_keys(keys, key_cache, key_blocks, key_offsets, kv_head, first_dim, chunk, count, threads):
    """Load a chunk of dimensions of `count` keys: 8 neighbouring threads load 8 neighbouring numbers of a key.

    The 4 keys that a warp loads at once are 8 apart, in 32 different banks.
    """
    thread = cuda.threadIdx.x
    loader, load_dim = thread % WARP // LOADERS, thread % LOADERS
    loads = keys.shape[0] * LOADERS // threads
    for i in range(loads):
        place = thread // WARP * loads + i
        token = place // 8 * WARP + loader * 8 + place % 8
        if token < count:
            source = key_cache[key_blocks[token], key_offsets[token], kv_head]
            target = keys[token]
            for j in range(0, chunk, LOADERS):
                dim = load_dim + j
                target[dim] = float32(0)
                if first_dim + dim < key_cache.shape[3]:
                    target[dim] = float32(source[first_dim + dim])


@cuda.jit(device=True, inline="always")
def add_products(scores, queries, first_row, keys, key):
    """Add a chunk's products to the scores of one key with the query rows from `first_row` on."""
    for row in range(scores.shape[0]):
        # Sum each chunk on its own: rounding errors grow with the number of additions in a row.
        score = float32(0)
        for dim in range(queries.shape[1]):
            score += queries[first_row + row, dim] * keys[key, dim]
        scores[row] += score


@cuda.jit(device=True, inline="always")
def add_values_that_all_see(
    weighted, values, weights, value_cache, key_blocks, key_offsets, kv_head, dim, first, end
):
    """Add dimension `dim` of the tile's values `first` to `end`, weighted, to the sum of each query row.

    16 loads are in flight at a time.
    """
    for first_token in range(first // UNROLLED * UNROLLED, end, UNROLLED):
        for i in range(UNROLLED):
            token = first_token + i
            values[i] = float32(0)
            if token >= first and token < end:
                value = value_cache[key_blocks[token], key_offsets[token], kv_head, dim]
                values[i] = float32(value)
        for row in range(weighted.shape[0]):
            row_sum = weighted[row]
            for i in range(UNROLLED):
                row_sum += weights[row, first_token + i] * values[i]
            weighted[row] = row_sum


@cuda.jit(device=True, inline="always")
def add_value_that_some_see(weighted, weights, value, token):
    """Add a value, weighted, to the sum of each query row that sees it.

    The weight is 0 in the other rows, but 0 * NaN is NaN.
    """
    for row in range(weighted.shape[0]):
        if weights[row, token] != 0:
            weighted[row] += weights[row, token] * value


@functools.cache
def attention_tile_kernel_for(rows_per_tile, threads):
    """Return the kernel for tiles of `rows_per_tile` query rows and thread blocks of `threads` threads.

    Both are powers of two: `rows_per_tile` at most 128, `threads` at least value_head_dim and twice `rows_per_tile`,
    64 to 256. Since they are constants, the compiler unrolls the loops over up to 16 rows and keeps a thread's sums in
    registers; the sums of more rows lie in local memory, which L1 caches.
    """
    # A thread multiplies one key with up to 16 rows; with more rows, several threads share a key.
    rows_per_thread = min(rows_per_tile, ROWS)
    num_keys = threads * rows_per_thread // rows_per_tile
    # Dimensions of a chunk: its keys must fit into shared memory, 48 KiB. With the odd pitch the same dimension of 32
    # keys lies in 32 banks, and so do 8 dimensions of 4 keys that are 8 apart.
    chunk = 32 if num_keys <= 128 else 16
    pitch = chunk + 1
    # Threads per row in softmax. A row of weights is padded by as many elements, to spread over the banks again.
    width = threads // rows_per_tile
    weight_pitch = num_keys + width

    @cuda.jit
    def attention_tile_kernel(
        out, lse, query, key_cache, value_cache, block_tables, rows, tiles, row_step,
        alibi_slopes, sinks, k_scales, v_scales, scale, softcap,
    ):  # fmt: skip
        """Online softmax over tiles of keys (Milakov & Gimelshein, 2018; Dao et al., FlashAttention, 2022).

        A query row is a query token and a head. A tile of query rows has all heads of the KV head (grouped
        queries), for one token (decode) or for neighbouring tokens (prefill): the keys of a tile are loaded once
        for all its rows. A tile of keys has one key per thread; with more than 16 query rows several threads share
        a key, and each takes 16 of the rows. For each tile of keys

        1. thread t looks up where key t lies;
        2. chunk by chunk of dimensions, queries and keys go through shared memory (`load_queries`, `load_keys`), and
           each thread multiplies its key with its query rows (`add_products`);
        3. several threads per row compute softmax: mask, largest score so far, weights, their sum;
        4. thread d loads dimension d of the values and adds it, weighted, to the sum of each row
           (`add_values_that_all_see`, `add_value_that_some_see`).

        V is loaded in whole sectors, and so is K in float32; in float16, 8 threads load half a sector of K, and L1
        keeps the other half for their next load. When a tile raises a row's largest score, the row's sums so far
        are rescaled by ``exp(old largest - new largest)``. A sink (Xiao et al., 2023) counts as a key with value 0
        before the first tile.

        Launch: ``[(num_tiles, num_kv_heads * parts), threads]``; if a KV head has more query heads than
        `rows_per_tile`, they are divided into several `parts`. Values of more dimensions than threads need several
        launches, each with a view of some dimensions of `value_cache` and `out`. Bytes read: K and V of the keys that
        any row of a tile sees, once per tile. Operations: 2 head_dim + 2 value_head_dim for each query row and key.
        """
        # out                     float[num_rows, num_q_heads, value_head_dim]
        # lse                     float32[num_rows, num_q_heads], natural logarithm; or, for `merge_splits`,
        #                         float32[num_rows, 2 * num_q_heads]: the largest score of each head, then the sum of
        #                         the weights of each head, relative to that score
        # query                   float[num_tokens, num_q_heads, head_dim]
        # key_cache               float[num_blocks, block_size, num_kv_heads, head_dim]
        # value_cache             float[num_blocks, block_size, num_kv_heads, value_head_dim]
        # block_tables            int32[num_seqs, max_blocks]
        # rows                    int32[num_rows, 5], see columns.py
        # tiles                   int32[num_tiles, 6], see columns.py
        # row_step                distance in `rows` from a row of a tile to the next
        # alibi_slopes, sinks     float32[num_q_heads], 0 and -inf for none
        # k_scales, v_scales      float32[num_kv_heads]
        # scale, softcap          float32, softcap 0 for none
        tile = cuda.blockIdx.x
        thread = cuda.threadIdx.x
        num_q_heads, head_dim, value_head_dim = query.shape[1], query.shape[2], out.shape[2]
        block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]

        group = num_q_heads // num_kv_heads
        parts = cuda.gridDim.y // num_kv_heads
        heads = (group + parts - 1) // parts
        kv_head, part = cuda.blockIdx.y // parts, cuda.blockIdx.y % parts
        first_head = kv_head * group + part * heads
        heads_here = min(heads, group - part * heads)

        first_row, num_tokens = tiles[tile, TILE_ROW], tiles[tile, TILE_SIZE]
        first_key, end_key = tiles[tile, TILE_ANY_FIRST], tiles[tile, TILE_ANY_END]
        first_common, end_common = tiles[tile, TILE_ALL_FIRST], tiles[tile, TILE_ALL_END]
        seq = rows[first_row, ROW_SEQ]

        row_indices = cuda.shared.array(rows_per_tile, int32)  # index in `rows`; -1 for none
        row_tokens = cuda.shared.array(rows_per_tile, int32)
        row_heads = cuda.shared.array(rows_per_tile, int32)
        key_blocks = cuda.shared.array(num_keys, int32)
        key_offsets = cuda.shared.array(num_keys, int32)
        queries = cuda.shared.array((rows_per_tile, chunk), float32)
        keys = cuda.shared.array((num_keys, pitch), float32)
        weights = cuda.shared.array((rows_per_tile, weight_pitch), float32)
        factors = cuda.shared.array(rows_per_tile, float32)
        scratch = cuda.shared.array(threads, float32)
        scores = cuda.local.array(rows_per_thread, float32)
        values = cuda.local.array(UNROLLED, float32)
        weighted = cuda.local.array(rows_per_tile, float32)

        if thread < rows_per_tile:
            token, head = thread // heads, thread % heads
            row_indices[thread] = -1
            if token < num_tokens and head < heads_here:
                row_indices[thread] = first_row + token * row_step
                row_tokens[thread] = rows[first_row + token * row_step, ROW_TOKEN]
                row_heads[thread] = first_head + head
        for row in range(rows_per_tile):
            weighted[row] = float32(0)
        cuda.syncthreads()  # the rows are looked up in shared memory

        # For the scores, this thread takes key `my_key` and the rows from `first_score` on.
        my_key, first_score = thread, 0
        if num_keys < threads:
            my_key, first_score = thread % num_keys, thread // num_keys * rows_per_thread
        # In softmax, this thread is number `lane` among the threads of row `my_row`.
        my_row, lane = thread // width, thread % width
        my_index, my_head = row_indices[my_row], 0
        position, first_seen, end_seen, slope, largest = 0, 0, 0, float32(0), NEG_INF
        if my_index >= 0:
            my_head = row_heads[my_row]
            position = rows[my_index, ROW_POSITION]
            first_seen, end_seen = rows[my_index, ROW_FIRST], rows[my_index, ROW_END]
            slope, largest = alibi_slopes[my_head], sinks[my_head]
        total = float32(1) if largest > NEG_INF else float32(0)

        query_scale = scale * k_scales[kv_head]
        for first in range(first_key, end_key, num_keys):
            count = min(num_keys, end_key - first)

            # 1. Look up the keys. Threads past the last key leave their entries unchanged: nothing reads them.
            key = first + thread
            if thread < count:
                key_blocks[thread] = block_tables[seq, key // block_size]
                key_offsets[thread] = key % block_size
            for row in range(rows_per_thread):
                scores[row] = float32(0)
            cuda.syncthreads()  # the places of the keys are in shared memory

            # 2. Scores.
            for first_dim in range(0, head_dim, chunk):
                load_queries(
                    queries, query, row_indices, row_tokens, row_heads, first_dim, query_scale, threads
                )
                load_keys(keys, key_cache, key_blocks, key_offsets, kv_head, first_dim, chunk, count, threads)
                cuda.syncthreads()  # the chunk is in shared memory
                if my_key < count:
                    add_products(scores, queries, first_score, keys, my_key)
                cuda.syncthreads()  # all have used the chunk: the next may come
            for row in range(rows_per_thread):
                weights[first_score + row, my_key] = scores[row]
            cuda.syncthreads()  # scores are in shared memory

            # 3. Softmax; exp(-inf) is 0 for keys that the row does not see.
            tile_largest = NEG_INF
            for i in range(rows_per_thread):
                token = i * width + lane
                score = NEG_INF
                if first + token >= first_seen and first + token < end_seen:
                    score = adjusted_score(weights[my_row, token], softcap, slope, first + token - position)
                weights[my_row, token] = score
                tile_largest = max(tile_largest, score)
            new_largest = max(largest, segment_max(tile_largest, scratch, width))
            # While every score of a row is -inf, subtract 0: -inf - -inf would be NaN.
            shift = new_largest if new_largest > NEG_INF else float32(0)
            tile_total = float32(0)
            for i in range(rows_per_thread):
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
            if thread < value_head_dim:
                for row in range(rows_per_tile):
                    weighted[row] *= factors[row]
                # All rows see the keys from `lead` to `end`; only some rows see the other keys of the tile.
                lead = min(max(first_common - first, 0), count)
                end = max(min(end_common - first, count), lead)
                add_values_that_all_see(
                    weighted,
                    values,
                    weights,
                    value_cache,
                    key_blocks,
                    key_offsets,
                    kv_head,
                    thread,
                    lead,
                    end,
                )
                for i in range(lead + count - end):
                    token = i if i < lead else end + i - lead
                    value = float32(value_cache[key_blocks[token], key_offsets[token], kv_head, thread])
                    add_value_that_some_see(weighted, weights, value, token)
            cuda.syncthreads()  # all have used places and weights: the next tile may come

        if lane == 0:
            factors[my_row] = v_scales[kv_head] / total if total != 0 else float32(0)
            if my_index >= 0:
                if lse.shape[1] == num_q_heads:
                    lse[my_index, my_head] = largest + math.log(total) if total != 0 else NEG_INF
                else:
                    lse[my_index, my_head] = largest
                    lse[my_index, num_q_heads + my_head] = total
        cuda.syncthreads()  # factors are in shared memory
        if thread < value_head_dim:
            for row in range(rows_per_tile):
                if row_indices[row] >= 0:
                    out[row_indices[row], row_heads[row], thread] = weighted[row] * factors[row]

    return attention_tile_kernel
