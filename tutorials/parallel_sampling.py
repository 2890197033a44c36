"""Parallel sampling: several answers to one prompt, which share its keys and values.

::

    python tutorials/parallel_sampling.py

A request may ask for several answers, to show them side by side or to pick the best. All answers begin with
the same prompt, so their first keys and values are equal. With a contiguous cache, each answer needs its own copy
of them; with block tables, all answers can use the same blocks.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import paged_numba as pn
from paged_numba.draw.text import block_tables, pool_map, reference_counts, table
from paged_numba.serving.toy_model import ToyModel
from paged_numba.tolerances import attention_tolerance

PROMPT = b"Suggest a name for a library that teaches how paged attention works."
NUM_SAMPLES, NEW_TOKENS = 4, 40
NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM = 8, 2, 64
BLOCK_SIZE = 16
TEMPERATURE = 0.5
SEED = 0

LETTERS = np.frombuffer(b" abcdefghijklmnopqrstuvwxyz", np.uint8)
"""Tokens that the model may generate. A token is a byte, and these bytes can be printed."""


@dataclass
class Sample:
    """One of the answers, with a dense copy of its keys and values for the check.

    Attributes
    ----------
    name : str
        Id of the sequence in the cache.
    query : float32[1, num_q_heads, head_dim]
        Query of the last token.
    key, value : float32[seq_len, num_kv_heads, head_dim]
    text : bytes
        Tokens generated so far.
    """

    name: str
    query: Any
    key: Any
    value: Any
    text: bytes = b""


@dataclass
class Checks:
    """Comparisons with dense attention, and failed comparisons.

    Attributes
    ----------
    outputs : int
        Attention outputs that were compared.
    worst : float
        Largest error of an output, divided by the error that float32 rounding explains.
    failures : list of str
    """

    outputs: int = 0
    worst: float = 0.0
    failures: list[str] = field(default_factory=list)

    def output(self, sample: Sample, out: Any) -> None:
        """Compare an attention output, float32[num_q_heads, head_dim], with dense float64 attention."""
        expected = pn.reference.attention(sample.query, sample.key, sample.value)[0]
        allowed = attention_tolerance(sample.query, sample.key, sample.value).out
        share = np.abs(out - expected).max() / allowed
        self.outputs += 1
        self.worst = float(np.maximum(self.worst, share))
        self.require(
            share <= 1, f"{sample.name}: an output is off by {share:.3g} times what rounding explains"
        )

    def stored(self, cache: pn.PagedKVCache, sample: Sample) -> None:
        """Compare all keys and values of a sample, bit for bit."""
        key, value = (pn.arrays.to_host(array) for array in cache.gather(sample.name))
        same = np.array_equal(key, sample.key) and np.array_equal(value, sample.value)
        self.require(same, f"{sample.name}: the keys or values in the cache differ from those written")

    def require(self, holds: Any, failure: str) -> None:
        """Record a failure unless a condition holds."""
        if not holds:
            self.failures.append(failure)


# The algorithm: write the prompt once, fork it, then attend for all samples in one call a step.


def start(cache: pn.PagedKVCache, model: ToyModel, prompt: bytes, num_samples: int) -> list[Sample]:
    """Write the prompt once, and fork it into samples named a, b, c, ..."""
    names = [chr(ord("a") + i) for i in range(num_samples)]
    query, key, value = model.project(np.frombuffer(prompt, np.uint8), 0)
    cache.add(names[0], key, value)
    for name in names[1:]:
        cache.fork(names[0], name)
    return [Sample(name, query[-1:], key, value) for name in names]


def generate(
    cache: pn.PagedKVCache, model: ToyModel, samples: list[Sample], new_tokens: int, seed: int, checks: Checks
) -> Iterator[list[str]]:
    """Generate tokens for each sample; after each step, yield a sentence for each block that was copied."""
    rng = np.random.default_rng(seed)
    for _ in range(new_tokens):
        out = cache.attend([sample.name for sample in samples], np.concatenate([s.query for s in samples]))
        copies = []
        for sample, row in zip(samples, out, strict=True):
            checks.output(sample, row)
            copies += append(cache, model, sample, draw(rng, model, row))
        yield copies


def draw(rng: np.random.Generator, model: ToyModel, out: Any) -> int:
    """Return the next token, drawn from the softmax of the logits."""
    logits = model.logits(out)[LETTERS].astype(np.float64) / TEMPERATURE
    weights = np.exp(logits - logits.max())
    return int(rng.choice(LETTERS, p=weights / weights.sum()))


def append(cache: pn.PagedKVCache, model: ToyModel, sample: Sample, token: int) -> list[str]:
    """Write the key and value of a token; return a sentence if a block was copied first."""
    before = cache.allocator.block_table(sample.name)
    query, key, value = model.project(np.array([token], np.uint8), len(sample.key))
    cache.append(sample.name, key, value)
    after = cache.allocator.block_table(sample.name)[: before.size]

    sample.query = query
    sample.key, sample.value = np.concatenate([sample.key, key]), np.concatenate([sample.value, value])
    sample.text += bytes([token])
    return [
        f"{sample.name} copies block {old} to {new}"
        for old, new in zip(before, after, strict=True)
        if old != new
    ]


# Memory: blocks as the allocator counts them, and by arithmetic.


def blocks_in_use(cache: pn.PagedKVCache) -> tuple[int, int]:
    """Return the number of blocks that the samples use, and that they would use without sharing."""
    pool = cache.allocator
    return pool.stats().num_used_blocks, sum(pool.block_table(name).size for name in pool)


def blocks_by_hand(prompt_len: int, written: int, num_samples: int, block_size: int) -> tuple[int, int]:
    """Return the same two numbers from lengths alone, after each sample has written 1 token or more.

    The full blocks of the prompt stay shared. Its last block, if not full, does not: each sample writes into it.
    """
    shared = prompt_len // block_size
    each = -(-(prompt_len + written) // block_size)
    return shared + num_samples * (each - shared), num_samples * each


def saving(counts: list[tuple[int, int]]) -> float:
    """Return the share of blocks that sharing saves, from (used, without sharing) of each step."""
    used, apart = np.sum(counts, axis=0)
    return float(1 - used / apart)


# The explanation.


def main() -> int:
    """Run and explain; return 0, or 1 if a check failed."""
    model = ToyModel(NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM)
    num_blocks = blocks_by_hand(len(PROMPT), NEW_TOKENS, NUM_SAMPLES, BLOCK_SIZE)[1]
    cache = pn.PagedKVCache(num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM)
    checks = Checks()

    samples = start(cache, model, PROMPT, NUM_SAMPLES)
    explain_fork(cache)
    steps = generate(cache, model, samples, NEW_TOKENS, SEED, checks)
    explain_first_token(cache, next(steps))
    counts = [blocks_in_use(cache)]
    later = []
    for copies in steps:
        later += copies
        counts.append(blocks_in_use(cache))
    explain_texts(cache, samples, len(later))
    explain_memory(counts)

    expected = [blocks_by_hand(len(PROMPT), n, NUM_SAMPLES, BLOCK_SIZE) for n in range(1, NEW_TOKENS + 1)]
    checks.require(counts == expected, "the allocator's count of blocks differs from the arithmetic")
    for sample in samples:
        checks.stored(cache, sample)
        cache.free(sample.name)
    cache.allocator.check()
    checks.require(
        cache.allocator.num_free_blocks == num_blocks, "blocks are still in use after all samples were freed"
    )
    say(
        f"5. The check: {checks.outputs} attention outputs were compared with dense float64 attention (the largest"
        f" error is {checks.worst:.1%} of what float32 rounding explains), the keys and values of {len(samples)}"
        " samples bit for bit with those written, and the number of blocks in each step with arithmetic; all blocks are"
        " free at the end."
    )
    for failure in checks.failures[:10]:
        say(f"FAILED: {failure}")
    say("The check FAILED." if checks.failures else "Passed.")
    return 1 if checks.failures else 0


def explain_fork(cache: pn.PagedKVCache) -> None:
    """Show that a fork shares all blocks of its parent."""
    pool = cache.allocator
    say(
        f"1. A prompt of {len(PROMPT)} tokens (a token is a byte), on the target {cache.target}:"
        f" {PROMPT.decode()!r}. Its keys and values are written once, into {pool.block_table('a').size} blocks of"
        f" {BLOCK_SIZE} tokens. Then `cache.fork` makes {NUM_SAMPLES} samples of it. A fork copies no keys or"
        " values: all block tables hold the same blocks, and each block has a reference count, the number of tables"
        " that hold it."
    )
    show(block_tables(pool, pool))
    show(reference_counts(pool))


def explain_first_token(cache: pn.PagedKVCache, copies: list[str]) -> None:
    """Show which blocks are copied when the samples begin to differ."""
    filled = len(PROMPT) % BLOCK_SIZE
    say("2. Each sample draws its first token, and writes a key and a value for it.")
    if filled:
        say(
            f"The last block of the prompt holds {filled} of {BLOCK_SIZE} tokens, and all samples share it. A sample"
            f" that writes into a shared block first gets a copy of it (copy-on-write): {'; '.join(copies)}. There are"
            f" only {len(copies)} copies for {NUM_SAMPLES} samples: when the last sample writes, no other sample uses"
            " the block."
        )
    else:
        say("The last block of the prompt is full, so each sample takes a new block, and nothing is copied.")
    say("The full blocks are never written again, so they stay shared.")
    show(block_tables(cache.allocator, cache.allocator))
    show(reference_counts(cache.allocator))


def explain_texts(cache: pn.PagedKVCache, samples: list[Sample], num_copies: int) -> None:
    """Show the texts and the blocks that hold them."""
    say(
        f"3. Each sample goes on to {NEW_TOKENS} tokens; a step is one call to `cache.attend` for all samples. The"
        " weights of the model are random, so the text means nothing; the attention is real."
    )
    show(table(["", "text"], [[sample.name, sample.text.decode()] for sample in samples], left=2))
    show(block_tables(cache.allocator, cache.allocator))
    say(
        f"Blocks copied after the first step: {num_copies}. In this map of the pool, each character is a block: + if"
        " several samples share it, a letter if one sample uses it, . if it is free."
    )
    show(pool_map(cache.allocator, {sample.name: sample.name for sample in samples}))


def explain_memory(counts: list[tuple[int, int]]) -> None:
    """Compare the number of blocks with and without sharing."""
    used, apart = counts[-1]
    say(
        f"4. Memory. At the end {used} blocks are in use; {NUM_SAMPLES} samples without sharing would use {apart}. Over"
        f" all {len(counts)} steps, sharing saves {saving(counts):.1%} of the blocks. The vLLM paper (Kwon et al., SOSP"
        " 2023, section 6.3) reports 6.1 - 9.8 % for parallel sampling. The paper serves many requests of the"
        " Alpaca data set at a time with OPT-13B; this script serves one request with one layer, a prompt of"
        f" {len(PROMPT)} tokens, {NUM_SAMPLES} answers of {NEW_TOKENS} and blocks of {BLOCK_SIZE}. Only full blocks of"
        " the prompt stay shared, so the saving depends on the length of the prompt relative to the answers. For"
        f" answers of {NEW_TOKENS} tokens, arithmetic gives:"
    )
    numbers = 2, 4, 6
    rows = []
    for prompt_len in (8, 16, 32, 64, 128, 512):
        row = [str(prompt_len)]
        for number in numbers:
            steps = [blocks_by_hand(prompt_len, n, number, BLOCK_SIZE) for n in range(1, NEW_TOKENS + 1)]
            row.append(f"{saving(steps):.1%}")
        rows.append(row)
    show(table(["prompt tokens", *(f"{number} samples" for number in numbers)], rows))


def say(text: str) -> None:
    """Print a paragraph, wrapped and indented, and an empty line."""
    indent = "" if text[0].isdigit() else "   "
    print(textwrap.fill(text, 100, initial_indent=indent, subsequent_indent="   "), end="\n\n")


def show(text: str) -> None:
    """Print a table, indented, and an empty line."""
    print(textwrap.indent(text, "   "), end="\n\n")


if __name__ == "__main__":
    sys.exit(main())
