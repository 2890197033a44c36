"""Exercise 09: keys of a ragged batch, brought together through the block tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...draw.picture import Picture
from ...draw.pools.block_tables import BlockTables
from ...draw.text import plural
from ...errors import KernelError
from ...lockstep.profiler.report import Report
from ..aids.paged import block_tables_of, num_blocks_of, paged, way_to
from ..aids.sectors import sectors
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake, assigned, shown_array

BEFORE = -7.0
"""What `out` holds before the launch."""


@dataclass
class Case:
    """Arguments of the kernel, the size of a block, and what each sequence holds: `dense`."""

    cache: Any
    block_tables: Any
    seq_lens: Any
    dense: list[Any]

    @property
    def block_size(self) -> int:
        """Slots of a block."""
        return int(self.cache.shape[1])

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the dense array, with one row at least."""
        return len(self.seq_lens), max(1, *self.seq_lens.tolist()), *self.cache.shape[2:]


def case_of(lens: list[int], block_size: int = 4, heads: int = 1, dims: int = 2, seed: int = 0) -> Case:
    """Return a case whose numbers say of which sequence, token, head and dimension they are."""
    dense = []
    for seq, seq_len in enumerate(lens):
        token, head, dim = np.indices((seq_len, heads, dims))
        dense.append(10000 * (seq + 1) + 100 * token + 10 * head + dim)
    tables = block_tables_of(lens, block_size, seed)
    return Case(paged(dense, tables, block_size), tables, np.array(lens, np.int32), dense)


