"""
13 · Prefill: many queries at once
==================================

**How does a prompt get through attention without a step for each token?** A decode step brings one query, and all
keys are read for it. A prompt brings many queries at once, which can share each key. You will see which keys a query
may look at, a fault that no test with whole prompts finds, and one load of a key that serves 20 queries.
"""

# %%
# Our sequence has 20 tokens, in blocks that are not all neighbours. Value number t is 1 in dimension t, and 0 in all
# other dimensions. So the output of a query is the list of its weights, and shows *which keys a kernel looks at*.

import math
from itertools import pairwise

import numpy as np
from numba import float32

import paged_numba as pn
from paged_numba import cuda, draw, lockstep
from paged_numba.kernels.reduce import warp_sum  # the butterfly of lesson 11

rng = np.random.default_rng(13)
query, key = rng.standard_normal((2, 20, 1, 32), dtype=np.float32)  # each: token, head, dimension
value = np.eye(20, 32, dtype=np.float32).reshape(20, 1, 32)
cache = pn.PagedKVCache(8, block_size=4, num_kv_heads=1, head_dim=32, target="lockstep")  # on the host
cache.add("ours", key[:8], value[:8])
cache.add("other", key[:9], value[:9])
cache.append("ours", key[8:], value[8:])
right = pn.reference.attention(query, key, value)
print("block table", cache.allocator.block_table("ours"), "weights of query 2:", right[2, 0, :4].round(2))

# %%
# A tile of queries
# -----------------
# Query 2 has no weight for token 3, which came later. No query looks at later keys: the :term:`causal mask`. A
# :term:`chunk` is the part of a sequence whose queries come in one step: a prompt, a piece of one, or one token. The
# queries of all chunks lie in one array; :term:`cu_seqlens_q` says at which row each begins, and where the last ends.
#
# A thread block takes a :term:`tile`: a few neighbouring queries of a chunk, one for each warp, whose lanes share out
# the dimensions as in lesson 11. Each warp loads one key and one value into shared memory. After the barrier it goes
# through all of them with its own query, by the online softmax of lesson 08.


