"""The rounds of a reduction, from a trace: which thread wrote which element from which others, and the races."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..protocols import Access

WARP_SIZE = 32


@dataclass(frozen=True)
class Step:
    """A store of one thread, or what one lane has after a shuffle.

    Attributes
    ----------
    epoch : int
        Number of barriers before the store; for shuffles, of shuffles.
    thread, element : int
        Numbers of the thread and of the element that it wrote.
    sources : tuple of int
        The elements of the same array that the thread read for it in that epoch.
    round : int
        Number of the thread's earlier rounds in that epoch: in a round, a thread reads, then stores.
    synced : bool
        Whether a ``syncwarp`` lies between this round and the thread's round before.
    begins : tuple of int
        For each source, the row of `Tree.rows` whose value was read; -1 is the state before the first row.
    races : tuple of int
        The sources that another thread wrote in the same epoch.
    """

    epoch: int
    thread: int
    element: int
    sources: tuple[int, ...]
    round: int = 0
    synced: bool = False
    begins: tuple[int, ...] = ()
    races: tuple[int, ...] = ()

    @property
    def row(self) -> tuple[int, int]:
        """Epoch and round."""
        return self.epoch, self.round


@dataclass(frozen=True)
class Race:
    """A thread that accesses an element between the same barriers as another thread stores to it.

    Attributes
    ----------
    epoch, element : int
    thread, writer : int
        `writer` stores; `thread` loads, stores or runs an atomic operation.
    """

    epoch: int
    element: int
    thread: int
    writer: int


class _Visit(NamedTuple):
    """A thread at an element, and how many times it had passed ``syncwarp``."""

    thread: int
    syncwarps: int

    def races_with(self, other: _Visit) -> bool:
        if self.thread == other.thread:
            return False
        same_warp = self.thread // WARP_SIZE == other.thread // WARP_SIZE
        return not (same_warp and self.syncwarps != other.syncwarps)


@dataclass
class _Turn:
    """What one thread has done in its current round."""

    round: int = 0
    stored: bool = False
    synced: bool = False
    syncwarps: int = 0
    read: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    """By element read, the row of the store whose value it had."""


class Rounds:
    """Steps and races of one array.

    Parameters
    ----------
    accesses : iterable of Access
        The accesses to one shared array in one launch, in the order in which they happened.
    """

    def __init__(self, accesses: Iterable[Access]) -> None:
        self._turns: dict[tuple[int, int], _Turn] = {}
        self._made: dict[tuple[int, int, int], tuple[int, _Turn, dict[int, tuple[int, int] | None]]] = {}
        self._last: dict[int, tuple[int, int]] = {}
        self._writes: dict[tuple[int, int], set[_Visit]] = {}
        self._others: dict[tuple[int, int], set[_Visit]] = {}
        for access in accesses:
            syncwarps = access.syncwarps or (0,) * len(access.threads)
            for thread, element, synced in zip(access.threads, access.elements, syncwarps, strict=True):
                turn = self._turns.setdefault((access.epoch, thread), _Turn(syncwarps=synced))
                self._visit(access.kind, (access.epoch, element), turn, _Visit(thread, synced))
        self.races = self._races()
        self.steps = self._steps({(race.epoch, race.element, race.thread) for race in self.races})

    def _visit(self, kind: str, place: tuple[int, int], turn: _Turn, visit: _Visit) -> None:
        epoch, element = place
        if kind == "load":
            if turn.stored:
                turn.round, turn.stored, turn.read = turn.round + 1, False, {}
                turn.synced, turn.syncwarps = visit.syncwarps > turn.syncwarps, visit.syncwarps
            turn.read.setdefault(element, self._last.get(element))
            self._others.setdefault(place, set()).add(visit)
            return
        kinds = self._writes if kind == "store" else self._others
        kinds.setdefault(place, set()).add(visit)
        turn.stored = True
        row = epoch, turn.round
        self._made[epoch, turn.round, element] = visit.thread, _Turn(turn.round, True, turn.synced), turn.read
        self._last[element] = row

    def _races(self) -> list[Race]:
        """Return the threads that race at each element and epoch, each with one of the threads that write."""
        found = []
        for (epoch, element), writers in sorted(self._writes.items()):
            in_order = sorted(writers)
            for visit in sorted({*writers, *self._others.get((epoch, element), ())}):
                writer = next((writer for writer in in_order if visit.races_with(writer)), None)
                if writer is not None:
                    found.append(Race(epoch, element, visit.thread, writer.thread))
        return found

    def _steps(self, raced: set[tuple[int, int, int]]) -> list[Step]:
        rows = sorted({(epoch, turn.round) for (epoch, _, _), (_, turn, _) in self._made.items()})
        number = {row: place for place, row in enumerate(rows)}
        written: dict[int, list[int]] = {}
        for epoch, round_, element in sorted(self._made):
            written.setdefault(element, []).append(number[epoch, round_])
        steps = []
        for (epoch, round_, element), (thread, turn, read) in sorted(self._made.items()):
            sources = tuple(sorted(read))
            here = number[epoch, round_]
            begins = []
            for source in sources:
                row = read[source]
                version = -1 if row is None else number[row]
                # The value lasts from its row to the row before the next one that writes the element.
                later = [place for place in written.get(source, ()) if version < place < here]
                begins.append(version if version >= here else min([here, *later]) - 1)
            races = tuple(source for source in sources if (epoch, source, thread) in raced)
            steps.append(Step(epoch, thread, element, sources, round_, turn.synced, tuple(begins), races))
        return steps


def steps_of_shuffles(accesses: Iterable[Access], warp: int) -> list[Step]:
    """Return the steps of a warp's shuffles: a first row of 32 registers, then a row for each shuffle."""
    steps = [Step(0, warp * WARP_SIZE + lane, lane, ()) for lane in range(WARP_SIZE)]
    epoch = 0
    for access in accesses:
        exchanged = [
            (thread, source)
            for thread, source in zip(access.threads, access.elements, strict=True)
            if thread // WARP_SIZE == warp
        ]
        epoch += bool(exchanged)
        for thread, source in exchanged:
            lane, other = thread % WARP_SIZE, source % WARP_SIZE
            sources = tuple(sorted({lane, other}))
            steps.append(Step(epoch, thread, lane, sources, begins=(epoch - 1,) * len(sources)))
    return steps
