"""
19 · A prompt that fills its blocks
===================================

**A prompt that fills its blocks exactly, and is found whole in the prefix cache, leaves no token to compute.**

:Reported: `nano-vllm 114 <https://github.com/GeeeekExplorer/nano-vllm/issues/114>`__,
  `vLLM 11186 <https://github.com/vllm-project/vllm/pull/11186>`__
:Caught by: a property over lengths around the block size
:Its message: ``no token is left to compute``
"""

# %%
# What was reported
# -----------------
# In October 2025 a user of nano-vllm sent the same prompt 513 times. Its length was that of a cache block, and the
# engine died with an invalid launch configuration. The reporter's diagnosis: the prefix cache held all of the prompt,
# so the model got an input of no tokens. At these lengths vLLM computed the last token again, but it counted in whole
# blocks, and put the last block into the cache wrongly. In December 2024 it began to compute all of that block.

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.prefixes import WholePromptServed

# %%
# The fault
# ---------
# The first token of the answer comes from the last token of the prompt: at least that one must be computed. The wrong
# allocator asks for the blocks of a prompt as if more tokens followed, so its last block may be served, too.

WRONG = WholePromptServed
Difference.of(WRONG).show()

# %%
# How it shows
# ------------


def served(length):
    pool = pn.BlockAllocator(num_blocks=8, block_size=4, prefix_caching=True)
    pool.add("first", range(length))
    pool.commit("first")
    return pool.add("again", range(length)).num_cached_tokens


with installed(WRONG):
    for length in (7, 8, 9):
        print(f"{length} tokens: {served(length)} from the cache, {length - served(length)} left to compute")

# %%
# The test that does not see it
# -----------------------------
# Its prompt has 10 tokens. Of any length that is no multiple of the block size, the last block is not full, and only
# full blocks are served.


def their_test():
    assert served(10) == 8


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(length=st.integers(1, 20))
def our_test(length):
    assert served(length) < length, "no token is left to compute"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: the last token of a prompt does not count as found. ``tests/test_prefix_cache.py`` and the state machine of
# the prefix cache hold our allocator to it; :doc:`lesson 14 </lessons/14_share_and_copy>` shares prefixes.
#
# **In one sentence.** Test the multiples of the block size on purpose: random lengths seldom are one.
