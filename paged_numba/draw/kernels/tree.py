"""Picture of a reduction: which elements each round between barriers, or each shuffle, combines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from ...arguments import integer as checked_integer
from ...arguments import is_name, not_negative, shown
from ..picture import Picture, checked_title
from ..protocols import Access, checked_accesses
from ..svg import COLOURS, Drawing, Look
from ..text import plural
from .fold import ranges
from .rounds import Race, Rounds, Step, steps_of_shuffles

_WRITTEN, _RACE = Look(COLOURS[0]), Look("#d62728")
_LEFT, _TOP, _DOWN = 104, 70, 56
_MOST_COLUMNS, _IN_FOCUS, _STRIP = 40, 16, 280
_MOST_RACING_LINES = 6


@dataclass(frozen=True)
class Tree(Picture):
    """The stores of one thread block to a shared array, round by round, or the shuffles of one warp.

    A line leads from each element that a thread read to the element that it then wrote. An element is red if a thread
    read or wrote it between the same barriers as another thread wrote it: a race. If a thread reads and stores more
    than once between two barriers, each time is a row of its own.

    Of many elements, the first 16 are drawn one by one and the others as a narrow strip.

    Attributes
    ----------
    array : str
        Name of the array in the kernel; ``register`` for shuffles.
    steps : list of Step
        The stores, sorted by epoch, round and element.
    races : list of Race
        The pairs of threads that race.
    title : str
        Heading of the picture.

    See Also
    --------
    WarpAccess : The addresses of one warp at one statement.
    paged_numba.lockstep.trace : Records the accesses.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> from paged_numba import cuda
    >>> @cuda.jit
    ... def add_four(source, total):
    ...     partial = cuda.shared.array(4, np.float32)
    ...     i = cuda.threadIdx.x
    ...     partial[i] = source[i]
    ...     cuda.syncthreads()
    ...     if i < 2:
    ...         partial[i] += partial[i + 2]
    ...     cuda.syncthreads()
    ...     if i == 0:
    ...         total[0] = partial[0] + partial[1]
    >>> accesses = pn.lockstep.trace(add_four, 1, 4, np.ones(4, np.float32), np.zeros(1, np.float32))
    >>> tree = pn.draw.Tree.of(accesses, "partial")
    >>> print(tree)
    partial: what each round combines
    start      4 threads  partial[0 to 3] stored
    barrier 1  2 threads  partial[0, 1] from own and +2
    >>> tree.races
    []
    """

    array: str
    steps: list[Step]
    races: list[Race] = field(default_factory=list)
    title: str = ""

    def __post_init__(self) -> None:
        title = checked_title(self.title, f"{self.array}: what each round combines")
        object.__setattr__(self, "title", title)

    @classmethod
    def of(cls, accesses: Sequence[Access], array: str, *, title: str = "") -> Tree:
        """Return the picture of a shared array.

        Parameters
        ----------
        accesses : list of Access
            Accesses of one launch, from `paged_numba.lockstep.trace`.
        array : str
            Name of the array in the kernel.
        title : str, optional
            Heading of the picture.

        Raises
        ------
        ValueError
            Nothing was stored to a shared array of this name.
        """
        rounds = Rounds(
            access
            for access in checked_accesses(accesses)
            if access.space == "shared" and is_name(array, access.array)
        )
        if not rounds.steps:
            raise ValueError(f"array must name a shared array that was stored to, got array={shown(array)}")
        return cls(array, rounds.steps, rounds.races, title)

    @classmethod
    def of_shuffles(
        cls, accesses: Sequence[Access], *, warp: int = 0, line: int | None = None, title: str = ""
    ) -> Tree:
        """Return the picture of a warp's shuffles: from which lane each lane reads, shuffle by shuffle.

        Parameters
        ----------
        accesses : list of Access
            Accesses of one launch, from `paged_numba.lockstep.trace`.
        warp : int
            Number of the warp in its thread block.
        line : int, optional
            Number of the source line; any line if None.
        title : str, optional
            Heading of the picture.

        Raises
        ------
        ValueError
            The warp has no shuffle on this line.

        Examples
        --------
        >>> import numpy as np
        >>> import paged_numba as pn
        >>> from paged_numba import cuda
        >>> @cuda.jit
        ... def swap(x):
        ...     lane = cuda.threadIdx.x
        ...     x[lane] += cuda.shfl_xor_sync(0xFFFFFFFF, x[lane], 16)
        >>> accesses = pn.lockstep.trace(swap, 1, 32, np.ones(32, np.float32))
        >>> print(pn.draw.Tree.of_shuffles(accesses))
        register: what each shuffle combines
        start      32 lanes  register[0 to 31] its own
        shuffle 1  32 lanes  register[0 to 31] from own and from the lane that differs in the bit of 16
        """
        warp, line = not_negative("warp", warp), None if line is None else checked_integer("line", line)
        steps = steps_of_shuffles(
            (
                access
                for access in checked_accesses(accesses)
                if access.kind == "shuffle" and line in (None, access.line.number)
            ),
            warp,
        )
        if steps[-1].epoch == 0:
            raise ValueError(
                f"warp and line must be those of a recorded shuffle, got none with warp={warp} line={shown(line)}"
            )
        title = checked_title(title, "register: what each shuffle combines")
        return cls("register", steps, title=title)

    @property
    def epochs(self) -> list[int]:
        """The epochs that have a store."""
        return sorted({step.epoch for step in self.steps})

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Epoch and round of each row."""
        return sorted({step.row for step in self.steps})

    @property
    def size(self) -> int:
        """Elements up to the last one that was read or written."""
        return 1 + max(max((step.element, *step.sources)) for step in self.steps)

    def _label(self, steps: list[Step]) -> tuple[str, str]:
        """Return the name of a row, and how many threads it has."""
        (epoch, round_), shuffles = steps[0].row, self.array == "register"
        if round_:
            name = "syncwarp" if all(step.synced for step in steps) else "no barrier"
        else:
            name = f"{'shuffle' if shuffles else 'barrier'} {epoch}" if epoch else "start"
        count = len({step.thread for step in steps})
        return name, plural(count, "lane" if shuffles else "thread")

    def _of_row(self, row: tuple[int, int]) -> list[Step]:
        return [step for step in self.steps if step.row == row]

    # As text.

    @property
    def description(self) -> str:
        rows = [self._of_row(row) for row in self.rows]
        if self.array == "register":
            apart = [
                {abs(s - step.element) for step in steps for s in step.sources} - {0} for steps in rows[1:]
            ]
            words = (
                f"{plural(len(apart), 'shuffle')} of a warp: in each, a lane reads a register of another lane"
            )
            if all(len(distances) == 1 for distances in apart):
                words += f", {', '.join(str(*distances) for distances in apart)} lanes away"
            return f"{words}."
        counts = ", ".join(self._label(steps)[1].split()[0] for steps in rows[:9])
        words = (
            f"{plural(len(rows), 'round')} of stores to {self.array}, by {counts}{', ...' if len(rows) > 9 else ''} "
            "threads."
        )
        if not self.races:
            return f"{words} No race."
        elements = sorted({race.element for race in self.races})
        race = self.races[0]
        return (
            f"{words} Red: {plural(len(elements), 'element')} in a race. {self.array}[{race.element}], for example, is "
            f"written by thread {race.writer}, and thread {race.thread} accesses it between the same barriers."
        )

    def text(self) -> str:
        lines = []
        rows = [self._of_row(row) for row in self.rows]
        labels = [self._label(steps) for steps in rows]
        wide = [max(len(label[part]) for label in labels) for part in (0, 1)]
        for (name, count), steps in zip(labels, rows, strict=True):
            groups = self._groups(steps)
            groups = [*groups[:4], f"and {len(groups) - 4} more"] if len(groups) > 5 else groups
            head = f"{name:<{wide[0]}}  {count:<{wide[1]}}  "
            lines += textwrap.wrap(head + "; ".join(groups), 100, subsequent_indent=" " * len(head))
        if self.races:
            elements = ranges(sorted({race.element for race in self.races}))
            lines += textwrap.wrap(
                f"Race! Written by one thread while another one reads or writes: {self.array}[{elements}]",
                100,
            )
        return "\n".join([self.heading, *lines])

    def _groups(self, steps: list[Step]) -> list[str]:
        """Return the elements of a row as text, those in one group whose sources lie equally far away."""
        groups: dict[tuple[str, ...], list[int]] = {}
        here = self.rows.index(steps[0].row)
        for step in steps:
            names = []
            for source, begin in zip_longest(step.sources, step.begins[: len(step.sources)]):
                name = "own" if source == step.element else f"{source - step.element:+d}"
                if source in step.races:
                    early, late = begin < here - 1, begin >= here
                    name += " (race, old value)" if early else " (race, later value)" if late else " (race)"
                names.append(name)
            names.sort(key=lambda name: not name.startswith("own"))
            groups.setdefault(tuple(names), []).append(step.element)
        distance = _traded(groups)
        if distance:
            other = "lane" if self.array == "register" else "element"
            what = f"{self.array}[{ranges(sorted(step.element for step in steps))}]"
            return [f"{what} from own and from the {other} that differs in the bit of {distance}"]
        texts = []
        for key, elements in groups.items():
            words = list(key) if len(key) < 6 else [*key[:4], f"{len(key) - 4} others"]
            what = f"from {' and '.join(words)}" if words else "stored"
            what = "its own" if not words and self.array == "register" else what
            texts.append(f"{self.array}[{ranges(elements)}] {what}")
        return texts

    # As a picture.

    def draw(self) -> Drawing:
        return _TreeDrawing(self).drawing


