"""
17 · Freed under a fork
=======================

**A fork shares blocks that are not counted as its own, and reads on after they were given to somebody else.**

:Reported: `vLLM 20512 <https://github.com/vllm-project/vllm/pull/20512>`__,
  `Atlas 373 <https://github.com/Avarok-Cybersecurity/atlas/pull/373>`__
:Caught by: a property that gathers what each sequence holds
:Its message: ``the child lost what it held``
"""

# %%
# What was reported
# -----------------
# In July 2025 a change proposed to vLLM described block tables that released blocks outside the window, but kept
# references to them. A fork followed these, and could get blocks that were somebody else's by then. In July 2026 long
# sessions of the Atlas engine ended with an illegal address on the GPU: a count was wrong, so an eviction freed a block
# that a live sequence still read, and its next owner cleared it in the middle of a decode.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.allocators import ForkWithoutReferences

# %%
# The fault
# ---------
# Ours is the shortest of this class: a fork becomes an owner of the blocks, and their counts stay as they were.

WRONG = ForkWithoutReferences
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The key of a token is its number. The parent ends, and a stranger, whose tokens count from 100, gets its blocks.


def tokens(first, count):
    return np.repeat(np.arange(first, first + count, dtype=np.float32), 8).reshape(count, 1, 8)


def keys_of_the_child(length, stranger):
    cache = pn.PagedKVCache(num_blocks=8, block_size=4, num_kv_heads=1, head_dim=8, target="lockstep")
    cache.add("parent", tokens(0, length), tokens(0, length))
    cache.fork("parent", "child")
    cache.free("parent")
    cache.add("stranger", tokens(100, stranger), tokens(100, stranger))
    return cache.gather("child")[0][:, 0, 0]


with installed(WRONG):
    print("the child holds", keys_of_the_child(length=6, stranger=8))
print("it should hold ", keys_of_the_child(length=6, stranger=8))

# %%
# The test that does not see it
# -----------------------------
# It forks, compares the tables, and lets both go. Nobody takes the blocks while the child still reads them.


def their_test():
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add("parent", 6)
    pool.fork("parent", "child")
    assert pool.block_table("child").tolist() == pool.block_table("parent").tolist() == [0, 1]
    pool.free("parent")
    assert pool.block_table("child").tolist() == [0, 1]
    pool.free("child")
    assert pool.num_free_blocks == 8


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------


@settings(derandomize=True, deadline=None, max_examples=20, phases=(Phase.generate, Phase.shrink))
@given(length=st.integers(1, 12), stranger=st.integers(0, 12))
def our_test(length, stranger):
    kept = keys_of_the_child(length, stranger)
    assert kept.tolist() == [*range(length)], f"the child lost what it held: {kept}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: whoever has a block in its table is counted. ``tests/test_mutants.py`` also hunts this allocator through the
# whole cache; in :doc:`lesson 14 </lessons/14_share_and_copy>` sequences share blocks.
#
# **In one sentence.** Read a sequence after another was freed, and again after somebody else has taken the blocks.
