"""`ObservedArray`: an array that reports every access to the observers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..machine import masks
from ..machine.masks import Mask, minus
from ..machine.memory import LaneArray
from .allocations import Memory, address_of, extent


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
    machine: Any

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
        elif self.dtype.names is None:  # a number is no record, which `_scatter` says
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
