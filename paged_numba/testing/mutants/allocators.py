"""Deliberately wrong allocators: each is the real one with one method wrong."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ...allocation import Allocation
from ...allocator import BlockAllocator, _Sequence
from ...prefix_cache import PrefixCache


class CopyOnWriteForgotten(BlockAllocator):
    """Appends in place to a block that others share."""

    def append(self, seq_id: Hashable, tokens: int | Sequence[int] = 1) -> Allocation:
        table = self._sequences[seq_id].table if seq_id in self else []
        refs = [self._refs[block] for block in table]
        for block in table:
            self._refs[block] = 1
        try:
            return super().append(seq_id, tokens)
        finally:
            for block, count in zip(table, refs, strict=False):
                self._refs[block] = count


class CopyNotReported(BlockAllocator):
    """Replaces the shared block, but does not say that it must be copied."""

    def append(self, seq_id: Hashable, tokens: int | Sequence[int] = 1) -> Allocation:
        allocation = super().append(seq_id, tokens)
        return Allocation(allocation.copies[:0], allocation.slots)


class CopiesTheWrongWay(BlockAllocator):
    """Names the new block as the source of the copy."""

    def append(self, seq_id: Hashable, tokens: int | Sequence[int] = 1) -> Allocation:
        allocation = super().append(seq_id, tokens)
        return Allocation(allocation.copies[:, ::-1], allocation.slots)


class BlockFreedTwice(BlockAllocator):
    """Gives back a block although another sequence holds it."""

    def free(self, seq_id: Hashable) -> None:
        blocks = self.block_table(seq_id).tolist()
        super().free(seq_id)
        self._free.extend(block for block in blocks if self._refs[block])


class LastBlockLeaked(BlockAllocator):
    """Forgets to give back the last block of a sequence."""

    def free(self, seq_id: Hashable) -> None:
        self._sequence(seq_id).table[-1:] = []
        super().free(seq_id)


class ForkWithoutReferences(BlockAllocator):
    """Shares the blocks without counting the new owner."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        for block in self._sequences[child_id].table:
            self._refs[block] -= 1


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

    def _require_free(self, needed: int, available: int, why: str) -> None:
        try:
            super()._require_free(needed, available, why)
        except MemoryError:
            self._free.clear()
            raise


class FailureLeavesTheSequence(BlockAllocator):
    """Enters the new sequence before it looks for blocks."""

    def add(self, seq_id: Hashable, tokens: int | Sequence[int], *, salt: Hashable = None) -> Allocation:
        try:
            return super().add(seq_id, tokens, salt=salt)
        except MemoryError:
            self._sequences[seq_id] = _Sequence([], 0)
            raise


class DuplicateReplaces(BlockAllocator):
    """Lets a new sequence take an id that is in use."""

    def _require_new(self, seq_id: Hashable) -> None:
        pass


class SlotsInPhysicalOrder(BlockAllocator):
    """Counts on from the first block instead of following the table."""

    def _slots(self, table: list[int], start: int, stop: int) -> Any:
        first = table[0] * self.block_size if table else 0
        return np.arange(first + start, first + stop, dtype=np.int64)


class SlotOffByOne(BlockAllocator):
    """Writes each token one slot further in its block."""

    def _slots(self, table: list[int], start: int, stop: int) -> Any:
        slots = super()._slots(table, start, stop)
        return slots // self.block_size * self.block_size + (slots + 1) % self.block_size


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
)


# Prefix caches: an allocator each, with one method of its prefix cache wrong.


def _with(prefixes: type[PrefixCache]) -> Callable[..., BlockAllocator]:
    def make(num_blocks: int, block_size: int, **options: Any) -> BlockAllocator:
        made = BlockAllocator(num_blocks, block_size, **options)
        made._prefixes = prefixes(block_size)
        return made

    return make


class HashCollides(PrefixCache):
    """Takes blocks with the same sum of token ids for the same."""

    def _key(self, tokens: Sequence[int], place: int) -> tuple[int, ...]:
        return (sum(super()._key(tokens, place)),)


class SaltIgnored(PrefixCache):
    """Shares prefixes across salts."""

    def find(self, tokens: Sequence[int], salt: Hashable) -> list[int]:
        return super().find(tokens, None) or super().find(tokens, "x")


class WholePromptServed(PrefixCache):
    """Leaves no token to compute."""

    def find(self, tokens: Sequence[int], salt: Hashable) -> list[int]:
        return super().find([*tokens, 0], salt)


class StaleAfterReuse(PrefixCache):
    """Still finds a block that was given up."""

    def evict(self) -> list[int]:
        block = next(iter(self._idle))
        del self._idle[block]
        return [block]


class ParentIgnored(PrefixCache):
    """Finds a block by its own tokens, whatever came before."""

    def find(self, tokens: Sequence[int], salt: Hashable) -> list[int]:
        by_key = {node.key: block for block, node in self._nodes.items()}
        blocks: list[int] = []
        for place in range((len(tokens) - 1) // self.block_size):
            block = by_key.get(self._key(tokens, place))
            if block is None or block in blocks:
                break
            blocks.append(block)
        return blocks


class ServedBeforeItIsWritten(BlockAllocator):
    """Makes blocks findable when they are handed out."""

    def add(self, seq_id: Hashable, tokens: int | Sequence[int], *, salt: Hashable = None) -> Allocation:
        allocation = super().add(seq_id, tokens, salt=salt)
        self.commit(seq_id)
        return allocation


class PromisesTooMuch(BlockAllocator):
    """Counts blocks that were found as free, too."""

    def _available(self, hits: list[int]) -> int:
        return self.num_free_blocks


PREFIX_MUTANTS: dict[str, Callable[..., BlockAllocator]] = {
    **{
        mutant.__name__: _with(mutant)
        for mutant in (HashCollides, SaltIgnored, WholePromptServed, StaleAfterReuse, ParentIgnored)
    },
    ServedBeforeItIsWritten.__name__: ServedBeforeItIsWritten,
}
