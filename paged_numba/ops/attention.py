"""Attention over paged caches, and the merge of attention over disjoint sets of keys."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np

from .. import targets
from ..arrays import ArrayLike, IntegersLike, as_array, empty, on_host, to_host
from . import adopt, checks, launches, plan

ALGORITHMS = ("auto", "naive", "warp", "block", "tile", "split", "cascade")
"""What `paged_attention` takes as its algorithm.

- ``naive``: a thread for each query token and head.
- ``warp``: a warp for each query token and head, whose lanes talk by shuffles.
- ``block``: a thread block for each query token and head.
- ``tile``: a thread block for neighbouring query tokens and all query heads of a KV head.
- ``split``: several thread blocks for the keys of each tile, then a merge.
- ``cascade``: tiles for the keys that all sequences share, tiles for the keys of each one, then a merge.
- ``auto``: the one that `paged_numba.plan.choose` takes.
"""


class AttentionOptions(TypedDict, total=False):
    """Options of `paged_attention` that `paged_numba.PagedKVCache.attend` takes, too."""

    scale: float | None
    causal: bool
    window: int | None
    softcap: float | None
    alibi_slopes: ArrayLike | None
    sinks: ArrayLike | None
    return_lse: bool
    out: ArrayLike | None
    algorithm: str
    num_splits: int | None


def paged_attention(
    query: ArrayLike,
    key_cache: ArrayLike,
    value_cache: ArrayLike,
    block_tables: IntegersLike,
    seq_lens: IntegersLike,
    *,
    cu_seqlens_q: IntegersLike | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    k_scale: float | ArrayLike | None = None,
    v_scale: float | ArrayLike | None = None,
    return_lse: bool = False,
    out: ArrayLike | None = None,
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
        The caches' axes, see `paged_numba.ops.layouts`; those of this docstring are ``NHD``.
    target : str
        See `paged_numba.targets.resolve`.

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

    See Also
    --------
    PagedKVCache.attend : The same for sequences of a cache, by their ids.
    merge_states : Puts attention over disjoint sets of keys together.
    paged_numba.reference.attention : Dense attention in float64: the definition.

    References
    ----------
    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
    SOSP 2023.

    Examples
    --------
    A sequence of 3 tokens in the blocks 2 and 0, of 2 tokens each. All keys are equal, so each token counts a third:

    >>> import numpy as np
    >>> import paged_numba as pn
    >>> key_cache, value_cache = np.zeros((2, 3, 2, 1, 1), np.float32)
    >>> value_cache[[2, 2, 0], [0, 1, 0]] = np.array([1, 2, 6], np.float32).reshape(3, 1, 1)
    >>> query = np.ones((1, 1, 1), np.float32)
    >>> pn.paged_attention(query, key_cache, value_cache, [[2, 0]], [3])
    array([[[3.]]], dtype=float32)
    """
    adopted_query, adopted_out = as_array(query, "query"), as_array(out, "out")
    caches = adopt.caches(key_cache, value_cache, layout)
    block_tables = as_array(block_tables, "block_tables")
    tables, lens = on_host(block_tables, "block_tables"), to_host(seq_lens, "seq_lens")
    starts = to_host(cu_seqlens_q, "cu_seqlens_q")
    slopes, sink_scores = to_host(alibi_slopes, "alibi_slopes"), to_host(sinks, "sinks")

    checks.check_paged_attention(adopted_query, caches.key, caches.value, tables, lens, starts, adopted_out)
    num_tokens, num_q_heads, head_dim = adopted_query.shape
    num_blocks, block_size, num_kv_heads, _ = caches.key.shape
    checks.check_attention_options(
        num_q_heads, scale, window, softcap, slopes, sink_scores, causal=causal, return_lse=return_lse
    )
    checks.check_algorithm(algorithm, ALGORITHMS, num_splits, layout)
    k_scales = checks.cache_scale("k_scale", to_host(k_scale, "k_scale"), num_kv_heads)
    v_scales = checks.cache_scale("v_scale", to_host(v_scale, "v_scale"), num_kv_heads)
    window, num_splits = (None if number is None else int(number) for number in (window, num_splits))
    if starts is None:
        starts = np.arange(num_tokens + 1)
    rows = plan.query_rows(lens, starts, causal, window)
    checks.check_seen_blocks(tables, lens, rows, num_blocks, block_size)
    target = targets.resolve(target)

    planned = plan.plan_attention(
        rows,
        lens,
        starts,
        tables,
        block_size=block_size,
        num_q_heads=num_q_heads,
        num_kv_heads=num_kv_heads,
        window=window,
        algorithm=algorithm,
        num_splits=num_splits,
        layout=layout,
        target=target,
    )

    if out is None:
        out = empty(adopted_query.shape, adopted_query.dtype, like=query)
        adopted_out = as_array(out)
    lse = empty((num_tokens, num_q_heads), np.float32, like=query)
    inputs = launches.Attention(
        adopted_query,
        caches,
        adopt.integers(block_tables, tables, np.int32),
        np.zeros(num_q_heads, np.float32) if slopes is None else slopes.astype(np.float32),
        np.full(num_q_heads, -np.inf, np.float32) if sink_scores is None else sink_scores.astype(np.float32),
        k_scales,
        v_scales,
        np.float32(1 / math.sqrt(head_dim) if scale is None else scale),
        np.float32(0 if softcap is None else softcap),
    )
    launches.attend(inputs, planned, adopted_out, as_array(lse), target)
    return (out, lse) if return_lse else out


def merge_states(
    out_a: ArrayLike, lse_a: ArrayLike, out_b: ArrayLike, lse_b: ArrayLike, *, target: str = "auto"
) -> tuple[Any, Any]:
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
        See `paged_numba.targets.resolve`.

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

    See Also
    --------
    paged_attention : With ``return_lse=True`` gives the states.

    Examples
    --------
    One part of the keys weighs 1, the other 3, as their LSE say:

    >>> import numpy as np
    >>> import paged_numba as pn
    >>> four, eight = (np.full((1, 1, 1), number, np.float32) for number in (4, 8))
    >>> light, heavy = (np.log(np.full((1, 1), weight, np.float32)) for weight in (1, 3))
    >>> out, lse = pn.merge_states(four, light, eight, heavy)
    >>> out.round(5).tolist(), np.exp(lse).round(5).tolist()    # (1 * 4 + 3 * 8) / 4
    ([[[7.0]]], [[4.0]])
    """
    names = ("out_a", "lse_a", "out_b", "lse_b")
    parts = [as_array(part, name) for name, part in zip(names, (out_a, lse_a, out_b, lse_b), strict=True)]
    checks.check_merge_states(*parts)
    target = targets.resolve(target)
    out, lse = (empty(part.shape, part.dtype, like=out_a) for part in parts[:2])
    launches.merge(as_array(out), as_array(lse), parts, target)
    return out, lse
