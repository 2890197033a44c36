"""`Recorder`: the observer that records what the threads of a launch do, statement by statement."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..compiler.source import Source
from ..launch import current_options
from ..machine import masks
from ..machine.lanes import WARP_SIZE
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from ..observe.code import CodeFunction
from ..observe.observed_array import ObservedArray
from ..observe.observed_machine import ObservedMachine
from ..observe.observer import Observer
from .costs import CostCounter
from .packing import packed
from .track import Functions, Track

MOST_LAUNCHES = 8
"""Launches of which thread blocks are recorded."""


class Recorder(Observer):
    """Records the first and the last thread block of each launch, within the limits.

    Attributes
    ----------
    functions : Functions
    tracks : list of Track
        The recorded thread blocks.
    num_launches, num_thread_blocks : int
        All that ran, recorded or not.
    num_unseen : int
        Launches of other threads that no observer saw.
    """

    def __init__(self) -> None:
        self.functions = Functions()
        self.tracks: list[Track] = []
        self.num_launches = self.num_thread_blocks = self.num_unseen = 0
        self._rows: list[tuple[int, Track]] = []
        self._costs = CostCounter()
        self._unsettled: list[tuple[dict[str, Any], Any, Any]] = []
        self._lanes: dict[tuple[int, int], tuple[Mask, Any]] = {}

    # Launches.

    def begin_launch(self, machine: ObservedMachine, function: Any, arguments: tuple[Any, ...]) -> None:
        self.num_launches += 1
        self.num_thread_blocks += machine.num_thread_blocks
        self._rows = []
        if self.num_launches > MOST_LAUNCHES:
            return
        kernel = self.functions.number(CodeFunction.of(Source.of(function)))
        grid = machine.blocks_per_grid
        for number in sorted({0, machine.num_thread_blocks - 1}):
            place = number % grid.x, number // grid.x % grid.y, number // (grid.x * grid.y)
            described = {
                "kernel": kernel,
                "launch": self.num_launches,
                "thread_block": place,
                "blocks_per_grid": tuple(grid),
                "threads_per_block": tuple(machine.threads_per_block),
                "order": current_options().order,
            }
            self._rows.append((number, Track(self.functions, described)))
        self.tracks += [track for _, track in self._rows]

    def begin_batch(self, machine: ObservedMachine) -> None:
        self._settle()
        self._lanes.clear()

    def end_launch(self, machine: ObservedMachine) -> None:
        self._settle()
        self._lanes.clear()
        error = sys.exc_info()[1]  # what ends the launch, if it fails
        for _, track in self._rows:
            if error is not None:
                track.described["error"] = f"{type(error).__name__}: {error}"
        self._rows = []

    def missed(self) -> None:
        self.num_unseen += 1

    # Events.

    def statement(self, machine: ObservedMachine, mask: Mask) -> None:
        for track, _, lanes in self._active(machine, mask):
            track.begin(machine.line, lanes)

    def branch(self, machine: ObservedMachine, mask: Mask, held: Mask) -> None:
        for track, row, _ in self._active(machine, mask):
            track.branch(self._of(machine, held, row))

    def enter(
        self, machine: ObservedMachine, mask: Mask, function: CodeFunction, parameters: dict[str, Any]
    ) -> None:
        for track, row, lanes in self._active(machine, mask):
            for name, value in parameters.items():
                for part, *what in _parts(machine, row, lanes, name, value):
                    track.parameter(function, part, *what)

    def assign(
        self, machine: ObservedMachine, mask: Mask, function: CodeFunction, name: str, value: Any
    ) -> None:
        for track, row, lanes in self._at_step(machine, mask):
            for part, *what in _parts(machine, row, lanes, name, value):
                track.assign(function, part, *what)

    def load(self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any) -> None:
        self._access(machine, array, mask, position, "load")

    def store(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, value: Any
    ) -> None:
        self._access(machine, array, mask, position, "store", value)

    def atomic(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, exchanges: bool
    ) -> None:
        self._access(machine, array, mask, position, "atomic")

    def exchange(self, machine: ObservedMachine, mask: Mask, source: Any, itemsize: int) -> None:
        for track, row, lanes in self._at_step(machine, mask):
            step = track.step
            if step is not None:
                threads = lanes // WARP_SIZE * WARP_SIZE + np.broadcast_to(source, machine.shape)[row][lanes]
                step["shuffle"] = {"lanes": track.mask(lanes), "from": packed(threads)}

    def cooperate(self, machine: ObservedMachine, mask: Mask, kind: str, members: Any) -> None:
        for track, _, lanes in self._active(machine, mask):
            if track.line is not machine.line:
                track.begin(machine.line, lanes, resumed=True)
            track.cooperate(kind, lanes)

    # Lanes.

    def _active(self, machine: ObservedMachine, mask: Mask) -> Iterator[tuple[Track, int, Any]]:
        """Yield each recorded thread block with lanes in `mask`: its track, its row in the batch, and the lanes."""
        if self._unsettled:
            self._settle()
        for number, track in self._rows:
            row = number - machine.first_thread_block
            if 0 <= row < machine.batch:
                lanes = self._of(machine, mask, row)
                if lanes.size:
                    yield track, row, lanes

    def _at_step(self, machine: ObservedMachine, mask: Mask) -> Iterator[tuple[Track, int, Any]]:
        """Yield as `_active` does; begin a step if the current one is not of this line and these lanes."""
        for track, row, lanes in self._active(machine, mask):
            if not track.runs(machine.line, lanes):
                track.begin(machine.line, lanes, resumed=True)
            yield track, row, lanes

    def _of(self, machine: ObservedMachine, mask: Mask, row: int) -> Any:
        """Return the threads of a row of the batch that are in `mask`."""
        key = id(mask), row
        found = self._lanes.get(key)
        if found is None:
            if len(self._lanes) >= 256:
                self._lanes.clear()
            # Keep the mask, so that no other object can get its id.
            lanes = np.flatnonzero(masks.lanes(mask, machine.shape)[row])
            found = self._lanes[key] = mask, lanes
        return found[1]

    # Accesses.

    def _access(
        self,
        machine: ObservedMachine,
        array: ObservedArray,
        mask: Mask,
        position: Any,
        kind: str,
        value: Any = None,
    ) -> None:
        for track, row, lanes in self._at_step(machine, mask):
            if track.step is None:
                continue
            memory, dtype = array.memory, array.dtype
            where = np.broadcast_to(position, machine.shape)[row][lanes]
            if memory.space == "local":
                # Element i of all lanes is contiguous; a lane's own array is that of every `num_lanes`-th element.
                byte = (where - machine.lane_numbers.reshape(machine.shape)[row][lanes]) // machine.num_lanes
                byte = byte * array.unit
            else:
                byte = where * array.unit + array.start
            if memory.space == "shared":
                byte = byte % memory.row
            described = {
                "name": memory.name,
                "space": memory.space,
                "dtype": str(dtype),
                "itemsize": dtype.itemsize,
                "shape": [int(n) for n in memory.shape],
                "strides": _contiguous(memory.shape, array.unit)
                if memory.space == "local"
                else memory.strides,
                "start": memory.start,
            }
            found = track.access(described, kind, lanes, bytes=packed(byte))
            if found is None:
                continue
            costs = self._costs.costs(memory.space, kind, machine.threads, lanes, byte, dtype.itemsize)
            if costs is not None:
                found["costs"] = {name: _one(numbers) for name, numbers in costs.items()}
            if kind == "load":
                found["values"] = packed(array.buffer[where])
            elif kind == "store":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of complex numbers that become real, which Numba allows
                    stored = np.asarray(value).astype(dtype)
                found["values"] = packed(np.broadcast_to(stored, machine.shape)[row][lanes])
            else:
                self._unsettled.append((found, array.buffer, where))

    def _settle(self) -> None:
        """Add the values that atomic operations have left, once they have run."""
        for access, buffer, where in self._unsettled:
            access["values"] = packed(buffer[where])
        self._unsettled.clear()


def _one(numbers: list[int]) -> Any:
    """Return a number if all are equal, else the list."""
    return numbers[0] if len(set(numbers)) == 1 and len(numbers) > 1 else numbers


def _contiguous(shape: tuple[int, ...], unit: int) -> list[int]:
    """Return the strides of a contiguous array in bytes."""
    return [unit * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _parts(
    machine: ObservedMachine, row: int, lanes: Any, name: str, value: Any
) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield the name, dtype, lanes and values of a variable; those of each item if it is a tuple."""
    if type(value) is tuple:
        for place, item in enumerate(value):
            yield from _parts(machine, row, lanes, f"{name}[{place}]", item)
    elif isinstance(value, (np.ndarray, np.generic)):
        yield name, str(value.dtype), lanes, np.broadcast_to(value, machine.shape)[row][lanes]
    else:
        yield name, "", lanes, _described(value)


def _described(value: Any) -> str:
    """Return what a variable is that holds no number."""
    if isinstance(value, LaneArray):
        lengths = ", ".join("differs" if isinstance(n, np.ndarray) else str(n) for n in value.lengths)
        memory = getattr(value, "memory", None)
        return f"{value.dtype}[{lengths}]" + (f" in {memory.space} memory" if memory is not None else "")
    return "None" if value is None else type(value).__name__
