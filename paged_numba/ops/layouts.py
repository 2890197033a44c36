"""Layouts of a KV cache: the order of its axes, which decides what is contiguous in memory.

========  ======================================================================================
NHD       ``[num_blocks, block_size, num_kv_heads, head_dim]``: the heads of a token
HND       ``[num_blocks, num_kv_heads, block_size, head_dim]``: the tokens of a head
packed    keys ``[num_blocks, num_kv_heads, head_dim // x, block_size, x]``, where x numbers are 16 bytes:
          for a head, the first 16 bytes of all tokens, then their next 16 bytes;
          values ``[num_blocks, num_kv_heads, value_head_dim, block_size]``: for a head, the first dimension of
          all tokens, then their next dimension
========  ======================================================================================

The first vLLM kernels (Kwon et al., SOSP 2023) used the packed layout. It is kept as a lesson:
`paged_numba.kernels.attention_packed_kernel` says what it saves, `paged_numba.kernels.write_kv_packed_kernel` what it
costs. In the packed layout, head_dim must be a multiple of x, and the caches must be contiguous. In all layouts, values
may have another head_dim, `value_head_dim`, than keys.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import one_of

TOKEN_AXES = {"NHD": 1, "HND": 2, "packed": 3}
"""For each layout, the axes of the key cache and of the value cache that count the tokens of a block."""

_PIECE_BYTES = 16


def cache_layout(layout: Any) -> str:
    """Return the name of a layout, or raise if it does not exist."""
    return one_of("layout", layout, TOKEN_AXES)


def piece_size(dtype: Any) -> int:
    """Return x of the packed layout: how many numbers of a dtype fit in a piece of 16 bytes."""
    return _PIECE_BYTES // np.dtype(dtype).itemsize


def cache_shapes(
    layout: str,
    dtype: Any,
    num_blocks: int,
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    value_head_dim: int | None = None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the key cache and of the value cache; `value_head_dim` is head_dim if None.

    Raises
    ------
    ValueError
        The layout does not exist, or head_dim is not a multiple of `piece_size`.
    """
    axis = TOKEN_AXES[cache_layout(layout)]
    key: tuple[int, ...] = (num_blocks, num_kv_heads, head_dim)
    value = (num_blocks, num_kv_heads, head_dim if value_head_dim is None else value_head_dim)
    if layout == "packed":
        size = piece_size(dtype)
        if head_dim % size:
            raise ValueError(
                f"head_dim must be a multiple of {size} for layout='packed' in {np.dtype(dtype)}, "
                f"got head_dim={head_dim}"
            )
        key = (num_blocks, num_kv_heads, head_dim // size, size)
    return (*key[:axis], block_size, *key[axis:]), (*value[:axis], block_size, *value[axis:])
