"""Parallel sampling: several answers to one prompt, whose keys and values are stored once.

::

    python tutorials/parallel_sampling.py

A request may ask for several answers, to show them side by side or to pick the best. They begin with
the same prompt, so their first keys and values are the same. With a contiguous cache each answer needs a
copy of them; with block tables, all of the answers can name the same blocks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import paged_numba as pn
from paged_numba.tables import block_tables, pool_map, reference_counts, table
from paged_numba.testing.tolerances import attention_tolerance
from paged_numba.toy_model import ToyModel

PROMPT = b"Suggest a name for a library that teaches how paged attention works."
NUM_SAMPLES, NEW_TOKENS = 4, 40
NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM = 8, 2, 64
BLOCK_SIZE = 16
TEMPERATURE = 0.5
SEED = 0

LETTERS = np.frombuffer(b" abcdefghijklmnopqrstuvwxyz", np.uint8)
"""What the model may write. A token is a byte, and these ones can be printed."""


@dataclass
class Sample:
    """One of the answers, with a dense copy of its keys and values that only the check looks at.

    Attributes
    ----------
    name : str
        Its id in the cache.
    query : float32[1, num_q_heads, head_dim]
        Of the last token.
    key, value : float32[seq_len, num_kv_heads, head_dim]
    text : bytes
        What it has written so far.
    """

    name: str
    query: Any
    key: Any
    value: Any
    text: bytes = b""


@dataclass
class Checks:
    """What was compared, and what disagreed.

    Attributes
    ----------
    outputs : int
        Attention outputs compared with dense attention.
    worst : float
        Largest error of one, as a share of what float32 rounding explains.
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

    def require(self, holds: Any, failure: str) -> None:
        """Record a failure unless something holds."""
        if not holds:
            self.failures.append(failure)


# The algorithm: one prefill, forks, and then each step one call to the attention kernel for all samples.


def start(cache: pn.PagedKVCache, model: ToyModel, prompt: bytes, num_samples: int) -> list[Sample]:
    """Write the prompt once and fork it into samples named a, b, c, ..."""
    names = [chr(ord("a") + i) for i in range(num_samples)]
    query, key, value = model.project(np.frombuffer(prompt, np.uint8), 0)
    cache.add(names[0], key, value)
    for name in names[1:]:
        cache.fork(names[0], name)
    return [Sample(name, query[-1:], key, value) for name in names]


def generate(
    cache: pn.PagedKVCache, model: ToyModel, samples: list[Sample], new_tokens: int, seed: int, checks: Checks
) -> Iterator[list[str]]:
    """Let each sample write tokens of its own; yield after each step which blocks were copied."""
    rng = np.random.default_rng(seed)
    for _ in range(new_tokens):
        out = cache.attend([sample.name for sample in samples], np.concatenate([s.query for s in samples]))
        copies = []
        for sample, row in zip(samples, out, strict=True):
            checks.output(sample, row)
            copies += append(cache, model, sample, draw(rng, model, row))
        yield copies


def draw(rng: np.random.Generator, model: ToyModel, out: Any) -> int:
    """Draw the next token from the softmax of the logits."""
    logits = model.logits(out)[LETTERS].astype(np.float64) / TEMPERATURE
    weights = np.exp(logits - logits.max())
    return int(rng.choice(LETTERS, p=weights / weights.sum()))


def append(cache: pn.PagedKVCache, model: ToyModel, sample: Sample, token: int) -> list[str]:
    """Write a token's key and value; return which block was copied to do so, if one was."""
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


# Memory: what the allocator counts, and the same by hand.


def blocks_in_use(cache: pn.PagedKVCache) -> tuple[int, int]:
    """Return how many blocks the samples take, and how many they would take if they shared none."""
    pool = cache.allocator
    return pool.stats().num_used_blocks, sum(pool.block_table(name).size for name in pool)


