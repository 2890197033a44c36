"""
13 · Right by luck: mend a race
===============================

The sequences of a batch lie one after another, so a kernel must know where each one ends: ``ends[i]`` is the sum of
``seq_lens[0]`` to ``seq_lens[i]``. The kernel ``add_up`` computes these sums, with one thread for each sequence. In
rounds of distance 1, 2, 4 and so on, each thread adds to its own sum the sum of the thread ``distance`` places before
it.

If the threads run in step, all of them read before any of them writes, and the sums are right. No GPU promises this:
a thread may read a sum that another thread has already changed in the same round. Mend the kernel, but keep its
rounds.

Shapes::

    ends, seq_lens   int32[n]     1 <= n <= blockDim.x, which is at most 128
    sums             int32[128]

One thread block of 4 threads for 4 sequences::

    thread              0  1  2  3
    start               3  1  4  2
    distance 1          3  4  5  6    threads 1 to 3: 1 + 3, 4 + 1, 2 + 4
    distance 2          3  4  8 10    threads 2, 3: 5 + 3, 6 + 4

Example: ``seq_lens = [3, 1, 4, 2]`` gives ``ends = [3, 4, 8, 10]``.

What is checked: no race, and at most two barriers in each round.
"""

from numba import int32

from paged_numba import cuda


@cuda.jit
def add_up(ends, seq_lens):
    sums = cuda.shared.array(128, int32)
    thread = cuda.threadIdx.x
    sums[thread] = seq_lens[thread] if thread < seq_lens.size else 0
    cuda.syncthreads()  # all lengths are there
    distance = 1
    while distance < cuda.blockDim.x:
        # >>> Mend this part: threads read sums that other threads write in the same round (6 lines).
        before = 0
        if thread >= distance:
            before = sums[thread - distance]
        cuda.syncthreads()  # all have read
        sums[thread] += before
        cuda.syncthreads()  # all have written
        # ---
        # if thread >= distance:
        #     sums[thread] += sums[thread - distance]
        # cuda.syncthreads()
        # <<<
        distance *= 2
    if thread < seq_lens.size:
        ends[thread] = sums[thread]
