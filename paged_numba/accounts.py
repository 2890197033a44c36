"""What is known of a pool and its sequences, and what can be asked of them: no change to either.

The changes are those of `paged_numba.allocator.BlockAllocator`, which builds on this.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

from .allocation import AllocatorStats
from .arguments import fraction, hashable, integer, not_negative, positive, truth
from .block_pool import BlockPool
from .errors import DuplicateSequenceError, SwappedSequenceError, UnknownSequenceError
from .prefix_cache import NONE, PrefixCache
from .sequence_state import SequenceState

MAX_SLOTS = 2**48
"""Bound of the slots of a pool: far beyond any memory, far within int64."""

MAX_BLOCKS = 2**31 - 1
"""Bound of the blocks of a pool: block tables are int32."""


class PoolAccounts:
    """A pool of KV blocks and the sequences that hold them; see `paged_numba.BlockAllocator`."""

    def __init__(
        self, num_blocks: int, block_size: int, *, prefix_caching: bool = False, watermark: float = 0.0
    ) -> None:
        watermark = fraction("watermark", watermark)
        self.num_blocks = positive("num_blocks", num_blocks)
        self.block_size = positive("block_size", block_size)
        if self.num_blocks > MAX_BLOCKS:
            raise ValueError(f"num_blocks must be at most {MAX_BLOCKS}, got num_blocks={self.num_blocks}")
        if self.num_blocks * self.block_size > MAX_SLOTS:
            raise ValueError(
                f"num_blocks * block_size must be at most {MAX_SLOTS}, got num_blocks={self.num_blocks} "
                f"block_size={self.block_size}"
            )
        self._prefixes = PrefixCache(self.num_blocks) if truth("prefix_caching", prefix_caching) else None
        self._pool = BlockPool(self.num_blocks, self._prefixes)
        # 0.29 * 100 is a little below 29 in binary.
        self._reserve = int(round(watermark * self.num_blocks, 9))
        self._offsets = np.arange(self.block_size, dtype=np.int64)
        self._sequences: dict[Hashable, SequenceState] = {}
        self._swapped: dict[Hashable, SequenceState] = {}
        self._num_recomputes = self._num_swaps = 0
        self._num_tokens = self._num_empty_slots = self._num_queried = self._num_hit = 0

    # Questions.

    def __contains__(self, seq_id: Hashable) -> bool:
        return seq_id in self._sequences

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._sequences)

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def prefix_caching(self) -> bool:
        """Whether there is a prefix cache."""
        return self._prefixes is not None

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence owns; some may hold a prefix still."""
        return self._pool.num_free

    def is_cached(self, block: int) -> bool:
        """Tell whether a block holds a part of a prefix that the prefix cache knows."""
        block = self._block(block)
        return self._prefixes is not None and block in self._prefixes

    def generation(self, block: int) -> int:
        """Return how often a block was handed out to be written anew."""
        return self._pool.generations[self._block(block)]

    def is_swapped(self, seq_id: Hashable) -> bool:
        """Tell whether a sequence is swapped out."""
        return hashable("seq_id", seq_id) in self._swapped

    def seq_len(self, seq_id: Hashable) -> int:
        """Return the number of tokens of a sequence, also of one that is swapped out.

        Raises
        ------
        UnknownSequenceError
        """
        return self._swapped[seq_id].length if self.is_swapped(seq_id) else self._sequence(seq_id).length

    def num_released_tokens(self, seq_id: Hashable) -> int:
        """Return how many of a sequence's first tokens `release` gave up.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        return self._sequence(seq_id).num_released * self.block_size

    def block_table(self, seq_id: Hashable) -> Any:
        """Return the blocks of a sequence in logical order, int32[num_seq_blocks]; -1 for those released.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        return np.array(self._sequence(seq_id).table, np.int32)

    def held_blocks(self, seq_id: Hashable) -> Any:
        """Return the block table without the places that were released, int32[num_held_blocks].

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        return np.array(self._sequence(seq_id).held(), np.int32)

    def slots(self, seq_id: Hashable, start: int, stop: int) -> Any:
        """Return the slots of the tokens ``start .. stop - 1`` of a sequence, int64[stop - start].

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, ValueError
        """
        sequence = self._sequence(seq_id)
        start, stop = not_negative("start", start), not_negative("stop", stop)
        first = sequence.num_released * self.block_size
        if not first <= start <= stop <= sequence.length:
            raise ValueError(
                f"start and stop must lie in order in {first} .. {sequence.length} (the tokens of {seq_id!r} that "
                f"are not released), got start={start} stop={stop}"
            )
        return self._slots(sequence.table, start, stop)

    def ref_count(self, block: int) -> int:
        """Return how many sequences hold a block."""
        return self._pool.refs[self._block(block)]

    def stats(self) -> AllocatorStats:
        """Return the counts of the moment, in constant time."""
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
            num_swapped_sequences=len(self._swapped),
            num_recompute_preemptions=self._num_recomputes,
            num_swap_preemptions=self._num_swaps,
        )

    def check(self) -> None:
        """Verify every invariant and count; costs time in proportion to the pool and all tables.

        Raises
        ------
        AssertionError
            Says which invariant is broken, and where.
        """
        num_blocks, block_size = self.num_blocks, self.block_size
        sequences = self._sequences
        held, filled = [0] * num_blocks, [0] * num_blocks
        for seq_id, sequence in sequences.items():
            table, expected = sequence.table.tolist(), -(-sequence.length // block_size)
            assert len(table) == expected, (
                f"sequence {seq_id!r} of {sequence.length} tokens needs {expected} blocks, has {table}"
            )
            released, kept = table[: sequence.num_released], table[sequence.num_released :]
            assert released == [NONE] * sequence.num_released, (
                f"sequence {seq_id!r} holds released blocks: {table}"
            )
            assert len(set(kept)) == len(kept), f"sequence {seq_id!r} holds a block twice: {table}"
            for place, block in enumerate(kept, len(released)):
                assert 0 <= block < num_blocks, f"sequence {seq_id!r} holds block {block}, not in the pool"
                held[block] += 1
                inside = min(block_size, sequence.length - place * block_size)
                assert filled[block] in (0, inside), (
                    f"block {block} holds {inside} tokens for one of its owners"
                )
                filled[block] = inside
        self._pool.check(held)
        if self._prefixes is not None:
            self._prefixes.check([s.node for s in sequences.values() if s.node != NONE])
        both = sequences.keys() & self._swapped.keys()
        assert not both, f"sequences {both} are in the pool and swapped out"
        tokens = sum(sequence.length for sequence in sequences.values())
        assert tokens == self._num_tokens, f"sequences have {tokens} tokens, {self._num_tokens} are counted"
        empty = sum(block_size - count for count in filled if count)
        assert empty == self._num_empty_slots, f"{empty} slots are empty, {self._num_empty_slots} are counted"

    # Pieces.

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _slots(self, table: array[int], start: int, stop: int) -> Any:
        size = self.block_size
        first = start // size
        if first == (stop - 1) // size:
            slot = table[first] * size + start % size
            return np.arange(slot, slot + stop - start, dtype=np.int64)
        blocks = np.array(table[first : self._blocks_for(stop)], np.int64)
        return (blocks[:, None] * size + self._offsets).ravel()[start - first * size : stop - first * size]

    def _enter(self, seq_id: Hashable, sequence: SequenceState) -> None:
        self._sequences[seq_id] = sequence
        self._num_tokens += sequence.length

    def _leave(self, seq_id: Hashable) -> SequenceState:
        """Give back what a sequence holds."""
        sequence = self._sequence(seq_id)
        del self._sequences[seq_id]
        self._num_tokens -= sequence.length
        if sequence.table and self._pool.refs[sequence.table[-1]] == 1:
            self._num_empty_slots -= -sequence.length % self.block_size
        self._pool.drop(sequence.held())
        if self._prefixes is not None:
            if sequence.num_released:
                # Those that it released before are the head of what it gives back now.
                self._prefixes.renew(sequence.node)
            self._prefixes.drop(sequence.node)
        return sequence

    def _sequence(self, seq_id: Hashable) -> SequenceState:
        try:
            return self._sequences[hashable("seq_id", seq_id)]
        except KeyError:
            if seq_id in self._swapped:
                raise SwappedSequenceError(f"the sequence {seq_id!r} is swapped out") from None
            raise UnknownSequenceError(f"no sequence has the id {seq_id!r}") from None

    def _require_new(self, seq_id: Hashable) -> None:
        if hashable("seq_id", seq_id) in self._sequences or seq_id in self._swapped:
            raise DuplicateSequenceError(f"a sequence has the id {seq_id!r} already")

    def _block(self, block: int) -> int:
        block = integer("block", block)
        if not 0 <= block < self.num_blocks:
            raise ValueError(f"block must lie in 0 .. {self.num_blocks - 1}, got block={block}")
        return block
