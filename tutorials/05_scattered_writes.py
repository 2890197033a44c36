"""
05 · Scattered writes
=====================

**How do the new keys and values of a whole batch reach their slots in one launch?** A model step computes them into
two dense arrays, and their slots lie all over the pool. You will see the list of numbers that connects the two, a
kernel of 8 lines that follows it, and how a single -1 in that list destroys the memory of a user who is not even in
the batch.
"""

# %%
# One step of a server
# --------------------
# In this step "a" and "b" decode, one new token each, and "c" begins, with a prompt of 5 tokens. "idle" waits for its
# user; it is not in the batch. The allocator gives each new token a slot. In the order of the batch, these slots are
# the :term:`slot mapping`. Engines prepare launches of a few fixed sizes, so the 7 tokens are filled up to 8 with a
# :term:`padding token`, which belongs to no sequence and has -1 for a slot.
#
# .. dropdown:: Predict: "b" had 8 tokens before. What is the offset of its new one?
#
#    0: its two blocks of 4 are full, so the token is the first of a new block.

import numpy as np

import paged_numba as pn
from paged_numba import cuda, lockstep

pool = pn.BlockAllocator(num_blocks=9, block_size=4)
for seq, tokens in ("over", 12), ("a", 6), ("b", 8), ("idle", 8):
    pool.add(seq, tokens)
pool.free("over")
slots = pool.append("a", 1).slots, pool.append("b", 1).slots, pool.add("c", 5).slots, [-1]
slot_mapping = np.concatenate(slots)
print("token  ", *(f"{seq:>3}" for seq in ["a", "b", *"ccccc", "-"]))
print("slot   ", *(f"{slot:3}" for slot in slot_mapping))
pn.draw.BlockTables.of(pool).show("05_pool.svg")

# %%
# A thread for each number
# ------------------------
# The new keys lie in an array of tokens, KV heads and dimensions; in the cache, block and offset stand in place of
# the token. So a thread block takes a token, and thread (x, y) in it takes dimension x of KV head y. Reading is
# orderly; the writes go wherever the slot mapping says, which is called a :term:`scatter`. **This kernel is broken**:
# it takes every number of the slot mapping for a slot.
#
# .. dropdown:: Predict: where does it write the token with slot -1? In Python, what are -1 // 4 and -1 % 4?
#
#    Block -1, offset 3. Block -1 is the last one, as in Python: number 8. So slot 8 * 4 + 3 = 35, the last token of
#    "idle".


@cuda.jit
def write_kv_broken(key, value, key_cache, value_cache, slot_mapping):
    token, head, dim = cuda.blockIdx.x, cuda.threadIdx.y, cuda.threadIdx.x
    slot, block_size = slot_mapping[token], key_cache.shape[1]
    block, offset = slot // block_size, slot % block_size
    key_cache[block, offset, head, dim] = key[token, head, dim]
    value_cache[block, offset, head, dim] = value[token, head, dim]


rng = np.random.default_rng(5)
key, value = rng.standard_normal((2, 8, 2, 16), dtype=np.float32)  # tokens, KV heads, head_dim
before = rng.standard_normal((2, 9, 4, 2, 16), dtype=np.float32)  # what earlier steps left in the blocks
key_cache, value_cache = before.copy()
write_kv_broken[8, (16, 2)](key, value, key_cache, value_cache, slot_mapping)
changed = (key_cache != before[0]).any(axis=(2, 3))  # by block and offset
print("slots that changed", np.flatnonzero(changed), "- slots of idle", pool.slots("idle", 0, 8))
pn.draw.TokenPath.of(pool, "idle", 7, title="The token that was overwritten").show("05_hit.svg")

# %%
# No error, no crash: Numba counts a :term:`negative index` from the end, as Python does. The answer of "idle" goes
# wrong when it is continued, perhaps a minute later. The sanitizer of lesson 01 does not wait for that.

print(lockstep.sanitize(write_kv_broken, 8, (16, 2), key, value, key_cache, value_cache, slot_mapping))

# %%
# The guard
# ---------
# A guard as in lesson 01, not on the thread's own number this time, but on what it has read. We hold the kernel to
# ``pn.write_kv``, and count.
#
# .. dropdown:: Predict: how many threads does the launch start, and how many of them write?
#
#    8 thread blocks of 16 * 2 threads are 256 threads. Those of 7 tokens write, 224; the last 32 return at the guard.


@cuda.jit
def write_kv(key, value, key_cache, value_cache, slot_mapping):
    token, head, dim = cuda.blockIdx.x, cuda.threadIdx.y, cuda.threadIdx.x
    slot, block_size = slot_mapping[token], key_cache.shape[1]
    if slot < 0:  # a padding token
        return
    block, offset = slot // block_size, slot % block_size
    key_cache[block, offset, head, dim] = key[token, head, dim]
    value_cache[block, offset, head, dim] = value[token, head, dim]


key_cache, value_cache = before.copy()
write_kv[8, (16, 2)](key, value, key_cache, value_cache, slot_mapping)
expected = before.copy()
pn.write_kv(key, value, *expected, slot_mapping)
np.testing.assert_array_equal([key_cache, value_cache], expected)
changed = (key_cache != before[0]).any(axis=(2, 3))
print("slots that changed", np.flatnonzero(changed), "- keys written", (key_cache != before[0]).sum())
print(lockstep.sanitize(write_kv, 8, (16, 2), key, value, key_cache, value_cache, slot_mapping))

# %%
# A ``pn.PagedKVCache`` is an allocator, these two arrays and this kernel: ``add`` and ``append`` do it all.

cache = pn.PagedKVCache(num_blocks=9, block_size=4, num_kv_heads=2, head_dim=16)
cache.add("c", key[2:7], value[2:7])
np.testing.assert_array_equal(cache.gather("c"), [key[2:7], value[2:7]])  # read back through the block table
print(cache)

# %%
# **In two sentences.** A slot mapping says for each new token of a batch where its key and value go, so one launch
# writes for all sequences. It may say -1, which is nowhere, and a kernel must ask before it computes with that.
#
# **Check yourself.**
#
# 1. A model has 32 layers, each with a key and a value cache. How many slot mappings does a step need?
# 2. What do the caches hold if two tokens of a batch name the same slot?
# 3. Say "idle" ends before this step, and its blocks are free. Is the broken kernel harmless then?
#
# .. dropdown:: Answers
#
#    1. One. The layers share the block tables, so a token has the same slot in each of them.
#    2. For each number on its own, what was written last, and nothing says which token's that is.
#    3. No. In this very step "c" may get block 8, and then the padding token is written over one of its own.
#
# **Try next.** Fill the batch up to 16 tokens, with slot -1 for all of the new ones. The sanitizer then reports
# another kind of error in the broken kernel, the subject of lesson 07. Which, and why not with 8 tokens?
#
# **In the engines.** Our rung is ``write_kv_kernel`` (``paged_numba/kernels/write_kv.py``), for any number of heads.
# vLLM's ``reshape_and_cache_flash_kernel`` (``csrc/libtorch_stable/cache_kernels.cu``, earlier ``csrc/``) returns for
# negative slots, too; ``_compute_slot_mapping_kernel`` (``vllm/v1/worker/block_table.py``) makes them. FlashInfer's
# ``AppendPagedKVCacheKernel`` (``include/flashinfer/page.cuh``) has no slot mapping and reads the block tables
# itself.
