"""`Accesses`: the bytes that lanes access, in the form that the detectors share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..machine import masks
from ..machine.arithmetic import convert
from ..machine.masks import Mask
from ..observe.observed_array import ObservedArray
from ..observe.observed_machine import ObservedMachine


class Accesses(NamedTuple):
    """Accesses of the active lanes in one statement.

    Attributes
    ----------
    byte : int64 array
        The first byte of each access, from the beginning of the allocation.
    lane : intp array
        The lane of each access, by flat index; ``machine.lane_numbers`` itself if all lanes are active.
    """

    byte: Any
    lane: Any


def accesses(
    machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, *, ends: bool = False
) -> Accesses:
    """Return the accesses of the active lanes.

    With `ends`, if all lanes of each thread block access the same element, its first and last active lanes represent
    the others.
    """
    uniform = type(position) is not np.ndarray or position.ndim < 2 or position.shape[1] == 1
    if uniform and ends and machine.threads > 2:
        lane = _ends(machine, mask)
    elif mask is True:
        lane = machine.lane_numbers
    else:
        lane = np.flatnonzero(masks.lanes(mask, machine.shape))
    at: Any
    if not uniform:
        spread = position if position.shape == machine.shape else np.broadcast_to(position, machine.shape)
        at = spread.reshape(-1)
        at = at if lane is machine.lane_numbers else at[lane]
    elif np.ndim(position) == 2 and position.shape[0] > 1:
        at = position[lane // machine.threads, 0]
    else:
        at = np.full(lane.size, np.asarray(position).flat[0])
    return Accesses(at * array.unit + array.start, lane)


def values(machine: ObservedMachine, array: ObservedArray, value: Any, lane: Any) -> Any:
    """Return the values that lanes store, in the array's dtype."""
    return convert(np.broadcast_to(value, machine.shape).reshape(-1)[lane], array.dtype)


def thread_name(machine: ObservedMachine, thread: int) -> str:
    """Return the coordinates of a thread, given by its number in the grid."""
    return machine.thread_name(thread - machine.first_thread)


def _ends(machine: ObservedMachine, mask: Mask) -> Any:
    """Return the first active lanes of all thread blocks, then the last ones."""
    threads = machine.threads
    start = np.arange(machine.batch) * threads
    if mask is True:
        return np.concatenate([start, start + threads - 1])
    active = masks.lanes(mask, machine.shape)
    rows = np.flatnonzero(active.any(axis=1))
    first, last = active[rows].argmax(axis=1), threads - 1 - active[rows, ::-1].argmax(axis=1)
    ends = first != last
    return np.concatenate([start[rows] + first, (start[rows] + last)[ends]])
