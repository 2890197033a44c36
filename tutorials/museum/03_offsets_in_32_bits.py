"""
03 · Memory offsets of 32 bits
==============================

**In a large cache, the memory offset of a block does not fit into 32 bits. The kernel reads another block.**

:Reported: `vLLM 1486 <https://github.com/vllm-project/vllm/issues/1486>`__, `vLLM 50427
  <https://github.com/vllm-project/vllm/issues/50427>`__
:Caught by: a property over the size of the cache; the sanitizer, as an integer overflow
:Its message: ``block 32768 is asked for, 1 is read``
"""

# %%
# What was reported
# -----------------
# In October 2023, a user of vLLM raised the number of blocks in the project's own kernel tests to 64,000. One test
# failed and another accessed memory illegally: offsets were 32-bit integers. In July 2026, the same fault was
# reported in another kernel that vLLM uses. From a certain block on, the offset is negative. Either the kernel
# crashes, or there is memory at that address and the output is wrong without an error.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paged_numba import kernels, lockstep
from paged_numba.testing import properties
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# Numba computes addresses as ``int64``. The wrong kernel computes itself where a block begins, as ``int32``.

WRONG = kernel("attention_textbook", "memory offset in 32 bits")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# In this cache, all elements of block b are b. A block has 16 tokens, 32 KV heads and 128 dimensions: ``2**16``
# elements. Attention to a single token returns the value of that token, which shows which block was read. Block
# 32,768 begins at ``2**31``, which wraps to a negative number, and Numba counts a negative block from the end.

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
# It has few blocks, so it is quick and fits on any GPU.


def their_test():
    assert all(block_read(block) == block for block in range(0, 1000, 100))


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# The property draws the number of blocks and asks for the last one. The cache is a view, which takes no memory.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(num_blocks=st.integers(1, 2**18))
def our_test(num_blocks):
    properties.a_block_far_into_the_cache_is_found(num_blocks, SIZES, "lockstep")


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: multiply as ``int64``. The sanitizer also reports the cast and the negative index.
# ``tests/test_mutants.py`` runs the property; :doc:`lesson 06 </lessons/06_right_before_fast>` looks up blocks.
#
# **In one sentence.** A view of a few numbers can be an array of any size, so a test of large arrays needs hardly any
# memory.