class Gather(Task):
    """A thread block copies one token."""

    answer = "gather"
    lesson = "06_right_before_fast"
    hints = (
        "First ask whether the row has a token: compare its position with seq_lens[seq] before you read the block "
        "table.",
        "The block is block_tables[seq, token // block_size], and the offset in it is token % block_size.",
        "A row without a token must also be written: out[seq, token, head, dim] = float32(0) in the else branch.",
    )
    wrong = (
        Wrong(
            "no test of the length",
            "if token < seq_lens[seq]:",
            "if True:",
            "right",
            "must be 0: sequence 0 has no token; NaN is what",
        ),
        Wrong(
            "one token too many",
            "token < seq_lens[seq]",
            "token <= seq_lens[seq]",
            "right",
            "must be 0: sequence 0 has no token; NaN is what",
        ),
        Wrong(
            "rows behind the end are left out",
            "    else:\n        out[seq, token, head, dim] = float32(0)\n",
            "",
            "right",
            "must be 0, and nothing was written to it",
        ),
        Wrong(
            "the block table is left out",
            "block_tables[seq, token // block_size]",
            "token // block_size",
            "right",
            "as if each sequence had the blocks 0, 1, 2",
        ),
        Wrong(
            "the block table of the first sequence",
            "block_tables[seq, token",
            "block_tables[0, token",
            "right",
            "as if all sequences had the block table of sequence 0",
        ),
        Wrong(
            "the first block alone",
            "block_tables[seq, token // block_size]",
            "block_tables[seq, 0]",
            "right",
            "as if each token were in the first block",
        ),
        Wrong(
            "each thread copies the whole row",
            "        out[seq, token, head, dim] = cache[block, offset, head, dim]\n",
            "        for dim in range(cache.shape[3]):\n"
            "            out[seq, token, head, dim] = cache[block, offset, head, dim]\n",
            "traffic",
            "of 1 number in 1 sector",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        case = case_of([3, 1], 2, 1, 1)
        tables = np.array([[3, 0, 1], [2, 1, 1]], np.int32)
        return Case(paged(case.dense, tables, 2)[:4], tables, case.seq_lens, case.dense)

    def boundaries(self) -> Sequence[Case]:
        """Return lengths around multiples of the block size, sequences without tokens, and several heads."""
        lens = [1], [3], [4], [5], [8], [9], [0], [2, 0], [0, 4], [1, 4], [5, 3, 8]
        return [*(case_of(one) for one in lens), case_of([2, 3], 1), case_of([3, 5], 2, 2, 3)]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases; lengths shrink towards 1, since 0 hides most mistakes."""
        lens = st.lists(st.sampled_from((*range(1, 10), 0)), min_size=1, max_size=3)
        sizes = st.sampled_from((4, 2, 3, 1, 5)), st.integers(1, 2), st.integers(1, 3), st.integers(0, 99)
        return st.builds(case_of, lens, *sizes)

    def weight(self, case: Case) -> int:
        """Return the elements of the dense array."""
        return int(np.prod(case.out_shape))

    def describe(self, case: Case) -> str:
        """Return the case as code."""
        lens = case.seq_lens.tolist()
        rows, (heads, dims) = case.out_shape[1], case.cache.shape[2:]
        return (
            f"seq_lens = {lens}\n"
            f"{assigned('block_tables', case.block_tables)}\n"
            f"cache = np.full({case.cache.shape}, np.nan)\n"
            "cache[block, offset, head, dim] = 10000 * (seq + 1) + 100 * token + 10 * head + dim  "
            "# in the slots of tokens\n"
            f"gather[({rows}, {len(lens)}), ({dims}, {heads})](...)"
        )

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel on an array that holds the same number everywhere."""
        out = np.full(case.out_shape, BEFORE, np.float32)
        num_seqs, rows, heads, dims = out.shape
        answer[(rows, num_seqs), (dims, heads)](out, case.cache, case.block_tables, case.seq_lens)
        return {"out": out}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the dense array, by NumPy."""
        out = np.zeros(case.out_shape, np.float32)
        for row, dense in zip(out, case.dense, strict=True):
            row[: len(dense)] = dense
        return {"out": out}

    def _wrong_rows(self, case: Case, out: Any) -> list[tuple[int, int]]:
        wrong = (out != self.expected(case)["out"]).any(axis=(2, 3))
        return [(seq, token) for seq, token in np.argwhere(wrong).tolist()]

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Name the first row that is wrong, and what is in it instead."""
        out, right = result["out"], self.expected(case)["out"]
        wrong = self._wrong_rows(case, out)
        if not wrong:
            return None
        seq, token = wrong[0]
        got, seq_len = out[seq, token], int(case.seq_lens[seq])
        what = f"out[{seq}, {token}] must hold token {token} of sequence {seq}"
        if token >= seq_len:
            what = f"out[{seq}, {token}] must be 0"
        if (got == BEFORE).all():
            what += ", and nothing was written to it"
        elif token >= seq_len:
            tokens = f"only {plural(seq_len, 'token')}" if seq_len else "no token"
            what += f": sequence {seq} has {tokens}"
            what += "; NaN is what slots without a token hold" if np.isnan(got).any() else ""
        else:
            held = [
                (s, t)
                for s, rows in enumerate(case.dense)
                for t, row in enumerate(rows)
                if np.array_equal(row, got)
            ]
            what += f", and holds token {held[0][1]} of sequence {held[0][0]}" if held else ""
            what += ", and holds NaN: that slot has no token" if np.isnan(got).all() else ""
        name = f"out[{seq}, {token}] =\n"
        return Mistake(what, name + shown_array(got), name + shown_array(right[seq, token]))

    def attempt(self, answer: Any, case: Case) -> Mistake | None:
        """Run the answer; name a mistake if it makes what came out, on a larger case as well."""
        mistake = super().attempt(answer, case)
        if mistake is None or "must hold" not in mistake.what:
            return mistake
        found = set(self._faults(answer, case))
        if found:
            with contextlib.suppress(KernelError):
                found &= set(self._faults(answer, case_of([7, 3, 9], seed=1)))
        if len(found) != 1:
            return mistake
        what = mistake.what.partition(", and ")[0]
        return Mistake(f"{what}: {found.pop()}", mistake.got, mistake.expected)

    def _faults(self, answer: Any, case: Case) -> list[str]:
        """Return the mistakes that make what comes out of a case."""
        # NaN hides which slot it comes from.
        free = np.isnan(case.cache)
        case = replace(
            case,
            cache=np.where(free, -1 - np.arange(free.size, dtype=np.float32).reshape(free.shape), case.cache),
        )
        out = self.run(answer, case)["out"]
        size, tables = case.block_size, case.block_tables
        ways: dict[str, Callable[[int, int], Any]] = {
            "as if each sequence had the blocks 0, 1, 2 and so on, whatever its block table says": lambda seq, token: (
                token // size
            ),
            "as if all sequences had the block table of sequence 0": lambda seq, token: tables[
                0, token // size
            ],
            "as if each token were in the first block of its sequence": lambda seq, token: tables[seq, 0],
            "as if entry i of a block table were the block of token i": lambda seq, token: tables[
                seq, min(token, tables.shape[1] - 1)
            ],
        }
        places = [(seq, token) for seq, rows in enumerate(case.dense) for token in range(len(rows))]
        found = []
        for what, way in ways.items():
            blocks = [int(way(seq, token)) for seq, token in places]
            if max(blocks) < len(case.cache) and all(
                np.array_equal(out[seq, token], case.cache[block, token % size], equal_nan=True)
                for (seq, token), block in zip(places, blocks, strict=True)
            ):
                found.append(what)
        return found

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the way to the first wrong token, or the block tables if the row has none."""
        wrong = self._wrong_rows(case, self.run(answer, case)["out"])
        lens, size = case.seq_lens.tolist(), case.block_size
        if not wrong:
            return None
        seq, token = wrong[0]
        if token < lens[seq]:
            return way_to(case.block_tables, lens, size, seq, token)
        tables = {
            f"sequence {i}": table[: -(-seq_len // size)].tolist()
            for i, (table, seq_len) in enumerate(zip(case.block_tables, lens, strict=True))
        }
        return BlockTables(
            num_blocks_of(lens, size),
            size,
            tables,
            {f"sequence {i}": seq_len for i, seq_len in enumerate(lens)},
        )

    def measured(self) -> Case:
        """Return 5, 0 and 9 tokens of 64 numbers."""
        return case_of([5, 0, 9], 4, 2, 32)

    def limits(self, report: Report) -> Sequence[Limit]:
        """64 floats lie in 8 sectors; there are 14 tokens, and 27 rows."""
        row = 64 * 4
        why = "a token has 64 floats, which lie in 8 sectors, and there are 14 tokens"
        stored = "a row has 64 floats, which lie in 8 sectors, and there are 3 * 9 rows"
        return [
            sectors(report, "cache", 14 * 8, 14 * row, why),
            sectors(report, "out", 27 * 8, 27 * row, stored, "store"),
        ]


TASK = Gather()
