"""Exercise 06: a property that finds wrong allocators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st

from ...allocator.allocator import BlockAllocator
from ...draw.picture import Picture
from ...draw.pools.block_tables import BlockTables
from ...draw.text import plural
from ...errors import DuplicateSequenceError, OutOfBlocksError, UnknownSequenceError
from ...testing.mutants.allocators import ALLOCATOR_MUTANTS
from ..checker.property_task import PropertyTask, Subject
from ..checker.task import Wrong
from ..checker.values import Mistake

SHOWN = (
    "SlotsAreContiguous SlotOffByOne BoundaryOffByOne LastBlockLeaked BlockGivenTwice FailureTakesBlocks "
    "FailureLeavesTheSequence DuplicateReplaces"
).split()
"""Mutants whose mistake shows in calls of add, append and free."""


@dataclass
class Case:
    """A pool, and calls."""

    num_blocks: int
    block_size: int
    calls: list[tuple[Any, ...]]


class Pool:
    """An allocator with the methods of the statement."""

    def __init__(self, allocator: BlockAllocator) -> None:
        self._allocator = allocator
        self.num_blocks, self.block_size = allocator.num_blocks, allocator.block_size

    @property
    def num_free_blocks(self) -> int:
        """Number of free blocks."""
        return self._allocator.num_free_blocks

    @property
    def sequences(self) -> list[Any]:
        """The sequences, in the order in which they were added."""
        return list(self._allocator)

    def add(self, seq: Any, tokens: int) -> list[int]:
        """Return the slots of the tokens of a new sequence."""
        return _plainly(self._allocator.add, seq, tokens).slots.tolist()

    def append(self, seq: Any, tokens: int) -> list[int]:
        """Return the slots of more tokens of a sequence."""
        return _plainly(self._allocator.append, seq, tokens).slots.tolist()

    def free(self, seq: Any) -> None:
        """Free the blocks of a sequence."""
        _plainly(self._allocator.free, seq)

    def seq_len(self, seq: Any) -> int:
        """Return the number of tokens of a sequence."""
        return _plainly(self._allocator.seq_len, seq)

    def block_table(self, seq: Any) -> list[int]:
        """Return the blocks of a sequence."""
        return _plainly(self._allocator.block_table, seq).tolist()


def _plainly(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of an allocator; raise errors that a reader of lesson 04 knows."""
    try:
        return method(*arguments)
    except UnknownSequenceError as error:
        raise KeyError(str(error)) from None
    except DuplicateSequenceError as error:
        raise ValueError(str(error)) from None
    except OutOfBlocksError as error:
        raise MemoryError(str(error)) from None


