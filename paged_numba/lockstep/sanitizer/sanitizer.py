"""`Sanitizer`: the observer that passes each access to the error detectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import LaunchError
from ..machine import masks
from ..machine.masks import Mask
from ..observe.observed_array import ObservedArray
from ..observe.observed_machine import ObservedMachine
from ..observe.observer import EXITED, Observer
from .accesses import accesses, thread_name
from .findings import Example, Findings
from .races import Races
from .stores import stored_parameters
from .unwritten import Unwritten


class Sanitizer(Observer):
    """Finds errors of kernels.

    Attributes
    ----------
    findings : Findings
    """

    collects_errors = True

    def __init__(self) -> None:
        self.findings = Findings()
        self._races = Races(self.findings)
        self._unwritten = Unwritten(self.findings)

    def begin_launch(self, machine: ObservedMachine, function: Any, arguments: tuple[Any, ...]) -> None:
        stored = stored_parameters(function)
        given = [memory for memory in machine.memories.values() if memory.space == "global"]
        # An array in a tuple has the name of the tuple, followed by an index.
        self._races.begin_launch({id(m.root) for m in given if m.name.split("[")[0] in stored})
        self._unwritten.begin_launch([memory.root for memory in given])

    def end_launch(self, machine: ObservedMachine) -> None:
        # A launch that a GPU refuses has nothing to check.
        if machine.ended_by is not None and not issubclass(machine.ended_by, LaunchError):
            self.findings.num_failed += 1
        self._unwritten.flush()
        self._unwritten.settle(machine, "shared", "global")
        self._races.begin_launch(set())
        self._unwritten.begin_launch(())

    def begin_batch(self, machine: ObservedMachine) -> None:
        self._unwritten.settle(machine, "shared")
        self._races.begin_batch(machine)
        self._unwritten.begin_batch()

    def cooperate(self, machine: ObservedMachine, mask: Mask, kind: str, members: Any) -> None:
        self._races.cooperate(machine, mask, kind)

    def declare(self, machine: ObservedMachine, array: ObservedArray, mask: Mask) -> None:
        self._unwritten.declare(machine, array, mask)

    def load(self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any) -> None:
        self._unwritten.flush()
        self._read(machine, array, mask, position, machine.line.copies, ends=True)

    def statement(self, machine: ObservedMachine, mask: Mask) -> None:
        self._unwritten.flush()

    def atomic(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, exchanges: bool
    ) -> None:
        self._unwritten.flush()
        if exchanges:
            self._unwritten.write(machine, array, mask, position)
            if array.memory.space == "shared":
                self._races.fill(array, accesses(machine, array, mask, position))
        # Each of the threads that update one element may be the other thread of a race.
        self._read(machine, array, mask, position, copies=False, ends=False)
        self._unwritten.write(machine, array, mask, position)

    def _read(
        self,
        machine: ObservedMachine,
        array: ObservedArray,
        mask: Mask,
        position: Any,
        copies: bool,
        ends: bool,
    ) -> None:
        if array.memory.space == "local":
            self._unwritten.read_local(machine, array, mask, position)
            return
        shadow = self._races.shadow(array)
        fresh = self._unwritten.concerns(array)
        if shadow is None and not fresh:
            return
        made = accesses(machine, array, mask, position, ends=ends)
        if shadow is not None:
            pieces = shadow.pieces(made.byte, array)
            if array.memory.space == "shared":
                self._unwritten.read_shared(machine, array, shadow, made, pieces)
            self._races.read(machine, array, shadow, made, pieces)
        if fresh:
            self._unwritten.read_global(machine, array, shadow, made, copies)

    def store(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, value: Any
    ) -> None:
        dtype = array.dtype
        if dtype.kind == "i" and dtype.itemsize <= 4 and getattr(value, "dtype", dtype) != dtype:
            self._check_fit(machine, mask, value, dtype, f"a store into {array.name} as", array.name)
        shadow = self._races.shadow(array) if array.memory.space != "local" else None
        if shadow is not None:
            self._races.write(machine, array, shadow, accesses(machine, array, mask, position), value)
        self._unwritten.write(machine, array, mask, position)

    def refused(self) -> None:
        self.findings.num_failed += 1

    def missed(self) -> None:
        self.findings.num_unseen += 1

    # Errors of single threads.

    def narrowed(self, machine: ObservedMachine, mask: Mask, value: Any, dtype: Any) -> None:
        self._check_fit(machine, mask, value, dtype, "a cast to", "")

    def _check_fit(
        self, machine: ObservedMachine, mask: Mask, value: Any, dtype: Any, conversion: str, array: str
    ) -> None:
        """Report integers that do not fit the narrower type `dtype`."""
        limits = np.iinfo(dtype)
        if value.dtype.kind not in "iu" or (np.max(value) <= limits.max and np.min(value) >= limits.min):
            return
        lost = masks.lanes(((value > limits.max) | (value < limits.min)) & mask, machine.shape)
        if lost.any():
            lane = int(np.argmax(lost))
            number = int(np.broadcast_to(value, machine.shape).flat[lane])
            what = f"{number} does not survive {conversion} {dtype}"
            self.wrong(machine, lane, "integer overflow", what, array, "", int(lost.sum()))

    def wrong(
        self, machine: ObservedMachine, lane: int, kind: str, what: str, array: str, element: str, count: int
    ) -> None:
        thread = thread_name(machine, lane + machine.first_thread)
        # Messages about barriers and warp operations already name a thread.
        text = what if kind in ("synchronization", EXITED) else f"{what}, {thread}"
        self.findings.add(kind, array, machine.line, None, count, lambda: Example(text, element, thread))
