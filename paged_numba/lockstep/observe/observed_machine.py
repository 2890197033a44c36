"""`Machine` and `LaneArray` subclasses that report every access, barrier and statement to the observers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import SynchronizationError
from ..machine import masks
from ..machine.barriers import GRID_BARRIER
from ..machine.lanes import WARP_SIZE, Dim3
from ..machine.machine import Machine, Site
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from . import observer
from .allocations import Memory, address_of, extent, root_of
from .code import CodeFunction, CodeLine
from .observed_array import ObservedArray
from .observer import EXITED, Observer

MOST_MASKS = 64
"""Number of masks whose lane counts are cached."""


class ObservedMachine(Machine):
    """One observed launch.

    Attributes
    ----------
    line : CodeLine
        The line that runs.
    collects_errors : bool
        Whether errors of the kernel are reported to observers, and the launch continues.
    memories : dict of Memory
        The array arguments, and the arrays that have been declared so far.
    lane_numbers : int array
        Flat indices of the lanes of the batch.
    declarations : dict
        By `Machine.frame` of a local array, how often its declaration has run, by lane.
    strays : mask
        Lanes whose index has just been found out of bounds.
    warps : int
        Warps of a thread block.
    """

    array_type = ObservedArray
    local_type = ObservedArray

    def __init__(
        self,
        listeners: tuple[Observer, ...],
        blocks_per_grid: Dim3,
        threads_per_block: Dim3,
        shared_bytes: int,
    ) -> None:
        super().__init__(blocks_per_grid, threads_per_block, shared_bytes)
        self.listeners = listeners
        self._lock: Any = None
        self._begun: list[Observer] = []
        self.line = CodeLine(CodeFunction("", "", 0, ()), 0)
        self.strays: Mask = False
        self.warps = -(-self.threads // WARP_SIZE)
        self._counted: dict[int, tuple[Mask, int, int]] = {}
        self.memories: dict[Any, Memory] = {}

    def _handlers(self, event: str) -> list[Callable[..., None]]:
        """Return the methods of the observers that override the event's default, which does nothing."""
        return [
            getattr(listener, event)
            for listener in self.listeners
            if getattr(type(listener), event) is not getattr(Observer, event)
        ]

    def tell(self, event: str, *what: Any) -> None:
        """Report an event to all observers; frequent events have lists of handlers instead."""
        for listener in self.listeners:
            getattr(listener, event)(self, *what)

    def tell_wrong(
        self, lane: int, kind: str, what: str, array: str | None = None, element: str = "", count: int = 1
    ) -> None:
        """Report an error of the kernel to the observers that collect errors; see `Observer.wrong`."""
        for listener in self.listeners:
            if listener.collects_errors:
                listener.wrong(self, lane, kind, what, array or "", element, count)

    def misses(self, mask: Mask, kind: str, what: str, name: str) -> None:
        if not self.collects_errors:
            super().misses(mask, kind, what, name)
        count = int(np.count_nonzero(masks.lanes(mask, self.shape)))
        self.tell_wrong(self.first_lane(mask), kind, what, name, count=count)

    def meet(self, mask: Mask, what: str, line: str, parts: list[Any]) -> bool:
        self.line, met = parts[0].line, True
        mask = True if mask.all() else mask
        try:
            super().meet(mask, what, line, parts)
        except SynchronizationError as error:
            if not self.collects_errors:
                raise
            self.tell_wrong(self.first_lane(mask), "synchronization", error.what)
            met = False
        else:
            self.tell_exited(mask)
        self.tell("cooperate", mask, "grid" if what == GRID_BARRIER else "block", None)
        return met

    def tell_exited(self, mask: Mask) -> None:
        """Report a barrier that does not wait for all threads of a thread block, since some have exited."""
        if mask is True or not self.collects_errors:
            return
        here = masks.lanes(mask, self.shape)
        gone = masks.lanes(self.exited, self.shape) & here.any(axis=1, keepdims=True)
        if gone.any():
            lane = self.first_lane(gone)
            waiting = int(here[lane // self.threads].sum())
            text = (
                f"only {waiting} of {self.threads} threads wait, since others, such as {self.thread_name(lane)}, "
                "have exited: allowed since compute capability 7.0"
            )
            self.tell_wrong(lane, EXITED, text)

    def exchange(self, mask: Mask, source: Any, itemsize: int) -> None:
        self.tell("exchange", mask, source, itemsize)

    def begin_statement(self, line: CodeLine, mask: Mask) -> None:
        """Record the line that runs, and report the statement."""
        self.line = line
        for statement in self._on_statement:
            statement(self, mask)

    def branch(self, mask: Mask, held: Mask) -> None:
        """Report for which lanes the test of an ``if`` or ``while`` holds."""
        for branch in self.on_branch:
            branch(self, mask, held)

    def enter(self, mask: Mask, function: CodeFunction, /, **parameters: Any) -> None:
        """Report that a function begins."""
        for enter in self.on_enter:
            enter(self, mask, function, parameters)

    def assigned(self, mask: Mask, function: CodeFunction, name: str, value: Any) -> Any:
        """Report the value that a variable has now, and return it."""
        for assign in self.on_assign:
            assign(self, mask, function, name, value)
        return value

    def compute(self, mask: Mask, dtype: Any, operations: int, special: int) -> None:
        """Report arithmetic if it is floating-point."""
        if dtype.kind in "fc":
            for compute in self._on_compute:
                compute(self, mask, dtype, operations, special)

    def begin_launch(self, function: Any, arguments: tuple[Any, ...]) -> None:
        lock = observer.launching
        lock.acquire()
        self._lock = lock
        now = observer.listening(self.listeners)
        if len(now) < len(self.listeners):
            # In another thread, the `with` statement ended while this launch was being prepared.
            observer.miss()
        self.listeners = now
        self.collects_errors = any(listener.collects_errors for listener in now)
        self.on_load, self.on_store = self._handlers("load"), self._handlers("store")
        self._on_statement, self._on_compute = self._handlers("statement"), self._handlers("compute")
        self.on_branch, self.on_assign = self._handlers("branch"), self._handlers("assign")
        self.on_enter = self._handlers("enter")
        for listener in now:
            listener.begin_launch(self, function, arguments)
            self._begun.append(listener)

    def end_launch(self) -> None:
        try:
            self._end_launch()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _end_launch(self) -> None:
        """Tell each observer, even if an earlier one raises an error."""
        if self._begun:
            try:
                self._begun.pop(0).end_launch(self)
            finally:
                self._end_launch()

    def begin_batch(self, first: int, count: int, memory: Any = None) -> None:
        super().begin_batch(first, count, memory)
        self._counted.clear()
        self.lane_numbers = np.arange(self.num_lanes)
        self.declarations: dict[Any, Any] = {}
        for key in [key for key, m in self.memories.items() if m.space not in ("global", "constant")]:
            del self.memories[key]
        self.tell("begin_batch")

    def count(self, mask: Mask) -> tuple[int, int]:
        """Return the number of active lanes in a mask, and of warps with an active lane."""
        found = self._counted.get(id(mask))
        if found is None:
            if len(self._counted) >= MOST_MASKS:
                self._counted.clear()
            # Keep the mask, so that no other object can get its id.
            found = self._counted[id(mask)] = (mask, *self._count(mask))
        return found[1:]

    def _count(self, mask: Mask) -> tuple[int, int]:
        if mask is True:
            return self.num_lanes, self.batch * self.warps
        active = np.atleast_2d(mask)
        rows, threads = active.shape
        repeated = self.batch // rows
        lanes = int(np.count_nonzero(active)) * repeated * (self.threads // threads)
        if threads == 1:
            return lanes, int(np.count_nonzero(active)) * repeated * self.warps
        bits = np.packbits(active, axis=1)
        short = -bits.shape[1] % (WARP_SIZE // 8)
        if short:
            bits = np.pad(bits, ((0, 0), (0, short)))
        return lanes, int(np.count_nonzero(bits.view(np.uint32))) * repeated

    # Memory.

    def argument(self, name: str, array: Any) -> LaneArray:
        return self._global("global", name, array, super().argument(name, array))

    def constant(self, name: str, array: Any) -> LaneArray:
        made: Any = self._global("constant", name, array, super().constant(name, array))
        self.tell("declare", made, True)
        return made

    def _global(self, space: str, name: str, array: Any, made: Any) -> LaneArray:
        root = root_of(array)
        start = address_of(array) - extent(root)[0]
        self._remember(
            made, (space, name), lambda: Memory(space, name, root, start, array.shape, array.strides)
        )
        return made

    def shared_array(self, site: Site, shape: Any, dtype: np.dtype[Any]) -> LaneArray:
        made: Any = super().shared_array(site, shape, dtype)
        root = self.shared.buffers[site] if site in self.shared.buffers else self.shared.buffers["dynamic"]
        strides = tuple(s * dtype.itemsize for s in made.strides)
        row = root.nbytes // self.batch
        self._remember(made, site, lambda: Memory("shared", site.name, root, 0, made.lengths, strides, row))
        self.tell("declare", made, True)
        return made

    def local_array(self, mask: Mask, site: Site, shape: Any, dtype: np.dtype[Any]) -> LaneArray:
        found = super().local_array(mask, site, shape, dtype)
        return self.declare_local(mask, site, found, found.offset)

    def declare_local(self, mask: Mask, site: Site, found: Any, offset: Any) -> LaneArray:
        """Return an array in the local memory `found`, and report the declaration."""
        made: Any = ObservedArray(self, site.name, found.buffer, offset, found.lengths, found.strides)
        dtype = found.dtype
        strides = tuple(s * dtype.itemsize for s in made.strides)
        frame = self.frame(site)
        self._remember(made, frame, lambda: Memory("local", site.name, made.buffer, 0, made.lengths, strides))
        self.declarations[frame] = self.declarations.get(frame, np.int64(0)) + np.asarray(mask)
        made.declared = frame, self.declarations[frame]
        self.tell("declare", made, mask)
        return made

    def _remember(self, made: Any, key: Any, make: Callable[[], Memory]) -> None:
        if key not in self.memories:
            self.memories[key] = make()
        made.assign_memory(self.memories[key])
