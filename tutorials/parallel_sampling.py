"""
Parallel sampling
=================

**How do several answers to one prompt share its keys and values?** A user may ask for four answers, to choose from. In
dense memory each answer needs its own copy of the prompt's keys and values. You will see four block tables that name
the same blocks, the copies that are made when the answers part, and what is saved in the end. This is a worked example
behind lesson 14.
"""

# %%
# The loop of a server, for one prompt. The prompt is written once and forked; then each step is one call of
# ``attend`` for all samples, and one new token for each. The model has random weights: its text means nothing, its
# attention is real. A token is a byte, drawn from the letters.

import numpy as np

import paged_numba as pn
from paged_numba.serving.toy.model import ToyModel

LETTERS = np.frombuffer(b" abcdefghijklmnopqrstuvwxyz", np.uint8)
TEMPERATURE = 0.5


def draw(rng, model, out):
    """Return the next token of a sample, uint8[1], drawn from the softmax of the logits."""
    logits = model.logits(out)[LETTERS].astype(np.float64) / TEMPERATURE
    weights = np.exp(logits - logits.max())
    return rng.choice(LETTERS, 1, p=weights / weights.sum())


def sample(cache, model, prompt, names, seed):
    """Yield the samples' texts and the last attention output, after the fork and after each further token."""
    rng = np.random.default_rng(seed)
    query, key, value = model.project(np.frombuffer(prompt, np.uint8), 0)
    cache.add(names[0], key, value)
    for name in names[1:]:
        cache.fork(names[0], name)
    texts, queries, out = dict.fromkeys(names, b""), dict.fromkeys(names, query[-1:]), None
    while True:
        yield dict(texts), out
        out = cache.attend(names, np.concatenate([queries[name] for name in names]))
        for name, row in zip(names, out, strict=True):
            token = draw(rng, model, row)
            queries[name], key, value = model.project(token, len(prompt) + len(texts[name]))
            cache.append(name, key, value)  # if this goes into a shared block, that is copied first
            texts[name] += token.tobytes()


# %%
# The fork
# --------
# A :term:`fork` copies the block table, not the blocks. Each block has a reference count, the number of tables that
# name it.
#
# .. dropdown:: Predict: the prompt has 68 tokens and a block 16. How many blocks are in use after the fork?
#
#    5, as for a single sample: four full blocks, and one with 4 tokens. Each has the reference count 4.

PROMPT = b"Suggest a name for a library that teaches how paged attention works."
names = ["a", "b", "c", "d"]
cache = pn.PagedKVCache(num_blocks=16, block_size=16, num_kv_heads=2, head_dim=64)
pool, history = cache.allocator, pn.draw.PoolHistory()
steps = sample(cache, ToyModel(num_q_heads=8, num_kv_heads=2, head_dim=64), PROMPT, names, seed=0)
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

texts, _ = next(steps)
history.record(pool)
print("first tokens", [*texts.values()], "blocks in use", pool.stats().num_used_blocks)
pn.draw.BlockTables.of(pool, title="After the first token").show("parallel_sampling_first_token.svg")

# %%
# From here on nothing is copied: each sample fills its own blocks, to 40 tokens. The picture has a row for each block
# and a column for each step.

used = [pool.stats().num_used_blocks]
for _ in range(39):
    texts, _ = next(steps)
    history.record(pool)
    used.append(pool.stats().num_used_blocks)
print(*(f"{name}: {text.decode()!r}" for name, text in texts.items()), sep="\n")
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


assert used == [blocks_by_hand(len(PROMPT), n, 4, 16)[0] for n in range(1, 41)]
print(f"saved here: {saving(len(PROMPT), 4):.1f} %")
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
