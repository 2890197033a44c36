"""
15 · A table too short
======================

**A request gets more blocks than its row of the block table holds. The last one ends up in another request's row.**

:Reported: `vLLM 10730 <https://github.com/vllm-project/vllm/pull/10730>`__
:Caught by: a property over lengths up to the longest allowed
:Its message: ``request 1 lost a block``
"""

# %%
# What was reported
# -----------------
# vLLM keeps the block tables of a batch as one array, with a row of fixed width for each request: the longest allowed
# length, divided by the block size. In November 2024 a maintainer found that the new cache manager, which took blocks
# ahead of need, could give a request more than that, and limited it. Our exhibit takes one ahead by wrong rounding.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.allocators import BoundaryOffByOne

# %%
# The fault
# ---------
# Rounding up is easily written as "divide and add one". That is a block too many when the tokens fill their blocks.
# Nobody notices a block that is never used, until a request is as long as the table is wide.

WRONG = BoundaryOffByOne
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Two requests, at most 16 tokens each, in blocks of 4. As on a GPU, a row is written where it begins, and nothing
# checks where it ends. There, rows are written in any order; here, row 0 is the last.


def rows_after(*lengths, longest=16):
    pool, width = pn.BlockAllocator(num_blocks=16, block_size=4), longest // 4
    rows = np.full((3, width), -1)  # a third request has not come yet
    for request, length in reversed([*enumerate(lengths)]):
        pool.add(request, length)
        table = pool.block_table(request)
        rows.reshape(-1)[request * width :][: len(table)] = table
    return pool, rows


with installed(WRONG):
    pool, rows = rows_after(16, 9)
    print("the pool's table of request 1:", pool.block_table(1), "\nthe rows of the array:", rows, sep="\n")

# %%
# Row 1 begins with a block of request 0: attention for request 1 reads the keys of a stranger.
#
# The test that does not see it
# -----------------------------
# Its lengths are 6 and 9: no multiple of the block size, and far from the longest.


def their_test():
    pool, rows = rows_after(6, 9)
    assert [*rows[0, :2], *rows[1, :3]] == [*pool.block_table(0), *pool.block_table(1)]


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------


@settings(derandomize=True, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(lengths=st.tuples(st.integers(1, 16), st.integers(1, 16)))
def our_test(lengths):
    pool, rows = rows_after(*lengths)
    assert rows[1, 0] == pool.block_table(1)[0], "request 1 lost a block"


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: round up with ``-(-tokens // block_size)``. The state machine of ``tests/test_mutants.py`` compares how many
# blocks each call takes; :doc:`lesson 04 </lessons/04_page_table>` builds block tables.
#
# **In one sentence.** A limit is an input to test: draw lengths up to the longest that is allowed, and that one.
