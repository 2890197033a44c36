"""Tolerances for attention: bounds on its rounding error, computed from the input.

A sum of n rounded terms is off by about ``sqrt(n) * u`` times the sum of their magnitudes, where u is the
unit roundoff (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci.
Comput. 41, 2019). Attention rounds in three places: the dot product that makes a score, ``exp``, and the
sums over the keys. The error grows with the logits, so a fixed tolerance would either accept wrong kernels or
reject right ones.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

UNIT_ROUNDOFF = float(np.finfo(np.float32).eps) / 2

_EXP_ULPS = 4
"""Error of exp, log and one product, in units of the last place (CUDA Math API: expf and logf stay within 2)."""

_CONFIDENCE = 4
"""Factor of the probabilistic bound. A sum exceeds it with a probability of about 2 exp(-4**2 / 2), one in 1,500, if
all its terms have their largest error at once, which is rarer still."""


FIXED = {"float32": (1e-5, 1.3e-6), "float16": (1e-3, 1e-3), "bfloat16": (1.5e-2, 1e-2)}
"""Absolute and relative tolerances by the dtype of the query, for scores with a standard deviation of 3 to 4 and values
with a standard deviation of about 1. The dtype of the cache does not matter: the stored numbers are taken as exact."""

TIMES_DENSE = 3
"""Largest error allowed, as a multiple of the error of dense attention in the same precision."""


class AttentionTolerance(NamedTuple):
    """Largest absolute error allowed for an output element and for an LSE."""

    out: float
    lse: float


def attention_tolerance(
    query: Any,
    key: Any,
    value: Any,
    scale: float | None = None,
    *,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    k_scale: Any = None,
    v_scale: Any = None,
    **masks: Any,
) -> AttentionTolerance:
    """Bound the rounding error of float32 attention over one sequence.

    Parameters
    ----------
    query : float[num_queries, num_q_heads, head_dim]
    key, value : float[seq_len, num_kv_heads, head_dim]
    scale : float, optional
        ``1 / sqrt(head_dim)`` if None.
    softcap, alibi_slopes, sinks, k_scale, v_scale, **masks
        Options of `paged_numba.paged_attention`. Masks are ignored: hiding keys adds no error.

    Returns
    -------
    AttentionTolerance
    """
    # Keys that no query sees may be NaN; a key of -inf has no weight and adds no error.
    query, key, value = (
        np.abs(np.nan_to_num(np.asarray(array, np.float64), neginf=0.0)) for array in (query, key, value)
    )
    seq_len, num_kv_heads, head_dim = key.shape
    key, value = (
        array if factor is None else array * np.asarray(factor, np.float64).reshape(-1, 1)
        for array, factor in ((key, k_scale), (value, v_scale))
    )
    if seq_len == 0 or len(query) == 0:
        return AttentionTolerance(0.0, 0.0)
    grouped = query.reshape(len(query), num_kv_heads, -1, head_dim)
    factor = abs(1 / math.sqrt(head_dim) if scale is None else scale)
    magnitude = float(np.einsum("qhgd,khd->qhgk", grouped, key).max()) * factor
    roundoff = _CONFIDENCE * UNIT_ROUNDOFF
    score = roundoff * (math.sqrt(head_dim) + 2) * magnitude
    # tanh does not increase the error of a score but adds its own; ALiBi adds a product; a sink is one more score.
    if softcap is not None:
        score += roundoff * (_EXP_ULPS + 2) * softcap
        magnitude = min(magnitude, softcap)
    if alibi_slopes is not None:
        bias = float(np.abs(alibi_slopes).max()) * max(seq_len, len(query))
        score += 2 * roundoff * bias
        magnitude += bias
    if sinks is not None:
        magnitude = max(magnitude, float(np.abs(sinks).max()))
    sums = roundoff * (math.sqrt(seq_len) + _EXP_ULPS)
    # Scores enter twice: in the weights and in their sum.
    out = (2 * score + 2 * sums) * float(value.max())
    # The argument of exp is a difference of scores, with a rounding error relative to their size.
    return AttentionTolerance(out, score + sums + roundoff * (magnitude + math.log(seq_len) + 1))


def storing_tolerance(result: Any, dtype: Any) -> Any:
    """Bound the rounding error of storing numbers in a dtype: half a unit in the last place.

    Parameters
    ----------
    result : float64 array
    dtype : dtype
        A dtype of NumPy or ml_dtypes.

    Returns
    -------
    float64 array
        Of the shape of `result`.
    """
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return np.maximum(np.abs(result) * float(info.eps), float(info.smallest_subnormal)) / 2


def fixed_tolerance(result: Any, dtype: Any) -> Any:
    """Return the largest error allowed for each number of a result in a dtype, from `FIXED`.

    Parameters
    ----------
    result : float64 array
    dtype : dtype

    Returns
    -------
    float64 array
        Of the shape of `result`.
    """
    absolute, relative = FIXED[np.dtype(dtype).name]
    return absolute + relative * np.abs(result)


def dense_tolerance(dense_error: float, results: Any, dtype: Any) -> float:
    """Return the largest error that a batch may have: `TIMES_DENSE` times the error of dense attention.

    Parameters
    ----------
    dense_error : float
        The largest error of dense attention in the batch. An error below one unit in the last place of the largest
        result, by luck or because one key has all the weight, counts as one such unit.
    results : float64 array
        The exact results, all finite.
    dtype : dtype
        The dtype in which the results are stored.
    """
    largest = float(np.abs(results).max(initial=0.0))
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    unit = float(info.eps) * 2.0 ** math.floor(math.log2(max(largest, float(info.smallest_normal))))
    return TIMES_DENSE * max(dense_error, unit)
