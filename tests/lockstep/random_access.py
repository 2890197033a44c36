"""Kernels whose addresses a test chooses."""

from numba import cuda


@cuda.jit
def gather(source, index, active, out):
    i = cuda.grid(1)
    if active[i]:
        out[i] = source[index[i]]


@cuda.jit
def gather_shared(source, index, active, out):
    tile = cuda.shared.array(0, out.dtype)
    i = cuda.grid(1)
    if active[i]:
        out[i] = tile[index[i]]
