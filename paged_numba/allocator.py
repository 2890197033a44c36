"""Host-side bookkeeping of KV blocks: who owns which block, who shares it, which are free.

Nothing here touches keys or values: `add` and `append` say which slots the caller must write, and which
blocks it must copy first. Source: Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention", SOSP 2023.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np

from .allocation import Allocation, AllocatorStats
from .errors import DuplicateSequenceError, OutOfBlocksError, UnknownSequenceError
from .prefix_cache import Node, PrefixCache

MAX_SLOTS = 2**48
"""Bound of the slots of a pool: far beyond any memory, far within int64."""


@dataclass
class _Sequence:
    table: list[int]
    length: int
    tokens: list[int] = field(default_factory=list)
    salt: Hashable = None
    known: Node | None = None
    num_known: int = 0


class BlockAllocator:
    """A pool of KV blocks with a block table for each sequence.

    Parameters
    ----------
    num_blocks : int
        Blocks in the pool.
    block_size : int
        Tokens of a block.
    prefix_caching : bool
        Whether `add` finds blocks that hold the first tokens already. Sequences are then given as token ids, and
        `commit` says when they are written. Freed blocks stay findable until they are needed, those that were
        used least recently go first, and a chain's tail before its head.
    watermark : float
        Part of the pool that `add` leaves free for sequences to grow into, 0 to 1.

    Raises
    ------
    TypeError, ValueError
        A size that is no positive integer, or a watermark out of range.

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

    def __init__(
        self, num_blocks: int, block_size: int, *, prefix_caching: bool = False, watermark: float = 0.0
    ) -> None:
        if not 0 <= watermark <= 1:
            raise ValueError(f"watermark must lie in 0 .. 1, got watermark={watermark}")
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
        self._generations = [0] * self.num_blocks
        self._reserve = int(watermark * self.num_blocks)
        self._prefixes = PrefixCache(self.block_size) if prefix_caching else None
        self._queried = self._hit = 0
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
        """Blocks that no sequence owns; some may hold a prefix still."""
        return len(self._free) + (0 if self._prefixes is None else self._prefixes.num_idle)

    def can_allocate(self, tokens: int | Sequence[int], *, salt: Hashable = None) -> bool:
        """Tell whether `add` would find blocks for a sequence; see there."""
        count, ids = self._tokens(tokens)
        hits = self._find(ids, salt)
        return self._blocks_for(count) - len(hits) + self._reserve <= self._available(hits)

    def is_cached(self, block: int) -> bool:
        """Tell whether a block is findable as part of a prefix."""
        return self._prefixes is not None and block in self._prefixes

    def generation(self, block: int) -> int:
        """Return how often a block was handed out to be written anew."""
        self.ref_count(block)
        return self._generations[block]

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

    def add(self, seq_id: Hashable, tokens: int | Sequence[int], *, salt: Hashable = None) -> Allocation:
        """Start a sequence with its first tokens, none included.

        Parameters
        ----------
        seq_id : hashable
        tokens : int or sequence of int
            How many, 0 or more; or the token ids, which the prefix cache needs.
        salt : hashable, optional
            Prefixes are shared by sequences of one salt only.

        Returns
        -------
        Allocation
            Of a prompt that is found whole, the last block must be computed all the same: at least one token.

        Raises
        ------
        DuplicateSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        count, ids = self._tokens(tokens)
        self._require_new(seq_id)
        hits = self._find(ids, salt)
        new = self._blocks_for(count) - len(hits)
        self._require_free(new + self._reserve, self._available(hits), f"add of {count} tokens")
        # Hits are held first: what they need may not be given up for the others.
        for block in hits:
            self._hold(block)
        table = [*hits, *(self._take() for _ in range(new))]
        self._sequences[seq_id] = _Sequence(table, count, ids, salt)
        cached = len(hits) * self.block_size
        if self._prefixes is not None:
            self._queried += count
            self._hit += cached
        return Allocation(_pairs([]), self._slots(table, cached, count), cached)

    def append(self, seq_id: Hashable, tokens: int | Sequence[int] = 1) -> Allocation:
        """Grow a sequence; its last block, if part-filled and shared, is replaced by a copy of its own.

        Parameters
        ----------
        seq_id : hashable
        tokens : int or sequence of int
            How many, 1 or more; or the token ids, which the prefix cache needs.

        Raises
        ------
        UnknownSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        count, ids = self._tokens(tokens)
        if count == 0:
            raise ValueError(f"tokens must be positive, got tokens={tokens!r}")
        sequence = self._sequence(seq_id)
        table, start = sequence.table, sequence.length
        copied = start % self.block_size != 0 and self._refs[table[-1]] > 1
        new = self._blocks_for(start + count) - len(table)
        self._require_free(new + copied, self.num_free_blocks, f"append of {count} tokens")
        copies = []
        if copied:
            source = table[-1]
            table[-1] = self._take()
            self._refs[source] -= 1
            copies.append((source, table[-1]))
        table.extend(self._take() for _ in range(new))
        sequence.length += count
        sequence.tokens += ids
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
        self._sequences[child_id] = _Sequence(
            list(parent.table),
            parent.length,
            list(parent.tokens),
            parent.salt,
            parent.known,
            parent.num_known,
        )

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
                if self._prefixes is not None and block in self._prefixes:
                    self._prefixes.rest(block)
                else:
                    self._free.append(block)

    def commit(self, seq_id: Hashable) -> None:
        """Say that all tokens of a sequence are written: from here on its full blocks may be found.

        Does nothing without the prefix cache.

        Raises
        ------
        UnknownSequenceError
        """
        sequence = self._sequence(seq_id)
        if self._prefixes is not None:
            sequence.known, sequence.num_known = self._prefixes.insert(
                sequence.table, sequence.tokens, sequence.salt, sequence.known, sequence.num_known
            )

    def reset_prefix_cache(self) -> None:
        """Forget all prefixes; sequences keep their blocks."""
        if self._prefixes is not None:
            self._free.extend(self._prefixes.clear())

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
            num_free_blocks=self.num_free_blocks,
            num_used_blocks=len(filled),
            num_shared_blocks=sum(self._refs[block] > 1 for block in filled),
            num_sequences=len(self._sequences),
            num_tokens=sum(sequence.length for sequence in self._sequences.values()),
            num_stored_tokens=stored,
            num_empty_slots=len(filled) * self.block_size - stored,
            num_cached_blocks=self.num_free_blocks - len(self._free),
            num_queried_tokens=self._queried,
            num_hit_tokens=self._hit,
            num_evictions=0 if self._prefixes is None else self._prefixes.evictions,
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
        idle = (
            [] if self._prefixes is None else [b for b in range(self.num_blocks) if self._prefixes.is_idle(b)]
        )
        for block in idle:
            assert held[block] == 0, f"block {block} is idle and in {held[block]} tables"
            assert block not in self._free, f"block {block} is free and holds a prefix"
        used = sum(count > 0 for count in held)
        assert used + len(self._free) + len(idle) == self.num_blocks, (
            f"{used} used, {len(idle)} cached and {len(self._free)} free blocks do not make {self.num_blocks}"
        )
        if self._prefixes is not None:
            self._prefixes.check()

    # Pieces.

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _take(self) -> int:
        """Hand out a free block, one that holds a prefix only if there is no other."""
        if not self._free and self._prefixes is not None:
            self._free.extend(self._prefixes.evict())
        block = self._free.pop()
        self._refs[block] = 1
        self._generations[block] += 1
        return block

    def _hold(self, block: int) -> None:
        self._refs[block] += 1
        if self._prefixes is not None:
            self._prefixes.hold(block)

    def _find(self, ids: list[int], salt: Hashable) -> list[int]:
        return [] if self._prefixes is None else self._prefixes.find(ids, salt)

    def _available(self, hits: list[int]) -> int:
        """Return how many blocks can be handed out beside `hits`."""
        idle = 0 if self._prefixes is None else sum(map(self._prefixes.is_idle, hits))
        return self.num_free_blocks - idle

    def _tokens(self, tokens: int | Sequence[int]) -> tuple[int, list[int]]:
        """Return the number of tokens, and their ids where the prefix cache needs them."""
        ids: Any = tokens
        if isinstance(ids, str) or not hasattr(ids, "__len__"):
            count = _count("tokens", ids)
            if self._prefixes is not None:
                raise TypeError(
                    f"tokens must be the token ids with prefix_caching=True, got tokens={tokens!r}"
                )
            return count, []
        if self._prefixes is None:
            return len(ids), []
        return len(ids), [_integer("tokens", token) for token in ids]

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

    def _require_free(self, needed: int, available: int, why: str) -> None:
        if needed > available:
            raise OutOfBlocksError(needed, available, why)


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
