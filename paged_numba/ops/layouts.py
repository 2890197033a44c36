"""Layouts of a KV cache: the order of its axes, and so what lies side by side in memory.

========  ======================================================================================
NHD       ``[num_blocks, block_size, num_kv_heads, head_dim]``: a token's heads
HND       ``[num_blocks, num_kv_heads, block_size, head_dim]``: a head's tokens
packed    keys ``[num_blocks, num_kv_heads, head_dim // x, block_size, x]``, where x numbers are 16 bytes:
          of a head's tokens the first 16 bytes, then the next;
          values ``[num_blocks, num_kv_heads, head_dim, block_size]``: of a head's tokens one dimension,
          then the next
========  ======================================================================================

The packed layout is that of the first vLLM kernels (Kwon et al., SOSP 2023), kept as a lesson:
`paged_numba.kernels.attention_packed` says what it saves, `paged_numba.kernels.write_kv_packed` what it costs.
Its keys must be whole pieces of 16 bytes, its caches contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np

TOKEN_AXES = {"NHD": 1, "HND": 2, "packed": 3}
"""By layout, the axis of keys and of values that counts the tokens of a block."""

_PIECE_BYTES = 16


def cache_layout(layout: Any) -> str:
    """Return a layout's name, or raise."""
    if not isinstance(layout, str) or layout not in TOKEN_AXES:
        raise ValueError(f"layout must be one of {', '.join(TOKEN_AXES)}, got layout={layout!r}")
    return str(layout)


def piece_size(dtype: Any) -> int:
    """Return x, the numbers of a dtype in a piece of 16 bytes of the packed layout."""
    return _PIECE_BYTES // np.dtype(dtype).itemsize


def cache_shapes(
    layout: str, dtype: Any, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of keys and of values.

    Raises
    ------
    ValueError
        No layout has that name, or head_dim is not a multiple of a piece.
    """
    axis = TOKEN_AXES[cache_layout(layout)]
    key: tuple[int, ...] = (num_blocks, num_kv_heads, head_dim)
    value = key
    if layout == "packed":
        size = piece_size(dtype)
        if head_dim % size:
            raise ValueError(
                f"head_dim must be a multiple of {size} for layout='packed' in {np.dtype(dtype)}, "
                f"got head_dim={head_dim}"
            )
        key = (num_blocks, num_kv_heads, head_dim // size, size)
    return (*key[:axis], block_size, *key[axis:]), (*value[:axis], block_size, *value[axis:])
