"""Picture of an attention mask: which keys each query of a chunk attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arguments import shown
from ..picture import Picture
from ..svg import Drawing

_SEEN = "#56b4e9"
_CELL, _LEFT, _TOP = 18, 76, 62


@dataclass(frozen=True, eq=False)
class Mask(Picture):
    """The keys that each query of a chunk attends to.

    The queries are the last tokens of their sequence: query i of m, with n keys, stands at position ``n - m + i``. The
    picture marks the key at that position, the query's own.

    Attributes
    ----------
    seen : bool[num_queries, num_keys]
    title : str
        Heading of the picture.

    Raises
    ------
    ValueError
        `seen` is no matrix of booleans, or has more queries than keys.

    See Also
    --------
    paged_numba.reference.attention : Attends with such a mask.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> print(pn.draw.Mask(np.tri(3, 5, 2, dtype=bool)))
    Keys that each query attends to
    query 2  xxX..
    query 3  xxxX.
    query 4  xxxxX
    x attends, . does not; X or o is the query's own key
    """

    seen: Any
    title: str = "Keys that each query attends to"

    def __post_init__(self) -> None:
        seen = np.asarray(self.seen)
        if seen.ndim != 2 or seen.dtype != bool or seen.shape[0] > seen.shape[1]:
            raise ValueError(
                "seen must be bool[num_queries, num_keys] with at most as many queries as keys, "
                f"got {seen.dtype.name}{shown(list(seen.shape))}"
            )
        object.__setattr__(self, "seen", seen)

    @property
    def description(self) -> str:
        """What is seen, in one or two sentences."""
        (num_queries, num_keys), counts = self.seen.shape, self.seen.sum(axis=1).tolist()
        own = int(self.seen.diagonal(num_keys - num_queries).sum())
        return (
            f"{num_queries} queries in rows, {num_keys} keys in columns. From first to last they attend to "
            f"{', '.join(map(str, counts))} keys; {own} attend to their own key."
        )

    def text(self) -> str:
        """Return the mask as plain text, a line for each query."""
        rows, first = self.seen.tolist(), self.seen.shape[1] - self.seen.shape[0]
        names = [f"query {first + i}" for i in range(len(rows))]
        width = max(map(len, names), default=0)
        lines = [
            f"{name:<{width}}  "
            + "".join(
                ("X" if x else "o") if key == first + i else "x" if x else "." for key, x in enumerate(row)
            )
            for i, (name, row) in enumerate(zip(names, rows, strict=True))
        ]
        return "\n".join([self.title, *lines, "x attends, . does not; X or o is the query's own key"])

    __str__ = text

    def draw(self) -> Drawing:
        """Return a cell for each query and key, filled where the query attends to the key."""
        num_queries, num_keys = self.seen.shape
        first, right = num_keys - num_queries, _LEFT + _CELL * num_keys
        drawing = Drawing(max(right + 20, 360), _TOP + _CELL * num_queries + 40, self.title)
        drawing.text(_LEFT - 10, _TOP - 8, "key", "right q")
        for key in range(0, num_keys, 4):
            drawing.text(_LEFT + _CELL * (key + 0.5), _TOP - 8, str(key), "q")
        for row, keys in enumerate(self.seen.tolist()):
            y = _TOP + _CELL * row
            drawing.text(_LEFT - 10, y + 13, f"query {first + row}", "right")
            for key, sees in enumerate(keys):
                tip = f"query {first + row} {'attends' if sees else 'does not attend'} to key {key}"
                drawing.rect(_LEFT + _CELL * key, y, _CELL, _CELL, _SEEN if sees else "none", tip=tip)
        for row in range(num_queries):
            x, y = _LEFT + _CELL * (first + row), _TOP + _CELL * row
            drawing.rect(x + 3, y + 3, _CELL - 6, _CELL - 6, css="line")
        entries = [(_SEEN, "attends"), ("none", "does not")]
        y = _TOP + _CELL * num_queries + 14
        drawing.legend(_LEFT, y, entries)
        drawing.rect(_LEFT + 190, y, 12, 12, css="line")
        drawing.text(_LEFT + 208, y + 10, "the query's own key", "left")
        return drawing
