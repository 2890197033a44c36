"""Dense attention in float64 NumPy: the oracle with which every kernel is compared.

It has no blocks and takes one sequence at a time. The options act on a score in this order::

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
from numpy.typing import ArrayLike, NDArray

from .arguments import is_number, numpy_reads, positive, shown, truth


def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    k_scale: ArrayLike | None = None,
    v_scale: ArrayLike | None = None,
    return_lse: bool = False,
) -> Any:
    """Attend from the last tokens of a sequence to all its tokens.

    Parameters
    ----------
    query : float[num_queries, num_q_heads, head_dim]
        Queries of the last tokens: query i stands at position ``seq_len - num_queries + i``.
    key : float[seq_len, num_kv_heads, head_dim]
        Query head h uses KV head ``h // (num_q_heads // num_kv_heads)``.
    value : float[seq_len, num_kv_heads, value_head_dim]
        value_head_dim may differ from head_dim.
    scale : float, optional
        ``1 / sqrt(head_dim)`` if None.
    causal : bool
        Whether to hide the keys after a query's own position.
    window : int, optional
        Hides the keys `window` or more positions before a query's own: ``window=1`` leaves its own position
        (and, without `causal`, later positions).
    softcap : float, optional
        Bound on the scores.
    alibi_slopes : float[num_q_heads], optional
        ALiBi slope of each head.
    sinks : float[num_q_heads], optional
        A score for each head that counts in the denominator but has no value; the LSE includes it.
    k_scale, v_scale : float or float[num_kv_heads], optional
        Factors by which keys and values are multiplied, as in an fp8 cache.
    return_lse : bool
        Whether to return the LSE (log-sum-exp of the scores) as well.

    Returns
    -------
    out : float64[num_queries, num_q_heads, value_head_dim]
        0 for a query that sees no key.
    lse : float64[num_queries, num_q_heads]
        Only with `return_lse`: natural logarithm of the denominator, -inf if it is 0.

    Raises
    ------
    TypeError
        An array does not hold real numbers, or an option has another type than its parameter.
    ValueError
        Shapes do not match, head_dim or value_head_dim is 0, a number is not finite in float64, or `window` or
        `softcap` is not positive.

    See Also
    --------
    merge_states : Combines attention to two parts of the keys.
    paged_numba.paged_attention : The same attention on a paged cache, by a kernel.

    Examples
    --------
    Two queries and two keys: the first query sees one key, the second sees both, with equal scores.

    >>> import numpy as np
    >>> import paged_numba as pn
    >>> query, key = np.zeros((2, 1, 4)), np.zeros((2, 1, 4))
    >>> value = np.array([[[1.0, 0, 0, 0]], [[3.0, 0, 0, 0]]])
    >>> out, lse = pn.reference.attention(query, key, value, return_lse=True)
    >>> out[:, 0, 0], np.exp(lse[:, 0])
    (array([1., 2.]), array([1., 2.]))
    """
    query, key, value = _reals("query", query), _reals("key", key), _reals("value", value)
    causal, return_lse = truth("causal", causal), truth("return_lse", return_lse)
    ranks = query.ndim, key.ndim, value.ndim
    if ranks != (3, 3, 3) or key.shape[:2] != value.shape[:2] or query.shape[2] != key.shape[2]:
        raise ValueError(
            "query must have shape [num_queries, num_q_heads, head_dim], key [seq_len, num_kv_heads, head_dim] and "
            f"value [seq_len, num_kv_heads, value_head_dim], got {query.shape}, {key.shape} and {value.shape}"
        )
    num_queries, num_q_heads, head_dim = query.shape
    seq_len, num_kv_heads, _ = key.shape
    if num_kv_heads == 0 or num_q_heads % num_kv_heads:
        raise ValueError(
            f"num_q_heads must be a multiple of num_kv_heads, got {num_q_heads} and {num_kv_heads}"
        )
    value_head_dim = value.shape[2]
    if head_dim == 0:
        raise ValueError(f"head_dim must be positive, got query.shape={query.shape}")
    if value_head_dim == 0:
        raise ValueError(f"value_head_dim must be positive, got value.shape={value.shape}")
    scale = 1 / math.sqrt(head_dim) if scale is None else _finite("scale", scale)
    window = None if window is None else positive("window", window)
    if softcap is not None:
        softcap = _finite("softcap", softcap)
        if softcap <= 0:
            raise ValueError(f"softcap must be positive, got softcap={softcap}")
    slopes = _by_head("alibi_slopes", alibi_slopes, [(num_q_heads,)])
    sink = _by_head("sinks", sinks, [(num_q_heads,)])
    key_factor, value_factor = (
        _by_head(name, given, [(), (num_kv_heads,)])
        for name, given in (("k_scale", k_scale), ("v_scale", v_scale))
    )
    with np.errstate(invalid="ignore", over="ignore"):
        key = key if key_factor is None else key * key_factor.reshape(-1, 1)
        value = value if value_factor is None else value * value_factor.reshape(-1, 1)
    group = num_q_heads // num_kv_heads
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)

    # Which keys each query sees: the last query has the position of the last key.
    query_pos = np.arange(seq_len - num_queries, seq_len)[:, None]
    key_pos = np.arange(seq_len)[None, :]
    seen = np.ones((num_queries, seq_len), bool)
    if causal:
        seen &= key_pos <= query_pos
    if window is not None:
        seen &= key_pos > query_pos - min(window, seq_len + num_queries)

    # Select with the mask, do not multiply by it: a NaN in a hidden key or value must not reach the result.
    with np.errstate(invalid="ignore", over="ignore"):
        score = np.einsum("qhd,khd->qhk", query, key) * scale
        if softcap is not None:
            score = softcap * np.tanh(score / softcap)
        if slopes is not None:
            score = score + slopes[:, None] * (key_pos - query_pos)[:, None, :]
    score = np.where(seen[:, None, :], score, -np.inf)
    sink = np.full(num_q_heads, -np.inf) if sink is None else sink

    largest = np.maximum(score.max(axis=2, initial=-np.inf), sink)
    shift = np.where(np.isneginf(largest), 0.0, largest)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # inf - inf and 0 * inf are NaN
        weight = np.exp(score - shift[:, :, None])
        total = weight.sum(axis=2) + np.exp(sink - shift)
        out = np.zeros((num_queries, num_q_heads, value_head_dim))
        for i in range(num_queries):
            visible = np.where(seen[i][:, None, None], value, 0.0)
            out[i] = np.einsum("hk,khd->hd", weight[i], visible)
        out /= np.where(total == 0, 1.0, total)[:, :, None]
        return (out, shift + np.log(total)) if return_lse else out


def merge_states(
    out_a: ArrayLike, lse_a: ArrayLike, out_b: ArrayLike, lse_b: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Combine attention to two disjoint sets of keys into attention to both.

    Parameters
    ----------
    out_a : float[..., head_dim]
        The output of attention to one set of keys.
    lse_a : float[...]
        Its LSEs; -inf if the set is empty: merging with it changes nothing.
    out_b : float[..., head_dim]
        The output of attention to the other set.
    lse_b : float[...]
        Its LSEs.

    Returns
    -------
    out : float64[..., head_dim]
        The output of attention to both sets.
    lse : float64[...]
        Its LSEs.

    Raises
    ------
    TypeError, ValueError
        An array does not hold real numbers, or shapes do not match.

    See Also
    --------
    attention : Returns the outputs and LSEs.
    paged_numba.merge_states : The same merge, by a kernel.

    Examples
    --------
    Three keys with equal scores, one with value 1 and two with value 4: the mean is 3, and so is the sum of weights.

    >>> import numpy as np
    >>> import paged_numba as pn
    >>> out, lse = pn.reference.merge_states(np.array([[1.0]]), np.log([1.0]), np.array([[4.0]]), np.log([2.0]))
    >>> out, np.exp(lse)
    (array([[3.]]), array([3.]))
    """
    out_a, lse_a, out_b, lse_b = (
        _reals(name, array)
        for name, array in (("out_a", out_a), ("lse_a", lse_a), ("out_b", out_b), ("lse_b", lse_b))
    )
    if (
        not out_a.ndim
        or not out_a.shape[:-1] == out_b.shape[:-1] == lse_a.shape == lse_b.shape
        or out_a.shape != out_b.shape
    ):
        raise ValueError(
            "out_a and out_b must have one shape [..., head_dim], lse_a and lse_b [...], "
            f"got {out_a.shape}, {out_b.shape}, {lse_a.shape} and {lse_b.shape}"
        )
    largest = np.maximum(lse_a, lse_b)
    shift = np.where(np.isneginf(largest), 0.0, largest)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # inf - inf is NaN
        weight_a, weight_b = np.exp(lse_a - shift), np.exp(lse_b - shift)
        total = weight_a + weight_b
        divisor = np.where(total == 0, 1.0, total)
        # The output of a set without keys may be NaN and must not count.
        parts = [
            np.where(weight[..., None] != 0, out * weight[..., None], 0.0)
            for out, weight in ((out_a, weight_a), (out_b, weight_b))
        ]
        return (parts[0] + parts[1]) / divisor[..., None], shift + np.log(total)


