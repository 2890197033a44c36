"""Places of block tables and of a pool below them, and ways for arrows through the spaces between the boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..letters import text_width
from ..svg import SMALL_SIZE, measure
from ..text import plural

CELL, BOX, COLUMNS = 44, 38, 16
"""Pixels of a block with the space after it, and without; most blocks side by side."""

TOP, ROW, TABLE_HEIGHT = 72, 66, 26
"""Pixels above the first table, from one row of tables to the next, of an entry."""

POOL_ROW, POOL_HEIGHT, ABOVE_POOL = 66, 44, 76

MOST_SEQUENCES, MOST_ENTRIES, MOST_POOL_ROWS = 24, 48, 32
"""Most block tables that are drawn, most entries of each, most rows of the pool."""

MOST_FREE_ROWS = 2
"""More rows than this at the end of the pool that are all free are not drawn."""

Point = tuple[float, float]


class Places:
    """Where the entries of block tables and the blocks of a pool stand: tables in rows, the pool below them."""

    def __init__(
        self, tables: Mapping[str, Sequence[int]], lens: Mapping[str, int], num_blocks: int, num_used: int
    ) -> None:
        self.labels = {name: _label_width(name, lens[name]) for name in tables}
        self.left = 30 + max([60, *self.labels.values()])
        longest = max(map(len, tables.values()), default=0)
        self.columns = min(COLUMNS, max(num_blocks, longest, 6))
        self.starts = place_tables(tables, self.labels, self.columns)
        ends = [
            row + max(0, column + len(tables[name]) - 1) // self.columns
            for name, (row, column) in self.starts.items()
        ]
        num_rows = 1 + max(ends, default=-1)
        self.pool_y = TOP + ROW * num_rows - (ROW - TABLE_HEIGHT - ABOVE_POOL if num_rows else 0)
        rows, used_rows = -(-num_blocks // self.columns), -(-num_used // self.columns)
        self.pool_rows = max(1, used_rows) if rows - used_rows > MOST_FREE_ROWS else rows
        self.pool_rows = min(self.pool_rows, MOST_POOL_ROWS)
        self.shown = min(num_blocks, self.pool_rows * self.columns)
        """Number of blocks that are drawn."""
        self.bottom = self.pool_y + POOL_ROW * self.pool_rows
        self._rows = [self._table_row(row) for row in range(num_rows)] + [
            self._row(self.pool_y + POOL_ROW * row - 2, POOL_HEIGHT + 4) for row in range(self.pool_rows)
        ]
        self._used: Counter[tuple[float, float]] = Counter()

    def entry(self, name: str, logical: int) -> Point:
        """Return the left upper corner of an entry of a table; `logical` is its index."""
        row, column = self.starts[name]
        down, across = divmod(column + logical, self.columns)
        return self.left + CELL * across, TOP + ROW * (row + down)

    def block(self, block: int) -> Point:
        """Return the left upper corner of a block of the pool."""
        row, column = divmod(block, self.columns)
        return self.left + CELL * column, self.pool_y + POOL_ROW * row

    def way(self, start: Point, end: Point) -> list[Point]:
        """Return the points of a way from `start` down to `end`, with two points for each row of boxes on the way."""
        (x, y), (to_x, to_y) = start, end
        points = [start]
        for row in self._rows:
            if row.top < y or row.bottom > to_y:
                continue
            # Towards the end as fast as the way down is long.
            wanted = x + (to_x - x) * (row.top - y) / (to_y - y)
            gap = min(row.gaps, key=lambda gap: (abs(gap - wanted), gap))
            use = self._used[row.top, gap]
            self._used[row.top, gap] += 1
            x, y = gap + (0, 2, -2)[use % 3], row.bottom
            points += [(x, row.top), (x, row.bottom)]
        return [*points, end]

    def _table_row(self, number: int) -> _Row:
        row = self._row(TOP + ROW * number - 16, TABLE_HEIGHT + 18)
        # Labels between tables are in the way, too.
        for name, (at, column) in self.starts.items():
            if at == number and column:
                end = self.left + CELL * column
                row.gaps[:] = [x for x in row.gaps if not end - self.labels[name] - 14 < x < end - 4]
        return row

    def _row(self, top: float, height: float) -> _Row:
        """Return a row of boxes with a space of 6 pixels before each and after the last."""
        return _Row(top, top + height, [self.left + CELL * place - 3.0 for place in range(self.columns + 1)])


@dataclass(frozen=True)
class _Row:
    """Boxes side by side: where they begin and end downwards, and the middles of the spaces between them."""

    top: float
    bottom: float
    gaps: list[float]


def place_tables(
    tables: Mapping[str, Sequence[int]], labels: Mapping[str, float], columns: int
) -> dict[str, tuple[int, int]]:
    """Return the row and first column of each table: side by side if they fit, else in a new row; long ones wrap."""
    places: dict[str, tuple[int, int]] = {}
    row = column = 0
    for name, blocks in tables.items():
        gap = -(-(int(labels[name]) + 14) // CELL) if column else 0
        if column and column + gap + len(blocks) > columns:
            row, column, gap = row + 1, 0, 0
        places[name] = row, column + gap
        # An empty table keeps its label's place.
        column += gap + max(1, len(blocks))
        if column > columns:
            row, column = row + (column - 1) // columns, (column - 1) % columns + 1
    return places


def _label_width(name: str, num_tokens: int) -> float:
    return max(
        min(text_width(name, measure("strong")), 120.0), text_width(plural(num_tokens, "token"), SMALL_SIZE)
    )
