"""
Parallel sampling
=================

**How do several answers to one prompt share its keys and values?** A user may ask for four answers, to choose from. In
dense memory each answer needs its own copy of the prompt's keys and values. You will see four block tables that name
the same blocks, the copies that are made when the answers part, and what is saved in the end. This is a worked example
behind lesson 14.
"""

# %%
# The loop of a server, for one prompt and the model of lesson 16 (``pip install glassllm``). ``step`` computes the next
# tokens of all sequences at once, as in lesson 17. The prompt is computed once and forked; then each step writes one
# new token for each sample.

import numpy as np

import paged_numba as pn

TEMPERATURE = 0.8


def step(cache, model, new):
    """Write the new tokens of each sequence, and return the logits after them, float32[num_seqs, vocab_size]."""
    counts = {name: len(tokens) for name, tokens in new.items()}
    slots, starts, _ = cache.reserve_batch(counts)  # copies shared blocks first
    plan = cache.plan([*new], model.config.num_q_heads, slots=slots, cu_seqlens_q=starts)

    def attend(layer, query, key, value):
        plan.write(layer, key, value)
        return pn.arrays.to_host(plan.attend(layer, query))

    lengths = [cache.seq_len(name) for name in new]
    positions = np.arange(starts[-1]) + np.repeat(lengths - starts[1:], [*counts.values()])
    logits = model.forward(np.concatenate([*new.values()]), positions, attend, rows=starts[1:] - 1)
    for name in new:
        cache.commit(name)
    return logits


def draw(rng, logits):
    """Return the next token of a sample, drawn from the softmax of the logits."""
    logits = logits.astype(np.float64) / TEMPERATURE
    weights = np.exp(logits - logits.max())
    return int(rng.choice(weights.size, p=weights / weights.sum()))


def sample(cache, model, prompt, names, seed):
    """Yield the samples' tokens and their logits, after the fork and after each further token."""
    rng = np.random.default_rng(seed)
    logits = np.repeat(step(cache, model, {names[0]: prompt}), len(names), axis=0)
    for name in names[1:]:
        cache.fork(names[0], name)
    tokens = {name: [] for name in names}
    while True:
        yield tokens, logits
        for name, row in zip(names, logits, strict=True):
            tokens[name].append(draw(rng, row))
        logits = step(cache, model, {name: tokens[name][-1:] for name in names})


# %%
# The fork
# --------
# A :term:`fork` copies the block table, not the blocks. Each block has a reference count, the number of tables that
# name it.
#
# .. dropdown:: Predict: the prompt has 68 tokens and a block 16. How many blocks are in use after the fork?
#
#    5, as for a single sample: four full blocks, and one with 4 tokens. Each has the reference count 4.

TEXT = """Alice was beginning to get tired of sitting by her sister on the bank, and of having nothing to do: once
or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it"""
model, tokenizer, *_ = pn.models.load("glassllm")
prompt, names = tokenizer.encode(TEXT), ["a", "b", "c", "d"]
sizes = model.config
cache = pn.PagedKVCache(16, 16, sizes.num_kv_heads, sizes.head_dim, num_layers=sizes.num_layers)
pool, history = cache.allocator, pn.draw.PoolHistory()
steps = sample(cache, model, prompt, names, seed=0)
next(steps)
history.record(pool)
print("reference counts", [pool.ref_count(block) for block in range(5)])
pn.draw.BlockTables.of(pool, title="After the fork").show("parallel_sampling_fork.svg")

# %%
# The answers part
# ----------------
# Each sample draws its first token and writes a key and a value for it, into a block that it shares. So it gets
# a copy first: :term:`copy-on-write`.
#
# .. dropdown:: Predict: how many blocks are copied for the four tokens?
#
#    Three. When the last of the four writes, nobody else holds the block any more. The full blocks stay shared.

tokens, _ = next(steps)
history.record(pool)
print("first tokens", [tokenizer.decode(new) for new in tokens.values()])
print("blocks in use", pool.stats().num_used_blocks)
pn.draw.BlockTables.of(pool, title="After the first token").show("parallel_sampling_first_token.svg")

# %%
# From here on nothing is copied: each sample fills its own blocks, to 40 tokens. The picture has a row for each block
# and a column for each step.

used = [pool.stats().num_used_blocks]
for _ in range(39):
    tokens, _ = next(steps)
    history.record(pool)
    used.append(pool.stats().num_used_blocks)
print("They begin:")
print(*(f"{name}: {tokenizer.decode(new[:28])!r}" for name, new in tokens.items()), sep="\n")
history.show("parallel_sampling_history.svg")

# %%
# What is saved
# -------------
# The counts follow from the lengths alone: the full blocks of the prompt are held once, all others once a sample.


def blocks_by_hand(prompt_len, written, num_samples, block_size):
    """Return the number of blocks in use, and of samples that share nothing, once each has written a token."""
    shared, each = prompt_len // block_size, -(-(prompt_len + written) // block_size)
    return shared + num_samples * (each - shared), num_samples * each


def saving(prompt_len, num_samples, new_tokens=40, block_size=16):
    """Return the percentage of blocks that sharing saves over all steps."""
    steps = [blocks_by_hand(prompt_len, n, num_samples, block_size) for n in range(1, new_tokens + 1)]
    shared, apart = np.sum(steps, axis=0)
    return 100 * (1 - shared / apart)


assert used == [blocks_by_hand(len(prompt), n, 4, 16)[0] for n in range(1, 41)]
print(f"saved here: {saving(len(prompt), 4):.1f} %")
print("prompt tokens", *(f"{prompt_len:6}" for prompt_len in (8, 16, 32, 64, 128, 512)))
for num_samples in (2, 4, 6):
    row = (f"{saving(prompt_len, num_samples):4.1f} %" for prompt_len in (8, 16, 32, 64, 128, 512))
    print(f"{num_samples} samples    ", *row)

# %%
# Kwon et al. (SOSP 2023, section 6.3) report 6.1 to 9.8 % for parallel sampling, with many requests of the Alpaca
# data set at a time. The saving depends on how long the prompt is beside the answers, and only its full blocks count.
#
# **Try next.** Cut off the prompt's last four tokens, so that 64 are left. How many blocks are copied now?
#
# **In the engines.** vLLM samples ``n`` answers as ``n`` requests whose prompt the prefix cache finds
# (``ParentRequest`` in ``vllm/v1/engine/parallel_sampling.py``), so it shares full blocks only, and copies none.
