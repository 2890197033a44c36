"""
20 · Found before it is written
===============================

**The prefix cache serves blocks whose keys and values no kernel has written yet.**

:Reported: `vLLM 7822 <https://github.com/vllm-project/vllm/pull/7822>`__,
  `vLLM-Omni 7877 <https://github.com/vllm-project/vllm-omni/pull/7877>`__
:Caught by: a property in which some of the requests have been written, and some not
:Its message: ``served before they were written``
"""

# %%
# What was reported
# -----------------
# A scheduler fills a batch, request by request, and only then do the kernels run. In August 2024 the author of a
# change to vLLM explained why blocks count as computed only once the batch is scheduled: otherwise the next request
# of the batch would skip tokens that no kernel had computed, and its output would be wrong. Newer versions offer
# blocks as soon as they are allocated. In September 2026, this was found to break vLLM-Omni, which copied such hits
# too early, with no error.

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.prefixes import ServedBeforeItIsWritten

# %%
# The fault
# ---------
# ``add`` says where to write, and ``commit`` says that the write was done. The wrong allocator does both at once.

WRONG = ServedBeforeItIsWritten
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Two requests of one batch begin with the same system prompt of 8 tokens, in blocks of 4.

SYSTEM = [*range(8)]

with installed(WRONG):
    pool = pn.BlockAllocator(num_blocks=8, block_size=4, prefix_caching=True)
    for name in "ab":
        allocation = pool.add(name, [*SYSTEM, 90])
        print(f"{name}: {allocation.num_cached_tokens} tokens are served, slots to write: {allocation.slots}")
    print("reference counts:", [pool.ref_count(block) for block in range(8)])

# %%
# Both requests hold blocks 0 and 1, and only a writes them. If b is computed first, or if a is computed in chunks, b
# reads what was there before.
#
# The test that does not see it
# -----------------------------
# It sends the second request after the first one has ended, as one does when trying a cache by hand.


def their_test():
    pool = pn.BlockAllocator(num_blocks=8, block_size=4, prefix_caching=True)
    pool.add("a", [*SYSTEM, 90])
    pool.commit("a")
    pool.free("a")
    assert pool.add("b", [*SYSTEM, 91]).num_cached_tokens == 8


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# ``written`` says for each request whether its keys and values were written before the next one came.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(written=st.lists(st.booleans(), max_size=4))
def our_test(written):
    pool = pn.BlockAllocator(num_blocks=16, block_size=4, prefix_caching=True)
    for name, was_written in enumerate([*written, False]):
        served = pool.add(name, [*SYSTEM, 90]).num_cached_tokens
        assert not served or any(written[:name]), f"{served} tokens were served before they were written"
        if was_written:
            pool.commit(name)


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: a block can be found once its keys and values are written. The state machine of ``tests/test_mutants.py``
# remembers what each slot holds; :doc:`lesson 14 </lessons/14_share_and_copy>` introduces ``commit``.
#
# **In one sentence.** An allocator deals in promises: test what happens between the promise and the write.
