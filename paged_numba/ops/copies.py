"""Operations that move keys and values: write, gather and copy blocks; and their quantisation to float8."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import targets
from ..arrays import ArrayLike, IntegersLike, as_array, empty, on_host, untraced
from . import adopt, checks, launches

ArrayT = TypeVar("ArrayT", bound=ArrayLike)


@untraced
def write_kv(
    key: ArrayLike,
    value: ArrayLike,
    key_cache: ArrayLike,
    value_cache: ArrayLike,
    slot_mapping: IntegersLike,
    *,
    layout: str = "NHD",
    target: str = "auto",
) -> None:
    """Write the keys and values of tokens into the cache, in place.

    Parameters
    ----------
    key : [num_tokens, num_kv_heads, head_dim]
        Of the cache's dtype: each number is copied bit for bit.
    value : [num_tokens, num_kv_heads, value_head_dim]
        The same for the values; value_head_dim may differ from head_dim.
    key_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
        float32, float16, bfloat16 or float8_e4m3fn; head_dim and value_head_dim are 1,024 at most.
    value_cache : float[num_blocks, block_size, num_kv_heads, value_head_dim]
        Of the same dtype.
    slot_mapping : int64[num_tokens]
        Slot of each token, ``block * block_size + offset``; -1 skips the token. With block_size 16,
        slot 45 is offset 13 of block 2.
    layout : {"NHD", "HND", "packed"}
        Order of the caches' axes, see `paged_numba.ops.layouts`; this docstring shows ``NHD``.
    target : str
        See `paged_numba.targets.resolve`.

    Raises
    ------
    TypeError, ValueError
        A dtype or shape is invalid, the cache does not have a slot, or two tokens have the same slot; nothing was
        written.

    See Also
    --------
    gather_kv : Reads the tokens of a sequence back.
    BlockAllocator.slots : Returns the slots of a sequence's tokens.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> key_cache, value_cache = np.zeros((2, 3, 4, 1, 2), np.float32)    # 3 blocks of 4 tokens
    >>> key = value = np.ones((2, 1, 2), np.float32)
    >>> pn.write_kv(key, value, key_cache, value_cache, [6, -1])    # the second token is skipped
    >>> np.argwhere(key_cache[..., 0, 0]).tolist()    # slot 6 is offset 2 of block 1
    [[1, 2]]
    """
    keys, values = as_array(key, "key"), as_array(value, "value")
    caches = adopt.caches(key_cache, value_cache, layout)
    slot_mapping = as_array(slot_mapping, "slot_mapping")
    slots = on_host(slot_mapping, "slot_mapping")
    checks.check_write_kv(keys, values, caches.key, caches.value, slots)
    slots = adopt.integers(slot_mapping, slots, np.int64)
    launches.write(keys, values, caches, slots, targets.resolve(target))


@untraced
def gather_kv(
    key_cache: ArrayT,
    value_cache: ArrayT,
    block_table: IntegersLike,
    seq_len: int,
    *,
    layout: str = "NHD",
    target: str = "auto",
) -> tuple[ArrayT, ArrayT]:
    """Gather the keys and values of one sequence into dense arrays.

    Parameters
    ----------
    key_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
        As in `write_kv`.
    value_cache : float[num_blocks, block_size, num_kv_heads, value_head_dim]
        As in `write_kv`.
    block_table : int32[max_blocks]
        The sequence's blocks in order; entries past its end are not read.
    seq_len : int
        Tokens to gather.
    layout : {"NHD", "HND", "packed"}
        Order of the caches' axes, see `paged_numba.ops.layouts`; this docstring shows ``NHD``.
    target : str
        See `paged_numba.targets.resolve`.

    Returns
    -------
    key : [seq_len, num_kv_heads, head_dim]
        Of the caches' dtype, on their device.
    value : [seq_len, num_kv_heads, value_head_dim]
        The same for the values.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape, block number or length is invalid.

    See Also
    --------
    write_kv : Writes tokens into the cache.
    PagedKVCache.gather : The same for a sequence of a `PagedKVCache`, by its id.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> key_cache = np.arange(12, dtype=np.float32).reshape(3, 4, 1, 1)    # each token holds the number of its slot
    >>> key, _ = pn.gather_kv(key_cache, key_cache.copy(), [2, 0], 5)
    >>> key.ravel().tolist()
    [8.0, 9.0, 10.0, 11.0, 0.0]
    """
    caches = adopt.caches(key_cache, value_cache, layout)
    block_table = as_array(block_table, "block_table")
    blocks = on_host(block_table, "block_table")
    checks.check_gather_kv(caches.key, caches.value, blocks, seq_len)
    key, value = (
        empty((int(seq_len), *cache.shape[2:]), cache.dtype, like=key_cache)
        for cache in (caches.key, caches.value)
    )
    outputs = as_array(key), as_array(value)
    launches.gather(*outputs, caches, adopt.integers(block_table, blocks, np.int32), targets.resolve(target))
    return key, value


@untraced
def copy_blocks(
    key_cache: ArrayLike,
    value_cache: ArrayLike,
    block_pairs: IntegersLike,
    *,
    layout: str = "NHD",
    target: str = "auto",
) -> None:
    """Copy whole KV blocks within the cache, in place.

    Parameters
    ----------
    key_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
        As in `write_kv`.
    value_cache : float[num_blocks, block_size, num_kv_heads, value_head_dim]
        As in `write_kv`.
    block_pairs : int64[num_pairs, 2]
        Rows (src, dst). No dst may occur in another pair.
    layout : {"NHD", "HND", "packed"}
        Order of the caches' axes, see `paged_numba.ops.layouts`; this docstring shows ``NHD``.
    target : str
        See `paged_numba.targets.resolve`.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or block number is invalid, or pairs overlap; nothing was copied.

    See Also
    --------
    BlockAllocator.append : Returns the blocks to copy before a write (copy-on-write).

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> key_cache = np.arange(12, dtype=np.float32).reshape(3, 4, 1, 1)
    >>> pn.copy_blocks(key_cache, key_cache.copy(), [[2, 0]])
    >>> key_cache[0].ravel().tolist()
    [8.0, 9.0, 10.0, 11.0]
    """
    caches = adopt.caches(key_cache, value_cache, layout)
    block_pairs = as_array(block_pairs, "block_pairs")
    pairs = adopt.integer_rows(block_pairs, "block_pairs", 2)
    checks.check_copy_blocks(caches.key, caches.value, pairs)
    launches.copy(caches, adopt.integers(block_pairs, pairs, np.int64), targets.resolve(target))


_LARGEST_FP8 = 448.0
"""The largest number of float8_e4m3fn."""

_LEAST_EXPONENT = -6
"""Exponent of the least normal number; smaller numbers are multiples of 2**-9."""

_MANTISSA_BITS = 3


@untraced
def quantize_fp8(array: ArrayLike, scale: float | ArrayLike | None = None) -> Any:
    """Divide keys or values by their scale and round them to float8_e4m3fn; numbers that are too large become 448.

    A cast of NumPy or torch, ``(key / k_scale).astype(float8_e4m3fn)``, makes NaN of every number beyond 464, and a NaN
    in a key or value makes NaN of every output that sees it. Here infinity and numbers beyond 448 become 448, with
    their sign, and only NaN stays NaN: ``__NV_SATFINITE`` of CUDA, the saturation mode of the OCP standard. Other
    numbers are rounded once, to the nearest number of the format, and to the one with an even last bit if two are as
    near.

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
    magnitudes = np.minimum(np.abs(numbers), _LARGEST_FP8)  # NaN stays NaN
    _, exponents = np.frexp(magnitudes)  # magnitudes < 2**exponents
    steps = np.ldexp(1.0, np.maximum(exponents - 1, _LEAST_EXPONENT) - _MANTISSA_BITS)
    return np.copysign(np.rint(magnitudes / steps) * steps, numbers)
