"""Planning of attention on the host: which keys each query token sees, which algorithm runs, how the work is divided.

`plan_attention` plans a call; `choose` makes the choice of ``algorithm="auto"``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import one_of, positive, shown
from ..arrays import to_host
from ..targets import multiprocessors as multiprocessors_of
from .checks import check_lengths
from .layouts import excess
from .tiles import attention_threads, cascade_rows, shared_tokens, split_rows, tile_rows, tokens_per_tile
from .visible_keys import query_rows as query_rows  # the first step of a plan

MIN_SPLIT_TOKENS = 256
"""Fewest keys of a split: with fewer, a split does not pay for its merge."""

WAVES = 2
"""Number of thread blocks per multiprocessor at which splitting aims."""


FASTEST = {"lockstep": "block", "cudasim": "naive"}
"""The fastest algorithms without a GPU, where a thread costs more than the memory that it reads."""

LANES = 16384
"""Number of threads up to which lockstep runs more threads in nearly the same time: each statement of a kernel is a
few calls of NumPy, and with fewer threads a call takes longer than the arithmetic in it."""


class Plan(NamedTuple):
    """The plan of one call of attention.

    Attributes
    ----------
    algorithm : str
        The algorithm that runs, never ``auto``.
    rows : int32[num_tokens * num_parts, 5]
        Query tokens and the keys that each sees, part by part; columns in ``paged_numba/kernels/columns.py``.
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
        Number of parts of the keys; 1 for algorithms other than ``split`` and ``block``.
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
    head_dim: int,
    value_head_dim: int,
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
        The arguments of `paged_numba.paged_attention`, checked.
    block_size, num_q_heads, num_kv_heads, head_dim, value_head_dim : int
        Sizes of the cache and of the model.
    window, algorithm, num_splits, layout : int, str, int, str
        The arguments of `paged_numba.paged_attention`, checked.
    target : str
        The target that runs, from `paged_numba.targets.resolve`.

    Returns
    -------
    Plan
        What to launch.
    """
    if layout == "packed":
        return Plan("packed", rows, None, 1, "packed caches have their own kernel")
    why = f"algorithm={algorithm!r} was requested"
    if algorithm == "auto" or (algorithm == "split" and num_splits is None):
        choice = _choose(
            seq_lens,
            cu_seqlens_q,
            num_q_heads,
            num_kv_heads,
            multiprocessors_of(target),
            window,
            target if algorithm == "auto" else "cuda",
            (block_size, head_dim, value_head_dim),
        )
        num_splits = choice.num_splits
        if algorithm == "auto":
            algorithm, why = choice.algorithm, choice.why
        else:
            num_splits = max(2, num_splits)
    num_parts = num_splits or 1
    if algorithm in ("naive", "warp", "block"):
        parts = rows if num_parts == 1 else split_rows(rows, num_parts, block_size)
        return Plan(algorithm, parts, None, num_parts, why)
    tokens = tokens_per_tile(num_q_heads // num_kv_heads)
    if algorithm == "tile":
        return Plan(algorithm, rows, tile_rows(rows, tokens), 1, why)
    if algorithm == "split":
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
    block_size: int = 16,
    head_dim: int = 128,
    value_head_dim: int | None = None,
) -> Choice:
    """Choose an algorithm as ``algorithm="auto"`` of `paged_numba.paged_attention` does.

    On a GPU, it chooses tiles, which load keys once for all query heads of a KV head and for neighbouring query tokens.
    It splits the keys if tiles and KV heads alone would leave multiprocessors idle. For a target without a GPU, it
    chooses the fastest algorithm, or as for a GPU if that algorithm does not take the sizes. On lockstep it splits the
    keys of small batches, which makes the loop over keys shorter: a statement takes nearly the same time for any number
    of threads up to `LANES`.

    Parameters
    ----------
    seq_lens : int[num_seqs]
        As `paged_numba.paged_attention` takes them.
    cu_seqlens_q : int[num_seqs + 1]
        As `paged_numba.paged_attention` takes them.
    num_q_heads, num_kv_heads : int
        Numbers of heads of the model.
    multiprocessors : int
        Number of multiprocessors of the GPU.
    window : int, optional
        As `paged_numba.paged_attention` takes it.
    target : {"cuda", "lockstep", "cudasim"}
        The target that runs.
    block_size, head_dim, value_head_dim : int
        Sizes of the cache; value_head_dim is head_dim if None.

    Returns
    -------
    Choice
        The algorithm, and the reason for it.

    Raises
    ------
    TypeError, ValueError
        A number is not a positive integer, `cu_seqlens_q` does not rise from 0, the lengths do not match, or the target
        does not exist.

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
            f"num_q_heads must be a multiple of num_kv_heads={shown(num_kv_heads)}, "
            f"got num_q_heads={shown(num_q_heads)}"
        )
    lens, starts = to_host(seq_lens, "seq_lens"), to_host(cu_seqlens_q, "cu_seqlens_q")
    check_lengths(lens, starts)
    target = one_of("target", target, ("cuda", *FASTEST))
    sizes = (
        positive("block_size", block_size),
        positive("head_dim", head_dim),
        positive("value_head_dim", head_dim if value_head_dim is None else value_head_dim),
    )
    return _choose(lens, starts, num_q_heads, num_kv_heads, multiprocessors, window, target, sizes)


