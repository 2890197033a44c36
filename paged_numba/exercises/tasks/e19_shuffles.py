"""Exercise 19: dot products by groups of eight lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep
from ...draw.kernels.tree import Tree
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..aids.pictures import worst_access
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake

LANES, WARP = 8, 32
MEASURED = 64
"""Tokens of the case whose traffic is counted."""


@dataclass
class Case:
    """A query, keys, and the threads of a thread block."""

    query: Any
    keys: Any
    threads_per_block: int

    @property
    def blocks_per_grid(self) -> int:
        """Enough thread blocks for eight lanes for each token."""
        return -(-len(self.keys) * LANES // self.threads_per_block)


def case_of(num_tokens: int, head_dim: int, threads: int) -> Case:
    """Return a case of small integers, so that sums are exact."""
    rng = np.random.default_rng(num_tokens * 1000 + head_dim)
    query, keys = rng.integers(1, 4, head_dim), rng.integers(-4, 5, (num_tokens, head_dim))
    return Case(query.astype(np.float32), keys.astype(np.float32), threads)


class Shuffles(Task):
    """Lanes add up within groups of eight."""

    answer = "score"
    lesson = "11_warps_talk_through_registers"
    max_examples = 30
    hints = (
        "A butterfly over 32 lanes uses the distances 16, 8, 4, 2 and 1. With which of them does a lane stay within "
        "its group of eight?",
        "Put the loop over dimensions inside an if, for lanes without a token, but keep the shuffles outside it.",
        "for dim in range(g, query.size, 8) gives the eight lanes neighbouring numbers, which lie in one sector.",
        "for distance in (4, 2, 1): part += cuda.shfl_xor_sync(ALL, part, distance). Then the lane with g == 0 "
        "writes, if there is a token.",
    )
    wrong = (
        Wrong(
            "a butterfly over the whole warp",
            "(4, 2, 1)",
            "(16, 8, 4, 2, 1)",
            "right",
            "all tokens of a warp",
        ),
        Wrong("a step is missing", "(4, 2, 1)", "(4, 2)", "right", "of 8 lanes"),
        Wrong(
            "lane 0 writes after shuffles up",
            "cuda.shfl_xor_sync",
            "cuda.shfl_up_sync",
            "right",
            "register[0] from own",
        ),
        Wrong(
            "lanes without a token skip the shuffles",
            """    for distance in (4, 2, 1):
        part += cuda.shfl_xor_sync(ALL, part, distance)
""",
            """        for distance in (4, 2, 1):
            part += cuda.shfl_xor_sync(ALL, part, distance)
""",
            "runs",
            "must be reached by every lane in its mask",
        ),
        Wrong(
            "no guard",
            "    if g == 0 and token < scores.size:\n",
            "    if g == 0:\n",
            "runs",
            "out of bounds",
        ),
        Wrong(
            "each lane takes neighbouring dimensions",
            "range(g, query.size, 8)",
            "range(g * (query.size // 8), (g + 1) * (query.size // 8))",
            "traffic",
            "sectors loaded",
        ),
        Wrong(
            "one lane does it all",
            """        for dim in range(g, query.size, 8):
            part += query[dim] * keys[token, dim]
    for distance in (4, 2, 1):
        part += cuda.shfl_xor_sync(ALL, part, distance)
""",
            """        for dim in range(query.size):
            part += query[dim] * keys[token, dim]
""",
            "traffic",
            "sectors loaded",
        ),
        Wrong(
            "a sum through shared memory",
            """    for distance in (4, 2, 1):
        part += cuda.shfl_xor_sync(ALL, part, distance)
""",
            """    parts = cuda.shared.array(128, float32)
    parts[cuda.threadIdx.x] = part
    cuda.syncthreads()
    if g == 0:
        for i in range(1, 8):
            part += parts[cuda.threadIdx.x + i]
""",
            "traffic",
            "shared memory",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        query, key = np.zeros((2, 8), np.float32)
        query[[0, 7]], key[[0, 7]] = (1, 2), (3, 4)
        return Case(query, key[None], 32)

    def boundaries(self) -> Sequence[Case]:
        """Return a part of a warp, a whole one, and more than one."""
        sizes = ((1, 8), (2, 8), (3, 16), (4, 8), (5, 24), (8, 8), (9, 64))
        return [case_of(*size, 32) for size in sizes] + [case_of(17, 16, 64)]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        head_dims, threads = st.sampled_from((8, 16, 24, 64)), st.sampled_from((32, 64, 128))
        return st.builds(case_of, st.integers(1, 20), head_dims, threads)

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel; a score that no lane writes stays NaN."""
        scores = np.full(len(case.keys), np.nan, np.float32)
        answer[case.blocks_per_grid, case.threads_per_block](scores, case.query, case.keys)
        return {"scores": scores}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the dot products."""
        return {"scores": case.keys @ case.query}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Say which lanes the sums are of, if they are plain sums of too many or too few lanes."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        whole = case.keys @ case.query
        per_warp = [whole[i - i % 4 : i - i % 4 + 4].sum() for i in range(len(whole))]
        parts = (case.keys * case.query).reshape(len(whole), -1, LANES).sum(axis=1)
        if len(whole) > 1 and np.array_equal(result["scores"], per_warp):
            what = f"{mistake.what}: each is the sum over all tokens of a warp"
        else:
            for lanes in ((0,), (0, 4), (0, 2), (0, 1), (0, 2, 4, 6), (0, 1, 4, 5), (0, 1, 2, 3)):
                if np.array_equal(result["scores"], parts[:, lanes].sum(axis=1)):
                    what = f"{mistake.what}: each has the parts of {len(lanes)} of 8 lanes only"
                    break
            else:
                if not np.array_equal(result["scores"], LANES * parts[:, 0]):
                    return mistake
                what = f"{mistake.what}: each is 8 times the part of lane 0 of the eight, which got no other"
        return Mistake(what, mistake.got, mistake.expected)

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the shuffles of the first warp, or for traffic its worst access."""
        scores = np.full(len(case.keys), np.nan, np.float32)
        launch = answer, case.blocks_per_grid, case.threads_per_block, scores, case.query, case.keys
        accesses = lockstep.trace(*launch)
        if len(case.keys) == MEASURED:
            return worst_access(accesses, "global")
        if not any(access.kind == "shuffle" for access in accesses):
            return None
        return Tree.of_shuffles(accesses, title="The shuffles of the first warp")

    def measured(self) -> Case:
        """Return eight thread blocks of two warps."""
        return case_of(MEASURED, 64, 64)

    def limits(self, report: Report) -> Sequence[Limit]:
        """64 keys lie in 512 sectors; each of 128 requests for a part of the query is one more."""
        loads, stores = report.memory("global", "load").sectors, report.memory("global", "store").sectors
        why = "64 keys of 64 floats lie in 512 sectors of 32 bytes, and 16 warps read the 8 sectors of the query each"
        shared = report.memory("shared").requests + report.work().barriers
        return [
            Limit("sectors loaded", loads, 640, why),
            Limit("sectors stored", stores, 16, "16 warps write 4 neighbouring scores each"),
            Limit(
                "barriers, or requests to shared memory", shared, 0, "lanes can read each other's registers"
            ),
        ]


TASK = Shuffles()
