"""Picture of block tables: arrows from each sequence's logical blocks to its blocks in the pool."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ...arguments import text
from ..letters import text_width
from ..names import labels_of, names_of
from ..picture import Picture
from ..protocols import Pool, checked_pool, different_ids
from ..svg import SHARED, SMALL_SIZE, Drawing, Look, look_of
from ..text import block_map, plural, shortened, some, table
from .routes import Routes

CELL, BOX, COLUMNS = 44, 38, 16
"""Pixels of a block with the space after it, and without; most blocks side by side."""

TOP, ROW, TABLE_HEIGHT = 72, 66, 26
"""Pixels above the first table, from one row of tables to the next, of an entry."""

POOL_ROW, POOL_HEIGHT, ABOVE_POOL = 66, 44, 76

MANY_ARROWS = 24
"""Beyond this number only the arrows of the sequence that is pointed at are visible."""

MOST_ARROWS = 200
"""Beyond this number there are none: the entries themselves say where each block is."""

MOST_STRIPS = 4
"""Most owners of a block that are drawn one below the other."""


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
    title : str
        Heading of the picture.

    See Also
    --------
    PoolHistory : The owners of blocks over time.
    TokenPath : The way from one token to its slot.
    paged_numba.draw.text.block_tables : The tables as plain text.

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
    >>> print(picture)
    Block tables
       block table  tokens  blocks
    -  -----------  ------  ------
    a  0 1               6       2
    b  0 1               6       2
    pool of 4 blocks of 4 slots: a, b, + shared, . free
    0 |++..|
    """

    num_blocks: int
    block_size: int
    tables: dict[str, list[int]]
    lens: dict[str, int]
    title: str = "Block tables"

    @classmethod
    def of(
        cls, pool: Pool, seq_ids: Sequence[Hashable] | None = None, *, title: str = "Block tables"
    ) -> BlockTables:
        """Return the picture of a pool.

        Parameters
        ----------
        pool : Pool
            A `paged_numba.BlockAllocator`, or the allocator of a cache.
        seq_ids : sequence of hashable, optional
            The sequences to show; all if None.
        title : str
            Heading of the picture.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            As for `paged_numba.BlockAllocator.block_table`, for one of `seq_ids`.
        """
        pool, title = checked_pool(pool), text("title", title)
        chosen = different_ids(pool if seq_ids is None else seq_ids)
        names = names_of(chosen)
        tables = [pool.block_table(seq_id).tolist() for seq_id in chosen]
        lens = [pool.seq_len(seq_id) for seq_id in chosen]
        return cls(
            pool.num_blocks,
            pool.block_size,
            dict(zip(names, tables, strict=True)),
            dict(zip(names, lens, strict=True)),
            title,
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

    @property
    def description(self) -> str:
        """What is seen: the size of the pool, its use, and the tables."""
        used = {block for blocks in self.tables.values() for block in blocks if block >= 0}
        shared = sum(len(self.owners(block)) > 1 for block in used)
        sentences = [
            f"A pool of {plural(self.num_blocks, 'block')} of {plural(self.block_size, 'slot')}: "
            f"{len(used)} {'holds' if len(used) == 1 else 'hold'} tokens"
            f"{f', of which {shared} shared' if shared else ''}, {self.num_blocks - len(used)} free."
        ]
        tables = [
            f"{name}, {plural(self.lens[name], 'token')}, has the block table {shortened(blocks)}."
            for name, blocks in self.tables.items()
        ]
        return " ".join(sentences + some(tables, 6, "{} more sequences are not listed here."))

    def text(self) -> str:
        """Return a table of the block tables, and the pool with a character for each block."""
        rows = [
            [name, shortened(blocks), str(self.lens[name]), str(len(blocks))]
            for name, blocks in self.tables.items()
        ]
        labels = labels_of(self.tables)
        cells = ["."] * self.num_blocks
        for name, blocks in self.tables.items():
            for block in blocks:
                if block >= 0:
                    cells[block] = labels[name] if cells[block] == "." else "+"
        key = [label if label == name else f"{label} {name}" for name, label in labels.items()]
        pool = f"pool of {plural(self.num_blocks, 'block')} of {plural(self.block_size, 'slot')}: "
        return "\n".join(
            [
                self.title,
                table(["", "block table", "tokens", "blocks"], rows, left=2),
                pool + ", ".join([*key, "+ shared", ". free"]),
                block_map(cells),
            ]
        )

    def places(self, columns: int) -> dict[str, tuple[int, int]]:
        """Return the row and first column of each table: side by side if they fit, in rows of their own if not."""
        places: dict[str, tuple[int, int]] = {}
        row, column = 0, 0
        for name, blocks in self.tables.items():
            gap = -(-(self._label_width(name) + 14) // CELL) if column else 0
            if column and column + gap + len(blocks) > columns:
                row, column, gap = row + 1, 0, 0
            places[name] = row, column + gap
            column += gap + len(blocks)
            if column > columns:
                row, column = row + (column - 1) // columns, (column - 1) % columns + 1
        return places

    def _label_width(self, name: str) -> int:
        return int(
            max(min(text_width(name), 110.0), text_width(plural(self.lens[name], "token"), SMALL_SIZE))
        )

    def draw(self) -> Drawing:
        """Return the tables, the pool below, and an arrow from each entry to its block."""
        names = list(self.tables)
        left = 30 + max([60, *map(self._label_width, names)])
        longest = max(map(len, self.tables.values()), default=0)
        columns = min(COLUMNS, max(self.num_blocks, longest, 6))
        places = self.places(columns)
        places_of_entries = {
            name: [divmod(column + logical, columns) for logical in range(len(self.tables[name]))]
            for name, (_, column) in places.items()
        }
        rows = 1 + max(
            (places[name][0] + row for name, entries in places_of_entries.items() for row, _ in entries),
            default=0,
        )
        pool_y = TOP + ROW * (rows - 1) + TABLE_HEIGHT + ABOVE_POOL
        pool_rows = -(-self.num_blocks // columns)
        width = left + CELL * columns + 14
        drawing = Drawing(width, pool_y + POOL_ROW * pool_rows + 30, self.title)
        routes = Routes()
        for row in range(rows):
            # Labels between tables are in the way, too.
            taken = [
                (left + CELL * column - self._label_width(name) - 14, left + CELL * column)
                for name, (at, column) in places.items()
                if at == row and column
            ]
            routes.add_row(
                TOP + ROW * row - 16, TOP + ROW * row + TABLE_HEIGHT + 2, left, CELL, columns, taken
            )
        for row in range(pool_rows):
            y = pool_y + POOL_ROW * row
            routes.add_row(y - 2, y + POOL_HEIGHT + 2, left, CELL, columns, [])
        num_arrows = sum(block >= 0 for blocks in self.tables.values() for block in blocks)
        many = num_arrows > MANY_ARROWS
        with drawing.group("pick many" if many else "pick"):
            for number, name in enumerate(names):
                label = f"{name}: {plural(self.lens[name], 'token')}, blocks {shortened(self.tables[name])}"
                with drawing.group(label=label):
                    self._table(drawing, name, number, left, places[name][0], places_of_entries[name])
                    if num_arrows > MOST_ARROWS:
                        continue
                    with drawing.group("arrow", attributes=' visibility="hidden"' if many else ""):
                        for (row, column), block in zip(
                            places_of_entries[name], self.tables[name], strict=True
                        ):
                            if block < 0:
                                continue
                            at = places[name][0] + row
                            owners = self.owners(block)
                            share = (owners.index(name) + 1) / (len(owners) + 1)
                            start = left + CELL * column + BOX / 2, TOP + ROW * at + TABLE_HEIGHT
                            to = (
                                left + CELL * (block % columns) + BOX * share,
                                pool_y + POOL_ROW * (block // columns) - 1,
                            )
                            drawing.route(routes.between(start, to), look_of(number).stroke)
        drawing.text(16, pool_y + 14, "pool", "left strong")
        drawing.text(16, pool_y + 28, plural(self.num_blocks, "block"), "left q small", room=left - 22)
        drawing.text(16, pool_y + 41, f"of {plural(self.block_size, 'slot')}", "left q small", room=left - 22)
        if many and num_arrows <= MOST_ARROWS:
            note = "Point at a sequence to see its arrows."
            drawing.text(left, pool_y - 24, note, "left q small", room=width - left - 12)
        for block in range(self.num_blocks):
            self._block(
                drawing,
                block,
                left + CELL * (block % columns),
                pool_y + POOL_ROW * (block // columns),
                names,
            )
        entries: list[tuple[str | Look, str]] = [("none", "free"), (look_of(0), "filled slots")]
        if any(len(self.owners(block)) > MOST_STRIPS for block in range(self.num_blocks)):
            entries.append((SHARED, f"more than {MOST_STRIPS} sequences"))
        drawing.legend(left, pool_y + POOL_ROW * pool_rows - 2, entries)
        return drawing

    def _table(
        self,
        drawing: Drawing,
        name: str,
        number: int,
        left: float,
        row: int,
        places: list[tuple[int, int]],
    ) -> None:
        """Draw the name and the entries of a block table, each below its index."""
        look, first_x = look_of(number), left + CELL * (places[0][1] if places else 0)
        y = TOP + ROW * row
        tokens = plural(self.lens[name], "token")
        if first_x == left:
            drawing.text(16, y + 11, name, "left strong", room=left - 28)
            drawing.text(16, y + 24, tokens, "left q small")
        else:
            drawing.text(first_x - 8, y + 11, name, "right strong", room=self._label_width(name) + 4)
            drawing.text(first_x - 8, y + 24, tokens, "right q small")
        for logical, ((down, column), block) in enumerate(zip(places, self.tables[name], strict=True)):
            x, y = left + CELL * column, TOP + ROW * (row + down)
            first = logical * self.block_size
            last = min(first + self.block_size, self.lens[name]) - 1
            tip = f"{name}, logical block {logical}: tokens {first} to {last}"
            if block < 0:
                tip += ", released"
            drawing.text(x + BOX / 2, y - 4, str(logical), "q small")
            drawing.rect(x, y, BOX, TABLE_HEIGHT, look if block >= 0 else "none", tip=tip)
            drawing.text(x + BOX / 2, y + 17, str(block), on=look if block >= 0 else "none")

    def _block(self, drawing: Drawing, block: int, x: float, y: float, names: list[str]) -> None:
        """Draw a block of the pool: its number, a bar as full as its slots with a strip for each owner, their names."""
        owners, filled = self.owners(block), self.filled(block)
        tip = f"block {block}: {', '.join(owners) or 'free'}, {filled} of {self.block_size} slots filled"
        drawing.rect(x, y, BOX, POOL_HEIGHT, tip=tip)
        drawing.text(x + BOX / 2, y + 12, str(block))
        looks = [look_of(names.index(name)) for name in owners]
        if len(owners) > MOST_STRIPS:
            looks = [SHARED]
        for place, look in enumerate(looks):
            part = 14 / len(looks)
            drawing.rect(x, y + 16 + place * part, BOX * filled / self.block_size, part, look, tip=tip)
        if owners:
            drawing.line(x, y + 16, x + BOX, y + 16, css="edge")
            drawing.line(x, y + 30, x + BOX, y + 30, css="edge")
        together, tip = "+".join(owners), ""
        if len(owners) > 1 and text_width(together, SMALL_SIZE) > BOX - 2:
            together, tip = f"{len(owners)} seqs" if len(owners) < 10 else f"{len(owners)}", ", ".join(owners)
        drawing.text(x + BOX / 2, y + 41, together, "small", room=BOX - 2, tip=tip)


MAX_BLOCKS, MAX_SEQUENCES, MAX_TABLE_BLOCKS = 256, 16, 32
"""A notebook draws a pool only up to this many blocks, sequences, and blocks of a sequence."""


def small_picture(pool: Pool) -> str | None:
    """Return the figure of a pool; None if it would be too large for a notebook."""
    lens = [pool.seq_len(seq_id) for seq_id in pool]
    longest = MAX_TABLE_BLOCKS * pool.block_size
    if pool.num_blocks > MAX_BLOCKS or len(lens) > MAX_SEQUENCES or max(lens, default=0) > longest:
        return None
    return BlockTables.of(pool)._repr_html_()
