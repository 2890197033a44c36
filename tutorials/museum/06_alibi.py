"""
06 · ALiBi, off by one
======================

**Every distance is one too long. The output is right all the same; what goes with it is not.**

:Reported: `vLLM 945 <https://github.com/vllm-project/vllm/pull/945>`__
:Caught by: a property of the LSE
:Its message: ``must be``
"""

# %%
# What was reported
# -----------------
# In September 2023 a user of vLLM noticed that the paged kernel took the distance of a token to itself for -1, and saw
# outputs of a model that were not PyTorch's. A maintainer answered that the two are mathematically the same; in float32
# he saw equal outputs, in float16 not quite. The kernel was changed.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# ALiBi adds a slope times the distance from the query to the key: 0 for the token itself, -1 for the one before it.

WRONG = kernel("attention_warp", "ALiBi off by one")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# With one more step, each score is lower by the slope. Softmax divides by a sum that is lower in the same way, so the
# output stays. The :term:`LSE`, the logarithm of that sum, does not, nor do the weights beside a sink, whose score has
# no distance.


def attend(seq_len, slope, sinks=None):
    rng = np.random.default_rng(6)
    query, key, value = (rng.standard_normal((n, 1, 8), dtype=np.float32) for n in (1, seq_len, seq_len))
    options = {"alibi_slopes": [slope], "sinks": sinks, "return_lse": True}
    paged, how = (query, key[None], value[None], [[0]], [seq_len]), {"algorithm": "warp", "target": "lockstep"}
    ours, right = pn.paged_attention(*paged, **options, **how), pn.reference.attention(query, key, value, **options)
    return ours[0][0, 0, 0], right[0][0, 0, 0], ours[1][0, 0], right[1][0, 0]


with installed(WRONG):
    print("output {:.4f}, right {:.4f}; LSE {:.4f}, right {:.4f}".format(*attend(12, slope=0.5)))
    print("output {:.4f}, right {:.4f} with a sink".format(*attend(12, slope=0.5, sinks=[1.0])[:2]))

# %%
# The test that does not see it
# -----------------------------
# It compares outputs.


def their_test():
    for seq_len in (1, 12, 100):
        ours, right, *_ = attend(seq_len, slope=0.5)
        np.testing.assert_allclose(ours, right, atol=1e-5)


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# It compares LSEs. Whoever merges attention to two parts of a sequence weighs them by these.


@settings(derandomize=True, database=None, max_examples=30, phases=(Phase.generate, Phase.shrink))
@given(seq_len=st.integers(1, 20), slope=st.sampled_from((0, 0.25, 1)))
def our_test(seq_len, slope):
    _, _, ours, right = attend(seq_len, slope)
    assert abs(ours - right) < 1e-4, f"the LSE is {ours:.4f}, must be {right:.4f}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: the key's position less the query's, nothing else. ``tests/test_ops.py`` compares outputs and LSEs;
# :doc:`lesson 12 </lessons/12_split_and_merge>` merges by them.
#
# **In one sentence.** Softmax forgives any number that is added to all scores, so test all that a kernel returns.
