"""Picture of block tables: arrows from each sequence's logical blocks to its blocks in the pool."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..names import names_of
from ..picture import Picture
from ..protocols import Pool, checked_pool, different_ids
from ..svg import Drawing, owner_fill

CELL, LEFT, TOP = 40, 90, 44
"""Pixels: width of a block with the space after it; left of the first block; above the tables."""


@dataclass(frozen=True)
class BlockTables(Picture):
    """The block tables of a pool's sequences, and the blocks of the pool with their owners.

    Attributes
    ----------
    num_blocks, block_size : int
    tables : dict of str to list of int
        By name of the sequence: the text of its id or, where that is empty, ambiguous or no clear text, its `repr`.
        Blocks of each sequence in logical order; -1 in the places of released blocks.
    lens : dict of str to int
        Number of tokens of each sequence.

    See Also
    --------
    PoolHistory : The owners of blocks over time.
    paged_numba.draw.text.block_tables : The same as plain text.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=4, block_size=4)
    >>> _ = pool.add("a", 6)
    >>> pool.fork("a", "b")
    >>> picture = pn.draw.BlockTables.of(pool)
    >>> picture.tables
    {'a': [0, 1], 'b': [0, 1]}
    >>> picture.owners(1), picture.filled(1)
    (['a', 'b'], 2)
    >>> picture.svg()[:4]
    '<svg'
    """

    num_blocks: int
    block_size: int
    tables: dict[str, list[int]]
    lens: dict[str, int]

    @classmethod
    def of(cls, pool: Pool, seq_ids: Sequence[Hashable] | None = None) -> BlockTables:
        """Return the picture of a pool.

        Parameters
        ----------
        pool : Pool
            A `paged_numba.BlockAllocator`, or the allocator of a cache.
        seq_ids : sequence of hashable, optional
            The sequences to show; all if None.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            As for `paged_numba.BlockAllocator.block_table`, for one of `seq_ids`.
        """
        pool = checked_pool(pool)
        chosen = different_ids(pool if seq_ids is None else seq_ids)
        names = names_of(chosen)
        tables = [pool.block_table(seq_id).tolist() for seq_id in chosen]
        lens = [pool.seq_len(seq_id) for seq_id in chosen]
        return cls(
            pool.num_blocks,
            pool.block_size,
            dict(zip(names, tables, strict=True)),
            dict(zip(names, lens, strict=True)),
        )

    def owners(self, block: int) -> list[str]:
        """Return the sequences that hold a block."""
        return [name for name, table in self.tables.items() if block in table]

    def filled(self, block: int) -> int:
        """Return how many tokens a block holds."""
        inside = (
            min(self.block_size, self.lens[name] - table.index(block) * self.block_size)
            for name, table in self.tables.items()
            if block in table
        )
        return max(inside, default=0)

    def places(self, columns: int) -> dict[str, tuple[int, int]]:
        """Return the row and first column of each sequence's table; tables that fit into `columns` lie side by side."""
        places: dict[str, tuple[int, int]] = {}
        row, column = 0, 0
        for name, table in self.tables.items():
            label = -(-(7 * len(name) + 10) // CELL) if column else 0
            if column and column + label + len(table) > columns:
                row, column, label = row + 1, 0, 0
            places[name] = row, column + label
            column += label + len(table)
        return places

    def draw(self) -> Drawing:
        names = list(self.tables)
        columns = min(16, self.num_blocks)
        pool_rows = -(-self.num_blocks // columns)
        widest = max([columns, *map(len, self.tables.values())])
        places = {
            name: (LEFT + CELL * column, TOP + 46 * row)
            for name, (row, column) in self.places(widest).items()
        }
        pool_y = max((y for _, y in places.values()), default=TOP) + 136
        drawing = Drawing(
            LEFT + CELL * widest + 24,
            pool_y + 46 * pool_rows + 46,
            "Block tables: logical blocks above, the pool below",
        )
        for number, (name, (x, y)) in enumerate(places.items()):
            for logical, block in enumerate(self.tables[name]):
                if block < 0:
                    continue
                to_x = LEFT + CELL * (block % columns) + CELL / 2 - 2 + 7 * (self.owners(block).index(name))
                to_y = pool_y + 46 * (block // columns)
                drawing.arrow(x + CELL * (logical + 0.5) - 2, y + 34, to_x, to_y, owner_fill(number % 7))
        for number, (name, (x, y)) in enumerate(places.items()):
            if x == LEFT:
                drawing.text(16, y + 22, name, "left")
            else:
                drawing.text(x - 8, y + 22, name, "right")
            for logical, block in enumerate(self.tables[name]):
                first = logical * self.block_size
                tip = f"{name}: tokens {first} to {min(first + self.block_size, self.lens[name]) - 1}"
                drawing.rect(x + CELL * logical, y, CELL - 4, 34, owner_fill(number), tip=tip)
                middle = x + CELL * (logical + 0.5) - 2
                drawing.text(middle, y + 15, str(logical), "on")
                drawing.text(middle, y + 29, f"in {block}" if block >= 0 else "gone", "on small")
        drawing.text(16, pool_y + 22, "pool", "left")
        for block in range(self.num_blocks):
            self._block(
                drawing, block, LEFT + CELL * (block % columns), pool_y + 46 * (block // columns), names
            )
        entries = [(owner_fill(row), f"{name}, {self.lens[name]} tokens") for row, name in enumerate(names)]
        drawing.legend(LEFT, pool_y + 46 * pool_rows + 14, [*entries, ("none", "free")])
        return drawing

    def _block(self, drawing: Drawing, block: int, x: float, y: float, names: list[str]) -> None:
        """Draw a block of the pool, filled from below in proportion to its tokens, with a strip for each owner."""
        owners, width, height = self.owners(block), 36, 34
        level = height * self.filled(block) / self.block_size
        for place, name in enumerate(owners):
            part = width / len(owners)
            drawing.rect(x + place * part, y + height - level, part, level, owner_fill(names.index(name)))
        tip = f"block {block}: {', '.join(owners) or 'free'}, {self.filled(block)} of {self.block_size} slots"
        drawing.rect(x, y, width, height, tip=tip)
        drawing.text(x + width / 2, y + 15, str(block), "halo")
        if owners:
            drawing.text(x + width / 2, y + 29, "+".join(name[:3] for name in owners), "halo small")


MAX_BLOCKS, MAX_SEQUENCES, MAX_TABLE_BLOCKS = 256, 16, 32
"""A notebook draws a pool only up to this many blocks, sequences, and blocks of a sequence."""


def small_picture(pool: Pool) -> str | None:
    """Return the SVG of a pool; None if it would be too large for a notebook."""
    lens = [pool.seq_len(seq_id) for seq_id in pool]
    longest = MAX_TABLE_BLOCKS * pool.block_size
    if pool.num_blocks > MAX_BLOCKS or len(lens) > MAX_SEQUENCES or max(lens, default=0) > longest:
        return None
    return BlockTables.of(pool).svg()
