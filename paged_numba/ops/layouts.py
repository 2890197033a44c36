"""Layouts and largest sizes of a KV cache. A layout is the order of its axes: it decides what is contiguous in memory.

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

MAX_GRID_DIM = 65535
MAX_THREADS = 1024
"""Limits of a launch on any GPU: a grid's y and z, and the threads of a thread block."""

CACHE_LIMITS = {
    "block_size": MAX_GRID_DIM,
    "num_kv_heads": MAX_GRID_DIM,
    "head_dim": MAX_THREADS,
    "value_head_dim": MAX_THREADS,
}
"""Largest sizes of a cache: `copy_blocks` has a thread for each dimension, and a thread block for each token."""

ATTENTION_LIMITS = {
    "naive": {"value_head_dim": 512},
    "warp": {"head_dim": 256, "value_head_dim": 256},
    "block": {"head_dim": 256, "value_head_dim": 256, "block_size": 256},
    "packed": {"head_dim": 256, "value_head_dim": 256},
}
"""Largest sizes that the kernel of an algorithm takes; other algorithms and sizes have only the limits of caches."""


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


def excess(
    algorithm: str, block_size: int, head_dim: int, value_head_dim: int
) -> tuple[str, int, int] | None:
    """Return the first size that the kernel of an algorithm does not take, None if it takes all: name, size, limit."""
    sizes = {"head_dim": head_dim, "value_head_dim": value_head_dim, "block_size": block_size}
    for name, limit in ATTENTION_LIMITS.get(algorithm, {}).items():
        if sizes[name] > limit:
            return name, sizes[name], limit
    return None


def check_attention_sizes(algorithm: str, block_size: int, head_dim: int, value_head_dim: int) -> None:
    """Raise unless the kernel of an algorithm, or of the layout ``packed``, takes the sizes of a cache."""
    found = excess(algorithm, block_size, head_dim, value_head_dim)
    if found is None:
        return
    name, size, limit = found
    where, others = f"algorithm={algorithm!r}", "the algorithms auto, tile, split and cascade"
    if algorithm == "packed":
        where, others = "layout='packed'", "the layouts NHD and HND"
    raise ValueError(
        f"{name} must be at most {limit} for {where}, got {name}={size}: "
        f"{others} take up to {CACHE_LIMITS[name]}"
    )