@cuda.jit
def prefill(out, query, key_cache, value_cache, block_tables, seq_lens, cu_seqlens_q):
    keys, values = cuda.shared.array((32, 32), float32), cuda.shared.array((32, 32), float32)
    lane, warp, tile = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
    seq, head, block_size = cuda.blockIdx.y, cuda.blockIdx.z, key_cache.shape[1]
    first, chunk = cu_seqlens_q[seq], cu_seqlens_q[seq + 1] - cu_seqlens_q[seq]
    index = cuda.blockIdx.x * tile + warp  # this warp's query in its chunk, if there are so many
    position = seq_lens[seq] - chunk + index  # of that query in its sequence
    end = min(position - warp + tile, seq_lens[seq])  # no query of the tile looks further
    mine = query[min(first + index, query.shape[0] - 1), head, lane] / math.sqrt(float32(32))
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    for start in range(0, end, tile):
        token = start + warp
        if token < end:
            block, offset = block_tables[seq, token // block_size], token % block_size
            keys[warp, lane] = key_cache[block, offset, head, lane]
            values[warp, lane] = value_cache[block, offset, head, lane]
        cuda.syncthreads()  # the next keys and values are there
        for i in range(min(tile, position + 1 - start)):  # causal: up to the query's own
            score = warp_sum(mine * keys[i, lane])
            previous, largest = largest, max(largest, score)
            rescale, weight = math.exp(previous - largest), math.exp(score - largest)
            total, weighted = total * rescale + weight, weighted * rescale + weight * values[i, lane]
        cuda.syncthreads()  # all warps have used them
    if index < chunk:
        out[first + index, head, lane] = weighted / total


def attend(query, seq_ids, seq_lens, cu_seqlens_q, tile=4):
    tables, lens, rows = cache.block_tables(seq_ids), np.array(seq_lens), np.array(cu_seqlens_q)
    out, grid = np.zeros_like(query), (-(-len(query) // tile), len(seq_ids), query.shape[1])
    prefill[grid, (32, tile)](out, query, cache.key_cache, cache.value_cache, tables, lens, rows)
    return out


# %%
# The corner of the mask
# ----------------------
# Someone passes the length of the chunk as ``seq_lens``. **That call is broken**, except for a prompt in one chunk.
#
# .. dropdown:: Predict: then comes a chunk with tokens 12 to 19. Which keys does the query of token 12 look at?
#
#    Only key 0. ``position`` is 8 - 8 + 0: the kernel takes token 12 for the first of a prompt.

np.testing.assert_allclose(attend(query, ["ours"], [20], [0, 20]), right, rtol=1e-4, atol=1e-6)
wrong = attend(query[12:], ["ours"], [8], [0, 8])
print(f"whole prompt: right; tokens 12 to 19: off by up to {np.abs(wrong - right[12:]).max():.2f}")
draw.Mask(wrong[:, 0, :20] > 0, title="Broken: a corner at the top left").show("13_top_left.svg")

# %%
# The staircase must end at the last key: with ``n`` tokens in the cache, query ``i`` of a chunk of ``m`` stands at
# position ``n - m + i``: :term:`bottom-right alignment`. So ``seq_lens`` counts every token in the cache, the chunk's
# included: write first, then attend. A step may hold chunks and decodes: here one token of ``other`` comes along.

rows = [*range(12, 20), 8]  # tokens 12 to 19 of ours, and token 8 of the other
chunk = attend(query[rows], ["ours", "other"], [20, 9], [0, 8, 9])
np.testing.assert_allclose(chunk, right[rows], rtol=1e-4, atol=1e-6)
draw.Mask(chunk[:8, 0, :20] > 0, title="Right: a corner at the bottom right").show("13_bottom_right.svg")

# %%
# Servers cut long prompts, :term:`chunked prefill`, so that the decodes of other sequences need not wait for a long
# step. The test that finds the fault is a property: how a prompt is cut changes nothing.

for size in (1, 7, 16):
    cuts = [*range(0, 20, size), 20]
    pieces = [attend(query[a:b], ["ours"], [b], [0, b - a]) for a, b in pairwise(cuts)]
    np.testing.assert_allclose(np.concatenate(pieces), right, rtol=1e-4, atol=1e-6)
    print(f"in pieces of {size}: right")

# %%
# What a tile saves
# -----------------
# A key has 32 floats, 4 sectors. We count what the whole prompt loads for each of its 20 queries.
#
# .. dropdown:: Predict: how many sectors of keys does a query need with a tile of 1, and with a tile of 32?
#
#    42 and 4. Alone, query i loads i + 1 keys, 10.5 on average. In one tile, the 20 keys of the last query serve all.

tables, lens, rows = cache.block_tables(["ours"]), np.array([20]), np.array([0, 20])
arrays = np.empty_like(query), query, cache.key_cache, cache.value_cache, tables, lens, rows
for tile in (1, 2, 4, 8, 16, 32):
    report = lockstep.profile(prefill, (-(-20 // tile), 1, 1), (32, tile), *arrays)
    print(f"tile {tile:2}: {report.memory('global', 'load', array='key_cache').sectors / 20:4.1f} sectors")

# %%
# **In two sentences.** In prefill the queries of a tile share each key and value that is loaded, so the arithmetic
# intensity grows with the tile. A query looks at the keys up to its own position in the *sequence*, not in the chunk.
#
# **Check yourself.**
#
# 1. Tests prefill whole prompts with the broken call, and decode with lesson 11's kernel. Do they find the fault?
# 2. Some warps of a chunk's last tile have no query. Why do they not return at the top?
# 3. In a launch for chunks of 100 and of 3, what do the thread blocks beyond the end of the short chunk do?
#
# .. dropdown:: Answers
#
#    1. No. Only a chunk with tokens before it shows the fault.
#    2. They load keys for the other warps, and all threads of a thread block must come to each barrier.
#    3. They load all its keys for nothing. ``if index - warp >= chunk: return`` mends it: whole thread blocks return.
#
# **Try next.** Add grouped queries as in lesson 09. Then let the query heads of a KV head share a tile.
#
# **In the engines.** Our rung, with that added, is ``attention_tile`` (``paged_numba/kernels/attention_tile.py``).
# FlashAttention masked top-left up to version 2.0 (``apply_mask_local``, ``csrc/flash_attn/src/mask.h``). vLLM: see
# ``query_abs_pos`` in ``kernel_unified_attention`` (``vllm/v1/attention/ops/triton_unified_attention.py``).
