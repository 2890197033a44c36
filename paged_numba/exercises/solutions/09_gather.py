"""
09 · Gather a whole batch
=========================

Write the kernel ``gather``, which copies the keys of all sequences of a batch out of the cache into one dense array.
The sequences have different lengths, so the array has as many rows for each sequence as the longest one has tokens. A
row past the end of a sequence must be 0. Write each number of ``out`` once.

A thread block takes one row of one sequence: ``cuda.blockIdx.x`` is the position of the token, and
``cuda.blockIdx.y`` is the sequence. Thread (x, y) of the thread block takes dimension x of head y.

Entries of a block table past the last block of its sequence are left over from another sequence and mean nothing.
Slots without a token hold NaN. Use neither, not even multiplied by 0: 0 * NaN is NaN. A sequence may have no tokens
at all.

Shapes::

    out            float32[num_seqs, max_len, num_kv_heads, head_dim]
    cache          float32[num_blocks, block_size, num_kv_heads, head_dim]
    block_tables   int32[num_seqs, columns]
    seq_lens       int32[num_seqs]

Two sequences in a pool of blocks of 2 slots, where a1 is token 1 of sequence a::

    block tables    cache   block   0    1    2    3              out   row   0    1    2
    a   3 0 1               offset 0    a2   NaN  b0   a0               a    a0   a1   a2
    b   2 1 1               offset 1    NaN  NaN  NaN  a1               b    b0   0    0

Example: in this picture, row 2 of a comes from entry 2 // 2 = 1 of its block table, which is block 0, and from offset
2 % 2 = 0 in that block. Row 1 of b is 0: its slot, block 2 and offset 1, holds no token.
"""

from numba import float32

from paged_numba import cuda


@cuda.jit
def gather(out, cache, block_tables, seq_lens):
    # >>> Your code: where this thread reads, the guard, and the write (7 lines).
    token, seq, block_size = cuda.blockIdx.x, cuda.blockIdx.y, cache.shape[1]
    head, dim = cuda.threadIdx.y, cuda.threadIdx.x
    if token < seq_lens[seq]:
        block, offset = block_tables[seq, token // block_size], token % block_size
        out[seq, token, head, dim] = cache[block, offset, head, dim]
    else:
        out[seq, token, head, dim] = float32(0)
    # <<<
