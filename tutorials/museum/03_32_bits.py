"""
03 · A place that does not fit into 32 bits
===========================================

**In a large cache, a block may begin so far in that 32 bits cannot say where. The kernel reads another block.**

:Reported: `vLLM 1486 <https://github.com/vllm-project/vllm/issues/1486>`__, `vLLM 47671
  <https://github.com/vllm-project/vllm/pull/47671>`__
:Caught by: a property over the size of the cache; the sanitizer, as an integer overflow
:Its message: ``block 32768 is asked for, 1 is read``
"""

# %%
# What was reported
# -----------------
# In October 2023 a user of vLLM raised the number of blocks in the project's own kernel tests to 64,000. One failed,
# another ended with an illegal memory access: places were computed in 32 bits. In July 2026 the fault was found in a
# newer kernel, which crashed from block 7,767 or so on.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paged_numba import kernels, lockstep
from paged_numba.testing import properties
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# Numba indexes with ``int64``. The wrong kernel computes by itself where a block begins, counted in numbers.

WRONG = kernel("attention_textbook", "place of a block in 32 bits")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# This cache is a view: in block b, every number is b. A block has 16 tokens of 32 heads of 128 dimensions, which is
# ``2**16`` numbers. Attention to a single token returns its value, and so says which block was read. Block 32,768
# begins at ``2**31``, which as 32 bits is negative: the block is counted from the end.

SIZES = 16, 32, 128


def block_read(block):
    cache = np.broadcast_to(np.arange(40_000, dtype=np.float32)[:, None, None, None], (40_000, *SIZES))
    out, query = np.zeros((2, 1, 32, 128), np.float32)
    of_one_token = np.array([[block]], np.int32), np.ones(1, np.int32)
    lockstep.launch(kernels.attention_textbook_kernel, 1, 32, out, query, cache, cache, *of_one_token, 1.0)
    return int(out[0, 0, 0])


with installed(WRONG):
    for block in (3, 32_767, 32_768):
        print(f"block {block:6,} is asked for, {block_read(block):6,} is read")

# %%
# The test that does not see it
# -----------------------------
# It has few blocks, so that it is quick and fits on a small GPU.


def their_test():
    assert all(block_read(block) == block for block in range(0, 1000, 100))


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# The property draws the number of blocks, and asks for the last one. Such a view takes no memory.


@settings(derandomize=True, database=None, phases=(Phase.generate, Phase.shrink))
@given(num_blocks=st.integers(1, 2**18))
def our_test(num_blocks):
    properties.a_block_far_into_the_cache_is_found(num_blocks, SIZES, "lockstep")


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: multiply as ``int64``. The sanitizer, too, reports the cast. ``tests/test_mutants.py`` runs the property;
# :doc:`lesson 06 </lessons/06_right_before_fast>` looks up blocks.
#
# **In one sentence.** A test needs no memory to have a large array: a view of a few numbers has any size.
