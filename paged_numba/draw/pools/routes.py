"""Routes of arrows through the spaces between boxes that stand in rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class _Row:
    """Boxes side by side: where they begin and end downwards, and the spaces between them."""

    top: float
    bottom: float
    gaps: list[float]


class Routes:
    """Finds ways downwards that cross each row of boxes between two boxes."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._used: Counter[tuple[float, float]] = Counter()

    def add_row(
        self,
        top: float,
        bottom: float,
        left: float,
        cell: float,
        columns: int,
        taken: Sequence[tuple[float, float]],
    ) -> None:
        """Add a row of boxes that begin every `cell` pixels, with spaces of 6 before them, except where `taken`."""
        gaps = [left + cell * place - 3 for place in range(columns + 1)]
        free = [x for x in gaps if not any(low < x < high - 4 for low, high in taken)]
        self._rows.append(_Row(top, bottom, free))

    def between(self, start: Point, end: Point) -> list[Point]:
        """Return the points of a way from `start` down to `end`, with two points for each row on the way."""
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
            x = gap + (0, 2, -2)[use % 3]
            points += [(x, row.top), (x, row.bottom)]
            y = row.bottom
        return [*points, end]
