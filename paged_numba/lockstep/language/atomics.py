"""Atomic operations: lanes that address the same element take turns in lane order, and each receives the old value.

The lanes that address one element form a row of a matrix, in lane order. A row is computed at once: the values that an
element takes are the running sums, maxima, … of its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...errors import KernelError
from ..machine.arithmetic import convert
from ..machine.machine import Machine
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .intrinsic import Intrinsic


class Operation(NamedTuple):
    """An atomic operation.

    Attributes
    ----------
    update : callable
        ``update(old, *operands)`` returns the new values of elements.
    at_once : callable or None
        ``at_once(first, *operands)``, with the first values [rows] of elements and the operands [rows, turns], returns
        their values after each turn, or None if they must be computed turn by turn.
    in_place : ufunc or None
        Its method ``at`` does the same to integers.
    in_place_floats : bool
        Whether it does the same to other numbers.
    exchanges : bool
        Whether the operation ignores the old value.
    """

    update: Callable[..., Any]
    at_once: Callable[..., Any] | None = None
    in_place: np.ufunc | None = None
    in_place_floats: bool = False
    exchanges: bool = False


def _located(
    array: LaneArray, mask: Mask, index: Any, operands: tuple[Any, ...], exchanges: bool
) -> tuple[Any, ...]:
    """Return the lanes that take part, their positions in the buffer, and their operands."""
    if not isinstance(array, LaneArray):
        raise KernelError(f"an atomic operation needs an array, got {type(array).__name__}")
    if not array.buffer.flags.writeable:
        raise KernelError(f"{array.name} is read-only, an atomic operation cannot write it")
    index = index if isinstance(index, tuple) else (index,)
    if len(index) != len(array.lengths):
        raise KernelError(f"{array.name} has {len(array.lengths)} dimensions, indexed with {len(index)}")
    shape = array.machine.shape
    position, mask = array.locate_atomic(mask, index, exchanges)
    by_lane = (position, *(convert(np.asarray(x), array.dtype) for x in operands))
    if mask is True:
        return mask, *(np.broadcast_to(x, shape).ravel() for x in by_lane)
    chosen = np.broadcast_to(np.asarray(mask), shape)
    return chosen, *(np.broadcast_to(x, shape)[chosen] for x in by_lane)


def _update(array: LaneArray, mask: Mask, index: Any, operands: tuple[Any, ...], operation: Operation) -> Any:
    """Replace each addressed element by ``update(old, *operands)``, one lane at a time; return the old values."""
    chosen, position, *given = _located(array, mask, index, operands, operation.exchanges)
    old = np.empty(position.size, array.dtype)
    for at, lanes, lengths in _rows(position):
        first = array.buffer[at]
        values = _values(operation, first, [x[lanes] for x in given])
        array.buffer[at] = values[np.arange(len(at)), lengths - 1]
        before = np.concatenate((first[:, None], values[:, :-1]), axis=1)
        inside = np.arange(lanes.shape[1]) < lengths[:, None]
        old[lanes[inside]] = before[inside]
    shape = array.machine.shape
    if chosen is True:
        return old.reshape(shape)
    result = np.zeros(shape, array.dtype)
    result[chosen] = old
    return result


def _change(
    array: LaneArray, mask: Mask, index: Any, operands: tuple[Any, ...], operation: Operation
) -> None:
    """Do the same as `_update`, for a kernel that does not use the old values."""
    ufunc = operation.in_place
    if ufunc is None or not (operation.in_place_floats or getattr(array, "is_integral", True)):
        _update(array, mask, index, operands, operation)
        return
    _, position, given = _located(array, mask, index, operands, operation.exchanges)
    ufunc.at(array.buffer, position, given)


_RADIX = 1 << 9
"""Number of lanes from which sorting by radix, 16 bits at a time, is faster than NumPy's sort of 64-bit integers."""

_SMALL = 1 << 11
"""Most elements of a matrix that is not divided into rows of about the same length."""


