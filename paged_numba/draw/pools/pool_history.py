"""Picture of a pool over time: which sequence held which block at each step."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import groupby

from ..names import names_of
from ..picture import Picture
from ..protocols import Pool, checked_pool
from ..svg import Drawing, owner_fill

FREE, SHARED = "", "+"
_FREE, _SHARED = -1, -2


class PoolHistory(Picture):
    """The owner of each block of a pool, step by step.

    Attributes
    ----------
    steps : list of list of str
        For each step and block, the sequence that holds the block; ``+`` if several hold it, empty if it is free. A
        sequence's name is the text of its id or, where that is empty, ambiguous or no clear text, its `repr`.

    See Also
    --------
    BlockTables : The block tables at one step.
    paged_numba.draw.text.pool_map : The owners at one step as plain text.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=3, block_size=4)
    >>> history = pn.draw.PoolHistory()
    >>> history.record(pool)
    >>> _ = pool.add("a", 6)
    >>> history.record(pool)
    >>> history.steps
    [['', '', ''], ['a', 'a', '']]
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        """Number of each sequence, in the order in which they first held a block."""
        self._owners: list[list[int]] = []

    def record(self, pool: Pool) -> None:
        """Record the current owners as the next step."""
        pool = checked_pool(pool)
        owners = [_FREE] * pool.num_blocks
        seq_id: Hashable
        for seq_id in pool:
            for block in pool.held_blocks(seq_id).tolist():
                shared = pool.ref_count(block) > 1
                owners[block] = _SHARED if shared else self._numbers.setdefault(seq_id, len(self._numbers))
        self._owners.append(owners)

    @property
    def steps(self) -> list[list[str]]:
        """For each step and block, the name of the sequence that holds it, see the class."""
        # _SHARED and _FREE count from the end.
        names = [*self.sequences, SHARED, FREE]
        return [[names[owner] for owner in owners] for owners in self._owners]

    @property
    def sequences(self) -> list[str]:
        """The names of the sequences, in the order in which they first held a block of their own."""
        return names_of(self._numbers)

    @property
    def used(self) -> list[int]:
        """Number of used blocks at each step."""
        return [sum(owner != _FREE for owner in owners) for owners in self._owners]

    def draw(self) -> Drawing:
        left, top, row = 64, 60, 18
        steps, names = self.steps, self.sequences
        num_blocks = max((len(step) for step in steps), default=0)
        step = max(6.0, min(40.0, 760 / max(1, len(steps))))
        number_of = {name: number for number, name in enumerate(names)}
        bottom = top + row * num_blocks
        drawing = Drawing(left + step * len(steps) + 24, bottom + 84, "Blocks of the pool over time")
        for block in range(num_blocks):
            y = top + row * block
            if num_blocks <= 32 or block % 8 == 0:
                drawing.text(left - 10, y + 13, str(block), "q small")
            start = 0
            for name, run in groupby(step[block] for step in steps):
                length = len(list(run))
                x, width = left + step * start, step * length
                fill = (
                    "none"
                    if name == FREE
                    else "url(#hatch4)"
                    if name == SHARED
                    else owner_fill(number_of[name])
                )
                tip = f"block {block}, steps {start} to {start + length - 1}: {name or 'free'}"
                drawing.rect(x, y, width, row, fill, tip=tip)
                if name and width >= 7 * len(name):
                    drawing.text(x + min(width / 2, 30), y + 13, name, "on")
                start += length
        drawing.text(16, top - 8, "block", "left q")
        for place, used in enumerate(self.used):
            if step >= 18 or place % 5 == 0:
                drawing.text(left + step * (place + 0.5), bottom + 14, str(place), "q small")
                drawing.text(left + step * (place + 0.5), bottom + 28, str(used), "small")
        drawing.text(16, bottom + 14, "step", "left q small")
        drawing.text(16, bottom + 28, "used", "left small")
        entries = [(owner_fill(i), name) for i, name in enumerate(names)]
        drawing.legend(left, bottom + 48, [*entries, ("url(#hatch4)", "shared (+)"), ("none", "free")])
        return drawing
