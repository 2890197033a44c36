"""Exercise 15: the LSE of a row in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...draw.kernels.online_softmax import OnlineSoftmax
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..aids.rows import INF, MEASURED, Rows, case_of, drawn_rows
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake


def rows_of(size: int, threads: int) -> Rows:
    """Return two rows: the first one rises, the second one has masked scores, among them the first one."""
    scores = np.stack([np.arange(size) / 4.0, np.arange(size) % 5 - 900.0])
    scores[1, ::3] = -INF
    return case_of(scores, threads)


def lse_of(scores: Any) -> Any:
    """Return the LSE of each row in double precision; -inf where all scores are masked."""
    return np.logaddexp.reduce(scores.astype(np.float64), axis=1)


class OnlineLse(Task):
    """A running maximum and sum for each thread, merged over the thread block."""

    answer = "lse"
    lesson = "08_online_softmax"
    may_use = ("kernels",)
    max_examples = 40
    atol = 1e-5
    hints = (
        "Start with largest = -inf and total = 0. If a score is larger than largest, first multiply total by "
        "exp(largest - score), and set largest to the score. Then add exp(score - largest).",
        "-inf - -inf is nan. When can that happen? Leave masked scores out of the sum, and do not use the sum of a "
        "row that is wholly masked.",
        "After the loop: row_largest = segment_max(largest, scratch, num_threads). Keep the thread's own largest, "
        "since its sum is relative to it.",
        "total *= exp(largest - row_largest), then segment_sum. The LSE is row_largest + log(total), or -inf if "
        "row_largest is -inf.",
    )
    wrong = (
        Wrong(
            "the sum of a thread is not rescaled when a larger score comes",
            "            total *= math.exp(largest - score)\n",
            "",
            "right",
            "as if a thread did not rescale its sum",
        ),
        Wrong(
            "the sums of threads are not rescaled to the row's maximum",
            "    total *= math.exp(largest - row_largest)  # nan if the whole row is masked\n",
            "",
            "right",
            "as if the sums of threads were added up without rescaling",
        ),
        Wrong(
            "masked scores are added",
            "        if score > -np.inf:\n            total += math.exp(score - largest)\n",
            "        total += math.exp(score - largest)\n",
            "right",
            "row 0 has masked scores",
        ),
        Wrong(
            "the LSE of a masked row is nan",
            " if row_largest > -np.inf else row_largest",
            "",
            "right",
            "all scores of row 0 are masked",
        ),
        Wrong("the largest score is not added again", "row_largest + math.log", "math.log", "right", "lacks"),
        Wrong("a logarithm to base 2", "math.log(total)", "math.log2(total)", "right", "base 2"),
        Wrong(
            "no maximum: overflow",
            """        if score > largest:
            total *= math.exp(largest - score)
            largest = score
""",
            "        largest = float32(0)\n",
            "right",
            "overflows",
        ),
        Wrong(
            "two passes",
            """    for i in range(thread, scores.shape[1], num_threads):
        score = scores[row, i]
""",
            """    for i in range(thread, scores.shape[1], num_threads):
        largest = max(largest, scores[row, i])
    for i in range(thread, scores.shape[1], num_threads):
        score = scores[row, i]
