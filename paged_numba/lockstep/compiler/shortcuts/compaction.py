"""Compaction: a loop that most lanes have left continues with the others alone.

Lanes that are done with a loop stay in each operation of it, masked. Once at most three quarters of the lanes are left,
the values of all variables are gathered for these lanes, the loop continues on a machine that has no others, and after
the loop their values are scattered back. A loop whose lanes wait for each other keeps all of them (`analysis.apart`).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ...language.control import Trips, Unset, blend
from ...machine import masks
from ...machine.arithmetic import LaneTuple, tuple_like
from ...machine.lanes import Dim3
from ...machine.local_memory import LocalArray
from ...machine.machine import Machine
from ...machine.masks import Mask
from ...machine.memory import LaneArray

EVERY = 8
"""Iterations from one count of the lanes to the next."""

LEAST_LANES = 2048
"""Lanes below which calling NumPy takes most of the time of an operation."""

MOST_LEFT = 0.75
"""Part of the lanes that may be left when a loop is compacted."""


_NUMBERS = (np.ndarray, np.generic)


class FixedError(Exception):
    """A value cannot be gathered; the error never leaves `Compaction`."""


class FewLanes(Machine):
    """Some of the lanes of a machine, as ``[1, lanes]``.

    Parameters
    ----------
    whole : Machine
    places : int array
        The flat indices of the lanes in `whole`, ascending.
    """

    def __init__(self, whole: Machine, places: Any) -> None:
        # Not Machine.__init__, which computes the coordinates of all threads.
        self.__dict__.update(vars(whole))
        self.whole = whole
        self.places = places
        self._indices: dict[tuple[int, ...], Any] = {whole.shape: places}
        self.batch, self.threads = 1, len(places)
        self.shape = (1, len(places))
        self.num_lanes = len(places)
        self.everyone = np.ones(self.shape, bool)
        self.exited = False
        self.threadIdx = Dim3(*map(self.gather, whole.threadIdx))
        self.blockIdx = Dim3(*map(self.gather, whole.blockIdx))
        self.laneid = self.gather(whole.laneid)
        self._constants = type(whole._constants)()

    def thread_name(self, lane: int) -> str:
        return self.whole.thread_name(int(self.places[lane]))

    def gather(self, value: Any) -> Any:
        """Return a value of the whole machine for these lanes.

        Raises
        ------
        FixedError
            If it is not a number, a tuple or an array, such as an iterator.
        """
        kind = type(value)
        if kind is np.ndarray:
            return value.take(self._index(value.shape)).reshape(self.shape) if value.size > 1 else value
        if isinstance(value, (np.generic, int, str, Unset, np.dtype)) or value is None or value is Ellipsis:
            return value
        if kind is tuple or kind is Dim3 or isinstance(value, LaneTuple):
            return tuple_like([self.gather(part) for part in value], value)
        if kind is LocalArray:
            value.share()
        elif kind is not LaneArray:
            raise FixedError
        return LaneArray(
            self,
            value.name,
            value.buffer,
            self.gather(value.offset),
            tuple(map(self.gather, value.lengths)),
            value.strides,
            value.lead and tuple(map(self.gather, value.lead)),
        )

    def _index(self, shape: tuple[int, ...]) -> Any:
        """Return the indices of these lanes in a flattened value of `shape`."""
        if shape not in self._indices:
            if len(shape) != 2:
                raise FixedError
            by_block = shape[0] > 1
            self._indices[shape] = (
                self.places // self.whole.threads if by_block else self.places % self.whole.threads
            )
        return self._indices[shape]

    def gather_mask(self, mask: Mask) -> Mask:
        """Return a mask of the whole machine for these lanes."""
        if mask is True or mask is False:
            return mask
        return _mask(masks.lanes(mask, self.whole.shape).take(self.places).reshape(self.shape))

    def scatter(self, mask: Mask, new: Any, gathered: Any, old: Any) -> Any:
        """Return `new` in these lanes, those of `mask`, and `old` in the others; `gathered` is `old` in these lanes."""
        if new is gathered:
            return old
        if isinstance(new, _NUMBERS) and isinstance(old, _NUMBERS) and new.dtype == old.dtype:
            result = np.empty(self.whole.shape, new.dtype)
            result[...] = old
            result.reshape(-1)[self.places] = new.reshape(-1)
            return result
        return blend(mask, self._spread(new), old)

    def _spread(self, value: Any) -> Any:
        """Return a value of these lanes for the whole machine, whose other lanes get zeros."""
        if type(value) is np.ndarray:
            result = np.zeros(self.whole.shape, value.dtype)
            result.reshape(-1)[self.places] = value.reshape(-1)
            return result
        if isinstance(value, tuple):
            return tuple_like([self._spread(part) for part in value], value)
        if isinstance(value, LaneArray):
            offset, lengths = self._spread(value.offset), tuple(map(self._spread, value.lengths))
            return LaneArray(self.whole, value.name, value.buffer, offset, lengths, value.strides, None)
        return value

    def scatter_mask(self, new: Mask, gathered: Mask, old: Mask) -> Mask:
        """Do as `scatter` does for a mask."""
        if new is gathered:
            return old
        result = masks.lanes(old, self.whole.shape).copy()
        result.reshape(-1)[self.places] = new if new is True or new is False else new.reshape(-1)
        return _mask(result)


def _mask(lanes: Any) -> Mask:
    held = np.count_nonzero(lanes)
    return True if held == lanes.size else lanes if held else False


class Compaction:
    """One run of a loop, which may be compacted more than once.

    Parameters
    ----------
    trips : Trips, optional
        The iterations, if it is a loop over a range.

    Attributes
    ----------
    levels : list
        For each compaction, the lanes that were left, their mask, and the values and masks before and after.
    """

    __slots__ = ("iterations", "levels", "look", "trips")

    def __init__(self, trips: Trips | None = None) -> None:
        self.trips = trips
        self.iterations = 0
        self.look = EVERY
        self.levels: list[Any] = []

    def thins(self, machine: Machine, mask: Mask) -> bool:
        """Tell, as an iteration begins in the lanes of `mask`, whether it is time to leave out the others."""
        self.iterations += 1
        if self.iterations < self.look:
            return False
        self.look += EVERY
        if mask is True or mask is False or machine.num_lanes < LEAST_LANES:
            return False
        held = int(np.count_nonzero(mask)) * (machine.num_lanes // mask.size)
        return held <= MOST_LEFT * machine.num_lanes

    def gather(
        self, machine: Machine, mask: Mask, values: tuple[Any, ...], lanes: tuple[Mask, ...]
    ) -> tuple[Machine, tuple[Any, ...], tuple[Mask, ...]]:
        """Return a machine with the lanes of `mask` alone, and values and masks for it."""
        few = FewLanes(machine, np.flatnonzero(masks.lanes(mask, machine.shape)))
        try:
            gathered = tuple(map(few.gather, values))
            if self.trips is not None:
                self.trips.gather(few.gather)
        except FixedError:
            self.look = sys.maxsize
            return machine, values, lanes
        kept = tuple(map(few.gather_mask, lanes))
        self.levels.append((few, mask, values, gathered, lanes, kept))
        return few, gathered, kept

    def scatter(
        self, values: tuple[Any, ...], lanes: tuple[Mask, ...]
    ) -> tuple[Machine, tuple[Any, ...], tuple[Mask, ...]]:
        """Return the machine from before the loop, which has been compacted, and its values and masks."""
        machine: Any = None
        while self.levels:
            few, mask, before, gathered, lanes_before, kept = self.levels.pop()
            machine = few.whole
            values = tuple(
                few.scatter(mask, new, old, whole)
                for new, old, whole in zip(values, gathered, before, strict=True)
            )
            lanes = tuple(
                few.scatter_mask(new, old, whole)
                for new, old, whole in zip(lanes, kept, lanes_before, strict=True)
            )
            machine.exited = masks.union(machine.exited, few.scatter_mask(few.exited, False, False))
        return machine, values, lanes
