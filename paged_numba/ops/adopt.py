"""Adoption of arguments: caches of every layout viewed as NHD, small integer arrays in the dtype that kernels take."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import DTypeLike

from ..arrays import as_array, on_host, reshaped, transposed
from . import checks, layouts


class Caches(NamedTuple):
    """The key cache and the value cache of an operation.

    Attributes
    ----------
    key, value : float[num_blocks, block_size, num_kv_heads, head_dim and value_head_dim]
        Views in the shape of the layout NHD, without a copy. Views of packed caches keep the order of the numbers
        within a block: use them only for checks and for copies of whole blocks.
    stored : tuple of two arrays
        The caches themselves, with the axes of their layout.
    layout : {"NHD", "HND", "packed"}
    """

    key: Any
    value: Any
    stored: tuple[Any, Any]
    layout: str

    @property
    def for_kernels(self) -> tuple[Any, Any]:
        """The caches that the kernels of the layout take: the stored caches if packed, else the views as NHD."""
        return self.stored if self.layout == "packed" else (self.key, self.value)


def caches(key_cache: Any, value_cache: Any, layout: str) -> Caches:
    """Adopt a key cache and a value cache.

    Raises
    ------
    TypeError, ValueError
        The layout does not exist, or the caches do not have its axes.
    """
    stored = as_array(key_cache, "key_cache"), as_array(value_cache, "value_cache")
    if layouts.cache_layout(layout) == "NHD":
        return Caches(stored[0], stored[1], stored, layout)
    if layout == "packed":
        checks.check_packed(*stored)
        num_blocks, num_kv_heads, value_head_dim, block_size = stored[1].shape
        head_dim = stored[0].shape[2] * stored[0].shape[4]
        key, value = _views(
            reshaped,
            stored,
            *((num_blocks, block_size, num_kv_heads, dims) for dims in (head_dim, value_head_dim)),
        )
        return Caches(key, value, stored, layout)
    checks.check_four_axes(*stored)
    key, value = _views(transposed, stored, (0, 2, 1, 3), (0, 2, 1, 3))
    return Caches(key, value, stored, layout)


def _views(
    view: Any, stored: tuple[Any, Any], of_keys: tuple[int, ...], of_values: tuple[int, ...]
) -> tuple[Any, Any]:
    try:
        return view(stored[0], of_keys), view(stored[1], of_values)
    except TypeError as error:
        raise TypeError(
            f"key_cache and value_cache must be arrays that can be viewed here: {error}"
        ) from None


def integer_rows(array: Any, name: str, num_columns: int) -> Any:
    """Return rows of integers as a NumPy array; an empty list has no rows of `num_columns` integers."""
    rows = on_host(array, name)
    return (
        rows.reshape(0, num_columns)
        if isinstance(array, (list, tuple)) and rows.ndim == 1 and not rows.size
        else rows
    )


def integers(adopted: Any, host: Any, dtype: DTypeLike) -> Any:
    """Return a small array for a kernel: `adopted` if it has the dtype, else `host`, converted."""
    return adopted if getattr(adopted, "dtype", None) == dtype else host.astype(dtype, copy=False)