""",
            "traffic",
            "sectors loaded",
        ),
    )

    def worked(self) -> Rows:
        """Return the case of the statement."""
        return case_of([[1, 2, 3, 0]], 2)

    def boundaries(self) -> Sequence[Rows]:
        """Return a single score, masked ones, large ones, and lengths around a thread block."""
        small = [[[5]], [[-INF]], [[0, 1]], [[-INF, 2, 1]], [[1000, 1000]], [[-1000, -998, -1000]]]
        cases = [case_of(rows, threads) for rows in small for threads in (1, 2)]
        return [*cases, *(rows_of(size, 32) for size in (31, 32, 33, 64)), rows_of(70, 64)]

    def cases(self) -> st.SearchStrategy[Rows]:
        """Return what draws cases."""
        return drawn_rows()

    def run(self, answer: Any, case: Rows) -> dict[str, Any]:
        """Launch the kernel with a thread block for each row."""
        out = np.full(len(case.scores), np.nan, np.float32)
        answer[len(case.scores), case.threads_per_block](out, case.scores)
        return {"out": out}

    def expected(self, case: Rows) -> dict[str, Any]:
        """Return the LSE of each row."""
        return {"out": lse_of(case.scores).astype(np.float32)}

    def judge(self, case: Rows, result: dict[str, Any]) -> Mistake | None:
        """Name the step that is left out, if the result is what comes out without it."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        out = np.asarray(result["out"], np.float64)
        largest = case.scores.max(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):  # rows that are masked as a whole
            logarithm, parts = lse_of(case.scores) - largest, np.log(_sum(case, online=True))
            causes = {
                "each lacks the largest score of its row": logarithm,
                "the logarithm is to base 2": largest + logarithm / np.log(2),
                "as if the sums of threads were added up without rescaling": largest + parts,
                "as if a thread did not rescale its sum when a larger score came": largest
                + np.log(_sum(case, online=False)),
            }
        for cause, value in causes.items():
            if np.isfinite(value).all() and np.allclose(out, value, rtol=1e-5, atol=1e-5):
                return Mistake(f"{mistake.what}: {cause}", mistake.got, mistake.expected)
        if np.isinf(out).any() and np.abs(case.scores[np.isfinite(case.scores)]).max(initial=0) > 500:
            what = f"{mistake.what}: exp(score) overflows, or is 0, for scores as large or as small as these"
            return Mistake(what, mistake.got, mistake.expected)
        wrong = ~np.isclose(out, lse_of(case.scores), rtol=self.rtol, atol=self.atol)
        row = int(np.argmax(wrong))
        if np.isfinite(out[row]) or np.isfinite(case.scores[row]).all():
            return mistake
        whole = not np.isfinite(case.scores[row]).any()
        what = f"all scores of row {row} are masked" if whole else f"row {row} has masked scores"
        return Mistake(f"{mistake.what}: {what}", mistake.got, mistake.expected)

    def picture(self, answer: Any, case: Rows) -> Picture | None:
        """Return how the maximum and the sum of a row's first thread, which has scores, should go."""
        del answer
        if case.scores.shape[1] == MEASURED:
            return None  # the result is right
        for row in case.scores:
            for thread in range(case.threads_per_block):
                own = row[thread :: case.threads_per_block]
                own = own[np.isfinite(own)][:64]
                if own.size > 1:
                    return OnlineSoftmax(own.tolist(), f"The scores of thread {thread}, as it should go")
        return None

    def measured(self) -> Rows:
        """Return two rows, four times as long as a thread block."""
        return rows_of(MEASURED, 64)

    def limits(self, report: Report) -> Sequence[Limit]:
        """512 scores lie in 64 sectors."""
        loads, stores = report.memory("global", "load").sectors, report.memory("global", "store").sectors
        waits = "a reduction over 64 threads has 8 barriers; 2 rows of 2 warps make 2 each, and half as much to spare"
        return [
            Limit(
                "sectors loaded",
                loads,
                64,
                "2 rows of 256 scores lie in 64 sectors of 32 bytes. To use a score twice, keep it in a variable",
            ),
            Limit("sectors stored", stores, 4, "2 results, each of which up to 2 warps may write"),
            Limit("barriers", report.work().barriers, 96, waits),
        ]


def _sum(case: Rows, online: bool) -> Any:
    """Return the sum of each row without one of the two rescalings: that of the threads if `online`, else the other."""
    sums = []
    for row in case.scores.astype(np.float64):
        total = 0.0
        for thread in range(case.threads_per_block):
            own = row[thread :: case.threads_per_block]
            own = own[np.isfinite(own)]
            if own.size:
                relative_to = own.max() if online else np.maximum.accumulate(own)
                part = np.exp(own - relative_to).sum()
                total += part if online else part * np.exp(own.max() - row.max())
        sums.append(total)
    return np.array(sums)


TASK = OnlineLse()