def blocks_by_hand(prompt_len: int, written: int, num_samples: int, block_size: int) -> tuple[int, int]:
    """Return the same from lengths alone, once all samples have written tokens (1 or more).

    The full blocks of the prompt are shared for good. Its part-filled block is not: each sample writes there.
    """
    shared = prompt_len // block_size
    each = -(-(prompt_len + written) // block_size)
    return shared + num_samples * (each - shared), num_samples * each


def saving(counts: list[tuple[int, int]]) -> float:
    """Return the part of the blocks that sharing saves, averaged over steps: (used, without sharing) each."""
    used, apart = np.sum(counts, axis=0)
    return float(1 - used / apart)


def main() -> int:
    """Tell the story; return 0, or 1 if a check failed."""
    model = ToyModel(NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM)
    num_blocks = blocks_by_hand(len(PROMPT), NEW_TOKENS, NUM_SAMPLES, BLOCK_SIZE)[1]
    cache = pn.PagedKVCache(num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM)
    pool = cache.allocator
    checks = Checks()

    print(f"1. A prompt of {len(PROMPT)} tokens (a token is a byte), on the target {cache.target}:\n")
    print(f"   {PROMPT.decode()}\n")
    samples = start(cache, model, PROMPT, NUM_SAMPLES)
    print(
        f"   Its keys and values are written once, into {pool.block_table('a').size} blocks of {BLOCK_SIZE} tokens."
    )
    print(f"   Then `cache.fork` makes {NUM_SAMPLES} samples of it. A fork copies no key and no value:")
    print("   every block table names the same blocks, and each block counts its tables.\n")
    show(block_tables(pool, pool))
    show(reference_counts(pool))

    print("2. Each sample draws its first token, and has to write a key and a value of its own.\n")
    steps = generate(cache, model, samples, NEW_TOKENS, SEED, checks)
    copies = next(steps)
    counts = [blocks_in_use(cache)]
    if len(PROMPT) % BLOCK_SIZE:
        print(
            f"   The last block of the prompt holds {len(PROMPT) % BLOCK_SIZE} of {BLOCK_SIZE} tokens, and all share it."
        )
        print("   Whoever writes into a shared block gets a copy first (copy-on-write):\n")
        show("\n".join(copies))
        print(
            f"   {len(copies)} copies for {NUM_SAMPLES} samples: the last one is alone with the block by then, and keeps it."
        )
    else:
        print("   The prompt fills its last block: each sample takes a new one, and nothing is copied.")
    print("   The full blocks are never written again, and stay shared to the end.\n")
    show(block_tables(pool, pool))
    show(reference_counts(pool))

    later = 0
    for copies in steps:
        later += len(copies)
        counts.append(blocks_in_use(cache))
    print(
        f"3. They write on, {NEW_TOKENS} tokens each. A step is one call to `cache.attend` for all {NUM_SAMPLES} samples."
    )
    print("   The weights of the model are random, so the text means nothing; the attention is real.\n")
    show(table(["", "text"], [[sample.name, sample.text.decode()] for sample in samples], left=2))
    show(block_tables(pool, pool))
    print(
        f"   Copies on write after the first step: {later}. The pool, where + is a shared block and . a free one:\n"
    )
    show(pool_map(pool, {sample.name: sample.name for sample in samples}))

    used, apart = counts[-1]
    print(
        f"4. Memory. At the end {used} blocks are in use; {NUM_SAMPLES} samples that share nothing take {apart}."
    )
    print(f"   Averaged over the {NEW_TOKENS} steps, sharing saves {saving(counts):.1%} of the blocks.")
    print(
        "   The vLLM paper (Kwon et al., SOSP 2023, section 6.3) reports 6.1 - 9.8 % for parallel sampling."
    )
    print(
        "   It serves OPT-13B to the requests of the Alpaca data set, many at a time; here is one request, one layer"
    )
    print(
        "   and one prompt, long beside its answers. Only full blocks of the prompt stay shared, so its length decides."
    )
    print(f"   The saving for answers of {NEW_TOKENS} tokens, by arithmetic:\n")
    show(savings_table((8, 16, 32, 64, 128, 512), (2, 4, 6)))
    expected = [
        blocks_by_hand(len(PROMPT), step, NUM_SAMPLES, BLOCK_SIZE) for step in range(1, NEW_TOKENS + 1)
    ]
    checks.require(counts == expected, "the allocator counts other blocks than the arithmetic")

    for sample in samples:
        key, value = (pn.target.to_host(array) for array in cache.gather(sample.name))
        same = np.array_equal(key, sample.key) and np.array_equal(value, sample.value)
        checks.require(same, f"{sample.name}: the keys or values in the cache are not those written")
        cache.free(sample.name)
    pool.check()
    checks.require(pool.num_free_blocks == num_blocks, "blocks are left over after all samples were freed")
    print(
        f"5. The check: {checks.outputs} attention outputs against dense float64 attention (the largest error is"
    )
    print(
        f"   {checks.worst:.0%} of what float32 rounding explains), the keys and values of {NUM_SAMPLES} samples bit for bit,"
    )
    print("   the blocks of each step against arithmetic, and that all blocks are free at the end.")
    for failure in checks.failures[:10]:
        print(f"   FAILED: {failure}")
    print("   The check FAILED." if checks.failures else "   Passed.")
    return 1 if checks.failures else 0


def savings_table(prompt_lens: tuple[int, ...], numbers: tuple[int, ...]) -> str:
    """Return the average saving for each length of the prompt and number of samples."""
    rows = []
    for prompt_len in prompt_lens:
        row = [f"{prompt_len}"]
        for number in numbers:
            steps = range(1, NEW_TOKENS + 1)
            row.append(f"{saving([blocks_by_hand(prompt_len, n, number, BLOCK_SIZE) for n in steps]):.1%}")
        rows.append(row)
    return table(["prompt tokens", *(f"{number} samples" for number in numbers)], rows)


def show(text: str) -> None:
    """Print a table, indented, and an empty line."""
    print(*(f"   {line}" for line in text.splitlines()), "", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
