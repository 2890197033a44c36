"""
14 · A scale that is dropped
============================

**Values are divided by a scale to fit into 8 bits. The kernel does not multiply by it again.**

:Reported: `FlashInfer 4979 <https://github.com/flashinfer-ai/flashinfer/issues/4979>`__, `FlashInfer 1023
  <https://github.com/flashinfer-ai/flashinfer/issues/1023>`__
:Caught by: a property over scales other than 1
:Its message: ``with scale 0.5, the output is 2.0 times too large``
"""

# %%
# What was reported
# -----------------
# In April 2025 a user of FlashInfer found that the scales of an fp8 cache had no effect on the output of a prefill
# function. In September 2026 another prefill function was found to ignore them, although they were documented: with
# scales of 0.25 for keys and 0.5 for values, the output was about 7.5 times that of a 16-bit cache.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# The range of fp8 is small, so values are stored divided by a scale. The kernel gets the scale as an argument.

WRONG = kernel("attention_naive", "scale of the values forgotten")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Every value is 3, so the output must be 3. What comes out is the stored number.


def attend(value, scale):
    key, query = np.zeros((1, 8, 1, 16), np.float32), np.zeros((1, 1, 16), np.float32)
    keys, values = (pn.quantize_fp8(array, s) for array, s in ((key, 1.0), (np.full_like(key, value), scale)))
    options = {"v_scale": scale, "algorithm": "naive", "target": "lockstep"}
    return pn.paged_attention(query, keys, values, [[0]], [8], **options)[0, 0, 0]


with installed(WRONG):
    for scale in (1.0, 0.5, 2.0):
        print(f"scale {scale}: output {attend(3.0, scale)}")

# %%
# The test that does not see it
# -----------------------------
# Its scale is 1, since its values fit as they are.


def their_test():
    assert attend(3.0, scale=1.0) == 3


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws the scale: a power of two, with which these values are stored exactly.


@settings(derandomize=True, deadline=None, max_examples=20, phases=(Phase.generate, Phase.shrink))
@given(scale=st.sampled_from((1.0, 0.5, 0.25, 2.0, 8.0)), value=st.integers(1, 15))
def our_test(scale, value):
    out = attend(value, scale)
    assert out == value, f"with scale {scale}, the output is {out / value} times too large"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: multiply the output by the scale of the values, and scores by that of the keys. ``tests/test_ops.py`` draws
# both; :doc:`lesson 03 </lessons/03_bound_by_memory>` explains what fewer bytes are worth.
#
# **In one sentence.** Test a factor with numbers other than 1.
