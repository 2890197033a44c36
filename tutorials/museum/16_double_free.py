"""
16 · Double free
================

**A block goes back to the free list twice, and the next two requests both get it.**

:Reported: `vLLM 42571 <https://github.com/vllm-project/vllm/issues/42571>`__,
  `vLLM 3347 <https://github.com/vllm-project/vllm/pull/3347>`__
:Caught by: an invariant of the pool after each of a series of calls
:Its message: ``is free and in 1 tables``
"""

# %%
# What was reported
# -----------------
# In May 2026, a user of vLLM found the same block on the free list twice. With a sliding window, a request may get
# the same block again. The list of blocks to offload then named the block twice, and the pool freed it once for each
# entry. Early vLLM raised an error when it freed a block twice. In March 2024, the cause was found: sequences that
# shared blocks had outgrown their window, and the reference counts were wrong. Both faults need a window. Ours is a
# similar fault that needs only a fork.

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.allocators import BlockFreedTwice

# %%
# The fault
# ---------
# The reference count of a block reaches 0 when its last owner leaves. The wrong allocator puts a block on the free
# list whenever an owner leaves.

WRONG = BlockFreedTwice
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Two answers to one prompt share its blocks, and end one after the other. Then the requests "you" and "me" arrive.

with installed(WRONG):
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add("answer 1", 8)
    pool.fork("answer 1", "answer 2")
    pool.free("answer 1")
    pool.free("answer 2")
    print(pool.num_free_blocks, "free blocks of", pool.num_blocks)
    pool.add("you", 8)
    pool.add("me", 8)
tables = {name: pool.block_table(name).tolist() for name in pool}
pn.draw.BlockTables(8, 4, tables, dict.fromkeys(pool, 8), title="Two owners for each block").show(
    "16_owners.svg"
)

# %%
# The test that does not see it
# -----------------------------
# It adds and frees sequences, and counts the free blocks. But none of its sequences share a block.


def their_test():
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    for name in "ab":
        pool.add(name, 8)
    for name in "ab":
        pool.free(name)
    assert pool.num_free_blocks == 8


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# ``check`` compares the free list, the tables and the reference counts: each block is free or in as many tables as
# its count says.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(calls=st.lists(st.sampled_from(("fork", "append", "free")), max_size=4))
def our_test(calls):
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add(0, 5)
    for name, call in enumerate(calls, start=1):
        oldest = min(pool, default=None)
        if oldest is not None:
            pool.fork(oldest, name) if call == "fork" else getattr(pool, call)(oldest)
        pool.check()


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: a block is free when its count reaches 0, and only then. ``tests/test_mutants.py`` catches this allocator
# with a state machine; :doc:`lesson 04 </lessons/04_page_table>` writes such a test.
#
# **In one sentence.** The fault shows as a wrong answer many steps later, so check the pool's invariants after every
# call.
