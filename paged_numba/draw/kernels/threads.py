"""Picture of a launch: which thread of which thread block has which cell of an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...arguments import between, listed, shown
from ..picture import COLUMNS, Picture, checked_title
from ..svg import Drawing, Look, look_of
from ..text import plural, table
from .fold import folded

_CELL, _HEIGHT = 36, 22
_MOST = {"blocks_per_grid": 2**31 - 1, "threads_per_block": 1024, "shape": 2**63 - 1}
"""Largest size along a dimension; CUDA has the first two."""
_COLOURS = 5
"""Colours of thread blocks, in turn: those on which black text is easy to read."""
_IDLE = Look("#d9d9d9", 1)


@dataclass(frozen=True)
class Threads(Picture):
    """The threads of a launch over the cells of a 1-D or 2-D array.

    In one dimension, thread ``cuda.grid(1)``, which is ``blockIdx.x * blockDim.x + threadIdx.x``, has the element of
    that number. In two dimensions, thread ``x, y = cuda.grid(2)`` has the cell ``[y, x]``: x counts columns, y rows.

    Parameters
    ----------
    blocks_per_grid, threads_per_block : int or tuple of up to 2 int
        The launch configuration.
    shape : int or tuple of up to 2 int
        Shape of the array: elements, or rows and columns.
    title : str, optional
        Heading of the picture.

    Raises
    ------
    TypeError, ValueError
        A size is not an integer in 1 .. 2**31 - 1 for the grid, or 1 .. 1,024 for thread blocks; there are more than
        two; the grid has rows of threads, but not the array.

    See Also
    --------
    WarpAccess : The addresses that the threads of one warp access.

    Examples
    --------
    >>> import paged_numba as pn
    >>> threads = pn.draw.Threads(3, 4, 10)
    >>> threads.thread_of(5)
    (1, 1)
    >>> print(threads)
    10 elements for 3 thread blocks of 4 threads
    thread block  threads  elements  no element
    ------------  -------  --------  ------------
    0             0 to 3   0 to 3
    1             0 to 3   4 to 7
    2             0 to 3   8, 9      threads 2, 3
    >>> pn.draw.Threads((2, 2), (4, 4), (7, 6)).thread_of(4, 1)
    ((0, 1), (1, 0))
    """

    blocks_per_grid: Any
    threads_per_block: Any
    shape: Any
    title: str = ""

    def __post_init__(self) -> None:
        shape = _sizes("shape", self.shape)
        grid = _sizes("blocks_per_grid", self.blocks_per_grid)
        block = _sizes("threads_per_block", self.threads_per_block)
        for name, sizes in (("blocks_per_grid", grid), ("threads_per_block", block)):
            if len(shape) == 1 and sizes[1:] not in ((), (1,)):
                raise ValueError(
                    f"{name} must have one dimension, as the array has, got {name}={shown(sizes)}"
                )
        # Columns before rows, as in CUDA; sizes of 1 where there is no second dimension.
        columns, rows = (*shape[::-1], 1)[:2]
        of: dict[str, Any] = {
            "shape": shape,
            "blocks_per_grid": (*grid, 1)[:2],
            "threads_per_block": (*block, 1)[:2],
        }
        grid, block = of["blocks_per_grid"], of["threads_per_block"]
        if len(shape) == 1:
            blocks, threads = plural(grid[0], "thread block"), plural(block[0], "thread")
            default = f"{plural(columns, 'element')} for {blocks} of {threads}"
        else:
            cells = f"{plural(rows, 'row')} of {plural(columns, 'cell')}"
            default = f"{cells} for {_times(grid)} thread blocks of {_times(block)} threads"
        of["title"] = checked_title(self.title, default)
        for name, value in of.items():
            object.__setattr__(self, name, value)

    @property
    def num_threads(self) -> int:
        """Threads of the grid."""
        across, down = self._extent
        return across * down

    @property
    def num_idle(self) -> int:
        """Threads without a cell, which a kernel's guard stops."""
        across, down = self._extent
        columns, rows = self._array
        return across * down - min(across, columns) * min(down, rows)

    @property
    def num_left_out(self) -> int:
        """Cells without a thread."""
        across, down = self._extent
        columns, rows = self._array
        return columns * rows - min(across, columns) * min(down, rows)

    @property
    def _extent(self) -> tuple[int, int]:
        """Threads of the grid along x and y."""
        x, y = (b * t for b, t in zip(self.blocks_per_grid, self.threads_per_block, strict=True))
        return x, y

    @property
    def _array(self) -> tuple[int, int]:
        """Columns and rows of the array."""
        columns, rows = (*self.shape[::-1], 1)[:2]
        return columns, rows

    def thread_of(self, *cell: int) -> Any:
        """Return the thread block and the thread that have a cell, or None if no thread has it.

        Parameters
        ----------
        *cell : int
            The index of the cell, as in the array: the element, or row and column.

        Returns
        -------
        tuple of 2 int, or tuple of 2 tuple of int, or None
            ``(blockIdx.x, threadIdx.x)``, or both as ``(x, y)``.

        Raises
        ------
        TypeError, ValueError
            The array has no such cell.
        """
        if len(cell) != len(self.shape):
            raise ValueError(f"cell must be {plural(len(self.shape), 'integer')}, got cell={shown(cell)}")
        cell = tuple(
            between("cell", index, 0, size - 1, "the array")
            for index, size in zip(cell, self.shape, strict=True)
        )
        x, y = (*cell[::-1], 0)[:2]
        across, down = self._extent
        if x >= across or y >= down:
            return None
        width, height = self.threads_per_block
        if len(self.shape) == 1:
            return divmod(x, width)
        return (x // width, y // height), (x % width, y % height)

    # As text.

    @property
    def description(self) -> str:
        grid, block, idle = self.blocks_per_grid, self.threads_per_block, self.num_idle
        if len(self.shape) == 1:
            thing, size = "element", f"{plural(grid[0], 'thread block')} of {plural(block[0], 'thread')}."
            rule = f"Thread t of thread block b has element b * {block[0]} + t."
        else:
            thing, size = "cell", f"{_times(grid)} thread blocks of {_times(block)} threads."
            rule = (
                f"Thread (x, y) of thread block (a, b) has the cell [b * {block[1]} + y, a * {block[0]} + x]."
            )
        words = f"{size} {rule}"
        if idle:
            lie, them = ("lies", "it") if idle == 1 else ("lie", "them")
            words += f" {plural(idle, 'thread')} {lie} beyond the array, and the guard stops {them}."
        else:
            words += f" Every thread has {'an' if thing == 'element' else 'a'} {thing}."
        if self.num_left_out:
            words += f" {plural(self.num_left_out, thing)} without a thread."
        return words

    def text(self) -> str:
        return f"{self.heading}\n{self._rows() if len(self.shape) == 1 else self._matrix()}"

    def _rows(self) -> str:
        width, count = self.threads_per_block[0], self.shape[0]
        rows = []
        for block in self._shown_blocks(12):
            if block is None:
                rows.append(["...", "", "", ""])
                continue
            first = block * width
            busy = max(0, min(width, count - first))
            idle = f"thread{'s' * (width - busy > 1)} {_span(busy, width)}" if busy < width else ""
            elements = _span(first, first + busy) if busy else "none"
            rows.append([str(block), _span(0, width), elements, idle])
        lines = table(["thread block", "threads", "elements", "no element"], rows, left=4)
        if self.num_left_out:
            lines += f"\n{plural(self.num_left_out, 'element')} without a thread"
        return lines

    def _matrix(self) -> str:
        """Return rows of cells, each with its thread as ``x,y``; lines divide the thread blocks."""
        (width, height), (columns, rows) = self.threads_per_block, self._array
        across, down = self._extent
        chars = len(f"{width - 1},{height - 1}")
        shown_y = folded(max(down, rows), 24, (rows - 1, rows, height - 1, height))
        label = len(f"row {max(down, rows) - 1}")
        # Some thread blocks of one column have a line before each cell.
        room = max(5, (COLUMNS - label - 1) // (chars + 1 + (2 if width == 1 else 1)))
        shown_x = folded(max(across, columns), room, (columns - 1, columns, width - 1, width))

        def cell(x: int | None, y: int | None) -> str:
            if x is None or y is None:
                return ".." if x is None else ":"
            if x >= across or y >= down:
                return "?"
            return f"{x % width},{y % height}" if x < columns and y < rows else "-"

        lines = []
        for y in shown_y:
            text, ruler = "", ""
            for x in shown_x:
                edge = x is not None and x % width == 0 and 0 < x < across
                text += (" |" if edge else "") + f" {cell(x, y):>{chars}}"
                ruler += (" +" if edge else "") + "-" * (chars + 1)
            if y is not None and y % height == 0 and 0 < y < down:
                lines.append(f"{' ' * label} {ruler}")
            lines.append(f"{'' if y is None else f'row {y}':<{label}} {text}".rstrip())
        notes = ["Each cell has its thread as x,y; lines divide the thread blocks."]
        notes += ["-: a thread without a cell, the guard stops it."] * bool(self.num_idle)
        notes += ["?: a cell without a thread."] * bool(self.num_left_out)
        return "\n".join([*lines, *notes])

    def _shown_blocks(self, room: int) -> list[int | None]:
        last = min((self.shape[0] - 1) // self.threads_per_block[0], self.blocks_per_grid[0] - 1)
        return folded(self.blocks_per_grid[0], room, (last, last + 1))

    # As a picture.

    def draw(self) -> Drawing:
        return self._draw_rows() if len(self.shape) == 1 else self._draw_matrix()

    def _draw_rows(self) -> Drawing:
        """Draw a row for each thread block: its threads, and below each thread its element."""
        left, top, width, count = 116, 44, self.threads_per_block[0], self.shape[0]
        boundary = count % width
        shown_threads = folded(width, 16, (boundary - 1, boundary) if boundary else ())
        drawing = Drawing(left + _CELL * len(shown_threads) + 20, top, self.title)
        y = float(top)
        for block in self._shown_blocks(7):
            if block is None:
                drawing.text(left - 10, y + 6, "...", "right strong")
                y += 20
                continue
            drawing.text(left - 10, y + 15, f"thread block {block}", "right")
            drawing.text(left - 10, y + _HEIGHT + 15, "element", "right q")
            for place, thread in enumerate(shown_threads):
                x = left + place * _CELL
                if thread is None:
                    drawing.text(x + _CELL / 2, y + 15, "...")
                    drawing.text(x + _CELL / 2, y + _HEIGHT + 15, "...", "q")
                    continue
                element = block * width + thread
                look = look_of(block % _COLOURS) if element < count else _IDLE
                tip = f"thread {thread} of thread block {block}: {block} * {width} + {thread} = {element}"
                drawing.rect(x, y, _CELL, _HEIGHT, look, tip=tip + ", no element" * (element >= count))
                drawing.text(x + _CELL / 2, y + 15, str(thread), on=look)
                if element < count:
                    drawing.rect(x, y + _HEIGHT, _CELL, _HEIGHT, tip=f"element {element}")
                    drawing.text(x + _CELL / 2, y + _HEIGHT + 15, str(element), room=_CELL - 2)
            y += 2 * _HEIGHT + 14
        self._legend(drawing, 16, y + 2, "thread, by its threadIdx.x", "no element: the guard stops it")
        return drawing

    def _draw_matrix(self) -> Drawing:
        """Draw the cells, each with its thread, and lines around the array and between thread blocks."""
        (width, height), (columns, rows) = self.threads_per_block, self._array
        across, down = self._extent
        shown_x = folded(max(across, columns), 16, (columns - 1, columns, width - 1, width))
        shown_y = folded(max(down, rows), 16, (rows - 1, rows, height - 1, height))
        left, top = 128, 84
        right, foot = left + _CELL * len(shown_x), top + _HEIGHT * len(shown_y)
        drawing = Drawing(right + 20, foot, self.title)
        drawing.text(left - 10, top - 24, "blockIdx.x", "right")
        drawing.text(left - 10, top - 6, "row, column", "q small right")
        divided = _starts(shown_x, width, across)
        for place, x in enumerate(shown_x):
            at = left + place * _CELL
            drawing.text(at + _CELL / 2, top - 6, "..." if x is None else str(x), "q small")
            if place in divided:
                drawing.text(at + 3, top - 24, str(divided[place]), "left", room=right - at)
        for line, y in enumerate(shown_y):
            at = top + line * _HEIGHT
            drawing.text(left - 10, at + 15, "..." if y is None else str(y), "q small right")
            for place, x in enumerate(shown_x):
                if x is not None and y is not None:
                    self._draw_cell(drawing, left + place * _CELL, at, x, y)
        for place in divided:
            drawing.line(left + place * _CELL, top - 34, left + place * _CELL, foot)
        for line, block in _starts(shown_y, height, down).items():
            drawing.text(16, top + line * _HEIGHT + 15, f"blockIdx.y {block}", "left")
            drawing.line(16, top + line * _HEIGHT, right, top + line * _HEIGHT)
        self._legend(drawing, 16, foot + 12, "thread x,y of its thread block", "no cell: the guard stops it")
        return drawing

    def _draw_cell(self, drawing: Drawing, left: float, top: float, x: int, y: int) -> None:
        (width, height), (columns, rows) = self.threads_per_block, self._array
        across, down = self._extent
        block = x // width, y // height
        fill: str | Look = _IDLE
        name, tip = f"{x % width},{y % height}", f"thread ({x % width}, {y % height}) of thread block {block}"
        if x >= across or y >= down:
            fill, name, tip = "none", "?", f"cell [{y}, {x}]: no thread"
        elif x < columns and y < rows:
            # Neighbours in either direction have different colours.
            fill, tip = look_of((block[0] + 3 * block[1]) % _COLOURS), f"{tip}: cell [{y}, {x}]"
        drawing.rect(left, top, _CELL, _HEIGHT, fill, tip=tip)
        drawing.text(left + _CELL / 2, top + 15, name, "small" if fill != "none" else "small q", on=fill)

    def _legend(self, drawing: Drawing, x: float, y: float, thread: str, idle: str) -> None:
        entries: list[tuple[str | Look, str]] = [(look_of(0), thread)]
        entries += [(_IDLE, idle)] * bool(self.num_idle)
        drawing.legend(x, y, entries)
        if self.num_left_out:
            what = "element" if len(self.shape) == 1 else "cell"
            drawing.height += 20
            drawing.text(
                x, drawing.height - 8, f"{plural(self.num_left_out, what)} without a thread", "left strong"
            )


def _starts(shown: list[int | None], size: int, end: int) -> dict[int, int]:
    """Return the places at which another thread block begins, with its number."""
    starts: dict[int, int] = {}
    for place, position in enumerate(shown):
        if position is not None and position < end and position // size not in starts.values():
            starts[place] = position // size
    return starts


def _span(first: int, end: int) -> str:
    """Return the numbers from `first` up to `end` as text."""
    return f"{first} to {end - 1}" if end - first > 2 else ", ".join(map(str, range(first, end)))


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return one or two sizes as a tuple."""
    sizes = listed(name, value, "1 or 2 integers") if isinstance(value, (tuple, list)) else [value]
    if not 1 <= len(sizes) <= 2:
        raise ValueError(f"{name} must be 1 or 2 integers, got {name}={shown(value)}")
    return tuple(between(name, size, 1, _MOST[name]) for size in sizes)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
