"""
11 · Minus infinity minus minus infinity
========================================

**Two parts without keys are merged. The larger LSE is -inf, and -inf minus -inf is NaN.**

:Reported: `FlashInfer 4051 <https://github.com/flashinfer-ai/flashinfer/issues/4051>`__, `vLLM 28181
  <https://github.com/vllm-project/vllm/pull/28181>`__
:Caught by: a property over LSEs, -inf among them
:Its message: ``merging LSEs -inf and -inf gives nan``
"""

# %%
# What was reported
# -----------------
# Attention to no keys has an LSE of minus infinity. In November 2025 vLLM's merge kernel was fixed for a prefix and a
# suffix that are both empty. In July 2026 it was reported that FlashInfer's merge of two such states gives NaN, which
# later merges spread.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# The larger LSE is subtracted from both, so that ``exp`` does not overflow. It may itself be minus infinity.

WRONG = kernel("merge_states", "-inf less -inf")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# One part has output 1, the other 2.


def merge(lse_a, lse_b):
    parts = []
    for number, lse in (1, lse_a), (2, lse_b):
        parts += [np.full((1, 1, 4), number, np.float32), np.full((1, 1), lse, np.float32)]
    out, lse = pn.merge_states(*parts, target="lockstep")
    return float(out[0, 0, 0]), float(lse[0, 0])


with installed(WRONG):
    for lses in (3.0, 3.0), (3.0, -np.inf), (-np.inf, 3.0), (-np.inf, -np.inf):
        print("LSEs {:4} and {:4}: output {}, LSE {:.4f}".format(*lses, *merge(*lses)))

# %%
# The test that does not see it
# -----------------------------
# It has an empty suffix, then an empty prefix.


def their_test():
    assert merge(3.0, -np.inf) == (1, 3)
    assert merge(-np.inf, 3.0) == (2, 3)


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws the two LSEs independently, so both may be infinite.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(lse_a=st.just(-np.inf) | st.integers(-50, 50), lse_b=st.just(-np.inf) | st.integers(-50, 50))
def our_test(lse_a, lse_b):
    out, lse = merge(lse_a, lse_b)
    assert not np.isnan([out, lse]).any(), f"merging LSEs {lse_a} and {lse_b} gives {out}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: if an LSE is -inf, the weight is 0, without a subtraction. ``tests/test_laws.py`` merges empty parts;
# :doc:`lesson 12 </lessons/12_split_and_merge>` has an empty split.
#
# **In one sentence.** Test a special value in each argument, and in all arguments at once.
