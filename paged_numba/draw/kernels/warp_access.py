"""Picture of the addresses that one warp accesses at one statement: coalesced, strided or scattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...arguments import integer, is_name, one_of, shown
from ..picture import Picture
from ..protocols import Access, checked_accesses
from ..svg import Drawing
from ..text import plural

_SECTOR, _LINE = 32, 128
_USED, _WASTED = "#56b4e9", "url(#hatch1)"


@dataclass(frozen=True)
class WarpAccess(Picture):
    """The addresses that the lanes of a warp access with one instruction.

    Attributes
    ----------
    what : str
        Title: the array and the statement.
    addresses : dict of int to int
        Byte at which the element of each active lane begins.
    itemsize : int
        Bytes of an element.

    See Also
    --------
    Tree : The rounds of a reduction through shared memory.
    paged_numba.lockstep.tracing : Records the accesses.

    Examples
    --------
    Lanes that read every other element use half of the bytes that are moved.

    >>> import numpy as np
    >>> import paged_numba as pn
    >>> from paged_numba import cuda
    >>> @cuda.jit
    ... def take_every_other(source, result):
    ...     i = cuda.grid(1)
    ...     result[i] = source[2 * i]
    >>> with pn.lockstep.tracing() as accesses:
    ...     arrays = np.ones(64, np.float32), np.zeros(32, np.float32)
    ...     pn.lockstep.launch(take_every_other, 1, 32, *arrays)
    >>> access = pn.draw.WarpAccess.of(accesses, "source")
    >>> access.sectors, access.useful
    ([0, 1, 2, 3, 4, 5, 6, 7], 50.0)
    """

    what: str
    addresses: dict[int, int]
    itemsize: int

    @classmethod
    def of(
        cls,
        accesses: Sequence[Access],
        array: str,
        kind: str = "load",
        *,
        line: int | None = None,
        warp: int = 0,
    ) -> WarpAccess:
        """Return the picture of the first access of a warp to an array in global memory.

        Parameters
        ----------
        accesses : list of Access
            From `paged_numba.lockstep.tracing`.
        array : str
            Name of the array in the kernel.
        kind : {"load", "store", "atomic"}
        line : int, optional
            Number of the source line; any line if None.
        warp : int
            Number of the warp in its thread block.

        Raises
        ------
        TypeError, ValueError
            No such access was recorded.
        """
        kind, warp = one_of("kind", kind, ("load", "store", "atomic")), integer("warp", warp)
        line = None if line is None else integer("line", line)
        for access in checked_accesses(accesses):
            wanted = (access.space, access.kind) == ("global", kind) and is_name(array, access.array)
            if not wanted or line not in (None, access.line.number):
                continue
            lanes = {
                thread % 32: byte
                for thread, byte in zip(access.threads, access.bytes, strict=True)
                if thread // 32 == warp
            }
            if lanes:
                return cls(f"{access.kind} of {array}: {access.line.text}", lanes, access.itemsize)
        raise ValueError(
            f"array, kind, line and warp must be those of a recorded access to global memory, got none with "
            f"array={shown(array)} kind={kind!r} line={shown(line)} warp={shown(warp)}"
        )

    @property
    def sectors(self) -> list[int]:
        """Numbers of the 32-byte sectors that the warp touches."""
        ends = ((byte, byte + self.itemsize - 1) for byte in self.addresses.values())
        return sorted(
            {sector for first, last in ends for sector in range(first // _SECTOR, last // _SECTOR + 1)}
        )

    @property
    def lines(self) -> list[int]:
        """Numbers of the 128-byte cache lines that the warp touches."""
        return sorted({sector * _SECTOR // _LINE for sector in self.sectors})

    @property
    def useful(self) -> float:
        """Percentage of the bytes in these sectors that the lanes access."""
        return 100 * len(set(self.addresses.values())) * self.itemsize / (_SECTOR * len(self.sectors))

    def draw(self) -> Drawing:
        """Return the lanes, the cache lines that they touch below, and a line from each lane to its element."""
        width, left, lane_y, memory_y = 704, 16, 44, 190
        drawing = Drawing(width + 2 * left, 290, self.what)
        cell = width / 32
        for lane in range(32):
            active = lane in self.addresses
            drawing.rect(left + lane * cell, lane_y, cell, 22, _USED if active else "none")
            drawing.text(
                left + (lane + 0.5) * cell, lane_y + 15, str(lane), "small on" if active else "small q"
            )
        # All touched cache lines have the same width; a gap separates lines that are not neighbours.
        lines = self.lines
        gaps = [int(b != a + 1) for a, b in pairwise(lines)]
        gap = min(10.0, 0.25 * width / (sum(gaps) or 1))
        scale = (width - gap * sum(gaps)) / (len(lines) * _LINE)
        start: dict[int, float] = {}
        x = float(left)
        for place, line in enumerate(lines):
            start[line] = x
            x += _LINE * scale + (gap if place < len(gaps) and gaps[place] else 0)
        used: dict[int, set[int]] = {}
        for byte in self.addresses.values():
            used.setdefault(byte // _SECTOR, set()).add(byte)
        for line in lines:
            for sector in range(line * 4, line * 4 + 4):
                sector_x = start[line] + (sector % 4) * _SECTOR * scale
                touched = sector in used
                tip = f"bytes {sector * _SECTOR} to {sector * _SECTOR + 31}" + (
                    "" if touched else ", not touched"
                )
                drawing.rect(sector_x, memory_y, _SECTOR * scale, 34, _WASTED if touched else "none", tip=tip)
                for byte in used.get(sector, ()):
                    at = sector_x + byte % _SECTOR * scale
                    # An element that is too narrow to see is drawn wider, without an edge.
                    broad = self.itemsize * scale >= 4
                    drawing.rect(
                        at, memory_y, max(2.5, self.itemsize * scale), 34, _USED, css="edge" if broad else ""
                    )
        for lane, byte in self.addresses.items():
            to = start[byte // _LINE] + (byte % _LINE + self.itemsize / 2) * scale
            drawing.line(left + (lane + 0.5) * cell, lane_y + 22, to, memory_y)
        for place, line in enumerate(lines):
            if len(lines) <= 8 or place in (0, len(lines) - 1):
                drawing.text(start[line] + _LINE * scale / 2, memory_y + 48, f"{line * _LINE}", "q small")
        sectors, cache_lines = plural(len(self.sectors), "sector"), plural(len(lines), "cache line")
        text = f"{sectors} of 32 bytes in {cache_lines} of 128, {self.useful:g}% useful"
        drawing.text(left, memory_y + 68, text, "left")
        drawing.legend(
            left, memory_y + 78, [(_USED, "used"), (_WASTED, "moved, not used"), ("none", "not moved")]
        )
        return drawing
