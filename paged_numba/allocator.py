"""Host-side bookkeeping of KV blocks: who owns which block, who shares it, which are free.

Nothing here touches keys or values: `add` and `append` say which slots the caller must write, and which
blocks it must copy first. Source: Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention", SOSP 2023.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np

from .allocation import Allocation, AllocatorStats
from .block_pool import BlockPool
from .errors import DuplicateSequenceError, OutOfBlocksError, UnknownSequenceError
from .prefix_cache import NONE, ROOT, PrefixCache
from .token_ids import as_bytes, integer, split

MAX_SLOTS = 2**48
"""Bound of the slots of a pool: far beyond any memory, far within int64."""


MAX_BLOCKS = 2**31 - 1
"""Bound of the blocks of a pool: block tables are int32."""

_NO_COPIES = np.empty((0, 2), np.int64)


class _Sequence:
    """A block table, and what the prefix cache must still be told.

    Attributes
    ----------
    node : int
        The prefix cache's, of the last full block that was written; NONE if it was told to forget all.
    unwritten : list of bytes
        Token ids of the full blocks after it.
    part : bytes
        Token ids of the part-filled block.
    """

    __slots__ = ("length", "node", "part", "salt", "table", "unwritten")

    def __init__(
        self, table: array[int], length: int, salt: Hashable, node: int, unwritten: list[bytes], part: bytes
    ) -> None:
        self.table = table
        self.length = length
        self.salt = salt
        self.node = node
        self.unwritten = unwritten
        self.part = part

    def copy(self) -> _Sequence:
        return _Sequence(self.table[:], self.length, self.salt, self.node, self.unwritten[:], self.part)


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
        if self.num_blocks > MAX_BLOCKS:
            raise ValueError(f"num_blocks must be at most {MAX_BLOCKS}, got num_blocks={self.num_blocks}")
        if self.num_blocks * self.block_size > MAX_SLOTS:
            raise ValueError(
                f"num_blocks * block_size must be at most {MAX_SLOTS}, got num_blocks={self.num_blocks} "
                f"block_size={self.block_size}"
            )
        self._prefixes = PrefixCache(self.num_blocks) if prefix_caching else None
        self._pool = BlockPool(self.num_blocks, self._prefixes)
        self._reserve = int(watermark * self.num_blocks)
        self._offsets = np.arange(self.block_size, dtype=np.int64)
        self._sequences: dict[Hashable, _Sequence] = {}
        self._num_tokens = self._num_empty_slots = self._num_queried = self._num_hit = 0

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
        return self._pool.num_free

    def can_allocate(self, tokens: int | Sequence[int], *, salt: Hashable = None) -> bool:
        """Tell whether `add` would find blocks for a sequence; see there."""
        count, ids = self._tokens(tokens)
        hits, _ = self._find(split(ids, self.block_size), salt)
        return self._blocks_for(count) - len(hits) + self._reserve <= self._pool.num_free_beside(hits)

    def is_cached(self, block: int) -> bool:
        """Tell whether a block holds a part of a prefix that the prefix cache knows."""
        return self._prefixes is not None and block in self._prefixes

    def generation(self, block: int) -> int:
        """Return how often a block was handed out to be written anew."""
        return self._pool.generations[self._block(block)]

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
        return self._pool.refs[self._block(block)]

    # Changes. Each checks all that can fail before it changes anything.

    def add(self, seq_id: Hashable, tokens: int | Sequence[int], *, salt: Hashable = None) -> Allocation:
        """Start a sequence with its first tokens, none included.

        Parameters
        ----------
        seq_id : hashable
        tokens : int, integer[num_tokens] or sequence of int
            How many, 0 or more; or the token ids, which the prefix cache needs. They must fit int64; a NumPy
            array is fastest.
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
        unwritten, part = split(ids, self.block_size)
        hits, node = self._find((unwritten, part), salt)
        new = self._blocks_for(count) - len(hits)
        self._require_free(new + self._reserve, self._pool.num_free_beside(hits), f"add of {count} tokens")
        # Hits are held first: what they need may not be given up for the others.
        self._pool.hold(hits)
        table = array("i", hits)
        table.extend(self._pool.take(new))
        self._sequences[seq_id] = _Sequence(table, count, salt, node, unwritten[len(hits) :], part)
        cached = len(hits) * self.block_size
        self._num_tokens += count
        self._num_empty_slots += -count % self.block_size
        if self._prefixes is not None:
            self._prefixes.use(node)
            self._num_queried += count
            self._num_hit += cached
        return Allocation(_NO_COPIES, self._slots(table, cached, count), cached)

    def append(self, seq_id: Hashable, tokens: int | Sequence[int] = 1) -> Allocation:
        """Grow a sequence; its last block, if part-filled and shared, is replaced by a copy of its own.

        Parameters
        ----------
        seq_id : hashable
        tokens : int, integer[num_tokens] or sequence of int
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
        stop = start + count
        copied = start % self.block_size != 0 and self._pool.refs[table[-1]] > 1
        new = self._blocks_for(stop) - len(table)
        self._require_free(new + copied, self._pool.num_free, f"append of {count} tokens")
        copies = _NO_COPIES
        if copied:
            source = table[-1:]
            table[-1:] = self._pool.take(1)
            self._pool.drop(source)
            copies = np.array([(source[0], table[-1])], np.int64)
        else:
            # The empty slots of its last block; those of a block that others keep stay empty.
            self._num_empty_slots -= -start % self.block_size
        if new:
            table.extend(self._pool.take(new))
        sequence.length = stop
        self._num_tokens += count
        self._num_empty_slots += -stop % self.block_size
        if ids and sequence.node != NONE:
            full, sequence.part = split(sequence.part + ids, self.block_size)
            sequence.unwritten += full
        return Allocation(copies, self._slots(table, start, stop))

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        """Start a sequence that shares every block of another.

        Raises
        ------
        UnknownSequenceError, DuplicateSequenceError
            Nothing was changed.
        """
        parent = self._sequence(parent_id)
        self._require_new(child_id)
        self._pool.hold(parent.table)
        self._num_tokens += parent.length
        if self._prefixes is not None:
            self._prefixes.use(parent.node)
        self._sequences[child_id] = parent.copy()

    def free(self, seq_id: Hashable) -> None:
        """End a sequence; blocks that no other shares are free again.

        Raises
        ------
        UnknownSequenceError
            Also for a sequence that was freed before; nothing was changed.
        """
        sequence = self._sequence(seq_id)
        del self._sequences[seq_id]
        self._num_tokens -= sequence.length
        if sequence.table and self._pool.refs[sequence.table[-1]] == 1:
            self._num_empty_slots -= -sequence.length % self.block_size
        self._pool.drop(sequence.table)
        if self._prefixes is not None:
            self._prefixes.drop(sequence.node)

    def commit(self, seq_id: Hashable) -> None:
        """Say that all tokens of a sequence are written: from here on its full blocks may be found.

        Does nothing without the prefix cache.

        Raises
        ------
        UnknownSequenceError
        """
        sequence = self._sequence(seq_id)
        if self._prefixes is None or not sequence.unwritten:
            return
        full = sequence.length // self.block_size
        blocks = sequence.table[full - len(sequence.unwritten) : full]
        node = self._prefixes.insert(sequence.node, sequence.unwritten, blocks, sequence.salt)
        self._prefixes.use(node)
        self._prefixes.drop(sequence.node)
        sequence.node, sequence.unwritten = node, []

    def reset_prefix_cache(self) -> None:
        """Forget all prefixes; sequences keep their blocks, and none of theirs is found from here on."""
        if self._prefixes is not None:
            self._pool.reclaim(self._prefixes.clear())
            for sequence in self._sequences.values():
                sequence.node, sequence.unwritten, sequence.part = NONE, [], b""

    # Accounts.

    def stats(self) -> AllocatorStats:
        """Return the counts of the moment, in time that depends on nothing."""
        free, prefixes = self._pool.num_free, self._prefixes
        used = self.num_blocks - free
        return AllocatorStats(
            num_blocks=self.num_blocks,
            num_free_blocks=free,
            num_used_blocks=used,
            num_shared_blocks=self._pool.num_shared,
            num_sequences=len(self._sequences),
            num_tokens=self._num_tokens,
            num_stored_tokens=used * self.block_size - self._num_empty_slots,
            num_empty_slots=self._num_empty_slots,
            num_cached_blocks=0 if prefixes is None else prefixes.num_idle,
            num_queried_tokens=self._num_queried,
            num_hit_tokens=self._num_hit,
            num_evictions=0 if prefixes is None else prefixes.num_evictions,
        )

    def check(self) -> None:
        """Verify every invariant and count; costs time in proportion to the pool and all tables.

        Raises
        ------
        AssertionError
            Says which invariant is broken, and where.
        """
        held, filled = [0] * self.num_blocks, [0] * self.num_blocks
        for seq_id, sequence in self._sequences.items():
            table = sequence.table.tolist()
            expected = self._blocks_for(sequence.length)
            assert len(table) == expected, (
                f"sequence {seq_id!r} of {sequence.length} tokens needs {expected} blocks, has {table}"
            )
            assert len(set(table)) == expected, f"sequence {seq_id!r} holds a block twice: {table}"
            for place, block in enumerate(table):
                assert 0 <= block < self.num_blocks, (
                    f"sequence {seq_id!r} holds block {block}, not in the pool"
                )
                held[block] += 1
                inside = min(self.block_size, sequence.length - place * self.block_size)
                assert filled[block] in (0, inside), (
                    f"block {block} holds {inside} tokens for one of its owners"
                )
                filled[block] = inside
        self._pool.check(held)
        if self._prefixes is not None:
            self._prefixes.check([s.node for s in self._sequences.values() if s.node != NONE])
        tokens = sum(sequence.length for sequence in self._sequences.values())
        assert tokens == self._num_tokens, f"sequences have {tokens} tokens, {self._num_tokens} are counted"
        empty = sum(self.block_size - count for count in filled if count)
        assert empty == self._num_empty_slots, f"{empty} slots are empty, {self._num_empty_slots} are counted"

    # Pieces.

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _find(self, ids: tuple[list[bytes], bytes], salt: Hashable) -> tuple[list[int], int]:
        """Return the blocks that hold the first tokens, and the last one's node; one token stays to compute."""
        full, part = ids
        if self._prefixes is None or not full:
            return [], ROOT
        return self._prefixes.find(full if part else full[:-1], salt)

    def _tokens(self, tokens: int | Sequence[int]) -> tuple[int, bytes]:
        """Return the number of tokens, and their ids where the prefix cache needs them."""
        if isinstance(tokens, str) or not hasattr(tokens, "__len__"):
            count = _count("tokens", tokens)
            if self._prefixes is not None:
                raise TypeError(
                    f"tokens must be the token ids with prefix_caching=True, got tokens={tokens!r}"
                )
            return count, b""
        return len(tokens), b"" if self._prefixes is None else as_bytes(tokens)

    def _slots(self, table: array[int], start: int, stop: int) -> Any:
        size = self.block_size
        if stop - start == 1:
            return np.array([table[start // size] * size + start % size], np.int64)
        first = start // size
        blocks = np.array(table[first : self._blocks_for(stop)], np.int64)
        return (blocks[:, None] * size + self._offsets).ravel()[start - first * size : stop - first * size]

    def _sequence(self, seq_id: Hashable) -> _Sequence:
        try:
            return self._sequences[seq_id]
        except KeyError:
            raise UnknownSequenceError(f"no sequence has the id {seq_id!r}") from None

    def _block(self, block: int) -> int:
        block = operator.index(block)
        if not 0 <= block < self.num_blocks:
            raise ValueError(f"block must lie in 0 .. {self.num_blocks - 1}, got block={block}")
        return block

    def _require_new(self, seq_id: Hashable) -> None:
        if seq_id in self._sequences:
            raise DuplicateSequenceError(f"a sequence has the id {seq_id!r} already")

    def _require_free(self, needed: int, available: int, why: str) -> None:
        if needed > available:
            raise OutOfBlocksError(needed, available, why)


def _positive(name: str, value: SupportsIndex) -> int:
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be positive, got {name}={number}")
    return number


def _count(name: str, value: SupportsIndex) -> int:
    number = integer(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {name}={number}")
    return number
