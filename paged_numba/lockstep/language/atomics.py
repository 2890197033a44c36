"""Atomic operations: lanes that address the same element take turns in lane order, and each receives the old value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import KernelError
from ..machine.arithmetic import convert
from ..machine.machine import Machine
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .intrinsic import Intrinsic

Update = Callable[..., Any]
"""``update(old, *operands)`` returns the new values of elements."""


def _update(
    array: LaneArray,
    mask: Mask,
    index: Any,
    operands: tuple[Any, ...],
    update: Update,
    exchanges: bool = False,
) -> Any:
    """Replace each addressed element by ``update(old, *operands)``, one lane at a time; return the old values."""
    if not isinstance(array, LaneArray):
        raise KernelError(f"an atomic operation needs an array, got {type(array).__name__}")
    if not array.buffer.flags.writeable:
        raise KernelError(f"{array.name} is read-only, an atomic operation cannot write it")
    index = index if isinstance(index, tuple) else (index,)
    if len(index) != len(array.lengths):
        raise KernelError(f"{array.name} has {len(array.lengths)} dimensions, indexed with {len(index)}")
    shape = array.machine.shape
    position, mask = array.locate_atomic(mask, index, exchanges)
    chosen = np.broadcast_to(np.asarray(mask), shape)
    position = np.broadcast_to(position, shape)[chosen]
    operands = tuple(convert(np.broadcast_to(x, shape)[chosen], array.dtype) for x in operands)
    old = np.empty(position.size, array.dtype)
    # A stable sort makes lanes with one address neighbours; round r updates each address for its r-th lane.
    order = np.argsort(position, kind="stable")
    ordered = position[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if ordered.size else ordered
    lengths = np.diff(np.r_[starts, ordered.size])
    for turn in range(int(lengths.max(initial=0))):
        lane = order[starts[lengths > turn] + turn]
        at = position[lane]
        old[lane] = array.buffer[at]
        array.buffer[at] = update(old[lane], *(x[lane] for x in operands))
    result = np.zeros(shape, array.dtype)
    result[chosen] = old
    return result


def _operation(update: Update, exchanges: bool = False) -> Callable[..., Any]:
    """Return ``atomic(machine, mask, array, index, *operands)``; if `exchanges`, it ignores the old value."""

    def atomic(machine: Machine, mask: Mask, array: Any, index: Any, *operands: Any) -> Any:
        return _update(array, mask, index, operands, update, exchanges)

    return atomic


def _fmax(old: Any, new: Any) -> Any:
    return np.fmax(old, new) if old.dtype.kind == "f" else np.maximum(old, new)


def _fmin(old: Any, new: Any) -> Any:
    return np.fmin(old, new) if old.dtype.kind == "f" else np.minimum(old, new)


def _inc(old: Any, limit: Any) -> Any:
    return np.where(old >= limit, 0, old + 1).astype(old.dtype)


def _dec(old: Any, limit: Any) -> Any:
    return np.where((old == 0) | (old > limit), limit, old - 1).astype(old.dtype)


def _swap(old: Any, expected: Any, new: Any) -> Any:
    return np.where(old == expected, new, old)


def compare_and_swap(machine: Machine, mask: Mask, array: Any, expected: Any, new: Any) -> Any:
    """Store `new` in the first element where it is `expected`."""
    return _update(array, mask, np.int64(0), (expected, new), _swap)


_UPDATES: dict[str, Update] = {
    "add": np.add,
    "sub": np.subtract,
    "and_": np.bitwise_and,
    "or_": np.bitwise_or,
    "xor": np.bitwise_xor,
    # A NaN operand changes nothing.
    "max": lambda old, new: np.where(new > old, new, old),
    "min": lambda old, new: np.where(new < old, new, old),
    # Of a NaN and a number, these store the number.
    "nanmax": _fmax,
    "nanmin": _fmin,
    "inc": _inc,
    "dec": _dec,
    "cas": _swap,
}

ATOMICS: dict[str, Intrinsic] = {
    **{
        f"atomic.{name}": Intrinsic(_operation(update), masked=True, kind="atomic")
        for name, update in _UPDATES.items()
    },
    "atomic.exch": Intrinsic(_operation(lambda old, new: new, exchanges=True), masked=True, kind="atomic"),
    "atomic.compare_and_swap": Intrinsic(compare_and_swap, masked=True, kind="atomic"),
}
"""``cuda.atomic.*``, by path."""
