"""
02 · Rows and columns
=====================

To save memory, a cache can hold keys as int8, with one scale per token. Attention needs the keys as floats. Write the
kernel ``dequantize``: each thread takes one number of one token, multiplies it by the token's scale and writes the
product to ``out``. The grid has two dimensions: ``x`` counts the dimensions of a key, along a row, and ``y`` counts
the tokens, which are the rows. In both directions there may be threads past the end of the array. They must not touch
any of the three arrays.

Shapes::

    out      float32[num_tokens, head_dim]
    keys     int8[num_tokens, head_dim]
    scales   float32[num_tokens]

Keys of 3 tokens and 5 dimensions, and 2 by 2 thread blocks (A, B above C, D) of 4 by 2 threads::

                dimension
                0  1  2  3   4  -  -  -
    token 0     A  A  A  A   B  B  B  B
    token 1     A  A  A  A   B  B  B  B
    token 2     C  C  C  C   D  D  D  D
    -           C  C  C  C   D  D  D  D

Example: ``keys = [[1, 2, 3], [4, 5, 6]]`` and ``scales = [0.5, 10]`` give ``out = [[0.5, 1, 1.5], [40, 50, 60]]``.
"""

from paged_numba import cuda


@cuda.jit
def dequantize(out, keys, scales):
    # >>> Your code: the token and the dimension of this thread, the guard, and the write (3 lines).
    dim, token = cuda.grid(2)
    if token < keys.shape[0] and dim < keys.shape[1]:
        out[token, dim] = scales[token] * keys[token, dim]
    # <<<