def _choose(
    seq_lens: Any,
    cu_seqlens_q: Any,
    num_q_heads: int,
    num_kv_heads: int,
    multiprocessors: int,
    window: int | None,
    target: str,
    sizes: tuple[int, int, int],
) -> Choice:
    """Choose as `choose` does, given arguments that were checked; `sizes` are block_size and the two head_dims."""
    too_large = ""
    chunks = np.diff(np.asarray(cu_seqlens_q, np.int64))
    longest = int(np.asarray(seq_lens)[chunks > 0].max(initial=0))
    if window is not None:
        longest = min(longest, window)
    if target in FASTEST:
        algorithm = FASTEST[target]
        found = excess(algorithm, *sizes)
        if found is None:
            why = f"{algorithm} is the fastest algorithm on the target {target}"
            if target == "lockstep":
                return _in_splits(algorithm, why, int(chunks.sum()) * num_q_heads, longest, sizes)
            return Choice(algorithm, 1, why)
        name, size, limit = found
        too_large = f"{name} is {size}, and {algorithm} takes at most {limit}: "
    per_tile = tokens_per_tile(num_q_heads // num_kv_heads)
    tiles = int((-(-chunks // per_tile)).sum())
    thread_blocks, wanted = tiles * num_kv_heads, WAVES * multiprocessors
    count = f"{too_large}{_count(tiles, 'tile')} of query tokens x {_count(num_kv_heads, 'KV head')}"
    if thread_blocks >= wanted:
        return Choice("tile", 1, f"{count} occupy {multiprocessors} multiprocessors")
    splits = min(-(-wanted // max(1, thread_blocks)), longest // MIN_SPLIT_TOKENS)
    if splits < 2:
        return Choice("tile", 1, f"{count}, and each token sees at most {longest} keys, too few to split")
    return Choice(
        "split", splits, f"{count}, too few for {multiprocessors} multiprocessors: {splits} splits each"
    )


def _in_splits(
    algorithm: str, why: str, thread_blocks: int, longest: int, sizes: tuple[int, int, int]
) -> Choice:
    """Split the keys, tile by tile of a thread block's loop, among as many thread blocks as `LANES` allows."""
    threads = attention_threads(max(sizes))
    tiles = -(-longest // (threads // sizes[0] * sizes[0]))
    most = min(tiles, LANES // max(1, thread_blocks * threads))
    if most < 2:
        return Choice(algorithm, 1, why)
    splits = -(-tiles // -(-tiles // most))
    return Choice(
        algorithm, splits, f"{why}; {thread_blocks * threads} threads are few: {splits} splits each"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
