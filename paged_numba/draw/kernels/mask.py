"""Picture of an attention mask: which keys each query of a chunk looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...arguments import listed, truth
from ..picture import Picture, checked_title
from ..svg import COLOURS, Drawing
from ..text import plural

MOST_KEYS = 64
_SEEN = COLOURS[0]
_LEFT, _TOP = 84, 66
"""Pixels left of the first key, and above the first query."""


@dataclass(frozen=True)
class Mask(Picture):
    """The keys that each query of a chunk looks at.

    The queries are the last tokens of their sequence: query i of a chunk of m, in a sequence of n tokens, stands at
    position ``n - m + i``. The picture marks the key of that position, the query's own.

    Parameters
    ----------
    seen : list of list of bool, or bool[num_queries, num_keys]
        At least one query, at most as many queries as keys, and at most 64 keys.
    title : str
        Heading of the picture.

    Raises
    ------
    TypeError, ValueError
        `seen` is no such matrix.

    See Also
    --------
    paged_numba.paged_attention : Takes chunks of several sequences, by `cu_seqlens_q`.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> print(pn.draw.Mask(np.tri(3, 5, 2, dtype=bool)))
    Keys that each query looks at
    query 2  ##@..
    query 3  ###@.
    query 4  ####@
    # looks at the key, . does not; @ looks at its own key, o does not
    """

    seen: Sequence[Sequence[bool]]
    title: str = "Keys that each query looks at"

    def __post_init__(self) -> None:
        rows = listed("seen", self.seen, "rows of bools")
        if len(rows) > MOST_KEYS:
            raise ValueError(f"seen must have at most {MOST_KEYS} rows, got {len(rows)}")
        seen = [[truth("seen", sees) for sees in listed("seen", row, "bools")] for row in rows]
        num_keys = len(seen[0]) if seen else 0
        if any(len(row) != num_keys for row in seen) or not 1 <= len(seen) <= num_keys <= MOST_KEYS:
            raise ValueError(
                f"seen must be bool[num_queries, num_keys] with 1 <= num_queries <= num_keys <= {MOST_KEYS}, "
                f"got {plural(len(seen), 'row')} of {', '.join(map(str, sorted({*map(len, seen)}))) or 'no'} bools"
            )
        object.__setattr__(self, "seen", seen)
        object.__setattr__(self, "title", checked_title(self.title))

    @property
    def first(self) -> int:
        """Position of the first query in its sequence."""
        return len(self.seen[0]) - len(self.seen)

    @property
    def description(self) -> str:
        """What is seen: how many keys each query looks at, and whether its own is among them."""
        counts = [sum(row) for row in self.seen]
        own = sum(row[self.first + i] for i, row in enumerate(self.seen))
        last = self.first + len(counts) - 1
        return (
            f"The queries at positions {self.first} to {last} look at {', '.join(map(str, counts))} of "
            f"{plural(len(self.seen[0]), 'key')}. {own} of {len(counts)} look at their own key."
        )

    def text(self) -> str:
        """Return a line for each query."""
        width = len(f"query {self.first + len(self.seen) - 1}")
        lines = []
        for position, row in enumerate(self.seen, self.first):
            signs = ["#" if sees else "." for sees in row]
            signs[position] = "@" if row[position] else "o"
            lines.append(f"{f'query {position}':<{width}}  {''.join(signs)}")
        legend = "# looks at the key, . does not; @ looks at its own key, o does not"
        return "\n".join([self.heading, *lines, legend])

    def draw(self) -> Drawing:
        """Return a cell for each query and key, filled if the query looks at the key."""
        num_keys = len(self.seen[0])
        cell = max(10.0, min(20.0, 620 / num_keys))
        bottom = _TOP + cell * len(self.seen)
        drawing = Drawing(max(_LEFT + cell * num_keys + 20, 500), bottom + 44, self.title)
        drawing.text(_LEFT - 10, _TOP - 8, "key", "right q")
        drawing.steps(_LEFT, _TOP - 8, cell, range(num_keys), "q small")
        every = 1 if cell >= 14 else 2
        for row, keys in enumerate(self.seen):
            y, query = _TOP + cell * row, f"query {self.first + row}"
            if row % every == 0:
                drawing.text(_LEFT - 10, y + cell / 2 + 4, query, "right")
            for key, sees in enumerate(keys):
                tip = f"{query} {'looks' if sees else 'does not look'} at key {key}"
                drawing.rect(_LEFT + cell * key, y, cell, cell, _SEEN if sees else "none", tip=tip)
        for row in range(len(self.seen)):
            self._own(drawing, _LEFT + cell * (self.first + row) + cell / 2, _TOP + cell * (row + 0.5), cell)
        drawing.legend(_LEFT, bottom + 16, [(_SEEN, "looks at the key"), ("none", "does not")])
        self._own(drawing, _LEFT + 227, bottom + 22, 14)
        drawing.text(_LEFT + 239, bottom + 26, "the query's own key", "left")
        return drawing

    def _own(self, drawing: Drawing, x: float, y: float, cell: float) -> None:
        """Mark a query's own key with a small frame."""
        drawing.rect(x - cell / 4, y - cell / 4, cell / 2, cell / 2, css="line")