def _rows(position: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield matrices of lanes [rows, turns], one row for each position, in lane order.

    Rows of about the same length are in one matrix. Short rows are filled up with their last lane.

    Yields
    ------
    positions, lanes, lengths : array
        [rows], [rows, turns], [rows]
    """
    count = position.size
    if not count:
        return
    low = position.min()
    extent = int(position.max() - low)
    if not extent:
        yield position[:1], np.arange(count)[None], np.array([count])
        return
    if (position[1:] >= position[:-1]).all():
        order = np.arange(count)
    elif count < _RADIX:
        order = np.argsort(position, kind="stable")
    else:
        key = position - low
        order = np.argsort(key.astype(np.uint16), kind="stable")
        for shift in range(16, extent.bit_length(), 16):
            order = order[np.argsort((key[order] >> shift).astype(np.uint16), kind="stable")]
    ordered = position[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(starts, append=count)
    longest = int(lengths.max())
    if len(starts) * longest <= max(_SMALL, 2 * count):
        classes = [slice(None)]
    else:
        # The number of bits of the last turn: rows of 5 to 8 lanes are in one matrix.
        bits = np.frexp(lengths - 1)[1]
        classes = [bits == n for n in np.unique(bits)]
    for rows in classes:
        start, length = starts[rows, None], lengths[rows]
        turn = np.minimum(np.arange(length.max()), length[:, None] - 1)
        yield ordered[start[:, 0]], order[start + turn], length


def _values(operation: Operation, first: Any, operands: list[Any]) -> Any:
    """Return the values [rows, turns] of elements after each turn."""
    turns = operands[0].shape[1]
    if operation.at_once is not None and turns > 1:
        values = operation.at_once(first, *operands)
        if values is not None:
            return values
    values = np.empty((len(first), turns), first.dtype)
    for turn in range(turns):
        first = values[:, turn] = operation.update(first, *(x[:, turn] for x in operands))
    return values


def _running(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    """Return the function that applies `ufunc` turn by turn, each time to the last value and an operand."""

    def at_once(first: Any, operand: Any) -> Any:
        series = np.concatenate((first[:, None], operand), axis=1)
        return ufunc.accumulate(series, axis=1, dtype=first.dtype)[:, 1:]

    return at_once


def _running_extremum(integer: np.ufunc, floating: np.ufunc, replaces_nan: bool) -> Callable[[Any, Any], Any]:
    """Return the function for maxima or minima; of numbers that are equal, the first one stays."""
    of_integers, of_floats = _running(integer), _running(floating)

    def at_once(first: Any, operand: Any) -> Any:
        if first.dtype.kind in "iu":
            return of_integers(first, operand)
        if first.dtype.kind != "f":
            return None
        signs = np.signbit(np.concatenate((first[first == 0], operand[operand == 0])))
        if signs.any() and not signs.all():
            return None  # NumPy does not say which of 0.0 and -0.0 it keeps
        values = of_floats(first, operand)
        stays = np.isnan(values) if replaces_nan else np.isnan(first)[:, None]
        return np.where(stays, first[:, None], values)

    return at_once


def _larger(old: Any, new: Any) -> Any:
    """A NaN operand changes nothing, and NaN stays."""
    return np.where(new > old, new, old)


def _smaller(old: Any, new: Any) -> Any:
    return np.where(new < old, new, old)


def _larger_number(old: Any, new: Any) -> Any:
    """Of a NaN and a number, the number is stored."""
    return np.where((new > old) | ((old != old) & (new == new)), new, old)


def _smaller_number(old: Any, new: Any) -> Any:
    return np.where((new < old) | ((old != old) & (new == new)), new, old)


def _inc(old: Any, limit: Any) -> Any:
    return np.where(old >= limit, 0, old + 1).astype(old.dtype)


def _dec(old: Any, limit: Any) -> Any:
    return np.where((old == 0) | (old > limit), limit, old - 1).astype(old.dtype)


def _running_count(step: int) -> Callable[[Any, Any], Any]:
    """Return the function for counters that wrap around at a limit, if a row has one limit."""

    def at_once(first: Any, limits: Any) -> Any:
        limit = limits[:, :1]
        both = np.concatenate((first[:, None], limit), axis=1)
        if both.dtype.kind not in "iu" or (limits != limit).any() or both.min() < 0 or both.max() >> 62:
            return None
        counted, turn = both.astype(np.int64), np.arange(1, limits.shape[1] + 1)
        start, period = counted[:, :1], counted[:, 1:] + 1
        # A value beyond the limit counts up to 0, or down to the limit.
        start = np.where(start >= period, -1 if step > 0 else period, start)
        return ((start + step * turn) % period).astype(first.dtype)

    return at_once


def _swap(old: Any, expected: Any, new: Any) -> Any:
    return np.where(old == expected, new, old)


def _running_swap(first: Any, expected: Any, new: Any) -> Any:
    """Return the values for a row whose lanes expect the same value: they swap until one stores another value."""
    same = expected[:, :1]
    if (expected != same).any():
        return None
    other = new != same
    last = np.where(other.any(axis=1), other.argmax(axis=1), new.shape[1] - 1)
    swapped = np.take_along_axis(new, np.minimum(np.arange(new.shape[1]), last[:, None]), axis=1)
    return np.where(first[:, None] == same, swapped, first[:, None])


def _latest(old: Any, new: Any) -> Any:
    return new


OPERATIONS: dict[str, Operation] = {
    "add": Operation(np.add, _running(np.add), np.add, True),
    "sub": Operation(np.subtract, _running(np.subtract), np.subtract, True),
    "and_": Operation(np.bitwise_and, _running(np.bitwise_and)),
    "or_": Operation(np.bitwise_or, _running(np.bitwise_or)),
    "xor": Operation(np.bitwise_xor, _running(np.bitwise_xor)),
    "max": Operation(_larger, _running_extremum(np.maximum, np.fmax, False), np.maximum),
    "min": Operation(_smaller, _running_extremum(np.minimum, np.fmin, False), np.minimum),
    "nanmax": Operation(_larger_number, _running_extremum(np.maximum, np.fmax, True), np.maximum),
    "nanmin": Operation(_smaller_number, _running_extremum(np.minimum, np.fmin, True), np.minimum),
    "inc": Operation(_inc, _running_count(1)),
    "dec": Operation(_dec, _running_count(-1)),
    "cas": Operation(_swap, _running_swap),
    "exch": Operation(_latest, _latest, exchanges=True),
}


def _intrinsic(operation: Operation) -> Intrinsic:
    """Return ``atomic(machine, mask, array, index, *operands)``."""

    def atomic(machine: Machine, mask: Mask, array: Any, index: Any, *operands: Any) -> Any:
        return _update(array, mask, index, operands, operation)

    def unused(machine: Machine, mask: Mask, array: Any, index: Any, *operands: Any) -> None:
        _change(array, mask, index, operands, operation)

    return Intrinsic(atomic, masked=True, kind="atomic", unused=unused)


def compare_and_swap(machine: Machine, mask: Mask, array: Any, expected: Any, new: Any) -> Any:
    """Store `new` in the first element where it is `expected`."""
    return _update(array, mask, np.int64(0), (expected, new), OPERATIONS["cas"])


ATOMICS: dict[str, Intrinsic] = {
    **{f"atomic.{name}": _intrinsic(operation) for name, operation in OPERATIONS.items()},
    "atomic.compare_and_swap": Intrinsic(compare_and_swap, masked=True, kind="atomic"),
}
"""``cuda.atomic.*``, by path."""
