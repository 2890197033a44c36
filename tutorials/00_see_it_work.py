"""
00 · See it work
================

**How do eight requests share one memory when nobody knows how long their answers will be?** You will see a pool of
memory fill, empty and fill again, block by block, find each block by a table, and choose how large blocks should be.
Nothing here needs a GPU, and nothing is said about one before lesson 01.
"""

# %%
# A :term:`request` brings a text, the :term:`prompt`, to a language model. The model reads and writes text in
# :term:`tokens <token>`, which are words or pieces of words, and adds one token to each answer in each
# :term:`model step`. Prompt and answer so far are one :term:`sequence`.
#
# Each token leaves two rows of numbers behind, its :term:`key` and its :term:`value`. All later tokens of the
# sequence need them (lesson 02 says what for), so they are kept: that memory is the :term:`KV cache`. The place of
# one token in it is a :term:`slot`, ``block_size`` slots are a :term:`block`, and all blocks are the :term:`pool`.

import paged_numba as pn

pool = pn.BlockAllocator(num_blocks=12, block_size=16)
pool.add("Ada", 20)  # Ada's prompt has 20 tokens, Ben's 35
pool.add("Ben", 35)
print("Ada has blocks", pool.block_table("Ada"), "and Ben", pool.block_table("Ben"))

# %%
# That list is the :term:`block table`: the blocks of a sequence, in the order of its tokens. Now both answers grow. A
# new block is taken only when the last one is full.
#
# .. dropdown:: Predict: Ada's answer reaches 13 tokens, Ben's reaches 20. Which blocks do they have then?
#
#    Ada has 20 + 13 = 33 tokens, which need three blocks of 16: blocks 0 and 1, and the next free one, block 5. Ben
#    has 35 + 20 = 55 tokens, which need four: blocks 2, 3 and 4, and then block 6.

pool.append("Ada", 13)
pool.append("Ben", 20)
print("Ada has blocks", pool.block_table("Ada"), "and Ben", pool.block_table("Ben"))

# %%
# Ada's blocks are not neighbours, and need not be: the block table says where to look. Above are the two tables, and
# over each entry its number, the :term:`logical block`. Below is the pool; a block is coloured as far as it is full.

pn.draw.BlockTables.of(pool, title="The blocks of Ada and Ben").show("00_tables.svg")

# %%
# Eight requests
# --------------
# A request says when it comes and how long its prompt is. How long the answer will be is known only when it ends; we
# write it down here, in place of a model.

requests = {  # the step in which it comes, tokens of the prompt, tokens of the answer
    "A": (0, 20, 13),
    "B": (0, 35, 30),
    "C": (0, 7, 19),
    "D": (2, 50, 8),
    "E": (4, 12, 33),
    "F": (12, 28, 20),
    "G": (20, 40, 9),
    "H": (22, 9, 15),
}


def serve(block_size, num_slots=256):
    pool = pn.BlockAllocator(num_slots // block_size, block_size)
    history, stats = pn.draw.PoolHistory(title=f"Eight requests, blocks of {block_size} tokens"), []
    for step in range(38):
        for name, (arrival, prompt, answer) in requests.items():
            if step == arrival:
                pool.add(name, prompt)
            elif name in pool and step <= arrival + answer:
                pool.append(name)  # one more token
            elif name in pool:
                pool.free(name)  # its blocks go back to the pool
        history.record(pool)
        stats.append(pool.stats())
    return history, stats


# %%
# The pool has 16 blocks of 16 tokens. Each row of the picture is a block, each column a step, and a letter or colour
# says whose block it is.
#
# .. dropdown:: Predict: A, B, C, D and E come first. How many blocks do their prompts take?
#
#    2 + 3 + 1 + 4 + 1 = 11: each prompt takes its tokens divided by 16, rounded up. Follow a row to the right: when a
#    sequence ends, its blocks are free, and a later request takes them.

history, stats = serve(block_size=16)
history.show("00_pool.svg")

# %%
# What does it cost?
# ------------------
# The other way is a :term:`reservation`: each request gets room for the longest answer that the server allows, in one
# piece. Say that is 128 tokens with the prompt. A slot without a token is waste.
#
# .. dropdown:: Predict: with blocks of 16, how many slots of a sequence are empty, on average?
#
#    About half a block. Only a sequence's last block can have empty slots: 0 to 15 of them, 7.5 on average if all are
#    equally likely.

longest = max(prompt + answer for _, prompt, answer in requests.values())
print("block_size  longest table  empty slots of a sequence")
for block_size in (1, 4, 16, 64):
    history, stats = serve(block_size, num_slots=512)
    sequences = sum(now.num_sequences for now in stats)  # of all steps
    empty = sum(now.num_empty_slots for now in stats) / sequences
    entries = -(-longest // block_size)  # -(-a // b) is a / b, rounded up
    print(f"{block_size:10}  {entries:5} entries  {empty:25.1f}")
tokens = sum(now.num_tokens for now in stats) / sequences
print(f"  reserved      1 entry    {128 - tokens:25.1f}")

# %%
# A reservation leaves 94 slots of a sequence empty, blocks of 16 tokens leave 7. The 256 slots that have just served
# 5 requests at once would hold 2 reservations.
#
# **In two sentences.** Memory is handed out block by block as sequences grow, and a block table finds the blocks
# again, wherever they are. So a sequence wastes less than one block, while a reservation wastes all that might have
# come.
#
# **Check yourself.**
#
# 1. Which block size wastes nothing, and what is wrong with it?
# 2. Which block size is the same as the reservation?
# 3. In the picture, A takes block 8 for its last token. Why not block 2, next to its others?
#
# .. dropdown:: Answers
#
#    1. One token. Every table has an entry for each token, and whoever reads the cache looks each of them up.
#    2. 128: one block for each request, taken when it comes.
#    3. Block 2 is B's from the start, and keys and values are not moved. Block 8 was the first free one.
#
# **Try next.** Give ``serve`` a smaller pool, ``num_slots=224``, and read the error. What should a server do then?
# (Lesson 15 does it.)
#
# **In the engines.** Ours is ``BlockAllocator`` (``paged_numba/allocator/allocator.py``). In vLLM it is
# ``KVCacheManager.allocate_slots`` (``vllm/v1/core/kv_cache_manager.py``), and blocks have 16 tokens by default.
