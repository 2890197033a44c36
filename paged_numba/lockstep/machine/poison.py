"""Fresh memory: poisoned, so that a kernel that reads before it writes gives itself away."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

POISON = 0xFFFDFDAD
"""What fresh shared and local memory holds, by 4 bytes: NaN as float16, float32 and float64, loud as an integer."""


def poisoned(size: int, dtype: np.dtype[Any]) -> Any:
    """Return a 1-D array of `size` elements as dirty as fresh memory on a GPU."""
    words = np.full(-(-size * dtype.itemsize // 4), POISON, np.uint32)
    return words.view(np.uint8)[: size * dtype.itemsize].view(dtype)


_fresh: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""The allocations that began as dirty memory, by identity."""


def fresh_array(shape: tuple[int, ...], dtype: np.dtype[Any], order: str = "C") -> Any:
    """Return an array of dirty (poisoned) memory; a sanitizer tells of reads before writes."""
    memory = poisoned(int(np.prod(shape, dtype=np.int64)), dtype)
    root = memory
    while isinstance(root.base, np.ndarray):
        root = root.base
    _fresh[id(root)] = root
    return memory.reshape(shape, order=order)


def is_fresh(root: Any) -> bool:
    """Tell whether an allocation began as dirty memory."""
    return _fresh.get(id(root)) is root
