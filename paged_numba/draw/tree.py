"""A reduction through shared memory: which elements each barrier's round combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .protocols import Access
from .svg import Drawing, Picture, plural


@dataclass(frozen=True)
class Step:
    """What one thread wrote between two barriers.

    Attributes
    ----------
    epoch : int
        Barriers before it.
    thread, element : int
        Who wrote, and where.
    sources : tuple of int
        The elements of the same array that the thread read in that epoch.
    """

    epoch: int
    thread: int
    element: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Tree(Picture):
    """The stores of one thread block into a shared array.

    Attributes
    ----------
    array : str
    steps : list of Step
        By epoch and element.
    """

    array: str
    steps: list[Step]

    @classmethod
    def of(cls, accesses: Sequence[Access], array: str) -> Tree:
        """Gather the loads and stores of a shared array.

        Parameters
        ----------
        accesses : list of Access
            From `paged_numba.lockstep.tracing`, of one launch.
        array : str
            The kernel's name of it.

        Raises
        ------
        ValueError
            Nothing was stored into it.
        """
        read: dict[tuple[int, int], list[int]] = {}
        written: dict[tuple[int, int], int] = {}
        for access in accesses:
            if (access.space, access.array) != ("shared", array):
                continue
            for thread, element in zip(access.threads, access.elements, strict=True):
                if access.kind == "load":
                    read.setdefault((access.epoch, thread), []).append(element)
                else:
                    written[access.epoch, element] = thread
        if not written:
            raise ValueError(f"nothing was stored into a shared array {array}")
        steps = [
            Step(epoch, thread, element, tuple(sorted(set(read.get((epoch, thread), ())))))
            for (epoch, element), thread in sorted(written.items())
        ]
        return cls(array, steps)

    @property
    def epochs(self) -> list[int]:
        """The epochs in which something was stored."""
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
