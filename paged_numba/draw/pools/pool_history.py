"""Picture of a pool over time: which sequence held which block at each step."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import groupby
from typing import TYPE_CHECKING

from ..letters import text_width
from ..names import labels_of, names_of
from ..picture import Picture, checked_title, first_sentence, nothing_yet
from ..protocols import Pool, checked_pool, same_size
from ..svg import SHARED as SHARED_LOOK
from ..svg import SMALL_SIZE, Drawing, Look, look_of
from ..text import MOST_ROWS, key_of, over_time, plural, some

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FREE, SHARED = "", "+"
_FREE, _SHARED = -1, -2

MOST_DESCRIBED = 6
"""Most sequences in the description."""

FOLDED = 8
"""More blocks than this at the end of the pool that are never used are not drawn."""

MOST_NAMED = 48
"""Most owners in the legend; there are as many looks."""

MOST_BLOCKS, MOST_STEPS, MOST_CELLS = 155, 380, 12_000
"""Of more blocks or steps, one of every two, three ... is drawn."""

LEFT, TOP, WIDTH = 64, 60, 760
"""Pixels left of the first step and above the first block; most for all steps."""


class PoolHistory(Picture):
    """The owner of each block of a pool, step by step.

    Of more than 155 blocks or 380 steps, the picture shows one of every two, three or more, and says so.

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
        self.title = checked_title(title)
        self._numbers: dict[Hashable, int] = {}
        """Number of each sequence, in the order in which they first held a block."""
        self._owners: list[NDArray[np.int32]] = []

    def record(self, pool: Pool) -> None:
        """Record the current owners as the next step.

        Parameters
        ----------
        pool : Pool
            A `paged_numba.BlockAllocator`, or the allocator of a cache.

        Raises
        ------
        ValueError
            The pool has another number of blocks than at the first step.
        """
        pool = same_size(checked_pool(pool), self._owners[0].size if self._owners else None)
        import numpy as np  # not above: `paged-numba doctor` draws tables where NumPy is broken

        owners = np.full(pool.num_blocks, _FREE, np.int32)
        held = {seq_id: pool.held_blocks(seq_id) for seq_id in pool}
        num_holders = np.zeros(pool.num_blocks, np.int32)
        for blocks in held.values():
            num_holders[blocks] += 1
        owners[num_holders > 1] = _SHARED
        for seq_id, blocks in held.items():
            own = blocks[num_holders[blocks] == 1]
            if own.size:
                owners[own] = self._numbers.setdefault(seq_id, len(self._numbers))
        self._owners.append(owners)

    @property
    def steps(self) -> list[list[str]]:
        """For each step and block, the name of the sequence that holds it, see the class."""
        # _SHARED and _FREE count from the end.
        names = [*self.sequences, SHARED, FREE]
        return [[names[owner] for owner in owners.tolist()] for owners in self._owners]

    @property
    def sequences(self) -> list[str]:
        """The names of the sequences, in the order in which they first held a block of their own."""
        return names_of(self._numbers)

    @property
    def used(self) -> list[int]:
        """Number of used blocks at each step."""
        return [int((owners != _FREE).sum()) for owners in self._owners]

    @property
    def description(self) -> str:
        """What is seen: how many blocks are used, and by whom."""
        used, owners = self.used, self._owners
        if not owners:
            return "No step is recorded yet."
        most = max(used)
        sentences = [
            f"{plural(owners[0].size, 'block')} over {plural(len(owners), 'step')}: {used[0]} used at first, "
            f"at most {most} (step {used.index(most)}), {used[-1]} at last."
        ]
        names = some(self.sequences, MOST_DESCRIBED, "{} more sequences are not listed here.")
        for number, name in enumerate(names):
            if number == MOST_DESCRIBED and len(self._numbers) > MOST_DESCRIBED + 1:
                sentences.append(name)
                continue
            counts = [int((step == number).sum()) for step in owners]
            when = [place for place, count in enumerate(counts) if count]
            span = f"in step {when[0]}" if len(when) == 1 else f"from step {when[0]} to {when[-1]}"
            sentences.append(f"{name} holds up to {plural(max(counts), 'block')} of its own, {span}.")
        return " ".join(sentences)

    @property
    def caption(self) -> str:
        """The first sentence of the description: the picture shows the rest."""
        return first_sentence(self.description)

    def text(self) -> str:
        """Return a line for each block, with a character for each step."""
        names, owners = self.sequences, self._owners
        if not owners:
            return f"{self.heading}\n{self.description}"
        labels = labels_of(names)
        sign_of = [*labels.values(), "+", "."]
        shown, free = self._shown()
        rows: list[tuple[str, str | None]] = [
            # `over_time` leaves out all rows beyond these.
            (f"block {block}", "".join(sign_of[step[block]] for step in owners) if block < MOST_ROWS else "")
            for block in range(shown)
        ]
        rows += [(free, None)] * bool(free)
        drawn = "".join(signs or "" for _, signs in rows)
        return "\n".join([self.heading, *over_time(rows, len(owners), "blocks"), key_of(labels, drawn)])

    def _shown(self) -> tuple[int, str]:
        """Return how many blocks to draw, and what to say of many unused ones at the end."""
        num_blocks = self._owners[0].size
        ever = self._owners[0] != _FREE
        for owners in self._owners:
            ever |= owners != _FREE
        used = 1 + int(ever.nonzero()[0][-1]) if ever.any() else 1
        if num_blocks - used <= FOLDED:
            return num_blocks, ""
        return used, f"Blocks {used} to {num_blocks - 1} are free at all steps."

    def draw(self) -> Drawing:
        """Return a row for each block, with a bar for each stretch of steps with one owner."""
        names, count = self.sequences, len(self._owners)
        if not count:
            return nothing_yet(self)
        shown, free = self._shown()
        blocks = range(0, shown, -(-shown // MOST_BLOCKS))
        steps = range(0, count, -(-count // min(MOST_STEPS, MOST_CELLS // len(blocks))))
        notes = [
            f"One of every {each.step} {what}s is drawn."
            for what, each in (("block", blocks), ("step", steps))
            if each.step > 1
        ]
        notes += [free] * bool(free)
        step = min(40.0, WIDTH / len(steps))
        row = max(4.0, min(18.0, 620 / len(blocks)))
        foot = TOP + row * len(blocks)
        bottom = foot + 16 * len(notes)
        drawing = Drawing(max(480, LEFT + step * len(steps) + 24), bottom + 60, self.title)
        drawing.rect(LEFT, TOP, step * len(steps), row * len(blocks))
        has_shared = False
        for place, block in enumerate(blocks):
            y = TOP + row * place
            if row >= 12 or place % 8 == 0:
                drawing.text(LEFT - 8, y + row / 2 + 4, str(block), "q small right")
            start = 0
            for owner, run in groupby(int(self._owners[at][block]) for at in steps):
                length = len(list(run))
                x, width = LEFT + step * start, step * length
                has_shared |= owner == _SHARED
                name = names[owner] if owner >= 0 else "shared" if owner == _SHARED else "free"
                look = look_of(owner) if owner >= 0 else SHARED_LOOK if owner == _SHARED else "none"
                first, last = steps[start], steps[start + length - 1]
                when = f"step {first}" if length == 1 else f"steps {first} to {last}"
                # Edges would fill low rows and narrow steps.
                css = "edge" if row >= 8 and width >= 3 else ""
                drawing.rect(x, y, width, row, look, css=css, tip=f"block {block}, {when}: {name}")
                if owner != _FREE and row >= 12 and text_width(name, SMALL_SIZE) <= width - 4:
                    sign = SHARED if owner == _SHARED else name
                    drawing.text(x + width / 2, y + row / 2 + 3.5, sign, "small", on=look)
                start += length
        for line, note in enumerate(notes):
            drawing.text(LEFT, foot + 12 + 16 * line, note, "left q small")
        drawing.text(16, TOP - 8, "block", "left q small")
        drawing.steps(LEFT, bottom + 14, step, steps, "q small")
        drawing.steps(LEFT, bottom + 28, step, [self.used[at] for at in steps], "small")
        drawing.text(16, bottom + 14, "step", "left q small")
        drawing.text(16, bottom + 28, "used", "left small")
        entries: list[tuple[str | Look, str]] = [
            (look_of(i), name) for i, name in enumerate(names[:MOST_NAMED])
        ]
        if len(names) > MOST_NAMED:
            entries.append(("none", f"and {len(names) - MOST_NAMED} more sequences"))
        if has_shared:
            entries.append((SHARED_LOOK, "shared (+)"))
        drawing.legend(LEFT, bottom + 48, [*entries, ("none", "free")])
        return drawing
