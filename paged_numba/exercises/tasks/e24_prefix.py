"""Exercise 24: find a cached prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from hypothesis import strategies as st

from ...draw.picture import Picture
from ...draw.pools.block_tables import BlockTables
from ..aids.calls import Call, code, play, shown_call
from ..checker.task import Task, Wrong
from ..checker.values import Mistake


@dataclass
class Case:
    """A block size, and calls."""

    block_size: int
    calls: list[Call]

    @property
    def prompts(self) -> list[Call]:
        """The calls of insert."""
        return [call for call in self.calls if call[0] == "insert"]


class Prefix(Task):
    """Blocks by their tokens and all tokens before them."""

    answer = "PrefixCache"
    kernel = False
    launches = False
    lesson = "14_share_and_copy"
    max_examples = 150
    hints = (
        "Use a dict from tokens to a block. A list cannot be a key of a dict; a tuple can.",
        "If the key is only the block's own tokens, find also returns the block after other tokens. Use as the key "
        "either all tokens up to the end of the block, or the block's own tokens and the block before it.",
        "If the key includes the block before: where that block was already cached, use the cached block, not the "
        "one in the table. dict.setdefault returns it.",
        "insert goes through num_written // block_size blocks, find through (len(tokens) - 1) // block_size. find "
        "stops at the first block that is not cached.",
    )
    wrong = (
        Wrong("a block is found by its own tokens alone", "before = self.blocks.get((before, ids))",
              "before = {key[1]: block for key, block in self.blocks.items()}.get(ids)", "right",
              "not after the tokens of the prompt"),
        Wrong("the whole prompt is served", "(len(tokens) - 1) // self.block_size", "len(tokens) // self.block_size",
              "right", "no token is left to compute"),
        Wrong("blocks that are not written can be found", "num_written // self.block_size",
              "len(tokens) // self.block_size", "right", "is not written"),
        Wrong("blocks that are not full can be found", "num_written // self.block_size",
              "-(-num_written // self.block_size)", "right", "is not written"),
        Wrong("a hash that does not see the order", "self.blocks.setdefault((before, ids), table[place])",
              "self.blocks.setdefault((before, tuple(sorted(ids))), table[place])", "right", "find"),
        Wrong("the newest stays", "before = self.blocks.setdefault((before, ids), table[place])",
              "self.blocks[before, ids] = before = table[place]", "right", "was cached before it"),
        Wrong("follows the table where a block was cached already",
              "before = self.blocks.setdefault((before, ids), table[place])",
              "self.blocks.setdefault((before, ids), table[place])\n            before = table[place]",
              "right", "find"),
        Wrong("finds the first block only", "            found.append(before)\n",
              "            found.append(before)\n            break\n", "right", "more blocks are cached"),
    )  # fmt: skip

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case(
            2,
            [
                ("insert", [5, 6, 7, 8, 9], [3, 0, 4], 5),
                ("insert", [1, 2, 7, 8], [6, 2], 4),
                ("find", [5, 6, 7, 8, 4]),
                ("find", [1, 2, 7, 8]),
            ],
        )

    def boundaries(self) -> Sequence[Case]:
        """Return prompts of a token less and more than a block, and what is partly written."""
        return (
            Case(2, [("find", [1])]),
            Case(2, [("insert", [1, 2], [0], 2), ("find", [1]), ("find", [1, 2]), ("find", [1, 2, 3])]),
            Case(2, [("insert", [1, 2, 3, 4], [0, 1], 3), ("find", [1, 2, 3, 4, 5])]),
        )

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws prompts of few different blocks."""
        return st.integers(1, 3).flatmap(_cases)

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Make the calls."""
        return {"steps": play(answer(case.block_size), case.calls, ())}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Return the first call of find that returns other blocks than it should."""
        size = case.block_size
        cached: dict[tuple[int, ...], int] = {}
        for step in result["steps"]:
            name, tokens, *rest = step.call
            if name == "insert":
                for place in range(rest[1] // size):
                    cached.setdefault(tuple(tokens[: (place + 1) * size]), rest[0][place])
                continue
            right: list[int] = []
            for end in range(size, len(tokens), size):
                if tuple(tokens[:end]) not in cached:
                    break
                right.append(cached[tuple(tokens[:end])])
            if step.returned != right:
                what = (
                    f"{shown_call(step.call)} is wrong{self._why(case, tokens, step.returned, right, cached)}"
                )
                return Mistake(what, repr(step.returned), repr(right))
        return None

    def _why(self, case: Case, tokens: list[int], got: Any, right: list[int], cached: dict[Any, int]) -> str:
        """Return what the blocks that were found say of the mistake."""
        if not isinstance(got, list) or not all(type(block) is int for block in got):
            return ": it must return a list of blocks"
        same = sum(a == b for a, b in zip(got, right, strict=False))
        if got == right[: len(got)]:
            return ": more blocks are cached"
        if same == len(right) and len(got) * case.block_size >= len(tokens):
            return ": no token is left to compute"
        block = next(b for i, b in enumerate(got) if i >= len(right) or b != right[i])
        if block not in cached.values():
            ids, end = tuple(tokens[: (same + 1) * case.block_size]), (same + 1) * case.block_size
            for _, others, table, num_written in case.prompts:
                if block in table and (table.index(block) + 1) * case.block_size > num_written:
                    return f": block {block} is not written, or not to its end"
                if block in table and tuple(others[:end]) == ids:
                    return f": with the tokens of block {block}, block {cached[ids]} was cached before it"
            return f": block {block} is not in the cache"
        held = next(ids for ids, other in cached.items() if other == block)
        own, place = held[-case.block_size :], got.index(block)
        wanted = tuple(tokens[place * case.block_size : (place + 1) * case.block_size])
        if own == wanted:
            return f": block {block} holds {list(own)}, but not after the tokens of the prompt"
        return f": block {block} holds {list(own)}, not {list(wanted)}"

    def describe(self, case: Case) -> str:
        """Return the calls as code."""
        return code(f"PrefixCache({case.block_size})", case.calls, "cache")

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the block tables of the prompts that were inserted."""
        tables = {f"p{i}": call[2] for i, call in enumerate(case.prompts)}
        if not tables:
            return None
        lens = {f"p{i}": call[3] for i, call in enumerate(case.prompts)}
        num_blocks = 1 + max(block for table in tables.values() for block in table)
        return BlockTables(
            num_blocks, case.block_size, tables, lens, "Blocks and written tokens of the prompts"
        )


def _cases(block_size: int) -> st.SearchStrategy[Case]:
    """Return what draws prompts whose blocks are two sets of tokens in any order, sometimes with a token more."""
    some = [list(range(1, block_size + 1)), list(range(block_size, 0, -1)) if block_size > 1 else [2]]
    blocks = st.lists(st.sampled_from(some), max_size=4)
    rest = st.lists(st.integers(1, 2), min_size=1, max_size=block_size)
    prompts = st.builds(lambda parts, more: [*chain(*parts), *more], blocks, rest)
    inserts = st.lists(st.tuples(prompts, st.integers(0, 3)), min_size=1, max_size=4)
    finds = st.lists(prompts, min_size=1, max_size=3)
    return st.builds(_case, st.just(block_size), inserts, finds)


def _case(block_size: int, inserts: list[tuple[list[int], int]], finds: list[list[int]]) -> Case:
    calls: list[Call] = []
    first = 0
    for tokens, missing in inserts:
        num_blocks = -(-len(tokens) // block_size)
        # Every prompt has blocks of its own: a server that did not look for the prefix before.
        table = list(range(first, first + num_blocks))[::-1]
        first += num_blocks
        calls.append(("insert", tokens, table, max(0, len(tokens) - missing)))
    return Case(block_size, [*calls, *(("find", tokens) for tokens in finds)])


TASK = Prefix()
