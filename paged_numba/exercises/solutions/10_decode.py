"""
10 · Decode through the block table
===================================

Write the rest of the kernel ``decode``, which computes the attention of one query of each sequence to all tokens of
that sequence. Here, a single cache holds both keys and values: ``cache[block, 0]`` holds the keys of a block,
``cache[block, 1]`` its values. There are as many KV heads as query heads.

A thread block takes one head of one sequence, and a thread takes one dimension of ``out``. The score of a token is
``scale`` times the sum of query times key over all dimensions. Each thread computes all scores itself; later lessons
divide this work among the threads. Two passes over the tokens are enough. The first finds the largest score. The
second computes the weights, which are ``math.exp(score - largest)`` divided by their sum, and the weighted sum of the
values.

Scores may be so large that ``math.exp(score)`` overflows. Slots without a token hold NaN, and entries of a block
table past the last block of its sequence mean nothing. For a sequence without tokens, ``out`` must be 0.

Shapes::

    out, query     float32[num_seqs, num_heads, head_dim]
    cache          float32[num_blocks, 2, block_size, num_heads, head_dim]
    block_tables   int32[num_seqs, columns]
    seq_lens       int32[num_seqs]

Token 5 of a sequence with the block table 7 3 1, in blocks of 4 slots::

    key     cache[3, 0, 1, head, :]     entry 5 // 4 = 1 is block 3, and the offset is 5 % 4 = 1
    value   cache[3, 1, 1, head, :]

Example: with ``head_dim = 1``, query 1, keys 0 and 1.0986, and values 10 and 20, the scores are 0 and 1.0986. The
weights are 1 and 3 before they are divided by their sum, so ``out`` is (1 * 10 + 3 * 20) / 4 = 17.5.
"""

import math

import numpy as np
from numba import float32

from paged_numba import cuda


@cuda.jit
def decode(out, query, cache, block_tables, seq_lens):
    seq, head, dim = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    block_size, head_dim = cache.shape[2], query.shape[2]
    scale = float32(1 / math.sqrt(head_dim))
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    # >>> Your code: both passes, and the write to out[seq, head, dim] (15 lines).
    for token in range(seq_lens[seq]):
        block, offset = block_tables[seq, token // block_size], token % block_size
        score = float32(0)
        for i in range(head_dim):
            score += query[seq, head, i] * cache[block, 0, offset, head, i]
        largest = max(largest, score * scale)
    for token in range(seq_lens[seq]):
        block, offset = block_tables[seq, token // block_size], token % block_size
        score = float32(0)
        for i in range(head_dim):
            score += query[seq, head, i] * cache[block, 0, offset, head, i]
        weight = math.exp(score * scale - largest)
        total += weight
        weighted += weight * cache[block, 1, offset, head, dim]
    out[seq, head, dim] = weighted / total if seq_lens[seq] > 0 else float32(0)
    # <<<
