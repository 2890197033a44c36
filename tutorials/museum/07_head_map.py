"""
07 · The wrong KV head
======================

**Query heads are assigned to KV heads in turn, not in groups. Many of them attend to the wrong keys.**

:Reported: `ONNX 7274 <https://github.com/onnx/onnx/pull/7274>`__, `jax-js 180
  <https://github.com/ekzhang/jax-js/pull/180>`__
:Caught by: a property over numbers of heads
:Its message: ``query heads [1, 2] read another KV head``
"""

# %%
# What was reported
# -----------------
# With grouped queries, neighbouring query heads share a KV head. ONNX had defined its attention operator with KV
# heads in turn, 0, 1, 0, 1, where PyTorch has 0, 0, 1, 1; a pull request of September 2025 corrects that. In August
# 2026 the author of jax-js fixed the same in his library, and noted that grouped queries had not been tested enough.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paged_numba import kernels, lockstep
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# A remainder in place of a quotient. Either gives each KV head the same number of query heads.

WRONG = kernel("attention_textbook", "heads interleaved, not grouped")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The value of each KV head is its number, so the output of a query head says which KV head it has read.


def kv_heads_read(num_q_heads, num_kv_heads):
    out, query = np.zeros((2, 1, num_q_heads, 4), np.float32)
    value = np.broadcast_to(np.arange(num_kv_heads, dtype=np.float32)[:, None], (1, 1, num_kv_heads, 4))
    table, seq_lens = np.zeros((1, 1), np.int32), np.ones(1, np.int32)
    arguments = out, query, value, value, table, seq_lens, 0.5
    lockstep.launch(kernels.attention_textbook_kernel, 1, num_q_heads, *arguments)
    return out[0, :, 0].astype(int).tolist()


with installed(WRONG):
    print("read  ", *kv_heads_read(8, 2))
print("right ", *kv_heads_read(8, 2))

# %%
# The test that does not see it
# -----------------------------
# It has as many KV heads as query heads, or a single KV head. In both cases the two maps are the same.


def their_test():
    assert kv_heads_read(8, 8) == [*range(8)]
    assert kv_heads_read(8, 1) == [0] * 8


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws the number of KV heads, and of query heads for each.


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(num_kv_heads=st.integers(1, 4), group=st.integers(1, 4))
def our_test(num_kv_heads, group):
    read = kv_heads_read(num_kv_heads * group, num_kv_heads)
    strange = [head for head, kv_head in enumerate(read) if kv_head != head // group]
    assert not strange, f"query heads {strange} read another KV head"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: divide by the number of query heads in a group. ``tests/test_textbook.py`` draws the numbers of heads;
# :doc:`lesson 09 </lessons/09_ragged_batches>` explains the head map.
#
# **In one sentence.** If two sizes may be equal, test with sizes that differ from each other and from 1.
