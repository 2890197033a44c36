"""Picture of a reduction through shared memory: which elements each round between barriers combines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...arguments import is_name, shown
from ..picture import Picture
from ..protocols import Access, checked_accesses
from ..svg import Drawing
from ..text import plural


@dataclass(frozen=True)
class Step:
    """A store of one thread between two barriers.

    Attributes
    ----------
    epoch : int
        Number of barriers before the store.
    thread, element : int
        Numbers of the thread and of the element that it wrote.
    sources : tuple of int
        The elements of the same array that the thread read in that epoch.
    """

    epoch: int
    thread: int
    element: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Tree(Picture):
    """The stores of one thread block to a shared array, round by round.

    Attributes
    ----------
    array : str
        Name of the array in the kernel.
    steps : list of Step
        The stores, sorted by epoch and element.

    See Also
    --------
    WarpAccess : The addresses of one warp at one statement.
    paged_numba.lockstep.tracing : Records the accesses.

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
    >>> with pn.lockstep.tracing() as accesses:
    ...     pn.lockstep.launch(add_four, 1, 4, np.ones(4, np.float32), np.zeros(1, np.float32))
    >>> tree = pn.draw.Tree.of(accesses, "partial")
    >>> [(step.element, step.sources) for step in tree.steps if step.epoch == 1]
    [(0, (0, 2)), (1, (1, 3))]
    """

    array: str
    steps: list[Step]

    @classmethod
    def of(cls, accesses: Sequence[Access], array: str) -> Tree:
        """Return the picture of a shared array.

        Parameters
        ----------
        accesses : list of Access
            Accesses of one launch, from `paged_numba.lockstep.tracing`.
        array : str
            Name of the array in the kernel.

        Raises
        ------
        ValueError
            Nothing was stored to a shared array of this name.
        """
        read: dict[tuple[int, int], list[int]] = {}
        written: dict[tuple[int, int], int] = {}
        for access in checked_accesses(accesses):
            if access.space != "shared" or not is_name(array, access.array):
                continue
            for thread, element in zip(access.threads, access.elements, strict=True):
                if access.kind == "load":
                    read.setdefault((access.epoch, thread), []).append(element)
                else:
                    written[access.epoch, element] = thread
        if not written:
            raise ValueError(f"array must name a shared array that was stored to, got array={shown(array)}")
        steps = [
            Step(epoch, thread, element, tuple(sorted(set(read.get((epoch, thread), ())))))
            for (epoch, element), thread in sorted(written.items())
        ]
        return cls(array, steps)

    @property
    def epochs(self) -> list[int]:
        """The epochs that have a store."""
        return sorted({step.epoch for step in self.steps})

    def draw(self) -> Drawing:
        left, top, down = 96, 66, 58
        size = 1 + max(max((step.element, *step.sources)) for step in self.steps)
        across = max(9.0, min(34.0, 860 / size))
        epochs = self.epochs
        width = left + across * size + 30
        drawing = Drawing(width, top + down * len(epochs) + 30, f"{self.array}: what each round combines")

        def x(element: int) -> float:
            return left + across * (element + 0.5)

        for element in range(size):
            if across >= 16 or element % 8 == 0:
                drawing.text(x(element), top - 22, str(element), "q small")
        for row, epoch in enumerate(epochs):
            y = top + down * row
            of_epoch = [step for step in self.steps if step.epoch == epoch]
            drawing.text(16, y + 4, f"barrier {epoch}" if epoch else "start", "left")
            drawing.text(16, y + 18, plural(len(of_epoch), "thread"), "left q small")
            drawing.line(left, y - 14, width - 16, y - 14, css="edge faint")
            for step in of_epoch:
                for source in step.sources if row else ():
                    own = source == step.element
                    drawing.line(
                        x(source), y - down + 6, x(step.element), y - 6, colour="" if own else "#d55e00"
                    )
            written = {step.element for step in of_epoch}
            for element in range(size):
                if element not in written:
                    drawing.circle(x(element), y, 1.5, "", css="edge faint")
            for step in of_epoch:
                tip = f"thread {step.thread} writes {self.array}[{step.element}] from {list(step.sources)}"
                drawing.circle(x(step.element), y, min(6.0, across * 0.42), "#56b4e9", tip=tip)
        return drawing
