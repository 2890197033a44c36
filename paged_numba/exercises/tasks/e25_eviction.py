"""Exercise 25: evict what nobody needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ...draw.picture import Picture
from ...draw.pools.block_tables import BlockTables
from ..checker.task import Task, Wrong
from ..checker.values import Mistake


@dataclass
class Case:
    """Cached blocks, and how many of them must go."""

    parents: list[int]
    refs: list[int]
    last_used: list[int]
    count: int

    def can_go(self, gone: Sequence[int]) -> list[int]:
        """Return the blocks that may go after others have gone."""
        cached = [block for block in range(len(self.parents)) if block not in gone]
        followed = {self.parents[block] for block in cached}
        return [block for block in cached if block not in followed and not self.refs[block]]

    def follows(self, block: int, gone: Sequence[int]) -> int | None:
        """Return a cached block that follows a block."""
        after = (other for other, parent in enumerate(self.parents) if parent == block and other not in gone)
        return next(after, None)


class Eviction(Task):
    """Least recently used first, the end of a prefix before its beginning."""

    answer = "evict"
    kernel = False
    launches = False
    lesson = "14_share_and_copy"
    max_examples = 150
    hints = (
        "Choose one block at a time: when a block goes, the block before it may become free to go.",
        "A block is followed if it is the parent of a block that is still cached. The set of the parents of all "
        "cached blocks holds every such block.",
        "Among the blocks that are cached, not followed and not in use, take min(..., key=lambda block: "
        "last_used[block]).",
    )
    wrong = (
        Wrong("the beginning of a prefix goes before its end", "block not in followed and refs[block] == 0",
              "refs[block] == 0", "right", "still follows it"),
        Wrong("a block in use goes", " and refs[block] == 0", "", "right", "is in use"),
        Wrong("the most recent goes first", "min(can_go", "max(can_go", "right", "was used"),
        Wrong("the block before one that went is not looked at", "for block in cached}",
              "for block in range(len(parents))}", "right", "can still go"),
        Wrong("one too many", "len(gone) < count", "len(gone) <= count", "right",
              "one block too many goes: count is 0"),
        Wrong("an error if there are too few", "            break", "            raise MemoryError('too few')",
              "right", "too few"),
        Wrong("the order of numbers decides", "key=lambda block: last_used[block]",
              "key=lambda block: block", "right", "was used"),
    )  # fmt: skip

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case([-1, 0, 1, 0, -1], [0] * 5, [9, 7, 7, 9, 8], 4)

    def boundaries(self) -> Sequence[Case]:
        """Return no block, one that is in use, and a prefix of two."""
        return (
            Case([], [], [], 1),
            Case([-1], [0], [3], 0),
            Case([-1], [1], [3], 1),
            Case([-1, 0], [0, 0], [3, 3], 2),
        )

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws requests, each of which used a path from a first block, and perhaps still does."""
        numbers = st.integers(0, 9)
        return st.builds(
            _case,
            st.lists(st.tuples(numbers, numbers), min_size=1, max_size=9),
            st.lists(st.tuples(numbers, st.integers(1, 4), st.booleans()), max_size=6),
            st.integers(0, 9),
        )

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Call the function."""
        return {"gone": answer(case.parents, case.refs, case.last_used, case.count)}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Return the first block that should not go; of blocks that are equally old, any may."""
        got = result["gone"]
        if not isinstance(got, list) or not all(type(b) is int and 0 <= b < len(case.parents) for b in got):
            return Mistake("evict must return a list of blocks", repr(got), repr(_right(case)))
        what = self._first(case, got)
        return Mistake(what, repr(got), repr(_right(case))) if what else None

    def _first(self, case: Case, got: list[int]) -> str:
        """Return what is wrong with the first block that should not go, or with their number."""
        for i, block in enumerate(got):
            gone = got[:i]
            can_go = case.can_go(gone)
            if block in gone:
                return f"block {block} goes twice"
            if case.refs[block]:
                return f"block {block} goes, but is in use"
            if block not in can_go:
                return f"block {block} goes, but block {case.follows(block, gone)} still follows it"
            oldest = min(can_go, key=lambda other: case.last_used[other])
            if case.last_used[block] > case.last_used[oldest]:
                return (
                    f"block {block} goes, which was used in step {case.last_used[block]}, but block {oldest} "
                    f"was used in step {case.last_used[oldest]}"
                )
        if len(got) > case.count:
            return f"one block too many goes: count is {case.count}"
        return f"block {case.can_go(got)[0]} can still go" if len(got) < len(_right(case)) else ""

    def describe(self, case: Case) -> str:
        """Return the arguments."""
        lists = "parents", "refs", "last_used"
        return "\n".join([*(f"{name} = {getattr(case, name)}" for name in lists), f"count = {case.count}"])

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the prefixes, each with the blocks from its first one to a last one."""
        tables = {}
        for block in range(len(case.parents)):
            if case.follows(block, ()) is None:
                path = [block]
                while case.parents[path[0]] >= 0:
                    path.insert(0, case.parents[path[0]])
                tables[f"prefix to {block}"] = path
        lens = {name: len(path) for name, path in tables.items()}
        return BlockTables(len(case.parents), 1, tables, lens, "Prefixes that are cached") if tables else None


def _right(case: Case) -> list[int]:
    gone: list[int] = []
    while len(gone) < case.count and (can_go := case.can_go(gone)):
        gone.append(min(can_go, key=lambda block: case.last_used[block]))
    return gone


def _case(blocks: list[tuple[int, int]], requests: list[tuple[int, int, bool]], count: int) -> Case:
    """Return blocks in any order, and uses of them: of a block and of all before it."""
    size = len(blocks)
    order = sorted(range(size), key=lambda block: blocks[block][1])
    parents = [-1] * size
    for place, block in enumerate(order):
        chosen = blocks[block][0]
        parents[block] = order[(chosen - 1) % place] if place and chosen else -1
    refs, last_used = [0] * size, [0] * size
    for last, step, runs in requests:
        block = last % size
        while block >= 0:
            refs[block] += runs
            last_used[block] = max(last_used[block], step)
            block = parents[block]
    return Case(parents, refs, last_used, count)


TASK = Eviction()
