"""
07 · A thread block works together
==================================

**How do 128 threads agree on one number?** A query has a score with each of 120 keys, and softmax needs the largest.
One thread per key computes all scores at once, but each thread knows only its own. You will see them compare in
seven rounds, a missing line that loses the winner only now and then, and a tool that finds the fault every time.
"""

# %%
# The keys lie in a paged cache, around another sequence's. The key of token 110 is the query itself: the best match.

import numpy as np
from numba import float32

import paged_numba as pn
from paged_numba import cuda, lockstep

rng = np.random.default_rng(7)
query = rng.standard_normal(32, dtype=np.float32)
key = rng.standard_normal((120, 1, 32), dtype=np.float32)  # token, head, dimension
key[110, 0] = query
cache = pn.PagedKVCache(16, block_size=16, num_kv_heads=1, head_dim=32, target="lockstep")  # on the host
cache.add("ours", key[:40], key[:40])  # this lesson reads no values
cache.add("other", key[:40], key[:40])
cache.append("ours", key[40:], key[40:])
block_table = cache.allocator.block_table("ours")
print(f"block table {block_table}, largest score by NumPy {(key[:, 0] @ query).max():.2f}")

# %%
# Threads that compare
# --------------------
# A thread cannot see another thread's variables. What others need, it writes to :term:`shared memory`: a small, fast
# array that all threads of one thread block can read and write. Then half of the threads each take the larger of two
# scores, then half of those threads, until one score is left. Making one value of many is called a
# :term:`reduction`.
#
# ``cuda.syncthreads()`` is a :term:`barrier`: no thread passes it before all threads of its thread block reach it.
# The first makes sure that all scores are there. **Can we do without the second?** The last argument decides.


@cuda.jit
def largest_score(out, query, key_cache, block_table, seq_len, second_barrier):
    scores = cuda.shared.array(128, float32)
    thread, block_size = cuda.threadIdx.x, key_cache.shape[1]
    score = float32(-np.inf)  # a thread without a token never wins
    if thread < seq_len:
        kv_block, offset = block_table[thread // block_size], thread % block_size
        score = float32(0)
        for dim in range(query.size):
            score += query[dim] * key_cache[kv_block, offset, 0, dim]
    scores[thread] = score
    cuda.syncthreads()  # all scores are there
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            scores[thread] = max(scores[thread], scores[thread + half])
        if second_barrier:
            cuda.syncthreads()  # this round is over
        half //= 2
    if thread == 0:
        out[0] = scores[0]


# %%
# Wrong, now and then
# -------------------
# First without the second barrier: **this kernel is broken**. A GPU runs threads in groups of 32, called
# :term:`warps <warp>`, so our thread block has four. Between barriers they may run in any order, and a GPU gives no
# say in that. ``lockstep.jit`` runs the kernel on lockstep instead, where ``order`` chooses: all warps step by step
# together, or each as far as its next barrier, the first warp first or the last.
#
# .. dropdown:: Predict: which order loses token 110?
#
#    First warp first (``forward``): in its second round, warp 0 takes scores 32 to 63, which warp 1 has not compared
#    with scores 96 to 127 yet. The winner, 110, is among those. The other two orders give the right result by luck.

seq_len = 120
out = np.zeros(1, np.float32)
arguments = out, query, cache.key_cache, block_table, seq_len
for order in ("together", "forward", "reverse"):
    with lockstep.options(order=order):
        lockstep.jit(largest_score)[1, 128](*arguments, False)
    print(f"{order:8}  {out[0]:5.2f}")

# %%
# Two threads access one element, at least one writes, and no barrier says which comes first: a :term:`data race`.
# The :term:`sanitizer` remembers who touched what since the last barrier, so it finds the race in any order.
# Within a warp, ``cuda.syncwarp()``, a barrier for a single warp, would be enough.

print(lockstep.sanitize(largest_score, 1, 128, *arguments, False))

# %%
# The wrong run as a picture
# --------------------------
# ``lockstep.trace`` records each access. The picture has a row for each round, a dot for each element that is
# written in it, and lines from the elements that are read. Red is a race. This is the run that lost token 110:
# scores 32 to 63 go into the second round as they were at the start.

with lockstep.options(order="forward"):
    accesses = lockstep.trace(largest_score, 1, 128, *arguments, False)
pn.draw.Tree.of(accesses, "scores", title="One barrier").show("07_one_barrier.svg")

# %%
# With the second barrier, each round reads what the round before wrote. *All* threads of the thread block must reach
# a barrier, also those with nothing left to do, so it stands outside the ``if``.
#
# .. dropdown:: Predict: how many threads have work in each round?
#
#    64, 32, 16, 8, 4, 2 and 1: half as many each time.

accesses = lockstep.trace(largest_score, 1, 128, *arguments, True)
pn.draw.Tree.of(accesses, "scores", title="A barrier after each round").show("07_rounds.svg")

# %%
# What working together costs
# ---------------------------
# Now the mended kernel, on a GPU if there is one, and its profile. A :term:`memory request` is one instruction of
# one warp that goes to memory, however many of the warp's threads take part.
#
# .. dropdown:: Predict: how many requests to shared memory do our four warps make?
#
#    29. Each warp stores its scores: 4. In the seven rounds 2, 1, 1, 1, 1, 1 and 1 warps have work, 8 in all, each
#    with two loads and a store: 24. One load fetches the result. And each warp reaches 8 barriers: 32.

largest_score[1, 128](*arguments, True)
np.testing.assert_allclose(out[0], (key[:seq_len, 0] @ query).max(), rtol=1e-5)
report = lockstep.profile(largest_score, 1, 128, *arguments, True)
print(f"{report.memory('shared').requests} requests to shared memory, {report.work().barriers} barriers")

# %%
# **In two sentences.** Threads of one thread block exchange values through shared memory, safely if a barrier stands
# between one thread's write and another's read. A tree reduces ``n`` values in ``log2(n)`` rounds.
#
# **Check yourself.**
#
# 1. Why does a thread without a token not simply return?
# 2. With ``seq_len=90``, does any order give a wrong result? Is the broken kernel then correct?
# 3. Could the second barrier stand inside ``if thread < half``?
#
# .. dropdown:: Answers
#
#    1. Its element is read in the first round, so it must be written. And the thread must come to each barrier.
#    2. No order does: scores 96 to 127 are minus infinity. But the race is there, for longer sequences.
#    3. No: some threads would wait where the others never come. Try it; lockstep says which.
#
# **Try next.** Compare neighbours first: distances 1, 2, 4, and so on. There are as many rounds; how many requests?
#
# **In the engines.** Our rung is ``segment_max`` (``paged_numba/kernels/reduce.py``). In FlashInfer's ``sync_state``
# (``include/flashinfer/attention/decode.cuh``), threads share results in this way; ``block.sync()`` is the barrier.
