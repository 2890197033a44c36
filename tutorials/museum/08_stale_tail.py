"""
08 · Zero times NaN
===================

**The last slots of a block are stale. Their weight is 0, but if a value there is NaN, so is the output.**

:Reported: `vLLM 641 <https://github.com/vllm-project/vllm/issues/641>`__, `FlashAttention 2374
  <https://github.com/Dao-AILab/flash-attention/issues/2374>`__
:Caught by: a property over lengths, with NaN in every slot that no token owns
:Its message: ``a stale slot got into the output``
"""

# %%
# What was reported
# -----------------
# In 2023 vLLM's sampler failed on probabilities that were NaN. The attention kernel gave slots past the end of a
# sequence the weight 0, but multiplied the weight by whatever value was in the slot. The fix replaces those values by
# 0. In March 2026, the same fault was reported in FlashAttention 3 and 4.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# Scores end where the sequence ends, and later weights are 0. But the values are read to the end of the block.

WRONG = kernel("attention_block", "values past the end read")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# With blocks of 4, a sequence of 6 tokens has two :term:`stale slots <stale slot>`. One of 8 tokens has none.

pool = pn.BlockAllocator(num_blocks=4, block_size=4)
pool.add("ours", 6)


def attend(seq_len, stale):
    cache = np.full((4, 4, 1, 2), stale, np.float32)
    cache.reshape(16, 1, 2)[:seq_len] = 1  # every value is 1, so the output must be 1
    paged = np.ones((1, 1, 2), np.float32), cache, cache, [[0, 1, 2, 3]], [seq_len]
    return pn.paged_attention(*paged, algorithm="block", target="lockstep")[0, 0]


with installed(WRONG):
    for seq_len, stale in (6, 0.0), (6, np.nan), (8, np.nan):
        print(f"{seq_len} tokens, {stale} in stale slots: output {attend(seq_len, stale)}")
pn.draw.BlockTables.of(pool, title="Two stale slots").show("08_stale_tail.svg")

# %%
# The test that does not see it
# -----------------------------
# Its cache is new, full of zeros or of random numbers. Each of these times 0 is 0; NaN times 0 is not.


def their_test():
    for seq_len in range(1, 17):
        assert (attend(seq_len, stale=123.0) == 1).all()


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# It fills the cache with NaN before it writes the tokens, and draws the length.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(seq_len=st.integers(1, 16))
def our_test(seq_len):
    assert (attend(seq_len, np.nan) == 1).all(), "a stale slot got into the output"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: end the loop over the values where the sequence ends. All batches of ``tests/test_ops.py`` have NaN in free
# slots; :doc:`lesson 09 </lessons/09_ragged_batches>` shows a kernel with this fault.
#
# **In one sentence.** Fill memory that must not be read with NaN, which shows in every sum.
