"""`Machine` and `LaneArray` subclasses that report every access, barrier and statement to the observers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import SynchronizationError
from ..machine import masks
from ..machine.barriers import GRID_BARRIER
from ..machine.lanes import WARP_SIZE, Dim3
from ..machine.machine import Machine, Site
from ..machine.masks import Mask, minus
from ..machine.memory import LaneArray
from . import observer
from .allocations import Memory, address_of, extent, root_of
from .code import CodeFunction, CodeLine
from .observer import EXITED, Observer

MOST_MASKS = 64
"""Number of masks whose lane counts are cached."""


class FromTheEnd(np.int64):
    """A negative index written as a constant, such as ``-1``, which counts from the end on purpose."""


class ObservedArray(LaneArray):
    """An array whose accesses are reported to observers.

    Attributes
    ----------
    memory : Memory
        The argument or declared array of which this array is a view, or which it is itself.
    stray : mask
        Lanes for which this view lies out of bounds; they access nothing through it.
    declared : (frame, int value) or None
        For a local array, its `Machine.frame` and, by lane, how often it had run.
    start, unit : int
        Byte in ``memory.root`` of the buffer's first element, and bytes from one element to the next.
    """

    __slots__ = ("declared", "memory", "start", "stray", "unit")
    machine: ObservedMachine

    def assign_memory(self, memory: Memory) -> None:
        """Set the memory of which the array is a part."""
        self.memory = memory
        self.stray: Mask = False
        self.declared: tuple[Any, Any] | None = None
        self.unit = self.buffer.strides[0]
        self.start = address_of(self.buffer) - extent(memory.root)[0]

    def like(
        self, offset: Any, shape: tuple[Any, ...], strides: tuple[int, ...], lead: tuple[Any, ...] | None
    ) -> LaneArray:
        view = type(self)(self.machine, self.name, self.buffer, offset, shape, strides, lead)
        view.memory, view.unit, view.start = self.memory, self.unit, self.start
        view.stray, view.declared = self.stray, self.declared
        return view

    def over(
        self,
        buffer: Any,
        offset: Any,
        shape: tuple[Any, ...],
        strides: tuple[int, ...],
        lead: tuple[Any, ...] | None = None,
    ) -> LaneArray:
        view = type(self)(self.machine, self.name, buffer, offset, shape, strides, lead)
        view.assign_memory(self.memory)
        view.stray, view.declared = self.stray, self.declared
        return view

    def load(self, mask: Mask, index: Any) -> Any:
        if type(index) is not tuple:
            index = (index,)
        if self._selects_view(index) or self.dtype.names is not None:
            return super().load(mask, index)
        position, inside = self.locate(mask, index)
        if inside is False:
            return self.dtype.type(0)
        for load in self.machine.on_load:
            load(self.machine, self, inside, position)
        value = self.buffer[position]
        return value if inside is mask else np.where(inside, value, self.dtype.type(0))

    def store(self, mask: Mask, index: Any, value: Any) -> None:
        if type(index) is not tuple:
            index = (index,)
        if self._selects_view(index) or not self.buffer.flags.writeable:
            super().store(mask, index, value)
            return
        position, mask = self.locate(mask, index)
        if isinstance(value, ObservedArray) and value.stray is not False:
            mask = minus(mask, value.stray)
        if mask is False:
            return
        if isinstance(value, ObservedArray):
            self.record(value)  # refuses what is no record before anything is reported
            self._report_copy(mask, position, value)
        else:
            for store in self.machine.on_store:
                store(self.machine, self, mask, position, value)
        self._scatter(mask, position, value)

    def _report_copy(self, mask: Mask, position: Any, source: ObservedArray) -> None:
        """Report the assignment of a record, which Numba compiles to a load and a store of each of its bytes."""
        machine, listens = self.machine, (self.machine.on_load, self.machine.on_store)
        used = used_bytes(self.dtype)
        for byte in range(self.dtype.itemsize):
            # Padding is copied, but holds no value that could be wrong.
            loads, stores = (
                [h for h in handlers if byte in used or not _collects_errors(h)] for handlers in listens
            )
            place = source._byte(byte)
            value = place.buffer[source.offset]
            for load in loads:
                load(machine, place, mask, source.offset)
            place = self._byte(byte)
            for store in stores:
                store(machine, place, mask, position, value)

    def _byte(self, number: int) -> ObservedArray:
        """Return the view of one byte of each record."""
        view = type(self)(
            self.machine,
            self.name,
            self.buffer.getfield(np.uint8, number),
            self.offset,
            self.lengths,
            self.strides,
        )
        view.assign_memory(self.memory)
        view.stray, view.declared = self.stray, self.declared
        return view

    def locate_atomic(self, mask: Mask, index: tuple[Any, ...], exchanges: bool) -> tuple[Any, Mask]:
        position, mask = self.locate(mask, index)
        if mask is not False:
            self.machine.tell("atomic", self, mask, position, exchanges)
        return position, mask

    def locate(self, mask: Mask, index: tuple[Any, ...]) -> tuple[Any, Mask]:
        """Return the positions of the elements, and the lanes of `mask` whose index is within bounds."""
        machine = self.machine
        if machine.collects_errors:
            self._report_negative(mask, index)
        position = self.address(mask, index)
        if machine.collects_errors and self.declared is not None:
            self._report_dangling(mask, index, *self.declared)
        if machine.strays is not False:
            mask, machine.strays = minus(mask, machine.strays), False
        return position, mask if self.stray is False else minus(mask, self.stray)

    def view(self, mask: Mask, index: tuple[Any, ...]) -> LaneArray:
        machine = self.machine
        if machine.collects_errors:
            self._report_negative(mask, tuple(i for i in index if i is not None))
        view: Any = super().view(mask, index)
        if machine.strays is not False:
            view.stray, machine.strays = masks.union(self.stray, machine.strays), False
        return view

    def _report_negative(self, mask: Mask, index: tuple[Any, ...]) -> None:
        """Report an index that Numba silently counts from the end of the axis."""
        lengths = self.lengths
        at = next((place for place, i in enumerate(index) if i is Ellipsis), None)
        if at is not None:
            lengths = (*lengths[:at], 0, *lengths[len(lengths) - (len(index) - at - 1) :])
        for i, n in zip(index, lengths, strict=False):
            if i is Ellipsis or type(i) in (slice, FromTheEnd) or i.dtype.kind != "i":
                continue
            if (i.min(initial=0) if type(i) is np.ndarray else i) >= 0:
                continue
            wraps = (i < 0) & (i >= -n) & mask
            if np.any(wraps):
                lane, element, bounds = self.describe_index(mask, index, wraps)
                text = f"{element} is negative and counts from the end of {bounds}"
                self._tell_wrong(mask, wraps, lane, "negative index", text, element)

    def _report_dangling(self, mask: Mask, index: tuple[Any, ...], frame: Any, count: Any) -> None:
        """Report a use of a local array after its declaration ran again and reused its memory."""
        machine = self.machine
        latest = machine.declarations[frame]
        if latest is count:
            return
        gone = (latest != count) & mask
        if np.any(gone):
            lane, element, _ = self.describe_index(mask, index, gone)
            text = (
                f"{element} lies in memory that its declaration, run again, has given to another array: "
                "a local array ends with the call of the function that declares it"
            )
            self._tell_wrong(mask, gone, lane, "dangling local array", text, element)

    def _out_of_bounds(self, mask: Mask, index: tuple[Any, ...], bad: Any) -> None:
        machine = self.machine
        if not machine.collects_errors:
            super()._out_of_bounds(mask, index, bad)
        lane, element, bounds = self.describe_index(mask, index, bad)
        text = f"{element} out of bounds for {bounds}"
        self._tell_wrong(mask, bad, lane, "out of bounds", text, element)
        machine.strays = masks.union(machine.strays, bad)

    def _tell_wrong(self, mask: Mask, bad: Any, lane: int, kind: str, what: str, element: str) -> None:
        """Report an error of all lanes of `mask` that are in `bad`; `lane` is the first of them."""
        shape = self.machine.shape
        count = int(np.count_nonzero(masks.lanes(mask, shape) & masks.lanes(bad, shape)))
        self.machine.tell_wrong(lane, kind, what, self.name, element, count)


def _collects_errors(handler: Callable[..., None]) -> bool:
    owner: Any = getattr(handler, "__self__", None)
    return bool(owner.collects_errors)


@lru_cache(maxsize=256)
def used_bytes(dtype: np.dtype[Any]) -> frozenset[int]:
    """Return the bytes of a dtype that are not padding."""
    if dtype.subdtype is not None:
        inner = dtype.subdtype[0]
        starts = range(0, dtype.itemsize, inner.itemsize)
        return frozenset(start + byte for start in starts for byte in used_bytes(inner))
    if dtype.fields is None:
        return frozenset(range(dtype.itemsize))
    return frozenset(start + byte for field, start, *_ in dtype.fields.values() for byte in used_bytes(field))


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
