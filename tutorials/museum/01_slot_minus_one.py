"""
01 · The slot of a padding token
================================

**A padding token has slot -1. Used as an index, -1 is the last slot of the cache, and a real key is overwritten.**

:Reported: `vLLM 43810 <https://github.com/vllm-project/vllm/issues/43810>`__
:Caught by: a property: no slot changes that no token names
:Its message: ``slots [11] changed, which no token names``
"""

# %%
# What was reported
# -----------------
# In May 2026 a user of vLLM found wrong hidden states where it extracts them into a paged cache. A call with 64 tokens
# was padded to 128 for a CUDA graph, and each padding token had slot -1. The line that stored the states divided slots
# by the block size and used the result as an index, so all padding went to the last slot of the last block.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# With blocks of 4, slot -1 is block -1, for ``-1 // 4`` is -1, and offset 3. Block -1 is the last one, in Numba as in
# Python. The right kernel returns at any negative slot.

WRONG = kernel("write_kv", "slot -1 wraps to the last block")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Each slot of a cache of 3 blocks holds its own number. Two tokens are written: 100 to slot 5 and 200, which is
# padding, to slot -1. It overwrites slot 11.


def written(slots):
    cache = np.arange(12, dtype=np.float32).reshape(3, 4, 1, 1)  # blocks, offsets, heads, dimensions
    new = np.array([100, 200], np.float32).reshape(2, 1, 1)
    pn.write_kv(new, new, cache, cache.copy(), slots, target="lockstep")
    return cache[..., 0, 0].astype(int)


with installed(WRONG):
    print(written([5, -1]))

# %%
# The test that does not see it
# -----------------------------
# It gives each token a slot of its own and reads those slots. It has no padding: tests seldom run in a CUDA graph.


def their_test():
    assert written([5, 2]).ravel()[[5, 2]].tolist() == [100, 200]


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws the slots, -1 among them, and the test looks at the slots that it did not name.


@settings(derandomize=True, database=None, phases=(Phase.generate, Phase.shrink))
@given(slots=st.lists(st.integers(-1, 11), min_size=2, max_size=2, unique=True))
def our_test(slots):
    changed = np.flatnonzero(written(slots) != np.arange(12).reshape(3, 4))
    strange = sorted({*changed.tolist()} - {*slots})
    assert not strange, f"slots {strange} changed, which no token names"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: return if the slot is negative, before anything is computed from it. In ``tests/test_ops.py`` a property
# holds our kernel to that; :doc:`lesson 05 </lessons/05_scattered_writes>` explains slots and padding.
#
# **In one sentence.** A marker that is also a valid index needs a test that sends it and looks at all the rest.
