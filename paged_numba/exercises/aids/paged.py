"""Paged caches for tasks: scattered blocks, and NaN in every slot without a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...draw.picture import Picture
from ...draw.pools.token_path import TokenPath

SPARE = 1
"""Blocks of each pool that no sequence has. Not more: block 0 has tokens then, so that a kernel which leaves out the
block table reads tokens, and not what a kernel reads that goes beyond the end of a sequence."""


def block_tables_of(seq_lens: Sequence[int], block_size: int, seed: int) -> Any:
    """Return block tables whose blocks are scattered over a pool.

    Entries behind the last block of a sequence are left over from another one: a block that is free now.

    Parameters
    ----------
    seq_lens : sequence of int
        Tokens of each sequence.
    block_size : int
    seed : int
        Decides which blocks each sequence has; with 0, they count down through the pool.

    Returns
    -------
    int32[num_seqs, columns]
        With a column more than the longest sequence needs.
    """
    needed = [-(-seq_len // block_size) for seq_len in seq_lens]
    num_blocks = sum(needed) + SPARE
    blocks = [*range(num_blocks)]
    if seed:
        np.random.default_rng(seed).shuffle(blocks)
    tables = np.full((len(needed), 1 + max(needed, default=0)), blocks.pop(), np.int32)
    for table, count in zip(tables, needed, strict=True):
        table[:count] = [blocks.pop() for _ in range(count)]
    return tables


def num_blocks_of(seq_lens: Sequence[int], block_size: int) -> int:
    """Return the number of blocks of the pool of `block_tables_of`."""
    return sum(-(-seq_len // block_size) for seq_len in seq_lens) + SPARE


def paged(dense: Sequence[Any], tables: Any, block_size: int) -> Any:
    """Return a cache that holds the rows of some sequences at the slots of their tokens, and NaN elsewhere.

    Parameters
    ----------
    dense : sequence of float[seq_len, ...]
        Rows of each sequence.
    tables : int32[num_seqs, columns]
        As from `block_tables_of`.
    block_size : int

    Returns
    -------
    float32[num_blocks, block_size, ...]
    """
    num_blocks = num_blocks_of([len(rows) for rows in dense], block_size)
    cache = np.full((num_blocks, block_size, *dense[0].shape[1:]), np.nan, np.float32)
    for table, rows in zip(tables, dense, strict=True):
        block, offset = np.divmod(np.arange(len(rows)), block_size)
        cache[table[block], offset] = rows
    return cache


def way_to(tables: Any, seq_lens: Sequence[int], block_size: int, seq: int, position: int) -> Picture:
    """Return the picture of a token's way to its slot."""
    seq_len = int(seq_lens[seq])
    num_blocks = num_blocks_of(seq_lens, block_size)
    return TokenPath(f"sequence {seq}", position, tables[seq].tolist(), seq_len, num_blocks, block_size)
