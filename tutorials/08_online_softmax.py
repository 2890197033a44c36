"""
08 · Online softmax: one pass instead of two
============================================

**Can attention read each key only once?** Lesson 06 read all keys twice: first to find the largest score, then for
the weights, since a weight is ``exp(score - largest)``. You will see one factor that repairs the sums when a larger
score arrives, a kernel without it that passes a lazy test, and how much traffic the second pass was.
"""

# %%
# Two sequences of 100 tokens lie in a paged cache with 4 heads of 64 dimensions. In the first, token 0 is made the
# best match of every head; in the second, token 90 is.

import math

import numpy as np
from numba import float32

import paged_numba as pn
from paged_numba import cuda, lockstep
from paged_numba.kernels import attention_textbook_kernel
from paged_numba.kernels.reduce import segment_sum

rng = np.random.default_rng(8)
query = rng.standard_normal((4, 64), dtype=np.float32)
value = rng.standard_normal((100, 4, 64), dtype=np.float32)
keys = {"early": rng.standard_normal((100, 4, 64), dtype=np.float32)}
keys["late"] = keys["early"].copy()
keys["early"][0] = keys["late"][90] = query
cache = pn.PagedKVCache(16, block_size=16, num_kv_heads=4, head_dim=64, target="lockstep")  # on the host
for name, key in keys.items():
    cache.add(name, key, value)

# %%
# A maximum that may still change
# -------------------------------
# Let the scores arrive one by one, and keep the largest so far: the :term:`running maximum`. Weights are relative to
# it. When a larger score arrives, all weights so far were relative to the wrong number, and all are too large by the
# same factor. So their sum is :term:`rescaled <rescale>`, multiplied by ``exp(old - new)``, and no score is looked
# at again. This is :term:`online softmax`.
#
# .. dropdown:: Predict: the running maximum rises from 3 to 5. By what is the sum multiplied?
#
#    By ``exp(3 - 5)``, which is 0.14. While the maximum stays, the factor is ``exp(0)``, which is 1.

scores = [1.0, 3.0, 2.0, 0.0, 5.0, 4.0]
largest, total = -math.inf, 0.0
for score in scores:
    new_largest = max(largest, score)
    total = total * math.exp(largest - new_largest) + math.exp(score - new_largest)
    largest = new_largest
two_passes = np.exp(np.subtract(scores, max(scores))).sum()
print(f"sum of the weights: {total:.4f} in one pass, {two_passes:.4f} in two")
pn.draw.OnlineSoftmax(scores).show("08_online_softmax.svg")

# %%
# One pass in a kernel
# --------------------
# A thread block works on one head, and each of its threads on one dimension. Together they add up a score with the
# tree of lesson 07, which the package has as ``segment_sum``. Then each thread rescales two numbers of its own: the
# sum of the weights, and its dimension of the weighted values. They lie in :term:`registers <register>`, the few and
# fast places where a thread keeps its variables. **Can we do without rescaling?** The last argument decides.


@cuda.jit
def attend(out, query, key_cache, value_cache, block_table, seq_len, rescaling):
    scratch = cuda.shared.array(64, float32)
    head, dim = cuda.blockIdx.x, cuda.threadIdx.x
    block_size = key_cache.shape[1]
    scaled = query[head, dim] / math.sqrt(float32(query.shape[1]))
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    for token in range(seq_len):
        kv_block, offset = block_table[token // block_size], token % block_size
        score = segment_sum(scaled * key_cache[kv_block, offset, head, dim], scratch, query.shape[1])
        new_largest = max(largest, score)
        rescale = math.exp(largest - new_largest) if rescaling else float32(1)
        weight = math.exp(score - new_largest)
        total = total * rescale + weight
        weighted = weighted * rescale + weight * value_cache[kv_block, offset, head, dim]
        largest = new_largest
    out[head, dim] = weighted / total


# %%
# A lazy test passes
# ------------------
# First without rescaling: **this kernel is broken**. Its weights stay those of the upper bars in the picture, so its
# result is still a mean of the values, and looks plausible.
#
# .. dropdown:: Predict: for which of the two sequences is it right?
#
#    For ``early``: no score is larger than the first, so each factor is 1. Such data are common: trained models
#    often give the first token the largest weight (Xiao et al., 2023). In ``late``, the weights of tokens 0 to 89
#    are too large, and nothing repairs them.

out = np.zeros_like(query)
for rescaling in (False, True):
    for name, key in keys.items():
        table = cache.allocator.block_table(name)
        attend[4, 64](out, query, cache.key_cache, cache.value_cache, table, 100, rescaling)
        error = abs(out - pn.reference.attention(query[None], key, value)[0]).max()
        print(f"{'rescaled' if rescaling else 'broken':8}  {name:5}  largest error {error:.0e}")

tables, seq_lens = cache.block_tables(["late"]), np.array([100], np.int32)
arrays = query[None], cache.key_cache, cache.value_cache, tables, seq_lens
for algorithm in ("naive", "warp", "block"):  # three kernels of the package
    np.testing.assert_allclose(pn.paged_attention(*arrays, algorithm=algorithm)[0], out, rtol=1e-4, atol=1e-6)

# %%
# What the second pass had cost
# -----------------------------
# Now the traffic of both kernels on ``late``, in sectors, and as in lesson 06 the time that each sector takes if it is
# moved once. Both read each value once. Yet ours moves 8 times fewer sectors of values, since neighbouring threads
# read neighbouring numbers (lesson 10 shows why).
#
# .. dropdown:: Predict: how many times fewer sectors of keys?
#
#    16 times: the same 8, times 2 because it reads each key once.
#
# The textbook kernel also adds up its weighted values in ``out``, 64 sums per thread. A loop cannot index registers,
# so an array of its own would be in :term:`local memory`, the thread's part of global memory. Our threads have one
# sum each, but they meet at 8 barriers per token.

textbook = attention_textbook_kernel, 1, 4, out[None], *arrays, np.float32(64**-0.5)
online = attend, 4, 64, out, query, *arrays[1:3], tables[0], 100, True
print("sectors     key_cache  value_cache     out")
for name, launch in (("two passes", textbook), ("one pass", online)):
    report = lockstep.profile(*launch)
    sectors = [report.memory("global", array=array).sectors for array in ("key_cache", "value_cache", "out")]
    print("{:10}  {:9,}  {:11,}  {:6,}".format(name, *sectors))
    print(pn.time_kernel(*launch))

# %%
# **In two sentences.** A running maximum lets softmax add up weights before all scores are known. When it rises, one
# factor repairs both sums, so each key is read once.
#
# **Check yourself.**
#
# 1. The first score meets a maximum of minus infinity. What is its factor, and why does it do no harm?
# 2. If only ``total`` were rescaled, but not ``weighted``, would the result still look plausible?
# 3. Which of the 8 barriers per token are those of the tree?
#
# .. dropdown:: Answers
#
#    1. 0, as ``exp`` of minus infinity is. It multiplies sums that are 0, too.
#    2. No: the weights would no longer add up to 1, and here the result is larger than any value.
#    3. 6, one after each of its rounds. One before them waits for all products, one after them protects the result.
#
# **Try next.** Sort the scores in ascending order. How often is the sum rescaled? Does the result change?
#
# **In the engines.** Our rung is ``attention_block``, which rescales once for many tokens. The factor is
# ``scores_scale`` in FlashAttention's ``softmax_rescale_o`` (``csrc/flash_attn/src/softmax.h``), and ``o_scale`` in
# FlashInfer's ``compute_qk`` (``include/flashinfer/attention/decode.cuh``).
