"""Picture of the way from one token's position through the block table to its slot in the pool."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ...arguments import between, shown
from ..letters import text_width
from ..names import cut, names_of, width_of
from ..picture import COLUMNS, Picture, checked_title
from ..protocols import Pool, checked_pool
from ..svg import COLOURS, SMALL_SIZE, Drawing, Look
from ..text import plural

_CHOSEN, _NEAR = Look(COLOURS[1]), Look("#cfe6f5")

LEFT, WIDTH, BOX = 256, 464, 26
"""Pixels left of the boxes, most for a row of boxes, height of a box."""


@dataclass(frozen=True)
class TokenPath(Picture):
    """The way from a token's position in its sequence to its slot in the pool.

    Parameters
    ----------
    name : str
        Name of the sequence.
    position : int
        The token's number in the sequence.
    table : list of int
        The block table of the sequence; -1 in the places of released blocks. Entries behind its last block are
        drawn as not used.
    seq_len, num_blocks, block_size : int
        Number of tokens of the sequence; of blocks of the pool; of slots of a block.
    title : str
        Heading of the picture.

    See Also
    --------
    BlockTables : The block tables of all sequences.
    paged_numba.BlockAllocator.slots : Returns the slots of several positions.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    >>> _ = pool.add("a", 4), pool.add("b", 6)
    >>> _ = pool.append("a", 3)
    >>> path = pn.draw.TokenPath.of(pool, "a", 6)
    >>> path.logical_block, path.offset, path.block, path.slot
    (1, 2, 3, 14)
    >>> print(path)
    From position to slot
    position 6 of a  logical block 6 // 4 = 1, offset 6 % 4 = 2
    block table      0 [3]
    entry 1          block 3
    slot             3 * 4 + 2 = 14
    """

    name: str
    position: int
    table: list[int]
    seq_len: int
    num_blocks: int
    block_size: int
    title: str = "From position to slot"

    @classmethod
    def of(
        cls, pool: Pool, seq_id: Hashable, position: int, *, title: str = "From position to slot"
    ) -> TokenPath:
        """Return the picture of one token of a pool.

        Parameters
        ----------
        pool : Pool
            A `paged_numba.BlockAllocator`, or the allocator of a cache.
        seq_id : hashable
            The sequence.
        position : int
            The token's number in the sequence, from 0.
        title : str
            Heading of the picture.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            As for `paged_numba.BlockAllocator.block_table`.
        ValueError
            The sequence has no such token, or has released its block.
        """
        pool, title = checked_pool(pool), checked_title(title)
        table, seq_len = pool.block_table(seq_id).tolist(), pool.seq_len(seq_id)
        name = names_of([seq_id])[0]
        if not seq_len:
            raise ValueError(
                f"seq_id must be a sequence with a token, got seq_id={shown(seq_id)}, which has none"
            )
        position = between("position", position, 0, seq_len - 1, f"the tokens of {cut(name, 60)}")
        if table[position // pool.block_size] < 0:
            raise ValueError(
                f"position must lie in a block that the sequence holds, got position={position}, "
                f"whose block was released"
            )
        return cls(name, position, table, seq_len, pool.num_blocks, pool.block_size, title)

    @property
    def logical_block(self) -> int:
        """Index of the token's entry in the block table."""
        return self.position // self.block_size

    @property
    def offset(self) -> int:
        """Place of the token in its block."""
        return self.position % self.block_size

    @property
    def block(self) -> int:
        """The block of the pool that holds the token."""
        return self.table[self.logical_block]

    @property
    def slot(self) -> int:
        """The token's place in the pool: ``block * block_size + offset``."""
        return self.block * self.block_size + self.offset

    @property
    def description(self) -> str:
        """What is seen: the arithmetic from position to slot."""
        return (
            f"Position {self.position} of {self.name} is offset {self.offset} in logical block {self.logical_block}, "
            f"since blocks have {plural(self.block_size, 'slot')}. Entry {self.logical_block} of the block table is "
            f"block {self.block}, so the token has slot {self.block} * {self.block_size} + {self.offset} = {self.slot}."
        )

    def text(self) -> str:
        """Return a line for each stage, with its arithmetic."""
        position, size = self.position, self.block_size
        shown = self._window(7)
        entries = [f"[{self.table[i]}]" if i == self.logical_block else str(self.table[i]) for i in shown]
        before, after = ".. " * (shown.start > 0), " .." * (shown.stop < len(self.table))
        label = f"position {position} of {cut(self.name, 20)}"
        logical_block = f"logical block {position} // {size} = {self.logical_block}"
        offset = f"offset {position} % {size} = {self.offset}"
        first = [(label, f"{logical_block}, {offset}")]
        if width_of(label) + len(first[0][1]) + 2 > COLUMNS:
            first = [(label, logical_block), ("", offset)]
        rows = [
            *first,
            ("block table", f"{before}{' '.join(entries)}{after}"),
            (f"entry {self.logical_block}", f"block {self.block}"),
            ("slot", f"{self.block} * {size} + {self.offset} = {self.slot}"),
        ]
        width = max(width_of(label) for label, _ in rows)
        lines = [f"{label}{' ' * (width - width_of(label))}  {value}" for label, value in rows]
        return "\n".join([self.heading, *lines])

    @property
    def _needed(self) -> int:
        """Entries of the block table that the tokens of the sequence use."""
        return -(-self.seq_len // self.block_size)

    def _window(self, most: int) -> range:
        """Return up to `most` indices of the block table around that of the token."""
        first = max(0, min(self.logical_block - most // 2, len(self.table) - most))
        return range(first, min(first + most, len(self.table)))

    def draw(self) -> Drawing:
        """Return the four stages below one another: the token's block, the table, the pool, the block's slots."""
        position, size = self.position, self.block_size
        drawing = Drawing(LEFT + WIDTH + 20, 390, self.title)
        for y, heading, *lines in (
            (
                62,
                f"position {position} of {self.name}",
                f"logical block: {position} // {size} = {self.logical_block}",
                f"offset: {position} % {size} = {self.offset}",
            ),
            (154, "block table", f"entry {self.logical_block}: block {self.block}"),
            (232, "pool", plural(self.num_blocks, "block") + f" of {plural(size, 'slot')}"),
            (312, f"slot {self.slot}", f"{self.block} * {size} + {self.offset} = {self.slot}"),
        ):
            drawing.text(16, y, heading, "left strong", room=LEFT - 30)
            for place, line in enumerate(lines, 1):
                drawing.text(16, y + 16 * place, line, "left", room=LEFT - 30)
        first = self.logical_block * size
        filled = min(size, self.seq_len - first)
        token = self._strip(drawing, 60, first, filled, "position")
        entry = self._table(drawing, 152)
        self._pool(drawing, 230, entry)
        self._strip(drawing, 310, self.block * size, filled, "slot")
        drawing.route([token, (entry, 138)])
        names: list[tuple[str | Look, str]] = [
            (_CHOSEN, "this token"),
            (_NEAR, "other tokens of the sequence"),
            ("none", "not used by it"),
        ]
        drawing.legend(LEFT, 360, names)
        return drawing

    def _strip(self, drawing: Drawing, y: float, first: int, filled: int, what: str) -> tuple[float, float]:
        """Draw the places of a block, with offsets above; return where an arrow from the chosen one begins."""
        size = self.block_size
        cell = min(48.0, WIDTH / size)
        fits = text_width(str(first + size - 1), SMALL_SIZE) <= cell - 2
        middle = LEFT + cell * (self.offset + 0.5)
        self._boxes(drawing, y, BOX, cell, size, [(0, filled)], self.offset, what, first)
        for offset in range(size) if fits else ():
            x = LEFT + cell * (offset + 0.5)
            look = _CHOSEN if offset == self.offset else _NEAR if offset < filled else "none"
            drawing.text(x, y + 17, str(first + offset), "small", on=look)
            if size <= 32:
                drawing.text(x, y - 4, str(offset), "q small")
        if fits and size <= 32:
            return middle, y + BOX + 2
        drawing.text(middle, y - 4, str(self.offset), "q small")
        if fits:
            return middle, y + BOX + 2
        drawing.text(middle, y + BOX + 12, f"{what} {first + self.offset}", "small")
        return middle, y + BOX + 16

    def _boxes(
        self,
        drawing: Drawing,
        y: float,
        height: float,
        cell: float,
        count: int,
        near: list[tuple[int, int]],
        chosen: int,
        what: str,
        first: int = 0,
    ) -> None:
        """Draw boxes side by side; if they are too narrow for edges, neighbours that look alike as one.

        The boxes of the sequence are those from the first up to the second number of each pair in `near`.
        """
        if cell >= 4:
            used = {place for start, end in near for place in range(start, end)}
            for place in range(count):
                look: str | Look = _CHOSEN if place == chosen else _NEAR if place in used else "none"
                drawing.rect(LEFT + cell * place, y, cell, height, look, tip=f"{what} {first + place}")
            return
        joined: list[list[float]] = []
        for start, end in sorted(near):
            # What is less than a pixel apart looks like one.
            if joined and cell * start <= joined[-1][1] + 1:
                joined[-1][1] = max(joined[-1][1], cell * end)
            else:
                joined.append([cell * start, cell * end])
        for left, right in joined:
            drawing.rect(LEFT + left, y, right - left, height, _NEAR, css="")
        drawing.rect(LEFT, y, cell * count, height)
        tip = f"{what} {first + chosen}"
        drawing.rect(LEFT + cell * chosen, y, max(cell, 2.5), height, _CHOSEN, css="", tip=tip)

    def _table(self, drawing: Drawing, y: float) -> float:
        """Draw the entries of the block table, those near the token's; return the middle of the token's."""
        window = self._window(9)
        cell, box, left = 46, 40, LEFT + 16 * (len(window) < len(self.table))
        for index in window:
            x, block = left + cell * (index - window.start), self.table[index]
            chosen = index == self.logical_block
            drawing.text(x + box / 2, y - 4, str(index), "q small", room=cell)
            look = _CHOSEN if chosen else _NEAR if index < self._needed else "none"
            drawing.rect(x, y, box, BOX, look, tip=f"entry {index}: block {block}")
            drawing.text(x + box / 2, y + 17, str(block), on=look, room=box - 2)
        if window.start:
            drawing.text(LEFT + 4, y + 17, "…", "q")
        if window.stop < len(self.table):
            drawing.text(left + cell * len(window) + 4, y + 17, "…", "q")
        return left + cell * (self.logical_block - window.start) + box / 2

    def _pool(self, drawing: Drawing, y: float, entry: float) -> None:
        """Draw the blocks of the pool; the token's opens into its slots below."""
        count, own = self.num_blocks, set(self.table[: self._needed])
        cell = min(30.0, WIDTH / count)
        near = [(block, block + 1) for block in own if block >= 0]
        self._boxes(drawing, y, 20, cell, count, near, self.block, "block")
        if text_width(str(count - 1), SMALL_SIZE) <= cell - 2:
            for block in range(count):
                on: str | Look = _CHOSEN if block == self.block else _NEAR if block in own else "none"
                drawing.text(LEFT + cell * (block + 0.5), y + 14, str(block), "small", on=on)
        x, width = LEFT + cell * self.block, max(cell, 2.5)
        right = LEFT + min(48.0, WIDTH / self.block_size) * self.block_size
        drawing.route([(entry, 152 + BOX + 2), (x + width / 2, y - 1)])
        drawing.line(x, y + 20, LEFT, y + 60, css="edge")
        drawing.line(x + width, y + 20, right, y + 60, css="edge")
        drawing.line(LEFT, y + 60, right, y + 60, css="edge")
