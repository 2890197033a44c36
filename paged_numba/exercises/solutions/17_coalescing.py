"""
17 · The same result with less traffic
======================================

A cache keeps keys as int8, with one scale for each token, and the kernel ``dequantize`` makes floats of them. It is
right, but slow: each thread takes a token and goes through its dimensions, so that the threads of a warp ask for
numbers that lie ``head_dim`` apart. Mend it: neighbouring threads must ask for neighbouring numbers.

The launch stays as it is: as many threads as tokens, rounded up to whole thread blocks. Thread block ``b`` still has
``blockDim.x`` tokens from ``b * blockDim.x`` on, or what is left of them, but its threads work on one token together.
There may be more dimensions than threads in a thread block, or fewer.

Shapes::

    keys        float32[num_tokens, head_dim]
    quantized   int8[num_tokens, head_dim]
    scales      float32[num_tokens]

A thread block of 4 threads, 4 tokens of 6 dimensions; each cell has the thread that writes it::

                 as it is              as it should be
    dimension    0  1  2  3  4  5      0  1  2  3  4  5
    token 0      0  0  0  0  0  0      0  1  2  3  0  1
    token 1      1  1  1  1  1  1      0  1  2  3  0  1
    token 2      2  2  2  2  2  2      0  1  2  3  0  1
    token 3      3  3  3  3  3  3      0  1  2  3  0  1

Worked: ``scales[0] = 0.5`` and ``quantized[0] = [2, -4]`` give ``keys[0] = [1, -2]``.

What counts: for 64 tokens with 128 dimensions, 512 sectors are loaded and 1,024 stored.
"""

from paged_numba import cuda


@cuda.jit
def dequantize(keys, quantized, scales):
    num_tokens, head_dim = keys.shape
    # >>> Mend this part: neighbouring threads ask for numbers far apart.
    first = cuda.blockIdx.x * cuda.blockDim.x
    for token in range(first, min(first + cuda.blockDim.x, num_tokens)):
        for dim in range(cuda.threadIdx.x, head_dim, cuda.blockDim.x):
            keys[token, dim] = scales[token] * quantized[token, dim]
    # ---
    # token = cuda.grid(1)
    # if token < num_tokens:
    #     for dim in range(head_dim):
    #         keys[token, dim] = scales[token] * quantized[token, dim]
    # <<<
