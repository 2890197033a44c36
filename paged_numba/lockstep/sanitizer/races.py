"""`Races`: finds data races, pairs of unordered accesses of which at least one is a plain store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..machine import masks
from ..machine.lanes import WARP_SIZE
from ..machine.masks import Mask
from ..observe.allocations import extent
from ..observe.code import CodeLine
from ..observe.observed_array import ObservedArray
from ..observe.observed_machine import ObservedMachine
from .accesses import Accesses, thread_name, values
from .findings import BENIGN, DISTANCES, Example, Findings
from .shadow import THREAD, Shadow, grain_of


class Races:
    """Finds the data races of a launch.

    Attributes
    ----------
    tracked : set of int
        Ids of the global memory allocations that the kernel may store into.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.begin_launch(set())

    # The order of accesses.

    def begin_launch(self, tracked: set[int]) -> None:
        """Forget all accesses, since launches are ordered."""
        self.tracked = tracked
        self._lines: list[CodeLine] = []
        """The line of each event."""
        self._shadows: dict[int, tuple[Any, Shadow]] = {}
        self._since_grid = 0

    def begin_batch(self, machine: ObservedMachine) -> None:
        """Forget the shared memory of the previous thread blocks."""
        self._shadows = {key: kept for key, kept in self._shadows.items() if key in self.tracked}
        self._since = np.zeros((machine.batch, 1), np.int64)
        # By lane, the event of the last syncwarp of its whole warp, and of any part of its warp.
        self._since_warp = np.zeros(machine.shape, np.int64)
        self._since_part = np.zeros(machine.shape, np.int64)
        self._pass(machine, np.int64(self._event(machine)))

    def cooperate(self, machine: ObservedMachine, mask: Mask, kind: str) -> None:
        """Record a barrier or syncwarp, which orders earlier accesses before later ones."""
        if kind == "block":
            event = np.int64(self._event(machine))
            if mask is not True:
                here = np.broadcast_to(mask, machine.shape).any(axis=1, keepdims=True)
                event = np.where(here, event, self._since)
            self._pass(machine, event)
        elif kind == "grid":
            self._since_grid = self._event(machine)
            self._pass(machine, np.int64(self._since_grid))
        elif kind == "syncwarp":
            event = self._event(machine)
            gone = masks.lanes(machine.exited, machine.shape)
            here = masks.lanes(mask, machine.shape)
            short = -machine.threads % WARP_SIZE
            by_warp = np.pad(here | gone, ((0, 0), (0, short)), constant_values=True)
            whole = by_warp.reshape(machine.batch, -1, WARP_SIZE).all(axis=2).repeat(WARP_SIZE, axis=1)
            self._since_part = np.where(here, event, self._since_part)
            self._since_warp = np.where(here & whole[:, : machine.threads], event, self._since_warp)

    def _event(self, machine: ObservedMachine) -> int:
        """Return the number of a new event at the line that runs."""
        self._lines.append(machine.line)
        return len(self._lines) - 1

    def _pass(self, machine: ObservedMachine, since: Any) -> None:
        """Record the event of each thread block's last barrier; stamps of that event or later are recent."""
        self._since = np.broadcast_to(since, self._since.shape)
        self._recent = np.broadcast_to(self._since << 32, machine.shape).ravel()

    # Accesses.

    def shadow(self, array: ObservedArray) -> Shadow | None:
        """Return the shadow of an array's allocation, or None if no race is possible."""
        root = array.memory.root
        if array.memory.space != "shared" and id(root) not in self.tracked:
            return None
        if id(root) not in self._shadows:
            self._shadows[id(root)] = root, Shadow(extent(root)[1], grain_of(array))
        return self._shadows[id(root)][1]

    def fill(self, array: ObservedArray, made: Accesses) -> None:
        """Record that an atomic operation overwrote elements of shared memory."""
        shadow = self.shadow(array)
        if shadow is not None:
            shadow.fill(shadow.pieces(made.byte, array))

    def read(
        self, machine: ObservedMachine, array: ObservedArray, shadow: Shadow, made: Accesses, pieces: Any
    ) -> None:
        """Check plain loads and atomic operations against stores."""
        stamps = self._event(machine) << 32 | self._threads(machine, made)
        for part in pieces.T:
            self._find(machine, array, made, shadow.writer[part], "reads", "wrote")
            shadow.read(part, stamps)

    def write(
        self, machine: ObservedMachine, array: ObservedArray, shadow: Shadow, made: Accesses, value: Any
    ) -> None:
        """Check stores against all accesses."""

        def same_as_before(which: Any) -> Any:
            place = (made.byte[which] - array.start) // array.unit
            return _same(array.buffer[place], values(machine, array, value, made.lane[which]))

        stamps = self._event(machine) << 32 | self._threads(machine, made)
        for pieces in shadow.pieces(made.byte, array).T:
            self._find(machine, array, made, shadow.writer[pieces], "writes", "wrote", same_as_before)
            raced = self._find(machine, array, made, shadow.reader[pieces], "writes", "read")
            others, other_reader = made, shadow.other_reader[pieces]
            if raced.size:
                # Of the two readers of an element, one is reported.
                others = Accesses(np.delete(made.byte, raced), np.delete(made.lane, raced))
                other_reader = np.delete(other_reader, raced)
            also = self._find(machine, array, others, other_reader, "writes", "read")
            for these, places in ((made, raced), (others, also)):
                if places.size:
                    shadow.mark_raced(these.byte[places], array.dtype.itemsize)
            held = shadow.write(pieces, stamps)
            if not np.array_equal(held, stamps):
                self._collide(machine, array, made, held, value)

    @staticmethod
    def _threads(machine: ObservedMachine, made: Accesses) -> Any:
        return made.lane + machine.first_thread

    # Races.

    def _find(
        self,
        machine: ObservedMachine,
        array: ObservedArray,
        made: Accesses,
        before: Any,
        does: str,
        did: str,
        same: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Report and return the accesses that nothing orders after the accesses stamped `before`."""
        threads, first = machine.threads, machine.first_thread
        recent = self._recent if made.lane is machine.lane_numbers else self._recent[made.lane]
        # A cheap test first, which rules out most accesses.
        near = before >= (recent if array.memory.space == "shared" else self._since_grid << 32)
        if not near.any():
            return _NONE
        near &= (before ^ self._threads(machine, made)) & THREAD != 0
        which = np.flatnonzero(near)
        if not which.size:
            return _NONE
        lane, other, event = made.lane[which], before[which] & THREAD, before[which] >> 32
        same_thread_block = other // threads == (lane + first) // threads
        same_warp = same_thread_block & (other % threads // WARP_SIZE == lane % threads // WARP_SIZE)
        other_lane = np.where(same_warp, other - first, 0)
        synced, part = self._since_warp.reshape(-1), self._since_part.reshape(-1)
        together = (synced[lane] > event) & (synced[other_lane] > event)
        together |= (part[lane] > event) & (part[lane] == part[other_lane])
        races = ~same_thread_block | (before[which] >= recent[which])
        races &= ~(same_warp & together)
        if not races.any():
            return _NONE
        which, other, event = which[races], other[races], event[races]
        distance = same_thread_block[races].astype(int) + same_warp[races]
        benign = np.zeros(which.size, bool) if same is None else same(which)
        for number in dict.fromkeys(event.tolist()):
            line = self._lines[number]
            for kind, of_kind in ((BENIGN, benign), ("data race", ~benign)):
                chosen = of_kind & (event == number)
                for one, far, count in _first_of_each(chosen, distance):
                    text = f"{{}} {does} what {{}} {did}, {_WHY[far]}{_SAME * (kind == BENIGN)}"
                    pair = int(which[one]), int(other[one])
                    self._report(machine, array, made, pair, kind, line, count, text, far)
        return which

    def _collide(
        self, machine: ObservedMachine, array: ObservedArray, made: Accesses, held: Any, value: Any
    ) -> None:
        """Report lanes that write the same element in one statement."""
        which = np.flatnonzero((held ^ self._threads(machine, made)) & THREAD)
        winner = (held[which] & THREAD) - machine.first_thread
        lane, threads = made.lane[which], machine.threads
        equal = _same(values(machine, array, value, lane), values(machine, array, value, winner))
        same_thread_block = winner // threads == lane // threads
        same_warp = same_thread_block & (winner % threads // WARP_SIZE == lane % threads // WARP_SIZE)
        distance = same_thread_block.astype(int) + same_warp
        for kind, of_kind, what in (
            (BENIGN, equal, "the same value"),
            ("data race", ~equal, "different values"),
        ):
            for one, far, count in _first_of_each(of_kind, distance):
                text = f"{{}} and {{}} write {what} in one statement"
                pair = int(which[one]), int(winner[one]) + machine.first_thread
                self._report(machine, array, made, pair, kind, machine.line, count, text, far)

    def _report(
        self,
        machine: ObservedMachine,
        array: ObservedArray,
        made: Accesses,
        pair: tuple[int, int],
        kind: str,
        line: CodeLine,
        count: int,
        text: str,
        far: int,
    ) -> None:
        """Report a race of the access ``pair[0]`` with an access of the thread ``pair[1]``."""
        one, other = pair

        def example() -> Example:
            where = array.memory.element(int(made.byte[one]))
            me = thread_name(machine, int(made.lane[one]) + machine.first_thread)
            them = thread_name(machine, other)
            return Example(f"{where}: {text.format(me, them)}", where, me, them, DISTANCES[far])

        self._findings.add(kind, array.name, machine.line, line, count, example, DISTANCES[far])


_NONE = np.zeros(0, np.int64)


def _first_of_each(chosen: Any, distance: Any) -> Iterator[tuple[int, int, int]]:
    """Yield, of the chosen races, the first of each distance, the distance (a place in `DISTANCES`) and their count."""
    for far in range(len(DISTANCES)):
        found = np.flatnonzero(chosen & (distance == far))
        if found.size:
            yield int(found[0]), far, found.size


_WHY = (
    "and nothing orders thread blocks",
    "with no barrier between",
    "with no barrier or cuda.syncwarp() between",
)
_SAME = ", the same value"


def _same(a: Any, b: Any) -> Any:
    """Return which values are equal; NaN counts as equal to NaN."""
    return (a == b) | ((a != a) & (b != b))
