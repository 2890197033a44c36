"""Quantisation of keys and values to float8_e4m3fn, by NumPy on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import ArrayLike, as_array, empty, on_host
from . import checks

LARGEST = 448.0
"""The largest number of float8_e4m3fn."""

_LEAST_EXPONENT = -6
"""Exponent of the least normal number; smaller numbers are multiples of 2**-9."""

_MANTISSA_BITS = 3


def quantize_fp8(array: ArrayLike, scale: float | ArrayLike | None = None) -> Any:
    """Divide keys or values by their scale and round them to float8_e4m3fn; numbers that are too large become 448.

    A cast of NumPy or torch, ``(key / k_scale).astype(float8_e4m3fn)``, makes NaN of every number beyond 464, and a NaN
    in a key or value makes NaN of every output that sees it. Here numbers beyond 448 become 448, -inf and numbers below
    -448 become -448, and only NaN stays NaN: ``__NV_SATFINITE`` of CUDA, the saturation mode of the OCP standard.
    Other numbers are rounded once, to the nearest number of the format, and to the one with an even last bit if two
    are as near.

    Parameters
    ----------
    array : float[..., num_kv_heads, head_dim]
        Keys or values; with one scale, an array of any shape.
    scale : float or float[num_kv_heads], optional
        The `k_scale` or `v_scale` of `paged_attention`, which multiplies what is stored; 1 if None. A scale of
        ``abs(array).max() / 448`` uses the whole range.

    Returns
    -------
    float8_e4m3fn[..., num_kv_heads, head_dim]
        In memory of its own, on the device of `array`; a torch tensor if `array` is one. The host computes it.

    Raises
    ------
    TypeError, ValueError
        `array` or `scale` does not hold real numbers, or `scale` is not positive and finite or has another shape.

    See Also
    --------
    paged_attention : Takes the scales as `k_scale` and `v_scale`.
    write_kv : Writes the result to a cache.

    References
    ----------
    Micikevicius et al., "FP8 Formats for Deep Learning", 2022. "OCP 8-bit Floating Point Specification (OFP8)",
    Open Compute Project, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> key = np.array([[[1.0, -3.3, 1000, np.inf, np.nan]]], np.float32)
    >>> pn.quantize_fp8(key).astype(np.float32).tolist()
    [[[1.0, -3.25, 448.0, 448.0, nan]]]
    >>> pn.quantize_fp8(key, scale=4.0).astype(np.float32).tolist()    # of key / 4: 250 is in range
    [[[0.25, -0.8125, 256.0, 448.0, nan]]]
    """
    numbers = on_host(as_array(array, "array"), "array")
    checks.check_reals("array", numbers)
    num_heads = numbers.shape[-2] if numbers.ndim > 1 else 1
    scales = checks.cache_scale("scale", on_host(as_array(scale, "scale"), "scale"), num_heads)
    with np.errstate(over="ignore"):  # inf saturates as well
        quotients = numbers.astype(np.float64) / (scales[:, None] if numbers.ndim > 1 else scales[0])
    stored = np.asarray(_rounded(quotients), np.float32).astype(checks.cache_dtype("float8_e4m3fn"))
    result = empty(stored.shape, stored.dtype, like=array)
    memory = as_array(result)
    if isinstance(memory, np.ndarray):
        memory[...] = stored
    else:
        memory.copy_to_device(stored)
    return result


def _rounded(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers of the format that are nearest.

    A conversion of ml_dtypes from float64 rounds twice, to float32 first, and would round 1.0625 + 2**-40 down to 1.
    """
    magnitudes = np.minimum(np.abs(numbers), LARGEST)  # NaN stays NaN
    _, exponents = np.frexp(magnitudes)  # magnitudes < 2**exponents
    steps = np.ldexp(1.0, np.maximum(exponents - 1, _LEAST_EXPONENT) - _MANTISSA_BITS)
    return np.copysign(np.rint(magnitudes / steps) * steps, numbers)
