"""
06 · ALiBi, off by one
======================

**Every distance is off by one. The output is right all the same, but the LSE is not.**

:Reported: `vLLM 945 <https://github.com/vllm-project/vllm/pull/945>`__
:Caught by: a property of the LSE
:Its message: ``the LSE is -1.5567, must be -1.3067``
"""

# %%
# What was reported
# -----------------
# In September 2023 a user of vLLM noticed that the paged kernel took the distance from a token to itself for -1, and
# that a model's outputs differed from PyTorch's. A maintainer replied that both are mathematically the same: he saw
# equal outputs in float32, though not quite in float16. The kernel was changed.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# ALiBi adds slope times distance to a score. The distance is the key's position minus the query's.

WRONG = kernel("attention_warp", "ALiBi off by one")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Each score is lower by the slope, and so is the :term:`LSE`. The output is right, since softmax divides by a smaller
# sum. With a sink it is wrong, too: the score of the sink is not lowered.


def attend(seq_len, slope, sinks=None):
    rng = np.random.default_rng(6)
    query, key, value = (rng.standard_normal((n, 1, 8), dtype=np.float32) for n in (1, seq_len, seq_len))
    options = {"alibi_slopes": [slope], "sinks": sinks, "return_lse": True}
    right = pn.reference.attention(query, key, value, **options)
    options |= {"algorithm": "warp", "target": "lockstep"}
    ours = pn.paged_attention(query, key[None], value[None], [[0]], [seq_len], **options)
    return ours[0][0, 0, 0], right[0][0, 0, 0], ours[1][0, 0], right[1][0, 0]


with installed(WRONG):
    for sinks in None, [1.0]:
        text = f"sinks {sinks}: output {{:.4f}}, right {{:.4f}}; LSE {{:.4f}}, right {{:.4f}}"
        print(text.format(*attend(12, 0.5, sinks)))

# %%
# The test that does not see it
# -----------------------------
# It compares outputs, and has no sinks.


def their_test():
    ours, right, *_ = attend(100, slope=0.5)
    assert abs(ours - right) < 1e-5


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# It compares LSEs, by which a merge weighs its parts.


@settings(derandomize=True, deadline=None, max_examples=30, phases=(Phase.generate, Phase.shrink))
@given(seq_len=st.integers(1, 20), slope=st.sampled_from((0, 0.25, 1)))
def our_test(seq_len, slope):
    _, _, ours, right = attend(seq_len, slope)
    assert abs(ours - right) < 1e-4, f"the LSE is {ours:.4f}, must be {right:.4f}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: the difference, nothing added. ``tests/test_ops.py`` compares outputs and LSEs; in :doc:`lesson 12
# </lessons/12_split_and_merge>`, a merge depends on the latter.
#
# **In one sentence.** Softmax hides any number that is added to all scores: test everything that a kernel returns.
