"""Exercise 02: a grid of two dimensions."""

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
from ..checker.values import Mistake

FAULTS = {
    "exchanged": "as if x counted the tokens and y the dimensions",
    "flat": "as if only x counted, and y were not used",
    "own x": "as if cuda.blockIdx.x were left out, so that all thread blocks of a row take the same dimensions",
    "own y": "as if cuda.blockIdx.y were left out, so that all thread blocks of a column take the same tokens",
    "own": "as if cuda.blockIdx were left out, so that all thread blocks take the same numbers",
}
"""Mistakes by their names, as sentences."""


@dataclass
class Case:
    """Keys, their scales, and the threads of a thread block: along x and along y."""

    keys: Any
    scales: Any
    threads_per_block: tuple[int, int]

    @property
    def blocks_per_grid(self) -> tuple[int, int]:
        """Enough thread blocks for all numbers, and one at least."""
        rows, columns = self.keys.shape
        across, down = self.threads_per_block
        return max(1, -(-columns // across)), max(1, -(-rows // down))


def case_of(tokens: int, dims: int, threads: tuple[int, int]) -> Case:
    """Return a case whose keys count 1, 2, 3 and so on; each token's scale is twice the one before."""
    keys = (1 + np.arange(tokens * dims) % 100).astype(np.int8).reshape(tokens, dims)
    return Case(keys, (0.5 * 2.0 ** np.arange(tokens)).astype(np.float32), threads)


class Grid(Task):
    """One thread writes one number of one row."""

    answer = "dequantize"
    lesson = "01_threads"
    hints = (
        "cuda.grid(2) is the place of this thread in the grid: x first, then y. Which of the two counts the tokens?",
        "y counts rows, and the row is the first index of an array: keys[y, x]. The scale depends only on the row.",
        "Each direction needs its own comparison: the token with keys.shape[0], the dimension with keys.shape[1].",
        "dim, token = cuda.grid(2), then: if token < keys.shape[0] and dim < keys.shape[1], write out[token, dim].",
    )
    wrong = (
        Wrong(
            "x counts the tokens",
            "dim, token = cuda.grid(2)",
            "token, dim = cuda.grid(2)",
            "right",
            "as if x counted the tokens",
        ),
        Wrong(
            "one dimension of the grid",
            "dim, token = cuda.grid(2)",
            "token, dim = cuda.grid(1) // keys.shape[1], cuda.grid(1) % keys.shape[1]",
            "right",
            "as if only x counted",
        ),
        Wrong(
            "no thread block along x",
            "dim, token = cuda.grid(2)",
            "dim, token = cuda.threadIdx.x, cuda.grid(2)[1]",
            "right",
            "as if cuda.blockIdx.x were left out",
        ),
        Wrong(
            "no thread blocks",
            "dim, token = cuda.grid(2)",
            "dim, token = cuda.threadIdx.x, cuda.threadIdx.y",
            "right",
            "as if cuda.blockIdx were left out",
        ),
        Wrong(
            "no guard of the dimension", " and dim < keys.shape[1]", "", "right", "out of bounds for shape"
        ),
        Wrong("no guard of the token", "token < keys.shape[0] and ", "", "right", "out of bounds for shape"),
        Wrong(
            "a scale for each dimension", "scales[token]", "scales[dim]", "runs", "scales[2] out of bounds"
        ),
        Wrong("the scale is forgotten", "scales[token] * ", "", "right", "What should come out"),
        Wrong(
            "the guard reads before it tests",
            "    if token < keys.shape[0] and dim < keys.shape[1]:\n        out[token, dim] = scales[token] *",
            "    scale = scales[token]\n"
            "    if token < keys.shape[0] and dim < keys.shape[1]:\n        out[token, dim] = scale *",
            "right",
            "scales[1] out of bounds",
        ),
        Wrong(
            "each thread takes the whole row",
            "        out[token, dim] =",
            "        for dim in range(keys.shape[1]):\n            out[token, dim] =",
            "traffic",
            "192 sectors loaded from keys, and 6 are enough",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case(np.array([[1, 2, 3], [4, 5, 6]], np.int8), np.array([0.5, 10], np.float32), (3, 2))

    def boundaries(self) -> Sequence[Case]:
        """Return one thread block and several, with as many, fewer and more threads than numbers each way."""
        sizes = (1, 1), (1, 4), (2, 1), (2, 4), (1, 5), (3, 4), (3, 5), (4, 8), (5, 9)
        return [case_of(tokens, dims, (4, 2)) for tokens, dims in sizes]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        threads = st.sampled_from(((4, 2), (2, 4), (1, 1), (32, 4)))
        return st.builds(case_of, st.integers(1, 9), st.integers(1, 9), threads)

    def weight(self, case: Case) -> int:
        """Return the number of keys."""
        return int(case.keys.size)

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel; a number that no thread writes stays NaN."""
        out = np.full(case.keys.shape, np.nan, np.float32)
        answer[case.blocks_per_grid, case.threads_per_block](out, case.keys, case.scales)
        return {"out": out}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the keys as floats."""
        return {"out": case.keys * case.scales[:, None]}

    def attempt(self, answer: Any, case: Case) -> Mistake | None:
        """Run the answer; if numbers are not written, run it once more to learn why."""
        mistake = super().attempt(answer, case)
        if mistake is None or not mistake.what.endswith(" wrong"):
            return mistake
        # A small case has several possible causes; 3 x 3 thread blocks tell them apart.
        causes = set(FAULTS)
        for one in (case, case_of(5, 9, (4, 2))):
            try:
                out = self.run(answer, one)["out"]
            except Exception:
                return mistake
            causes &= {
                name for name, made in self._faults(one).items() if np.array_equal(out, made, equal_nan=True)
            }
        found = ", or ".join(FAULTS[name] for name in FAULTS if name in causes)
        what = f"{mistake.what}: {found}" if found else mistake.what
        return Mistake(what, mistake.got, mistake.expected)

    def _faults(self, case: Case) -> dict[str, Any]:
        """Return what each mistake leaves of the output; the rest is not written."""
        right = self.expected(case)["out"]
        columns, rows = case.threads_per_block
        across, down = (
            size * threads for size, threads in zip(case.blocks_per_grid, case.threads_per_block, strict=True)
        )
        written = {
            "exchanged": np.s_[:across, :down],
            "own x": np.s_[:, :columns],
            "own y": np.s_[:rows],
            "own": np.s_[:rows, :columns],
        }
        made = {name: np.full_like(right, np.nan) for name in FAULTS}
        for name, place in written.items():
            made[name][place] = right[place]
        made["flat"].reshape(-1)[:across] = right.reshape(-1)[:across]
        return made

    def picture(self, answer: Any, case: Case) -> Picture:
        """Return which thread has which number."""
        return Threads(case.blocks_per_grid, case.threads_per_block, case.keys.shape)

    def measured(self) -> Case:
        """Return keys with a row of 32 numbers for each warp, and rows of threads without a token."""
        return case_of(6, 32, (32, 4))

    def limits(self, report: Report) -> Sequence[Limit]:
        """Each row of keys is one sector of int8 and four of floats; a warp needs one scale."""
        keys, stores = report.memory("global", "load", array="keys").sectors, report.memory("global", "store")
        return [
            Limit("sectors loaded from keys", keys, 6, "a row of 32 int8 is a sector, and there are 6 rows"),
            Limit(
                "sectors loaded from scales",
                report.memory("global", "load", array="scales").sectors,
                6,
                "all threads of a warp have the same token, so they need the same scale",
            ),
            Limit(
                "sectors stored", stores.sectors, 24, "a row of 32 floats is 4 sectors, and there are 6 rows"
            ),
        ]


TASK = Grid()
