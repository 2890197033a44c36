"""
18 · Transpose without bank conflicts
=====================================

Write the kernel ``transpose``: ``out[col, row]`` is ``x[row, col]``. Packed layouts of keys are made this way.

A warp reads part of a row of ``x``. It must not write part of a column of ``out``, whose elements are far apart. So a
thread block of 32 x 32 threads passes a tile of 32 rows and 32 columns through shared memory: it stores the tile row
by row and reads it column by column. Find a shape for the tile with which neither causes bank conflicts.

The launch has one thread block for each tile. Tiles at the right and lower edges of ``x`` may lie partly outside
``x``.

Shapes::

    x     float32[num_rows, num_cols]
    out   float32[num_cols, num_rows]
    tile  yours; shared memory has 32 banks of 4 bytes

Thread (tx, ty) of thread block (bx, by)::

    reads    x[32 * by + ty, 32 * bx + tx]      tx counts columns of x: neighbours in a row
    writes   out[32 * bx + ty, 32 * by + tx]    tx counts columns of out: neighbours in a row

         x                    out
         a b c                a d
         d e f                b e
                              c f

Example: ``x = [[1, 2, 3], [4, 5, 6]]`` gives ``out = [[1, 4], [2, 5], [3, 6]]``.

What is checked: each element is loaded and stored once, with 4 sectors per request, and there are no bank conflicts.
"""

from numba import float32

from paged_numba import cuda


@cuda.jit
def transpose(out, x):
    bx, by = cuda.blockIdx.x, cuda.blockIdx.y
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    # >>> Your code: a tile in shared memory; fill it; wait; write its columns (8 lines).
    tile = cuda.shared.array((32, 33), float32)  # column 32 is a pad: it moves each row on by a bank
    row, col = 32 * by + ty, 32 * bx + tx
    if row < x.shape[0] and col < x.shape[1]:
        tile[ty, tx] = x[row, col]
    cuda.syncthreads()  # the tile is full
    row, col = 32 * bx + ty, 32 * by + tx
    if row < out.shape[0] and col < out.shape[1]:
        out[row, col] = tile[tx, ty]
    # <<<
