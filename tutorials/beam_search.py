"""
Beam search
===========

**What if sequences fork and end at every step?** Beam search keeps the likeliest continuations of a prompt, its
beams. At each step some beams have several children and others none. In dense memory, a further child means a copy of
all keys and values. You will see :term:`forks <fork>` of forks, blocks that outlive the sequence that filled them, and
how little is copied. This is a worked example behind lesson 14.
"""

# %%
# A step extends every beam by every letter and keeps the best of these candidates. For each winner it forks a child
# from its parent; then it frees all parents; then each child writes its token. In this order, nothing is copied for a
# parent with one child: when the child writes, no other sequence holds the block.

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

import paged_numba as pn
from paged_numba.serving.toy.model import ToyModel

LETTERS = np.frombuffer(b" abcdefghijklmnopqrstuvwxyz", np.uint8)
TEMPERATURE = 0.5


class Beam(NamedTuple):
    """A beam: its sequence, its parent's, its text, the logarithm of its probability, its last token's query."""

    seq_id: int
    parent_id: int
    text: bytes
    score: float
    query: Any


def log_probabilities(model, out):
    """Return the logarithm of each letter's probability to come next, float64[num_beams, num_letters]."""
    logits = model.logits(np.asarray(out, np.float64))[:, LETTERS] / TEMPERATURE
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def search(cache, model, prompt, width):
    """Yield the beams, the last attention output and the number of copied blocks, at first and after each step."""
    query, key, value = model.project(np.frombuffer(prompt, np.uint8), 0)
    cache.add(0, key, value)
    beams, out, copies = [Beam(0, -1, b"", 0.0, query[-1:])], None, 0
    while True:
        yield beams, out, copies
        out = cache.attend([beam.seq_id for beam in beams], np.concatenate([beam.query for beam in beams]))
        scores = np.array([[beam.score] for beam in beams]) + log_probabilities(model, out)
        children, first_id = [], max(beam.seq_id for beam in beams) + 1
        for seq_id, winner in enumerate(np.argsort(-scores, axis=None, kind="stable")[:width], first_id):
            row, letter = divmod(int(winner), LETTERS.size)
            parent, token = beams[row], LETTERS[letter : letter + 1]
            query, key, value = model.project(token, len(prompt) + len(parent.text))
            cache.fork(parent.seq_id, seq_id)
            text, score = parent.text + token.tobytes(), float(scores[row, letter])
            children.append((Beam(seq_id, parent.seq_id, text, score, query), key, value))
        for beam in beams:
            cache.free(beam.seq_id)
        beams, copies = [child for child, _, _ in children], 0
        for child, key, value in children:
            table = cache.allocator.block_table(child.seq_id)
            cache.append(child.seq_id, key, value)  # a shared block is copied first
            copies += (cache.allocator.block_table(child.seq_id)[: table.size] != table).sum()


# %%
# The first step
# --------------
# The first four beams are children of the prompt. Each writes a token into the prompt's last block, which they share.
#
# .. dropdown:: Predict: the prompt has 33 tokens, a block 8. How many blocks are in use then, and how many were copied?
#
#    8 in use: four full blocks that all share, and for each beam one with the prompt's last token and the new one. 3
#    were copied: when the last beam writes, the block is its own.

PROMPT, WIDTH = b"Write a haiku about a cache miss.", 4
cache = pn.PagedKVCache(num_blocks=16, block_size=8, num_kv_heads=2, head_dim=64)
pool = cache.allocator
steps = search(cache, ToyModel(num_q_heads=8, num_kv_heads=2, head_dim=64), PROMPT, WIDTH)
next(steps)
beams, _, copies = next(steps)
print(*(f"beam {beam.seq_id}: {beam.text.decode()!r}, score {beam.score:.2f}" for beam in beams), sep="\n")
print(pool.stats().num_used_blocks, "blocks in use,", copies, "copied")
pn.draw.BlockTables.of(pool, title="After the first step").show("beam_search_first_step.svg")

# %%
# Forks of forks
# --------------
# From the second step on, a beam without a child ends, and the blocks that were its own are free at once. We go on to
# 32 letters and count: the children of each parent that has some, the blocks in use, the blocks of beams that share
# nothing, the copied blocks, and the tokens that dense memory would copy, all of a parent's for each further child.

used, apart = pool.stats().num_used_blocks, sum(pool.block_table(beam.seq_id).size for beam in beams)
copied, copied_dense = copies, (WIDTH - 1) * len(PROMPT)
for step in range(2, 33):
    beams, _, copies = next(steps)
    children = Counter(beam.parent_id for beam in beams)
    used += pool.stats().num_used_blocks
    apart += sum(pool.block_table(beam.seq_id).size for beam in beams)
    copied += copies
    copied_dense += (WIDTH - len(children)) * (len(PROMPT) + step - 1)
    if step in (2, 3, 4, 8, 16, 32):
        counts = "+".join(str(count) for _, count in children.most_common())
        print(f"step {step:2}: children {counts:8} {pool.stats().num_used_blocks:2} blocks, {copies} copied")
print(*(f"beam {beam.seq_id}: {beam.text.decode()!r}, score {beam.score:.2f}" for beam in beams), sep="\n")
pn.draw.BlockTables.of(pool, title="After 32 steps").show("beam_search_last_step.svg")

# %%
# All ancestors of the four are freed, but what they wrote lies in the blocks that the four share. Each has only its
# last block to itself.

print(f"blocks over all steps: {used} instead of {apart}, {100 * (1 - used / apart):.1f} % saved")
print(f"copied: {copied} blocks of {pool.block_size} tokens; in dense memory {copied_dense} tokens")
pool.check()

# %%
# Kwon et al. (SOSP 2023, section 6.3) report 37.6 to 55.2 % of the blocks, for many requests of the Alpaca data set
# at a time and widths up to 6. Here it is one request, with random weights.
#
# **Try next.** Free the parents after the children have written, not before, in a pool of 20 blocks. What is copied
# now, and why is it so much more?
#
# **In the engines.** vLLM searches above its engine (``vllm/entrypoints/generate/beam_search``): each step sends all
# beams as new requests, and the prefix cache finds the blocks that they share.
