"""
10 · Logarithms of two bases
============================

**Attention returns LSEs to base 2, and the merge takes them for natural logarithms. Heavy parts weigh too much.**

:Reported: `vLLM 52796 <https://github.com/vllm-project/vllm/pull/52796>`__, `SGLang 40903
  <https://github.com/sgl-project/sglang/issues/40903>`__
:Caught by: a property: attention to two parts, merged, is attention to the whole
:Its message: ``the suffix weighs 0.9930, must weigh 0.9688``
"""

# %%
# What was reported
# -----------------
# FlashInfer's kernels return LSEs to base 2. Until August 2026 vLLM merged some of them as natural logarithms: a
# prompt gave other results if its prefix was in the cache, and in the end the model repeated itself. In SGLang, the
# newest tokens of a conversation got about a fifth of their weight.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# The :term:`LSE` is larger by the factor ``log2(e)``. To base 2 it is right, and nothing in it names the base.

WRONG = kernel("attention_naive", "LSE in base 2")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# A prefix of 30 tokens and a suffix of 2, all with the same score. The values of the prefix are 0 and those of the
# suffix 1, so the output is the weight of the suffix: 2 of 32. The picture computes weights as the merge does.

query, key = np.zeros((1, 1, 4), np.float32), np.zeros((32, 1, 4), np.float32)


def attend_in_parts(cut):
    value, states = key + (np.arange(32) >= cut)[:, None, None].astype(np.float32), []
    for part in (slice(cut), slice(cut, None)):
        paged = query, key[None, part], value[None, part], [[0]], [len(key[part])]
        states += pn.paged_attention(*paged, return_lse=True, algorithm="naive", target="lockstep")
    return states, pn.merge_states(*states, target="lockstep")[0][0, 0, 0]


with installed(WRONG):
    (_, lse, _, suffix_lse), weight = attend_in_parts(30)
print(f"the suffix weighs {weight:.4f}, must weigh {2 / 32:.4f}")
pn.draw.Splits([0, 30], 32, [lse[0, 0], suffix_lse[0, 0]], title="LSEs to base 2").show("10_lse_base.svg")

# %%
# The test that does not see it
# -----------------------------
# It looks at the output of each part.


def their_test():
    prefix, _, suffix, _ = attend_in_parts(30)[0]
    assert (prefix[0, 0, 0], suffix[0, 0, 0]) == (0, 1)


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# It merges the parts and compares with the whole. Hypothesis draws where to cut.


@settings(derandomize=True, deadline=None, max_examples=20, phases=(Phase.generate, Phase.shrink))
@given(cut=st.integers(1, 31))
def our_test(cut):
    (_, weight), right = attend_in_parts(cut), (32 - cut) / 32
    assert abs(weight - right) < 1e-4, f"the suffix weighs {weight:.4f}, must weigh {right:.4f}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: one base, named in the docstring of each function that returns or takes LSEs. ``tests/test_ops.py``
# compares each LSE with the oracle's; :doc:`lesson 12 </lessons/12_split_and_merge>` explains the merge.
#
# **In one sentence.** If one kernel's result is another's input, test both together.
