"""Attention planned on the host: which keys each query token sees, and how the work is divided."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arguments import positive

MIN_SPLIT_TOKENS = 256
"""Keys that a split has at least: fewer do not pay for the merge."""

WAVES = 2
"""Thread blocks for each multiprocessor that splitting aims at."""


ROWS_PER_TILE = 16
"""Query rows that a tile of several query tokens has at most."""

MAX_HEADS = 128
"""Query heads of a KV head that a thread block can hold: a thread has a sum for each."""


class Choice(NamedTuple):
    """An algorithm, and why it was taken.

    Attributes
    ----------
    algorithm : str
        ``tile`` or ``split``.
    num_splits : int
    why : str
    """

    algorithm: str
    num_splits: int
    why: str


def choose(
    seq_lens: Any,
    cu_seqlens_q: Any,
    *,
    num_q_heads: int,
    num_kv_heads: int,
    multiprocessors: int,
    window: int | None = None,
) -> Choice:
    """Choose between the algorithms ``tile`` and ``split``, as ``algorithm="auto"`` of `paged_attention` does.

    Tiles load keys once for all query heads of a KV head, and for neighbouring query tokens. The keys are split where
    tiles and KV heads alone would leave multiprocessors idle.

    Parameters
    ----------
    seq_lens : int[num_seqs]
    cu_seqlens_q : int[num_seqs + 1]
        As `paged_numba.paged_attention` takes them.
    num_q_heads, num_kv_heads : int
    multiprocessors : int
        Of the device.
    window : int, optional

    Returns
    -------
    Choice

    Raises
    ------
    TypeError, ValueError
        A number that is no positive integer, or lengths that do not fit.

    Examples
    --------
    >>> choose([4096], [0, 1], num_q_heads=32, num_kv_heads=8, multiprocessors=132)[:2]
    ('split', 16)
    """
    num_q_heads, num_kv_heads = positive("num_q_heads", num_q_heads), positive("num_kv_heads", num_kv_heads)
    multiprocessors = positive("multiprocessors", multiprocessors)
    window = None if window is None else positive("window", window)
    if num_q_heads % num_kv_heads:
        raise ValueError(
            f"num_q_heads must be a multiple of num_kv_heads={num_kv_heads}, got num_q_heads={num_q_heads}"
        )
    if len(cu_seqlens_q) != len(seq_lens) + 1:
        raise ValueError(
            f"cu_seqlens_q must have shape [{len(seq_lens) + 1}] (len(seq_lens) + 1), got {len(cu_seqlens_q)} numbers"
        )
    chunks = np.diff(np.asarray(cu_seqlens_q, np.int64))
    per_tile = tokens_per_tile(num_q_heads // num_kv_heads)
    tiles = int((-(-chunks // per_tile)).sum())
    longest = int(np.asarray(seq_lens)[chunks > 0].max(initial=0))
    if window is not None:
        longest = min(longest, window)
    thread_blocks, wanted = tiles * num_kv_heads, WAVES * multiprocessors
    count = f"{_count(tiles, 'tile')} of query tokens x {_count(num_kv_heads, 'KV head')}"
    if thread_blocks >= wanted:
        return Choice("tile", 1, f"{count} occupy {multiprocessors} multiprocessors")
    splits = min(-(-wanted // max(1, thread_blocks)), longest // MIN_SPLIT_TOKENS)
    if splits < 2:
        return Choice("tile", 1, f"{count}, and the most keys that one sees, {longest}, are too few to split")
    return Choice(
        "split", splits, f"{count}, too few for {multiprocessors} multiprocessors: {splits} splits each"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def tokens_per_tile(group: int) -> int:
    """Return how many query tokens share a tile: with `group` query heads to a KV head, each is so many rows."""
    return max(1, ROWS_PER_TILE // group)


def query_rows(seq_lens: Any, cu_seqlens_q: Any, causal: bool, window: int | None) -> Any:
    """Return what each query token sees.

    Parameters
    ----------
    seq_lens : int[num_seqs]
    cu_seqlens_q : int[num_seqs + 1]
        The query tokens of sequence s are ``cu_seqlens_q[s] .. cu_seqlens_q[s + 1] - 1``, its last ones.
    causal : bool
        Whether a token sees no key after its own position.
    window : int or None
        A token sees no key at `window` or more positions before its own.

    Returns
    -------
    int32[num_tokens, 5]
        Query token, its sequence, its position, and the keys that it sees: the first and one past the last.
    """
    lens, starts = np.asarray(seq_lens, np.int64), np.asarray(cu_seqlens_q, np.int64)
    counts = np.diff(starts)
    token = np.arange(starts[-1])
    seq = np.repeat(np.arange(len(lens)), counts)
    # Aligned at the end: the last query token stands at the last position.
    position = token - starts[1:][seq] + lens[seq]
    end = np.maximum(position + 1, 0) if causal else lens[seq]
    first = np.zeros_like(token) if window is None else np.maximum(position - min(window, 2**31) + 1, 0)
    return np.stack([token, seq, position, np.minimum(first, end), end], axis=1).astype(np.int32)


def split_rows(rows: Any, num_splits: int, block_size: int) -> Any:
    """Divide the keys of each row into splits of whole blocks.

    Parameters
    ----------
    rows : int32[num_tokens, 5]
        From `query_rows`.
    num_splits : int
        A row with fewer blocks has empty splits.
    block_size : int

    Returns
    -------
    int32[num_tokens * num_splits, 5]
        All splits of a token, then those of the next.
    """
    first, end = rows[:, 3:4].astype(np.int64), rows[:, 4:5].astype(np.int64)
    first_block, end_block = first // block_size, -(-end // block_size)
    per_split = -(-(end_block - first_block) // num_splits)
    edges = (first_block + per_split * np.arange(num_splits + 1)) * block_size
    edges = np.clip(edges, first, np.maximum(first, end))
    splits = np.repeat(rows[:, None, :], num_splits, axis=1)
    splits[:, :, 3], splits[:, :, 4] = edges[:, :-1], edges[:, 1:]
    return splits.reshape(-1, 5)


def shared_tokens(rows: Any, block_tables: Any, block_size: int) -> int:
    """Return how many first tokens lie in the same blocks for all sequences that are attended to.

    Parameters
    ----------
    rows : int32[num_tokens, 5]
        From `query_rows`.
    block_tables : int[num_seqs, max_blocks]
    block_size : int
    """
    seen = rows[rows[:, 3] < rows[:, 4]]
    ends = np.zeros(len(block_tables), np.int64)
    np.maximum.at(ends, seen[:, 1], seen[:, 4])
    tables, ends = block_tables[ends > 0], ends[ends > 0]
    alike = (tables == tables[:1]).all(axis=0)
    num_shared = int(np.logical_and.accumulate(alike).sum()) * block_size
    # What a table holds past the end of its sequence says nothing.
    return int(min(num_shared, ends.min(initial=num_shared)))


def cascade_rows(rows: Any, num_shared: int, tokens: int) -> tuple[Any, Any]:
    """Divide the keys of each row into those that sequences share and the others (cascade attention).

    Parameters
    ----------
    rows : int32[num_tokens, 5]
        From `query_rows`.
    num_shared : int
        The first tokens, from `shared_tokens`.
    tokens : int
        Query tokens of a tile, which may be of several sequences where it sees what they share.

    Returns
    -------
    parts : int32[num_tokens * 2, 5]
        Both parts of a token, then those of the next.
    tiles : int32[num_tiles, 6]
        As from `tile_rows` with two splits.

    References
    ----------
    Ye et al., "Cascade Inference: Memory Bandwidth Efficient Shared Prefix Batch Decoding", 2024.
    """
    seen = rows[rows[:, 3] < rows[:, 4]]
    shared, own = rows.copy(), rows.copy()
    # Any sequence's table will do.
    shared[:, 1] = seen[0, 1] if len(seen) else 0
    shared[:, 4] = np.minimum(rows[:, 4], num_shared)
    shared[:, 3] = np.minimum(rows[:, 3], shared[:, 4])
    own[:, 3] = np.minimum(np.maximum(rows[:, 3], num_shared), rows[:, 4])
    tiles = []
    for part, its_rows in enumerate((shared, own)):
        tiles.append(tile_rows(its_rows, tokens))
        tiles[-1][:, 0] = 2 * tiles[-1][:, 0] + part
    return np.stack([shared, own], axis=1).reshape(-1, 5), np.concatenate(tiles)


def tile_rows(rows: Any, tokens: int, num_splits: int = 1) -> Any:
    """Put up to `tokens` neighbouring query tokens of a sequence into a tile, split by split.

    Parameters
    ----------
    rows : int32[num_tokens * num_splits, 5]
        From `query_rows` or, for several splits, from `split_rows`.
    tokens : int
    num_splits : int

    Returns
    -------
    int32[num_tiles * num_splits, 6]
        First row, from which each next one is `num_splits` rows away; number of rows; the keys that any of them
        sees, and those that all see: the first and one past the last.
    """
    seq = rows[::num_splits, 1]
    place = np.arange(len(seq))
    new_seq = np.diff(seq, prepend=-1) != 0
    place -= np.maximum.accumulate(np.where(new_seq, place, 0))
    begins = np.flatnonzero(place % tokens == 0)
    if not begins.size:
        return np.zeros((0, 6), np.int32)
    sizes = np.diff(begins, append=len(seq))
    # int32[num_tokens, num_splits], each reduced over the tokens of a tile.
    first, end = (rows[:, column].reshape(-1, num_splits) for column in (3, 4))
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
    return np.stack(columns, axis=2).reshape(-1, 6).astype(np.int32)
