"""Exercise 18: a transposition through shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..aids.pictures import tree, worst_access
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake

TILE = 32
MEASURED = (64, 96)
"""Rows and columns of the case whose traffic is counted."""


@dataclass
class Case:
    """A matrix."""

    x: Any

    @property
    def blocks_per_grid(self) -> tuple[int, int]:
        """A thread block for each tile: columns before rows, as in CUDA."""
        rows, columns = self.x.shape
        return -(-columns // TILE), -(-rows // TILE)


def case_of(num_rows: int, num_cols: int) -> Case:
    """Return a case with the elements 1, 2, 3 and so on."""
    return Case(np.arange(1, num_rows * num_cols + 1, dtype=np.float32).reshape(num_rows, num_cols))


class BankConflicts(Task):
    """Rows of 32 floats lie in the same banks, column by column."""

    answer = "transpose"
    lesson = "10_layout_decides_traffic"
    max_examples = 10
    hints = (
        "Store x[32 * by + ty, 32 * bx + tx] in tile[ty, tx]. Which element of the tile does out[32 * bx + ty, 32 * "
        "by + tx] need?",
        "Each access to global memory needs its own guard: first against the shape of x, then against the shape of "
        "out. The barrier goes between the two accesses, outside any if.",
        "Element [r, c] of a tile of width w is in bank (r * w + c) % 32. When a warp reads a column, c is the same "
        "for its 32 threads and r differs: for which w are all the banks different?",
        "cuda.shared.array((32, 33), float32).",
    )
    wrong = (
        Wrong("no pad", "(32, 33), float32", "(32, 32), float32", "traffic", "bank conflicts"),
        Wrong("too wide a pad", "(32, 33), float32", "(32, 36), float32", "traffic", "bank conflicts"),
        Wrong(
            "without shared memory",
            """    cuda.syncthreads()  # the tile is full
    row, col = 32 * bx + ty, 32 * by + tx
    if row < out.shape[0] and col < out.shape[1]:
        out[row, col] = tile[tx, ty]
""",
            """        out[col, row] = x[row, col]
""",
            "traffic",
            "sectors stored",
        ),
        Wrong(
            "no barrier",
            "    cuda.syncthreads()  # the tile is full\n",
            "",
            "sanitizer",
            "data race: tile",
        ),
        Wrong(
            "the tile is not transposed",
            "tile[tx, ty]",
            "tile[ty, tx]",
            "right",
            "What should come out",
        ),
        Wrong(
            "thread blocks keep their places",
            "row, col = 32 * bx + ty, 32 * by + tx",
            "row, col = 32 * by + ty, 32 * bx + tx",
            "right",
            "tiles",
        ),
        Wrong(
            "the guard of the load for the store",
            "    if row < out.shape[0] and col < out.shape[1]:\n",
            "    if row < x.shape[0] and col < x.shape[1]:\n",
            "runs",
            "out of bounds",
        ),
        Wrong(
            "threads outside of x leave",
            "    if row < x.shape[0] and col < x.shape[1]:\n        tile",
            "    if row >= x.shape[0] or col >= x.shape[1]:\n        return\n    if True:\n        tile",
            "right",
            "nan",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return case_of(2, 3)

    def boundaries(self) -> Sequence[Case]:
        """Return parts of a tile, a whole one, and more than one."""
        return [case_of(*shape) for shape in ((1, 1), (1, 2), (3, 2), (32, 32), (31, 33), (33, 1), (1, 65))]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        return st.builds(case_of, st.integers(1, 40), st.integers(1, 70))

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel; an element that no thread writes stays NaN."""
        out = np.full(case.x.shape[::-1], np.nan, np.float32)
        answer[case.blocks_per_grid, (TILE, TILE)](out, case.x)
        return {"out": out}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the transposed matrix."""
        return {"out": case.x.T.copy()}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Say that one tile alone is right, if it is."""
        mistake = super().judge(case, result)
        if mistake is None or case.blocks_per_grid == (1, 1):
            return mistake
        right = np.isclose(result["out"], case.x.T)
        if right[:TILE, :TILE].all():
            return Mistake(f"{mistake.what}; the first of the tiles is right", mistake.got, mistake.expected)
        return mistake

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the worst access if the result is right; else what the first thread block stores to its tile."""
        out = np.full(case.x.shape[::-1], np.nan, np.float32)
        accesses = lockstep.trace(answer, case.blocks_per_grid, (TILE, TILE), out, case.x)
        if case.x.shape != MEASURED:
            return tree(accesses, "The tile of thread block (0, 0)")
        worst = worst_access(accesses, "global")
        if worst is not None and len(worst.sectors) > 4:
            return worst
        return worst_access(accesses, "shared")

    def sanitized(self) -> Sequence[Case]:
        """Return small matrices: a race shows in them."""
        return [self.worked(), case_of(3, 33)]

    def measured(self) -> Case:
        """Return whole tiles."""
        return case_of(*MEASURED)

    def limits(self, report: Report) -> Sequence[Limit]:
        """6,144 floats lie in 768 sectors."""
        loads, stores = report.memory("global", "load").sectors, report.memory("global", "store").sectors
        why = "64 x 96 elements of 4 bytes lie in 768 sectors of 32 bytes, and each is needed once"
        return [
            Limit("sectors loaded", loads, 768, why),
            Limit("sectors stored", stores, 768, why),
            Limit(
                "bank conflicts",
                report.memory("shared").bank_conflicts,
                0,
                "a tile whose rows begin in different banks has none, row by row and column by column",
            ),
        ]


TASK = BankConflicts()
