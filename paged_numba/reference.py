"""Dense attention in float64 NumPy: the specification that every kernel is held against.

Knows nothing of blocks. One sequence at a time; options in the order in which they act on a score::

    score  = scale * (query . key)          scaled dot product, Vaswani et al., 2017
    score  = softcap * tanh(score/softcap)  logit soft capping, Gemma 2, 2024
    score += slope * (key_pos - query_pos)  ALiBi, Press et al., 2022
    score  = -inf where causal or window hides the key
    out    = sum exp(score) * value / (sum exp(score) + exp(sink))
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


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
    return_lse: bool = False,
) -> Any:
    """Attend from the last tokens of a sequence to all of it.

    Parameters
    ----------
    query : float[num_queries, num_q_heads, head_dim]
        Of the last tokens: query i stands at position ``seq_len - num_queries + i``.
    key, value : float[seq_len, num_kv_heads, head_dim]
        Query head h uses KV head ``h // (num_q_heads // num_kv_heads)``.
    scale : float, optional
        ``1 / sqrt(head_dim)`` if None.
    causal : bool
        Whether a query sees no key after its own position.
    window : int, optional
        A query sees no key at `window` or more positions before its own: ``window=1`` leaves its own
        position (and, without `causal`, those after it).
    softcap : float, optional
        Bound of the scores.
    alibi_slopes : float[num_q_heads], optional
    sinks : float[num_q_heads], optional
        A score for each head that adds to the denominator, with no value; the LSE includes it.
    k_scale, v_scale : float or float[num_kv_heads], optional
        Factors of keys and values as stored (fp8).
    return_lse : bool
        Whether to return the LSE as well.

    Returns
    -------
    out : float64[num_queries, num_q_heads, head_dim]
        0 for a query that sees no key.
    lse : float64[num_queries, num_q_heads]
        Only with `return_lse`: natural logarithm of the denominator, -inf if it is 0.

    Raises
    ------
    ValueError
        Shapes that do not fit, or a window or softcap that is not positive.
    """
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    if query.ndim != 3 or key.ndim != 3 or key.shape != value.shape or query.shape[2] != key.shape[2]:
        raise ValueError(
            "query must have shape [num_queries, num_q_heads, head_dim], key and value "
            f"[seq_len, num_kv_heads, head_dim], got {query.shape}, {key.shape} and {value.shape}"
        )
    num_queries, num_q_heads, head_dim = query.shape
    seq_len, num_kv_heads, _ = key.shape
    if num_kv_heads == 0 or num_q_heads % num_kv_heads:
        raise ValueError(
            f"num_q_heads must be a multiple of num_kv_heads, got {num_q_heads} and {num_kv_heads}"
        )
    if head_dim == 0:
        raise ValueError(f"head_dim must be positive, got query.shape={query.shape}")
    for name, number in (("window", window), ("softcap", softcap)):
        if number is not None and not number > 0:
            raise ValueError(f"{name} must be positive, got {name}={number}")
    for name, given, shapes in (
        ("alibi_slopes", alibi_slopes, [(num_q_heads,)]),
        ("sinks", sinks, [(num_q_heads,)]),
        ("k_scale", k_scale, [(), (num_kv_heads,)]),
        ("v_scale", v_scale, [(), (num_kv_heads,)]),
    ):
        if given is not None and np.shape(given) not in shapes:
            raise ValueError(
                f"{name} must have shape {' or '.join(map(str, shapes))}, got {name}.shape={np.shape(given)}"
            )
    key = _scaled(key, k_scale)
    value = _scaled(value, v_scale)
    group = num_q_heads // num_kv_heads
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)

    # Which key each query sees; the ends of both are aligned.
    query_pos = np.arange(seq_len - num_queries, seq_len)[:, None]
    key_pos = np.arange(seq_len)[None, :]
    seen = np.ones((num_queries, seq_len), bool)
    if causal:
        seen &= key_pos <= query_pos
    if window is not None:
        seen &= key_pos > query_pos - window

    # Masked by selection: a NaN in a key or value that nobody sees must not come through.
    with np.errstate(invalid="ignore", over="ignore"):
        score = np.einsum("qhd,khd->qhk", query, key) * (1 / math.sqrt(head_dim) if scale is None else scale)
        if softcap is not None:
            score = softcap * np.tanh(score / softcap)
        if alibi_slopes is not None:
            score = score + np.asarray(alibi_slopes, np.float64)[:, None] * (key_pos - query_pos)[:, None, :]
    score = np.where(seen[:, None, :], score, -np.inf)
    sink = np.full(num_q_heads, -np.inf) if sinks is None else np.asarray(sinks, np.float64)

    largest = np.maximum(score.max(axis=2, initial=-np.inf), sink)
    shift = np.where(np.isneginf(largest), 0.0, largest)
    with np.errstate(invalid="ignore"):  # an infinite score makes NaN
        weight = np.exp(score - shift[:, :, None])
        total = weight.sum(axis=2) + np.exp(sink - shift)
    out = np.zeros((num_queries, num_q_heads, head_dim))
    for i in range(num_queries):
        visible = np.where(seen[i][:, None, None], value, 0.0)
        out[i] = np.einsum("hk,khd->hd", weight[i], visible)
    out /= np.where(total == 0, 1.0, total)[:, :, None]
    if not return_lse:
        return out
    with np.errstate(divide="ignore"):
        return out, shift + np.log(total)


def merge_states(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> tuple[Any, Any]:
    """Combine attention over two disjoint sets of keys into attention over both.

    Parameters
    ----------
    out_a, out_b : float[..., head_dim]
    lse_a, lse_b : float[...]
        -inf where a set is empty: merging with it changes nothing.

    Returns
    -------
    out : float64[..., head_dim]
    lse : float64[...]
    """
    out_a, lse_a, out_b, lse_b = (np.asarray(array, np.float64) for array in (out_a, lse_a, out_b, lse_b))
    largest = np.maximum(lse_a, lse_b)
    shift = np.where(np.isneginf(largest), 0.0, largest)
    weight_a, weight_b = np.exp(lse_a - shift), np.exp(lse_b - shift)
    total = weight_a + weight_b
    divisor = np.where(total == 0, 1.0, total)
    # What a set without keys has as output counts for nothing, NaN included.
    parts = [
        np.where(weight[..., None] != 0, out * weight[..., None], 0.0)
        for out, weight in ((out_a, weight_a), (out_b, weight_b))
    ]
    out = (parts[0] + parts[1]) / divisor[..., None]
    with np.errstate(divide="ignore"):
        return out, shift + np.log(total)


def _scaled(array: Any, factor: Any) -> Any:
    """Multiply by one factor, or by one for each KV head."""
    return array if factor is None else array * np.asarray(factor, np.float64).reshape(-1, 1)
