"""Arrays as operations take them: caches in one layout, small integer arrays in one dtype."""

from __future__ import annotations

from typing import Any

from ..arrays import as_array, reshaped, transposed
from . import checks, layouts


def as_nhd(key_cache: Any, value_cache: Any, layout: str) -> tuple[Any, Any]:
    """Return caches in the shape of NHD, without a copy.

    Packed ones keep the order of the numbers within a block: fit for checks, and for copies of whole blocks.
    """
    key_cache, value_cache = as_array(key_cache, "key_cache"), as_array(value_cache, "value_cache")
    if layouts.cache_layout(layout) == "NHD":
        return key_cache, value_cache
    if layout == "packed":
        checks.check_packed(key_cache, value_cache)
        num_blocks, num_kv_heads, head_dim, block_size = value_cache.shape
        shape = (num_blocks, block_size, num_kv_heads, head_dim)
        return reshaped(key_cache, shape), reshaped(value_cache, shape)
    checks.check_four_axes(key_cache, value_cache)
    return transposed(key_cache, (0, 2, 1, 3)), transposed(value_cache, (0, 2, 1, 3))


def integers(array: Any, host: Any, dtype: Any) -> Any:
    """Return `array` with `dtype`: itself where it has it, else its host copy converted."""
    array = as_array(array)
    return array if getattr(array, "dtype", None) == dtype else host.astype(dtype, copy=False)
