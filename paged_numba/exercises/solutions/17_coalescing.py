"""
17 · The same copy with less traffic
====================================

The kernel ``copy_blocks`` copies whole blocks within a cache: pair ``i`` says that block ``pairs[i, 0]`` is copied to
block ``pairs[i, 1]``. The kernel is right but slow: each thread takes a token and goes through its dimensions, so the
threads of a warp access numbers that lie ``head_dim`` apart. Mend the kernel: neighbouring threads must access
neighbouring numbers.

The launch stays as it is, with one thread block for each pair. A thread block may have more or fewer threads than a
block has tokens, and more or fewer than a token has dimensions. No block is both copied and overwritten.

Shapes::

    cache   float32[num_blocks, block_size, head_dim]
    pairs   int32[num_pairs, 2]                          source and target

A block of 4 tokens with 6 dimensions, and 4 threads; each cell names the thread that copies it::

                as it is              one way to do it
    dimension   0  1  2  3  4  5      0  1  2  3  4  5
    token 0     0  0  0  0  0  0      0  1  2  3  0  1
    token 1     1  1  1  1  1  1      2  3  0  1  2  3
    token 2     2  2  2  2  2  2      0  1  2  3  0  1
    token 3     3  3  3  3  3  3      2  3  0  1  2  3

Example: ``pairs = [[0, 2]]`` copies block 0 to block 2, token by token: ``cache[2, 1] = cache[0, 1]``.

What is checked: a block of 32 tokens with 64 dimensions has 2,048 numbers, which are 256 sectors to load and as many
to store.
"""

from paged_numba import cuda


@cuda.jit
def copy_blocks(cache, pairs):
    source, target = pairs[cuda.blockIdx.x, 0], pairs[cuda.blockIdx.x, 1]
    block_size, head_dim = cache.shape[1], cache.shape[2]
    # >>> Mend this part: neighbouring threads access numbers that are far apart (3 lines).
    for i in range(cuda.threadIdx.x, block_size * head_dim, cuda.blockDim.x):
        token, dim = i // head_dim, i % head_dim
        cache[target, token, dim] = cache[source, token, dim]
    # ---
    # for token in range(cuda.threadIdx.x, block_size, cuda.blockDim.x):
    #     for dim in range(head_dim):
    #         cache[target, token, dim] = cache[source, token, dim]
    # <<<
