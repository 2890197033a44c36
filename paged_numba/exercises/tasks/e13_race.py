"""Exercise 13: a kernel with a race, which gives the right result if threads run step by step together."""

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

UNWRITTEN = -7
"""What an end is before the kernel writes it."""


@dataclass
class Case:
    """Lengths of sequences, and the threads of the thread block."""

    seq_lens: Any
    threads_per_block: int


def case_of(seq_lens: Any, threads: int) -> Case:
    """Return a case with these lengths."""
    return Case(np.array(seq_lens, np.int32), threads)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw lengths, and at least as many threads."""
    threads = draw(st.sampled_from((2, 4, 8, 64)))
    return case_of(draw(st.lists(st.integers(0, 20), min_size=1, max_size=threads)), threads)


class Race(Task):
    """A prefix sum in place: each round needs a barrier between its reads and its writes, and one after them."""

    answer = "add_up"
    lesson = "07_thread_block"
    max_examples = 30
    hints = (
        "sums[thread] += sums[thread - distance] is a read, an addition and a write. What may another thread do "
        "between the read and the write?",
        "All threads must have read before any of them writes: read into a variable, wait, then write.",
        "All threads must reach each barrier, including those with thread < distance: keep the barrier out of the "
        "if.",
        "before = 0; if thread >= distance: before = sums[thread - distance]. Then a barrier, sums[thread] += "
        "before, and another barrier.",
    )
    wrong = (
        Wrong(
            "read and write without a barrier between",
            "        cuda.syncthreads()  # all have read\n",
            "",
            "sanitizer",
            "data race: sums",
        ),
        Wrong(
            "no barrier after the round",
            "        cuda.syncthreads()  # all have written\n",
            "",
            "sanitizer",
            "data race: sums",
        ),
        Wrong(
            "a barrier in the branch",
            """            before = sums[thread - distance]
        cuda.syncthreads()  # all have read
""",
            """            before = sums[thread - distance]
            cuda.syncthreads()
""",
            "runs",
            "must be reached by all threads",
        ),
        Wrong(
            "a barrier of a warp in place of one of the thread block",
            "        cuda.syncthreads()  # all have read\n",
            "        cuda.syncwarp()\n",
            "sanitizer",
            "data race: sums",
        ),
        Wrong(
            "the own sum is lost",
            "        cuda.syncthreads()  # all have read\n        sums[thread] += before\n",
            "        cuda.syncthreads()\n        sums[thread] = before\n",
            "right",
            "ends is wrong",
        ),
        Wrong(
            "more barriers than needed",
            "        sums[thread] += before\n",
            "        cuda.syncthreads()\n        sums[thread] += before\n        cuda.syncthreads()\n",
            "traffic",
            "barriers",
        ),
        Wrong(
            "one thread adds up all lengths",
            """        before = 0
        if thread >= distance:
            before = sums[thread - distance]
        cuda.syncthreads()  # all have read
        sums[thread] += before
        cuda.syncthreads()  # all have written
""",
            """        if thread == 0 and distance == 1:
            for i in range(1, cuda.blockDim.x):
                sums[i] += sums[i - 1]
        cuda.syncthreads()
""",
            "traffic",
            "requests to shared memory",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return case_of([3, 1, 4, 2], 4)

    def boundaries(self) -> Sequence[Case]:
        """Return a single length, a length of zero, threads without a length, and more than one warp."""
        small = [case_of([5], 1), case_of([5], 2), case_of([2, 0], 2), case_of([1, 2, 3], 4)]
        return [*small, *(case_of(np.arange(size) % 5, 64) for size in (31, 32, 33, 64))]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        return drawn()

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel as one thread block."""
        ends = np.full_like(case.seq_lens, UNWRITTEN)
        answer[1, case.threads_per_block](ends, case.seq_lens)
        return {"ends": ends}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the sums."""
        return {"ends": np.cumsum(case.seq_lens, dtype=np.int32)}

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the rounds; a race is red."""
        ends = np.full_like(case.seq_lens, UNWRITTEN)
        return tree(lockstep.trace(answer, 1, case.threads_per_block, ends, case.seq_lens))

    def measured(self) -> Case:
        """Return four warps."""
        return case_of(np.arange(128) % 5, 128)

    def limits(self, report: Report) -> Sequence[Limit]:
        """7 rounds of 4 warps: two loads, a store and two barriers each."""
        requests, barriers = report.memory("shared").requests, report.work().barriers
        return [
            Limit(
                "barriers",
                barriers,
                64,
                "each of 4 warps waits once before the 7 rounds, twice in each of them, and may wait once after them",
            ),
            Limit(
                "memory requests to shared memory",
                requests,
                130,
                "each of 4 warps loads twice and stores once in each of 7 rounds: 84, and half as much to spare",
            ),
        ]


TASK = Race()
