"""Dense attention in float32: the yardstick for the rounding errors of kernels.

Inputs and outputs have one dtype; sums are in float32, in a fixed order, since the order of a BLAS differs between
machines. It shares no code with the kernels or the float64 oracle.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LEAST_SAMPLES = 256
"""Least number of query rows to measure. Fewer rows are summed in several orders, since the errors of one order may
cancel by chance."""


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    k_scale: Any = None,
    v_scale: Any = None,
) -> tuple[Any, Any]:
    """Attend from the last tokens of a sequence to all of it, as `paged_numba.reference.attention`, in float32.

    Parameters
    ----------
    query : float[num_queries, num_q_heads, head_dim]
    key, value : float[seq_len, num_kv_heads, head_dim]
        Finite numbers.
    scale, causal, window, softcap, alibi_slopes, sinks, k_scale, v_scale
        As for the oracle.

    Returns
    -------
    out : [num_queries, num_q_heads, head_dim]
        In the dtype of `query`.
    lse : float32[num_queries, num_q_heads]
    """
    dtype = query.dtype
    num_queries, num_q_heads, head_dim = query.shape
    seq_len, num_kv_heads = key.shape[:2]
    of_head = np.arange(num_q_heads) // (num_q_heads // num_kv_heads)

    def by_query_head(array: Any, factor: Any) -> Any:
        factor = np.broadcast_to(np.float32(1 if factor is None else factor), (num_kv_heads,))
        return (array.astype(np.float32) * factor[:, None])[:, of_head].transpose(1, 0, 2)

    # [num_q_heads, tokens, head_dim]
    keys, values = by_query_head(key, k_scale), by_query_head(value, v_scale)
    factor = np.float32(1 / math.sqrt(head_dim) if scale is None else scale)
    scores = _product((query.astype(np.float32) * factor).transpose(1, 0, 2), keys.transpose(0, 2, 1))
    distance = np.arange(seq_len) - np.arange(seq_len - num_queries, seq_len)[:, None]
    if softcap is not None:
        scores = np.float32(softcap) * np.tanh(scores / np.float32(softcap))
    if alibi_slopes is not None:
        scores += np.asarray(alibi_slopes, np.float32)[:, None, None] * distance.astype(np.float32)
    hidden = (distance > 0) & causal
    if window is not None:
        hidden |= distance <= -window
    scores[:, hidden] = -np.inf

    no_sink = np.full(num_q_heads, -np.inf, np.float32)
    sink = (no_sink if sinks is None else np.asarray(sinks, np.float32))[:, None]
    largest = np.maximum(scores.max(axis=2, initial=-np.inf), sink)
    shift = np.where(np.isneginf(largest), np.float32(0), largest)
    weights = np.exp(scores - shift[:, :, None])
    total = _product(weights, np.ones((num_q_heads, seq_len, 1), np.float32))[:, :, 0] + np.exp(sink - shift)
    out = _product(weights, values) / np.where(total == 0, np.float32(1), total)[:, :, None]
    with np.errstate(divide="ignore"):
        lse = shift + np.log(total)
    return out.transpose(1, 0, 2).astype(dtype), lse.T


def _product(left: Any, right: Any) -> Any:
    """Return float32[heads, rows, terms] @ float32[heads, terms, columns], summed in float32 in the order of terms."""
    result = np.zeros((*left.shape[:2], right.shape[2]), np.float32)
    for term in range(left.shape[2]):
        result += left[:, :, term, None] * right[:, term, None, :]
    return result


def rounding_errors(
    query: Any, key: Any, value: Any, expected: tuple[Any, Any], **options: Any
) -> tuple[float, float]:
    """Return the largest errors of the outputs and LSEs of dense attention, over several orders of the dimensions.

    Parameters
    ----------
    query, key, value, **options
        As for `attention`.
    expected : tuple of float64 arrays
        Exact output and LSE.
    """
    rng = np.random.default_rng(0)
    worst = [0.0, 0.0]
    rows = query.shape[0] * query.shape[1]
    for _ in range(max(2, -(-LEAST_SAMPLES // max(1, rows)))):
        order = rng.permutation(query.shape[2])
        out, lse = attention(query[:, :, order], key[:, :, order], value, **options)
        for place, (result, right) in enumerate(zip((out, lse), expected, strict=True)):
            seen = np.isfinite(right)
            errors = np.abs(result[seen].astype(np.float64) - right[seen])
            worst[place] = max(worst[place], float(errors.max(initial=0.0)))
    return worst[0], worst[1]
