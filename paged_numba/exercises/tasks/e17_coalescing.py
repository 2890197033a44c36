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
from ..checker.pictures import worst_access
from ..checker.task import Limit, Task, Wrong

MEASURED = 64
"""Tokens and threads of the case whose traffic is counted."""


@dataclass
class Case:
    """Quantized keys with their scales, and the threads of a thread block."""

    quantized: Any
    scales: Any
    threads_per_block: int

    @property
    def blocks_per_grid(self) -> int:
        """Enough thread blocks for a thread for each token."""
        return -(-len(self.scales) // self.threads_per_block)


def case_of(num_tokens: int, head_dim: int, threads: int) -> Case:
    """Return a case with the keys 1, 2, 3 and so on, up to 100 and again, and the scales 1, 2, 4, 0.5."""
    quantized = np.arange(num_tokens * head_dim).reshape(num_tokens, head_dim) % 100 + 1
    scales = np.resize([1, 2, 4, 0.5], num_tokens)
    return Case(quantized.astype(np.int8), scales.astype(np.float32), threads)


class Coalescing(Task):
    """Threads of a warp must ask for neighbouring numbers."""

    answer = "dequantize"
    lesson = "10_layout_decides_traffic"
    max_examples = 30
    hints = (
        "In the picture: lane 0 asks for byte 0, lane 1 for byte 64. Which index must differ between the two, so that "
        "they are neighbours?",
        "Let the dimension depend on threadIdx.x, and let all threads of the thread block go through its tokens.",
        "for dim in range(cuda.threadIdx.x, head_dim, cuda.blockDim.x) gives neighbouring threads neighbouring "
        "dimensions, and takes care of more dimensions than threads.",
        "Around it: for token in range(first, min(first + cuda.blockDim.x, num_tokens)), where first is "
        "cuda.blockIdx.x * cuda.blockDim.x.",
    )
    wrong = (
        Wrong(
            "the loops change places, but not the threads",
            """    for token in range(first, min(first + cuda.blockDim.x, num_tokens)):
        for dim in range(cuda.threadIdx.x, head_dim, cuda.blockDim.x):
            keys""",
            """    token = first + cuda.threadIdx.x
    for dim in range(head_dim - 1, -1, -1):
        if token < num_tokens:
            keys""",
            "traffic",
            "sectors loaded",
        ),
        Wrong(
            "each thread takes neighbouring dimensions",
            "        for dim in range(cuda.threadIdx.x, head_dim, cuda.blockDim.x):\n",
            "        each = -(-head_dim // cuda.blockDim.x)\n"
            "        for dim in range(cuda.threadIdx.x * each, min(cuda.threadIdx.x * each + each, head_dim)):\n",
            "traffic",
            "sectors loaded",
        ),
        Wrong(
            "tokens past the end",
            "min(first + cuda.blockDim.x, num_tokens)",
            "first + cuda.blockDim.x",
            "right",
            "out of bounds",
        ),
        Wrong(
            "all thread blocks take the first tokens",
            "range(first, min(first + cuda.blockDim.x, num_tokens))",
            "range(min(cuda.blockDim.x, num_tokens))",
            "right",
            "nan",
        ),
        Wrong(
            "a dimension for each thread, and no more",
            "range(cuda.threadIdx.x, head_dim, cuda.blockDim.x)",
            "range(cuda.threadIdx.x, min(head_dim, cuda.threadIdx.x + 1))",
            "right",
            "nan",
        ),
        Wrong(
            "the scale of another token", "scales[token]", "scales[first]", "right", "What should come out"
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement, with a second token."""
        return Case(np.array([[2, -4], [3, 1]], np.int8), np.array([0.5, 10], np.float32), 2)

    def boundaries(self) -> Sequence[Case]:
        """Return fewer, as many, and more tokens, and dimensions, than threads of a thread block."""
        sizes = ((1, 1), (1, 5), (3, 4), (4, 4), (5, 3), (9, 9))
        return [case_of(*size, 4) for size in sizes] + [case_of(33, 70, 32)]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        return st.builds(case_of, st.integers(1, 20), st.integers(1, 20), st.sampled_from((2, 4, 8)))

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel; a key that no thread writes stays NaN."""
        keys = np.full(case.quantized.shape, np.nan, np.float32)
        answer[case.blocks_per_grid, case.threads_per_block](keys, case.quantized, case.scales)
        return {"keys": keys}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the scaled keys."""
        return {"keys": case.scales[:, None] * case.quantized}

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the access that moves most; of a wrong result, the launch and the tokens."""
        if len(case.scales) < MEASURED:
            return Threads(
                case.blocks_per_grid, case.threads_per_block, len(case.scales), "A thread per token"
            )
        keys = np.full(case.quantized.shape, np.nan, np.float32)
        launch = answer, case.blocks_per_grid, case.threads_per_block
        return worst_access(lockstep.trace(*launch, keys, case.quantized, case.scales), "global")

    def measured(self) -> Case:
        """Return a thread block of two warps, and a token for each thread."""
        return case_of(MEASURED, 128, MEASURED)

    def limits(self, report: Report) -> Sequence[Limit]:
        """64 x 128 int8 lie in 256 sectors, as many floats in 1,024; each request loads a scale as well."""
        loads, stores = report.memory("global", "load"), report.memory("global", "store")
        why = (
            "64 tokens of 128 bytes lie in 256 sectors of 32 bytes, and each of 256 requests needs the scale of its "
            f"token; yours has {loads.sectors_per_request:.3g} sectors a request"
        )
        return [
            Limit("sectors loaded", loads.sectors, 512, why),
            Limit(
                "sectors stored",
                stores.sectors,
                1024,
                "64 tokens of 512 bytes lie in 1,024 sectors of 32 bytes",
            ),
        ]


TASK = Coalescing()
