"""Exercise 23: fork, and copy on write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ...allocator.allocator import BlockAllocator
from ...draw.picture import Picture
from ...draw.pools.block_tables import BlockTables
from ...errors import DuplicateSequenceError, OutOfBlocksError, UnknownSequenceError
from ..aids.calls import Call, Step, code, play, shown_call
from ..checker.task import Task, Wrong
from ..checker.values import Mistake

STATE = "tables", "lens", "refs", "free_blocks"


@dataclass
class Case:
    """A pool, and calls."""

    num_blocks: int
    block_size: int
    calls: list[Call]


class Fork(Task):
    """Reference counts and copy-on-write."""

    answer = "Pool"
    kernel = False
    launches = False
    lesson = "14_share_and_copy"
    max_examples = 100
    hints = (
        "fork: if two sequences shared one list object, both would grow when either appends. list(table) makes a "
        "copy.",
        "append: there are three cases. If the last block is full (or there is none), take a block. If it is "
        "shared, take a block for the copy. Otherwise take nothing.",
        "After the copy, one table fewer holds the shared block, so subtract 1 from its reference count. take() has "
        "already set the count of the copy.",
        "free: subtract 1 from the count of each block of the table, and put each block whose count reaches 0 back "
        "in free_blocks.",
    )
    wrong = (
        Wrong("the child has the parent's list", "list(self.tables[parent])", "self.tables[parent]", "right",
              "tables['b'] changes as well"),
        Wrong("no reference is counted at the fork", "self.refs[block] += 1", "pass", "right",
              "refs[0] is 1, but 2 tables hold block 0"),
        Wrong("no copy on write", "elif self.refs[table[-1]] > 1:", "elif False:", "right",
              "it needs a block for a copy of block 0"),
        Wrong("the copy is not returned", "copies.append((table[-1], copy))", "pass", "right",
              "what it returns is wrong"),
        Wrong("the copy the wrong way round", "copies.append((table[-1], copy))", "copies.append((copy, table[-1]))",
              "right", "it needs a block for a copy"),
        Wrong("the original still counts the sequence", "            self.refs[table[-1]] -= 1\n", "", "right",
              "refs[0] is 2, but 1 table holds block 0"),
        Wrong("a copy although nobody shares the block", "self.refs[table[-1]] > 1", "self.refs[table[-1]] > 0",
              "right", "it must not raise MemoryError: block 0 has room"),
        Wrong("shared blocks are freed", "            if self.refs[block] == 0:\n    ", "", "right",
              "is in free_blocks, but 'b' still holds it"),
        Wrong("the length grows although append fails", "offset, copies = self.tables[seq], self.lens[seq] % "
              "self.block_size, []", "offset, copies = self.tables[seq], self.lens[seq] % self.block_size, []\n"
              "        self.lens[seq] += 1", "right", "lens is wrong"),
    )  # fmt: skip

    def worked(self) -> Case:
        """Return the case of the statement."""
        calls = [("add", "parent", 3), ("fork", "parent", "child"), ("append", "child"), ("append", "parent")]
        return Case(3, 2, calls)

    def boundaries(self) -> Sequence[Case]:
        """Return forks of a part of a block, of a whole one and of a copy, and a pool that is full."""
        return (
            Case(3, 2, [("add", "a", 1), ("fork", "a", "b"), ("append", "a"), ("append", "b")]),
            Case(2, 2, [("add", "a", 2), ("fork", "a", "b"), ("free", "a")]),
            Case(3, 2, [("add", "a", 2), ("fork", "a", "b"), ("append", "b"), ("free", "a")]),
            Case(
                1, 2, [("add", "a", 1), ("fork", "a", "b"), ("append", "b"), ("free", "a"), ("append", "b")]
            ),
        )

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws calls; those of sequences that are not there are left out."""
        seqs = st.sampled_from("abc")
        calls = st.one_of(
            st.tuples(st.just("add"), seqs, st.integers(1, 5)),
            st.tuples(st.just("fork"), seqs, seqs),
            st.tuples(st.just("append"), seqs),
            st.tuples(st.just("append"), seqs),
            st.tuples(st.just("free"), seqs),
        )
        sizes = st.integers(1, 6), st.integers(1, 3)
        drawn = st.builds(_possible, *sizes, st.lists(calls, min_size=1, max_size=14))
        return drawn.filter(lambda case: bool(case.calls))

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Make the calls."""
        return {"steps": play(answer(case.num_blocks, case.block_size), case.calls, STATE, MemoryError)}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Return what is wrong after the first call that goes wrong; which free blocks are taken does not matter."""
        tables: dict[str, list[int]] = {}
        lens: dict[str, int] = {}
        for step in result["steps"]:
            mistake = _of_call(case, tables, lens, step) or _of_state(tables, lens, step)
            if mistake is not None:
                raised = ", which raises MemoryError and must change nothing" if step.error else ""
                where = f"after {shown_call(step.call)}{raised * (not mistake.what.startswith('it must'))}"
                return Mistake(f"{where}: {mistake.what}", mistake.got, mistake.expected)
        return None

    def describe(self, case: Case) -> str:
        """Return the calls as code."""
        return code(f"Pool({case.num_blocks}, {case.block_size})", case.calls, "pool")

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the block tables after the last call."""
        state = self.run(answer, case)["steps"][-1].state
        tables, lens = state["tables"], state["lens"]
        if set(tables) != set(lens) or any(len(tables[s]) * case.block_size < lens[s] for s in tables):
            return None
        return BlockTables(case.num_blocks, case.block_size, tables, lens, "After the last call")


def _possible(num_blocks: int, block_size: int, calls: Sequence[Call]) -> Case:
    """Return a case without calls that a right pool refuses, but with appends for which no block is free."""
    pool = BlockAllocator(num_blocks, block_size)
    chosen = []
    for call in calls:
        try:
            getattr(pool, call[0])(*call[1:])
        except OutOfBlocksError:
            if call[0] != "append":
                continue
        except (UnknownSequenceError, DuplicateSequenceError):
            continue
        chosen.append(call)
    return Case(num_blocks, block_size, chosen)


def _of_call(case: Case, tables: dict[str, list[int]], lens: dict[str, int], step: Step) -> Mistake | None:
    """Return what is wrong with the outcome of a call; else change tables and lengths as the call should have."""
    name, seq, *rest = step.call
    if name == "append":
        return _of_append(case, tables, lens, step)
    if name == "add" and step.error is None:
        tables[seq], lens[seq] = step.state["tables"][seq], rest[0]
    elif name == "fork":
        tables[rest[0]], lens[rest[0]] = tables[seq], lens[seq]
    elif name == "free":
        del tables[seq], lens[seq]
    return None


def _of_append(case: Case, tables: dict[str, list[int]], lens: dict[str, int], step: Step) -> Mistake | None:
    seq, size = step.call[1], case.block_size
    table, offset = tables[seq], lens[seq] % size
    held = {block for blocks in tables.values() for block in blocks}
    others = [other for other in tables if other != seq and offset and table[-1] in tables[other]]
    if offset and not others:
        why = f"block {table[-1]} has room, and no other sequence holds it"
    elif offset:
        why = f"it needs a block for a copy of block {table[-1]}, which {others[0]!r} holds as well"
    else:
        why = "its blocks are full, so it needs a new one"
    takes, num_free = not offset or bool(others), case.num_blocks - len(held)
    if takes and not num_free:
        return None if step.error else Mistake(f"it must raise MemoryError: {why}, and none is free")
    if step.error:
        return Mistake(f"it must not raise MemoryError: {why}" + f", and {num_free} are free" * takes)
    last = step.state["tables"][seq][-1]
    if takes and last in held:
        return Mistake(
            f"the token goes into block {last}: {why}", f"table of {seq!r}: {step.state['tables'][seq]}"
        )
    copies = [(table[-1], last)] if others else []
    tables[seq] = [*table[: len(table) - bool(others)], last] if takes else table
    lens[seq] += 1
    right = copies, tables[seq][-1] * size + offset
    try:
        pairs, slot = step.returned
        same = ([tuple(pair) for pair in pairs], slot) == right
    except (TypeError, ValueError):
        same = False
    return None if same else Mistake(f"what it returns is wrong; {why}", repr(step.returned), repr(right))


def _of_state(tables: dict[str, list[int]], lens: dict[str, int], step: Step) -> Mistake | None:
    """Return what is wrong with the state after a call: lengths, tables, counts or free blocks."""
    state = step.state
    for name, should in (("lens", lens), ("tables", tables)):
        if state[name] != should:
            others = [seq for seq in should if state[name].get(seq) != should[seq] and seq not in step.call]
            what = f"{name}[{others[0]!r}] changes as well" if others else f"{name} is wrong"
            return Mistake(what, repr(state[name]), repr(should))
    counts = [sum(block in table for table in tables.values()) for block in range(len(state["refs"]))]
    for block, (count, right) in enumerate(zip(state["refs"], counts, strict=True)):
        if count != right:
            hold = "1 table holds" if right == 1 else f"{right} tables hold"
            return Mistake(
                f"refs[{block}] is {count}, but {hold} block {block}", repr(state["refs"]), repr(counts)
            )
    free = [block for block, count in enumerate(counts) if not count]
    if sorted(state["free_blocks"]) != free:
        got = sorted(state["free_blocks"])
        for block in got:
            held = [seq for seq, table in tables.items() if block in table]
            if held:
                what = f"block {block} is in free_blocks, but {held[0]!r} still holds it"
                break
            if got.count(block) > 1:
                what = f"block {block} is in free_blocks twice"
                break
        else:
            lost = [block for block in free if block not in got]
            what = (
                f"block {lost[0]} is not in free_blocks, and no table holds it"
                if lost
                else "free_blocks is wrong"
            )
        return Mistake(what, f"{got} (sorted)", f"{free} (sorted)")
    return None


TASK = Fork()
