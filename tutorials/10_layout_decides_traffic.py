"""
10 · Layout decides traffic
===========================

**The same keys, the same kernel, the same scores: why does one cache move twice the bytes of another?** You will see
three caches that differ only in the order of their numbers, two of them mixed up with no tool to report it, and an
empty column that saves 31 of 32 turns.
"""

# %%
# Memory is one long row of numbers. A :term:`layout` says in which order the axes of an array lie along it, and a
# :term:`stride` how far it is along the row for one step along an axis. Here are 64 keys in three layouts of a block:
#
# * :term:`NHD`: token by token, and for each token head by head. We used it so far without a name.
# * :term:`HND`: head by head, and for each head token by token.
# * :term:`packed <packed layout>`: head by head, in pieces of 4 numbers: piece 0 of all tokens, then piece 1, ...

import numpy as np
from numba import float32

from paged_numba import cuda, draw, lockstep, time_kernel

rng = np.random.default_rng(10)
query = rng.standard_normal(64, dtype=np.float32)
key = rng.standard_normal((64, 2, 64), dtype=np.float32)  # token, KV head, dimension
table = np.array([1, 5, 2, 6])
nhd = np.full((8, 16, 2, 64), np.nan, np.float32)  # block, token, head, dimension; NaN where no key is
nhd[table] = key.reshape(4, 16, 2, 64)
hnd = nhd.transpose(0, 2, 1, 3).copy()  # block, head, token, dimension
packed = nhd.reshape(8, 16, 2, 16, 4).transpose(0, 2, 3, 1, 4).copy()  # block, head, piece, token, number
# How many numbers further the next block, token, head and piece begin:
strides = {"NHD": (2048, 128, 64, 4), "HND": (2048, 64, 1024, 4), "packed": (2048, 4, 1024, 64)}

# %%
# One kernel reads all three by their strides. Each thread, called a :term:`lane` of its warp, takes a token.


