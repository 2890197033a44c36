"""Poison: fresh memory is filled with a pattern that exposes kernels which read before they write."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

POISON = 0xFFFDFDAD
"""Every 4 bytes of fresh memory hold this: NaN as float16, float32 and float64, and an absurd integer."""


def poisoned(size: int, dtype: np.dtype[Any]) -> Any:
    """Return a 1-D array of `size` elements filled with `POISON`.

    Parameters
    ----------
    size : int
        Number of elements.
    dtype : dtype
        Type of the elements.
    """
    words = np.full(-(-size * dtype.itemsize // 4), POISON, np.uint32)
    return words.view(np.uint8)[: size * dtype.itemsize].view(dtype)


_fresh: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""The allocations that `fresh_array` made, by id."""


def fresh_array(shape: tuple[int, ...], dtype: np.dtype[Any], order: str = "C") -> Any:
    """Return an array of poisoned memory, in which the sanitizer finds reads before writes."""
    memory = poisoned(int(np.prod(shape, dtype=np.int64)), dtype)
    root = memory
    while isinstance(root.base, np.ndarray):
        root = root.base
    _fresh[id(root)] = root
    return memory.reshape(shape, order=order)


def is_fresh(root: Any) -> bool:
    """Tell whether an allocation was made by `fresh_array`."""
    return _fresh.get(id(root)) is root
