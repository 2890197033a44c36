"""Picture of a pool over time: which sequence held which block at each step."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import groupby

from ...arguments import text
from ..letters import text_width
from ..names import labels_of, names_of
from ..picture import Picture, first_sentence, nothing_yet
from ..protocols import Pool, checked_pool
from ..svg import SHARED as SHARED_LOOK
from ..svg import SMALL_SIZE, Drawing, Look, look_of
from ..text import key_of, over_time, plural, some

FREE, SHARED = "", "+"
_FREE, _SHARED = -1, -2

FOLDED = 8
"""More blocks than this at the end of the pool that are never used are not drawn."""

MOST_NAMED = 48
"""Most owners in the legend; there are as many looks."""

LEFT, TOP, WIDTH = 64, 60, 760
"""Pixels left of the first step and above the first block; most for all steps."""


class PoolHistory(Picture):
    """The owner of each block of a pool, step by step.

    Parameters
    ----------
    title : str
        Heading of the picture.

    Attributes
    ----------
    steps : list of list of str
        For each step and block, the sequence that holds the block; ``+`` if several hold it, empty if it is free. A
        sequence's name is the text of its id or, where that is empty, ambiguous or no clear text, its `repr`.

    See Also
    --------
    BlockTables : The block tables at one step.
    Schedule : The states of requests over time.
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
    >>> print(history)
    Blocks of the pool over time
    step     0
    block 0  .a
    block 1  .a
    block 2  ..
    a, . free
    """

    def __init__(self, *, title: str = "Blocks of the pool over time") -> None:
        self.title = text("title", title)
        self._numbers: dict[Hashable, int] = {}
        """Number of each sequence, in the order in which they first held a block."""
        self._owners: list[list[int]] = []

    def record(self, pool: Pool) -> None:
        """Record the current owners as the next step.

        Parameters
        ----------
        pool : Pool
            A `paged_numba.BlockAllocator`, or the allocator of a cache.
        """
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

    @property
    def description(self) -> str:
        """What is seen: how many blocks are used, and by whom."""
        used, steps = self.used, self.steps
        if not steps:
            return "No step is recorded yet."
        most = max(used)
        sentences = [
            f"{plural(max(map(len, steps)), 'block')} over {plural(len(steps), 'step')}: {used[0]} used at first, "
            f"at most {most} (step {used.index(most)}), {used[-1]} at last."
        ]
        held = []
        for name in self.sequences:
            when = [place for place, step in enumerate(steps) if name in step]
            most = max(steps[place].count(name) for place in when)
            span = f"in step {when[0]}" if len(when) == 1 else f"from step {when[0]} to {when[-1]}"
            held.append(f"{name} holds up to {plural(most, 'block')} of its own, {span}.")
        return " ".join(sentences + some(held, 6, "{} more sequences are not listed here."))

    @property
    def caption(self) -> str:
        """The first sentence of the description: the picture shows the rest."""
        return first_sentence(self.description)

    def text(self) -> str:
        """Return a line for each block, with a character for each step."""
        labels, steps = labels_of(self.sequences), self.steps
        if not steps:
            return f"{self.title}\n{self.description}"
        sign_of = {**labels, SHARED: "+", FREE: "."}
        shown, free = self._shown()
        rows: list[tuple[str, str | None]] = [
            (f"block {block}", "".join(sign_of[step[block]] for step in steps)) for block in range(shown)
        ]
        rows += [(free, None)] * bool(free)
        drawn = "".join(signs or "" for _, signs in rows)
        return "\n".join([self.title, *over_time(rows, len(steps), "blocks"), key_of(labels, drawn)])

    def _shown(self) -> tuple[int, str]:
        """Return how many blocks to draw, and what to say of many unused ones at the end."""
        num_blocks = max(map(len, self._owners))
        used = 1 + max(
            (b for owners in self._owners for b, owner in enumerate(owners) if owner != _FREE), default=0
        )
        if num_blocks - used <= FOLDED:
            return num_blocks, ""
        return used, f"Blocks {used} to {num_blocks - 1} are free at all steps."

    def draw(self) -> Drawing:
        """Return a row for each block, with a bar for each stretch of steps with one owner."""
        steps, names = self.steps, self.sequences
        if not steps:
            return nothing_yet(self)
        shown, free = self._shown()
        step = min(40.0, WIDTH / len(steps))
        row = max(4.0, min(18.0, 620 / shown))
        look_by_name: dict[str, str | Look] = {name: look_of(number) for number, name in enumerate(names)}
        look_by_name |= {FREE: "none", SHARED: SHARED_LOOK}
        bottom = TOP + row * shown + 16 * bool(free)
        drawing = Drawing(max(480, LEFT + step * len(steps) + 24), bottom + 60, self.title)
        drawing.rect(LEFT, TOP, step * len(steps), row * shown)
        for block in range(shown):
            y = TOP + row * block
            if row >= 12 or block % 8 == 0:
                drawing.text(LEFT - 8, y + row / 2 + 4, str(block), "q small right")
            start = 0
            for name, run in groupby(step[block] for step in steps):
                length = len(list(run))
                x, width = LEFT + step * start, step * length
                look = look_by_name[name]
                holder = {FREE: "free", SHARED: "shared"}.get(name, name)
                when = f"step {start}" if length == 1 else f"steps {start} to {start + length - 1}"
                # Edges would fill low rows and narrow steps.
                css = "edge" if row >= 8 and width >= 3 else ""
                drawing.rect(x, y, width, row, look, css=css, tip=f"block {block}, {when}: {holder}")
                if name and row >= 12 and text_width(name, SMALL_SIZE) <= width - 4:
                    drawing.text(x + width / 2, y + row / 2 + 3.5, name, "small", on=look)
                start += length
        if free:
            drawing.text(LEFT, TOP + row * shown + 12, free, "left q small")
        drawing.text(16, TOP - 8, "block", "left q small")
        drawing.steps(LEFT, bottom + 14, step, list(range(len(steps))), "q small")
        drawing.steps(LEFT, bottom + 28, step, self.used, "small")
        drawing.text(16, bottom + 14, "step", "left q small")
        drawing.text(16, bottom + 28, "used", "left small")
        entries: list[tuple[str | Look, str]] = [
            (look_of(i), name) for i, name in enumerate(names[:MOST_NAMED])
        ]
        if len(names) > MOST_NAMED:
            entries.append(("none", f"and {len(names) - MOST_NAMED} more sequences"))
        if any(SHARED in step for step in steps):
            entries.append((SHARED_LOOK, "shared (+)"))
        drawing.legend(LEFT, bottom + 48, [*entries, ("none", "free")])
        return drawing