def _reals(name: str, given: ArrayLike) -> NDArray[np.float64]:
    """Return real numbers as float64; for NumPy itself, complex numbers, text and masks would do as well."""
    try:
        if not numpy_reads(given):
            raise TypeError(f"got {shown(given)}")
        array = np.asarray(given)
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of real numbers: {error}") from None
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array, since its mask would be ignored")
    # The dtypes of ml_dtypes have a kind of their own.
    if array.dtype.kind not in "fiu" and not array.dtype.name.startswith(("bfloat", "float")):
        raise TypeError(f"{name} must hold real numbers, got {name}.dtype={array.dtype}")
    with np.errstate(over="ignore"):  # a longdouble may be larger than any float64
        try:
            return array.astype(np.float64, copy=False)
        except MemoryError:
            raise MemoryError(f"{name} must fit into memory, got {name}.shape={array.shape}") from None


def _finite(name: str, number: float) -> float:
    """Return a number as a float; require it to be finite."""
    if not is_number(number):
        raise TypeError(f"{name} must be a number or None, got {name}={shown(number)}")
    try:
        converted = float(number)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise ValueError(f"{name} must be finite in float64, got {name}={shown(number)}")
    return converted


def _by_head(name: str, given: ArrayLike | None, shapes: list[tuple[int, ...]]) -> NDArray[np.float64] | None:
    """Return the numbers of an option as float64; require one of the shapes."""
    if given is None:
        return None
    array = _reals(name, given)
    if array.shape not in shapes:
        raise ValueError(
            f"{name} must have shape {' or '.join(map(str, shapes))}, got {name}.shape={array.shape}"
        )
    return array
