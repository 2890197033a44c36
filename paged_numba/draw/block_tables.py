"""Picture of block tables: arrows from each sequence's logical blocks to its blocks in the pool."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from .protocols import Pool
from .svg import Drawing, Picture, owner_fill


@dataclass(frozen=True)
class BlockTables(Picture):
    """The block tables of a pool's sequences, and the blocks of the pool with their owners.

    Attributes
    ----------
    num_blocks, block_size : int
    tables : dict of str to list of int
        By sequence, its blocks in logical order; -1 in the places of released blocks.
    lens : dict of str to int
        By sequence, its number of tokens.

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
            As of `paged_numba.BlockAllocator.block_table`, for one of `seq_ids`.
        """
        chosen = list(pool) if seq_ids is None else list(seq_ids)
        names = [str(seq_id) for seq_id in chosen]
        if len(set(names)) < len(names):  # as of 1 and "1"
            names = [repr(seq_id) for seq_id in chosen]
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

    def draw(self) -> Drawing:
        cell, left, top = 40, 90, 44
        names = list(self.tables)
        columns = min(16, self.num_blocks)
        rows = -(-self.num_blocks // columns)
        longest = max((len(table) for table in self.tables.values()), default=0)
        width = left + cell * max(columns, longest) + 24
        pool_y = top + 46 * len(names) + 90
        drawing = Drawing(
            width, pool_y + 46 * rows + 46, "Block tables: logical blocks above, the pool below"
        )
        for row, name in enumerate(names):
            for logical, block in enumerate(self.tables[name]):
                if block < 0:
                    continue
                x = left + cell * (block % columns) + cell / 2 - 2 + 7 * (self.owners(block).index(name))
                to_y = pool_y + 46 * (block // columns)
                y = top + 46 * row + 34
                drawing.arrow(left + cell * logical + cell / 2 - 2, y, x, to_y, owner_fill(row % 7))
        for row, name in enumerate(names):
            y = top + 46 * row
            drawing.text(16, y + 22, name, "left")
            for logical, block in enumerate(self.tables[name]):
                tokens = min(self.block_size, self.lens[name] - logical * self.block_size)
                tip = (
                    f"{name}: tokens {logical * self.block_size} to {logical * self.block_size + tokens - 1}"
                )
                drawing.rect(left + cell * logical, y, cell - 4, 34, owner_fill(row), tip=tip)
                drawing.text(left + cell * logical + cell / 2 - 2, y + 15, str(logical), "on")
                where = f"in {block}" if block >= 0 else "gone"
                drawing.text(left + cell * logical + cell / 2 - 2, y + 29, where, "on small")
        drawing.text(16, pool_y + 22, "pool", "left")
        for block in range(self.num_blocks):
            self._block(
                drawing, block, left + cell * (block % columns), pool_y + 46 * (block // columns), names
            )
        entries = [(owner_fill(row), f"{name}, {self.lens[name]} tokens") for row, name in enumerate(names)]
        drawing.legend(left, pool_y + 46 * rows + 14, [*entries, ("none", "free")])
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