class LastBlockFirst(BlockAllocator):
    """An allocator that hands out the last block first."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        super().__init__(num_blocks, block_size)
        self._pool._free.extend(range(num_blocks))
        self._pool._fresh = num_blocks


def _state(pool: Pool) -> list[str]:
    tables = [
        f"{seq}: {plural(pool.seq_len(seq), 'token')} in blocks {pool.block_table(seq)}"
        for seq in pool.sequences
    ]
    return [*tables, f"free blocks: {pool.num_free_blocks}"]


def _played(pool: Pool, name: str, *arguments: Any) -> list[str]:
    """Return what a call returns or raises, and the state after it, as lines."""
    try:
        returned = getattr(pool, name)(*arguments)
    except Exception as error:
        outcome = f"raises {type(error).__name__}"
    else:
        outcome = f"returns {returned}"
    return [f"{name}{arguments!r} {outcome}".replace(",)", ")"), *_state(pool)]


def _error_of(call: Callable[[], Any]) -> Exception | None:
    """Return the error that a call raises, or None."""
    try:
        call()
    except Exception as error:
        return error
    return None


def _subject(name: str, make: Callable[[int, int], BlockAllocator]) -> Subject:
    return Subject(
        name, partial(nullcontext, lambda num_blocks, block_size: Pool(make(num_blocks, block_size)))
    )


def _said(mutant: type[BlockAllocator]) -> str:
    sentence = (mutant.__doc__ or mutant.__name__).strip().partition("\n")[0].removesuffix(".")
    return sentence[0].lower() + sentence[1:]


class PropertyPool(PropertyTask):
    """The learner says what must be true of a pool after each call."""

    answer = "check_pool"
    lesson = "04_page_table"
    max_examples = 60
    hints = (
        "Keep your own dict from each sequence to its number of tokens. The pool must agree with it after each call.",
        "After each call, ask: does each sequence have as few blocks as possible, is each block held once, and is "
        "the number of free blocks the number of blocks that no sequence holds?",
        "Before each call, work out whether it is possible. The pool must raise an error if and only if it is not, "
        "and must not change anything when it raises one.",
        "The slots that a call returns must be those of its new tokens: block_table[t // block_size] * block_size + "
        "t % block_size for t from the old length up to the new one.",
    )
    wrong = (
        Wrong("does not look at the slots", "slots == in_order[start:stop]", "len(slots) == stop - start", "kills",
              "this one passes: counts up from the first slot"),
        Wrong("does not count the free blocks", "assert pool.num_free_blocks == pool.num_blocks - len(held)",
              "assert pool.num_free_blocks <= pool.num_blocks", "kills",
              "this one passes: does not free the last block"),
        Wrong("plays only calls that are possible", '        try:\n            slots',
              '        if not possible:\n            continue\n        try:\n            slots', "kills",
              "this one passes: takes a free block although it raises"),
        Wrong("expects block 0 to be the first", '"free blocks"', '"free blocks"\n        assert not held or 0 in held',
              "right", "refuses the allocator that hands out the last block first, which is right"),
        Wrong("a failed call counts as done", "            assert not possible, \"an error, but the call is possible\"",
              "            lens[seq] = stop", "right", "which is right: sequences"),
        Wrong("lets the error of an impossible call pass", "except (KeyError, ValueError, MemoryError)",
              "except MemoryError", "right", "so the pool is right to raise KeyError: catch it"),
        Wrong("catches its own assertions", "    lens = {}\n", "    try:\n        assert not calls\n"
              "    except AssertionError:\n        return\n    lens = {}\n", "kills", "does no try of yours catch"),
        Wrong("returns whether the pool is right", "    lens = {}\n",
              "    return pool.num_free_blocks <= pool.num_blocks\n    lens = {}\n", "right",
              "returns True, and nobody looks at that"),
        Wrong("refuses everything", "    lens = {}", "    raise AssertionError('wrong')\n    lens = {}", "right",
              "refuses the allocator of this package, which is right: wrong"),
    )  # fmt: skip

    def right_subjects(self) -> Sequence[Subject]:
        """Return the allocator, and one that takes other blocks."""
        return (
            _subject("the allocator of this package", BlockAllocator),
            _subject("the allocator that hands out the last block first", LastBlockFirst),
        )

    def wrong_subjects(self) -> Sequence[Subject]:
        """Return mutants of the allocator."""
        mutants = {mutant.__name__: mutant for mutant in ALLOCATOR_MUTANTS}
        return [_subject(_said(mutants[name]), mutants[name]) for name in SHOWN]

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case(3, 2, [("add", "a", 3)])

    def boundaries(self) -> Sequence[Case]:
        """Return blocks that are filled exactly, and calls that are not possible."""
        return (
            Case(3, 2, [("add", "a", 2), ("append", "a", 2), ("free", "a")]),
            Case(3, 2, [("add", "a", 3), ("append", "a", 2), ("add", "b", 1), ("free", "a")]),
            Case(3, 2, [("add", "a", 1), ("add", "a", 2), ("append", "b", 1), ("free", "b")]),
        )

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws calls, of which some are not possible."""
        seqs, tokens = st.sampled_from("abc"), st.integers(1, 5)
        grow = st.tuples(st.sampled_from(("add", "append")), seqs, tokens)
        calls = st.one_of(grow, grow, st.tuples(st.just("free"), seqs))
        return st.builds(Case, st.integers(2, 8), st.integers(1, 3), st.lists(calls, min_size=1, max_size=12))

    def call(self, answer: Any, subject: Any, case: Case) -> Any:
        """Call the property with a new pool."""
        return answer(subject(case.num_blocks, case.block_size), case.calls)

    def attempt(self, answer: Any, case: Case) -> Mistake | None:
        """Say so if an error is one that a call must raise."""
        mistake = super().attempt(answer, case)
        if mistake is None or not mistake.raised:
            return mistake
        pool = Pool(BlockAllocator(case.num_blocks, case.block_size))
        for name, *arguments in case.calls:
            error = _error_of(partial(getattr(pool, name), *arguments))
            if error and f"{type(error).__name__}: {error}" in mistake.what:
                what = f"pool.{name}({', '.join(map(repr, arguments))}) cannot be done"
                note = f"{what}, so the pool is right to raise {type(error).__name__}: catch it"
                return Mistake(f"{mistake.what}\n{note}", raised=True)
        return mistake

    def compared(self, subject: Any, given: Case) -> Mistake | None:
        """Return the outcome of the first call after which a pool differs from a right one."""
        pool = subject(given.num_blocks, given.block_size)
        right = Pool(BlockAllocator(given.num_blocks, given.block_size))
        for call in given.calls:
            lines = _played(pool, *call), _played(right, *call)
            if lines[0] != lines[1]:
                return Mistake(f"it shows after the call {call}", "\n".join(lines[0]), "\n".join(lines[1]))
        return None

    def pictured(self, subject: Any, given: Case) -> Picture | None:
        """Return the block tables of the wrong pool after the calls."""
        pool = subject(given.num_blocks, given.block_size)
        for call in given.calls:
            _played(pool, *call)
        tables = {seq: pool.block_table(seq) for seq in pool.sequences}
        lens = {seq: pool.seq_len(seq) for seq in pool.sequences}
        held = {block for table in tables.values() for block in table}
        refs = map(pool._allocator.ref_count, range(given.num_blocks))
        lost = [block for block, count in enumerate(refs) if count and block not in held]
        title = "The wrong pool after the calls"
        return BlockTables(given.num_blocks, given.block_size, tables, lens, title, lost)

    def describe(self, case: Case) -> str:
        """Return the sizes of the pool, and the calls."""
        calls = ",\n         ".join(map(repr, case.calls))
        return f"pool: num_blocks = {case.num_blocks}, block_size = {case.block_size}\ncalls = [{calls}]"


TASK = PropertyPool()
