"""Picture of the addresses that one warp accesses at one statement: sectors of global memory, or banks of shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...arguments import integer, is_name, one_of, shown
from ..picture import Picture, checked_title
from ..protocols import Access, checked_accesses
from ..svg import COLOURS, Drawing, Look
from ..text import plural, table
from .banks import BANKS, WORD, Banks
from .fold import folded, ranges

_SECTOR, _LINE = 32, 128
_USED, _WASTED, _CONFLICT = Look(COLOURS[0]), Look(COLOURS[1], 1), Look("#d62728")
_LEFT, _WIDTH, _LANES_Y, _MEMORY_Y = 56, 704, 44, 178
_MOST_ROWS = 16


@dataclass(frozen=True)
class WarpAccess(Picture):
    """The addresses that the lanes of a warp access with one instruction.

    Global memory moves in sectors of 32 bytes, four to a cache line of 128. Shared memory has 32 banks of 4 bytes; a
    bank serves one word at a time, to any number of lanes, so that lanes with different words of one bank conflict.

    Attributes
    ----------
    title : str
        The array and the statement, unless given.
    addresses : dict of int to int
        Byte at which the element of each active lane begins: in the allocation, or in the thread block's shared array.
    itemsize : int
        Bytes of an element.
    space : {"global", "shared"}

    See Also
    --------
    Tree : The rounds of a reduction through shared memory.
    paged_numba.lockstep.trace : Records the accesses.

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
    >>> arrays = np.ones(64, np.float32), np.zeros(32, np.float32)
    >>> accesses = pn.lockstep.trace(take_every_other, 1, 32, *arrays)
    >>> access = pn.draw.WarpAccess.of(accesses, "source")
    >>> access.sectors, access.useful
    ([0, 1, 2, 3, 4, 5, 6, 7], 50.0)
    >>> print(access)
    load of source: result[i] = source[2 * i]
    sector  bytes       lanes     used
    ------  ----------  --------  --------
    0       0 to 31     0 to 3    16 of 32
    1       32 to 63    4 to 7    16 of 32
    2       64 to 95    8 to 11   16 of 32
    3       96 to 127   12 to 15  16 of 32
    4       128 to 159  16 to 19  16 of 32
    5       160 to 191  20 to 23  16 of 32
    6       192 to 223  24 to 27  16 of 32
    7       224 to 255  28 to 31  16 of 32
    8 sectors of 32 bytes in 2 cache lines of 128, 50% useful
    """

    title: str
    addresses: dict[int, int]
    itemsize: int
    space: str = "global"

    @classmethod
    def of(
        cls,
        accesses: Sequence[Access],
        array: str,
        kind: str = "load",
        *,
        line: int | None = None,
        warp: int = 0,
        title: str = "",
    ) -> WarpAccess:
        """Return the picture of the first access of a warp to an array in global or shared memory.

        Parameters
        ----------
        accesses : list of Access
            From `paged_numba.lockstep.trace`.
        array : str
            Name of the array in the kernel.
        kind : {"load", "store", "atomic"}
        line : int, optional
            Number of the source line; any line if None.
        warp : int
            Number of the warp in its thread block.
        title : str, optional
            Heading of the picture.

        Raises
        ------
        TypeError, ValueError
            No such access was recorded.
        """
        kind, warp = one_of("kind", kind, ("load", "store", "atomic")), integer("warp", warp)
        line, title = None if line is None else integer("line", line), checked_title(title)
        for access in checked_accesses(accesses):
            if (
                access.kind != kind
                or not is_name(array, access.array)
                or line not in (None, access.line.number)
            ):
                continue
            lanes = {
                thread % 32: byte
                for thread, byte in zip(access.threads, access.bytes, strict=True)
                if thread // 32 == warp
            }
            if lanes:
                title = title or f"{access.kind} of {array}: {access.line.text}"
                return cls(title, lanes, access.itemsize, access.space)
        raise ValueError(
            f"array, kind, line and warp must be those of a recorded access, got none with "
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

    @property
    def banks(self) -> Banks:
        """The words by bank of shared memory, and how many wavefronts they need."""
        return Banks(self.addresses, self.itemsize)

    @property
    def _used(self) -> dict[int, dict[int, list[int]]]:
        """By sector, the byte in it at which each accessed element begins, and its lanes."""
        used: dict[int, dict[int, list[int]]] = {sector: {} for sector in self.sectors}
        for lane, byte in sorted(self.addresses.items()):
            used[byte // _SECTOR].setdefault(byte % _SECTOR, []).append(lane)
        return used

    # As text.

    @property
    def description(self) -> str:
        return f"{self._lanes}: {self._counts}."

    @property
    def caption(self) -> str:
        """Who accesses what; the counts stand in the picture."""
        return f"{self._lanes}."

    @property
    def _lanes(self) -> str:
        space = "" if self.space == "global" else " of shared memory"
        return f"{plural(len(self.addresses), 'lane')} of a warp access {plural(self.itemsize, 'byte')} each{space}"

    @property
    def _counts(self) -> str:
        if self.space == "global":
            sectors, lines = plural(len(self.sectors), "sector"), plural(len(self.lines), "cache line")
            return f"{sectors} of 32 bytes in {lines} of 128, {self.useful:.4g}% useful"
        banks = self.banks
        wavefronts, conflicts = (
            plural(banks.wavefronts, "wavefront"),
            plural(banks.conflicts, "bank conflict"),
        )
        return f"{wavefronts}, {conflicts}; {len(banks.words)} of {BANKS} banks take part"

    def text(self) -> str:
        rows = []
        if self.space == "global":
            header, used = ["sector", "bytes", "lanes", "used"], self._used
            for place in folded(len(used), _MOST_ROWS):
                if place is None:
                    rows.append(["..."] * 4)
                    continue
                sector = self.sectors[place]
                lanes = sorted(lane for those in used[sector].values() for lane in those)
                first, share = sector * _SECTOR, min(_SECTOR, self.itemsize * len(used[sector]))
                rows.append([str(sector), f"{first} to {first + 31}", ranges(lanes), f"{share} of {_SECTOR}"])
        else:
            header, words = ["bank", "words", "lanes"], self.banks.words
            # Only the lanes of different words conflict, so the fullest banks come first.
            order = sorted(words, key=lambda bank: (-len(words[bank]), bank))
            for place in folded(len(order), _MOST_ROWS):
                if place is None:
                    rows.append(["..."] * 3)
                    continue
                of_bank = words[order[place]]
                lanes = sorted({lane for those in of_bank.values() for lane in those})
                rows.append([str(order[place]), str(len(of_bank)), ranges(lanes)])
        return f"{self.heading}\n{table(header, rows, left=4)}\n{self._counts}"

    # As a picture.

    def draw(self) -> Drawing:
        """Return the lanes, the memory that they access below, and a line from each lane to its element."""
        drawing = Drawing(_WIDTH + _LEFT + 16, _MEMORY_Y + 100, self.title)
        drawing.text(_LEFT - 8, _LANES_Y + 15, "lane", "right q")
        for lane in range(32):
            active = lane in self.addresses
            fill: str | Look = _USED if active else "none"
            x = _lane_x(lane)
            drawing.rect(x - _WIDTH / 64, _LANES_Y, _WIDTH / 32, 22, fill)
            drawing.text(x, _LANES_Y + 15, str(lane), "small" if active else "small q", on=fill)
        if self.space == "global":
            self._draw_lines(drawing)
        else:
            self._draw_banks(drawing)
        return drawing

    def _draw_lines(self, drawing: Drawing) -> None:
        """Draw the cache lines; a gap separates those that are not neighbours."""
        lines = self.lines
        gaps = [int(b != a + 1) for a, b in pairwise(lines)]
        gap = min(10.0, 0.25 * _WIDTH / (sum(gaps) or 1))
        scale = (_WIDTH - gap * sum(gaps)) / (len(lines) * _LINE)
        start: dict[int, float] = {}
        x = float(_LEFT)
        for place, line in enumerate(lines):
            start[line] = x
            x += _LINE * scale + (gap if place < len(gaps) and gaps[place] else 0)
        used = self._used
        for line in lines:
            for sector in range(line * 4, line * 4 + 4):
                sector_x = start[line] + (sector % 4) * _SECTOR * scale
                touched = sector in used
                tip = f"sector {sector}, bytes {sector * _SECTOR} to {sector * _SECTOR + 31}"
                drawing.rect(
                    sector_x, _MEMORY_Y, _SECTOR * scale, 34, _WASTED if touched else "none",
                    css="", tip=tip + ("" if touched else ", not moved"),
                )  # fmt: skip
                # An element that is too narrow to see is drawn wider, without an edge.
                wide = self.itemsize * scale
                for byte in used.get(sector, ()):
                    css = "edge" if wide >= 4 else ""
                    drawing.rect(sector_x + byte * scale, _MEMORY_Y, max(2.5, wide), 34, _USED, css=css)
        for line in lines:
            for sector in range(line * 4, line * 4 + 4):
                x, css = start[line] + (sector % 4) * _SECTOR * scale, "line" if sector in used else "edge"
                drawing.rect(x, _MEMORY_Y - 3, _SECTOR * scale, 40, css=css)
        for lane, byte in self.addresses.items():
            to = start[byte // _LINE] + (byte % _LINE + self.itemsize / 2) * scale
            drawing.line(_lane_x(lane), _LANES_Y + 22, to, _MEMORY_Y - 3)
        drawing.text(_LEFT - 8, _MEMORY_Y + 52, "byte", "right q")
        # As many numbers as there is room for: of each sector, or of some cache lines.
        step = next(n for n in (_SECTOR, *(_LINE * 2**k for k in range(99))) if n * scale > 40)
        for place, line in enumerate(lines):
            for byte in range(line * _LINE, (line + 1) * _LINE, min(step, _LINE)):
                if step <= _LINE or place % (step // _LINE) == 0:
                    at = start[line] + byte % _LINE * scale
                    drawing.text(at, _MEMORY_Y + 52, str(byte), "q small left")
        drawing.text(_LEFT, _MEMORY_Y + 76, self._counts, "left")
        legend: list[tuple[str | Look, str]] = [
            (_USED, "used"),
            (_WASTED, "moved, not used"),
            ("none", "not moved"),
        ]
        drawing.legend(_LEFT, _MEMORY_Y + 88, legend)

    def _draw_banks(self, drawing: Drawing) -> None:
        """Draw the banks; below each, a cell for each word that lanes access."""
        words = self.banks.words
        most = max(map(len, words.values()))
        high = max(5.0, min(22.0, 264 / most))
        for bank in range(BANKS):
            of_bank, x = sorted(words.get(bank, {}).items()), _lane_x(bank)
            look = _CONFLICT if len(of_bank) > 1 else _USED
            if not of_bank:
                drawing.rect(x - _WIDTH / 64, _MEMORY_Y, _WIDTH / 32, high)
            for place, (word, lanes) in enumerate(of_bank):
                y = _MEMORY_Y + place * high
                tip = f"bank {bank}, bytes {word * WORD} to {word * WORD + 3}: lanes {ranges(lanes)}"
                drawing.rect(x - _WIDTH / 64, y, _WIDTH / 32, high, look, tip=tip)
                if high >= 12:
                    name = str(lanes[0]) if len(lanes) == 1 else f"{len(lanes)}x"
                    drawing.text(x, y + high / 2 + 4, name, "small", on=look)
                for lane in lanes:
                    drawing.line(_lane_x(lane), _LANES_Y + 22, x, _MEMORY_Y, css="line faint")
        foot = _MEMORY_Y + most * high
        drawing.text(_LEFT - 8, _MEMORY_Y + 15, "lanes", "right q")
        drawing.text(_LEFT - 8, foot + 16, "bank", "right q")
        drawing.steps(_LEFT, foot + 16, _WIDTH / 32, range(BANKS), "q small")
        drawing.text(_LEFT, foot + 40, self._counts, "left")
        drawing.height = foot + 60
        legend: list[tuple[str | Look, str]] = [(_USED, "a bank with one word")]
        if most > 1:
            legend.append((_CONFLICT, "a bank with several words, one after the other: a conflict"))
        drawing.legend(_LEFT, foot + 52, legend)


def _lane_x(number: int) -> float:
    """Return the middle of a lane or bank."""
    return _LEFT + (number + 0.5) * _WIDTH / 32
