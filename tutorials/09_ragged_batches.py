"""
09 · Ragged batches, tails, grouped queries
===========================================

**Can a kernel be wrong and still look right?** A real batch has sequences of different lengths, last blocks that are
half empty, and more :term:`query heads <query head>` than KV heads. You will see two faults that keep the result
plausible, what makes each of them show, and how often a key is read.
"""

# %%
# A batch whose sequences differ in length is a :term:`ragged batch`. Three sequences share a pool of blocks with 8
# slots each. The tokens in the last block of a sequence are its :term:`tail`: 5 of ``a``, 2 of ``b``, 8 of ``c``.

import math

import numpy as np
from numba import float32

import paged_numba as pn
from paged_numba import cuda, lockstep
from paged_numba.kernels.reduce import segment_sum  # as in lesson 08

SEQ_LENS = np.array([13, 2, 24], np.int32)
NONE, WHOLE_BLOCKS, MODULO = 0, 1, 2  # faults, see below


def batch(num_q_heads, num_kv_heads, unused):  # unused: what slots without a token hold
    rng = np.random.default_rng(9)
    cache = pn.PagedKVCache(10, 8, num_kv_heads, head_dim=32, target="lockstep")  # on the host
    cache.key_cache[:] = cache.value_cache[:] = unused
    for name, seq_len in zip("abc", SEQ_LENS, strict=True):
        cache.add(name, *rng.standard_normal((2, seq_len, num_kv_heads, 32), dtype=np.float32))
    query = rng.standard_normal((3, num_q_heads, 32), dtype=np.float32)
    return cache, (query, cache.key_cache, cache.value_cache, cache.block_tables(list("abc")), SEQ_LENS)


cache, _ = batch(8, 2, unused=7)
pn.draw.BlockTables.of(cache.allocator, title="Three sequences share a pool").show("09_ragged_batch.svg")

# %%
# With :term:`grouped queries`, several query heads share the keys and values of a KV head, so that the cache is
# smaller. The :term:`head map` says which KV head a query head reads: of 8 query heads and 2 KV heads, query heads 0
# to 3 read KV head 0, and 4 to 7 read KV head 1. A thread block works on one query head of one sequence, in one pass
# as in lesson 08. The last argument plants a fault, or none.


