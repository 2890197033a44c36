"""Exercise 07: keys and values of a batch, written to their slots."""

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
from ..aids.sectors import sectors
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake, shown_array

BEFORE = -7.0
"""What all slots hold before the launch."""


@dataclass
class Case:
    """The arrays of tokens, and the sizes of the caches and of a thread block."""

    key: Any
    value: Any
    slot_mapping: Any
    num_blocks: int
    block_size: int
    threads: int


def case_of(slots: list[int], heads: int, dims: int, block_size: int = 4, threads: int = 4) -> Case:
    """Return a case whose numbers say of which token, head and dimension they are."""
    token, head, dim = np.indices((len(slots), heads, dims))
    key = (100 * token + 10 * head + dim).astype(np.float32)
    num_blocks = 2 + max(0, *slots) // block_size
    return Case(key, key + np.float32(0.5), np.array(slots, np.int64), num_blocks, block_size, threads)


class Write(Task):
    """A thread block writes one token."""

    answer = "write_kv"
    lesson = "05_scattered_writes"
    hints = (
        "cuda.blockIdx.x is the token. Read its slot first: what must happen if it is negative?",
        "block = slot // block_size and offset = slot % block_size, where block_size is key_cache.shape[1].",
        "range(cuda.threadIdx.x, numbers, cuda.blockDim.x) gives this thread its numbers; for a thread without any, "
        "the range is empty.",
        "Number i belongs to head i // head_dim and dimension i % head_dim: key_cache[block, offset, head, dim] = "
        "key[token, head, dim].",
    )
    wrong = (
        Wrong("no guard", "if slot < 0:", "if False:", "right", "-1 is no slot"),
        Wrong("slot 0 is taken for padding", "if slot < 0:", "if slot <= 0:", "right", "slot 0 of key_cache"),
        Wrong(
            "each thread writes one number at most",
            "range(cuda.threadIdx.x, num_heads * head_dim, cuda.blockDim.x)",
            "range(cuda.threadIdx.x, min(num_heads * head_dim, cuda.blockDim.x), cuda.blockDim.x)",
            "right",
            "holds only part of token",
        ),
        Wrong(
            "block and offset exchanged",
            "block, offset = slot // block_size",
            "offset, block = slot // block_size",
            "right",
            "no token has it",
        ),
        Wrong(
            "all tokens go to the first slot",
            "slot_mapping[token]",
            "slot_mapping[0]",
            "right",
            "holds token 1",
        ),
        Wrong(
            "every thread writes everything",
            "range(cuda.threadIdx.x, num_heads * head_dim, cuda.blockDim.x)",
            "range(num_heads * head_dim)",
            "traffic",
            "192 requests, each of 1 number in 1 sector",
        ),
        Wrong(
            "each thread takes neighbouring numbers",
            "for number in range(cuda.threadIdx.x, num_heads * head_dim, cuda.blockDim.x):",
            "share = -(-num_heads * head_dim // cuda.blockDim.x)\n"
            "    first = cuda.threadIdx.x * share\n"
            "    for number in range(first, min(first + share, num_heads * head_dim)):",
            "traffic",
            "6 requests, each of 32 numbers in 8 sectors",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return case_of([6, -1], 2, 3)

    def boundaries(self) -> Sequence[Case]:
        """Return slots at both ends of a block, padding, and as many, fewer and more numbers than threads."""
        slots = [0], [3], [4], [-1], [-1, 2], [2, -1, -1], [5, 0, 4, -1, 3]
        sizes = (1, 1), (1, 3), (1, 4), (1, 5), (2, 2), (2, 4), (3, 3)
        return [
            *(case_of(one, 1, 1) for one in slots),
            *(case_of([5, 2], heads, dims) for heads, dims in sizes),
            case_of([9, -1, 0], 3, 11, 5, 32),
        ]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        slots = st.lists(
            st.integers(-1, 11),
            min_size=1,
            max_size=5,
            unique_by=lambda slot: slot if slot >= 0 else object(),
        )
        sizes = (
            st.integers(1, 3),
            st.integers(1, 5),
            st.sampled_from((4, 2, 3, 5, 1)),
            st.sampled_from((4, 1, 2, 32)),
        )
        return st.builds(case_of, slots, *sizes)

    def weight(self, case: Case) -> int:
        """Return how many numbers the tokens have."""
        return int(case.key.size)

    def describe(self, case: Case) -> str:
        """Return the case as code."""
        heads, dims = case.key.shape[1:]
        shape = case.num_blocks, case.block_size, heads, dims
        return (
            f"slot_mapping = {case.slot_mapping.tolist()}\n"
            f"token, head, dim = np.indices({case.key.shape})\n"
            "key = 100 * token + 10 * head + dim\n"
            "value = key + 0.5\n"
            f"key_cache = value_cache = np.full({shape}, {BEFORE})  # two arrays\n"
            f"write_kv[{len(case.slot_mapping)}, {case.threads}](...)"
        )

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel on caches that hold the same number everywhere."""
        shape = case.num_blocks, case.block_size, *case.key.shape[1:]
        caches = {name: np.full(shape, BEFORE, np.float32) for name in ("key_cache", "value_cache")}
        answer[len(case.slot_mapping), case.threads](
            *caches.values(), case.key, case.value, case.slot_mapping
        )
        return caches

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the caches, written by NumPy."""
        shape = case.num_blocks * case.block_size, *case.key.shape[1:]
        real = case.slot_mapping >= 0
        result = {}
        for name, array in (("key_cache", case.key), ("value_cache", case.value)):
            cache = np.full(shape, BEFORE, np.float32)
            cache[case.slot_mapping[real]] = array[real]
            result[name] = cache.reshape(case.num_blocks, case.block_size, *shape[1:])
        return result

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Name the first slot that is wrong: one that was not to change before one that holds something else."""
        right = self.expected(case)
        for name, slot in self._wrong_slots(case, result):
            got, should = (caches[name].reshape(-1, *case.key.shape[1:]) for caches in (result, right))
            block, offset = divmod(slot, case.block_size)
            what = f"slot {slot} of {name}, block {block} and offset {offset},"
            if slot not in case.slot_mapping:
                what += " has changed, and no token has it"
                last = slot == len(got) - 1
                if last and any(
                    np.array_equal(got[slot], self._tokens(case, name)[token])
                    for token in np.flatnonzero(case.slot_mapping < 0)
                ):
                    what += (
                        ": it holds a padding token. -1 is no slot, but as an index it is the last block, and "
                        f"-1 % {case.block_size} = {-1 % case.block_size}"
                    )
            else:
                token = int(np.flatnonzero(case.slot_mapping == slot)[0])
                part = (got[slot] == should[slot]) | (got[slot] == BEFORE)
                if (got[slot] == BEFORE).all():
                    what += f" must hold token {token}, and nothing was written to it"
                elif part.all():
                    what += f" holds only part of token {token}"
                else:
                    tokens = [
                        i for i, one in enumerate(self._tokens(case, name)) if np.array_equal(one, got[slot])
                    ]
                    what += f" must hold token {token}, and holds {f'token {tokens[0]}' if tokens else 'other numbers'}"
            return Mistake(
                what,
                f"{name}[{block}, {offset}] =\n{shown_array(got[slot])}",
                f"{name}[{block}, {offset}] =\n{shown_array(should[slot])}",
            )
        return None

    def _tokens(self, case: Case, name: str) -> Any:
        """Return the array that goes to a cache."""
        return case.key if name == "key_cache" else case.value

    def _wrong_slots(self, case: Case, result: dict[str, Any]) -> list[tuple[str, int]]:
        """Return the caches and slots that are wrong, first those that were not to change."""
        found = []
        for name, right in self.expected(case).items():
            wrong = np.flatnonzero((result[name] != right).any(axis=(2, 3)))
            found += [(name, slot) for slot in wrong.tolist()]
        return sorted(found, key=lambda one: one[1] in case.slot_mapping)

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return which sectors a warp touches, if the result is right and too much moves."""
        caches = self.run(answer, case)
        if self._wrong_slots(case, caches):
            return None
        grid = len(case.slot_mapping), case.threads
        arguments = *caches.values(), case.key, case.value, case.slot_mapping
        accesses = lockstep.trace(answer, *grid, *arguments)
        names = "key", "value", *caches
        return worst_access([access for access in accesses if access.array in names], "global")

    def measured(self) -> Case:
        """Return 3 tokens of 64 numbers and one of padding, for thread blocks of one warp."""
        return case_of([5, 0, -1, 10], 2, 32, 4, 32)

    def limits(self, report: Report) -> Sequence[Limit]:
        """64 floats lie in 8 sectors; a launch has 4 thread blocks of one warp, and 3 of them write."""
        why = "a token has 64 floats, which lie in 8 sectors, and 3 tokens are not padding"
        return [
            limit
            for name in ("key", "value")
            for limit in (
                sectors(report, name, 24, 3 * 64 * 4, why),
                sectors(report, f"{name}_cache", 24, 3 * 64 * 4, why, "store"),
            )
        ]


TASK = Write()
