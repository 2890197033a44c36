"""Operations that move keys and values: write, gather and copy blocks."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from .. import targets
from ..arrays import ArrayLike, IntegersLike, as_array, empty, on_host
from . import adopt, checks, launches

ArrayT = TypeVar("ArrayT", bound=ArrayLike)


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
    key, value : [num_tokens, num_kv_heads, head_dim]
        Of the cache's dtype: each number is copied bit for bit.
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
        float32, float16, bfloat16 or float8_e4m3fn, both of the same dtype.
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
    arguments = checked_write(key, value, key_cache, value_cache, slot_mapping, layout)
    launches.write(*arguments, targets.resolve(target))


def checked_write(
    key: ArrayLike,
    value: ArrayLike,
    key_cache: ArrayLike,
    value_cache: ArrayLike,
    slot_mapping: IntegersLike,
    layout: str,
    name: str = "slot_mapping",
) -> tuple[Any, Any, adopt.Caches, Any]:
    """Adopt and check the arguments of `write_kv`; return those of `launches.write`. `name` is that of the slots."""
    keys, values = as_array(key, "key"), as_array(value, "value")
    caches = adopt.caches(key_cache, value_cache, layout)
    slot_mapping = as_array(slot_mapping, name)
    slots = on_host(slot_mapping, name)
    checks.check_write_kv(keys, values, caches.key, caches.value, slots, name)
    return keys, values, caches, adopt.integers(slot_mapping, slots, np.int64)


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
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
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
    key, value : [seq_len, num_kv_heads, head_dim]
        Of the caches' dtype, on their device.

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
    shape = (int(seq_len), *caches.key.shape[2:])
    key, value = (empty(shape, caches.key.dtype, like=key_cache) for _ in range(2))
    outputs = as_array(key), as_array(value)
    launches.gather(*outputs, caches, adopt.integers(block_table, blocks, np.int32), targets.resolve(target))
    return key, value


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
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim]
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
    pairs = on_host(block_pairs, "block_pairs")
    checks.check_copy_blocks(caches.key, caches.value, pairs)
    launches.copy(caches, adopt.integers(block_pairs, pairs, np.int64), targets.resolve(target))
