"""Operations that move keys and values: write, gather and copy blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import targets
from ..arrays import as_array, empty, to_host
from . import checks
from .adopt import as_nhd, integers
from .launches import copy_configuration


def write_kv(
    key: Any,
    value: Any,
    key_cache: Any,
    value_cache: Any,
    slot_mapping: Any,
    *,
    layout: str = "NHD",
    target: str = "auto",
) -> None:
    """Write the keys and values of tokens into the cache, in place.

    Parameters
    ----------
    key, value : [num_tokens, num_kv_heads, head_dim]
        Of the cache's dtype: each number is copied bit for bit.
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
        float32, float16, bfloat16 or float8_e4m3fn, both alike.
    slot_mapping : int64[num_tokens]
        Slot of each token, ``block * block_size + offset``; -1 skips the token. With block_size 16,
        slot 45 is offset 13 of block 2.
    layout : {"NHD", "HND", "packed"}
        The caches' axes, see `paged_numba.layouts`; those of this docstring are ``NHD``.
    target : str
        See `paged_numba.target.resolve`.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or slot that does not fit; nothing was written.
    """
    key, value = as_array(key, "key"), as_array(value, "value")
    stored = key_cache, value_cache
    key_cache, value_cache = as_nhd(key_cache, value_cache, layout)
    slots = to_host(slot_mapping, "slot_mapping")
    checks.check_write_kv(key, value, key_cache, value_cache, slots)
    from ..kernels.write_kv import write_kv_kernel
    from ..kernels.write_kv_packed import write_kv_packed_kernel

    kernel, caches = write_kv_kernel, (key_cache, value_cache)
    if layout == "packed":
        kernel, caches = write_kv_packed_kernel, stored
    over_heads, threads = copy_configuration(key_cache)
    arguments = (key, value, *caches, integers(slot_mapping, slots, np.int64))
    targets.launch(kernel, (key.shape[0], over_heads), threads, *arguments, target=target)


def gather_kv(
    key_cache: Any,
    value_cache: Any,
    block_table: Any,
    seq_len: int,
    *,
    layout: str = "NHD",
    target: str = "auto",
) -> tuple[Any, Any]:
    """Gather the keys and values of one sequence into dense arrays.

    Parameters
    ----------
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
    block_table : int32[max_blocks]
        The sequence's blocks in order; entries past its length are not looked at.
    seq_len : int
        Tokens to gather.
    layout : {"NHD", "HND", "packed"}
        The caches' axes, see `paged_numba.layouts`; those of this docstring are ``NHD``.
    target : str
        See `paged_numba.target.resolve`.

    Returns
    -------
    key, value : [seq_len, num_kv_heads, head_dim]
        Of the caches' dtype, where they lie.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape, block number or length that does not fit.
    """
    stored = key_cache, value_cache
    key_cache, value_cache = as_nhd(key_cache, value_cache, layout)
    blocks = to_host(block_table, "block_table")
    checks.check_gather_kv(key_cache, value_cache, blocks, seq_len)
    shape = (int(seq_len), *key_cache.shape[2:])
    key, value = (empty(shape, key_cache.dtype, like=stored[0]) for _ in range(2))
    from ..kernels.gather_kv import gather_kv_kernel
    from ..kernels.gather_kv_packed import gather_kv_packed_kernel

    kernel, caches = gather_kv_kernel, (key_cache, value_cache)
    if layout == "packed":
        kernel, caches = gather_kv_packed_kernel, stored
    over_heads, threads = copy_configuration(key_cache)
    arguments = (key, value, *caches, integers(block_table, blocks, np.int32))
    targets.launch(kernel, (int(seq_len), over_heads), threads, *arguments, target=target)
    return key, value


def copy_blocks(
    key_cache: Any, value_cache: Any, block_pairs: Any, *, layout: str = "NHD", target: str = "auto"
) -> None:
    """Copy whole KV blocks within the cache, in place.

    Parameters
    ----------
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
    block_pairs : int64[num_pairs, 2]
        Rows (src, dst). No dst may occur in another pair.
    layout : {"NHD", "HND", "packed"}
        The caches' axes, see `paged_numba.layouts`; those of this docstring are ``NHD``.
    target : str
        See `paged_numba.target.resolve`.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or block number that does not fit, or pairs that overlap; nothing was copied.
    """
    key_cache, value_cache = as_nhd(key_cache, value_cache, layout)
    pairs = to_host(block_pairs, "block_pairs")
    checks.check_copy_blocks(key_cache, value_cache, pairs)
    from ..kernels.copy_blocks import copy_blocks_kernel

    over_heads, threads = copy_configuration(key_cache)
    grid = (pairs.shape[0], over_heads, key_cache.shape[1])
    arguments = (key_cache, value_cache, integers(block_pairs, pairs, np.int64))
    targets.launch(copy_blocks_kernel, grid, threads, *arguments, target=target)
