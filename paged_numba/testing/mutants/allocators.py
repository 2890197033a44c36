"""Deliberately wrong allocators: each is `BlockAllocator` with one mistake."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ...allocator.allocation import Allocation
from ...allocator.allocator import BlockAllocator
from ...allocator.block_table import slots_of
from ...allocator.prefix_cache import ROOT
from ...allocator.sequence import SequenceState
from ...allocator.token_ids import TokenIds
from ...allocator.transactions import transaction


class CopyOnWriteForgotten(BlockAllocator):
    """Writes to a shared block in place instead of copying it."""

    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        table = self._sequences[seq_id].table if seq_id in self else []
        refs = [self._pool.refs[block] for block in table]
        for block in table:
            self._pool.refs[block] = 1
        try:
            return super().append(seq_id, tokens)
        finally:
            for block, count in zip(table, refs, strict=False):
                self._pool.refs[block] = count


class CopyNotReported(BlockAllocator):
    """Replaces the shared block, but does not report the copy."""

    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        allocation = super().append(seq_id, tokens)
        return Allocation(allocation.copies[:0], allocation.slots)


class CopiesTheWrongWay(BlockAllocator):
    """Swaps the source and the destination of the copy."""

    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        allocation = super().append(seq_id, tokens)
        return Allocation(allocation.copies[:, ::-1], allocation.slots)


class BlockFreedTwice(BlockAllocator):
    """Frees blocks that another sequence still holds."""

    def free(self, seq_id: Hashable) -> None:
        blocks = self.held_blocks(seq_id).tolist() if seq_id in self else []
        super().free(seq_id)
        self._pool._free.extend(block for block in blocks if self._pool.refs[block])


class BlockGivenTwice(BlockAllocator):
    """Leaves the last block of a new sequence on the free list, in place of another one."""

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, **options: Any) -> Allocation:
        allocation = super().add(seq_id, tokens, **options)
        self._exchange(self._sequence(seq_id).table[-1:].tolist())
        return allocation

    @transaction
    def _exchange(self, blocks: list[int]) -> None:
        if blocks and self._pool.num_empty:
            self._pool.take(1)
            self._pool._free.extend(blocks)


class LastBlockLeaked(BlockAllocator):
    """Does not free the last block of a sequence."""

    @transaction
    def free(self, seq_id: Hashable) -> None:
        if seq_id in self:
            self._pool.hold(self._sequence(seq_id).table[-1:])
        super().free(seq_id)


class ForkWithoutReferences(BlockAllocator):
    """Does not increment the reference counts of the shared blocks."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        for block in self._sequences[child_id].table:
            self._pool.refs[block] -= 1


class ForkSharesTheTable(BlockAllocator):
    """Gives the child the parent's table instead of a copy, so both get a block that either appends."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        self._sequences[child_id].table = self._sequences[parent_id].table


class BoundaryOffByOne(BlockAllocator):
    """Takes a block too many when the tokens fill their blocks exactly."""

    def _blocks_for(self, tokens: int) -> int:
        return tokens // self.block_size + 1


class FailureTakesBlocks(BlockAllocator):
    """Takes a free block although it raises because there are too few."""

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, **options: Any) -> Allocation:
        try:
            return super().add(seq_id, tokens, **options)
        except MemoryError:
            self._take_one()
            raise

    @transaction
    def _take_one(self) -> None:
        self._pool.take(min(1, self._pool.num_free))


class FailureLeavesTheSequence(BlockAllocator):
    """Leaves an empty sequence in the pool when there are too few blocks."""

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, **options: Any) -> Allocation:
        try:
            return super().add(seq_id, tokens, **options)
        except MemoryError:
            self._sequences[seq_id] = SequenceState(array("i"), 0, None, ROOT, [], b"")
            raise


class DuplicateReplaces(BlockAllocator):
    """Lets a new sequence replace one with the same id."""

    def _require_new(self, seq_id: Hashable, name: str = "seq_id") -> None:
        pass


class WrongSlots(BlockAllocator):
    """Base of mutants that return wrong slots."""

    def wrong(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        raise NotImplementedError

    def slots(self, seq_id: Hashable, start: SupportsIndex, stop: SupportsIndex) -> NDArray[np.int64]:
        return self.wrong(super().slots(seq_id, start, stop))

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, **options: Any) -> Allocation:
        allocation = super().add(seq_id, tokens, **options)
        return allocation._replace(slots=self.wrong(allocation.slots))

    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        allocation = super().append(seq_id, tokens)
        return allocation._replace(slots=self.wrong(allocation.slots))


class SlotsAreContiguous(WrongSlots):
    """Counts up from the first slot instead of following the block table."""

    def wrong(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return slots[:1] + np.arange(slots.size)


class SlotOffByOne(WrongSlots):
    """Returns the next slot in the block of each token."""

    def wrong(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return slots // self.block_size * self.block_size + (slots + 1) % self.block_size


class PreemptionNotCounted(BlockAllocator):
    """Frees the sequence without counting the preemption."""

    @transaction
    def preempt(self, seq_id: Hashable) -> None:
        self._leave(seq_id)


class CountsStaleAfterPreemption(BlockAllocator):
    """Still counts the tokens of a preempted sequence."""

    def preempt(self, seq_id: Hashable) -> None:
        length = self.seq_len(seq_id)
        super().preempt(seq_id)
        self._num_tokens += length


class SwapOutKeepsTheBlocks(BlockAllocator):
    """Does not free the blocks of a swapped sequence."""

    @transaction
    def swap_out(self, seq_id: Hashable) -> None:
        self._pool.hold(self._sequence(seq_id).held())
        super().swap_out(seq_id)


class SwapInTakesTheOldBlocks(BlockAllocator):
    """Gives the sequence its old blocks, which others may hold by now."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        table = self._swapped[seq_id].table[:]
        super().swap_in(seq_id)
        sequence = self._sequence(seq_id)
        sequence.table = table
        first = sequence.num_released * self.block_size
        return Allocation(
            np.empty((0, 2), np.int64), slots_of(table, self.block_size, first, sequence.length), first
        )


