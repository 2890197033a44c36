"""Exercise 11: each element and its neighbours, through shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..aids.pictures import tree
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake

MEASURED = 256
"""Elements of the case whose traffic is counted."""


@dataclass
class Case:
    """An array, and the threads of a thread block."""

    x: Any
    threads_per_block: int

    @property
    def blocks_per_grid(self) -> int:
        """Enough thread blocks for all elements."""
        return -(-self.x.size // self.threads_per_block)


def case_of(size: int, threads: int) -> Case:
    """Return a case with 1, 2, 4 and so on, of which each sum of neighbours differs, up to 128 and again."""
    return Case(np.resize(2.0 ** np.arange(8), size).astype(np.float32), threads)


class Neighbours(Task):
    """Threads of a thread block exchange the elements that they read."""

    answer = "neighbours"
    lesson = "07_thread_block"
    max_examples = 30
    hints = (
        "Thread t stores its element in tile[t + 1]. Which two places of the tile are then still empty, and which "
        "threads can fill them?",
        "A thread past the end of x stores 0 and goes on to the barrier. Only the final write to out needs a guard.",
        "Thread 0 stores x[i - 1], if i > 0, in tile[0]. The last thread, cuda.blockDim.x - 1, stores x[i + 1], if "
        "there is one, in tile[thread + 2]. Then call cuda.syncthreads(), and add up tile[thread] to tile[thread + "
        "2].",
    )
    wrong = (
        Wrong(
            "no barrier", "    cuda.syncthreads()  # the tile is full\n", "", "sanitizer", "data race: tile"
        ),
        Wrong(
            "neighbours outside of the thread block count as zeros",
            "x[i - 1] if i > 0 else float32(0)",
            "float32(0)",
            "right",
            "the first element of each thread block",
        ),
        Wrong(
            "the right neighbour of the last thread is left out",
            "x[i + 1] if i + 1 < x.size else float32(0)",
            "float32(0)",
            "right",
            "the last element of each thread block",
        ),
        Wrong(
            "no guard for the right neighbour",
            "x[i + 1] if i + 1 < x.size else float32(0)",
            "x[i + 1]",
            "runs",
            "out of bounds",
        ),
        Wrong(
            "threads past the end store nothing",
            "    tile[thread + 1] = x[i] if i < x.size else float32(0)\n",
            "    if i < x.size:\n        tile[thread + 1] = x[i]\n",
            "right",
            "tile[0, 1, 3] stored",
        ),
        Wrong(
            "threads past the end leave before the barrier",
            "    tile[thread + 1] = x[i] if i < x.size else float32(0)\n",
            "    if i >= x.size:\n        return\n    tile[thread + 1] = x[i]\n",
            "right",
            "tile[0, 1] stored",
        ),
        Wrong(
            "neighbours from global memory",
            "tile[thread] + tile[thread + 1] + tile[thread + 2]",
            "x[i] + (x[i - 1] if i > 0 else 0) + (x[i + 1] if i + 1 < x.size else 0)",
            "traffic",
            "sectors loaded",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case(np.array([1, 2, 4], np.float32), 4)

    def boundaries(self) -> Sequence[Case]:
        """Return fewer, as many, and more elements than threads of a thread block."""
        return [case_of(size, 4) for size in (1, 3, 4, 5, 8, 9)] + [case_of(130, 64)]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        return st.builds(case_of, st.integers(1, 70), st.sampled_from((2, 4, 32, 64)))

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel; an element that no thread writes stays NaN."""
        out = np.full_like(case.x, np.nan)
        answer[case.blocks_per_grid, case.threads_per_block](out, case.x)
        return {"out": out}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the sums."""
        around = np.pad(case.x, 1)
        return {"out": around[:-2] + around[1:-1] + around[2:]}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Name the edge of thread blocks if all mistakes lie there."""
        mistake = super().judge(case, result)
        if mistake is None or result["out"].size <= case.threads_per_block:
            return mistake
        threads = np.arange(case.x.size) % case.threads_per_block
        wrong = ~np.isclose(result["out"], self.expected(case)["out"])
        for name, edge in (("first", 0), ("last", case.threads_per_block - 1)):
            if np.all(threads[wrong] == edge):
                where = f"the {name} element of each thread block lacks its neighbour"
                return Mistake(f"{mistake.what}: {where} in the other one", mistake.got, mistake.expected)
        return mistake

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return what the thread block with the first mistake stores to its tile."""
        out = np.full_like(case.x, np.nan)
        launch = answer, case.blocks_per_grid, case.threads_per_block, out, case.x
        if case.x.size == MEASURED:
            return None  # it is right, and no single access is bad: there are too many
        lockstep.launch(*launch)
        wrong = ~np.isclose(out, self.expected(case)["out"])
        block = int(np.argmax(wrong)) // case.threads_per_block
        return tree(lockstep.trace(*launch, thread_block=(block, 0, 0)), f"The tile of thread block {block}")

    def measured(self) -> Case:
        """Return four thread blocks of two warps."""
        return case_of(MEASURED, 64)

    def limits(self, report: Report) -> Sequence[Limit]:
        """256 floats lie in 32 sectors; a tile that is filled from tile[0] on shifts each of 8 warps by an element."""
        loads, stores = report.memory("global", "load").sectors, report.memory("global", "store").sectors
        why = (
            "256 elements of 4 bytes lie in 32 sectors of 32 bytes, each of 8 warps may touch one more, and 4 thread "
            "blocks have 6 neighbours outside"
        )
        return [
            Limit("sectors loaded", loads, 46, why),
            Limit("sectors stored", stores, 32, "256 elements of 4 bytes lie in 32 sectors of 32 bytes"),
        ]


TASK = Neighbours()
