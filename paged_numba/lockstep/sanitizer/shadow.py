"""Shadow memory: records the last writer and the last two readers of each piece of an array.

A *stamp* is ``event << 32 | thread``: the number of the access, which grows with each access, and the number of
the thread in the grid. -1 means nobody. Two accesses race if neither happens before the other. Within a launch
only a thread's own program order, barriers and ``syncwarp`` order accesses (CUDA C++ Programming Guide, "Memory
Consistency Model"). Savage et al., "Eraser", and Flanagan & Freund, "FastTrack", PLDI 2009, keep such epochs for
each variable. Here two readers are kept, so that at least one of them is not the writer. A race with a third
reader, whose stamp was overwritten, is missed if the two that remain are ordered before the writer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..observe.observed_array import ObservedArray

THREAD = 0xFFFFFFFF
NOBODY, ATOMIC = -1, -2


def grain_of(array: ObservedArray) -> int:
    """Return the largest power of two that divides the size and the position of every element."""
    common = math.gcd(array.dtype.itemsize, array.start, array.unit)
    return common & -common


class Shadow:
    """The shadow of one allocation.

    Parameters
    ----------
    nbytes : int
        Size of the allocation.
    grain : int
        Bytes covered by one stamp: the size of the smallest element accessed so far.

    Attributes
    ----------
    writer, reader, other_reader : int64 arrays
        Stamps of the last plain store, and of the last two threads that loaded or ran an atomic operation.
    raced : bool array or None
        By byte, whether a store to it raced with an earlier load; None if no store did.
    """

    def __init__(self, nbytes: int, grain: int) -> None:
        self.grain = grain
        self.raced: Any = None
        self.writer, self.reader, self.other_reader = (
            np.full(-(-nbytes // grain), NOBODY, np.int64) for _ in range(3)
        )

    def refine(self, grain: int) -> None:
        """Divide the pieces for accesses to smaller elements."""
        parts = self.grain // grain
        self.writer, self.reader, self.other_reader = (
            np.repeat(stamps, parts) for stamps in (self.writer, self.reader, self.other_reader)
        )
        self.grain = grain

    def pieces(self, byte: Any, array: ObservedArray) -> Any:
        """Return the pieces of the elements that begin at the bytes `byte`, int64[elements, pieces per element]."""
        grain, itemsize = grain_of(array), array.dtype.itemsize
        if grain < self.grain:
            self.refine(grain)
        first = (byte >> (self.grain.bit_length() - 1))[:, None]
        return first if itemsize == self.grain else first + np.arange(itemsize // self.grain)

    def read(self, pieces: Any, stamps: Any) -> None:
        """Record a reader for each piece; of several readers of one piece, the first and the last are kept."""
        before = self.reader[pieces]
        self.reader[pieces] = stamps
        last = self.reader[pieces] == stamps
        everyone = bool(last.all())
        place = pieces if everyone else pieces[last]
        held, mine = (before, stamps) if everyone else (before[last], stamps[last])
        # A thread that reads again does not replace the other reader.
        again = (held ^ mine) & THREAD == 0
        self.other_reader[place] = np.where(again, self.other_reader[place], held)
        if not everyone:
            others = ~last
            self.other_reader[pieces[others][::-1]] = stamps[others][::-1]

    def mark_raced(self, byte: Any, itemsize: int) -> None:
        """Record that stores to the elements at these bytes race with earlier loads."""
        if self.raced is None:
            self.raced = np.zeros(self.writer.size * self.grain, bool)
        self.raced[byte[:, None] + np.arange(itemsize)] = True

    def fill(self, pieces: Any) -> None:
        """Mark pieces that have no writer as written by an atomic operation."""
        self.writer[pieces] = np.where(self.writer[pieces] == NOBODY, ATOMIC, self.writer[pieces])

    def write(self, pieces: Any, stamps: Any) -> Any:
        """Record writers, and return the stamps that remain: one for each piece, even if several lanes write it."""
        self.writer[pieces] = stamps
        return self.writer[pieces]
