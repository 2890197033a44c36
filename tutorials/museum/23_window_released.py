"""
23 · Released too early
=======================

**A block is given back although the last token still sees its last key through the window.**

:Reported: `SGLang 8649 <https://github.com/sgl-project/sglang/issues/8649>`__
:Caught by: a property over lengths and windows that are no multiples of the block size
:Its message: ``positions that the last token sees are released``
"""

# %%
# What was reported
# -----------------
# With a sliding window, tokens that nobody sees any more give their memory back. In August 2025 a user of SGLang found
# that, without the radix cache, eviction went by the size of the attention chunk and not by the window. Tokens inside
# the window were evicted early, and accuracy fell. Our exhibit is a neighbour: it is early by one token.

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.allocators import ReleasesTooMuch

# %%
# The fault
# ---------
# A window of 4 is a token and the 3 before it. The wrong allocator counts it from the next token, which leaves 3.
# Memory is given back in whole blocks, so mostly the same blocks go.

WRONG = ReleasesTooMuch
Difference.of(WRONG).show()

# %%
# How it shows
# ------------


def released(length, window):
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add("a", length)
    pool.release("a", window)
    return pool.num_released_tokens("a")


with installed(WRONG):
    for length in range(6, 10):
        print(f"{length} tokens: the last sees from {length - 4} on, held from {released(length, 4)} on")

# %%
# With 7 tokens, position 3 is seen and its block is gone: a kernel that goes by the table reads a block of somebody
# else. With the other lengths nothing is wrong.
#
# The test that does not see it
# -----------------------------
# Length and window are multiples of the block size, so the window begins where a block begins. One position further
# on is in the same block.


def their_test():
    for length in (8, 16, 24):
        for window in (4, 8):
            assert released(length, window) == length - window


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(length=st.integers(1, 32), window=st.integers(1, 16))
def our_test(length, window):
    seen_from = max(0, length - window)
    lost = released(length, window) - seen_from
    assert lost <= 0, f"{lost} positions that the last token sees are released"
    assert released(length, window) == seen_from // 4 * 4


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: the last token at position ``p`` sees from ``p - window + 1`` on; blocks that end before it may go. The state
# machine of ``tests/test_mutants.py`` attends after each release; :doc:`lesson 13 </lessons/13_prefill>` has windows.
#
# **In one sentence.** Whatever is rounded to blocks hides an error of one token, except at one offset in each block.
