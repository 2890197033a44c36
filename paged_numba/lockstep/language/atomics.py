"""Atomic operations: several lanes at one address take turns, in lane order, and each gets the old value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import KernelError
from ..machine.machine import Machine
from ..machine.masks import Mask
from ..machine.memory import LaneArray

Update = Callable[[Any, Any], Any]


def _update(array: LaneArray, mask: Mask, index: Any, operands: tuple[Any, ...], update: Update) -> Any:
    """Replace each element addressed by ``update(old, *operands)``, a turn a lane; return the old values."""
    if not isinstance(array, LaneArray):
        raise KernelError(f"an atomic operation needs an array, got {type(array).__name__}")
    if not array.buffer.flags.writeable:
        raise KernelError(f"{array.name} is read-only, an atomic operation cannot write it")
    index = index if isinstance(index, tuple) else (index,)
    if len(index) != len(array.lengths):
        raise KernelError(f"{array.name} has {len(array.lengths)} dimensions, indexed with {len(index)}")
    shape = array.machine.shape
    chosen = np.broadcast_to(np.asarray(mask), shape)
    position = np.broadcast_to(array.address(mask, index), shape)[chosen]
    operands = tuple(np.broadcast_to(x, shape)[chosen].astype(array.dtype) for x in operands)
    old = np.empty(position.size, array.dtype)
    # Lanes at one address are neighbours after a stable sort; in round r each address serves its r-th lane.
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


def _operation(update: Callable[..., Any], doc: str) -> Callable[..., Any]:
    def atomic(machine: Machine, mask: Mask, array: Any, index: Any, *operands: Any) -> Any:
        return _update(array, mask, index, operands, update)

    atomic.__doc__ = doc
    return atomic


def _fmax(old: Any, new: Any) -> Any:
    return np.fmax(old, new) if old.dtype.kind == "f" else np.maximum(old, new)


def _fmin(old: Any, new: Any) -> Any:
    return np.fmin(old, new) if old.dtype.kind == "f" else np.minimum(old, new)


add = _operation(np.add, "``old + value``.")
sub = _operation(np.subtract, "``old - value``.")
and_ = _operation(np.bitwise_and, "``old & value``.")
or_ = _operation(np.bitwise_or, "``old | value``.")
xor = _operation(np.bitwise_xor, "``old ^ value``.")
exch = _operation(lambda old, new: new, "``value``.")
max_ = _operation(
    lambda old, new: np.where(new > old, new, old), "The larger; a NaN operand changes nothing."
)
min_ = _operation(
    lambda old, new: np.where(new < old, new, old), "The smaller; a NaN operand changes nothing."
)
nanmax = _operation(_fmax, "The larger; a NaN gives way to a number.")
nanmin = _operation(_fmin, "The smaller; a NaN gives way to a number.")
inc = _operation(
    lambda old, limit: np.where(old >= limit, 0, old + 1).astype(old.dtype),
    "0 after `limit`, else ``old + 1``.",
)
dec = _operation(
    lambda old, limit: np.where((old == 0) | (old > limit), limit, old - 1).astype(old.dtype),
    "`limit` after 0, else ``old - 1``.",
)


def cas(machine: Machine, mask: Mask, array: Any, index: Any, expected: Any, new: Any) -> Any:
    """Store `new` where the element is `expected`."""
    operation: Any = lambda old, want, value: np.where(old == want, value, old)  # noqa: E731
    return _update(array, mask, index, (expected, new), operation)


def compare_and_swap(machine: Machine, mask: Mask, array: Any, expected: Any, new: Any) -> Any:
    """Store `new` in the first element where it is `expected`."""
    return cas(machine, mask, array, (np.int64(0),), expected, new)
