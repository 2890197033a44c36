"""
09 · A view taken for an array
==============================

**Keys and values alternate in one array, block by block. Code that ignores the strides reads other blocks.**

:Reported: `AITER 3498 <https://github.com/ROCm/aiter/pull/3498>`__, `vllm-xpu-kernels 258
  <https://github.com/vllm-project/vllm-xpu-kernels/pull/258>`__
:Caught by: a property: a view gives what a copy of it gives
:Its message: ``(-10, 11) was read from block 1``
"""

# %%
# What was reported
# -----------------
# For some models, vLLM keeps the keys and values of a block side by side in one array, and passes kernels a view of
# the keys and a view of the values. AITER's decode kernel computed where a block begins from the block size and the
# stride of a token, but in such a view blocks are twice as far apart. The fix, in June 2026, lowered the largest
# error from 6.3 to 0.09. vLLM's attention kernel for Intel GPUs had to be fixed for the same layout.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.plans import PLAN_MUTANTS

# %%
# The fault
# ---------
# Numba's arrays know their strides, so this fault is not in a kernel. It is in the code that prepares the launch:
# this function changes the result of ``caches`` and gives both caches the strides of a contiguous array.

(WRONG,) = (mutant for mutant in PLAN_MUTANTS if mutant.name == "views taken for contiguous arrays")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The keys of block b are 10 + b, and its values are the negative of that. For the keys of block 1, the wrong code
# goes one block ahead in memory, to the values of block 0.


def read(block, num_blocks, interleaved):
    numbers = 10 + np.arange(num_blocks, dtype=np.float32)[:, None, None, None]
    both = np.broadcast_to(np.stack([numbers, -numbers], axis=1), (num_blocks, 2, 4, 1, 2)).copy()
    caches = (both[:, 0], both[:, 1]) if interleaved else (both[:, 0].copy(), both[:, 1].copy())
    key, value = pn.gather_kv(*caches, [block], 1, target="lockstep")
    return int(key[0, 0, 0]), int(value[0, 0, 0])


with installed(WRONG):
    for block in range(4):
        print(f"block {block}: key and value read", *read(block, 4, interleaved=True))

# %%
# The test that does not see it
# -----------------------------
# It keeps the keys in one array and the values in another.


def their_test():
    for block in range(4):
        assert read(block, 4, interleaved=False) == (10 + block, -10 - block)


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws whether the caches are views.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(block=st.integers(0, 7), interleaved=st.booleans())
def our_test(block, interleaved):
    found = read(block, 8, interleaved)
    assert found == (10 + block, -10 - block), f"{found} was read from block {block}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: use the strides of the array. ``tests/test_ops.py`` also draws the layout HND, which kernels get as a view
# of this kind; :doc:`lesson 10 </lessons/10_layout_decides_traffic>` compares layouts.
#
# **In one sentence.** A shape does not say where the elements are: test with views into a larger array.
