"""Exercise 14: softmax of a row, by a thread block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..aids.pictures import tree, worst_access
from ..aids.rows import INF, MEASURED, Rows, case_of, drawn_rows
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake


def rows_of(size: int, threads: int) -> Rows:
    """Return two rows: the first has its largest score at the end, the second one has masked scores."""
    scores = np.arange(2 * size).reshape(2, size) % 7 - np.array([[0.0], [900.0]])
    scores[0, -1] = 9
    scores[1, ::3] = -INF
    return case_of(scores, threads)


def weights_of(scores: Any) -> Any:
    """Return softmax of each row in double precision; 0 where all scores of a row are masked."""
    wide = scores.astype(np.float64)
    largest = wide.max(axis=1, keepdims=True)
    powers = np.exp(wide - np.where(np.isfinite(largest), largest, 0))
    return (powers / np.maximum(powers.sum(axis=1, keepdims=True), 1e-300)).astype(np.float32)


def unequal_weights_of(case: Rows, row: int) -> Any:
    """Return the weights of a row if each thread subtracts the largest of its own scores."""
    powers, threads = np.zeros(case.scores.shape[1]), case.threads_per_block
    for own in (slice(thread, None, threads) for thread in range(min(threads, powers.size))):
        scores = case.scores[row, own].astype(np.float64)
        powers[own] = np.exp(scores - scores.max()) if np.isfinite(scores).any() else np.nan
    return powers / powers.sum()


class Softmax(Task):
    """Two reductions over a row."""

    answer = "softmax"
    lesson = "08_online_softmax"
    may_use = ("kernels",)
    max_examples = 40
    rtol = 2e-4  # exp(score - LSE) is right, too: near 1000, floats lie 0.00006 apart
    hints = (
        "You need three loops over range(thread, scores.shape[1], num_threads): for the maximum, the sum and the "
        "weights.",
        "After the first loop, a thread knows only the largest of its own scores. Which call gives it the largest "
        "of the row? All threads must make this call, including those without a score, which pass -inf.",
        "In a row that is wholly masked, -inf - -inf is nan, and so is the sum: write 0 unless the sum is above 0.",
        "largest = segment_max(largest, scratch, num_threads), and after the second loop total = segment_sum(total, "
        "scratch, num_threads).",
    )
    wrong = (
        Wrong(
            "the largest score is not subtracted",
            "    largest = segment_max(largest, scratch, num_threads)\n",
            "    largest = segment_max(largest, scratch, num_threads) * float32(0)\n",
            "right",
            "What came out (nan",
        ),
        Wrong(
            "each thread subtracts its own largest score",
            "    largest = segment_max(largest, scratch, num_threads)\n",
            "",
            "right",
            "as if each thread subtracted the largest of its own scores",
        ),
        Wrong(
            "each thread divides by its own sum",
            "    total = segment_sum(total, scratch, num_threads)\n",
            "",
            "right",
            "add up to",
        ),
        Wrong(
            "the largest score begins at zero",
            "largest = float32(-np.inf)",
            "largest = float32(0)",
            "right",
            "add up to 0",
        ),
        Wrong(
            "a masked row becomes nan",
            " / total if total > 0 else float32(0)",
            " / total",
            "right",
            "all scores of row 0 are masked",
        ),
        Wrong(
            "a row of more scores than threads",
            """    for i in range(thread, scores.shape[1], num_threads):  # of a row that is masked, total is nan
        weights[row, i] =""",
            """    i = thread
    if i < scores.shape[1]:
        weights[row, i] =""",
            "right",
            "nan",
        ),
        Wrong(
            "each thread takes neighbouring scores",
            """    largest = float32(-np.inf)
    for i in range(thread, scores.shape[1], num_threads):