@cuda.jit
def scores(out, query, keys, strides, table, head):
    token = cuda.grid(1)
    if token < out.size:
        start = table[token // 16] * strides[0] + token % 16 * strides[1] + head * strides[2]
        score = float32(0)
        for dim in range(query.size):
            score += query[dim] * keys[start + dim // 4 * strides[3] + dim % 4]
        out[token] = score


# %%
# .. dropdown:: Predict: a warp reads one dimension of 32 keys. How many sectors does it touch, in each layout?
#
#    NHD: 32, since neighbouring threads read numbers 512 bytes apart. HND: 32 as well. The keys of a head are now
#    neighbours, but that is still 256 bytes. Packed: 16, since two neighbouring pieces of 16 bytes fill a sector.

oracle = key[:, 1] @ query
for name, cache in {"NHD": nhd, "HND": hnd, "packed": packed}.items():
    out, inputs = np.zeros(64, np.float32), (query, cache.reshape(-1), strides[name], table, 1)
    scores[2, 32](out, *inputs)
    np.testing.assert_allclose(out, oracle, rtol=1e-4, atol=1e-4)
    reads = lockstep.profile(scores, 2, 32, out, *inputs).memory("global", "load", array="keys")
    print(f"{name:6} {reads.sectors_per_request:3.0f} sectors a request, {reads.bytes_moved:7,} bytes moved")
accesses = lockstep.trace(scores, 2, 32, out, query, nhd.reshape(-1), strides["NHD"], table, 1)
draw.WarpAccess.of(accesses, "keys", title="NHD, a key for each thread").show("10_nhd.svg")

# %%
# All keys of this head are 16,384 bytes. NHD moves eight times as many: a thread uses 4 bytes of a sector, and
# asks for it again with its next dimension, when caches may have dropped it. **The next call is broken**: it reads
# packed with NHD's strides. Who notices?

findings = lockstep.sanitize(scores, 2, 32, out, query, packed.reshape(-1), strides["NHD"], table, 1)
print(f"sanitizer: {findings}; right {oracle[:3].round(1)}, wrong {out[:3].round(1)}")

# %%
# Another loop, the same layout
# -----------------------------
# Only the oracle notices: no index was out of bounds, and no NaN was read, just other pieces of the same keys. Now to
# the traffic. A memory request is :term:`coalesced` if neighbouring threads ask for neighbouring numbers: 32 of them
# are 4 sectors, a :term:`cache line`. NHD offers this along a key, but each thread wants a key for itself. So a warp
# first loads a :term:`tile`, a small part of a large array, into shared memory: row by row, a dimension for each
# thread. Then each thread computes with a row of its own, ``width`` numbers wide.


def with_tile(width):
    @cuda.jit
    def scores_by_tile(out, query, keys, table, head):
        tile = cuda.shared.array((32, width), float32)
        thread, first_token = cuda.threadIdx.x, cuda.blockIdx.x * 32
        score = float32(0)
        for first_dim in range(0, query.size, 32):
            for row in range(32):
                token = min(first_token + row, out.size - 1)  # past the end the last key again
                tile[row, thread] = keys[table[token // 16], token % 16, head, first_dim + thread]
            cuda.syncthreads()  # the tile is full
            for dim in range(32):
                score += query[first_dim + dim] * tile[thread, dim]
            cuda.syncthreads()  # all have read it: the next may come
        if first_token + thread < out.size:
            out[first_token + thread] = score

    return scores_by_tile


accesses = lockstep.trace(with_tile(32), 2, 32, out, query, nhd, table, 1)
draw.WarpAccess.of(accesses, "keys", title="NHD, a dimension for each thread").show("10_tile.svg")

# %%
# Shared memory has 32 :term:`banks <bank>`: number ``n`` lies in bank ``n % 32``, and a bank serves one number at a
# time. Lanes that want different numbers of one bank have a :term:`bank conflict`: they take turns, each of them a
# :term:`wavefront`. A :term:`pad` helps, an unused column that makes the rows of the tile 33 numbers wide.
#
# .. dropdown:: Predict: how many wavefronts does a request for ``tile[thread, dim]`` take, for each width?
#
#    Width 32: all numbers lie in bank ``dim``, so 32 wavefronts: right, but slow. Width 33: one, since number
#    ``33 * thread + dim`` is in bank ``(thread + dim) % 32``, another bank for each thread.

for width in (32, 33):
    with_tile(width)[2, 32](out, query, nhd, table, 1)
    np.testing.assert_allclose(out, oracle, rtol=1e-4, atol=1e-4)
    report = lockstep.profile(with_tile(width), 2, 32, out, query, nhd, table, 1)
    reads, tile = report.memory("global", "load", array="keys"), report.memory("shared", "load")
    print(f"width {width}: {reads.bytes_moved:,} bytes moved; {tile}")
    print(time_kernel(with_tile(width), 2, 32, out, query, nhd, table, 1))
draw.WarpAccess.of(accesses, "tile", title="Rows of 32 numbers: one bank").show("10_conflict.svg")

# %%
# The same request with the pad:

accesses = lockstep.trace(with_tile(33), 2, 32, out, query, nhd, table, 1)
draw.WarpAccess.of(accesses, "tile", title="Rows of 33 numbers: all banks").show("10_pad.svg")

# %%
# **In two sentences.** What a warp moves depends on the addresses that its threads ask for together: on the layout
# *and* on who reads what. If they do not fit, load a padded tile in the order of memory, and compute from the tile.
#
# **Check yourself.**
#
# 1. 64 threads write a new key, a dimension each. How many sectors does a warp touch in NHD, and how many in packed?
# 2. How many wavefronts with rows of 34 numbers? Which widths have one?
# 3. A thread block of the tile kernel is a single warp. Why does it need barriers?
#
# .. dropdown:: Answers
#
#    1. NHD: 4. Packed: 8, as the pieces of a key lie 256 bytes apart. What reading saves, writing pays.
#    2. Two: threads 0 and 16 share a bank, so do 1 and 17, ... Odd widths have one.
#    3. Threads of a warp need not advance together. Remove one: the sanitizer names a race.
#
# **Try next.** Predict the sectors of the tile kernel for ``hnd.transpose(0, 2, 1, 3)``, with the axes of NHD.
#
# **In the engines.** Our rungs are ``attention_packed`` and ``attention_tile``. In vLLM, ``reshape_and_cache_kernel``
# writes packed caches, and ``reshape_and_cache_flash_kernel`` NHD or HND, as the strides say
# (``csrc/libtorch_stable/cache_kernels.cu``). FlashInfer: ``paged_kv_t`` (``include/flashinfer/page.cuh``).
