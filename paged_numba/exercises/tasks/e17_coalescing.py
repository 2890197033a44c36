"""Exercise 17: a kernel that is right, but moves too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..aids.pictures import worst_access
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake

MEASURED = (32, 64)
"""Tokens of a block, and dimensions, of the case whose traffic is counted."""


@dataclass
class Case:
    """A cache, the pairs of blocks, and the threads of a thread block."""

    cache: Any
    pairs: Any
    threads_per_block: int


def case_of(
    block_size: int, head_dim: int, threads: int, pairs: Any = ((0, 2),), num_blocks: int = 3
) -> Case:
    """Return a case with the numbers 1, 2, 3 and so on."""
    cache = np.arange(1, num_blocks * block_size * head_dim + 1, dtype=np.float32)
    return Case(cache.reshape(num_blocks, block_size, head_dim), np.array(pairs, np.int32), threads)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw pairs of which no block is overwritten twice, or copied and overwritten."""
    blocks = draw(st.permutations(range(6)))
    sources, num_pairs = blocks[:3], draw(st.integers(1, 3))
    pairs = [(draw(st.sampled_from(sources)), blocks[3 + i]) for i in range(num_pairs)]
    sizes = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return case_of(*sizes, draw(st.sampled_from((2, 4, 32))), pairs, 6)


class Coalescing(Task):
    """Threads of a warp must ask for neighbouring numbers."""

    answer = "copy_blocks"
    lesson = "10_layout_decides_traffic"
    max_examples = 30
    hints = (
        "The picture shows which bytes the lanes access at the same time. Which index must differ between lane 0 "
        "and lane 1 to make these bytes neighbours?",
        "A block is block_size * head_dim numbers in a row. Let thread t take numbers t, t + blockDim.x and so on.",
        "Number i of a block belongs to token i // head_dim and dimension i % head_dim.",
        "for i in range(cuda.threadIdx.x, block_size * head_dim, cuda.blockDim.x), and copy one number in each "
        "iteration.",
    )
    wrong = (
        Wrong(
            "the dimensions in another order, but still a token for each thread",
            """    for i in range(cuda.threadIdx.x, block_size * head_dim, cuda.blockDim.x):
        token, dim = i // head_dim, i % head_dim
""",
            """    for i in range(cuda.threadIdx.x, block_size * head_dim, cuda.blockDim.x):
        token, dim = i % block_size, i // block_size
""",
            "traffic",
            "32 sectors a request",
        ),
        Wrong(
            "each thread takes neighbouring numbers",
            "    for i in range(cuda.threadIdx.x, block_size * head_dim, cuda.blockDim.x):\n",
            "    each = -(-block_size * head_dim // cuda.blockDim.x)\n"
            "    first = cuda.threadIdx.x * each\n"
            "    for i in range(first, min(first + each, block_size * head_dim)):\n",
            "traffic",
            "32 sectors a request",
        ),
        Wrong(
            "a number for each thread, and no more",
            "    for i in range(cuda.threadIdx.x, block_size * head_dim, cuda.blockDim.x):\n",
            "    i = cuda.threadIdx.x\n    if i < block_size * head_dim:\n",
            "right",
            "block 2 is not a copy of block 0",
        ),
        Wrong(
            "one number too many",
            "block_size * head_dim, cuda.blockDim.x",
            "block_size * head_dim + 1, cuda.blockDim.x",
            "runs",
            "out of bounds",
        ),
        Wrong(
            "the token from the dimension",
            "token, dim = i // head_dim, i % head_dim",
            "token, dim = i // head_dim, i // head_dim",
            "right",
            "is not a copy of block",
        ),
        Wrong(
            "source and target in the wrong order",
            "cache[target, token, dim] = cache[source, token, dim]",
            "cache[source, token, dim] = cache[target, token, dim]",
            "right",
            "block 0 was overwritten",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement: blocks of 2 tokens with 3 dimensions."""
        return case_of(2, 3, 2)

    def boundaries(self) -> Sequence[Case]:
        """Return fewer, as many, and more tokens, and dimensions, than threads of a thread block."""
        sizes = ((1, 1), (1, 5), (3, 4), (4, 4), (5, 3), (9, 9))
        return [case_of(*size, 4) for size in sizes] + [case_of(16, 33, 32, [(1, 2), (1, 0)])]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        return drawn()

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel on a copy of the cache."""
        cache = case.cache.copy()
        answer[len(case.pairs), case.threads_per_block](cache, case.pairs)
        return {"cache": cache}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the cache with the blocks copied."""
        cache = case.cache.copy()
        cache[case.pairs[:, 1]] = cache[case.pairs[:, 0]]
        return {"cache": cache}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Name the first wrong block."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        wrong = (result["cache"] != self.expected(case)["cache"]).any(axis=(1, 2))
        block = int(np.argmax(wrong))
        sources = {int(target): int(source) for source, target in case.pairs}
        what = f"block {block} was overwritten, and is in no pair as a target"
        if block in sources:
            what = f"block {block} is not a copy of block {sources[block]}"
        return Mistake(f"{mistake.what}: {what}", mistake.got, mistake.expected)

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the access that moves most, if the result is right."""
        if case.cache.shape[1:] != MEASURED:
            return None
        launch = len(case.pairs), case.threads_per_block, case.cache.copy(), case.pairs
        copies = [access for access in lockstep.trace(answer, *launch) if access.array != "pairs"]
        return worst_access(copies, "global")

    def measured(self) -> Case:
        """Return two pairs, and a thread for each token."""
        return case_of(*MEASURED, 32, [(0, 2), (0, 1)])

    def limits(self, report: Report) -> Sequence[Limit]:
        """A block lies in 256 sectors; a variant loads its pair anew for each of the 64 requests."""
        loads, stores = report.memory("global", "load"), report.memory("global", "store")
        why = "a block of 2,048 numbers lies in 256 sectors of 32 bytes, and there are 2 pairs"
        each = f"; your warps store to {stores.sectors_per_request:.3g} sectors a request"
        if stores.bytes_asked > 2 * 2048 * 4:
            each = f"; your threads store {stores.bytes_asked // 4:,} numbers, so several copy the same"
        return [
            Limit("sectors stored", stores.sectors, 512, why + each * (stores.sectors > 512)),
            Limit(
                "sectors loaded", loads.sectors, 512 + 256, f"{why}, whose numbers may be loaded each time"
            ),
        ]


TASK = Coalescing()
