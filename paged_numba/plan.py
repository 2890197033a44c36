"""Attention planned on the host: which keys each query token sees, and how the work is divided."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

MIN_SPLIT_TOKENS = 256
"""Tokens that a split has at least: fewer do not pay for the merge."""

WAVES = 2
"""Thread blocks for each multiprocessor that splitting aims at."""


class Choice(NamedTuple):
    """An algorithm, and why it was taken.

    Attributes
    ----------
    algorithm : str
        ``block`` or ``split``.
    num_splits : int
    why : str
    """

    algorithm: str
    num_splits: int
    why: str


def choose(num_tokens: int, num_q_heads: int, longest: int, multiprocessors: int) -> Choice:
    """Choose an algorithm: split the keys where the query tokens and heads alone leave multiprocessors idle.

    Parameters
    ----------
    num_tokens, num_q_heads : int
        A thread block works on one of each.
    longest : int
        Tokens of the longest sequence.
    multiprocessors : int
        Of the device.
    """
    thread_blocks, wanted = num_tokens * num_q_heads, WAVES * multiprocessors
    count = f"{num_tokens} query tokens x {num_q_heads} heads are {thread_blocks} thread blocks"
    if thread_blocks >= wanted:
        return Choice("block", 1, f"{count}, enough for {multiprocessors} multiprocessors")
    splits = min(-(-wanted // max(1, thread_blocks)), longest // MIN_SPLIT_TOKENS)
    if splits < 2:
        return Choice(
            "block", 1, f"{count}, and the longest sequence, of {longest} tokens, is too short to split"
        )
    return Choice(
        "split", splits, f"{count}, too few for {multiprocessors} multiprocessors: {splits} splits each"
    )


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
    first = np.zeros_like(token) if window is None else np.maximum(position - window + 1, 0)
    return np.stack([token, seq, position, np.minimum(first, end), end], axis=1).astype(np.int32)


def split_rows(rows: Any, num_splits: int, block_size: int) -> tuple[Any, Any]:
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
    splits : int32[num_tokens * num_splits, 5]
    starts : int32[num_tokens + 1]
        Where the splits of each token begin.
    """
    first, end = rows[:, 3:4].astype(np.int64), rows[:, 4:5].astype(np.int64)
    first_block, end_block = first // block_size, -(-end // block_size)
    per_split = -(-(end_block - first_block) // num_splits)
    edges = (first_block + per_split * np.arange(num_splits + 1)) * block_size
    edges = np.clip(edges, first, np.maximum(first, end))
    splits = np.repeat(rows[:, None, :], num_splits, axis=1)
    splits[:, :, 3], splits[:, :, 4] = edges[:, :-1], edges[:, 1:]
    starts = np.arange(len(rows) + 1, dtype=np.int32) * num_splits
    return splits.reshape(-1, 5), starts