def _traded(groups: dict[tuple[str, ...], list[int]]) -> int:
    """Return the distance, a power of two, at which all elements of a row trade in pairs; 0 if they do not."""
    if len(groups) != 2 or any(key[0] != "own" or len(key) != 2 for key in groups):
        return 0
    (up, low), (down, high) = sorted(((key[1], elements) for key, elements in groups.items()))
    if not up[1:].isdecimal() or up[0] != "+" or down != f"-{up[1:]}":
        return 0
    distance = int(up[1:])
    return distance if distance.bit_count() == 1 and sorted(e ^ distance for e in high) == low else 0


class _TreeDrawing:
    """The shapes of a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.rows = [tree._of_row(row) for row in tree.rows]
        self.before = any(-1 in step.begins or (step.sources and not step.begins) for step in self.rows[0])
        self.before |= any(-1 in step.begins for step in tree.steps)
        folds = tree.size > _MOST_COLUMNS
        self.focus = _IN_FOCUS if folds else tree.size
        self.across = 26.0 if folds else max(20.0, min(34.0, 720 / tree.size))
        self.strip = _LEFT + self.focus * self.across + 18
        width = self.strip + (_STRIP + 24 if folds else 0)
        height = _TOP + _DOWN * (len(self.rows) - 1 + self.before) + 34
        self.drawing = Drawing(max(width, 480), height, tree.title)
        self._numbers()
        if self.before:
            self.drawing.text(16, _TOP + 4, "before", "left")
            self._dots(_TOP, set())
        for place, steps in enumerate(self.rows):
            self._row(place, steps)
        self._legend(height)

    def x(self, element: int) -> float:
        """Return the middle of an element: one by one in focus, then on the strip."""
        if element < self.focus:
            return _LEFT + self.across * (element + 0.5)
        rest = self.tree.size - self.focus
        return self.strip + _STRIP * (element - self.focus + 0.5) / rest

    def y(self, place: int) -> float:
        """Return the height of a row; -1 is the state before the first one."""
        return _TOP + _DOWN * (place + self.before)

    def _numbers(self) -> None:
        self.drawing.text(16, _TOP - 24, "lane" if self.tree.array == "register" else "element", "left q")
        self.drawing.steps(_LEFT, _TOP - 24, self.across, range(self.focus), "q small")
        if self.focus < self.tree.size:
            every = next(n for n in (32, 64, 128, 256, 512, 1024, 2**40) if n * _STRIP / self.tree.size > 26)
            for element in range(every, self.tree.size, every):
                self.drawing.text(self.x(element), _TOP - 24, str(element), "q small")

    def _dots(self, y: float, written: set[int]) -> None:
        """Mark the elements that a row does not write."""
        for element in range(self.focus):
            if element not in written:
                self.drawing.circle(self.x(element), y, 1.5, "", css="edge faint")
        if self.focus < self.tree.size:
            self.drawing.line(self.strip, y, self.strip + _STRIP, y, css="edge faint")

    def _row(self, place: int, steps: list[Step]) -> None:
        tree, drawing, y = self.tree, self.drawing, self.y(place)
        name, count = tree._label(steps)
        missing = name == "no barrier"
        drawing.text(16, y + 2, name, "left strong" if missing else "left")
        drawing.text(16, y + 16, count, "left q small")
        if not missing:
            drawing.line(_LEFT, y - 16, drawing.width - 16, y - 16, css="edge faint")
        left_out = 0
        for step in steps:
            hidden = step.element >= self.focus
            for source, begin in zip_longest(step.sources, step.begins[: len(step.sources)]):
                racing = source in step.races
                if hidden:
                    left_out += racing
                    if not racing or left_out > _MOST_RACING_LINES:
                        continue
                self._line(source, place - 1 if begin is None else begin, step.element, place, racing)
        self._dots(y, {step.element for step in steps})
        raced = {race.element for race in tree.races if race.epoch == steps[0].epoch}
        for step in steps:
            if step.element < self.focus:
                self._node(step, y, step.element in raced)
        self._bars([step.element for step in steps if step.element >= self.focus], y, _WRITTEN)
        self._bars([s.element for s in steps if s.element >= self.focus and s.element in raced], y, _RACE)

    def _line(self, source: int, begin: int, element: int, place: int, racing: bool) -> None:
        x1, y1, x2, y2 = self.x(source), self.y(begin), self.x(element), self.y(place)
        # A value from a row below: read by a warp that runs later.
        y1, y2 = (y1 + 6, y2 - 6) if y1 < y2 else (y1 - 6, y2 + 6)
        if racing:
            self.drawing.path([(x1, y1), (x2, y2)], _RACE.colour, "5 3")
        else:
            self.drawing.line(x1, y1, x2, y2, css="edge faint" if source == element else "line")

    def _node(self, step: Step, y: float, raced: bool) -> None:
        look, x = _RACE if raced else _WRITTEN, self.x(step.element)
        tip = f"thread {step.thread} writes {self.tree.array}[{step.element}]"
        tip += f" from {list(step.sources)}" * bool(step.sources) + ": race" * raced
        self.drawing.circle(x, y, 6.5, look.colour, tip=tip)
        if raced:
            self.drawing.text(x, y + 3.5, "!", "small strong", on=look)

    def _bars(self, elements: list[int], y: float, look: Look) -> None:
        """Draw the elements on the strip, one bar for neighbours."""
        wide = _STRIP / max(1, self.tree.size - self.focus)
        runs: list[list[int]] = []
        for element in elements:
            if runs and runs[-1][1] + 1 == element:
                runs[-1][1] = element
            else:
                runs.append([element, element])
        for first, last in runs:
            tip = f"{self.tree.array}[{first} to {last}]: {'race' if look is _RACE else 'written'}"
            width = max(2.0, self.x(last) - self.x(first) + wide)
            self.drawing.rect(self.x(first) - wide / 2, y - 5, width, 10, look, tip=tip)

    def _legend(self, y: float) -> None:
        drawing, x = self.drawing, 16.0
        lines = [("edge faint", "from the element itself"), ("line", "from another element")]
        lines = lines if any(step.sources for step in self.tree.steps) else []
        for css, meaning in lines:
            drawing.line(x, y + 6, x + 20, y + 6, css=css)
            drawing.text(x + 26, y + 10, meaning, "left")
            x += 170
        if any(step.races for step in self.tree.steps):
            drawing.path([(x, y + 6), (x + 20, y + 6)], _RACE.colour, "5 3")
            drawing.text(x + 26, y + 10, "read in a race", "left")
        entries: list[tuple[str | Look, str]] = [(_WRITTEN, "written")]
        if self.tree.races:
            entries.append((_RACE, "in a race: another thread writes it, with no barrier between"))
        drawing.legend(16, y + 20 * bool(lines), entries)
