"""
12 · Split the context, merge the parts
=======================================

**Why does one long conversation leave most of a GPU idle?** You will see how few thread blocks a single sequence
has, how many more can work on it, a merge that passes a careless test and is wrong, and the price of the right one.
"""

# %%
# A GPU consists of :term:`multiprocessors <multiprocessor>`, each with registers and shared memory of its own; an
# H100 has 132. A thread block runs on one of them from start to end. In lesson 11 each head had one thread block. In
# :term:`Flash-Decoding` it has one for each :term:`split`, a part of the tokens that is attended to by itself.
#
# .. dropdown:: Predict: decode of one sequence, 8 heads, 4,096 tokens. How many multiprocessors work without splits?
#
#    8, one for each head, and each takes all tokens one after the other. The other 124 wait.

import math

import numpy as np
from numba import float32

import paged_numba as pn
from paged_numba import cuda, draw
from paged_numba.kernels.reduce import warp_sum  # the butterfly of lesson 11

for n in (1, 4, 16, 64):
    print(f"splits: {n:2}, multiprocessors at work: {min(8 * n, 132):3}, tokens for each: {4096 // n:5,}")

# %%
# The kernel is that of lesson 11, with a dimension for each lane. New are the range of its loop and what it leaves
# behind beside the result: the :term:`LSE` of the split, the natural logarithm of its sum of ``exp(score)``.


