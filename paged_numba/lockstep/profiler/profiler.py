"""`Profiler`: the observer that counts; accesses are collected by source line and counted many at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..machine.masks import Mask
from ..observe.allocations import Memory, extent
from ..observe.code import CodeLine
from ..observe.observed_array import ObservedArray
from ..observe.observed_machine import ObservedMachine
from ..observe.observer import Observer
from .counts import Traffic, Work
from .transactions import NOBODY, SECTOR, global_cost, shared_cost, turns

_MOST_LANES = 1 << 15
"""Number of lanes whose accesses are collected for a `Place` before they are counted."""

_REAL = {np.dtype(f"float{bits}"): f"float{bits}" for bits in (16, 32, 64)}
_REAL |= {np.dtype(f"complex{2 * bits}"): f"float{bits}" for bits in (32, 64)}
"""For each dtype, the real type in which its arithmetic is done."""


class Place(NamedTuple):
    """Key of collected accesses: one line, one kind, one array."""

    line: CodeLine
    memory: Memory
    kind: str
    start: int
    unit: int
    dtype: Any


class Key(NamedTuple):
    """Key of the traffic counts."""

    line: CodeLine
    space: str
    array: str
    kind: str


class Launches(NamedTuple):
    """Key of the launch counts: a kernel in one configuration."""

    kernel: str
    blocks_per_grid: tuple[int, ...]
    threads_per_block: tuple[int, ...]


class Profiler(Observer):
    """Counts memory traffic and work of launches.

    Attributes
    ----------
    traffic : dict of Key to Traffic
    work : dict of CodeLine to Work
    launches : dict of Launches to int
        Numbers of launches.
    arrays : dict of str to list of str
        By memory space, the names of arguments and declared arrays.
    footprint : dict of str to int
        For ``load`` and ``store``, bytes of the global memory sectors that each launch touches, summed.
    num_unseen : int
        Launches of other threads that ran meanwhile, and that neither this profiler nor any other observer saw.
    """

    def __init__(self) -> None:
        self.traffic: dict[Key, Traffic] = {}
        self.work: dict[CodeLine, Work] = {}
        self.launches: dict[Launches, int] = {}
        self.arrays: dict[str, list[str]] = {}
        self.footprint = {"load": 0, "store": 0}
        self.num_unseen = 0
        self._collected: dict[tuple[Any, ...], tuple[list[Any], list[int]]] = {}
        self._touched: dict[tuple[int, str], tuple[Any, Any]] = {}

    # Events.

    def begin_launch(self, machine: ObservedMachine, function: Any, arguments: tuple[Any, ...]) -> None:
        key = Launches(function.__name__, tuple(machine.blocks_per_grid), tuple(machine.threads_per_block))
        self.launches[key] = self.launches.get(key, 0) + 1
        for memory in machine.memories.values():
            self._name(memory)

    def end_launch(self, machine: ObservedMachine) -> None:
        for place, (events, _) in self._collected.items():
            self._count(machine, Place(*place), events)
        self._collected.clear()
        for (_, kind), (_, touched) in self._touched.items():
            self.footprint[kind] += SECTOR * int(np.count_nonzero(touched))
        self._touched.clear()

    def missed(self) -> None:
        self.num_unseen += 1

    def declare(self, machine: ObservedMachine, array: ObservedArray, mask: Mask) -> None:
        self._name(array.memory)

    def _name(self, memory: Memory) -> None:
        names = self.arrays.setdefault(memory.space, [])
        if memory.name not in names:
            names.append(memory.name)

    def statement(self, machine: ObservedMachine, mask: Mask) -> None:
        work = self.work.get(machine.line)
        if work is None:
            work = self.work[machine.line] = Work()
        lanes, warps = machine.count(mask)
        work.lanes += lanes
        work.warps += warps

    def compute(
        self, machine: ObservedMachine, mask: Mask, dtype: Any, operations: int, special: int
    ) -> None:
        work = self.work[machine.line]
        lanes, _ = machine.count(mask)
        name = _REAL[dtype]
        if operations:
            work.flops[name] = work.flops.get(name, 0) + operations * lanes
        if special:
            work.special[name] = work.special.get(name, 0) + special * lanes

    def cooperate(self, machine: ObservedMachine, mask: Mask, kind: str, members: Any) -> None:
        work = self.work[machine.line]
        warps = machine.count(mask)[1]
        if kind in ("block", "grid"):
            work.barriers += warps
        else:
            setattr(work, f"{kind}s", getattr(work, f"{kind}s") + warps)

    def load(self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any) -> None:
        self._access(machine, array, mask, position, "load")

    def store(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, value: Any
    ) -> None:
        self._access(machine, array, mask, position, "store")

    def atomic(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, exchanges: bool
    ) -> None:
        self._access(machine, array, mask, position, "atomic")

    # Counting.

    def _access(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, kind: str
    ) -> None:
        memory = array.memory
        if memory.space == "shared" and array.dtype.itemsize >= 16:
            # Served half a warp at a time: which lanes take part matters even if all access the same element.
            position = np.broadcast_to(np.asarray(position, np.int64), machine.shape)
        differs = type(position) is np.ndarray and position.ndim == 2 and position.shape[1] > 1
        if not differs or memory.space in ("local", "constant"):
            self._access_one(machine, array, mask, position, kind)
            return
        place = (machine.line, memory, kind, array.start, array.unit, array.dtype)
        collected = self._collected.get(place)
        if collected is None:
            collected = self._collected[place] = ([], [0])
        events, lanes = collected
        events.append((mask, position, machine.batch))
        lanes[0] += position.size
        if lanes[0] >= _MOST_LANES:
            self._count(machine, Place(*place), events)
            events.clear()
            lanes[0] = 0

    def _access_one(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, kind: str
    ) -> None:
        """Count requests whose lanes all access the same element, or that go to local memory."""
        memory, itemsize = array.memory, array.dtype.itemsize
        lanes, warps = machine.count(mask)
        if memory.space == "local":
            cost = Traffic(requests=warps, bytes_asked=lanes * itemsize)
        elif memory.space == "shared":
            cost = Traffic(warps, 0, 0, 0, warps, warps)
        else:
            cost = Traffic(warps, warps, warps, warps * itemsize)
            self._touch(memory, kind, (array.start + array.unit * _of_active(mask, position)) // SECTOR)
        if kind == "atomic":
            cost.turns = lanes
        self._add(Key(machine.line, memory.space, memory.name, kind), cost)

    def _count(self, machine: ObservedMachine, place: Place, events: list[Any]) -> None:
        """Count collected accesses whose lanes access different elements."""
        groups: dict[tuple[bool, int], list[Any]] = {}
        for mask, position, batch in events:
            full, thread_blocks = mask is True, position.shape[0]
            if not full and np.shape(mask)[0] == batch:
                thread_blocks = batch
            # Addresses that are the same in every thread block are counted once, and multiplied.
            groups.setdefault((full, batch // thread_blocks), []).append((mask, position, thread_blocks))
        for (full, repeated), group in groups.items():
            rows = _rows(machine.threads, place, group, full)
            if not len(rows):
                continue
            if place.memory.space == "global":
                rows.sort(axis=1)
                moved = global_cost(rows)
                cost = Traffic(len(rows), moved.sectors, moved.lines, moved.addresses * place.dtype.itemsize)
                self._touch(place.memory, place.kind, moved.touched)
            else:
                cost = Traffic(len(rows), 0, 0, 0, *shared_cost(rows, place.dtype.itemsize))
            if place.kind == "atomic":
                rows.sort(axis=1)
                cost.turns = turns(rows)
            key = Key(place.line, place.memory.space, place.memory.name, place.kind)
            self._add(key, cost, repeated)

    def _add(self, key: Key, cost: Traffic, times: int = 1) -> None:
        traffic = self.traffic.get(key)
        if traffic is None:
            traffic = self.traffic[key] = Traffic()
        traffic.add(cost, times)

    def _touch(self, memory: Memory, kind: str, sectors: Any) -> None:
        if memory.space != "global":
            return
        for way in ("load", "store") if kind == "atomic" else (kind,):
            key = id(memory.root), way
            if key not in self._touched:
                self._touched[key] = memory.root, np.zeros(extent(memory.root)[1] // SECTOR + 1, bool)
            self._touched[key][1][sectors] = True


def _of_active(mask: Mask, position: Any) -> Any:
    """Return one position for each thread block that has an active lane."""
    if mask is True or np.ndim(position) < 2 or position.shape[0] == 1:
        return position
    return np.broadcast_to(position[:, 0], np.shape(position)[:1])[
        np.broadcast_to(np.any(mask, axis=1), np.shape(position)[:1])
    ]


def _rows(threads: int, place: Place, group: list[Any], full: bool) -> Any:
    """Return byte addresses by warp, int64[requests, 32], of the requests with an active lane."""
    short = -threads % 32
    if full:
        addresses = np.concatenate([position for _, position, _ in group])
        if place.unit != 1:
            addresses *= place.unit
        if place.start:
            addresses += place.start
    else:
        parts = []
        for mask, position, thread_blocks in group:
            shape = (thread_blocks, threads)
            addresses = place.start + place.unit * np.broadcast_to(position, shape)
            parts.append(np.where(np.broadcast_to(mask, shape), addresses, NOBODY))
        addresses = np.concatenate(parts)
    if short:
        addresses = np.pad(addresses, ((0, 0), (0, short)), constant_values=NOBODY)
    rows = addresses.reshape(-1, 32)
    return rows if full else rows[rows.min(axis=1) < NOBODY]
