"""
25 · Values that came back as keys
==================================

**A sequence is moved to host memory and back, and the values of its tokens are not what they were.**

:Reported: `LMCache 4463 <https://github.com/LMCache/LMCache/issues/4463>`__
:Caught by: a property that compares keys and values bit for bit, with and without the prefix cache
:Its message: ``the values changed``
"""

# %%
# What was reported
# -----------------
# In August 2026 requests that LMCache served from host memory got wrong answers, with no error. vLLM had begun to store
# the key and the value of a head in one row; the connector still moved keys and values as two arrays, took half of the
# row for its length, and the values did not survive the trip. The reporter warns that vLLM's own prefix cache must be
# off to see it. Our exhibit is simpler: it restores the keys in both places.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.caches import SwapMixesKeysAndValues

# %%
# The fault
# ---------
# ``swap_out`` keeps a pair of arrays for each layer. The wrong cache keeps the first array of each pair twice.

WRONG = SwapMixesKeysAndValues
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Keys count from 0, values from 100.


def after_a_trip(length, prefix_caching):
    cache = pn.PagedKVCache(
        8, block_size=4, num_kv_heads=1, head_dim=8, prefix_caching=prefix_caching, target="lockstep"
    )
    key = np.repeat(np.arange(length, dtype=np.float32), 8).reshape(length, 1, 8)
    cache.add("a", key, key + 100, range(length))
    cache.swap_out("a")
    cache.swap_in("a")
    return [array[:, 0, 0].tolist() for array in cache.gather("a")]


with installed(WRONG):
    keys, values = after_a_trip(4, prefix_caching=False)
print("keys  ", keys, "\nvalues", values)

# %%
# The test that does not see it
# -----------------------------
# It has the prefix cache on, as users do. The blocks are found on the way back, and nothing is restored.


def their_test():
    assert after_a_trip(8, prefix_caching=True) == [[*range(8)], [*range(100, 108)]]


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------


@settings(derandomize=True, deadline=None, max_examples=20, phases=(Phase.generate, Phase.shrink))
@given(length=st.integers(1, 12), prefix_caching=st.booleans())
def our_test(length, prefix_caching):
    keys, values = after_a_trip(length, prefix_caching)
    assert keys == [*range(length)]
    assert values == [*range(100, 100 + length)], f"the values changed: {values}"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: keep the pair that was gathered. ``tests/test_mutants.py`` hunts three such caches; :doc:`lesson 15
# </lessons/15_server>` says when to swap and when to compute again.
#
# **In one sentence.** A cache before the code under test hides it: test with the cache off, too.
