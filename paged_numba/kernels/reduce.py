"""Reductions over threads: through shared memory, or within a warp by shuffles."""

from numba import cuda

ALL_LANES = 0xFFFFFFFF


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def segment_max(value, scratch, width):
    """Return the largest `value` among `width` neighbouring threads, in each of them.

    A tree, here with 8 threads in segments of width 4, strides 2 and 1::

        a b c d | e f g h
        |---+   | |---+       stride 2: max(a, c) ...
        |-+     | |-+         stride 1: the first of each segment holds the result

    `scratch` is shared memory with one element per thread; `width` is a power of two that divides the number of
    threads. All threads of the thread block must call it.
    """
    thread = cuda.threadIdx.x
    lane = thread % width
    scratch[thread] = value
    cuda.syncthreads()  # all values are in scratch
    stride = width // 2
    while stride > 0:
        if lane < stride:
            scratch[thread] = max(scratch[thread], scratch[thread + stride])
        cuda.syncthreads()  # this level is done
        stride //= 2
    result = scratch[thread - lane]
    cuda.syncthreads()  # all threads have read the result: scratch may be reused
    return result


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def segment_sum(value, scratch, width):
    """Return the sum of `value` over `width` neighbouring threads, in each of them; a tree as in `segment_max`."""
    thread = cuda.threadIdx.x
    lane = thread % width
    scratch[thread] = value
    cuda.syncthreads()  # all values are in scratch
    stride = width // 2
    while stride > 0:
        if lane < stride:
            scratch[thread] += scratch[thread + stride]
        cuda.syncthreads()  # this level is done
        stride //= 2
    result = scratch[thread - lane]
    cuda.syncthreads()  # all threads have read the result: scratch may be reused
    return result


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def warp_sum(value):
    """Return the sum of `value` over the 32 lanes of a warp, in each of them; all 32 must call it.

    A butterfly, here with 4 lanes and distances 2 and 1. In a shuffle each lane reads a register of the lane whose
    number differs from its own in one bit::

        a       b       c       d
        a+c     b+d     c+a     d+b         distance 2: lanes 0 and 2, 1 and 3
        a+c+b+d b+d+a+c c+a+d+b d+b+c+a     distance 1: lanes 0 and 1, 2 and 3

    No memory and no barrier. Both lanes of a pair add the same two numbers, so all lanes end with the same bits.
    """
    distance = 16
    while distance > 0:
        value += cuda.shfl_xor_sync(ALL_LANES, value, distance)
        distance //= 2
    return value
