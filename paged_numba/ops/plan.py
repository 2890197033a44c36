"""Planning of attention on the host: which keys each query token sees, which algorithm runs, how the work is divided.

`plan_attention` plans a call; `choose` makes the choice of ``algorithm="auto"``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import positive
from ..kernels.columns import (
    NUM_ROW_COLUMNS,
    NUM_TILE_COLUMNS,
    ROW_END,
    ROW_FIRST,
    ROW_POSITION,
    ROW_SEQ,
    ROW_TOKEN,
    TILE_ROW,
)
from ..targets import multiprocessors as multiprocessors_of

MIN_SPLIT_TOKENS = 256
"""Fewest keys of a split: with fewer, a split does not pay for its merge."""

WAVES = 2
"""Number of thread blocks per multiprocessor at which splitting aims."""


ROWS_PER_TILE = 16
"""Most query rows in a tile of several query tokens."""

MAX_HEADS = 128
"""Most query heads of a KV head in a thread block: each thread keeps a sum for each of them."""


FASTEST = {"lockstep": "block", "cudasim": "naive"}
"""The fastest algorithms without a GPU, where a thread costs more than the memory that it reads."""


class Plan(NamedTuple):
    """The plan of one call of attention.

    Attributes
    ----------
    algorithm : str
        The algorithm that runs, never ``auto``.
    rows : int32[num_tokens * num_parts, 5]
        Query tokens and the keys that each sees, part by part; columns in `paged_numba.kernels.columns`.
    tiles : int32[num_tiles, 6] or None
        Groups of rows, each computed by one thread block for each KV head; None for algorithms without tiles.
    num_parts : int
        Number of parts into which the keys of a query token are divided; a kernel merges their results.
    why : str
        The reason for the algorithm, as text.
    """

    algorithm: str
    rows: NDArray[np.int32]
    tiles: NDArray[np.int32] | None
    num_parts: int
    why: str


class Choice(NamedTuple):
    """An algorithm, and why it was chosen.

    Attributes
    ----------
    algorithm : str
    num_splits : int
        Number of parts of the keys; 1 for algorithms other than ``split``.
    why : str
    """

    algorithm: str
    num_splits: int
    why: str


def plan_attention(
    rows: NDArray[np.int32],
    seq_lens: Any,
    cu_seqlens_q: Any,
    block_tables: Any,
    *,
    block_size: int,
    num_q_heads: int,
    num_kv_heads: int,
    window: int | None,
    algorithm: str,
    num_splits: int | None,
    layout: str,
    target: str,
) -> Plan:
    """Plan a call of attention.

    Parameters
    ----------
    rows : int32[num_tokens, 5]
        From `query_rows`.
    seq_lens, cu_seqlens_q, block_tables : int arrays
    block_size, num_q_heads, num_kv_heads : int
    window, algorithm, num_splits, layout
        The arguments of `paged_numba.paged_attention`, checked.
    target : str
        The target that runs, from `paged_numba.targets.resolve`.

    Returns
    -------
    Plan
    """
    if layout == "packed":
        return Plan("packed", rows, None, 1, "packed caches have their own kernel")
    why = f"algorithm={algorithm!r} was requested"
    if algorithm == "auto" or (algorithm == "split" and num_splits is None):
        choice = choose(
            seq_lens,
            cu_seqlens_q,
            num_q_heads=num_q_heads,
            num_kv_heads=num_kv_heads,
            multiprocessors=multiprocessors_of(target),
            window=window,
            target=target if algorithm == "auto" else "cuda",
        )
        num_splits = max(2, choice.num_splits)
        if algorithm == "auto":
            algorithm, why = choice.algorithm, choice.why
    if algorithm in ("naive", "warp", "block"):
        return Plan(algorithm, rows, None, 1, why)
    tokens = tokens_per_tile(num_q_heads // num_kv_heads)
    if algorithm == "tile":
        return Plan(algorithm, rows, tile_rows(rows, tokens), 1, why)
    if algorithm == "split":
        num_parts = num_splits or 1
        parts = split_rows(rows, num_parts, block_size)
        return Plan(algorithm, parts, tile_rows(parts, tokens, num_parts), num_parts, why)
    parts, tiles = cascade_rows(rows, shared_tokens(rows, block_tables, block_size), tokens)
    return Plan(algorithm, parts, tiles, 2, why)


def choose(
    seq_lens: Any,
    cu_seqlens_q: Any,
    *,
    num_q_heads: int,
    num_kv_heads: int,
    multiprocessors: int,
    window: int | None = None,
    target: str = "cuda",
) -> Choice:
    """Choose an algorithm as ``algorithm="auto"`` of `paged_numba.paged_attention` does.

    On a GPU, it chooses tiles, which load keys once for all query heads of a KV head and for neighbouring query tokens.
    It splits the keys if tiles and KV heads alone would leave multiprocessors idle. For a target without a GPU, it
    chooses the fastest algorithm.

    Parameters
    ----------
    seq_lens : int[num_seqs]
    cu_seqlens_q : int[num_seqs + 1]
        As `paged_numba.paged_attention` takes them.
    num_q_heads, num_kv_heads : int
    multiprocessors : int
        Number of multiprocessors of the GPU.
    window : int, optional
    target : {"cuda", "lockstep", "cudasim"}

    Returns
    -------
    Choice

    Raises
    ------
    TypeError, ValueError
        A number is not a positive integer, the lengths do not match, or the target does not exist.

    See Also
    --------
    paged_numba.paged_attention : Runs the chosen algorithm with ``algorithm="auto"``.

    Examples
    --------
    >>> sizes = {"num_q_heads": 32, "num_kv_heads": 8, "multiprocessors": 132}
    >>> choose([4096], [0, 1], **sizes)[:2]
    ('split', 16)
    >>> choose([4096], [0, 1], **sizes, target="lockstep").algorithm
    'block'
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
    if target in FASTEST:
        algorithm = FASTEST[target]
        return Choice(algorithm, 1, f"{algorithm} is the fastest algorithm on the target {target}")
    if target != "cuda":
        raise ValueError(f"target must be one of cuda, {', '.join(FASTEST)}, got target={target!r}")
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
        return Choice("tile", 1, f"{count}, and each token sees at most {longest} keys, too few to split")
    return Choice(
        "split", splits, f"{count}, too few for {multiprocessors} multiprocessors: {splits} splits each"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def tokens_per_tile(group: int) -> int:
    """Return how many query tokens fit in a tile; each contributes `group` rows, one per query head of the KV head."""
    return max(1, ROWS_PER_TILE // group)


def query_rows(seq_lens: Any, cu_seqlens_q: Any, causal: bool, window: int | None) -> NDArray[np.int32]:
    """Return a row for each query token: its position and the keys that it sees.

    Parameters
    ----------
    seq_lens : int[num_seqs]
    cu_seqlens_q : int[num_seqs + 1]
        Query tokens ``cu_seqlens_q[s] .. cu_seqlens_q[s + 1] - 1`` are the last tokens of sequence s.
    causal : bool
        Whether to hide the keys after a token's own position.
    window : int or None
        Hides the keys `window` or more positions before a token's own.

    Returns
    -------
    int32[num_tokens, 5]
        Columns in `paged_numba.kernels.columns`.

    Examples
    --------
    Two tokens of a sequence of 5 and one token of a sequence of 3; each sees the keys up to its own:

    >>> query_rows([5, 3], [0, 2, 3], True, None).tolist()    # token, sequence, position, first key, one past the last
    [[0, 0, 3, 0, 4], [1, 0, 4, 0, 5], [2, 1, 2, 0, 3]]
    """
    lens, starts = np.asarray(seq_lens, np.int64), np.asarray(cu_seqlens_q, np.int64)
    counts = np.diff(starts)
    token = np.arange(starts[-1])
    seq = np.repeat(np.arange(len(lens)), counts)
    # Aligned at the end: the last query token has the last position.
    position = token - starts[1:][seq] + lens[seq]
    end = np.maximum(position + 1, 0) if causal else lens[seq]
    rows = np.empty((len(token), NUM_ROW_COLUMNS), np.int32)
    rows[:, ROW_TOKEN], rows[:, ROW_SEQ], rows[:, ROW_POSITION], rows[:, ROW_END] = token, seq, position, end
    if window is None:
        rows[:, ROW_FIRST] = 0
    else:
        first = np.maximum(position - min(window, 2**31) + 1, 0)
        rows[:, ROW_FIRST] = np.minimum(first, end)
    return rows


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
