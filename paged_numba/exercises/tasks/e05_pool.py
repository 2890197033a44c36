"""Exercise 05: a pool that gives blocks to sequences and takes them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ...draw.picture import Picture
from ...draw.pools.block_tables import BlockTables
from ...draw.text import plural
from ..checker.failures import said
from ..checker.task import Task, Wrong
from ..checker.values import Mistake

Call = tuple[Any, ...]


@dataclass
class Case:
    """The size of a pool, and calls of its methods in their order."""

    num_blocks: int
    block_size: int
    calls: list[Call]


@dataclass
class State:
    """What a pool shows after a call, and what the call raised."""

    tables: dict[Any, Any]
    lens: dict[Any, Any]
    raised: str = ""
    how: str = ""


def written(call: Call) -> str:
    """Return a call as code."""
    return f"{call[0]}({', '.join(map(repr, call[1:]))})"


class PoolTask(Task):
    """A class on the host: a case is a series of calls."""

    answer = "Pool"
    kernel = False
    launches = False
    lesson = "04_page_table"
    max_examples = 150
    hints = (
        "How many blocks do all tokens of the sequence need, old and new? How many blocks does it already have?",
        "Work out how many blocks are missing, and raise the error before you change self.tables, self.lens or "
        "self.free_blocks.",
        "-(-seq_len // self.block_size) is the number of blocks that seq_len tokens need; len(table) is how many "
        "there are.",
        "In free, self.tables.pop(seq) returns the table, removes it, and raises KeyError if there is none.",
    )
    wrong = (
        Wrong(
            "freed sequences are not forgotten",
            "self.tables.pop(seq)\n        del self.lens[seq]",
            "self.tables[seq]",
            "right",
            "is still in tables",
        ),
        Wrong(
            "freed blocks are forgotten",
            "self.free_blocks += self.tables.pop(seq)",
            "self.tables.pop(seq)",
            "right",
            "no sequence has",
        ),
        Wrong(
            "new tokens get blocks of their own",
            "-(-seq_len // self.block_size) - len(table)",
            "-(-tokens // self.block_size)",
            "right",
            "1 block is enough for 2 tokens",
        ),
        Wrong(
            "a block too many at multiples",
            "-(-seq_len // self.block_size)",
            "seq_len // self.block_size + 1",
            "right",
            "is enough for",
        ),
        Wrong(
            "blocks are taken before it is known that they suffice",
            "        if missing > len(self.free_blocks):\n            raise",
            "        while missing > len(self.free_blocks) and self.free_blocks:\n"
            "            self.free_blocks.pop()\n            missing -= 1\n"
            "        if missing > len(self.free_blocks):\n            raise",
            "right",
            "no sequence has",
        ),
        Wrong(
            "the length is changed before the check",
            "        missing = -",
            "        self.lens[seq] = seq_len\n        missing = -",
            "right",
            "must leave all as it was",
        ),
        Wrong(
            "no check",
            "if missing > len(self.free_blocks):",
            "if False:",
            "right",
            "must raise MemoryError",
        ),
        Wrong(
            "the last block cannot be taken",
            "missing > len(self.free_blocks)",
            "missing >= len(self.free_blocks)",
            "right",
            "no sequence has",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case(4, 4, [("append", "a", 5), ("append", "b", 2), ("append", "a", 3), ("append", "a", 5)])

    def boundaries(self) -> Sequence[Case]:
        """Return calls at the end of a block and of the pool, and calls for sequences that are over."""
        a, b = ("free", "a"), ("free", "b")
        return [
            Case(3, 4, [("append", "a", 1)]),
            Case(3, 4, [("append", "a", 4)]),
            Case(1, 4, [("append", "a", 5)]),
            Case(1, 4, [a]),
            Case(3, 4, [("append", "a", 4), ("append", "a", 1)]),
            Case(1, 4, [("append", "a", 1), a, a]),
            Case(2, 4, [("append", "a", 9), ("append", "b", 8)]),
            Case(2, 4, [("append", "a", 8), a, ("append", "b", 8), b]),
            Case(3, 1, [("append", "a", 2), ("append", "b", 1), a, ("append", "b", 3), ("append", "b", 2)]),
        ]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws series of calls; they shrink towards a pool in which all fits."""
        name = st.sampled_from("ab")
        call = st.one_of(
            st.tuples(st.just("append"), name, st.integers(1, 9)), st.tuples(st.just("free"), name)
        )
        calls = st.lists(call, min_size=1, max_size=8)
        return st.builds(Case, st.sampled_from((5, 4, 3, 2, 1)), st.sampled_from((4, 2, 3, 1)), calls)

    def weight(self, case: Case) -> int:
        """Return the number of calls."""
        return len(case.calls)

    def describe(self, case: Case) -> str:
        """Return the calls as code."""
        lines = [f"pool = Pool(num_blocks={case.num_blocks}, block_size={case.block_size})"]
        return "\n".join([*lines, *(f"pool.{written(call)}" for call in case.calls)])

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Make the calls; return what the pool shows after each, up to the first mistake."""
        pool = answer(case.num_blocks, case.block_size)
        states: list[State] = []
        for method, *arguments in case.calls:
            raised = how = ""
            try:
                getattr(pool, method)(*arguments)
            except Exception as error:
                raised, how = type(error).__name__, said(error)
            tables = {seq: list(table) for seq, table in pool.tables.items()}
            states.append(State(tables, dict(pool.lens), raised, how))
            if self._mistake(case, states) is not None:
                break
        return {"states": states}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Return what is wrong after the last call that was made."""
        return self._mistake(case, result["states"])

    def _mistake(self, case: Case, states: list[State]) -> Mistake | None:
        """Return what is wrong after the last call, if all was right before."""
        before = states[-2] if len(states) > 1 else State({}, {})
        after, call = states[-1], case.calls[len(states) - 1]
        method, seq = call[:2]
        what = self._fault(case, call, before, after)
        if not what:
            return None
        should, error = {**before.lens}, self._error(case, call, before)
        if not error:
            should[seq] = should.get(seq, 0) + (call[2] if method == "append" else 0)
            if method == "free":
                del should[seq]
        sizes = {name: -(-tokens // case.block_size) for name, tokens in should.items()}
        got, expected = (
            f"lens = {after.lens}\ntables = {after.tables}",
            f"lens = {should}\nnumber of blocks = {sizes}",
        )
        if error or after.raised:
            got, expected = f"{after.raised or 'no error'}\n{got}", f"{error or 'no error'}\n{expected}"
        return Mistake(f"{written(call)}: {what}", got, expected)

    def _error(self, case: Case, call: Call, before: State) -> str:
        """Return the name of the error that a call must raise."""
        method, seq = call[:2]
        if method == "free":
            return "" if seq in before.lens else "KeyError"
        lens = {**before.lens, seq: before.lens.get(seq, 0) + call[2]}
        needed = sum(-(-tokens // case.block_size) for tokens in lens.values())
        return "MemoryError" if needed > case.num_blocks else ""

    def _need(self, case: Case, call: Call, before: State) -> str:
        """Return how many blocks a call to append needs, and how many are free."""
        seq, tokens = call[1], before.lens.get(call[1], 0) + call[2]
        missing = -(-tokens // case.block_size) - len(before.tables.get(seq, ()))
        idle = case.num_blocks - sum(map(len, before.tables.values()))
        return (
            f"{seq!r} needs {plural(missing, 'more block')} for its {plural(tokens, 'token')}, and {idle} "
            f"{'is' if idle == 1 else 'are'} free"
        )

    def _fault(self, case: Case, call: Call, before: State, after: State) -> str:
        method, seq = call[:2]
        error = self._error(case, call, before)
        used = sum(map(len, before.tables.values()))
        idle = case.num_blocks - used
        if after.raised and after.raised != error:
            if after.raised == "MemoryError" and method == "append":
                need = self._need(case, call, before)
                if " needs 0 " in need:
                    return f"raises MemoryError, but {need.partition(',')[0]}"
                return f"raises MemoryError, but {need}: no sequence has {'it' if idle == 1 else 'them'}"
            must = f"must raise {error}, got" if error else "must not raise an error, got"
            self_missing = after.raised == "TypeError" and "positional argument" in after.how.splitlines()[-1]
            return f"{must} {after.how}{'; is self its first argument?' * self_missing}"
        if error and not after.raised:
            why = f"there is no sequence {seq!r}" if method == "free" else self._need(case, call, before)
            return f"must raise {error}: {why}"
        if error and (after.lens, after.tables) != (before.lens, before.tables):
            return f"raises {error}, and must leave all as it was"
        if method == "free" and not error:
            for name, value in (("tables", after.tables), ("lens", after.lens)):
                if seq in value:
                    return f"{seq!r} is still in {name}"
        lens = {**before.lens}
        if method == "append" and not error:
            lens[seq] = lens.get(seq, 0) + call[2]
        if method == "free":
            lens.pop(seq, None)
        for name in lens:
            if after.lens.get(name) != lens[name]:
                return f"lens[{name!r}] must be {lens[name]}, got {after.lens.get(name)}"
        if after.lens != lens:
            return f"lens must have {_names(lens)}, and has {_names(after.lens)}"
        if set(after.tables) != set(lens):
            return f"lens has {_names(lens)}, and tables has {_names(after.tables)}"
        return self._fault_of_tables(case, before, after)

    def _fault_of_tables(self, case: Case, before: State, after: State) -> str:
        for name, table in after.tables.items():
            needed = -(-after.lens[name] // case.block_size)
            if len(table) != needed:
                enough = "is enough" if needed == 1 else "are enough"
                tokens = plural(after.lens[name], "token")
                blocks = plural(len(table), "block"), plural(needed, "block")
                return f"{name!r} has {blocks[0]}, and {blocks[1]} {enough} for {tokens}"
            kept = before.tables.get(name, [])
            if table[: len(kept)] != kept:
                return f"{name!r} had the blocks {kept}, which hold its tokens, and now has {table}"
            strange = [block for block in table if block not in range(case.num_blocks)]
            if strange:
                return (
                    f"{name!r} has block {strange[0]!r}, and the pool has blocks 0 to {case.num_blocks - 1}"
                )
        count = Counter(block for table in after.tables.values() for block in table)
        twice = [block for block, times in count.items() if times > 1]
        if twice:
            owners = [repr(name) for name, table in after.tables.items() if twice[0] in table]
            block = f"block {twice[0]}"
            place = (
                f"{' and '.join(owners)} both have {block}"
                if len(owners) > 1
                else f"{owners[0]} has {block} twice"
            )
            return f"{place}: it stayed in free_blocks when it was taken, or came back there twice"
        return ""

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the block tables after the call that went wrong."""
        states = self.run(answer, case)["states"]
        last = states[-1]
        tables = {str(name): table for name, table in last.tables.items()}
        if any(not isinstance(block, int) for table in tables.values() for block in table):
            return None
        lens = {str(name): last.lens.get(name, 0) for name in last.tables}
        title = f"After {written(case.calls[len(states) - 1])}"
        return BlockTables(case.num_blocks, case.block_size, tables, lens, title)


def _names(names: Any) -> str:
    return ", ".join(map(repr, names)) or "nothing"


TASK = PoolTask()