""",
            """    largest = float32(-np.inf)
    each = -(-scores.shape[1] // num_threads)
    for i in range(thread * each, min(thread * each + each, scores.shape[1])):
""",
            "traffic",
            "sectors loaded",
        ),
        Wrong(
            "a thread without a score leaves before the reductions",
            "    largest = float32(-np.inf)\n",
            "    if thread >= scores.shape[1]:\n        return\n    largest = float32(-np.inf)\n",
            "right",
            "add up to",
        ),
    )

    def worked(self) -> Rows:
        """Return the case of the statement."""
        return case_of([[1, 1, -INF, 1, 1, -INF]], 4)

    def boundaries(self) -> Sequence[Rows]:
        """Return a single score, a masked row, large scores, and lengths around a thread block."""
        small = [[[0]], [[-INF]], [[1, 2]], [[1000, 998]], [[-1000, -998, -1000]]]
        cases = [case_of(rows, 2) for rows in small] + [case_of([[2, 1, 0], [-INF] * 3], 4)]
        return [*cases, *(rows_of(size, 32) for size in (31, 32, 33, 64)), rows_of(70, 64)]

    def cases(self) -> st.SearchStrategy[Rows]:
        """Return what draws cases."""
        return drawn_rows()

    def run(self, answer: Any, case: Rows) -> dict[str, Any]:
        """Launch the kernel with a thread block for each row."""
        weights = np.full_like(case.scores, np.nan)
        answer[len(case.scores), case.threads_per_block](weights, case.scores)
        return {"weights": weights}

    def expected(self, case: Rows) -> dict[str, Any]:
        """Return the weights."""
        return {"weights": weights_of(case.scores)}

    def judge(self, case: Rows, result: dict[str, Any]) -> Mistake | None:
        """Say to what the weights of the first wrong row add up."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        row = self._first_wrong_row(case, result["weights"])
        total = float(result["weights"][row].astype(np.float64).sum())
        if not np.isfinite(case.scores[row]).any():
            what = f"{mistake.what}: all scores of row {row} are masked"
        elif np.isfinite(total) and abs(total - 1) > 1e-4:
            what = f"{mistake.what}: those of row {row} add up to {total:.4g}"
        elif self._subtracts_its_own(case, row, result["weights"][row]):
            what = f"{mistake.what}, as if each thread subtracted the largest of its own scores"
        elif np.isnan(total) and np.abs(case.scores[row][np.isfinite(case.scores[row])]).max() > 500:
            what = f"{mistake.what}; exp(score) overflows, or is 0, for scores as large or as small as these"
        else:
            return mistake
        return Mistake(what, mistake.got, mistake.expected)

    def _subtracts_its_own(self, case: Rows, row: int, weights: Any) -> bool:
        unequal, right = unequal_weights_of(case, row), weights_of(case.scores)[row]
        return np.allclose(weights, unequal, 1e-4) and not np.allclose(unequal, right, self.rtol, self.atol)

    def picture(self, answer: Any, case: Rows) -> Picture | None:
        """Return the rounds of the first reduction of the first wrong row; the access that moves most, if none is."""
        weights = np.full_like(case.scores, np.nan)
        launch = answer, len(case.scores), case.threads_per_block, weights, case.scores
        if case.scores.shape[1] == MEASURED:
            return worst_access(lockstep.trace(*launch), "global")
        lockstep.launch(*launch)
        row = self._first_wrong_row(case, weights)
        return tree(lockstep.trace(*launch, thread_block=(row, 0, 0)), f"The shared memory of row {row}")

    def _first_wrong_row(self, case: Rows, weights: Any) -> int:
        wrong = ~np.isclose(weights, weights_of(case.scores), rtol=self.rtol, atol=self.atol)
        return int(np.argmax(wrong.any(axis=1)))

    def measured(self) -> Rows:
        """Return two rows, four times as long as a thread block."""
        return rows_of(MEASURED, 64)

    def limits(self, report: Report) -> Sequence[Limit]:
        """512 scores lie in 64 sectors; each is loaded three times. Variants load five times, or store twice."""
        loads, stores = report.memory("global", "load").sectors, report.memory("global", "store").sectors
        each = "2 rows of 256 scores lie in 64 sectors of 32 bytes"
        waits = "a reduction over 64 threads has 8 barriers; 2 rows of 2 warps make 2 each, and half as much to spare"
        return [
            Limit("sectors loaded", loads, 5 * 64, f"{each}; three times are enough, and five are allowed"),
            Limit("sectors stored", stores, 2 * 64, f"{each}, and a weight may be stored twice"),
            Limit("barriers", report.work().barriers, 96, waits),
        ]


TASK = Softmax()
