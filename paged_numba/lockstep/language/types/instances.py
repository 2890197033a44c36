"""``isinstance`` in a kernel: Numba decides it when it compiles, by the type of the value."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...machine.lanes import source_line
from ..functions import as_dtype
from .bfloat16 import bfloat16_dtype
from .enums import IntMember, Member

_KINDS: dict[Any, str] = {int: "iu", float: "f", complex: "c", bool: "b"}


def is_instance(value: Any, kinds: tuple[Any, ...]) -> Any:
    """``isinstance(value, kinds)``.

    Parameters
    ----------
    kinds : tuple
        Types of Python, NumPy or Numba, named tuples and enums; ``"bfloat16"`` stands for that type.
    """
    return np.bool_(any(_is_one(value, kind) for kind in kinds))


def _is_one(value: Any, kind: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    number = dtype if isinstance(value, (np.generic, np.ndarray)) else None
    if kind in (str, tuple):
        return isinstance(value, kind) and not hasattr(value, "_fields")
    if isinstance(kind, type) and issubclass(kind, tuple):
        return isinstance(value, kind)
    if isinstance(value, (Member, IntMember)):
        return value.kind is kind
    if kind == "bfloat16":
        return number is not None and number == bfloat16_dtype()
    if isinstance(kind, type) and kind in _KINDS:
        return number is not None and number.kind in _KINDS[kind]
    wanted = as_dtype(kind)
    if wanted is None:
        raise TypeError(f"isinstance needs types that Numba knows, got {kind!r}, {source_line()}")
    return number is not None and number == wanted
