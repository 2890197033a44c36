"""
22 · Chunks of several prompts
==============================

In one step of a server, each sequence has a chunk of queries: a whole prompt, part of a prompt, one token, or
nothing. ``query`` holds the queries of all chunks, one chunk after another. Write the rest of the kernel ``prefill``,
which computes the attention of each query, with the causal mask: a query looks at the keys up to and including its
own position.

A thread block is one warp and takes one head of one row of ``query``. It must find out which sequence the row belongs
to, and which position the query has in that sequence. ``cu_seqlens_q[s]`` is the row at which the chunk of sequence s
begins, and ``cu_seqlens_q[s + 1]`` is the row just past its end. The queries of a chunk are the *last* tokens of
their sequence, and ``seq_lens`` counts all tokens in the cache, including those of the chunk.

Each lane takes one of the 32 dimensions. ``mine`` is this lane's element of the query, multiplied by the scale.
``warp_sum`` gives each lane the sum over all lanes, so a score is ``warp_sum(mine * element of the key)``. Go through
the keys once. Do not read keys after the query's position.

Shapes::

    out, query               float32[num_rows, num_heads, 32]
    key_cache, value_cache   float32[num_blocks, block_size, num_heads, 32]
    block_tables             int32[num_seqs, columns]
    seq_lens                 int32[num_seqs]
    cu_seqlens_q             int32[num_seqs + 1]

Three sequences with ``seq_lens = [5, 4, 3]`` and ``cu_seqlens_q = [0, 2, 2, 5]``::

    row         0    1    2    3    4        sequence 1 has no query in this step
    sequence    0    0    2    2    2
    position    3    4    0    1    2

Example: row 1 is the last of the two queries of sequence 0, so it is at position 4 and looks at 5 keys. Row 0 is at
position 5 - 2 + 0 = 3 and looks at 4 keys.
"""

import math

import numpy as np
from numba import float32

from paged_numba import cuda


@cuda.jit(device=True)
def warp_sum(number):
    for step in (16, 8, 4, 2, 1):
        number += cuda.shfl_xor_sync(0xFFFFFFFF, number, step)
    return number


@cuda.jit
def prefill(out, query, key_cache, value_cache, block_tables, seq_lens, cu_seqlens_q):
    row, head, lane, block_size = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, key_cache.shape[1]
    mine = query[row, head, lane] / math.sqrt(float32(32))
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    # >>> Your code: the row's sequence and position, the loop over the keys, and the write (13 lines).
    seq = 0
    while cu_seqlens_q[seq + 1] <= row:
        seq += 1
    position = seq_lens[seq] - (cu_seqlens_q[seq + 1] - row)
    for token in range(position + 1):
        block, offset = block_tables[seq, token // block_size], token % block_size
        score = warp_sum(mine * key_cache[block, offset, head, lane])
        new_largest = max(largest, score)
        rescale, weight = math.exp(largest - new_largest), math.exp(score - new_largest)
        total = total * rescale + weight
        weighted = weighted * rescale + weight * value_cache[block, offset, head, lane]
        largest = new_largest
    out[row, head, lane] = weighted / total
    # <<<