class SwapInForgetsTheRelease(BlockAllocator):
    """Takes blocks for the released places too."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        self._swapped[seq_id].num_released = 0
        return super().swap_in(seq_id)


class FailedSwapInLosesTheSequence(BlockAllocator):
    """Loses a swapped sequence when there are too few blocks for it."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        try:
            return super().swap_in(seq_id)
        except MemoryError:
            del self._swapped[seq_id]
            raise


class SwappedNeverFreed(BlockAllocator):
    """Ignores that a swapped sequence is freed."""

    def free(self, seq_id: Hashable) -> None:
        if seq_id not in self._swapped:
            super().free(seq_id)


class ReleasesTooMuch(BlockAllocator):
    """Uses a window that is one token too short."""

    def release(self, seq_id: Hashable, window: SupportsIndex) -> int:
        return super().release(seq_id, max(1, int(window) - 1))


class ReleaseIgnoresOtherOwners(BlockAllocator):
    """Frees released blocks that a fork still holds."""

    def release(self, seq_id: Hashable, window: SupportsIndex) -> int:
        before = self.held_blocks(seq_id).tolist()
        gone = super().release(seq_id, window)
        self._pool._free.extend(block for block in before[:gone] if self._pool.refs[block])
        return gone


class ForkForgetsTheRelease(BlockAllocator):
    """Treats the released places of the child's table as blocks."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        self._sequences[child_id].num_released = 0


class TruncateKeepsABlock(BlockAllocator):
    """Keeps the block after the last token that is left."""

    @transaction
    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        table = self._sequence(seq_id).table[:]
        super().truncate(seq_id, length)
        kept = self._sequence(seq_id).table
        more = table[len(kept) : len(kept) + 1]
        kept.extend(more)
        self._pool.hold(more)


class TruncateDropsABlockTooMany(BlockAllocator):
    """Drops the part-filled last block as well."""

    @transaction
    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        super().truncate(seq_id, length)
        sequence = self._sequence(seq_id)
        if sequence.length % self.block_size:
            self._pool.drop(sequence.table[-1:])
            del sequence.table[-1:]


class TruncateIgnoresOtherOwners(BlockAllocator):
    """Frees dropped blocks that a fork still holds."""

    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        before = self.held_blocks(seq_id).tolist()
        super().truncate(seq_id, length)
        dropped = before[len(self.held_blocks(seq_id)) :]
        self._pool._free.extend(block for block in dropped if self._pool.refs[block])


class TruncateTruncatesTheForks(BlockAllocator):
    """Shortens the sequences that share the last block, too."""

    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        super().truncate(seq_id, length)
        table = self._sequence(seq_id).table
        for other in self._sequences.values():
            if table and other.table[: len(table)] == table:
                other.length = min(other.length, len(table) * self.block_size)
                del other.table[len(table) :]


class TruncateReachesReleasedTokens(BlockAllocator):
    """Truncates to tokens that the sequence has released."""

    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        first = self.num_released_tokens(seq_id)
        super().truncate(seq_id, max(first, int(length)))


class EmptySlotsOfTheShortest(BlockAllocator):
    """Counts the slots of a shared block as empty that the truncated sequence no longer fills."""

    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        super().truncate(seq_id, length)
        for ends in self._empty_slots._uneven.values():
            ends[:] = [min(ends)] * len(ends)


class PromisesAppendsWithoutCopies(BlockAllocator):
    """Forgets the block for the copy when it tells whether tokens can be appended."""

    def can_append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> bool:
        new, _ = self._growth(self._sequence(seq_id), int(tokens))  # type: ignore[arg-type]
        return new <= self._pool.num_free


class PromisesSwapInsThatFillThePool(BlockAllocator):
    """Compares the blocks of a swapped sequence with all of the pool instead of the free ones."""

    def can_swap_in(self, seq_id: Hashable) -> bool:
        return len(self._swapped_sequence(seq_id).table) <= self.num_blocks


class LimitIgnored(BlockAllocator):
    """Begins a sequence with all of its tokens, whatever the limit."""

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, **options: Any) -> Allocation:
        return super().add(seq_id, tokens, **{**options, "limit": None})


ALLOCATOR_MUTANTS: tuple[type[BlockAllocator], ...] = (
    CopyOnWriteForgotten,
    CopyNotReported,
    CopiesTheWrongWay,
    BlockFreedTwice,
    BlockGivenTwice,
    LastBlockLeaked,
    ForkWithoutReferences,
    ForkSharesTheTable,
    BoundaryOffByOne,
    FailureTakesBlocks,
    FailureLeavesTheSequence,
    DuplicateReplaces,
    SlotsAreContiguous,
    SlotOffByOne,
    PreemptionNotCounted,
    CountsStaleAfterPreemption,
    SwapOutKeepsTheBlocks,
    SwapInTakesTheOldBlocks,
    SwapInForgetsTheRelease,
    FailedSwapInLosesTheSequence,
    SwappedNeverFreed,
    ReleasesTooMuch,
    ReleaseIgnoresOtherOwners,
    ForkForgetsTheRelease,
    TruncateKeepsABlock,
    TruncateDropsABlockTooMany,
    TruncateIgnoresOtherOwners,
    TruncateTruncatesTheForks,
    TruncateReachesReleasedTokens,
    EmptySlotsOfTheShortest,
    PromisesAppendsWithoutCopies,
    PromisesSwapInsThatFillThePool,
    LimitIgnored,
)
