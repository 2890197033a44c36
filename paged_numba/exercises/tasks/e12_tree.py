"""Exercise 12: the index of the largest score, by a tree."""

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

UNWRITTEN = -7
"""What the result is before the kernel writes it."""

ROUNDS = """\
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            mine, other = values[thread], values[thread + half]
            if other > mine or (other == mine and indices[thread + half] < indices[thread]):
                values[thread] = other
                indices[thread] = indices[thread + half]
        cuda.syncthreads()  # this round is over
        half //= 2
    if thread == 0:
"""
"""The rounds of the solution, and the line after them."""


@dataclass
class Case:
    """Scores, and the threads of the thread block."""

    scores: Any
    threads_per_block: int


def case_of(scores: Any, threads: int) -> Case:
    """Return a case with these scores."""
    return Case(np.array(scores, np.float32), threads)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw few different scores, so that many are equal."""
    threads = draw(st.sampled_from((2, 4, 8, 64, 128)))
    score = st.sampled_from((-1.0, -2.0, 3.0, float("-inf")))
    scores = draw(st.lists(score, min_size=1, max_size=min(threads, 40)))
    if not np.isfinite(scores).any():
        scores[-1] = -2.0
    return case_of(scores, threads)


class ArgMax(Task):
    """A reduction that carries an index along."""

    answer = "argmax"
    lesson = "07_thread_block"
    hints = (
        "This is the tree of lesson 07 with two arrays: when a thread takes over a value, it also takes over the "
        "index.",
        "A thread without a score contributes -inf, which loses against any finite score. It must reach every "
        "barrier.",
        "If the values are equal, compare the indices: the other thread may have a smaller one.",
        "In a round: if thread < half, and the other value is larger, or equal with a smaller index, store the "
        "other value in values[thread] and the other index in indices[thread]. Then, in all threads, "
        "cuda.syncthreads() and half //= 2.",
    )
    wrong = (
        Wrong(
            "equal values keep their own index",
            "other > mine or (other == mine and indices[thread + half] < indices[thread])",
            "other > mine",
            "right",
            "is equal and comes first",
        ),
        Wrong(
            "equal values take over the index of the other",
            "other > mine or (other == mine and indices[thread + half] < indices[thread])",
            "other >= mine",
            "right",
            "is equal and comes first",
        ),
        Wrong(
            "threads without a score bring zero",
            "float32(-np.inf)",
            "float32(0)",
            "right",
            "no score has the index",
        ),
        Wrong(
            "the index stays behind",
            "                indices[thread] = indices[thread + half]\n",
            "",
            "right",
            "the largest score is",
        ),
        Wrong(
            "no barrier after a round",
            "        cuda.syncthreads()  # this round is over\n",
            "",
            "sanitizer",
            "data race: values",
        ),
        Wrong(
            "the barrier in the branch",
            "        cuda.syncthreads()  # this round is over\n",
            "            cuda.syncthreads()\n",
            "runs",
            "syncthreads",
        ),
        Wrong(
            "one thread does it all",
            ROUNDS,
            """    if thread == 0:
        for i in range(scores.size):
            if values[i] > values[0]:
                values[0] = values[i]
                indices[0] = i
""",
            "traffic",
            "requests to shared memory",
        ),
        Wrong(
            "one thread reads all scores",
            ROUNDS,
            """    if thread == 0:
        indices[0] = 0
        for i in range(scores.size):
            if scores[i] > scores[indices[0]]:
                indices[0] = i
""",
            "traffic",
            "sectors loaded",
        ),
        Wrong(
            "neighbours first, so that all warps stay at work",
            """    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            mine, other = values[thread], values[thread + half]
            if other > mine or (other == mine and indices[thread + half] < indices[thread]):
                values[thread] = other
                indices[thread] = indices[thread + half]
        cuda.syncthreads()  # this round is over
        half //= 2
""",
            """    half = 1
    while half < cuda.blockDim.x:
        if thread % (2 * half) == 0:
            mine, other = values[thread], values[thread + half]
            if other > mine:
                values[thread] = other
                indices[thread] = indices[thread + half]
        cuda.syncthreads()  # this round is over
        half *= 2
""",
            "traffic",
            "requests to shared memory",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return case_of([1, 5, 5, 0, 4, 2], 8)

    def boundaries(self) -> Sequence[Case]:
        """Return a single score, threads without one, and more than a warp."""
        several = ([-3], [2, 1], [1, 2], [1, 2, 3, 4], [0, 5, 5, 0], [-3, -2, -1], [7] * 5)
        cases = [case_of(scores, 1 << (len(scores) - 1).bit_length()) for scores in several]
        return [*cases, *(case_of(np.arange(size) % 9 % 8, 64) for size in (31, 32, 33, 64))]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        return drawn()

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel as one thread block."""
        out = np.full(1, UNWRITTEN, np.int32)
        answer[1, case.threads_per_block](out, case.scores)
        return {"out": out}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the first index of the largest score."""
        return {"out": np.array([np.argmax(case.scores)], np.int32)}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Say what the index that came out stands for."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        found, largest = int(result["out"][0]), case.scores.max()
        if found == UNWRITTEN:
            what = f"out[0] was not written: it still is {UNWRITTEN}"
        elif not 0 <= found < case.scores.size:
            what = f"no score has the index {found}: thread {found} has none"
        elif case.scores[found] == largest:
            what = (
                f"scores[{found}] is the largest, but scores[{case.scores.argmax()}] is equal and comes first"
            )
        else:
            what = f"scores[{found}] is {case.scores[found]:g}, and the largest score is {largest:g}"
        return Mistake(what, mistake.got, mistake.expected)

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the rounds."""
        out = np.full(1, UNWRITTEN, np.int32)
        return tree(lockstep.trace(answer, 1, case.threads_per_block, out, case.scores))

    def measured(self) -> Case:
        """Return ascending scores, so that each comparison stores, for four warps."""
        return case_of(np.arange(128), 128)

    def limits(self, report: Report) -> Sequence[Limit]:
        """8 rounds of warps have work; each loads two values and two indices, and stores one of each."""
        requests, loads = report.memory("shared").requests, report.memory("global", "load").sectors
        why = (
            "4 warps store a value and an index each; in the 7 rounds 2, 1, 1, 1, 1, 1 and 1 warps have work, "
            "8 in all, with at most 4 loads and 2 stores for each, and half as much again to spare"
        )
        each = "4 warps wait before the 7 rounds and in each of them: 32, and as many again to spare"
        return [
            Limit("memory requests to shared memory", requests, 90, why),
            Limit(
                "sectors loaded",
                loads,
                16,
                "128 scores lie in 16 sectors of 32 bytes, and each is needed once",
            ),
            Limit("barriers", report.work().barriers, 64, each),
        ]


TASK = ArgMax()
