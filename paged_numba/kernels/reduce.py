"""Reductions over threads through shared memory."""

from numba import cuda


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def segment_max(value, scratch, width):
    """Return the largest `value` among `width` neighbouring threads, in each of them.

    A tree, here with 8 threads in segments of width 4, strides 2 and 1::

        a b c d | e f g h
        |---+   | |---+       stride 2: max(a, c) ...
        |-+     | |-+         stride 1: the first of each segment holds the result

    ``scratch`` is shared memory with one element a thread; `width` is a power of two that divides the number
    of threads, and all threads of the block call.
    """
    thread = cuda.threadIdx.x
    lane = thread % width
    scratch[thread] = value
    cuda.syncthreads()  # all values are there
    stride = width // 2
    while stride > 0:
        if lane < stride:
            scratch[thread] = max(scratch[thread], scratch[thread + stride])
        cuda.syncthreads()  # this level is done
        stride //= 2
    result = scratch[thread - lane]
    cuda.syncthreads()  # all have read the result: scratch may be used again
    return result


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def segment_sum(value, scratch, width):
    """Return the sum of `value` over `width` neighbouring threads, in each of them; a tree as in `segment_max`."""
    thread = cuda.threadIdx.x
    lane = thread % width
    scratch[thread] = value
    cuda.syncthreads()  # all values are there
    stride = width // 2
    while stride > 0:
        if lane < stride:
            scratch[thread] += scratch[thread + stride]
        cuda.syncthreads()  # this level is done
        stride //= 2
    result = scratch[thread - lane]
    cuda.syncthreads()  # all have read the result: scratch may be used again
    return result
