"""Meanings of hostile values: the plain value that each stands for as an argument of some kind.

This is the oracle of calls with hostile arguments. A call that accepts a value must do what it does with the plain
value that `plain` returns; it must refuse a value that has no meaning.
"""

from __future__ import annotations

import array
import collections
import numbers
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np

from .hostile import HostileError


class MeaninglessError(Exception):
    """The value has no meaning as an argument of this kind: every call must refuse it."""


def plain(kind: str, value: Any) -> Any:
    """Return the plain value that a value means as an argument of a kind.

    Parameters
    ----------
    kind : str
        ``count`` (an integer), ``number`` (a real number), ``flag``, ``name``, ``array``, ``dense`` or ``integers`` (an
        array or nested lists), ``numbers`` (a real number or an array of them), ``tokens`` (a count or ids),
        ``token_ids``, ``id`` (of a sequence), ``ids`` (of several sequences), ``dtype``, ``any``.
    value
        None, which many parameters take, means itself.

    Raises
    ------
    MeaninglessError
        The value has no meaning as an argument of this kind.
    """
    if isinstance(value, mock.MagicMock):
        return value  # whatever is asked of it
    return value if value is None else _MEANINGS[kind](value)


def _count(value: Any) -> int:
    if isinstance(value, (bool, np.bool_, np.timedelta64, np.ma.MaskedArray)):
        raise MeaninglessError
    try:
        return operator.index(value)
    except (TypeError, HostileError):
        raise MeaninglessError from None


def _number(value: Any) -> float:
    real = isinstance(value, numbers.Real) or type(value).__module__ == "ml_dtypes"
    if not real or isinstance(value, (bool, np.timedelta64)):
        raise MeaninglessError
    try:
        return float(value)
    except OverflowError:
        raise MeaninglessError from None


def _flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise MeaninglessError
    return bool(value)


def _name(value: Any) -> str:
    if not isinstance(value, (str, Path)):
        raise MeaninglessError
    return str(value)


def _array(value: Any) -> Any:
    value = getattr(value, "__lockstep_array__", value)
    if isinstance(value, (memoryview, bytearray, array.array, collections.deque)):
        return _native(value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise MeaninglessError
    if not any(hasattr(value, name) for name in ("__array_interface__", "__array__", "__dlpack__")):
        raise MeaninglessError
    return _native(value)


def _dense(value: Any) -> Any:
    value = getattr(value, "__lockstep_array__", value)
    plain = isinstance(value, (list, tuple, range, numbers.Real)) and not isinstance(value, (bool, np.bool_))
    return _native(value) if plain else _array(value)


def _native(value: Any) -> Any:
    try:
        found = np.array(value, order="C", subok=False)
    except Exception:
        raise MeaninglessError from None
    if found.dtype.kind in "OSUmM":
        raise MeaninglessError
    return found.astype(found.dtype.newbyteorder("="), copy=False) if found.dtype.isbuiltin == 1 else found


def _integers(value: Any) -> Any:
    if isinstance(value, (list, tuple, range)) and not len(value):
        return []  # of any shape
    found = _native(value) if isinstance(value, (list, tuple, range, Sequence)) else _array(value)
    if found.dtype.kind not in "iu":
        raise MeaninglessError
    return found


def _numbers(value: Any) -> Any:
    value = getattr(value, "__lockstep_array__", value)
    if isinstance(value, (numbers.Real, list, tuple, range)):
        found = np.asarray(_number(value)) if isinstance(value, numbers.Real) else _native(value)
    else:
        found = _array(value)
    if found.dtype.kind in "bc":
        raise MeaninglessError
    return found


def _tokens(value: Any) -> Any:
    try:
        return _count(value)
    except MeaninglessError:
        return _token_ids(value)


def _token_ids(value: Any) -> Any:
    if isinstance(value, (str, set, frozenset, dict)) or not hasattr(value, "__len__"):
        raise MeaninglessError
    if isinstance(value, range):
        return value
    try:
        found = value.tolist() if isinstance(value, np.ndarray) else list(value)
    except Exception:
        raise MeaninglessError from None
    if isinstance(value, np.ndarray) and (value.ndim != 1 or value.dtype.kind not in "iu"):
        raise MeaninglessError
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise MeaninglessError
    return [_count(item) for item in found]


def _ids(value: Any) -> list[Any]:
    if isinstance(value, (str, bytes, bytearray, set, frozenset)):
        raise MeaninglessError
    try:
        return list(value)
    except Exception:
        raise MeaninglessError from None


def _id(value: Any) -> Any:
    try:
        hash(value)
    except Exception:
        raise MeaninglessError from None
    return value


def _dtype(value: Any) -> Any:
    try:
        return np.dtype(getattr(ml_dtypes, value) if value in ("bfloat16", "float8_e4m3fn") else value)
    except Exception:
        raise MeaninglessError from None


_MEANINGS: dict[str, Callable[[Any], Any]] = {
    "count": _count,
    "number": _number,
    "flag": _flag,
    "name": _name,
    "array": _array,
    "dense": _dense,
    "integers": _integers,
    "numbers": _numbers,
    "tokens": _tokens,
    "token_ids": _token_ids,
    "ids": _ids,
    "id": _id,
    "dtype": _dtype,
    "any": lambda value: value,
}
