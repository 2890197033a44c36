"""The kernels that the page "A kernel in lockstep" plays: a reduction, a transpose, and how the page launches them."""

from numba import float32

from paged_numba import cuda

THREADS = 128


def tree(second_barrier):
    """Return a kernel that adds up 128 numbers with a tree in shared memory, with or without a barrier a level."""

    @cuda.jit
    def add_up(total, values):
        partial = cuda.shared.array(THREADS, float32)
        thread = cuda.threadIdx.x
        partial[thread] = values[thread]
        cuda.syncthreads()  # all values are in
        half = THREADS // 2
        while half > 0:
            if thread < half:
                partial[thread] += partial[thread + half]
            if second_barrier:
                cuda.syncthreads()  # this level is done
            half //= 2
        if thread == 0:
            total[0] = partial[0]

    return add_up


def transposed(width):
    """Return a kernel that transposes a 32 x 32 matrix by a tile with rows of `width` numbers."""

    @cuda.jit
    def transpose(out, matrix):
        tile = cuda.shared.array((32, width), float32)
        column, first_row = cuda.threadIdx.x, cuda.threadIdx.y
        for row in range(first_row, 32, 4):
            tile[row, column] = matrix[row, column]
        cuda.syncthreads()  # the tile is full
        for row in range(first_row, 32, 4):
            out[row, column] = tile[column, row]

    return transpose
