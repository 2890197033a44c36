"""Public operations on paged KV caches: validate, pick a kernel, launch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import targets
from ..arrays import as_array, empty, to_host
from . import checks, plan
from .adopt import as_nhd, integers
from .launches import Attention

ALGORITHMS = ("auto", "naive", "warp", "block", "tile", "split", "cascade")
"""Of attention. A thread for each query token and head; a warp for each; a thread block for each; one for neighbouring
query tokens and all heads of a KV head; several for their keys; one for what sequences share and one for the rest."""

_WARP = 32


def paged_attention(
    query: Any,
    key_cache: Any,
    value_cache: Any,
    block_tables: Any,
    seq_lens: Any,
    *,
    cu_seqlens_q: Any = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    k_scale: Any = None,
    v_scale: Any = None,
    return_lse: bool = False,
    out: Any = None,
    algorithm: str = "auto",
    num_splits: int | None = None,
    layout: str = "NHD",
    target: str = "auto",
) -> Any:
    """Attend from the last tokens of each sequence to the keys and values in its blocks.

    Decode, prefill, chunked prefill and any mix of them are one call. Options act on a score in this order:
    scale, softcap, ALiBi, and what causality and window hide; `paged_numba.reference.attention` is the
    definition. Sums are made in float32 whatever the dtypes.

    Parameters
    ----------
    query : float32, float16 or bfloat16[num_tokens, num_q_heads, head_dim]
        num_q_heads is a multiple of num_kv_heads; head_dim is 256 at most.
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
        float32, float16, bfloat16 or float8_e4m3fn, both alike; strided views are taken as they are. block_size is
        256 at most.
    block_tables : int32[num_seqs, max_blocks]
        Each sequence's blocks in order; entries of blocks that no query token sees are not looked at.
    seq_lens : int32[num_seqs]
        Tokens of each sequence in the cache, this step's included: write first, then attend.
    cu_seqlens_q : int32[num_seqs + 1], optional
        The query tokens of sequence s are ``cu_seqlens_q[s] .. cu_seqlens_q[s + 1] - 1``, its last ones.
        One query token a sequence (decode) if None.
    scale : float, optional
        Factor of the scores; ``1 / sqrt(head_dim)`` if None.
    causal : bool
        Whether a token sees no key after its own position. Aligned at the end: token i of a chunk of m, in a
        sequence of length n, stands at position ``n - m + i``.
    window : int, optional
        A token sees no key at `window` or more positions before its own (sliding window).
    softcap : float, optional
        Bound of the scores: ``softcap * tanh(score / softcap)``.
    alibi_slopes : float[num_q_heads], optional
        Added to a score: the head's slope times the key's position less the token's (ALiBi).
    sinks : float[num_q_heads], optional
        A score for each head that adds to the denominator, with no value (attention sinks).
    k_scale, v_scale : float or float[num_kv_heads], optional
        What keys and values in the cache are to be multiplied with; for float8_e4m3fn, whose largest number is 448.
    return_lse : bool
        Whether to return the LSE as well.
    out : [num_tokens, num_q_heads, head_dim], optional
        Where to put the result, of the query's dtype.
    algorithm : {"auto", "naive", "warp", "block", "tile", "split", "cascade"}
        How; `paged_numba.plan.choose` says what ``auto`` takes, and why. ``tile`` loads each element of K and V once
        for up to 128 heads of a KV head, and for neighbouring tokens up to 16 query rows in all. ``cascade`` attends
        to the first blocks that all sequences share once for tokens of several sequences, then to each one's own, and
        merges. The layout ``packed`` takes ``auto`` only, which is `attention_packed` there: the other kernels read a
        token's row, and it has none.
    num_splits : int, optional
        Into how many parts ``split`` divides the keys of each token; chosen if None.
    layout : {"NHD", "HND", "packed"}
        The caches' axes, see `paged_numba.layouts`; those of this docstring are ``NHD``.
    target : str
        See `paged_numba.target.resolve`.

    Returns
    -------
    out : [num_tokens, num_q_heads, head_dim]
        Of the query's dtype; 0 for a token that sees no key.
    lse : float32[num_tokens, num_q_heads]
        Only with `return_lse`: natural logarithm of the sum of exponentiated scores; -inf for no key.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape, block number, length or option that does not fit.

    References
    ----------
    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
    SOSP 2023.
    """
    stored = key_cache, value_cache
    key_cache, value_cache = as_nhd(key_cache, value_cache, layout)
    given, query = query, as_array(query, "query")
    tables, lens = to_host(block_tables, "block_tables"), to_host(seq_lens, "seq_lens")
    starts = to_host(cu_seqlens_q, "cu_seqlens_q")
    checks.check_paged_attention(query, key_cache, value_cache, tables, lens, starts, as_array(out, "out"))
    num_tokens, num_q_heads, head_dim = query.shape
    num_kv_heads = key_cache.shape[2]
    slopes, sink_scores = to_host(alibi_slopes, "alibi_slopes"), to_host(sinks, "sinks")
    checks.check_attention_options(
        num_q_heads, scale, window, softcap, slopes, sink_scores, causal=causal, return_lse=return_lse
    )
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got algorithm={algorithm!r}")
    checks.check_layout_algorithm(layout, algorithm)
    checks.check_num_splits(num_splits, algorithm)
    window, num_splits = (None if number is None else int(number) for number in (window, num_splits))
    scales = [
        checks.cache_scale(name, to_host(factor, name), num_kv_heads)
        for name, factor in (("k_scale", k_scale), ("v_scale", v_scale))
    ]
    if starts is None:
        starts = np.arange(num_tokens + 1)
    rows = plan.query_rows(lens, starts, causal, window)
    checks.check_seen_blocks(tables, lens, rows, key_cache.shape[0], key_cache.shape[1])
    if out is None:
        out = empty(query.shape, query.dtype, like=given)
    lse = empty((num_tokens, num_q_heads), np.float32, like=given)
    target = targets.resolve(target)
    num_parts = num_splits or 1
    if layout == "packed":
        algorithm = "packed"
    elif num_splits is None and algorithm in ("auto", "split"):
        choice = plan.choose(
            lens,
            starts,
            num_q_heads=num_q_heads,
            num_kv_heads=num_kv_heads,
            multiprocessors=targets.multiprocessors(target),
            window=window,
        )
        algorithm = choice.algorithm if algorithm == "auto" else algorithm
        num_parts = max(2, choice.num_splits)
    by_head = np.zeros(num_q_heads, np.float32)
    launched = Attention(
        query,
        (
            *(stored if layout == "packed" else (key_cache, value_cache)),
            integers(block_tables, tables, np.int32),
        ),
        by_head if slopes is None else slopes.astype(np.float32),
        by_head - np.inf if sink_scores is None else sink_scores.astype(np.float32),
        scales,
        np.float32(1 / math.sqrt(head_dim) if scale is None else scale),
        np.float32(0 if softcap is None else softcap),
        target,
    )
    per_tile = plan.tokens_per_tile(num_q_heads // num_kv_heads)
    if algorithm == "naive":
        launched.naive(out, lse, rows)
    elif algorithm == "warp":
        launched.warp(out, lse, rows)
    elif algorithm == "block":
        launched.block(out, lse, rows)
    elif algorithm == "packed":
        launched.packed(out, lse, rows)
    elif algorithm == "tile":
        launched.tiles(out, lse, rows, plan.tile_rows(rows, per_tile))
    elif algorithm == "split":
        splits = plan.split_rows(rows, num_parts, key_cache.shape[1])
        launched.parts(out, lse, splits, plan.tile_rows(splits, per_tile, num_parts), num_parts)
    else:
        shared = plan.shared_tokens(rows, tables, key_cache.shape[1])
        launched.parts(out, lse, *plan.cascade_rows(rows, shared, per_tile), 2)
    return (out, lse) if return_lse else out


def merge_states(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any, *, target: str = "auto") -> tuple[Any, Any]:
    """Combine attention over two disjoint sets of keys into attention over both.

    Attention to a prefix that many sequences share can so be computed once (cascade attention). Merging with
    a set without keys, of LSE -inf, changes nothing, whatever its output holds. Sinks count in one of the two.

    Parameters
    ----------
    out_a, out_b : float32, float16 or bfloat16[num_tokens, num_q_heads, head_dim]
        Both alike.
    lse_a, lse_b : float32[num_tokens, num_q_heads]
        Natural logarithms.
    target : str
        See `paged_numba.target.resolve`.

    Returns
    -------
    out : [num_tokens, num_q_heads, head_dim]
        Of their dtype.
    lse : float32[num_tokens, num_q_heads]

    Raises
    ------
    TypeError, ValueError
        A dtype or shape that does not fit.

    References
    ----------
    Ye et al., "FlashInfer: Efficient and Customizable Attention Engine for LLM Inference Serving", 2025.
    """
    given = out_a
    out_a, lse_a = as_array(out_a, "out_a"), as_array(lse_a, "lse_a")
    out_b, lse_b = as_array(out_b, "out_b"), as_array(lse_b, "lse_b")
    checks.check_merge_states(out_a, lse_a, out_b, lse_b)
    out, lse = (empty(array.shape, array.dtype, like=given) for array in (out_a, lse_a))
    from ..kernels.merge_states import merge_states_kernel

    threads = _WARP * -(-out_a.shape[2] // _WARP)
    arguments = (out, lse, out_a, lse_a, out_b, lse_b)
    targets.launch(merge_states_kernel, tuple(lse.shape), threads, *arguments, target=target)
    return out, lse
