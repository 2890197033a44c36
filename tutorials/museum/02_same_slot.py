"""
02 · Two thread blocks, one slot
================================

**Several thread blocks divide the heads of a token, and all of them write to the place of the first.**

:Reported: `flash-linear-attention 1028 <https://github.com/fla-org/flash-linear-attention/issues/1028>`__
:Caught by: the sanitizer: two threads write one element
:Its message: ``data race: key_cache[0, 0, 0, 0]``
"""

# %%
# What was reported
# -----------------
# In July 2026 a reader of flash-linear-attention noticed that a decode kernel starts one program for each tile of the
# value dimension. Each program read its own tile, but wrote its result to the first. The programs overwrote one
# another, and the rest of the output stayed unwritten. The fix came with a test of 320 dimensions: more than one tile.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# ``threadIdx.y`` counts the KV heads of a thread block, not those of the cache: ``blockIdx.y`` says how many come
# before. The read on the right uses both, the write on the left one.

WRONG = kernel("write_kv", "every thread block writes to the first KV heads")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The key of each KV head is its number, and -1 stands where nothing is written. A head has 128 dimensions, so a thread
# block takes 2 heads. The last one wins the first place; a GPU does not say which that is.


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
# It has 2 heads. One thread block takes both, and the first place is the only one.


def their_test():
    assert written(2) == [0, 1]


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# The sanitizer remembers who wrote each element. It needs no oracle.


@settings(derandomize=True, database=None, phases=(Phase.generate, Phase.shrink))
@given(num_kv_heads=st.integers(1, 8))
def our_test(num_kv_heads):
    with lockstep.sanitizing() as findings:
        written(num_kv_heads)
    assert not findings, findings


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: one index, computed once, for the read and the write. ``tests/test_sanitized_kernels.py`` runs every kernel
# of this package under the sanitizer; :doc:`lesson 05 </lessons/05_scattered_writes>` maps threads to heads.
#
# **In one sentence.** Test sizes that need a second thread block, along every axis of the grid.
