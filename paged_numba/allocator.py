"""Host-side bookkeeping of KV blocks: who owns which block, who shares it, which are free.

Nothing here touches keys or values: `add` and `append` say which slots the caller must write, and which
blocks it must copy first. Source: Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention", SOSP 2023.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from .errors import DuplicateSequenceError, OutOfBlocksError, UnknownSequenceError

MAX_SLOTS = 2**48
"""Bound of the slots of a pool: far beyond any memory, far within int64."""


@dataclass(frozen=True, eq=False)
class Allocation:
    """What the caller must do before the new tokens count.

    Attributes
    ----------
    copies : int64[num_copies, 2]
        Rows (src, dst): blocks to copy first.
    slots : int64[num_tokens]
        Where to write the new tokens, ``block * block_size + offset``.
    """

    copies: Any
    slots: Any


@dataclass(frozen=True)
class AllocatorStats:
    """Counts worth plotting.

    Attributes
    ----------
    num_blocks, num_free_blocks, num_used_blocks : int
        Blocks of the pool. A shared block is used once, however many sequences share it.
    num_shared_blocks : int
        Used blocks that more than one sequence shares.
    num_sequences : int
    num_tokens : int
        Tokens of all sequences; one that several share counts for each.
    num_stored_tokens : int
        Slots that hold a token; one that several sequences share counts once.
    num_empty_slots : int
        Slots of used blocks that hold no token: the internal waste of paging.
    """

    num_blocks: int
    num_free_blocks: int
    num_used_blocks: int
    num_shared_blocks: int
    num_sequences: int
    num_tokens: int
    num_stored_tokens: int
    num_empty_slots: int


@dataclass
class _Sequence:
    table: list[int]
    length: int


class BlockAllocator:
    """A pool of KV blocks with a block table for each sequence.

    Parameters
    ----------
    num_blocks : int
        Blocks in the pool.
    block_size : int
        Tokens of a block.

    Raises
    ------
    TypeError, ValueError
        A size that is no positive integer.

    Examples
    --------
    >>> pool = BlockAllocator(num_blocks=4, block_size=16)
    >>> pool.add("a", 18).slots[[0, 15, 16, 17]].tolist()
    [0, 15, 16, 17]
    >>> pool.fork("a", "b")
    >>> pool.append("b").copies.tolist()    # the half-filled block 1 is shared: b gets its own
    [[1, 2]]
    >>> pool.block_table("b").tolist()
    [0, 2]
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = _positive("num_blocks", num_blocks)
        self.block_size = _positive("block_size", block_size)
        if self.num_blocks * self.block_size > MAX_SLOTS:
            raise ValueError(
                f"num_blocks * block_size must be at most {MAX_SLOTS}, got num_blocks={self.num_blocks} "
                f"block_size={self.block_size}"
            )
        # A stack: what was freed last is handed out first, block 0 before all.
        self._free = list(range(self.num_blocks - 1, -1, -1))
        self._refs = [0] * self.num_blocks
        self._sequences: dict[Hashable, _Sequence] = {}

    # Questions.

    def __contains__(self, seq_id: Hashable) -> bool:
        return seq_id in self._sequences

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._sequences)

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence owns."""
        return len(self._free)

    def can_allocate(self, tokens: int) -> bool:
        """Tell whether `add` would find blocks for a sequence of `tokens` tokens."""
        return self._blocks_for(_count("tokens", tokens)) <= len(self._free)

    def seq_len(self, seq_id: Hashable) -> int:
        """Return the number of tokens of a sequence.

        Raises
        ------
        UnknownSequenceError
        """
        return self._sequence(seq_id).length

    def block_table(self, seq_id: Hashable) -> Any:
        """Return the blocks of a sequence in logical order, int32[num_seq_blocks].

        Raises
        ------
        UnknownSequenceError
        """
        return np.array(self._sequence(seq_id).table, np.int32)

    def slots(self, seq_id: Hashable, start: int, stop: int) -> Any:
        """Return the slots of the tokens ``start .. stop - 1`` of a sequence, int64[stop - start].

        Raises
        ------
        UnknownSequenceError, ValueError
        """
        sequence = self._sequence(seq_id)
        start, stop = _count("start", start), _count("stop", stop)
        if not start <= stop <= sequence.length:
            raise ValueError(
                f"start and stop must lie in order in 0 .. {sequence.length} (the sequence's length), "
                f"got start={start} stop={stop}"
            )
        return self._slots(sequence.table, start, stop)

    def ref_count(self, block: int) -> int:
        """Return how many sequences hold a block."""
        block = operator.index(block)
        if not 0 <= block < self.num_blocks:
            raise ValueError(f"block must lie in 0 .. {self.num_blocks - 1}, got block={block}")
        return self._refs[block]

    # Changes. Each checks all that can fail before it changes anything.

    def add(self, seq_id: Hashable, tokens: int) -> Allocation:
        """Start a sequence with its first tokens, none included.

        Parameters
        ----------
        seq_id : hashable
        tokens : int
            How many, 0 or more.

        Raises
        ------
        DuplicateSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        tokens = _count("tokens", tokens)
        self._require_new(seq_id)
        needed = self._blocks_for(tokens)
        self._require_free(needed, f"add of {tokens} tokens")
        table = [self._take() for _ in range(needed)]
        self._sequences[seq_id] = _Sequence(table, tokens)
        return Allocation(_pairs([]), self._slots(table, 0, tokens))

    def append(self, seq_id: Hashable, tokens: int = 1) -> Allocation:
        """Grow a sequence; its last block, if part-filled and shared, is replaced by a copy of its own.

        Parameters
        ----------
        seq_id : hashable
        tokens : int
            How many, 1 or more.

        Raises
        ------
        UnknownSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        tokens = _positive("tokens", tokens)
        sequence = self._sequence(seq_id)
        table, start = sequence.table, sequence.length
        copied = start % self.block_size != 0 and self._refs[table[-1]] > 1
        new = self._blocks_for(start + tokens) - len(table)
        self._require_free(new + copied, f"append of {tokens} tokens")
        copies = []
        if copied:
            source = table[-1]
            table[-1] = self._take()
            self._refs[source] -= 1
            copies.append((source, table[-1]))
        table.extend(self._take() for _ in range(new))
        sequence.length += tokens
        return Allocation(_pairs(copies), self._slots(table, start, sequence.length))

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        """Start a sequence that shares every block of another.

        Raises
        ------
        UnknownSequenceError, DuplicateSequenceError
            Nothing was changed.
        """
        parent = self._sequence(parent_id)
        self._require_new(child_id)
        for block in parent.table:
            self._refs[block] += 1
        self._sequences[child_id] = _Sequence(list(parent.table), parent.length)

    def free(self, seq_id: Hashable) -> None:
        """End a sequence; blocks that no other shares are free again.

        Raises
        ------
        UnknownSequenceError
            Also for a sequence that was freed before; nothing was changed.
        """
        sequence = self._sequence(seq_id)
        del self._sequences[seq_id]
        # Last block first, so that the next sequence gets them in the old order.
        for block in reversed(sequence.table):
            self._refs[block] -= 1
            if not self._refs[block]:
                self._free.append(block)

    # Accounts.

    def stats(self) -> AllocatorStats:
        """Return the counts of the moment; costs time in proportion to the blocks in all tables."""
        filled: dict[int, int] = {}
        for sequence in self._sequences.values():
            for place, block in enumerate(sequence.table):
                held = min(self.block_size, sequence.length - place * self.block_size)
                filled[block] = max(filled.get(block, 0), held)
        stored = sum(filled.values())
        return AllocatorStats(
            num_blocks=self.num_blocks,
            num_free_blocks=len(self._free),
            num_used_blocks=len(filled),
            num_shared_blocks=sum(self._refs[block] > 1 for block in filled),
            num_sequences=len(self._sequences),
            num_tokens=sum(sequence.length for sequence in self._sequences.values()),
            num_stored_tokens=stored,
            num_empty_slots=len(filled) * self.block_size - stored,
        )

    def check(self) -> None:
        """Verify every invariant; costs time in proportion to the pool and all tables.

        Raises
        ------
        AssertionError
            Says which invariant is broken, and where.
        """
        held = [0] * self.num_blocks
        for seq_id, sequence in self._sequences.items():
            expected = self._blocks_for(sequence.length)
            assert len(sequence.table) == expected, (
                f"sequence {seq_id!r} of {sequence.length} tokens needs {expected} blocks, has {sequence.table}"
            )
            assert len(set(sequence.table)) == expected, (
                f"sequence {seq_id!r} holds a block twice: {sequence.table}"
            )
            for block in sequence.table:
                assert 0 <= block < self.num_blocks, (
                    f"sequence {seq_id!r} holds block {block}, not in the pool"
                )
                held[block] += 1
        for block, (count, refs) in enumerate(zip(held, self._refs, strict=True)):
            assert count == refs, f"block {block} is in {count} tables, its reference count is {refs}"
        assert len(set(self._free)) == len(self._free), f"a block is free twice: {sorted(self._free)}"
        for block in self._free:
            assert held[block] == 0, f"block {block} is free and in {held[block]} tables"
        used = sum(count > 0 for count in held)
        assert used + len(self._free) == self.num_blocks, (
            f"{used} used and {len(self._free)} free blocks do not make {self.num_blocks}"
        )

    # Pieces.

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _take(self) -> int:
        block = self._free.pop()
        self._refs[block] = 1
        return block

    def _slots(self, table: list[int], start: int, stop: int) -> Any:
        first = start // self.block_size
        blocks = np.array(table[first : self._blocks_for(stop)], np.int64)
        position = np.arange(start, stop, dtype=np.int64)
        return blocks[position // self.block_size - first] * self.block_size + position % self.block_size

    def _sequence(self, seq_id: Hashable) -> _Sequence:
        try:
            return self._sequences[seq_id]
        except KeyError:
            raise UnknownSequenceError(f"no sequence has the id {seq_id!r}") from None

    def _require_new(self, seq_id: Hashable) -> None:
        if seq_id in self._sequences:
            raise DuplicateSequenceError(f"a sequence has the id {seq_id!r} already")

    def _require_free(self, needed: int, why: str) -> None:
        if needed > len(self._free):
            raise OutOfBlocksError(needed, len(self._free), why)


def _integer(name: str, value: SupportsIndex) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {name}={value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {name}={value!r}") from None


def _positive(name: str, value: SupportsIndex) -> int:
    number = _integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be positive, got {name}={number}")
    return number


def _count(name: str, value: SupportsIndex) -> int:
    number = _integer(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {name}={number}")
    return number


def _pairs(pairs: list[tuple[int, int]]) -> Any:
    return np.array(pairs, np.int64).reshape(-1, 2)
