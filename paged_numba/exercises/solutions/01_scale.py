"""
01 · One thread, one element
============================

Write the kernel ``scale``. Thread ``i`` of the grid takes element ``i`` of ``x``, multiplies it by ``factor`` and
writes the product to element ``i`` of ``out``. There may be more threads than elements. The extra threads must not
touch the arrays.

Shapes::

    out, x   float32[n]
    factor   float32

Two thread blocks of 4 threads, and 6 elements::

    thread block     0              1
    thread       0  1  2  3     0  1  2  3
    i            0  1  2  3     4  5  6  7
    element      0  1  2  3     4  5  -  -

Example: ``x = [3, 5]`` and ``factor = 10`` give ``out = [30, 50]``.
"""

from paged_numba import cuda


@cuda.jit
def scale(out, x, factor):
    # >>> Your code: the index of this thread in the grid, the guard, and the write (3 lines).
    i = cuda.grid(1)
    if i < x.size:
        out[i] = factor * x[i]
    # <<<
