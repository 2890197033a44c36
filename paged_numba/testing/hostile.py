"""Hostile values: what a caller may pass by mistake or by malice, from NaN to objects whose methods raise.

`VALUES` suit any parameter; `twisted` returns hostile relatives of a valid value, such as a masked array of the same
numbers. `paged_numba.testing.meanings` says which plain value each stands for.
"""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np

from ..targets import cuda_unavailable_reason

Maker = Callable[[], Any]
"""A function that makes a value, a new one for each call: a call may change it."""


class HostileError(Exception):
    """Raised by the methods of hostile objects."""


class ArraySubclass(np.ndarray):
    """A subclass of NumPy's array."""


class _Number(int):
    """A subclass of int."""


class _Text(str):
    """A subclass of str."""


class _Three(enum.IntEnum):
    THREE = 3


def _constants(*values: Any) -> list[Maker]:
    return [lambda value=value: value for value in values]  # type: ignore[misc]


def _raising(*names: str) -> Maker:
    """Return a maker of objects whose methods or properties of these names raise `HostileError`."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise HostileError("a method of a hostile object was called")

    body: dict[str, Any] = {
        name: property(method) if name.endswith("_interface__") or not name.startswith("__") else method
        for name in names
    }
    if "__eq__" in names:  # a class with an __eq__ of its own is not hashable by itself
        body["__hash__"] = lambda self: hash("a")
    return type("Raising", (), body)


def _returning(**results: Any) -> Maker:
    """Return a maker of objects whose methods of these names return these results."""
    bodies = {name: lambda self, *args, result=result, **kwargs: result for name, result in results.items()}
    return type("Returning", (), bodies)


def _with(**attributes: Any) -> Maker:
    """Return a maker of objects that have these attributes."""
    return type("Having", (), attributes)


def _as_if_on_gpu(**attributes: Any) -> Maker:
    """Return a maker of objects that pretend to lie on a GPU; of None if there is one, which would read the memory."""
    make = _with(**attributes)
    return lambda: make() if cuda_unavailable_reason() else None


_INTEGERS = _constants(
    *(-1, 0, 1, 2, 3, 255, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, -(10**5000)),
    *(True, False, _Number(2), _Three.THREE),
)
_REALS = _constants(
    *(1.0, 0.5, -0.0, -1.5, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, 1 + 2j),
    *(fractions.Fraction(1, 3), fractions.Fraction(10**400), decimal.Decimal(1), decimal.Decimal("sNaN")),
)
_TEXTS = _constants(
    *("", "a", "b", "lockstep", "float32", "NHD", "\ud800", "a\nb\x00", "x" * 100_000, _Text("a")),
    *(b"", b"ab", Path("a.svg")),
)
_OBJECTS = _constants(
    *(None, Ellipsis, NotImplemented, int, len, np, object(), datetime.timedelta(3)),
    *(
        (),
        (1, 2),
        ("a", "b"),
        (1, "a", None),
        ([],),
        frozenset({1}),
        range(3),
        range(10**12),
        range(3, 0, -1),
    ),
)
_SCALARS = _constants(
    *(np.dtype(code).type(1) for code in "bBhHiIlLqQefdgFDG?"),
    *(
        np.int8(-1),
        np.uint64(2**64 - 1),
        np.float32("nan"),
        np.longdouble("1e4000"),
        np.str_("a"),
        np.bytes_(b"a"),
    ),
    *(np.void(b"abcd"), np.datetime64(3, "s"), np.timedelta64(3, "s"), np.timedelta64("NaT", "s")),
    *(ml_dtypes.bfloat16(1), ml_dtypes.float8_e4m3fn(1)),
)
_CONTAINERS: list[Maker] = [
    list,
    dict,
    set,
    object,
    lambda: bytearray(b"ab"),
    lambda: memoryview(b"ab"),
    lambda: array.array("i", [1, 2]),
    lambda: array.array("d", [1, 2]),
    lambda: [1, 2, 3],
    lambda: [1.5],
    lambda: [True, False],
    lambda: [None],
    lambda: ["x"],
    lambda: ["a", "b"],
    lambda: [[1, 2, 3]],
    lambda: [[1, 2], [3]],
    lambda: [[]],
    lambda: [10**400],
    lambda: [2**63],
    lambda: [-1, 1],
    lambda: [np.timedelta64(3)],
    lambda: [float("nan")],
    lambda: [0] * 10_000,
    lambda: {1: 2},
    {1: 2}.keys,
    lambda: {1, 2},
    lambda: (number for number in (1, 2)),
    lambda: iter([1, 2]),
    lambda: collections.deque([1, 2]),
    lambda: lambda: 1,
]
_ARRAYS: list[Maker] = [
    lambda: np.zeros(0),
    lambda: np.zeros((0, 2), np.int64),
    lambda: np.array(3),
    lambda: np.array(2.5),
    lambda: np.array("a"),
    lambda: np.array(True),
    lambda: np.array([1, 2, 3]),
    lambda: np.array([3], np.uint64) + np.uint64(2**63),
    lambda: np.array([1, 2], np.int8),
    lambda: np.array([1, 2], ">i4"),
    lambda: np.arange(3.0),
    lambda: np.array([True, False]),
    lambda: np.array([1, None], object),
    lambda: np.array(["a", "b"]),
    lambda: np.array([1 + 2j]),
    lambda: np.array([3], "m8[s]"),
    lambda: np.array([3], "M8[s]"),
    lambda: np.zeros(2, [("a", "i4"), ("b", "f4")]),
    lambda: np.ma.array([1, 2, 3], mask=[False, True, False]),
    lambda: np.ma.array(3, mask=True),
    lambda: np.array([1, 2]).view(ArraySubclass),
    lambda: np.array(["lockstep"]),
    lambda: np.zeros((2, 2)),
    lambda: np.zeros((1,) * 30, np.float32),
    lambda: np.broadcast_to(np.int64(1), (2**20,)),
    lambda: np.broadcast_to(np.float32(1), (2**20, 2**20)),
]
_HOSTS: list[Maker] = [
    *map(
        _raising, "__array__ __len__ __iter__ __index__ __hash__ __eq__ __repr__ __float__ __bool__".split()
    ),
    *map(_raising, "__array_interface__ __cuda_array_interface__ __dlpack__ __getattr__ shape".split()),
    _raising("__len__", "__iter__", "__array__", "__repr__", "__index__", "__float__"),
    _returning(__len__=-1),
    _returning(__len__=2**70),
    _returning(__len__=3),
    _returning(__len__=3, __getitem__=1),
    _returning(__index__="x"),
    _returning(__index__=3),
    _returning(__float__=1.0),
    _returning(__array__=5),
    _returning(__array__=np.array([1, 2])),
    _returning(__dlpack__=5, __dlpack_device__=(1, 0)),
    _with(__array_interface__={}),
    _with(__array_interface__=np.array([1, 2]).__array_interface__),
    _as_if_on_gpu(__cuda_array_interface__={}),
    _as_if_on_gpu(__cuda_array_interface__={}, shape=(2, 1, 2), dtype=np.dtype(np.float32), ndim=3),
    _as_if_on_gpu(__cuda_array_interface__={}, shape=7, dtype="x", ndim="x"),
    _as_if_on_gpu(__cuda_array_interface__=None, shape=(), dtype=None),
    _with(__array_interface__={}, shape=(2,), dtype=np.dtype(np.int64), ndim=1),
    _with(__lockstep_array__=5),
    _with(__lockstep_array__=np.array([1, 2])),
    _with(shape=(2, 1, 2), dtype="float32"),
    _with(py_func=5),
    mock.MagicMock,
]
VALUES: tuple[Maker, ...] = (
    *_INTEGERS,
    *_REALS,
    *_TEXTS,
    *_OBJECTS,
    *_SCALARS,
    *_CONTAINERS,
    *_ARRAYS,
    *_HOSTS,
)
"""Makers of values for any parameter."""


def twisted(value: Any) -> list[Maker]:
    """Return makers of hostile relatives of a valid value."""
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return _twisted_array(value)
    if isinstance(value, bool) or value is None:
        return _constants(int(bool(value)), str(value), np.bool_(bool(value)), [value])
    if isinstance(value, (int, float)):
        kin = (
            value + 1,
            value - 1,
            -value,
            float(value),
            str(value),
            [value],
            (value,),
            np.float64(value),
            2**40,
        )
        return [*_constants(*kin), lambda: np.array(value), lambda: np.array([value]), lambda: value * 2]
    if isinstance(value, str):
        return _constants(value.upper(), value + " ", _Text(value), np.str_(value), value.encode(), [value])
    if isinstance(value, (list, tuple, range)):
        items = list(value)
        return [
            lambda: items[:-1],
            lambda: items * 2,
            lambda: [items],
            *(lambda one=one: [*items, one] for one in (None, "x", -1, 2**63)),
            lambda: tuple(items),
            lambda: iter(items),
            lambda: dict.fromkeys(item for item in items if isinstance(item, (str, int))),
            lambda: np.array(items, object),
            lambda: [*items, True],
            lambda: [*items, 1.0],
            lambda: [*items, np.timedelta64(3, "s")],
        ]
    return []


def _twisted_array(value: Any) -> list[Maker]:
    floats = value.dtype.kind in "fV"

    def filled(number: Any) -> Any:
        other = value.copy()
        if other.size:
            other.ravel()[-1] = number
        return other

    def strided() -> Any:
        wide = np.zeros((*value.shape, 2), value.dtype)
        wide[..., 0] = value
        return wide[..., 0]

    def read_only() -> Any:
        other = value.copy()
        other.flags.writeable = False
        return other

    def overlapping() -> Any:
        memory = np.zeros(value.size + 1, value.dtype)
        strides = (value.itemsize,) * value.ndim
        return np.lib.stride_tricks.as_strided(memory, value.shape, strides)

    def interface(name: str) -> Any:
        kept = value.copy()
        return type("Foreign", (), {"kept": kept, name: kept.__array_interface__})()

    least, most = (
        (-np.inf, np.inf) if floats else (np.iinfo(value.dtype).min, np.iinfo(value.dtype).max)
        if value.dtype.kind in "iu" else (False, True)
    )  # fmt: skip
    return [
        strided,
        read_only,
        overlapping,
        value.copy,
        value.tolist,
        lambda: (
            value.astype(value.dtype.newbyteorder()) if value.dtype.isbuiltin == 1 else value.astype(">f4")
        ),
        lambda: value.astype(np.float64),
        lambda: value.astype(np.longdouble),
        lambda: value.astype(np.complex64),
        lambda: value.astype(np.float16),
        lambda: value.astype(np.int64),
        lambda: value.astype(bool),
        lambda: value.astype(object),
        lambda: value.astype(np.float64).astype("U8"),
        lambda: value.astype(np.int64).astype("m8[s]"),
        lambda: np.ma.array(value.copy(), mask=np.arange(value.size).reshape(value.shape) == 0),
        lambda: np.ma.array(value.copy()),
        lambda: value.copy().view(ArraySubclass),
        value[None].copy,
        value[..., None].copy,
        lambda: value[:0].copy() if value.ndim else value,
        lambda: value[:-1].copy() if value.ndim else value,
        lambda: np.concatenate([value, value]) if value.ndim else value,
        value.T.copy,
        lambda: np.asfortranarray(value),
        lambda: np.flip(np.flip(value).copy()),
        lambda: (
            np.broadcast_to(value.ravel()[:1].reshape((1,) * value.ndim), value.shape)
            if value.size
            else value
        ),
        lambda: np.ascontiguousarray(value).reshape(-1),
        lambda: filled(least),
        lambda: filled(most),
        lambda: filled(np.nan if floats else least),
        lambda: np.zeros_like(value),
        lambda: interface("__array_interface__"),
        lambda: interface("__cuda_array_interface__") if cuda_unavailable_reason() else None,
        _with(__lockstep_array__=value.copy(), shape=value.shape, dtype=value.dtype, ndim=value.ndim),
        lambda: memoryview(value.copy()) if value.dtype.isbuiltin == 1 else value,
    ]
