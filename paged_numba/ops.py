"""Public operations on paged KV caches: validate, pick a kernel, launch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import target as seam
from . import validation

ALGORITHMS = ("auto", "naive", "block")
"""Decode kernels; ``auto`` takes ``block``."""

_WARP = 32
_MAX_COPY_THREADS = 256
_NAIVE_THREADS = 64


def write_kv(
    key: Any, value: Any, key_cache: Any, value_cache: Any, slot_mapping: Any, *, target: str = "auto"
) -> None:
    """Write the keys and values of tokens into the cache, in place.

    Parameters
    ----------
    key, value : float32[num_tokens, num_kv_heads, head_dim]
    key_cache, value_cache : float32[num_blocks, block_size, num_kv_heads, head_dim]
    slot_mapping : int64[num_tokens]
        Slot of each token, ``block * block_size + offset``; -1 skips the token. With block_size 16,
        slot 45 is offset 13 of block 2.
    target : str
        See `paged_numba.target.resolve`.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or slot that does not fit; nothing was written.
    """
    slots = seam.to_host(slot_mapping)
    validation.check_write_kv(key, value, key_cache, value_cache, slots)
    if key.shape[0] == 0:
        return
    from .kernels.write_kv import write_kv_kernel

    over_heads, threads = _copy_configuration(key_cache)
    arguments = (key, value, key_cache, value_cache, _integers(slot_mapping, slots, np.int64))
    seam.launch(write_kv_kernel, (key.shape[0], over_heads), threads, *arguments, target=target)


def gather_kv(
    key_cache: Any, value_cache: Any, block_table: Any, seq_len: int, *, target: str = "auto"
) -> tuple[Any, Any]:
    """Gather the keys and values of one sequence into dense arrays.

    Parameters
    ----------
    key_cache, value_cache : float32[num_blocks, block_size, num_kv_heads, head_dim]
    block_table : int32[max_blocks]
        The sequence's blocks in order; entries past its length are not looked at.
    seq_len : int
        Tokens to gather.
    target : str
        See `paged_numba.target.resolve`.

    Returns
    -------
    key, value : float32[seq_len, num_kv_heads, head_dim]
        Where the caches lie.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape, block number or length that does not fit.
    """
    blocks = seam.to_host(block_table)
    validation.check_gather_kv(key_cache, value_cache, blocks, seq_len)
    shape = (int(seq_len), *key_cache.shape[2:])
    key = seam.empty(shape, np.float32, like=key_cache)
    value = seam.empty(shape, np.float32, like=key_cache)
    if seq_len == 0:
        return key, value
    from .kernels.gather_kv import gather_kv_kernel

    over_heads, threads = _copy_configuration(key_cache)
    arguments = (key, value, key_cache, value_cache, _integers(block_table, blocks, np.int32))
    seam.launch(gather_kv_kernel, (int(seq_len), over_heads), threads, *arguments, target=target)
    return key, value


def copy_blocks(key_cache: Any, value_cache: Any, block_pairs: Any, *, target: str = "auto") -> None:
    """Copy whole KV blocks within the cache, in place.

    Parameters
    ----------
    key_cache, value_cache : float32[num_blocks, block_size, num_kv_heads, head_dim]
    block_pairs : int64[num_pairs, 2]
        Rows (src, dst). No dst may occur in another pair.
    target : str
        See `paged_numba.target.resolve`.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or block number that does not fit, or pairs that overlap; nothing was copied.
    """
    pairs = seam.to_host(block_pairs)
    validation.check_copy_blocks(key_cache, value_cache, pairs)
    if pairs.shape[0] == 0:
        return
    from .kernels.copy_blocks import copy_blocks_kernel

    over_heads, threads = _copy_configuration(key_cache)
    grid = (pairs.shape[0], over_heads, key_cache.shape[1])
    arguments = (key_cache, value_cache, _integers(block_pairs, pairs, np.int64))
    seam.launch(copy_blocks_kernel, grid, threads, *arguments, target=target)


def paged_attention(
    query: Any,
    key_cache: Any,
    value_cache: Any,
    block_tables: Any,
    seq_lens: Any,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    out: Any = None,
    algorithm: str = "auto",
    target: str = "auto",
) -> Any:
    """Attend from one query token of each sequence to the keys and values in its blocks.

    Parameters
    ----------
    query : float32[num_seqs, num_q_heads, head_dim]
        num_q_heads is a multiple of num_kv_heads; head_dim is 256 at most.
    key_cache, value_cache : float32[num_blocks, block_size, num_kv_heads, head_dim]
        block_size is 256 at most.
    block_tables : int32[num_seqs, max_blocks]
        Each sequence's blocks in order; entries past its length are not looked at.
    seq_lens : int32[num_seqs]
        Tokens of each sequence in the cache, this step's included: write first, then attend.
    scale : float, optional
        Factor of the scores; ``1 / sqrt(head_dim)`` if None.
    return_lse : bool
        Whether to return the LSE as well.
    out : float32[num_seqs, num_q_heads, head_dim], optional
        Where to put the result.
    algorithm : {"auto", "naive", "block"}
        The kernel.
    target : str
        See `paged_numba.target.resolve`.

    Returns
    -------
    out : float32[num_seqs, num_q_heads, head_dim]
        A sequence of length 0 gives 0.
    lse : float32[num_seqs, num_q_heads]
        Only with `return_lse`: natural logarithm of the sum of exponentiated scores; -inf for length 0.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape, block number or length that does not fit.

    References
    ----------
    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
    SOSP 2023.
    """
    tables, lens = seam.to_host(block_tables), seam.to_host(seq_lens)
    validation.check_paged_attention(query, key_cache, value_cache, tables, lens, scale, out)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got algorithm={algorithm!r}")
    num_seqs, num_q_heads, head_dim = query.shape
    if out is None:
        out = seam.empty(query.shape, np.float32, like=query)
    lse = seam.empty((num_seqs, num_q_heads), np.float32, like=query)
    if num_seqs:
        factor = np.float32(1 / math.sqrt(head_dim) if scale is None else scale)
        block_tables = _integers(block_tables, tables, np.int32)
        seq_lens = _integers(seq_lens, lens, np.int32)
        arguments = (out, lse, query, key_cache, value_cache, block_tables, seq_lens, factor)
        if algorithm == "naive":
            from .kernels.decode_naive import decode_naive_kernel

            blocks = -(-num_seqs * num_q_heads // _NAIVE_THREADS)
            seam.launch(decode_naive_kernel, blocks, _NAIVE_THREADS, *arguments, target=target)
        else:
            from .kernels.decode_block import decode_block_kernel

            threads = _decode_threads(head_dim, key_cache.shape[1])
            seam.launch(decode_block_kernel, (num_seqs, num_q_heads), threads, *arguments, target=target)
    return (out, lse) if return_lse else out


def _copy_configuration(key_cache: Any) -> tuple[int, tuple[int, int]]:
    """Return thread blocks over KV heads, and (threads over head_dim, KV heads of a thread block)."""
    num_kv_heads, head_dim = key_cache.shape[2:]
    over_dim = _WARP * -(-head_dim // _WARP)
    heads = max(1, min(num_kv_heads, _MAX_COPY_THREADS // over_dim))
    return -(-num_kv_heads // heads), (over_dim, heads)


def _decode_threads(head_dim: int, block_size: int) -> int:
    """Return a power of two that is at least head_dim and block_size, two warps at least."""
    return max(2 * _WARP, 1 << (max(head_dim, block_size) - 1).bit_length())


def _integers(array: Any, host: Any, dtype: Any) -> Any:
    """Return `array` with `dtype`: itself where it has it, else its host copy converted."""
    return array if array is not None and getattr(array, "dtype", None) == dtype else host.astype(dtype)
