"""
22 · Hits evicted by their own request
======================================

**A request finds a prefix in the cache, and the blocks that it takes next are those that it found.**

:Reported: `Megatron-LM 5822 <https://github.com/NVIDIA/Megatron-LM/pull/5822>`__,
  `ATOM 902 <https://github.com/ROCm/ATOM/pull/902>`__
:Caught by: a property in a pool that is just large enough
:Its message: ``a block is in the table twice``
"""

# %%
# What was reported
# -----------------
# A block that is cached and used by nobody may be evicted. Megatron-LM counted a request as an owner of its hits only
# after it had allocated the rest, and the allocation could evict them. In July 2026 a change turned the order round.
# ATOM's fault is a neighbour: hits on free blocks were not subtracted from the number of free blocks, so the check said
# yes, and the allocation failed.

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.prefixes import HitsHeldTooLate

# %%
# The fault
# ---------
# The request must become an owner of its hits first, and then take the blocks that are missing. The wrong pool does it
# the other way round.

WRONG = HitsHeldTooLate
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# A pool of 3 blocks of 4 tokens. Two prompts have come and gone, and the cache holds all blocks. The third begins as
# the first did, and needs 2 blocks more.


def table_of_the_third(num_blocks, first, second, third):
    pool = pn.BlockAllocator(num_blocks, block_size=4, prefix_caching=True)
    for name, length, start in ("first", first, 0), ("second", second, 50):
        pool.add(name, range(start, start + length))
        pool.commit(name)
        pool.free(name)
    served = pool.add("third", range(third)).num_cached_tokens
    return served, pool.block_table("third").tolist()


with installed(WRONG):
    print("tokens served and block table:", *table_of_the_third(3, 4, 8, 12))
print("they should be:               ", *table_of_the_third(3, 4, 8, 12))

# %%
# Block 0 is served as the first 4 tokens, and also taken to be written anew.
#
# The test that does not see it
# -----------------------------
# Its pool has 16 blocks. Nothing is evicted before it is full, so the order does not matter.


def their_test():
    assert table_of_the_third(16, 4, 8, 12) == (4, [0, 3, 4])


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------

lengths = st.integers(1, 12)


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(num_blocks=st.integers(3, 6), first=lengths, second=lengths, third=lengths)
def our_test(num_blocks, first, second, third):
    _, table = table_of_the_third(num_blocks, first, second, third)
    assert len(set(table)) == len(table), f"a block is in the table twice: {table}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: hold what was found, then take what is missing. ``tests/test_traps_allocator.py`` has this pool of 3 blocks
# as a test; in :doc:`lesson 14 </lessons/14_share_and_copy>` blocks are evicted.
#
# **In one sentence.** Memory bugs live in full pools: draw pools that are barely large enough.
