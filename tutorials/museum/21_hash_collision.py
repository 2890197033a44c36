"""
21 · Two prompts, one hash
==========================

**The prefix cache compares hashes instead of tokens, and serves the keys and values of another prompt.**

:Reported: `OpenVINO GenAI 3722 <https://github.com/openvinotoolkit/openvino.genai/issues/3722>`__,
  `vLLM 12621 <https://github.com/vllm-project/vllm/pull/12621>`__
:Caught by: a property with few different tokens, so that prompts are nearly alike
:Its message: ``tokens of another prompt``
"""

# %%
# What was reported
# -----------------
# In OpenVINO GenAI a cached block stored its hash and not its tokens: if two texts ever had the same hash, the second
# would get the block of the first, with no error. vLLM used Python's own ``hash``. Since Python 3.12 the hash of None,
# with which each chain began, is a constant, so that somebody could prepare a collision. In January 2025 a change made
# the beginning random again; today vLLM uses SHA-256.

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.prefixes import HashCollides

# %%
# The fault
# ---------
# Collisions of a good hash are too rare for an exhibit. This cache makes the same mistake with a hash of 8 bits, the
# sum of all bytes: texts of the same letters collide.

WRONG = HashCollides
Difference.of(WRONG).show()

# %%
# How it shows
# ------------


def served(first, second):
    pool = pn.BlockAllocator(num_blocks=16, block_size=4, prefix_caching=True)
    pool.add("first", first)
    pool.commit("first")
    return pool.add("second", second).num_cached_tokens


with installed(WRONG):
    print(served(b"live now!", b"evil now!"), "tokens of 'live now!' are served for 'evil now!'")
print(served(b"live now!", b"evil now!"), "are served by the right cache")

# %%
# The test that does not see it
# -----------------------------
# It sends the same prompt twice, and another that has nothing in common with it. Such texts seldom collide.


def their_test():
    assert served(b"once upon a time", b"once upon a time") == 12
    assert served(b"once upon a time", b"in the beginning") == 0


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# With two different tokens there are only 16 possible blocks of 4, and many have the same sum.

prompts = st.lists(st.integers(0, 1), min_size=5, max_size=5)


@settings(derandomize=True, deadline=None, max_examples=50, phases=(Phase.generate, Phase.shrink))
@given(first=prompts, second=prompts)
def our_test(first, second):
    count = served(first, second)
    assert first[:count] == second[:count], f"{count} tokens of another prompt were served"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: compare the tokens, or a hash that nobody can make collide. Ours compares tokens: ``tests/test_mutants.py``
# and ``tests/test_traps_allocator.py`` hold it to that. :doc:`Lesson 14 </lessons/14_share_and_copy>` has the cache.
#
# **In one sentence.** Draw from few values: then inputs are alike by chance, and what must differ differs by little.
