"""
18 · Copy-on-write forgotten
============================

**Two sequences share a block that is not full, both write their next token into it, and one of them loses its own.**

:Reported: `Atlas 1193 <https://github.com/Avarok-Cybersecurity/atlas/issues/1193>`__,
  `vLLM 55112 <https://github.com/vllm-project/vllm/pull/55112>`__
:Caught by: a property that lets the sequences differ
:Its message: ``the parent holds the child's token``
"""

# %%
# What was reported
# -----------------
# In the Atlas engine, a prefix cache gave the last block of a prompt, which was not yet full, to a second sequence
# while the first went on writing into it. Nothing copied the block. As long as the sequences wrote the same tokens,
# the output was right. When they differed, none of four answers was right, and three were the same wrong text. A
# similar report, of September 2026, is about vLLM, which did copy the block, but for one model only the first 706 of
# its 5,760 tokens.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.allocators import CopyOnWriteForgotten

# %%
# The fault
# ---------
# ``append`` may write into a block that has one owner, and must copy a shared one first. The wrong allocator sets the
# reference counts of the sequence's blocks to one while ``append`` runs.

WRONG = CopyOnWriteForgotten
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The parent has 6 tokens in blocks of 4. The parent's next token is 7, and the child's is 8.


def tokens(*numbers):
    return np.repeat(np.array(numbers, np.float32), 8).reshape(-1, 1, 8)


def keys_after_a_fork(length, of_parent, of_child):
    cache = pn.PagedKVCache(num_blocks=8, block_size=4, num_kv_heads=1, head_dim=8, target="lockstep")
    cache.add("parent", *[tokens(*range(length))] * 2)
    cache.fork("parent", "child")
    for name, token in ("parent", of_parent), ("child", of_child):
        cache.append(name, *[tokens(token)] * 2)
    return cache, [cache.gather(name)[0][:, 0, 0].tolist() for name in ("parent", "child")]


with installed(WRONG):
    cache, (parent, child) = keys_after_a_fork(length=6, of_parent=7, of_child=8)
print("parent", parent, "\nchild ", child)
pn.draw.BlockTables.of(cache.allocator, title="Block 1 has two writers").show("18_writers.svg")

# %%
# The test that does not see it
# -----------------------------
# It decodes greedily, so both sequences go on with the same token, and it does not matter which of them wrote it.


def their_test():
    _, (parent, child) = keys_after_a_fork(length=6, of_parent=7, of_child=7)
    assert parent == child == [0, 1, 2, 3, 4, 5, 7]


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------


@settings(derandomize=True, deadline=None, max_examples=20, phases=(Phase.generate, Phase.shrink))
@given(length=st.integers(1, 9), of_parent=st.integers(0, 9), of_child=st.integers(0, 9))
def our_test(length, of_parent, of_child):
    _, (parent, child) = keys_after_a_fork(length, of_parent, of_child)
    assert parent == [*range(length), of_parent], f"the parent holds the child's token: {parent}"
    assert child == [*range(length), of_child]


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: before a sequence writes into a block that has other owners, it gets a copy, as :doc:`lesson 14
# </lessons/14_share_and_copy>` shows. ``tests/test_mutants.py`` runs the whole cache on this allocator, and attention
# notices.
#
# **In one sentence.** Sequences that share memory must differ in the test, or the test cannot tell them apart.
