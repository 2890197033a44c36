"""Exercise 04: the slots of new tokens, from the block tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...draw.picture import Picture
from ...draw.pools.token_path import TokenPath
from ...draw.text import plural
from ..checker.task import Task, Wrong
from ..checker.values import Mistake

STALE = 2
"""Entries behind the last block of each drawn block table."""


@dataclass
class Case:
    """The arguments of the function."""

    block_tables: list[list[int]]
    seq_lens: list[int]
    num_new: list[int]
    block_size: int


def case_of(sequences: list[tuple[int, int]], block_size: int, step: int) -> Case:
    """Return a case of sequences with so many old and new tokens; steps of 1 give each neighbouring blocks."""
    lens = [old + new for old, new in sequences]
    needed = [-(-seq_len // block_size) for seq_len in lens]
    # Not from 0 on: with small numbers, several mistakes give the same slots.
    blocks = [7 + (step * i) % 97 for i in range(sum(needed) + STALE * len(lens))]
    ends = np.cumsum([0, *(count + STALE for count in needed)]).tolist()
    tables = [blocks[begin:end] for begin, end in pairwise(ends)]
    return Case(tables, lens, [new for _, new in sequences], block_size)


class Slots(Task):
    """A function on the host, from positions to slots."""

    answer = "slots"
    kernel = False
    launches = False
    lesson = "04_page_table"
    hints = (
        "Which positions do the new tokens have? The first token of a sequence has position 0, the last seq_len - 1.",
        "A position is in logical block position // block_size, at offset position % block_size.",
        "The slot is table[position // block_size] * block_size + position % block_size, for each position in "
        "range(seq_len - new, seq_len).",
    )
    wrong = (
        Wrong(
            "the new tokens are not in seq_lens",
            "range(seq_len - new, seq_len)",
            "range(seq_len, seq_len + new)",
            "right",
            "as if seq_lens did not count the new tokens",
        ),
        Wrong(
            "the block table is left out",
            "block * block_size + position % block_size",
            "position",
            "right",
            "as if each sequence had the blocks 0, 1, 2",
        ),
        Wrong(
            "a block in place of its first slot",
            "block * block_size + position",
            "block + position",
            "right",
            "block + offset",
        ),
        Wrong(
            "offsets begin at the first new token",
            "+ position % block_size",
            "+ (position - (seq_len - new)) % block_size",
            "right",
            "as if the first new token had offset 0",
        ),
        Wrong(
            "the first block for all tokens",
            "position // block_size",
            "(seq_len - new) // block_size",
            "right",
            "as if all new tokens of a sequence were in the block of the first of them",
        ),
        Wrong(
            "the last entry of the block table",
            "table[position // block_size]",
            "table[-1]",
            "right",
            "in the block of the last entry",
        ),
        Wrong(
            "each position too large by 1",
            "range(seq_len - new, seq_len)",
            "range(seq_len - new + 1, seq_len + 1)",
            "right",
            "as if each position were 1 too large",
        ),
        Wrong("no return", "    return found\n", "", "right", "returns None"),
        Wrong("a list for each sequence", "    found = []", "    found = [[]]", "right", "must be integers"),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case([[5, 2, 9], [0]], [7, 1], [2, 1], 4)

    def boundaries(self) -> Sequence[Case]:
        """Return sequences that end before, at and after the end of a block, and steps without new tokens."""
        single = [
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 1),
            (4, 1),
            (0, 4),
            (0, 5),
            (3, 2),
            (4, 4),
            (2, 0),
            (0, 0),
            (7, 6),
        ]
        return [
            *(case_of([one], 4, 5) for one in single),
            Case([], [], [], 4),
            case_of([(1, 2)], 1, 3),
            case_of([(3, 1), (2, 0), (0, 5)], 4, 7),
        ]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        sequence = st.tuples(st.integers(0, 9), st.integers(0, 9))
        return st.builds(
            case_of,
            st.lists(sequence, max_size=3),
            st.sampled_from((4, 2, 3, 1, 5)),
            st.sampled_from((1, 3, 5, 7)),
        )

    def weight(self, case: Case) -> int:
        """Return the number of tokens and sequences."""
        return sum(case.seq_lens) + sum(case.num_new) + len(case.seq_lens)

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Call the function."""
        return {"slots": answer(case.block_tables, case.seq_lens, case.num_new, case.block_size)}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return the slots, by NumPy."""
        return {"slots": self._slots(case)}

    def _slots(self, case: Case, fault: str = "") -> list[int]:
        """Return the slots, or what a fault makes of them."""
        size, found = case.block_size, []
        for table, seq_len, new in zip(case.block_tables, case.seq_lens, case.num_new, strict=True):
            start = {"lens": seq_len, "next": seq_len - new + 1}.get(fault, seq_len - new)
            positions = np.arange(new) + start
            block, offset = np.divmod(positions, size)
            if fault == "first":
                block[:] = block[:1]
            if fault == "entry":
                block[:] = len(table) - 1
            if fault == "offset":
                offset = np.arange(new) % size
            if np.any(block >= len(table)):
                return []
            first = block if fault == "table" else np.array(table, np.int64)[block]
            found += (first * (1 if fault == "block" else size) + offset).tolist()
        return found

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Name the mistake if the slots are those that it makes."""
        got, right = result["slots"], self._slots(case)
        if got is None:
            return Mistake("your function returns None, and must return a list", "None", str(right))
        try:
            found = list(got)
        except TypeError:
            return Mistake("your function must return a list", repr(got), str(right))
        if not all(isinstance(one, (int, np.integer)) and not isinstance(one, bool) for one in found):
            return Mistake("the slots must be integers in one list", repr(got), str(right))
        if found == right:
            return None
        num_wrong = sum(a != b for a, b in zip(found, right, strict=False))
        what = f"{num_wrong} of {len(right)} slots {'is' if num_wrong == 1 else 'are'} wrong"
        if len(right) == 1:
            what = "the slot is wrong"
        if len(found) != len(right):
            what = (
                f"there are {len(right)} new tokens, and your function returns {plural(len(found), 'slot')}"
            )
        elif sorted(found) == sorted(right):
            what += ": they are the right ones in another order"
        faults = {
            "lens": "as if seq_lens did not count the new tokens",
            "next": "as if each position were 1 too large (the last token of a sequence has position seq_len - 1)",
            "entry": "as if all new tokens were in the block of the last entry of the block table",
            "table": "as if each sequence had the blocks 0, 1, 2 and so on, whatever its block table says",
            "block": "each is block + offset, but the first slot of a block is block * block_size",
            "offset": "as if the first new token had offset 0, wherever it is in its block",
            "first": "as if all new tokens of a sequence were in the block of the first of them",
        }
        names = [name for name in faults if found == self._slots(case, name)]
        if 1 <= len(names) <= 2:
            what += f": {', or '.join(faults[name] for name in names)}"
        return Mistake(what, str([int(one) for one in found]), str(right))

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the way of the first token whose slot is wrong."""
        got = self.run(answer, case)["slots"]
        found = list(got) if isinstance(got, (list, tuple, np.ndarray)) else []
        right = self._slots(case)
        wrong = next((i for i, slot in enumerate(right) if found[i : i + 1] != [slot]), None)
        if wrong is None:
            return None
        sequence = int(np.searchsorted(np.cumsum(case.num_new), wrong, side="right"))
        seq_len = case.seq_lens[sequence]
        position = seq_len - int(np.cumsum(case.num_new)[sequence]) + wrong
        table = case.block_tables[sequence]
        return TokenPath(
            f"sequence {sequence}",
            position,
            table,
            seq_len,
            1 + max(table),
            case.block_size,
            "The way to the first wrong slot",
        )


TASK = Slots()
