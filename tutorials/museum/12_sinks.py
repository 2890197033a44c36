"""
12 · A sink for every split
===========================

**Each split adds the sink to the denominator, where it belongs once. The more splits, the smaller the output.**

:Reported: `ROCm 12227 <https://github.com/ROCm/rocm-libraries/issues/12227>`__
:Caught by: a property: the number of splits changes nothing
:Its message: ``2 splits give 0.9697, one gives 0.9846``
"""

# %%
# What was reported
# -----------------
# A sink is a score without a value. It takes weight from the keys, whose weights then add up to less than 1. A report
# of September 2026 says that AMD's Composable Kernel may count the sink twice: if a mask leaves the first split
# without keys, that split adds the sink, and so does the first split that has keys.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# The line that adds the sink has moved into the loop over the splits. In the report, at most two splits add it.

WRONG = kernel("merge_splits", "sink counted once a split")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# 64 keys and the sink all have score 0, and every value is 1: the output must be 64 / 65.


def attend(num_splits, sink=0.0):
    cache, query = np.ones((4, 16, 1, 4), np.float32), np.zeros((1, 1, 4), np.float32)
    paged, sinks = (query, cache, cache, [[0, 1, 2, 3]], [64]), None if sink is None else [sink]
    out = pn.paged_attention(*paged, sinks=sinks, algorithm="split", num_splits=num_splits, target="lockstep")
    return out[0, 0, 0]


with installed(WRONG):
    for num_splits in (1, 2, 4):
        out = attend(num_splits)
        print(f"splits: {num_splits}, output {out:.4f} = 64 / {64 / out:.0f}, must be {64 / 65:.4f}")

# %%
# The test that does not see it
# -----------------------------
# There are two such tests: one has a sink and a single split, the other has several splits and no sink.


def their_test():
    np.testing.assert_allclose(attend(num_splits=1), 64 / 65, rtol=1e-5)
    np.testing.assert_allclose(attend(num_splits=4, sink=None), 1, rtol=1e-5)


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws the sink and the number of splits. A single split serves as the oracle.


@settings(derandomize=True, deadline=None, max_examples=30, phases=(Phase.generate, Phase.shrink))
@given(num_splits=st.integers(1, 4), sink=st.sampled_from((None, 0.0, 5.0)))
def our_test(num_splits, sink):
    one, several = attend(1, sink), attend(num_splits, sink)
    assert abs(one - several) < 1e-5, f"{num_splits} splits give {several:.4f}, one gives {one:.4f}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: the merge adds the sink, once. ``tests/test_laws.py`` holds our kernels to this property; :doc:`lesson 12
# </lessons/12_split_and_merge>` splits and merges.
#
# **In one sentence.** Test options together, not only one at a time.
