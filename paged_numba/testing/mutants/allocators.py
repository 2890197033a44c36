"""Deliberately wrong allocators: each is the real one with one method wrong."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Any, SupportsIndex

import numpy as np

from ...allocator.allocation import Allocation
from ...allocator.allocator import BlockAllocator
from ...allocator.prefix_cache import ROOT
from ...allocator.sequence import SequenceState
from ...allocator.token_ids import TokenIds


class CopyOnWriteForgotten(BlockAllocator):
    """Appends in place to a block that others share."""

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
    """Replaces the shared block, but does not say that it must be copied."""

    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        allocation = super().append(seq_id, tokens)
        return Allocation(allocation.copies[:0], allocation.slots)


class CopiesTheWrongWay(BlockAllocator):
    """Names the new block as the source of the copy."""

    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        allocation = super().append(seq_id, tokens)
        return Allocation(allocation.copies[:, ::-1], allocation.slots)


class BlockFreedTwice(BlockAllocator):
    """Gives back a block although another sequence holds it."""

    def free(self, seq_id: Hashable) -> None:
        blocks = self.held_blocks(seq_id).tolist() if seq_id in self else []
        super().free(seq_id)
        self._pool._free.extend(block for block in blocks if self._pool.refs[block])


class LastBlockLeaked(BlockAllocator):
    """Forgets to give back the last block of a sequence."""

    def free(self, seq_id: Hashable) -> None:
        if seq_id in self:
            del self._sequence(seq_id).table[-1:]
        super().free(seq_id)


class ForkWithoutReferences(BlockAllocator):
    """Shares the blocks without counting the new owner."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        for block in self._sequences[child_id].table:
            self._pool.refs[block] -= 1


class ForkSharesTheTable(BlockAllocator):
    """Gives the child the parent's table itself: what one appends, both have."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        self._sequences[child_id].table = self._sequences[parent_id].table


class BoundaryOffByOne(BlockAllocator):
    """Takes a block too many where the tokens fill their blocks."""

    def _blocks_for(self, tokens: int) -> int:
        return tokens // self.block_size + 1


class FailureTakesBlocks(BlockAllocator):
    """Takes the blocks that there are before it finds out that there are too few."""

    def _require_free(self, what: str, tokens: int, needed: int, free: int, watermark: int = 0) -> None:
        try:
            super()._require_free(what, tokens, needed, free, watermark)
        except MemoryError:
            self._pool.take(min(needed, self._pool.num_free))
            raise


class FailureLeavesTheSequence(BlockAllocator):
    """Enters the new sequence before it looks for blocks."""

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, *, salt: Hashable = None) -> Allocation:
        try:
            return super().add(seq_id, tokens, salt=salt)
        except MemoryError:
            self._sequences[seq_id] = SequenceState(array("i"), 0, salt, ROOT, [], b"")
            raise


class DuplicateReplaces(BlockAllocator):
    """Lets a new sequence take an id that is in use."""

    def _require_new(self, seq_id: Hashable) -> None:
        pass


class SlotsInPhysicalOrder(BlockAllocator):
    """Counts on from the first block instead of following the table."""

    def _slots(self, table: array[int], start: int, stop: int) -> Any:
        first = table[0] * self.block_size if table else 0
        return np.arange(first + start, first + stop, dtype=np.int64)


class SlotOffByOne(BlockAllocator):
    """Writes each token one slot further in its block."""

    def _slots(self, table: array[int], start: int, stop: int) -> Any:
        slots = super()._slots(table, start, stop)
        return slots // self.block_size * self.block_size + (slots + 1) % self.block_size


class PreemptionNotCounted(BlockAllocator):
    """Frees the sequence and counts nothing."""

    def preempt(self, seq_id: Hashable) -> None:
        self._leave(seq_id)


class CountsStaleAfterPreemption(BlockAllocator):
    """Counts the tokens of a preempted sequence on."""

    def preempt(self, seq_id: Hashable) -> None:
        length = self.seq_len(seq_id)
        super().preempt(seq_id)
        self._num_tokens += length


class SwapOutKeepsTheBlocks(BlockAllocator):
    """Never gives the blocks back."""

    def swap_out(self, seq_id: Hashable) -> None:
        self._pool.hold(self._sequence(seq_id).held())
        super().swap_out(seq_id)


class SwapInTakesTheOldBlocks(BlockAllocator):
    """Believes that the old blocks are still the sequence's."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        table = self._swapped[seq_id].table[:]
        super().swap_in(seq_id)
        sequence = self._sequence(seq_id)
        sequence.table = table
        first = sequence.num_released * self.block_size
        return Allocation(np.empty((0, 2), np.int64), self._slots(table, first, sequence.length), first)


class SwapInForgetsTheRelease(BlockAllocator):
    """Takes blocks for the places that were released, too."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        self._swapped[seq_id].num_released = 0
        return super().swap_in(seq_id)


class FailedSwapInLosesTheSequence(BlockAllocator):
    """Forgets a swapped sequence for which there are no blocks."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        try:
            return super().swap_in(seq_id)
        except MemoryError:
            del self._swapped[seq_id]
            raise


class SwappedNeverFreed(BlockAllocator):
    """Keeps a swapped sequence that was freed."""

    def free(self, seq_id: Hashable) -> None:
        if seq_id not in self._swapped:
            super().free(seq_id)


class ReleasesTooMuch(BlockAllocator):
    """Takes the window for one token shorter."""

    def release(self, seq_id: Hashable, window: SupportsIndex) -> int:
        return super().release(seq_id, max(1, int(window) - 1))


class ReleaseIgnoresOtherOwners(BlockAllocator):
    """Gives released blocks back although a fork holds them."""

    def release(self, seq_id: Hashable, window: SupportsIndex) -> int:
        before = self.held_blocks(seq_id).tolist()
        gone = super().release(seq_id, window)
        self._pool._free.extend(block for block in before[:gone] if self._pool.refs[block])
        return gone


class ForkForgetsTheRelease(BlockAllocator):
    """Takes the places that were released for blocks of the child."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        self._sequences[child_id].num_released = 0


ALLOCATOR_MUTANTS: tuple[type[BlockAllocator], ...] = (
    CopyOnWriteForgotten,
    CopyNotReported,
    CopiesTheWrongWay,
    BlockFreedTwice,
    LastBlockLeaked,
    ForkWithoutReferences,
    ForkSharesTheTable,
    BoundaryOffByOne,
    FailureTakesBlocks,
    FailureLeavesTheSequence,
    DuplicateReplaces,
    SlotsInPhysicalOrder,
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
)
