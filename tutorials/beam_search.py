"""
Beam search
===========

**What if sequences fork and end at every step?** Beam search keeps the likeliest continuations of a prompt, its
beams. At each step some beams have several children and others none. In dense memory, a further child means a copy of
all keys and values. You will see :term:`forks <fork>` of forks, blocks that outlive the sequence that filled them, and
how little is copied. This is a worked example behind lesson 14.
"""

# %%
# A step extends every beam by every token of the vocabulary and keeps the best of these candidates. For each winner it
# forks a child from its parent; then it frees all parents; then each child writes its token. In this order, nothing is
# copied for a parent with one child: when the child writes, no other sequence holds the block. The model is that of
# lesson 16 (``pip install glassllm``), and ``compute`` is one step of it for all beams, as in lesson 17.

from collections import Counter
from typing import NamedTuple

import numpy as np

import paged_numba as pn


class Beam(NamedTuple):
    """A beam: its sequence, its parent's, its tokens, the logarithm of its probability."""

    seq_id: int
    parent_id: int
    tokens: tuple[int, ...]
    score: float


def compute(cache, model, new):
    """Write the new tokens of each sequence, and return the logits after them, float32[num_seqs, vocab_size]."""
    counts = {seq_id: len(tokens) for seq_id, tokens in new.items()}
    slots, starts, _ = cache.reserve_batch(counts)  # copies shared blocks first
    plan = cache.plan([*new], model.config.num_q_heads, slots=slots, cu_seqlens_q=starts)

    def attend(layer, query, key, value):
        plan.write(layer, key, value)
        return pn.arrays.to_host(plan.attend(layer, query))

    lengths = [cache.seq_len(seq_id) for seq_id in new]
    positions = np.arange(starts[-1]) + np.repeat(lengths - starts[1:], [*counts.values()])
    logits = model.forward(np.concatenate([*new.values()]), positions, attend, rows=starts[1:] - 1)
    for seq_id in new:
        cache.commit(seq_id)
    return logits


def log_probabilities(logits):
    """Return the logarithm of each token's probability to come next, float64[num_beams, vocab_size]."""
    logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def search(cache, model, prompt, width):
    """Yield the beams, the logits after them and the number of copied blocks, at first and after each step."""
    beams, copies = [Beam(0, -1, (), 0.0)], 0
    logits = compute(cache, model, {0: prompt})
    while True:
        yield beams, logits, copies
        scores = np.array([[beam.score] for beam in beams]) + log_probabilities(logits)
        parents, beams, first_id = beams, [], max(beam.seq_id for beam in beams) + 1
        for seq_id, winner in enumerate(np.argsort(-scores, axis=None, kind="stable")[:width], first_id):
            row, token = map(int, np.unravel_index(winner, scores.shape))
            parent = parents[row]
            cache.fork(parent.seq_id, seq_id)
            beams.append(Beam(seq_id, parent.seq_id, (*parent.tokens, token), float(scores[row, token])))
        for beam in parents:
            cache.free(beam.seq_id)
        tables = [cache.allocator.block_table(beam.seq_id) for beam in beams]
        logits = compute(cache, model, {beam.seq_id: beam.tokens[-1:] for beam in beams})
        after = [cache.allocator.block_table(beam.seq_id) for beam in beams]
        copies = sum((new[: old.size] != old).sum() for old, new in zip(tables, after, strict=True))


# %%
# The first step
# --------------
# The first four beams are children of the prompt. Each writes a token into the prompt's last block, which they share.
#
# .. dropdown:: Predict: the prompt has 33 tokens, a block 8. How many blocks are in use then, and how many were copied?
#
#    8 in use: four full blocks that all share, and for each beam one with the prompt's last token and the new one. 3
#    were copied: when the last beam writes, the block is its own.

TEXT = "Alice was beginning to get very tired of sitting by her sister on the bank, and she said to herself, “I wish"
WIDTH = 4
model, tokenizer, *_ = pn.models.load("glassllm")
prompt = tokenizer.encode(TEXT)
sizes = model.config
cache = pn.PagedKVCache(16, 8, sizes.num_kv_heads, sizes.head_dim, num_layers=sizes.num_layers)
pool = cache.allocator
steps = search(cache, model, prompt, WIDTH)


def show(beams):
    for beam in beams:
        print(f"beam {beam.seq_id}: {tokenizer.decode(beam.tokens)!r}, score {beam.score:.2f}")


next(steps)
beams, _, copies = next(steps)
show(beams)
print(pool.stats().num_used_blocks, "blocks in use,", copies, "copied")
pn.draw.BlockTables.of(pool, title="After the first step").show("beam_search_first_step.svg")

# %%
# Forks of forks
# --------------
# From the second step on, a beam without a child ends, and the blocks that were its own are free at once. We go on to
# 32 tokens and count: the children of each parent that has some, the blocks in use, the blocks of beams that share
# nothing, the copied blocks, and the tokens that dense memory would copy, all of a parent's for each further child.

used, apart = pool.stats().num_used_blocks, sum(pool.block_table(beam.seq_id).size for beam in beams)
copied, copied_dense = copies, (WIDTH - 1) * len(prompt)
for step in range(2, 33):
    beams, _, copies = next(steps)
    children = Counter(beam.parent_id for beam in beams)
    used += pool.stats().num_used_blocks
    apart += sum(pool.block_table(beam.seq_id).size for beam in beams)
    copied += copies
    copied_dense += (WIDTH - len(children)) * (len(prompt) + step - 1)
    if step in (2, 3, 4, 8, 16, 32):
        counts = "+".join(str(count) for _, count in children.most_common())
        print(f"step {step:2}: children {counts:8} {pool.stats().num_used_blocks:2} blocks, {copies} copied")
show(beams)
pn.draw.BlockTables.of(pool, title="After 32 steps").show("beam_search_last_step.svg")

# %%
# All ancestors of the four are freed, but what they wrote lies in the blocks that the four share. Each has only its
# last two blocks to itself.

print(f"blocks over all steps: {used} instead of {apart}, {100 * (1 - used / apart):.1f} % saved")
print(f"copied: {copied} blocks of {pool.block_size} tokens; in dense memory {copied_dense} tokens")
pool.check()

# %%
# Kwon et al. (SOSP 2023, section 6.3) report 37.6 to 55.2 % of the blocks, for many requests of the Alpaca data set
# at a time and widths up to 6. Here it is one request, and a small model.
#
# **Try next.** Free the parents after the children have written, not before, in a pool of 20 blocks. What is copied
# now, and why is it so much more?
#
# **In the engines.** vLLM searches above its engine (``vllm/entrypoints/generate/beam_search``): each step sends all
# beams as new requests, and the prefix cache finds the blocks that they share.
