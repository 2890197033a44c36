"""Access to arrays, tuples and records: indexing, stores and attributes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...errors import KernelError
from ..machine.lanes import source_line
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .functions import caster


def load(mask: Mask, container: Any, index: Any) -> Any:
    """``container[index]`` for arrays and tuples."""
    if isinstance(container, LaneArray) and type(index) is not str:
        return container.load(mask, index)
    if isinstance(container, tuple):
        if type(index) is slice:
            parts = (None if p is None else int(p) for p in (index.start, index.stop, index.step))
            return container[slice(*parts)]
        if not isinstance(index, np.ndarray):
            return container[int(index)]
        value = container[0]
        for place, item in enumerate(container[1:], 1):
            value = np.where(index == place, item, value)
        return value
    if isinstance(index, str):
        view = container.field(index)
        return view if view.lengths else view.load(mask, ())
    raise KernelError(f"{_kind(container)} does not support indexing, {source_line()}")


def store(mask: Mask, container: Any, index: Any, value: Any) -> None:
    """``container[index] = value``."""
    if isinstance(index, str):
        container.field(index).store(mask, (), value)
        return
    if not isinstance(container, LaneArray):
        raise KernelError(f"{_kind(container)} does not support item assignment, {source_line()}")
    container.store(mask, index, value)


def attribute(mask: Mask, value: Any, name: str) -> Any:
    """``value.name`` for arrays, records and numbers."""
    if isinstance(value, LaneArray):
        if value.dtype.names is not None and name in value.dtype.names:
            return load(mask, value, name)
        if name == "strides":
            return tuple(np.int64(s * value.dtype.itemsize) for s in value.strides)
        if name in ("shape", "size", "ndim", "dtype", "itemsize", "nbytes", "T"):
            return getattr(value, name)
        if name == "reshape":
            return partial(value.reshape, mask)
    elif isinstance(value, np.dtype):
        if name == "type":
            return caster(value)
        if name == "itemsize":
            return np.int64(value.itemsize)
    elif (
        name in ("real", "imag", "dtype", "conjugate")
        or hasattr(type(value), "_fields")
        or hasattr(type(value), "__lane_attributes__")
    ):
        return getattr(value, name)
    raise KernelError(f"{_kind(value)} has no attribute {name!r} in a kernel, {source_line()}")


def set_attribute(mask: Mask, value: Any, name: str, new: Any) -> None:
    """``record.name = new``."""
    if not isinstance(value, LaneArray) or value.dtype.names is None or name not in value.dtype.names:
        raise KernelError(f"{_kind(value)} has no field {name!r}, {source_line()}")
    store(mask, value, name, new)


def _kind(value: Any) -> str:
    """Describe a value in the words of a kernel's author, for an error."""
    if isinstance(value, LaneArray):
        return f"the array {value.name}"
    if isinstance(value, tuple):
        return "a tuple"
    if isinstance(value, np.dtype):
        return f"the dtype {value}"
    return f"a number of type {value.dtype}" if hasattr(value, "dtype") else f"{value!r}"
