"""
16 · One load for a group of heads
==================================

In lesson 09, each query head had its own thread block, so the keys of a KV head were loaded once for each query head
of its group. Write the rest of the kernel ``attention``, in which a thread block takes one KV head of one sequence
and the whole group of query heads that share this KV head.

Thread (x, y) of the thread block takes dimension x of query head y of the group. For each token, the thread block
loads the key and the value once, into shared memory. Each thread then computes the score of its query head from all
dimensions of the key and continues with the online softmax of lesson 08, so that one pass over the keys is enough.
For a sequence without tokens, ``out`` must be 0.

Shapes::

    out, query               float32[num_seqs, num_q_heads, head_dim], head_dim <= 32
    key_cache, value_cache   float32[num_blocks, block_size, num_kv_heads, head_dim]
    block_tables             int32[num_seqs, columns]
    seq_lens                 int32[num_seqs]

The head map of 6 query heads and 2 KV heads, with 3 query heads in a group::

    query head     0    1    2    3    4    5
    KV head        0    0    0    1    1    1
    threadIdx.y    0    1    2    0    1    2

Example: 9 tokens, 6 query heads, 2 KV heads and 32 dimensions. The launch ``attention[(1, 2), (32, 3)](...)`` loads
9 * 2 * 4 = 72 sectors of keys, since a key of 32 floats is 4 sectors. With one thread block for each query head, it
would load 9 * 6 * 4 = 216.
"""

import math

import numpy as np
from numba import float32

from paged_numba import cuda


@cuda.jit
def attention(out, query, key_cache, value_cache, block_tables, seq_lens):
    key, value = cuda.shared.array(32, float32), cuda.shared.array(32, float32)
    seq, kv_head, dim, member = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, cuda.threadIdx.y
    block_size, head_dim, group = key_cache.shape[1], query.shape[2], cuda.blockDim.y
    scale = float32(1 / math.sqrt(head_dim))
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    # >>> Your code: the query head of this thread, the loop over the tokens, and the write (17 lines).
    q_head = kv_head * group + member
    for token in range(seq_lens[seq]):
        block, offset = block_tables[seq, token // block_size], token % block_size
        if member == 0:
            key[dim] = key_cache[block, offset, kv_head, dim]
            value[dim] = value_cache[block, offset, kv_head, dim]
        cuda.syncthreads()  # the key and the value are there
        score = float32(0)
        for i in range(head_dim):
            score += query[seq, q_head, i] * key[i]
        new_largest = max(largest, score * scale)
        rescale, weight = math.exp(largest - new_largest), math.exp(score * scale - new_largest)
        total = total * rescale + weight
        weighted = weighted * rescale + weight * value[dim]
        largest = new_largest
        cuda.syncthreads()  # all threads have used them
    out[seq, q_head, dim] = weighted / total if seq_lens[seq] > 0 else float32(0)
    # <<<
