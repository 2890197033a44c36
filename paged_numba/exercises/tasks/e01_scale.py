"""Exercise 01: one thread, one element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...draw.kernels.threads import Threads
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..checker.task import Limit, Task, Wrong


@dataclass
class Case:
    """An array, a factor, and the threads of a thread block."""

    x: Any
    factor: float
    threads_per_block: int

    @property
    def blocks_per_grid(self) -> int:
        """Enough thread blocks for all elements, and one at least."""
        return max(1, -(-self.x.size // self.threads_per_block))


def case_of(size: int, threads: int, factor: float = 10.0) -> Case:
    """Return a case with the elements 1, 2, 3 and so on."""
    return Case(np.arange(1, size + 1, dtype=np.float32), factor, threads)


class Scale(Task):
    """One thread writes one element."""

    answer = "scale"
    lesson = "01_threads"
    hints = (
        "cuda.grid(1) is the index of this thread among all threads of the launch.",
        "A launch has whole thread blocks, so the last one may have threads without an element: compare i with "
        "x.size.",
        "i = cuda.grid(1), then: if i < x.size, out[i] = factor * x[i].",
    )
    wrong = (
        Wrong("a shape for a size", "i < x.size", "i < x.shape", "runs", "Numba cannot compile scale"),
        Wrong("no guard", "if i < x.size:", "if True:", "right", "out of bounds"),
        Wrong(
            "the index in the thread block alone",
            "cuda.grid(1)",
            "cuda.threadIdx.x",
            "right",
            "elements of out",
        ),
        Wrong(
            "the guard leaves out the last element", "i < x.size", "i < x.size - 1", "right", "out is wrong"
        ),
        Wrong("the factor is forgotten", "factor * x[i]", "x[i]", "right", "What should come out"),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case(np.array([3, 5], np.float32), 10.0, 2)

    def boundaries(self) -> Sequence[Case]:
        """Return fewer, as many, and more elements than threads of a thread block."""
        return [case_of(size, 4) for size in (1, 3, 4, 5, 8, 9)]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        return st.builds(
            case_of, st.integers(1, 40), st.sampled_from((1, 4, 32)), st.sampled_from((10.0, -0.5))
        )

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel; an element that no thread writes stays NaN."""
        out = np.full_like(case.x, np.nan)
        answer[case.blocks_per_grid, case.threads_per_block](out, case.x, np.float32(case.factor))
        return {"out": out}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the scaled array."""
        return {"out": case.x * np.float32(case.factor)}

    def picture(self, answer: Any, case: Case) -> Picture:
        """Return which thread has which element."""
        return Threads(case.blocks_per_grid, case.threads_per_block, case.x.shape)

    def measured(self) -> Case:
        """Return two whole warps and a part of one."""
        return case_of(80, 32)

    def limits(self, report: Report) -> Sequence[Limit]:
        """80 floats lie in 10 sectors."""
        loads = report.memory("global", "load").sectors
        stores = report.memory("global", "store").sectors
        why = "80 elements of 4 bytes lie in 10 sectors of 32 bytes, and each is needed once"
        return [Limit("sectors loaded", loads, 10, why), Limit("sectors stored", stores, 10, why)]


TASK = Scale()
