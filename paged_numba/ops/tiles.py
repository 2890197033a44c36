"""Division of the work: keys into parts, query tokens into tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.columns import (
    NUM_ROW_COLUMNS,
    NUM_TILE_COLUMNS,
    ROW_END,
    ROW_FIRST,
    ROW_SEQ,
    TILE_ROW,
)

ROWS_PER_TILE = 16
"""Most query rows in a tile of several query tokens."""

MAX_HEADS = 128
"""Most query heads of a KV head in a thread block: each thread keeps a sum for each of them."""


def attention_threads(least: int) -> int:
    """Return the smallest power of two that is at least `least` and at least two warps."""
    return max(64, power_of_two(least))


def power_of_two(count: int) -> int:
    """Return the smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def tokens_per_tile(group: int) -> int:
    """Return how many query tokens fit in a tile; each contributes `group` rows, one per query head of the KV head."""
    return max(1, ROWS_PER_TILE // group)


def split_rows(rows: NDArray[np.int32], num_splits: int, block_size: int) -> NDArray[np.int32]:
    """Divide the keys of each row into splits of whole blocks.

    Parameters
    ----------
    rows : int32[num_tokens, 5]
        From `query_rows`.
    num_splits : int
        Splits of each row; a row with fewer blocks has empty splits.
    block_size : int

    Returns
    -------
    int32[num_tokens * num_splits, 5]
        All splits of the first token, then all splits of the next.
    """
    first, end = (rows[:, column, None].astype(np.int64) for column in (ROW_FIRST, ROW_END))
    first_block, end_block = first // block_size, -(-end // block_size)
    per_split = -(-(end_block - first_block) // num_splits)
    edges = (first_block + per_split * np.arange(num_splits + 1)) * block_size
    edges = np.clip(edges, first, np.maximum(first, end))
    splits = np.repeat(rows[:, None, :], num_splits, axis=1)
    splits[:, :, ROW_FIRST], splits[:, :, ROW_END] = edges[:, :-1], edges[:, 1:]
    return splits.reshape(-1, NUM_ROW_COLUMNS)


def shared_tokens(rows: NDArray[np.int32], block_tables: Any, block_size: int) -> int:
    """Return how many first tokens all sequences with visible keys hold in the same blocks.

    Parameters
    ----------
    rows : int32[num_tokens, 5]
        From `query_rows`.
    block_tables : int[num_seqs, max_blocks]
    block_size : int
    """
    seen = rows[rows[:, ROW_FIRST] < rows[:, ROW_END]]
    ends = np.zeros(len(block_tables), np.int64)
    np.maximum.at(ends, seen[:, ROW_SEQ], seen[:, ROW_END])
    tables, ends = block_tables[ends > 0], ends[ends > 0]
    alike = (tables == tables[:1]).all(axis=0)
    num_shared = int(np.logical_and.accumulate(alike).sum()) * block_size
    # Entries past the end of a sequence mean nothing.
    return int(min(num_shared, ends.min(initial=num_shared)))


def cascade_rows(
    rows: NDArray[np.int32], num_shared: int, tokens: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Divide the keys of each row into keys that all sequences share and other keys (cascade attention).

    Parameters
    ----------
    rows : int32[num_tokens, 5]
        From `query_rows`.
    num_shared : int
        Number of shared first tokens, from `shared_tokens`.
    tokens : int
        Most query tokens in a tile; a tile for shared keys may hold tokens of several sequences.

    Returns
    -------
    parts : int32[num_tokens * 2, 5]
        Both parts of the first token, then both parts of the next.
    tiles : int32[num_tiles, 6]
        As from `tile_rows` with two splits.

    References
    ----------
    Ye et al., "Cascade Inference: Memory Bandwidth Efficient Shared Prefix Batch Decoding", 2024.
    """
    seen = rows[rows[:, ROW_FIRST] < rows[:, ROW_END]]
    shared, own = rows.copy(), rows.copy()
    # All tables begin with the shared blocks: use any of them.
    shared[:, ROW_SEQ] = seen[0, ROW_SEQ] if len(seen) else 0
    shared[:, ROW_END] = np.minimum(rows[:, ROW_END], num_shared)
    shared[:, ROW_FIRST] = np.minimum(rows[:, ROW_FIRST], shared[:, ROW_END])
    own[:, ROW_FIRST] = np.minimum(np.maximum(rows[:, ROW_FIRST], num_shared), rows[:, ROW_END])
    tiles = []
    for part, its_rows in enumerate((shared, own)):
        tiles.append(tile_rows(its_rows, tokens))
        tiles[-1][:, TILE_ROW] = 2 * tiles[-1][:, TILE_ROW] + part
    return np.stack([shared, own], axis=1).reshape(-1, NUM_ROW_COLUMNS), np.concatenate(tiles)


def tile_rows(rows: NDArray[np.int32], tokens: int, num_splits: int = 1) -> NDArray[np.int32]:
    """Group up to `tokens` neighbouring query tokens of a sequence into a tile, for each split.

    Parameters
    ----------
    rows : int32[num_tokens * num_splits, 5]
        From `query_rows` or, for several splits, from `split_rows`.
    tokens : int
    num_splits : int

    Returns
    -------
    int32[num_tiles * num_splits, 6]
        The first row, which other rows of the tile follow at steps of `num_splits`; the number of rows; the range of
        keys that any row sees, and the range that all rows see: the first key and one past the last.
    """
    seq = rows[::num_splits, ROW_SEQ]
    place = np.arange(len(seq))
    new_seq = np.diff(seq, prepend=-1) != 0
    place -= np.maximum.accumulate(np.where(new_seq, place, 0))
    begins = np.flatnonzero(place % tokens == 0)
    if not begins.size:
        return np.zeros((0, NUM_TILE_COLUMNS), np.int32)
    sizes = np.diff(begins, append=len(seq))
    # int32[num_tokens, num_splits], each reduced over the tokens of a tile.
    first, end = (rows[:, column].reshape(-1, num_splits) for column in (ROW_FIRST, ROW_END))
    none = first >= end
    any_first = np.minimum.reduceat(np.where(none, np.iinfo(np.int32).max, first), begins, axis=0)
    any_end = np.maximum.reduceat(np.where(none, 0, end), begins, axis=0)
    all_first, all_end = np.maximum.reduceat(first, begins, axis=0), np.minimum.reduceat(end, begins, axis=0)
    split = np.arange(num_splits)
    columns = np.broadcast_arrays(
        begins[:, None] * num_splits + split,
        sizes[:, None],
        np.minimum(any_first, any_end),
        any_end,
        all_first,
        all_end,
    )
    return np.stack(columns, axis=2).reshape(-1, NUM_TILE_COLUMNS).astype(np.int32)
