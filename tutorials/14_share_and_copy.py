"""
14 · Share and copy on write
============================

**How can two answers to one prompt use the same keys and values?** Both block tables name the same blocks, which
costs nothing until one of them writes. You will see a child overwrite a token of its parent, a cache that names the
culprit, a small kernel that prevents it, and blocks that are found again after their request has ended.
"""

# %%
# For a second answer we :term:`fork` the sequence: we start another one with a copy of the block table, and of
# nothing else. A block in several tables is a :term:`shared block`, and its :term:`reference count` says in how many.
#
# .. dropdown:: Predict: the parent has 10 tokens, in blocks of 4. How many free blocks does a fork take?
#
#    None. The child needs no block until it writes; the 3 blocks of its parent now count 2.

import numpy as np

import paged_numba as pn
from paged_numba import cuda, draw

rng = np.random.default_rng(14)
key, value = rng.standard_normal((2, 12, 1, 32), dtype=np.float32)  # token, head, dimension
query = key[10:11] + key[11:]  # which looks at tokens 10 and 11 above all


def forked(debug=False):  # the arrays of this cache are on the host
    cache = pn.PagedKVCache(8, block_size=4, num_kv_heads=1, head_dim=32, debug=debug, target="lockstep")
    cache.add("parent", key[:10], value[:10])
    cache.fork("parent", "child")
    return cache


cache = forked()
print("reference counts:", [cache.allocator.ref_count(block) for block in range(8)])
draw.BlockTables.of(cache.allocator, title="After the fork").show("14_fork.svg")

# %%
# Two writers, one slot
# ---------------------
# Now each gets an 11th token of its own: row 10 of our arrays is the parent's, row 11 the child's. **The last two
# lines are broken**: they write where the block table says, as lesson 05 did.
#
# .. dropdown:: Predict: the parent writes first, then the child. Whose attention is wrong?
#
#    The parent's. Both tables say block 2, offset 2, and so the child's token now lies where the parent's lay.

next_token = {"parent": 10, "child": 11}


def step(cache, slots):
    for name in slots:  # in this order
        token = [next_token[name]]
        pn.write_kv(key[token], value[token], cache.key_cache, cache.value_cache, slots[name])
    for name, token in next_token.items():
        table, rows = cache.block_tables([name]), [*range(10), token]
        out = pn.paged_attention(query, cache.key_cache, cache.value_cache, table, np.array([11]))
        error = np.abs(out - pn.reference.attention(query, key[rows], value[rows])).max()
        print(f"{name:6}  slot {slots[name][0]:2}  {'right' if error < 1e-5 else f'WRONG by {error:.2f}'}")


slot = cache.allocator.block_table("child")[10 // 4] * 4 + 10 % 4  # the parent's table gives the same
step(cache, {"parent": [slot], "child": [slot]})

# %%
# Nothing failed: a word of one user's answer went into another's. With ``debug=True`` a cache compares each access
# of a kernel with its allocator, and names the write.

checked = forked(debug=True)
try:
    pn.write_kv(key[11:], value[11:], checked.key_cache, checked.value_cache, [10], target="lockstep")
except pn.errors.KernelError as error:
    print(error)

# %%
# Copy, then write
# ----------------
# The rule is :term:`copy-on-write`: a sequence that would write to a shared block gets its own copy first. ``append``
# takes a free block, changes the table, and returns which blocks to copy and which slots to write.
#
# .. dropdown:: Predict: now the child appends first, then the parent. How many blocks are copied?
#
#    One. The child leaves block 2 for its copy; then only the parent holds block 2, and writes into it.


@cuda.jit
def copy_blocks(key_cache, value_cache, pairs):
    source, target = pairs[cuda.blockIdx.x, 0], pairs[cuda.blockIdx.x, 1]
    dim, offset, head = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y
    key_cache[target, offset, head, dim] = key_cache[source, offset, head, dim]
    value_cache[target, offset, head, dim] = value_cache[source, offset, head, dim]


cache, slots = forked(), {}
for name in ("child", "parent"):
    pairs, slots[name], _ = cache.allocator.append(name)  # the third is for the prefix cache, below
    print(f"{name:6}  copies {pairs.tolist()}")
    if len(pairs):
        copy_blocks[(len(pairs), 1), (32, 4)](cache.key_cache, cache.value_cache, pairs)
step(cache, slots)
draw.BlockTables.of(cache.allocator, title="After the copy").show("14_copied.svg")

# %%
# The prefix cache
# ----------------
# Requests of strangers begin alike, too, with the system prompt that a server puts first. A :term:`prefix cache`
# finds full blocks by the token ids in them and before them; ``commit`` tells it that their keys and values are
# written. A token that is found is a :term:`hit`: it needs no slot, no write, and no computing.
#
# A block that no request holds any more is free, but can be found until the pool needs it and forgets it: its
# :term:`eviction`. The least recently used prefix goes first (:term:`LRU`), and of a prefix its last block.
#
# .. dropdown:: Predict: A and B are system prompts of 8 tokens, C of 16, in a pool of 6 blocks. How many hits has A?
#
#    0, 8 and 4. The second A finds both blocks. C and its question need 5: two that hold nothing, both of B, which
#    was used before A, and the last of A. So the third A finds its first block only.

pool = pn.BlockAllocator(num_blocks=6, block_size=4, prefix_caching=True)
history = draw.PoolHistory(title="One request at a time; what is free may still be found")
systems = {"A": range(8), "B": range(50, 58), "C": range(100, 116)}
for question, name in enumerate("ABACAB", start=200):  # a question of one token, different each time
    allocation = pool.add(name, [*systems[name], question])
    pool.commit(name)
    history.record(pool)
    pool.free(name)
    print(f"{name}: {allocation.num_cached_tokens} hits, {len(allocation.slots):2} tokens to compute")
history.show("14_pool.svg")

# %%
# **In two sentences.** Sequences share blocks as long as they only read, and the first that writes gets its own copy
# of the last block. Full blocks are never written again, so they also serve requests that come later.
#
# **Check yourself.**
#
# 1. Why does a fork of a prompt of 12 tokens copy nothing, even when both go on?
# 2. The child ends before either has written. Does the parent's next token make a copy?
# 3. Two prompts of 9 tokens differ in the first token only. How many hits?
#
# .. dropdown:: Answers
#
#    1. Its 3 blocks are full. Each sequence takes a new block for its next token.
#    2. No: block 2 counts 1 again.
#    3. None. In a model with several layers a key depends on all tokens before it, so equal ids are not enough.
#
# **Try next.** Fork a second child, which waits: how many copies? Then :doc:`parallel_sampling`, :doc:`beam_search`.
#
# **In the engines.** Our rungs are ``copy_blocks`` and ``BlockAllocator``. vLLM once copied so, too, by
# ``CopyOnWriteTracker`` (``vllm/core/block/common.py``). Now it shares full blocks only: ``get_computed_blocks``
# (``vllm/v1/core/kv_cache_manager.py``).
