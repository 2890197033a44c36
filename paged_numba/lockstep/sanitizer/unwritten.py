"""`Unwritten`: finds reads of memory that nothing has written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..machine import masks
from ..machine.masks import Mask
from ..machine.poison import POISON, is_fresh
from ..observe.allocations import Memory
from ..observe.code import CodeLine
from ..observe.observed_array import ObservedArray
from ..observe.observed_machine import ObservedMachine
from .accesses import Accesses, accesses, thread_name
from .findings import Example, Findings
from .shadow import NOBODY, Shadow

_WORD = 4
"""Bytes of fresh global memory that are tracked together."""


class Unwritten:
    """Finds the reads of unwritten memory in a launch.

    Fresh global memory holds `POISON`. Words that still hold it when a launch begins have been written neither
    by a kernel nor by the host.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._copied: Callable[[bool], Any] | None = None
        """Called with the next store, for a load that copies: reports the load unless the store is to global memory."""
        self._early: list[_Early] = []
        self.begin_launch(())

    def begin_launch(self, roots: Any) -> None:
        """Record which words of the allocations `roots` are unwritten."""
        self._words: dict[int, tuple[Any, Any]] = {}
        self._local: dict[int, tuple[Any, Any]] = {}
        for root in roots:
            if is_fresh(root):
                unwritten = _words(root) == POISON
                if unwritten.any():
                    self._words[id(root)] = root, unwritten

    def begin_batch(self) -> None:
        """Forget the local memory of the previous thread blocks."""
        self._local = {}

    def declare(self, machine: ObservedMachine, array: ObservedArray, mask: Mask) -> None:
        """Record that a declaration makes local memory fresh in the lanes of `mask`."""
        if array.memory.space != "local":
            return
        root, elements = array.memory.root, array.buffer.size // machine.num_lanes
        if id(root) not in self._local:
            self._local[id(root)] = root, np.ones((elements, *machine.shape, _pieces(root)), bool)
        else:
            np.copyto(self._local[id(root)][1], True, where=mask if mask is True else mask[..., np.newaxis])

    def concerns(self, array: ObservedArray) -> bool:
        """Tell whether an array lies in global memory that was fresh when the launch began."""
        return id(array.memory.root) in self._words

    def read_local(self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any) -> None:
        """Check a load from local memory."""
        root, fresh = self._local[id(array.memory.root)]
        unwritten = fresh.reshape(-1)[_places(array, root, position)].any(axis=-1) & mask
        if unwritten.any():
            lanes = np.flatnonzero(masks.lanes(unwritten, machine.shape))
            byte = np.broadcast_to(position, machine.shape).reshape(-1)[lanes] * array.unit + array.start
            self._report(machine, array, Accesses(byte, lanes))

    def read_shared(
        self, machine: ObservedMachine, array: ObservedArray, shadow: Shadow, made: Accesses, pieces: Any
    ) -> None:
        """Check a load from shared memory."""
        unwritten = shadow.writer[pieces] == NOBODY
        if unwritten.any():
            bad = unwritten.any(axis=1)
            self._report(machine, array, Accesses(made.byte[bad], made.lane[bad]), shadow=shadow)

    def read_global(
        self,
        machine: ObservedMachine,
        array: ObservedArray,
        shadow: Shadow | None,
        made: Accesses,
        copies: bool,
    ) -> None:
        """Check a load from fresh memory; if the line `copies`, the next store decides whether it is an error."""
        words = self._words[id(array.memory.root)][1]
        last = made.byte + (array.dtype.itemsize - 1)
        unwritten = words[made.byte // _WORD] | words[last // _WORD]
        if not unwritten.any():
            return
        bad = Accesses(made.byte[unwritten], made.lane[unwritten])
        line = machine.line

        def resolve(to_global: bool) -> Any:
            if not to_global:
                self._report(machine, array, bad, line, shadow)
                return None
            found = np.zeros(machine.num_lanes, bool)
            found[bad.lane] = True
            return found.reshape(machine.shape)

        if copies:
            self._copied = resolve
        else:
            resolve(False)

    def flush(self) -> None:
        """Report a pending load whose value is not stored by the next event."""
        if self._copied is not None:
            self._copied(False)
            self._copied = None

    def write(self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any) -> None:
        """Record a store."""
        copied, self._copied = self._copied, None
        if copied is not None:
            unwritten = copied(array.memory.space == "global")
            mask = mask if unwritten is None else masks.minus(mask, unwritten)
            if mask is False:
                return
        root = id(array.memory.root)
        if array.memory.space == "local":
            local, fresh = self._local[root]
            places = _places(array, local, np.broadcast_to(position, machine.shape))
            chosen = places if mask is True else places[masks.lanes(mask, machine.shape)]
            fresh.reshape(-1)[chosen] = False
        elif root in self._words:
            byte = accesses(machine, array, mask, position).byte
            for start in range(0, array.dtype.itemsize, _WORD):
                self._words[root][1][(byte + start) // _WORD] = False

    def _report(
        self,
        machine: ObservedMachine,
        array: ObservedArray,
        bad: Accesses,
        line: CodeLine | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        """Report loads; if the memory has a `shadow`, another thread may still store to it and so race with them."""
        early = _Early(
            array.memory,
            bad.byte,
            bad.lane + machine.first_thread,
            array.dtype.itemsize,
            line or machine.line,
            shadow,
        )
        if shadow is None:
            self._add(machine, early)
        else:
            self._early.append(early)

    def settle(self, machine: ObservedMachine, *spaces: str) -> None:
        """Report the loads that came before any store, unless a store raced with them: then the race is reported."""
        waiting, self._early = self._early, []
        for early in waiting:
            if early.memory.space in spaces:
                self._add(machine, early)
            else:
                self._early.append(early)

    def _add(self, machine: ObservedMachine, early: _Early) -> None:
        byte, thread = early.byte, early.thread
        if early.shadow is not None and early.shadow.raced is not None:
            left = ~early.shadow.raced[byte[:, None] + np.arange(early.itemsize)].any(axis=1)
            byte, thread = byte[left], thread[left]
        if not byte.size:
            return

        def example() -> Example:
            where = early.memory.element(int(byte[0]))
            me = thread_name(machine, int(thread[0]))
            return Example(f"{where}: {me} reads memory that nothing has written", where, me)

        name = early.memory.name
        self._findings.add("uninitialised read", name, early.line, None, byte.size, example)


class _Early(NamedTuple):
    """Loads of unwritten memory, by thread of the grid."""

    memory: Memory
    byte: Any
    thread: Any
    itemsize: int
    line: CodeLine
    shadow: Shadow | None


def _pieces(root: Any) -> int:
    """Return how many pieces of an element of the local array `root` are tracked: the bytes of a record."""
    return root.dtype.itemsize if root.dtype.names is not None else 1


def _places(array: ObservedArray, root: Any, position: Any) -> Any:
    """Return which pieces of the local array `root` hold positions in `array`, which may be a field of it."""
    if root.dtype.names is not None:
        first = np.asarray(position) * array.unit + array.start
        return first[..., np.newaxis] + np.arange(array.dtype.itemsize)
    size = root.dtype.itemsize
    element = position if array.unit == size else (position * array.unit + array.start) // size
    return np.asarray(element)[..., np.newaxis]


def _words(root: Any) -> Any:
    """Return an allocation as uint32 words, padded with zeros."""
    raw = root.reshape(-1, order="A").view(np.uint8)
    return np.pad(raw, (0, -raw.size % _WORD)).view(np.uint32)
