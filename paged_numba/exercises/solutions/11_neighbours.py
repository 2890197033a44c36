"""
11 · Each element and its neighbours
====================================

Write the kernel ``neighbours``: element ``i`` of ``out`` is the sum of element ``i`` of ``x`` and the elements on
both sides of it. Past the ends of ``x``, elements count as 0.

Three threads need each element, but a thread block must read it from global memory only once: each thread stores the
element that it reads in ``tile``, in shared memory, where the neighbouring threads find it. The first and the last
thread of a thread block each have a neighbour outside the thread block. They also read that neighbour's element from
global memory.

Shapes::

    out, x   float32[n]
    tile     float32[130]   for thread blocks of at most 128 threads, and one element more on each side

Two thread blocks of 4 threads, and 6 elements ``a`` to ``f``::

    thread block        0                    1
    thread           0  1  2  3           0  1  2  3
    i                0  1  2  3           4  5  6  7
    x                a  b  c  d           e  f  -  -
    tile          0  a  b  c  d  e     d  e  f  0  0  0
    place in it   0  1  2  3  4  5     0  1  2  3  4  5

Example: ``x = [1, 2, 4]`` gives ``out = [1 + 2, 1 + 2 + 4, 2 + 4] = [3, 7, 6]``.

What is checked: a thread block reads each of its elements of ``x`` once, and two more elements.
"""

from numba import float32

from paged_numba import cuda


@cuda.jit
def neighbours(out, x):
    tile = cuda.shared.array(130, float32)
    thread, i = cuda.threadIdx.x, cuda.grid(1)
    # >>> Your code: fill the tile, including the zeros; wait for the other threads; write the sum (8 lines).
    tile[thread + 1] = x[i] if i < x.size else float32(0)
    if thread == 0:
        tile[0] = x[i - 1] if i > 0 else float32(0)
    if thread == cuda.blockDim.x - 1:
        tile[thread + 2] = x[i + 1] if i + 1 < x.size else float32(0)
    cuda.syncthreads()  # the tile is full
    if i < x.size:
        out[i] = tile[thread] + tile[thread + 1] + tile[thread + 2]
    # <<<