@cuda.jit
def attend(out, query, key_cache, value_cache, block_tables, seq_lens, fault):
    scratch = cuda.shared.array(32, float32)
    seq, q_head, dim = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]
    group = query.shape[1] // num_kv_heads  # query heads that share a KV head
    kv_head = q_head % num_kv_heads if fault == MODULO else q_head // group
    seq_len = seq_lens[seq]
    end = -(-seq_len // block_size) * block_size if fault == WHOLE_BLOCKS else seq_len
    scaled = query[seq, q_head, dim] / math.sqrt(float32(query.shape[2]))
    largest, total, weighted = float32(-np.inf), float32(0), float32(0)
    for token in range(end):
        kv_block, offset = block_tables[seq, token // block_size], token % block_size
        score = segment_sum(scaled * key_cache[kv_block, offset, kv_head, dim], scratch, cuda.blockDim.x)
        score = score if token < seq_len else float32(-np.inf)  # its weight is 0
        new_largest = max(largest, score)
        rescale, weight = math.exp(largest - new_largest), math.exp(score - new_largest)
        total = total * rescale + weight
        weighted = weighted * rescale + weight * value_cache[kv_block, offset, kv_head, dim]
        largest = new_largest
    out[seq, q_head, dim] = weighted / total


# %%
# The tail
# --------
# A slot beyond the end of its sequence is a :term:`stale slot`: it holds what was left there. Let the loop run over
# whole blocks, and give stale slots a score of minus infinity, so that they weigh 0. **This kernel is broken.**
#
# .. dropdown:: Predict: which sequences come out wrong if stale slots hold 7? And if they hold NaN?
#
#    With 7, none: 0 times 7 is 0. With NaN, ``a`` and ``b``: 0 times NaN is NaN. ``c`` has no stale slot. So a pool
#    that begins with zeros hides the fault, and tests fill unused slots with NaN.

for unused in (7, np.nan):
    cache, arrays = batch(8, 2, unused)
    out, right = np.zeros((3, 8, 32), np.float32), pn.paged_attention(*arrays, algorithm="naive")
    for fault, loop in ((WHOLE_BLOCKS, "blocks"), (NONE, "tokens")):
        attend[(3, 8), 32](out, *arrays, fault)
        print(f"stale {unused:3}, loop over {loop}: errors of a, b, c", abs(out - right).max((1, 2)).round(5))

# %%
# The head map
# ------------
# The other fault: ``q_head % num_kv_heads``. **This kernel is broken** as well. Which KV head does each head read?

print("query head      ", *range(8))
for fault, rule in ((NONE, "q_head // group"), (MODULO, "q_head % 2")):
    read = []
    for q_head in range(8):
        accesses = lockstep.trace(attend, (3, 8), 32, out, *arrays, fault, thread_block=(0, q_head, 0))
        keys = next(access for access in accesses if access.array == "key_cache")
        read.append(keys.elements[0] // 32 % 2)  # a token has 2 heads of 32 numbers
    print(f"{rule:16}", *read)

# %%
# Half of them read the wrong KV head, and get a plausible mean of its values. Which models would notice?
#
# .. dropdown:: Predict: for which numbers of heads is the broken map right?
#
#    With one KV head, both rules give 0; with as many KV heads as query heads, both give the query head. All other
#    numbers give wrong results, and 4 query heads with 2 KV heads are the fewest.

for num_q_heads, num_kv_heads in ((2, 1), (2, 2), (3, 1), (3, 3), (4, 1), (4, 2), (4, 4), (8, 2)):
    cache, arrays = batch(num_q_heads, num_kv_heads, np.nan)
    out, right = np.zeros_like(arrays[0]), pn.paged_attention(*arrays, algorithm="naive")
    attend[(3, num_q_heads), 32](out, *arrays, MODULO)
    print(f"query heads {num_q_heads}, KV heads {num_kv_heads}: largest error {abs(out - right).max():.0e}")

# %%
# The keys of the batch fill 312 sectors: 39 tokens, 2 KV heads, 4 sectors each. **How often is a key read?**
#
# .. dropdown:: Predict: how many sectors of keys does the kernel move for 8 query heads?
#
#    1,248: each of the 4 query heads of a group has a thread block that reads all keys of their KV head. A thread
#    block for the whole group can read each key once and use it 4 times, as the package's ``tile`` algorithm does.

alone = lockstep.profile(attend, (3, 8), 32, out, *arrays, NONE).memory("global", array="key_cache")
with lockstep.profiling() as report:
    pn.paged_attention(*arrays, algorithm="tile", target="lockstep")
shared = report.memory("global", array="key_cache")
print(f"sectors of keys: {alone.sectors:,} by query head, {shared.sectors:,} by KV head")

# %%
# **In two sentences.** A kernel stops at the end of each sequence before it multiplies, since a weight of 0 does not
# undo a NaN. Only a test with several KV heads, and several query heads for each, can tell head maps apart.
#
# **Check yourself.**
#
# 1. Which line of the kernel is superfluous once the loop ends with the tokens?
# 2. The key of a stale slot may be NaN, too. Why is it harmless?
# 3. Another wrong map is ``q_head // num_kv_heads``. For which numbers of heads is it right?
#
# .. dropdown:: Answers
#
#    1. The one that makes scores minus infinity: ``token < seq_len`` always holds.
#    2. Its score, NaN or not, is *replaced* by minus infinity. Its value is *multiplied* by the weight.
#    3. If a group has as many query heads as there are KV heads: 4 and 2, 16 and 4, 64 and 8.
#
# **Try next.** Give ``b`` no tokens. What does the kernel return, and what should it? (See lesson 12.)
#
# **In the engines.** Our rung is ``attention_tile``. Like FlashInfer's decode kernel
# (``include/flashinfer/attention/decode.cuh``), it puts zeros in place of stale values. Both faults were real: vLLM
# mended the tail in pull requests 936 and 47305, HipKittens the head map of answer 3 (pull request 22).
