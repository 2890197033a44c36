"""Access to arrays, tuples and records: indexing, stores and attributes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...errors import CompilationError, KernelError, KernelIndexError
from ..machine.arithmetic import LaneTuple, tuple_like
from ..machine.lanes import source_line
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .arrays import methods
from .arrays.ranges import Range
from .arrays.views import Flat
from .functions import caster, popc
from .types.enums import Member
from .types.function_values import FunctionValue


def load(mask: Mask, container: Any, index: Any) -> Any:
    """``container[index]`` for arrays and tuples."""
    if isinstance(container, LaneArray) and type(index) is not str:
        if not container.lengths and container.dtype.names is not None and isinstance(index, np.integer):
            return load(mask, container, _field_name(container, index))
        return container.load(mask, index)
    if isinstance(container, tuple):
        if isinstance(container, Range):
            return container.item(index)
        return _item(mask, container, index)
    if isinstance(container, Flat):
        return container.load(mask, index)
    if isinstance(index, str) and _has_field(container, index):
        view = _field(container, index)
        return view if view.lengths else view.load(mask, ())
    if isinstance(index, str):
        raise KernelError(f"{kind_of(container)} has no field {index!r}, {source_line()}")
    raise KernelError(f"{kind_of(container)} does not support indexing, {source_line()}")


def _field_name(record: LaneArray, place: Any) -> str:
    """Return the name of a field of a record by its place; Numba takes ``record[0]`` for the first field."""
    names = record.dtype.names or ()
    if not 0 <= place < len(names):
        raise KernelIndexError(f"{record.name} has {len(names)} fields, not a field {place}, {source_line()}")
    return names[place]


def _has_field(value: Any, name: str) -> bool:
    return isinstance(value, LaneArray) and value.dtype.names is not None and name in value.dtype.names


def _field(records: LaneArray, name: str) -> LaneArray:
    """Return a field; of one record, it must be aligned, or Numba does not compile its access."""
    dtype = records.dtype
    if not dtype.isalignedstruct and not records.lengths and dtype.fields is not None:
        held, offset = dtype.fields[name][:2]
        kind = held.base
        if kind.names is None and offset % kind.alignment:
            raise CompilationError(
                f"Numba cannot compile {records.name}.{name} of a record: the type {kind} is not aligned at "
                f"byte {offset}: make the dtype with align=True, {source_line()}"
            )
    return records.field(name)


def _item(mask: Mask, values: tuple[Any, ...], index: Any) -> Any:
    """``values[index]`` for a tuple; the index may differ by lane."""
    if type(index) is slice:
        parts = (None if p is None else int(p) for p in (index.start, index.stop, index.step))
        return LaneTuple(values[slice(*parts)])
    n = len(values)
    if type(index) is np.int64 and 0 <= (place := int(index)) < n:
        return values[place]
    beyond = index[((index < -n) | (index >= n)) & mask] if isinstance(index, np.ndarray) else index
    if np.size(beyond) and not -n <= (wrong := int(np.ravel(beyond)[0])) < n:
        raise KernelIndexError(f"a tuple of {n} elements has no element {wrong}, {source_line()}")
    if not isinstance(index, np.ndarray):
        return values[int(index)]
    value = values[0]
    if any(getattr(item, "dtype", None) != getattr(value, "dtype", None) for item in values):
        raise KernelError(f"a tuple of several types needs the same index in all threads, {source_line()}")
    for place, item in enumerate(values[1:], 1):
        value = _where((index == place) | (index == place - n), item, value)
    return value


def _where(condition: Any, a: Any, b: Any) -> Any:
    """Return the item `a` of a tuple where `condition` holds, and `b` elsewhere."""
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple_like([_where(condition, x, y) for x, y in zip(a, b, strict=True)], a)
    if not isinstance(a, (np.generic, np.ndarray)) or not isinstance(b, (np.generic, np.ndarray)):
        raise KernelError(
            f"a tuple that holds {kind_of(a)} needs the same index in all threads, {source_line()}"
        )
    return np.where(condition, a, b)


def store(mask: Mask, container: Any, index: Any, value: Any) -> None:
    """``container[index] = value``."""
    if isinstance(container, Flat):
        container, index = container.array, container.place(index)
    if not isinstance(container, LaneArray):
        raise KernelError(f"{kind_of(container)} does not support item assignment, {source_line()}")
    if isinstance(index, str):
        if not _has_field(container, index):
            raise KernelError(f"{kind_of(container)} has no field {index!r}, {source_line()}")
        name, container, index = index, _field(container, index), ()
        if container.lengths and not isinstance(value, LaneArray):
            raise KernelError(
                f"the field {name!r} of {container.name} is an array and takes an array, not {kind_of(value)}: "
                f"assign to all of it with [:], {source_line()}"
            )
    held = container.dtype
    try:
        given = value.dtype
    except AttributeError:
        if isinstance(value, tuple):
            _store_items(mask, container, index, value)
            return
        if isinstance(value, _TEXTS) and held.kind == ("U" if isinstance(value, str) else "S"):
            value = np.str_(value) if isinstance(value, str) else np.bytes_(value)
        elif type(value) is not bool or held.kind in "mMSU":
            raise KernelError(f"{kind_of(container)} cannot hold {kind_of(value)}, {source_line()}") from None
    else:
        if given is not held and (given.kind in "cmMSU" or held.kind in "mMSU"):
            _require_storable(container, value)
    container.store(mask, index, value)


_TEXTS = (str, bytes)
_INTEGERS = frozenset(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8))


def _require_storable(container: LaneArray, value: Any) -> None:
    """Check that an array can hold complex numbers, dates, durations or texts."""
    given, held = value.dtype, container.dtype
    if given.kind == "c" and held.kind != "c":
        raise KernelError(f"{kind_of(container)} holds real numbers, not {kind_of(value)}, {source_line()}")
    # Numba converts neither the unit of a date or a duration nor a number to one.
    if (given.kind in "mM" or held.kind in "mM") and given != held:
        raise KernelError(f"{kind_of(container)} holds {held}, not {kind_of(value)}, {source_line()}")
    if (given.kind in "SU" or held.kind in "SU") and given.kind != held.kind:
        raise KernelError(f"{kind_of(container)} holds {held}, not {kind_of(value)}, {source_line()}")


def same(a: Any, b: Any) -> Any:
    """``a is b``: as Numba has it, whether two values of one type are equal, or two arrays are the same view."""
    if a is b:
        return np.bool_(True)
    if isinstance(a, LaneArray) and isinstance(b, LaneArray):
        alike = a.buffer is b.buffer and a.strides == b.strides and len(a.lengths) == len(b.lengths)
        if not alike:
            return np.bool_(False)
        found = a.offset == b.offset
        for n, m in zip(a.lengths, b.lengths, strict=True):
            found = found & (n == m)
        return found if isinstance(found, np.ndarray) else np.bool_(found)
    types = [getattr(value, "dtype", type(value)) for value in (a, b)]
    kinds = [getattr(value, "kind", None) for value in (a, b)]
    if types[0] != types[1] or kinds[0] is not kinds[1]:
        return np.bool_(False)
    found = a == b
    return np.bool_(found) if isinstance(found, bool) else found


def equal_texts(a: Any, b: Any) -> Any:
    """``a == b``, one of which is a constant text."""
    for value in (a, b):
        if not isinstance(value, _TEXTS) and getattr(getattr(value, "dtype", None), "kind", "") not in (
            "S",
            "U",
        ):
            raise KernelError(f"a text compares with a text, not with {kind_of(value)}, {source_line()}")
    found = a == b
    return np.bool_(found) if isinstance(found, bool) else found


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
    elif name in ("item", "view") and isinstance(value, (np.generic, np.ndarray)):
        return (lambda: value) if name == "item" else partial(_reinterpreted, value)
    elif name == "bit_count" and getattr(value, "dtype", value) in _INTEGERS:
        return partial(popc, value)
    elif (
        name in ("real", "imag", "dtype", "conjugate")
        or hasattr(type(value), "_fields")
        or hasattr(type(value), "__lane_attributes__")
    ):
        return getattr(value, name)
    raise KernelError(f"{kind_of(value)} has no attribute {name!r} in a kernel, {source_line()}")


def knows(value: Any, name: str) -> bool:
    """Tell whether the machine itself decides on an attribute of a value: it runs or refuses it."""
    if isinstance(value, LaneArray):
        return methods.knows(name)
    return name in ("item", "view") and isinstance(value, (np.generic, np.ndarray))


def _reinterpreted(value: Any, dtype: Any) -> Any:
    """``number.view(dtype)``: the same bits as another type."""
    if not isinstance(dtype, np.dtype) or dtype.itemsize != value.dtype.itemsize:
        raise KernelError(f"view of a number needs a dtype of {value.dtype.itemsize} bytes, {source_line()}")
    return value.view(dtype)


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
    if isinstance(value, _TEXTS):
        return f"the text {value!r}"
    if isinstance(value, Member):
        return f"a member of {value.kind.__name__}"
    if callable(value) or isinstance(value, FunctionValue):
        return "a function"
    if isinstance(value, np.dtype):
        return f"the dtype {value}"
    return f"a number of type {value.dtype}" if hasattr(value, "dtype") else f"{value!r}"
