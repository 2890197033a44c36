"""Paged attention, first rung: one thread computes one query head of one sequence.

The keys and values of a sequence lie in blocks of `block_size` tokens, scattered over the cache. The block table says
where: entry i is the number of the block that holds the tokens from ``i * block_size`` on. To find token 29 of a
sequence whose blocks are 7, 2 and 5, with 16 tokens in a block::

    block table     [ 7 | 2 | 5 ]
    token 29        29 // 16 = 1, so block_table[1] = block 2;  29 % 16 = 13, so offset 13
    key_cache[2]    [ offset 0 | ... | offset 13 | offset 14 | offset 15 ]      slot 2 * 16 + 13 = 45

That lookup is all that "paged" adds to attention.
"""

import math

import numpy as np
from numba import cuda, float32

LOWEST = np.finfo(np.float32).min


@cuda.jit
def attention_textbook_kernel(out, query, key_cache, value_cache, block_tables, seq_lens, scale):
    """Attend from the last token of each sequence to all tokens of the sequence (decode).

    ::

        score  = scale * dot(query, key)
        weight = exp(score - largest score)
        out    = sum of weight * value / sum of weight

    Two passes over the tokens. ``exp`` of a score above 88 overflows float32; subtracting the same number from all
    scores leaves the quotient unchanged, so the largest score is subtracted, and pass 1 finds it. Pass 2 computes
    each score again, since a thread has no room to keep them all, and adds up the weights and the weighted values.

    Launch: ``[num_seqs, num_q_heads]``. A thread block works on a sequence, a thread on a query head. With 8 query
    heads and 2 KV heads, query heads 0 to 3 attend to KV head 0, and 4 to 7 to KV head 1 (grouped queries).

    Bytes read: K twice and V once, for each query head. Operations: 6 head_dim for each token and query head. Slow,
    for reasons that the next rungs remove: neighbouring threads read addresses far apart, and 16 sequences with 8
    query heads keep only 128 threads busy on a GPU that has room for 270,000.
    """
    # out                     float32[num_seqs, num_q_heads, head_dim]
    # query                   float[num_seqs, num_q_heads, head_dim]
    # key_cache, value_cache  float[num_blocks, block_size, num_kv_heads, head_dim]
    # block_tables            int32[num_seqs, max_blocks]
    # seq_lens                int32[num_seqs], tokens in the cache
    # scale                   float32, usually 1 / sqrt(head_dim)
    seq = cuda.blockIdx.x
    q_head = cuda.threadIdx.x

    num_q_heads, head_dim = query.shape[1], query.shape[2]
    block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]
    kv_head = q_head // (num_q_heads // num_kv_heads)

    # Pass 1: the largest score.
    largest = LOWEST  # not -inf: if every score is -inf, score - largest would be NaN
    for token in range(seq_lens[seq]):
        kv_block = block_tables[seq, token // block_size]
        offset = token % block_size
        score = float32(0)
        for dim in range(head_dim):
            score += float32(query[seq, q_head, dim]) * float32(key_cache[kv_block, offset, kv_head, dim])
        largest = max(largest, score * scale)

    # Pass 2: the sum of the weights, and the weighted sum of the values.
    total = float32(0)
    for dim in range(head_dim):
        out[seq, q_head, dim] = float32(0)
    for token in range(seq_lens[seq]):
        kv_block = block_tables[seq, token // block_size]
        offset = token % block_size
        score = float32(0)
        for dim in range(head_dim):
            score += float32(query[seq, q_head, dim]) * float32(key_cache[kv_block, offset, kv_head, dim])
        weight = math.exp(score * scale - largest)
        total += weight
        for dim in range(head_dim):
            out[seq, q_head, dim] += weight * float32(value_cache[kv_block, offset, kv_head, dim])

    if total > 0:  # a sequence of no tokens keeps output 0
        for dim in range(head_dim):
            out[seq, q_head, dim] /= total