@cuda.jit
def attend(part_out, part_lse, query, key_cache, value_cache, block_table, starts):
    split, head, lane = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    for token in range(starts[split], starts[split + 1]):
        block, offset = block_table[token // key_cache.shape[1]], token % key_cache.shape[1]
        score = warp_sum(query[head, lane] * key_cache[block, offset, head, lane])
        previous, largest = largest, max(largest, score)
        rescale, weight = math.exp(previous - largest), math.exp(score - largest)
        total = total * rescale + weight
        weighted = weighted * rescale + weight * value_cache[block, offset, head, lane]
    part_out[split, head, lane] = weighted / total if total > 0 else float32(0)
    if lane == 0:
        part_lse[split, head] = largest + math.log(total) if total > 0 else float32(-np.inf)


rng = np.random.default_rng(12)
query = rng.standard_normal((8, 32), dtype=np.float32)  # we leave the scale away: scale=1 for the oracle
key_cache, value_cache = rng.standard_normal((2, 300, 16, 8, 32), dtype=np.float32)
block_table = rng.permutation(300)[:256]
key, value = key_cache[block_table].reshape(4096, 8, 32), value_cache[block_table].reshape(4096, 8, 32)


def attend_in_splits(key_cache, seq_len, num_splits):
    blocks_per_split = -(-seq_len // (16 * num_splits))  # rounded up
    starts = np.minimum(16 * blocks_per_split * np.arange(num_splits + 1), seq_len)
    part_out, part_lse = np.zeros((num_splits, 8, 32), np.float32), np.zeros((num_splits, 8), np.float32)
    attend[(num_splits, 8), 32](part_out, part_lse, query, key_cache, value_cache, block_table, starts)
    return part_out, part_lse, starts


# %%
# How do 16 results become one? Each is an average of values, and each split has 256 tokens, so let us average the
# averages. **That is broken**, but not all keys tell.
#
# .. dropdown:: Predict: which keys hide the mistake?
#
#    Keys that give all splits the same weight: equal keys, zeros, or keys so small that all scores are nearly 0. With
#    others a few tokens have most of the weight, and so have their splits.

for name, used in {"equal keys": np.ones_like(key_cache), "real keys": key_cache}.items():
    part_out, part_lse, starts = attend_in_splits(used, 4096, 16)
    oracle = pn.reference.attention(query[None], used[block_table].reshape(4096, 8, 32), value, scale=1)[0]
    print(f"{name:10} largest error of the average {abs(part_out.mean(axis=0) - oracle).max():.7f}")

# %%
# A result times the sum of its split, ``exp(LSE)``, is what it was before the division, and such numbers add up. So
# to :term:`merge` the results, weigh each by ``exp(LSE)``, relative to the largest LSE, as in lesson 08.


@cuda.jit
def merge(out, part_out, part_lse):
    head, dim = cuda.blockIdx.x, cuda.threadIdx.x
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    for split in range(part_lse.shape[0]):
        largest = max(largest, part_lse[split, head])
    for split in range(part_lse.shape[0]):
        weight = math.exp(part_lse[split, head] - largest)
        total += weight
        weighted += weight * part_out[split, head, dim]
    out[head, dim] = weighted / total


out = np.zeros_like(query)
merge[8, 32](out, part_out, part_lse)
np.testing.assert_allclose(out, oracle, rtol=1e-4, atol=1e-5)
for n in (1, 16):
    part_out, part_lse, starts = attend_in_splits(key_cache, 4096, n)
    inputs = part_out, part_lse, query, key_cache, value_cache, block_table, starts
    print(f"{n:2} splits:", pn.time_kernel(attend, (n, 8), 32, *inputs))
draw.Splits(starts[:-1], 4096, part_lse[:, 0], title="The splits of head 0").show("12_splits.svg")

# %%
# Splits consist of whole blocks. With 3,600 tokens, 15 splits of 240 take them all, and the last gets none.
#
# .. dropdown:: Predict: what must it leave behind, so that it changes nothing?
#
#    An LSE of minus infinity, since ``exp(-inf)`` is 0, and any number as its result. Had it divided 0 by 0, there
#    would be a NaN, and 0 times NaN is NaN. Hence the two conditions at the end of ``attend``.

part_out, part_lse, starts = attend_in_splits(key_cache, 3600, 16)
print(f"the last split begins at {starts[-2]}; LSE {part_lse[-1, 0]}, result {part_out[-1, 0, :3]} ...")
merge[8, 32](out, part_out, part_lse)
oracle = pn.reference.attention(query[None], key[:3600], value[:3600], scale=1)[0]
np.testing.assert_allclose(out, oracle, rtol=1e-4, atol=1e-5)

# %%
# A result and an LSE for each split are written and read: with 16 splits 0.4 % more bytes. `paged_numba.plan.choose`
# wants two thread blocks for a multiprocessor and 256 tokens for a split. Its tiles (lesson 13) are one query each.
#
# .. dropdown:: Predict: how many splits for a batch of 33 such sequences?
#
#    None: with 8 heads they make 264 thread blocks, two for each multiprocessor. Splits are for small batches.

sizes = {"num_q_heads": 8, "num_kv_heads": 8, "multiprocessors": 132}
for batch in (1, 33):
    print(f"batch of {batch}: {pn.plan.choose([4096] * batch, range(batch + 1), **sizes).why}")

# %%
# **In two sentences.** Weighed by ``exp(LSE)``, the results of any splits merge into attention over all their tokens.
# So many thread blocks can share one sequence, at the price of a result for each split, written and read.
#
# **Check yourself.**
#
# 1. Does it matter in which order splits are merged?
# 2. May two splits have a token in common?
# 3. FlashInfer's LSEs are logarithms to base 2. What comes out if ``merge`` is given those?
#
# .. dropdown:: Answers
#
#    1. No, but for rounding: each result is weighed by its share of the sum of all ``exp(score)``.
#    2. No, it would count twice. Nothing would say so: the weights still add up to 1.
#    3. Plausible numbers. Each LSE is 1.44 times as large, so heavy splits weigh too much; multiply by log 2 first.
#
# **Try next.** Divide the keys by 10, by 100. From when on does a test with a tolerance of 0.001 miss the average?
#
# **In the engines.** Our rungs: ``merge_splits``; ``merge_states``, two at a time. vLLM: ``merge_attn_states_kernel``
# (``csrc/libtorch_stable/attention/merge_attn_states.cu``). FlashInfer: ``MergeStatesKernel``
# (``include/flashinfer/attention/cascade.cuh``). FlashAttention: ``num_splits_heuristic``
# (``csrc/flash_attn/flash_api.cpp``).
