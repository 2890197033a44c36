"""
06 · Right before fast
======================

**How does attention find keys and values that lie all over the pool?** A kernel can bring them together first, or
attention can follow the block table itself. You will see both give the right answer, two faults that some sequences
hide, and a first count of what a kernel moves: twelve times what it must.
"""

# %%
# Lesson 05 wrote tokens into blocks. Here ``batch`` does, for any lengths and block tables; it returns what attention
# must give and the arguments for a kernel. All other slots are NaN, "not a number", which shows in any sum.

import math

import numpy as np
from numba import float32

import paged_numba as pn
from paged_numba import cuda, lockstep


def batch(rng, seq_lens, block_size, tables):
    query = 3 * rng.standard_normal((len(seq_lens), 4, 32), dtype=np.float32)  # 4 heads, head_dim 32
    caches = np.full((2, tables.max() + 1, block_size, 4, 32), np.nan, np.float32)
    right = np.empty_like(query)
    for seq, seq_len in enumerate(seq_lens):
        dense, token = rng.standard_normal((2, seq_len, 4, 32), dtype=np.float32), np.arange(seq_len)
        caches[:, tables[seq, token // block_size], token % block_size] = dense
        right[seq] = pn.reference.attention(query[seq : seq + 1], *dense)[0]
    return right, (query, *caches, tables, np.array(seq_lens, np.int32))


tables, rng = np.array([[0, 1, 0, 0], [4, 2, 0, 0], [7, 3, 9, 5]], np.int32), np.random.default_rng(6)
right, paged = batch(rng, [5, 8, 13], 4, tables)
query, key_cache, value_cache, _, seq_lens = paged

# %%
# Together first
# --------------
# To :term:`gather` is to undo the scatter. A thread block takes a token of the sequence, and its thread (x, y) copies
# dimension x of head y to a dense array. From there dense attention goes on, here the oracle.


@cuda.jit
def gather(dense, cache, table):
    token, head, dim = cuda.blockIdx.x, cuda.threadIdx.y, cuda.threadIdx.x
    block, offset = table[token // cache.shape[1]], token % cache.shape[1]
    dense[token, head, dim] = cache[block, offset, head, dim]


key, value = np.empty((2, 13, 4, 32), np.float32)
gather[13, (32, 4)](key, key_cache, tables[2])
gather[13, (32, 4)](value, value_cache, tables[2])
np.testing.assert_allclose(pn.reference.attention(query[2:], key, value), right[2:], rtol=1e-4)

# %%
# Straight through the block table
# --------------------------------
# Or attention looks each token up itself, by the same line. A thread takes one head of one sequence, and makes
# :term:`two passes` over the tokens, for softmax needs the largest score before it can weigh the first value.


@cuda.jit
def attention(out, query, key_cache, value_cache, tables, seq_lens):
    seq, head, block_size = cuda.blockIdx.x, cuda.threadIdx.x, key_cache.shape[1]
    scale = float32(1 / math.sqrt(query.shape[2]))
    largest, total = float32(-np.inf), float32(0)
    for token in range(seq_lens[seq]):  # pass 1: the largest score
        block, offset = tables[seq, token // block_size], token % block_size
        score = float32(0)
        for dim in range(query.shape[2]):
            score += query[seq, head, dim] * key_cache[block, offset, head, dim]
        largest = max(largest, score * scale)
    for dim in range(query.shape[2]):
        out[seq, head, dim] = float32(0)
    for token in range(seq_lens[seq]):  # pass 2: the weights, and the weighted sum of the values
        block, offset = tables[seq, token // block_size], token % block_size
        score = float32(0)
        for dim in range(query.shape[2]):
            score += query[seq, head, dim] * key_cache[block, offset, head, dim]
        weight = math.exp(score * scale - largest)
        total += weight
        for dim in range(query.shape[2]):
            out[seq, head, dim] += weight * value_cache[block, offset, head, dim]
    for dim in range(query.shape[2]):
        out[seq, head, dim] /= total


out = np.empty_like(query)
attention[3, 4](out, *paged)
np.testing.assert_allclose(out, right, rtol=1e-4, atol=1e-5)

# %%
# Now **two broken kernels**: one takes entry i of a table to be i, one reads whole blocks. (We hand wrong arguments
# to the right kernel, which comes to the same.) Then a property test, which must draw what shows such faults.
#
# .. dropdown:: Predict: sequences 0, 1 and 2 have 5, 8 and 13 tokens. Which of them hides each fault?
#
#    Sequence 0 hides the first: its blocks are 0 and 1, like those of the first sequence in an empty pool. Sequence 1
#    hides the second: its 8 tokens fill two blocks. The others read a NaN.

attention[3, 4](out, query, key_cache, value_cache, 0 * tables + np.arange(4), seq_lens)
print("table left out, right:", np.isclose(out, right, rtol=1e-4, atol=1e-5).all(axis=(1, 2)))
attention[3, 4](out, query, key_cache, value_cache, tables, -(-seq_lens // 4) * 4)
print("whole blocks,   right:", np.isclose(out, right, rtol=1e-4, atol=1e-5).all(axis=(1, 2)))
for block_size in range(1, 8):  # scattered blocks, NaN around them, and a length that fills its blocks
    lens, scattered = [*rng.integers(1, 20, 2), 2 * block_size], rng.permutation(60).reshape(3, 20)
    right, paged = batch(rng, lens, block_size, scattered)
    attention[3, 4](out, *paged)
    np.testing.assert_allclose(out, right, rtol=1e-4, atol=1e-5)

# %%
# What it moves
# -------------
# A GPU moves memory in :term:`sectors <sector>` of 32 bytes, four to a :term:`cache line`, each whole, for 32 threads
# at a time, a :term:`warp` of :term:`lanes <lane>`. A :term:`profile` counts them; what caches save is not taken off.
#
# .. dropdown:: Predict: keys and values of 13 tokens fill 416 sectors. How many move to gather, and to attend?
#
#    To gather 832, read once and written once; then attention is still to come. To attend 4,992, or 12 times 416: the
#    4 threads read 4 numbers from 4 sectors, of which they use an eighth, and with two passes move 3 arrays, not 2.

copying = lockstep.profile(gather, 13, (32, 4), key, key_cache, tables[2])
last = out[2:], query[2:], key_cache, value_cache, tables[2:], seq_lens[2:]
attending, accesses = lockstep.profile(attention, 1, 4, *last), lockstep.trace(attention, 1, 4, *last)
print("gather", 2 * sum(copying.memory("global", array=name).sectors for name in ("cache", "dense")))
print("attend", sum(attending.memory("global", array=name).sectors for name in ("key_cache", "value_cache")))
print(
    "attend", pn.time_kernel(attention, 1, 4, *last)
)  # if each sector moved once; measured if there is a GPU
pn.draw.WarpAccess.of(accesses, "key_cache", title="Four threads read a number each").show("06_attend.svg")

# %%
# **In two sentences.** Attention that looks each token up in the block table gives what dense attention gives, and
# saves the copy. It is slow as yet: its threads read far apart, and two passes move the keys twice.
#
# **Check yourself.**
#
# 1. ``key`` and ``value`` are dense arrays. How can our ``attention`` read them as a paged cache?
# 2. Which entries of ``tables`` does the kernel never read, and what may they hold?
# 3. Why would zeros in the empty slots, not NaN, make the property test weaker?
#
# .. dropdown:: Answers
#
#    1. As a cache of one block, as long as the sequence: ``key[None]``, ``value[None]`` and the table ``[[0]]``.
#    2. Those behind a sequence's last block. Anything: engines often leave old numbers there, or -1.
#    3. A key of zeros has score 0 and weighs next to nothing beside a score of 9: the error may pass as rounding.
#
# **Try next.** Draw what ``gather`` loads from ``cache``. How many threads share a sector? How much of it is used?
#
# **In the engines.** Our rung is ``attention_textbook_kernel`` (``paged_numba/kernels/attention_textbook.py``).
# FlashInfer's decode kernels look tokens up by ``paged_kv_t`` (``include/flashinfer/page.cuh``).
