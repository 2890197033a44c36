"""Attention over paged caches, and the merge of attention over disjoint sets of keys."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypedDict

import numpy as np

from .. import targets
from ..arrays import ArrayLike, IntegersLike, as_array, empty, to_host, untraced
from . import adopt, checks, launches, layouts, plan

ALGORITHMS = ("auto", "naive", "warp", "block", "tile", "split", "cascade")
"""Values of the parameter `algorithm` of `paged_numba.paged_attention`.

- ``naive``: a thread for each query token and head.
- ``warp``: a warp for each query token and head, whose lanes exchange values by shuffles.
- ``block``: a thread block for each query token and head; with `num_splits`, several of them, then a merge.
- ``tile``: a thread block for neighbouring query tokens and all query heads of a KV head.
- ``split``: several thread blocks for the keys of each tile, then a merge.
- ``cascade``: tiles for the keys that all sequences share, tiles for the other keys of each sequence, then a merge.
- ``auto``: the algorithm that `paged_numba.plan.choose` chooses.
"""


class PlanOptions(TypedDict, total=False):
    """Options of `paged_attention` that `paged_numba.PagedKVCache.plan` takes as well."""

    scale: float | None
    causal: bool
    window: int | None
    softcap: float | None
    alibi_slopes: ArrayLike | None
    sinks: ArrayLike | None
    return_lse: bool
    algorithm: str
    num_splits: int | None


class AttentionOptions(PlanOptions, total=False):
    """Options of `paged_attention` that `paged_numba.PagedKVCache.attend` takes as well."""

    out: ArrayLike | None


@untraced
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

    One call takes decode, prefill, chunked prefill and any mix of them. Options act on a score in this order: scale,
    softcap, ALiBi, then the masks of `causal` and `window`; `paged_numba.reference.attention` is the definition. Sums
    are computed in float32, whatever the dtypes.

    Parameters
    ----------
    query : float32, float16 or bfloat16[num_tokens, num_q_heads, head_dim]
        num_q_heads is a multiple of num_kv_heads.
    key_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
        float32, float16, bfloat16 or float8_e4m3fn; strided views are allowed. head_dim is 1,024 at most, and so is
        value_head_dim; ``block`` takes up to 256, also of block_size, ``warp`` and the layout ``packed`` take up to
        256, and ``naive`` takes a value_head_dim of up to 512.
    value_cache : float[num_blocks, block_size, num_kv_heads, value_head_dim]
        Of the same dtype; value_head_dim may differ from head_dim.
    block_tables : int32[num_seqs, max_blocks]
        Each sequence's blocks in order; entries of blocks that no query token sees are not read.
    seq_lens : int32[num_seqs]
        Tokens of each sequence in the cache, including the tokens of this step: write first, then attend.
    cu_seqlens_q : int32[num_seqs + 1], optional
        Query tokens ``cu_seqlens_q[s] .. cu_seqlens_q[s + 1] - 1`` are the last tokens of sequence s. If None, one
        query token per sequence (decode).
    scale : float, optional
        Factor of the scores; ``1 / sqrt(head_dim)`` if None.
    causal : bool
        Whether to hide the keys after a token's own position. Chunks are aligned at the end: token i of a chunk of m,
        in a sequence of length n, has position ``n - m + i``.
    window : int, optional
        Hides the keys `window` or more positions before a token's own (sliding window).
    softcap : float, optional
        Bound on the scores: ``softcap * tanh(score / softcap)``.
    alibi_slopes : float[num_q_heads], optional
        ALiBi slope of each head: adds ``slope * (key position - token position)`` to a score.
    sinks : float[num_q_heads], optional
        A score for each head that counts in the denominator but has no value (attention sinks).
    k_scale, v_scale : float or float[num_kv_heads], optional
        Factors by which stored keys and values are multiplied, for float8_e4m3fn, whose largest number is 448;
        `quantize_fp8` divides by them.
    return_lse : bool
        Whether to return the LSE as well.
    out : [num_tokens, num_q_heads, value_head_dim], optional
        Array for the result, of the query's dtype.
    algorithm : {"auto", "naive", "warp", "block", "tile", "split", "cascade"}
        See `paged_numba.ops.ALGORITHMS`; `paged_numba.plan.choose` returns the choice of ``auto``, and the reason.
        ``tile`` loads each element of K and V once for up to 128 query heads of a KV head; if there are fewer than 16,
        also for neighbouring tokens, up to 16 query rows in total. ``cascade`` attends once for several sequences to
        the first blocks, which all of them share, then to the other blocks of each sequence, and merges the results.
        The layout ``packed`` allows only ``auto``, which runs `attention_packed`: the other kernels read the numbers
        of a token as a row, and the packed layout has no such rows.
    num_splits : int, optional
        Number of parts into which ``split`` or ``block`` divides the keys of each token. If None, ``block`` does not
        divide them, and for ``split`` `paged_numba.plan.choose` decides.
    layout : {"NHD", "HND", "packed"}
        Order of the caches' axes, see `paged_numba.ops.layouts`; this docstring shows ``NHD``.
    target : str
        See `paged_numba.targets.resolve`.

    Returns
    -------
    out : [num_tokens, num_q_heads, value_head_dim]
        Of the query's dtype; 0 for a token that sees no key.
    lse : float32[num_tokens, num_q_heads]
        Only with `return_lse`: natural logarithm of the sum of exponentiated scores; -inf if the sum is 0.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape, block number, length or option is invalid, or the algorithm does not take the sizes.

    See Also
    --------
    PagedKVCache.attend : The same for sequences of a `PagedKVCache`, by their ids.
    merge_states : Combines attention over disjoint sets of keys.
    paged_numba.reference.attention : Dense attention in float64: the definition.

    References
    ----------
    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
    SOSP 2023.

    Examples
    --------
    A sequence of 3 tokens in the blocks 2 and 0, of 2 tokens each. All keys are equal, so each token has weight 1/3:

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
    checks.check_caches(caches.key, caches.value)
    checks.check_query(adopted_query, caches.key.shape[3])
    if out is not None:
        checks.check_out(adopted_out, adopted_query, caches.key, caches.value)
    call = plan_call(
        caches,
        int(adopted_query.shape[1]),
        block_tables,
        seq_lens,
        num_tokens=int(adopted_query.shape[0]),
        cu_seqlens_q=cu_seqlens_q,
        scale=scale,
        causal=causal,
        window=window,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        k_scale=k_scale,
        v_scale=v_scale,
        return_lse=return_lse,
        algorithm=algorithm,
        num_splits=num_splits,
        target=target,
    )
    return _launch(call, query, adopted_query, caches, out, adopted_out)


class Call(NamedTuple):
    """A planned call of attention, which `run` makes for any query and caches of the planned shapes.

    Attributes
    ----------
    num_tokens, num_q_heads : int
        Of the query.
    prepared : paged_numba.ops.launches.Prepared
        The launches. On a GPU their arrays lie on it.
    return_lse : bool
    target : str
        The target that runs.
    """

    num_tokens: int
    num_q_heads: int
    prepared: launches.Prepared
    return_lse: bool
    target: str


def plan_call(
    caches: adopt.Caches,
    num_q_heads: int,
    block_tables: IntegersLike,
    seq_lens: IntegersLike,
    *,
    num_tokens: int | None = None,
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
    algorithm: str = "auto",
    num_splits: int | None = None,
    target: str = "auto",
) -> Call:
    """Check and plan a call of attention, except for the query and the result.

    Parameters
    ----------
    caches : Caches
        Caches that were checked; of these only the shape, the layout and the device count.
    num_q_heads : int
        Number of heads of the query.
    num_tokens : int, optional
        Number of query tokens; what `cu_seqlens_q` or the number of sequences says if None.
    block_tables, seq_lens, cu_seqlens_q, ...
        The arguments of `paged_attention`.

    Returns
    -------
    Call

    Raises
    ------
    TypeError, ValueError
        A dtype, shape, block number, length or option is invalid.
    """
    block_tables = as_array(block_tables, "block_tables")
    tables, lens = adopt.integer_rows(block_tables, "block_tables", 0), to_host(seq_lens, "seq_lens")
    starts = to_host(cu_seqlens_q, "cu_seqlens_q")
    slopes, sink_scores = to_host(alibi_slopes, "alibi_slopes"), to_host(sinks, "sinks")

    num_blocks, block_size, num_kv_heads, head_dim = caches.key.shape
    checks.check_heads(num_q_heads, num_kv_heads)
    checks.check_batch(tables, lens, starts, num_tokens, block_size)
    checks.check_attention_options(
        num_q_heads, scale, window, softcap, slopes, sink_scores, causal=causal, return_lse=return_lse
    )
    checks.check_algorithm(algorithm, ALGORITHMS, num_splits, caches.layout)
    kernel = "packed" if caches.layout == "packed" else algorithm
    value_head_dim = caches.value.shape[3]
    layouts.check_attention_sizes(kernel, block_size, head_dim, value_head_dim)
    k_scales = checks.cache_scale("k_scale", to_host(k_scale, "k_scale"), num_kv_heads)
    v_scales = checks.cache_scale("v_scale", to_host(v_scale, "v_scale"), num_kv_heads)
    window, num_splits = (None if number is None else int(number) for number in (window, num_splits))
    if starts is None:
        starts = np.arange(len(lens) + 1)
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
        head_dim=head_dim,
        value_head_dim=value_head_dim,
        window=window,
        algorithm=algorithm,
        num_splits=num_splits,
        layout=caches.layout,
        target=target,
    )
    inputs = launches.Inputs(
        adopt.integers(block_tables, tables, np.int32),
        np.zeros(num_q_heads, np.float32) if slopes is None else slopes.astype(np.float32),
        np.full(num_q_heads, -np.inf, np.float32) if sink_scores is None else sink_scores.astype(np.float32),
        k_scales,
        v_scales,
        np.float32(1 / math.sqrt(head_dim) if scale is None else scale),
        np.float32(0 if softcap is None else softcap),
    )
    prepared = launches.prepare(planned, inputs, num_q_heads, caches)
    return Call(len(rows), num_q_heads, prepared, return_lse, target)


def run(call: Call, query: ArrayLike, caches: adopt.Caches, out: ArrayLike | None = None) -> Any:
    """Make a planned call.

    Parameters
    ----------
    call : Call
        From `plan_call`.
    query : float32, float16 or bfloat16[num_tokens, num_q_heads, head_dim]
    caches : Caches
        Caches that were checked, of the planned shape, layout and device.
    out : [num_tokens, num_q_heads, head_dim], optional
        Array for the result, of the query's dtype.

    Returns
    -------
    out : [num_tokens, num_q_heads, head_dim]
    lse : float32[num_tokens, num_q_heads]
        Only if the plan has `return_lse`.

    Raises
    ------
    TypeError, ValueError
        The query or `out` has the wrong shape or dtype.
    """
    adopted_query, adopted_out = as_array(query, "query"), as_array(out, "out")
    checks.check_query(adopted_query, caches.key.shape[3], call.num_tokens, call.num_q_heads)
    if out is not None:
        checks.check_out(adopted_out, adopted_query, caches.key, caches.value)
    return _launch(call, query, adopted_query, caches, out, adopted_out)


def _launch(
    call: Call, query: Any, adopted_query: Any, caches: adopt.Caches, out: Any, adopted_out: Any
) -> Any:
    """Launch the kernels of a call for a query and a result that were checked."""
    if out is None:
        shape = (call.num_tokens, call.num_q_heads, caches.value.shape[3])
        out = empty(shape, adopted_query.dtype, like=query)
        adopted_out = as_array(out)
    lse = empty((call.num_tokens, call.num_q_heads), np.float32, like=query)
    launches.attend(call.prepared, adopted_query, caches, adopted_out, as_array(lse), call.target)
    return (out, lse) if call.return_lse else out


@untraced
def merge_states(
    out_a: ArrayLike, lse_a: ArrayLike, out_b: ArrayLike, lse_b: ArrayLike, *, target: str = "auto"
) -> tuple[Any, Any]:
    """Combine attention over two disjoint sets of keys into attention over both.

    With this, attention to a prefix that many sequences share needs to be computed only once (cascade attention).
    Merging with an empty set of keys, whose LSE is -inf, changes nothing, whatever its output holds. Pass `sinks` to
    the computation of only one of the two states.

    The result is as exact as the LSEs. A weight is ``exp`` of a difference of LSEs, so it is off by up to the distance
    between neighbouring float32 numbers: by 8e-6 of its size where LSEs are near 100, by 0.001 near 10,000, by 6 %
    near 1e6. `paged_attention` merges its own parts, in ``split`` and ``cascade``, by their largest scores and sums
    of weights, and loses nothing.

    Parameters
    ----------
    out_a : float32, float16 or bfloat16[num_tokens, num_q_heads, value_head_dim]
        The output of attention over one set of keys.
    lse_a : float32[num_tokens, num_q_heads]
        Its LSEs, in natural logarithms.
    out_b : float32, float16 or bfloat16[num_tokens, num_q_heads, value_head_dim]
        The output of attention over the other set, of the same dtype.
    lse_b : float32[num_tokens, num_q_heads]
        Its LSEs.
    target : str
        See `paged_numba.targets.resolve`.

    Returns
    -------
    out : [num_tokens, num_q_heads, value_head_dim]
        Of the dtype of `out_a`.
    lse : float32[num_tokens, num_q_heads]
        The LSEs over both sets.

    Raises
    ------
    TypeError, ValueError
        A dtype or shape is invalid.

    See Also
    --------
    paged_attention : Returns such states with ``return_lse=True``.

    References
    ----------
    Ye et al., "FlashInfer: Efficient and Customizable Attention Engine for LLM Inference Serving", 2025.

    Examples
    --------
    One part of the keys has weight 1, the other weight 3, as their LSEs say:

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
