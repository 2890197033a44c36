"""
05 · The soft cap before the scale
==================================

**Scores are capped before they are scaled. The cap acts too early, and high scores become nearly equal.**

:Reported: `TRL 5691 <https://github.com/huggingface/trl/pull/5691>`__, `FlashInfer 350
  <https://github.com/flashinfer-ai/flashinfer/pull/350>`__
:Caught by: a property over scores and caps
:Its message: ``differ from the oracle``
"""

# %%
# What was reported
# -----------------
# Gemma 2 caps scores, ``cap * tanh(score / cap)``, after the scale and before the mask. In July 2024 FlashInfer's
# decode kernel was fixed, which capped after the mask. In May 2026 a review of a change to TRL found that the logits of
# a model were capped before they were scaled. We know of no report of an attention kernel that caps before the scale:
# this exhibit has TRL's fault in one.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# The scale is applied to the result of the cap, not to what is capped.

WRONG = kernel("attention_naive", "soft cap before scale")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# One query and two keys, with dot products of 40 and 80. The scale is an eighth, so both scores are below the cap of
# 20. The wrong kernel caps 40 and 80: both come out near 20, and remain nearly equal when they are scaled. The values
# are rows of the identity matrix, which makes the output the weights of the keys.


def weights(products, softcap):
    n = len(products)
    query, key, value = np.zeros((1, 1, 64), np.float32), *np.zeros((2, n, 1, 64), np.float32)
    query[0, 0, 0], key[:, 0, 0], value[:, 0] = 1, products, np.eye(n, 64)
    options = {"softcap": softcap, "algorithm": "naive", "target": "lockstep"}
    ours = pn.paged_attention(query, key[None], value[None], [[0]], [n], **options)
    right = pn.reference.attention(query, key, value, softcap=softcap)
    return ours[0, 0, :n].round(3), right[0, 0, :n].round(3)


with installed(WRONG):
    print("wrong {}, right {}".format(*weights([40, 80], 20)))

# %%
# The test that does not see it
# -----------------------------
# Its numbers are small and its cap is that of the model, 50. Near 0, ``tanh(x)`` is ``x``, and nothing is capped.


def their_test():
    np.testing.assert_allclose(*weights([0.3, -0.5, 1.2, 0.1], 50), atol=0.002)


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws dot products on both sides of the cap.


@settings(derandomize=True, deadline=None, max_examples=20, phases=(Phase.generate, Phase.shrink))
@given(products=st.lists(st.integers(-400, 400), min_size=2, max_size=4), softcap=st.sampled_from((50, 1)))
def our_test(products, softcap):
    ours, right = weights(products, softcap)
    assert abs(ours - right).max() < 0.002, f"weights {ours} differ from the oracle's {right}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: scale, then cap. ``tests/test_ops.py`` draws caps among all options; :doc:`lesson 08
# </lessons/08_online_softmax>` turns scores into weights.
#
# **In one sentence.** An operation that does nothing to small numbers needs a test with large ones.
