"""Access to arrays, tuples and records: indexing, stores and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import KernelError, KernelIndexError
from ..machine.lanes import source_line
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .arrays import methods
from .arrays.views import Flat
from .functions import caster


def load(mask: Mask, container: Any, index: Any) -> Any:
    """``container[index]`` for arrays and tuples."""
    if isinstance(container, LaneArray) and type(index) is not str:
        return container.load(mask, index)
    if isinstance(container, tuple):
        return _item(mask, container, index)
    if isinstance(container, Flat):
        return container.load(mask, index)
    if isinstance(index, str) and _has_field(container, index):
        view = container.field(index)
        return view if view.lengths else view.load(mask, ())
    if isinstance(index, str):
        raise KernelError(f"{kind_of(container)} has no field {index!r}, {source_line()}")
    raise KernelError(f"{kind_of(container)} does not support indexing, {source_line()}")


def _has_field(value: Any, name: str) -> bool:
    return isinstance(value, LaneArray) and value.dtype.names is not None and name in value.dtype.names


def _item(mask: Mask, values: tuple[Any, ...], index: Any) -> Any:
    """``values[index]`` for a tuple; the index may differ by lane."""
    if type(index) is slice:
        parts = (None if p is None else int(p) for p in (index.start, index.stop, index.step))
        return values[slice(*parts)]
    n = len(values)
    beyond = index[((index < -n) | (index >= n)) & mask] if isinstance(index, np.ndarray) else index
    if np.size(beyond) and not -n <= (wrong := int(np.ravel(beyond)[0])) < n:
        raise KernelIndexError(f"a tuple of {n} elements has no element {wrong}, {source_line()}")
    if not isinstance(index, np.ndarray):
        return values[int(index)]
    value = values[0]
    for place, item in enumerate(values[1:], 1):
        value = np.where((index == place) | (index == place - n), item, value)
    return value


def store(mask: Mask, container: Any, index: Any, value: Any) -> None:
    """``container[index] = value``."""
    if isinstance(container, Flat):
        container, index = container.array, container.place(index)
    if not isinstance(container, LaneArray):
        raise KernelError(f"{kind_of(container)} does not support item assignment, {source_line()}")
    if isinstance(index, str):
        if not _has_field(container, index):
            raise KernelError(f"{kind_of(container)} has no field {index!r}, {source_line()}")
        container, index = container.field(index), ()
    try:
        is_complex = value.dtype.kind == "c"
    except AttributeError:
        is_complex = False
        if isinstance(value, tuple):
            _store_items(mask, container, index, value)
            return
        if isinstance(value, str) and container.dtype.kind == "U":
            value = np.str_(value)
        elif type(value) is not bool:
            raise KernelError(f"{kind_of(container)} cannot hold {kind_of(value)}, {source_line()}") from None
    if is_complex and container.dtype.kind != "c":
        raise KernelError(f"{kind_of(container)} holds real numbers, not {kind_of(value)}, {source_line()}")
    container.store(mask, index, value)


def _store_items(mask: Mask, container: LaneArray, index: Any, values: tuple[Any, ...]) -> None:
    """``array[:] = 1, 2, 3``."""
    view = container.load(mask, index)
    if not isinstance(view, LaneArray) or view.lengths != (len(values),):
        raise KernelError(f"{kind_of(container)} cannot hold a tuple of {len(values)} there, {source_line()}")
    for place, item in enumerate(values):
        store(mask, view, np.int64(place), item)


def attribute(mask: Mask, value: Any, name: str) -> Any:
    """``value.name`` for arrays, records and numbers."""
    if isinstance(value, LaneArray):
        if value.dtype.names is not None and name in value.dtype.names:
            return load(mask, value, name)
        found = methods.attribute(mask, value, name)
        if found is not None:
            return found
    elif isinstance(value, np.dtype):
        if name == "type":
            return caster(value)
        if name == "itemsize":
            return np.int64(value.itemsize)
    elif isinstance(value, (np.finfo, np.iinfo)):
        return _limit(value, name)
    elif (
        name in ("real", "imag", "dtype", "conjugate")
        or hasattr(type(value), "_fields")
        or hasattr(type(value), "__lane_attributes__")
    ):
        return getattr(value, name)
    raise KernelError(f"{kind_of(value)} has no attribute {name!r} in a kernel, {source_line()}")


def _limit(limits: Any, name: str) -> Any:
    """``np.finfo(dtype).eps``, ``np.iinfo(dtype).max`` and others."""
    value = getattr(limits, name, None)
    if isinstance(value, np.floating):
        return value
    if isinstance(value, int):
        return np.int64(value) if value < 2**63 else np.uint64(value)
    raise KernelError(f"the limits of {limits.dtype} have no {name!r} in a kernel, {source_line()}")


def set_attribute(mask: Mask, value: Any, name: str, new: Any) -> None:
    """``record.name = new``."""
    if not isinstance(value, LaneArray) or value.dtype.names is None or name not in value.dtype.names:
        raise KernelError(f"{kind_of(value)} has no field {name!r}, {source_line()}")
    store(mask, value, name, new)


def kind_of(value: Any) -> str:
    """Describe a value in the words of a kernel's author, for an error."""
    if isinstance(value, LaneArray):
        return f"the array {value.name}"
    if isinstance(value, tuple):
        return "a tuple"
    if isinstance(value, str):
        return f"the text {value!r}"
    if callable(value):
        return "a function"
    if isinstance(value, np.dtype):
        return f"the dtype {value}"
    return f"a number of type {value.dtype}" if hasattr(value, "dtype") else f"{value!r}"
