"""Hypothesis strategies for paged attention: awkward lengths, scattered blocks, poisoned free slots.

Shapes are drawn by Hypothesis and shrink towards one sequence, one head and blocks of one token; numbers
come from a generator with a drawn seed, since single floats are not what fails here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

BLOCK_SIZES = (1, 2, 3, 4, 5, 8, 16)
HEAD_DIMS = (1, 2, 3, 5, 8, 13, 16, 40, 64, 80)
GARBAGE = (-1, -7, 2**31 - 1)
"""What stands in a block table behind a sequence's blocks."""


@dataclass(frozen=True, eq=False)
class PagedBatch:
    """A batch in paged and in dense form.

    Attributes
    ----------
    query : float32[num_seqs, num_q_heads, head_dim]
    key_cache, value_cache : float32[num_blocks, block_size, num_kv_heads, head_dim]
        NaN in every slot that no sequence owns.
    block_tables : int32[num_seqs, max_blocks]
        Scattered; garbage behind each sequence's blocks.
    seq_lens : int32[num_seqs]
    keys, values : list of float32[seq_len, num_kv_heads, head_dim]
        The same, dense, by sequence.
    scale : float or None
    """

    query: Any
    key_cache: Any
    value_cache: Any
    block_tables: Any
    seq_lens: Any
    keys: list[Any]
    values: list[Any]
    scale: float | None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(
            f"PagedBatch(query{self.query.shape}, caches{self.key_cache.shape}, "
            f"seq_lens={self.seq_lens.tolist()}, block_tables={self.block_tables.tolist()}, scale={self.scale})"
        )


def lengths(block_size: int) -> st.SearchStrategy[int]:
    """Draw a number of tokens, often at a block boundary or beside it; shrinks towards 0.

    Some are longer than a tile of the block kernel, which has 64 tokens or the most whole blocks below.
    """
    tile = 64 // block_size * block_size
    bases = [k * block_size for k in range(1, 5)] + [tile, tile + block_size, 2 * tile]
    boundaries = {0, 1} | {base + d for base in bases for d in (-1, 0, 1)}
    return st.one_of(st.sampled_from(sorted(boundaries)), st.integers(0, 4 * block_size))


seeds = st.integers(0, 2**32 - 1)
"""Of a NumPy generator; shrinks towards 0."""


@st.composite
def paged_batches(draw: st.DrawFn) -> PagedBatch:
    """Draw a batch: one query token a sequence, scores from flat to very peaky, all blocks scattered."""
    block_size = draw(st.sampled_from(BLOCK_SIZES), label="block_size")
    head_dim = draw(st.sampled_from(HEAD_DIMS), label="head_dim")
    num_kv_heads = draw(st.integers(1, 3), label="num_kv_heads")
    group = draw(st.integers(1, 4), label="query heads of a KV head")
    seq_lens = draw(st.lists(lengths(block_size), min_size=1, max_size=4), label="seq_lens")
    spare = draw(st.integers(0, 3), label="free blocks")
    peak = draw(st.sampled_from((3.0, 1.0, 10.0, 60.0, 0.0)), label="standard deviation of the scores")
    scale = draw(st.sampled_from((None, 0.25, -0.5)), label="scale")
    rng = np.random.default_rng(draw(seeds, label="seed"))

    per_seq = [-(-n // block_size) for n in seq_lens]
    max_blocks = max(1, *per_seq)
    num_blocks = max(1, sum(per_seq) + spare)
    free = rng.permutation(num_blocks).tolist()
    # Places behind a sequence's blocks hold garbage, in some sequences a block of another one.
    block_tables = rng.choice([*GARBAGE, 0], (len(seq_lens), max_blocks)).astype(np.int32)
    caches = np.full((2, num_blocks, block_size, num_kv_heads, head_dim), np.nan, np.float32)
    dense = []
    for seq, (length, count) in enumerate(zip(seq_lens, per_seq, strict=True)):
        blocks = [free.pop() for _ in range(count)]
        block_tables[seq, :count] = blocks
        # A mean differs from any one value, and the values are of one size.
        tokens = rng.standard_normal((2, length, num_kv_heads, head_dim)).astype(np.float32)
        for position in range(length):
            caches[:, blocks[position // block_size], position % block_size] = tokens[:, position]
        dense.append(tokens)
    query = rng.standard_normal((len(seq_lens), num_kv_heads * group, head_dim)) * peak
    if scale is not None:
        query /= abs(scale) * np.sqrt(head_dim)
    return PagedBatch(
        query.astype(np.float32),
        caches[0],
        caches[1],
        block_tables,
        np.array(seq_lens, np.int32),
        [tokens[0] for tokens in dense],
        [tokens[1] for tokens in dense],
        scale,
    )


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens, the slots that they go to, and caches full of other numbers.

    Attributes
    ----------
    key, value : float32[num_tokens, num_kv_heads, head_dim]
    caches : float32[2, num_blocks, block_size, num_kv_heads, head_dim]
        Keys, then values.
    slots : int64[num_tokens]
        All different but for -1, which skips a token.
    """

    key: Any
    value: Any
    caches: Any
    slots: Any

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"Tokens(key{self.key.shape}, caches{self.caches.shape}, slots={self.slots.tolist()})")


@st.composite
def tokens_to_write(draw: st.DrawFn) -> Tokens:
    """Draw tokens for scattered slots, the first and the last of the pool among them often."""
    block_size = draw(st.sampled_from(BLOCK_SIZES), label="block_size")
    num_blocks = draw(st.integers(1, 5), label="num_blocks")
    num_slots = num_blocks * block_size
    num_tokens = draw(st.integers(0, num_slots), label="num_tokens")
    num_kv_heads = draw(st.sampled_from((1, 2, 3, 9)), label="num_kv_heads")
    head_dim = draw(st.sampled_from((*HEAD_DIMS, 300)), label="head_dim")
    skipped = draw(st.sampled_from((0.0, 0.3, 1.0)), label="share of skipped tokens")
    rng = np.random.default_rng(draw(seeds, label="seed"))
    slots = rng.permutation(num_slots)[:num_tokens].astype(np.int64)
    slots[rng.random(num_tokens) < skipped] = -1
    key, value = rng.standard_normal((2, num_tokens, num_kv_heads, head_dim)).astype(np.float32)
    caches = rng.standard_normal((2, num_blocks, block_size, num_kv_heads, head_dim)).astype(np.float32)
    return Tokens(key, value, caches, slots)
