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
# In May 2026, a user of vLLM found wrong hidden states in the paged cache into which vLLM extracts them. A call of 64
# tokens had been padded to 128 for a CUDA graph, and each padding token had slot -1. The line that stores the states
# divided slots by the block size and used the results as indices, so all padding tokens were written to the last slot
# of the last block.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# With blocks of 4, ``-1 // 4`` is -1 and ``-1 % 4`` is 3: offset 3 of block -1, which in Numba as in Python is the
# last block. The right kernel skips every token whose slot is negative.

WRONG = kernel("write_kv", "slot -1 wraps to the last block")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Each slot of a cache of 3 blocks holds its own number. Two tokens are written: 100 to slot 5, and 200, which is
# padding, to slot -1. The padding token overwrites slot 11.


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
# It writes tokens to slots and reads those slots back. It has no padding tokens, since it does not run in a CUDA
# graph.


def their_test():
    assert written([5, 2]).ravel()[[5, 2]].tolist() == [100, 200]


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws the slots, including -1, and the test looks at the slots that were not drawn.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(slots=st.lists(st.integers(-1, 11), min_size=2, max_size=2, unique=True))
def our_test(slots):
    changed = np.flatnonzero(written(slots) != np.arange(12).reshape(3, 4))
    strange = sorted({*changed.tolist()} - {*slots})
    assert not strange, f"slots {strange} changed, which no token names"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: skip the token if its slot is negative. The property of writes in ``tests/test_ops.py`` draws such tokens;
# :doc:`lesson 05 </lessons/05_scattered_writes>` explains slots and padding.
#
# **In one sentence.** If a marker is also a valid index, test with the marker, and check what must not change.
