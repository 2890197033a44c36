"""
02 · Two thread blocks, one slot
================================

**The heads of a token are divided among thread blocks, and all of these write to the heads of the first.**

:Reported: `flash-linear-attention 1028 <https://github.com/fla-org/flash-linear-attention/issues/1028>`__,
  `TritonBench 15 <https://github.com/thunlp/TritonBench/pull/15>`__
:Caught by: the sanitizer: two threads write one element
:Its message: ``data race: key_cache[0, 0, 0, 0]``
"""

# %%
# What was reported
# -----------------
# A decode kernel of flash-linear-attention starts one program for each tile of the value dimension. A report of July
# 2026 says that each program reads its own tile, but writes its result to the first tile. The programs overwrite one
# another, and the rest of the output stays unwritten. The fix came with a test of 320 dimensions, more than a tile
# has. In September 2026, a test was found to have such a fault: TritonBench runs a kernel that fills a paged cache
# with a block table of zeros only, so all programs write to block 0.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# ``threadIdx.y`` is the KV head within a thread block. The KV head of the cache also depends on ``blockIdx.y``.

WRONG = kernel("write_kv", "every thread block writes to the first KV heads")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The key of each KV head is the head's number, and -1 stands where nothing was written. A head has 128 dimensions,
# and a thread block takes 2 heads. All thread blocks write to heads 0 and 1. The last thread block wins; on a GPU,
# that may be any of them.


def written(num_kv_heads):
    key = np.broadcast_to(np.arange(num_kv_heads, dtype=np.float32)[None, :, None], (1, num_kv_heads, 128))
    cache = np.full((1, 1, num_kv_heads, 128), -1, np.float32)
    pn.write_kv(key, key, cache, cache.copy(), [0], target="lockstep")
    return cache[0, 0, :, 0].astype(int).tolist()


with installed(WRONG):
    print(written(8))

# %%
# The test that does not see it
# -----------------------------
# It has 2 heads, which one thread block takes.


def their_test():
    assert written(2) == [0, 1]


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# The sanitizer remembers which thread wrote each element. It needs no oracle.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(num_kv_heads=st.integers(1, 8))
def our_test(num_kv_heads):
    with lockstep.sanitizing() as findings:
        written(num_kv_heads)
    assert not findings, findings


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: compute the index once, and use it for the read and the write. ``tests/test_sanitized_kernels.py`` runs
# every kernel under the sanitizer; :doc:`lesson 05 </lessons/05_scattered_writes>` maps threads to heads.
#
# **In one sentence.** Along every axis of the grid, test sizes that need a second thread block.
