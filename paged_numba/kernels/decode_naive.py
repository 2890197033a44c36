"""Decode attention, first rung: one thread does all the work of one sequence and one query head."""

import math

import numpy as np
from numba import cuda, float32

MAX_HEAD_DIM = 256
NEG_INF = np.float32(-np.inf)


@cuda.jit
def decode_naive_kernel(out, lse, query, key_cache, value_cache, block_tables, seq_lens, scale):
    """Softmax attention of one query token per sequence, as the textbook has it.

    A first pass over the keys finds the largest score, a second computes the weights and adds up the
    values; ``exp(score - largest)`` cannot overflow. The accumulators live in local memory.

    Launch: a 1-D grid of at least ``num_seqs * num_q_heads`` threads. Slow, and here to say why: the
    threads of a warp read far apart, K is read twice, and a batch of 16 x 8 fills 128 threads of a GPU
    that has room for 270,000.
    """
    # out                     float32[num_seqs, num_q_heads, head_dim]
    # lse                     float32[num_seqs, num_q_heads], natural logarithm
    # query                   float32[num_seqs, num_q_heads, head_dim]
    # key_cache, value_cache  float32[num_blocks, block_size, num_kv_heads, head_dim]
    # block_tables            int32[num_seqs, max_blocks]
    # seq_lens                int32[num_seqs]
    # scale                   float32
    num_seqs, num_q_heads, head_dim = query.shape
    thread = cuda.grid(1)
    if thread >= num_seqs * num_q_heads:
        return
    seq = thread // num_q_heads
    q_head = thread % num_q_heads
    kv_head = q_head // (num_q_heads // key_cache.shape[2])
    block_size = key_cache.shape[1]
    seq_len = seq_lens[seq]

    # Pass 1: the largest score.
    largest = NEG_INF
    for position in range(seq_len):
        kv_block = block_tables[seq, position // block_size]
        offset = position % block_size
        score = float32(0)
        for dim in range(head_dim):
            score += query[seq, q_head, dim] * key_cache[kv_block, offset, kv_head, dim]
        largest = max(largest, score * scale)

    # Pass 2: weights, their sum, and the weighted sum of the values.
    total = float32(0)
    weighted = cuda.local.array(MAX_HEAD_DIM, float32)
    for dim in range(head_dim):
        weighted[dim] = 0
    for position in range(seq_len):
        kv_block = block_tables[seq, position // block_size]
        offset = position % block_size
        score = float32(0)
        for dim in range(head_dim):
            score += query[seq, q_head, dim] * key_cache[kv_block, offset, kv_head, dim]
        weight = math.exp(score * scale - largest)
        total += weight
        for dim in range(head_dim):
            weighted[dim] += weight * value_cache[kv_block, offset, kv_head, dim]

    if seq_len == 0:  # sees no key: the identity of merging
        lse[seq, q_head] = NEG_INF
        for dim in range(head_dim):
            out[seq, q_head, dim] = 0
        return
    lse[seq, q_head] = largest + math.log(total)
    for dim in range(head_dim):
        out[seq, q_head, dim] = weighted[dim] / total
