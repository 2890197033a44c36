"""
21 · The window's first key
===========================

With a sliding window of w, a query looks at its own position and the w - 1 positions before it. The cache need not
keep earlier tokens: blocks that no query will look at any more are released, and their block table entries are -1.
Write the rest of the kernel ``decode``, which computes the attention of the last token of each sequence, with a
window.

A thread block is one warp and takes one head of one sequence. Each lane takes one of the 32 dimensions. ``mine`` is
this lane's element of the query, multiplied by the scale. ``warp_sum`` gives each lane the sum over all lanes, so a
score is ``warp_sum(mine * element of the key)``. Go through the keys once, with the online softmax of lesson 08. Do
not read keys outside the window. A sequence may have fewer tokens than the window. For a sequence without tokens,
``out`` must be 0.

Shapes::

    out, query               float32[num_seqs, num_heads, 32]
    key_cache, value_cache   float32[num_blocks, block_size, num_heads, 32]
    block_tables             int32[num_seqs, columns]
    seq_lens                 int32[num_seqs]
    window                   int, 1 or more

A sequence of 8 tokens in blocks of 2, with a window of 3::

    block table        -1        4        0        2
    token             0   1    2   3    4   5    6   7
    looked at         -   -    -   -    -   x    x   x

Example: the query is token 7, so it looks at the 3 tokens 5, 6 and 7. Token 4 shares a block with token 5, but the
query does not look at it.
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
def decode(out, query, key_cache, value_cache, block_tables, seq_lens, window):
    seq, head, lane, block_size = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, key_cache.shape[1]
    mine = query[seq, head, lane] / math.sqrt(float32(32))
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    # >>> Your code: the loop over the keys in the window, and the write (10 lines).
    seq_len = seq_lens[seq]
    for token in range(max(0, seq_len - window), seq_len):
        block, offset = block_tables[seq, token // block_size], token % block_size
        score = warp_sum(mine * key_cache[block, offset, head, lane])
        new_largest = max(largest, score)
        rescale, weight = math.exp(largest - new_largest), math.exp(score - new_largest)
        total = total * rescale + weight
        weighted = weighted * rescale + weight * value_cache[block, offset, head, lane]
        largest = new_largest
    out[seq, head, lane] = weighted / total if seq_len > 0 else float32(0)
    # <<<
