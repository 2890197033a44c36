"""Reductions over a thread block through shared memory."""

from numba import cuda


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def block_max(value, scratch):
    """Return the largest `value` of the thread block, in every thread.

    A tree: with 8 threads, strides 4, 2, 1::

        a b c d e f g h
        |-------+          stride 4: max(a, e) ...
        |---+              stride 2
        |-+                stride 1: scratch[0] holds the result

    ``scratch`` is shared memory with one element a thread; the number of threads is a power of two.
    """
    thread = cuda.threadIdx.x
    scratch[thread] = value
    cuda.syncthreads()  # all values are there
    stride = cuda.blockDim.x // 2
    while stride > 0:
        if thread < stride:
            scratch[thread] = max(scratch[thread], scratch[thread + stride])
        cuda.syncthreads()  # this level is done
        stride //= 2
    result = scratch[0]
    cuda.syncthreads()  # all have read the result: scratch may be used again
    return result


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def block_sum(value, scratch):
    """Return the sum of `value` over the thread block, in every thread; a tree as in `block_max`."""
    thread = cuda.threadIdx.x
    scratch[thread] = value
    cuda.syncthreads()  # all values are there
    stride = cuda.blockDim.x // 2
    while stride > 0:
        if thread < stride:
            scratch[thread] += scratch[thread + stride]
        cuda.syncthreads()  # this level is done
        stride //= 2
    result = scratch[0]
    cuda.syncthreads()  # all have read the result: scratch may be used again
    return result
