"""Picture of block tables: arrows from each sequence's logical blocks to its blocks in the pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ..letters import text_width
from ..names import cut, labels_of, names_of
from ..picture import Picture, checked_title, first_sentence
from ..protocols import Pool, checked_pool, different_ids
from ..svg import SHARED, SMALL_SIZE, Drawing, Look, look_of
from ..text import block_map, key_of, plural, shortened, some, table
from .routes import BOX, CELL, MOST_ENTRIES, MOST_SEQUENCES, POOL_HEIGHT, TABLE_HEIGHT, TOP, Places

MANY_ARROWS = 24
"""Beyond this number only the arrows of the sequence that is pointed at are visible."""

MOST_ARROWS = 200
"""Beyond this number there are none: the entries themselves say where each block is."""

MOST_ROWS = 40
"""Most sequences in the text form."""

MOST_STRIPS = 4
"""Most owners of a block that are drawn one below the other."""


@dataclass(frozen=True)
class BlockTables(Picture):
    """The block tables of a pool's sequences, and the blocks of the pool with their owners.

    The picture has up to 24 sequences, 48 entries of each and 512 blocks of the pool, and says what is left out.

    Parameters
    ----------
    num_blocks, block_size : int
        Number of blocks of the pool; of slots of a block.
    tables : dict of str to list of int
        By name of the sequence: the text of its id or, where that is empty, ambiguous or no clear text, its `repr`.
        Blocks of each sequence in logical order; -1 in the places of released blocks.
    lens : dict of str to int
        Number of tokens of each sequence.
    title : str
        Heading of the picture.
    others : list of int
        Blocks that only sequences hold which are not shown.

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
    pool of 4 blocks of 4 slots:
    0 |++..|
    a, b, + shared, . free
    """

    num_blocks: int
    block_size: int
    tables: dict[str, list[int]]
    lens: dict[str, int]
    title: str = "Block tables"
    others: list[int] = field(default_factory=list)

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
        pool, title = checked_pool(pool), checked_title(title)
        chosen = different_ids(pool if seq_ids is None else seq_ids)
        names = names_of(chosen)
        tables = [pool.block_table(seq_id).tolist() for seq_id in chosen]
        lens = [pool.seq_len(seq_id) for seq_id in chosen]
        held = {block for seq_id in pool for block in pool.held_blocks(seq_id).tolist()}
        return cls(
            pool.num_blocks,
            pool.block_size,
            dict(zip(names, tables, strict=True)),
            dict(zip(names, lens, strict=True)),
            title,
            sorted(held.difference(*tables)),
        )

    def owners(self, block: int) -> list[str]:
        """Return the sequences that hold a block.

        Parameters
        ----------
        block : int
            Number of the block in the pool.
        """
        return [name for name, table in self.tables.items() if block in table]

    def filled(self, block: int) -> int:
        """Return how many tokens a block holds.

        Parameters
        ----------
        block : int
            Number of the block in the pool.
        """
        inside = (
            min(self.block_size, self.lens[name] - table.index(block) * self.block_size)
            for name, table in self.tables.items()
            if block in table
        )
        return max(inside, default=0)

    @property
    def description(self) -> str:
        """What is seen: the size of the pool, its use, and the tables."""
        used = Counter(block for blocks in self.tables.values() for block in {*blocks} - {-1})
        shared = sum(count > 1 for count in used.values())
        others = f"{len(self.others)} held by sequences that are not shown, " if self.others else ""
        sentences = [
            f"A pool of {plural(self.num_blocks, 'block')} of {plural(self.block_size, 'slot')}: {len(used)} used"
            f"{f', of which {shared} shared' if shared else ''}, {others}"
            f"{self.num_blocks - len(used) - len(self.others)} free."
        ]
        tables = [
            f"{name}, {plural(self.lens[name], 'token')}, has the block table {shortened(blocks)}."
            for name, blocks in self.tables.items()
        ]
        return " ".join(sentences + some(tables, 6, "{} more sequences are not listed here."))

    @property
    def caption(self) -> str:
        """The first sentence of the description: the picture shows the rest."""
        return first_sentence(self.description)

    def text(self) -> str:
        """Return a table of the block tables, and the pool with a character for each block."""
        rows = [
            [cut(name, 28), _within(blocks, 48), str(self.lens[name]), str(len(blocks))]
            for name, blocks in islice(self.tables.items(), MOST_ROWS)
        ]
        labels = labels_of(self.tables)
        cells = ["."] * self.num_blocks
        for block in self.others:
            cells[block] = "*"
        for name, blocks in self.tables.items():
            # A set, since a broken pool may give a block to a sequence twice.
            for block in {*blocks}.intersection(range(self.num_blocks)):
                cells[block] = labels[name] if cells[block] == "." else "+"
        more = len(self.tables) - MOST_ROWS
        left_out = [f"... and {more} more sequences"] if more > 0 else []
        return "\n".join(
            [
                self.heading,
                table(["", "block table", "tokens", "blocks"], rows, left=2),
                *left_out,
                f"pool of {plural(self.num_blocks, 'block')} of {plural(self.block_size, 'slot')}:",
                block_map(cells),
                key_of(labels, cells, ["* others"] * bool(self.others)),
            ]
        )

    def draw(self) -> Drawing:
        """Return the tables, the pool below, and an arrow from each entry to its block."""
        drawn = {name: blocks[:MOST_ENTRIES] for name, blocks in islice(self.tables.items(), MOST_SEQUENCES)}
        highest = max([-1, *self.others, *(max(blocks) for blocks in self.tables.values() if blocks)])
        places = Places(drawn, self.lens, self.num_blocks, 1 + highest)
        held = self._held(places.shown)
        left, pool_y = places.left, places.pool_y
        drawing = Drawing(max(left + places.columns * CELL + 14, 360), places.bottom + 8, self.title)
        num_arrows = sum(0 <= block < places.shown for blocks in drawn.values() for block in blocks)
        many = num_arrows > MANY_ARROWS
        with drawing.group("pick many" if many else "pick"):
            for number, name in enumerate(drawn):
                label = (
                    f"{name}: {plural(self.lens[name], 'token')}, block table {shortened(self.tables[name])}"
                )
                with drawing.group(label=label):
                    self._table(drawing, places, name, drawn[name], look_of(number))
                    if num_arrows <= MOST_ARROWS:
                        with drawing.group("arrow", attributes=' visibility="hidden"' if many else ""):
                            self._arrows(drawing, places, name, drawn[name], held, look_of(number))
        if self.tables:
            drawing.text(16, TOP - 4, "logical block", "left q small", room=left - 20)
        drawing.text(16, pool_y + 14, "pool", "left strong")
        drawing.text(16, pool_y + 28, plural(self.num_blocks, "block"), "left q small", room=left - 20)
        drawing.text(16, pool_y + 41, f"of {plural(self.block_size, 'slot')}", "left q small", room=left - 20)
        numbers = {name: number for number, name in enumerate(self.tables)}
        for block in range(places.shown):
            owners = held.get(block, {})
            looks = [look_of(numbers[name]) for name in owners]
            self._block(drawing, block, *places.block(block), owners, looks)
        notes = ["Bars show how many slots are filled."] if highest >= 0 else []
        if places.shown < self.num_blocks:
            what = "are not drawn" if highest >= places.shown else "are free"
            notes.append(f"Blocks {places.shown} to {self.num_blocks - 1} {what}.")
        if many and num_arrows <= MOST_ARROWS:
            notes.append("Point at a sequence to see its arrows.")
        if len(drawn) < len(self.tables):
            notes.append(f"{len(drawn)} of {len(self.tables)} sequences are drawn.")
        if any(len(self.tables[name]) > MOST_ENTRIES for name in drawn):
            notes.append(f"Of long block tables, {MOST_ENTRIES} entries are drawn.")
        y = places.bottom - 4
        while notes:
            # As many as fit on a line, at least one.
            fit = next(n for n in range(len(notes), 0, -1) if n == 1 or self._fits(drawing, left, notes[:n]))
            drawing.text(left, y, " ".join(notes[:fit]), "left q small", room=drawing.width - left - 12)
            y, notes = y + 14, notes[fit:]
        drawing.height = max(drawing.height, y - 2)
        if any(len(held.get(block, ())) > MOST_STRIPS for block in range(places.shown)):
            drawing.legend(
                left, max(places.bottom + 6, y - 6), [(SHARED, f"more than {MOST_STRIPS} sequences")]
            )
        return drawing

    def _fits(self, drawing: Drawing, left: float, notes: list[str]) -> bool:
        return text_width(" ".join(notes), SMALL_SIZE) <= drawing.width - left - 12

    def _held(self, num_blocks: int) -> dict[int, dict[str, int]]:
        """Return the sequences that hold each of the first blocks, and how many tokens of each the block has."""
        held: dict[int, dict[str, int]] = {}
        for name, blocks in self.tables.items():
            for logical, block in enumerate(blocks):
                if 0 <= block < num_blocks:
                    tokens = min(self.block_size, self.lens[name] - logical * self.block_size)
                    held.setdefault(block, {}).setdefault(name, tokens)
        return held

    def _table(self, drawing: Drawing, places: Places, name: str, blocks: list[int], look: Look) -> None:
        """Draw the name and the entries of a block table, each below its index."""
        x, y = places.entry(name, 0)
        tokens = plural(self.lens[name], "token")
        if x == places.left:
            drawing.text(16, y + 11, name, "left strong", room=x - 24)
            drawing.text(16, y + 24, tokens, "left q small")
        else:
            drawing.text(x - 8, y + 11, name, "right strong", room=places.labels[name] + 1)
            drawing.text(x - 8, y + 24, tokens, "right q small")
        for logical, block in enumerate(blocks):
            x, y = places.entry(name, logical)
            first = logical * self.block_size
            tip = f"{name}, logical block {logical}: tokens {first} to "
            tip += str(min(first + self.block_size, self.lens[name]) - 1)
            fill = look if block >= 0 else "none"
            drawing.text(x + BOX / 2, y - 4, str(logical), "q small", room=CELL)
            drawing.rect(x, y, BOX, TABLE_HEIGHT, fill, tip=tip + ("" if block >= 0 else ", released"))
            drawing.text(x + BOX / 2, y + 17, str(block), on=fill, room=BOX - 2)

    def _arrows(
        self,
        drawing: Drawing,
        places: Places,
        name: str,
        blocks: list[int],
        held: dict[int, dict[str, int]],
        look: Look,
    ) -> None:
        """Draw an arrow from each entry of a block table to its block; those of several owners end side by side."""
        for logical, block in enumerate(blocks):
            if 0 <= block < places.shown:
                owners = list(held[block])
                share = (owners.index(name) + 1) / (len(owners) + 1)
                (x, y), (to_x, to_y) = places.entry(name, logical), places.block(block)
                way = places.way((x + BOX / 2, y + TABLE_HEIGHT), (to_x + BOX * share, to_y - 1))
                drawing.route(way, look.stroke)

    def _block(
        self, drawing: Drawing, block: int, x: float, y: float, owners: dict[str, int], looks: list[Look]
    ) -> None:
        """Draw a block of the pool: its number, a bar as full as its slots with a strip for each owner, their names."""
        drawing.text(x + BOX / 2, y + 12, str(block), room=BOX - 2)
        if not owners:
            word = "other" if block in self.others else "free"
            drawing.text(x + BOX / 2, y + 41, word, "q small")
            tip = "held by a sequence that is not shown" if word == "other" else word
            drawing.rect(x, y, BOX, POOL_HEIGHT, tip=f"block {block}: {tip}")
            return
        filled = max(0, *owners.values())
        names = ", ".join(some(list(owners), 12, "{} more"))
        tip = f"block {block}: {names}, {filled} of {self.block_size} slots filled"
        if len(owners) > MOST_STRIPS:
            looks = [SHARED]
        for place, look in enumerate(looks):
            part = 14 / len(looks)
            drawing.rect(x, y + 16 + place * part, BOX * filled / self.block_size, part, look, tip=tip)
        drawing.rect(x, y, BOX, POOL_HEIGHT, tip=tip)
        drawing.line(x, y + 16, x + BOX, y + 16, css="edge")
        drawing.line(x, y + 30, x + BOX, y + 30, css="edge")
        together, whole = "+".join(owners), ""
        if len(owners) > 1 and text_width(together, SMALL_SIZE) > BOX - 2:
            # The strips tell who up to four owners are.
            many = f"{len(owners)} seqs" if len(owners) < 10 else str(len(owners))
            together, whole = many if len(owners) > MOST_STRIPS else "shared", names
        drawing.text(x + BOX / 2, y + 41, together, "small", room=BOX - 2, tip=whole)


def _within(blocks: list[int], width: int) -> str:
    """Return a block table as text of at most `width` characters."""
    return next(
        line for most in range(12, 2, -1) if len(line := shortened(blocks, most)) <= width or most == 3
    )


MAX_BLOCKS, MAX_SEQUENCES, MAX_TABLE_BLOCKS = 256, 16, 32
"""A notebook draws a pool only up to this many blocks, sequences, and blocks of a sequence."""


def small_picture(pool: Pool) -> str | None:
    """Return the figure of a pool; None if it would be too large for a notebook."""
    lens = [pool.seq_len(seq_id) for seq_id in pool]
    longest = MAX_TABLE_BLOCKS * pool.block_size
    if pool.num_blocks > MAX_BLOCKS or len(lens) > MAX_SEQUENCES or max(lens, default=0) > longest:
        return None
    return BlockTables.of(pool)._repr_html_()
