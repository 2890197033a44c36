"""Deliberately wrong allocators: each is the real one with one method wrong."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ...allocation import Allocation
from ...allocator import BlockAllocator, _Sequence
from ...prefix_cache import NONE, ROOT, PrefixCache
from ...token_ids import split


class CopyOnWriteForgotten(BlockAllocator):
    """Appends in place to a block that others share."""

    def append(self, seq_id: Hashable, tokens: int | Sequence[int] = 1) -> Allocation:
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
        self._pool._free.extend(block for block in blocks if self._pool.refs[block])


class LastBlockLeaked(BlockAllocator):
    """Forgets to give back the last block of a sequence."""

    def free(self, seq_id: Hashable) -> None:
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

    def _require_free(self, needed: int, available: int, why: str) -> None:
        try:
            super()._require_free(needed, available, why)
        except MemoryError:
            self._pool.take(min(needed, self._pool.num_free))
            raise


class FailureLeavesTheSequence(BlockAllocator):
    """Enters the new sequence before it looks for blocks."""

    def add(self, seq_id: Hashable, tokens: int | Sequence[int], *, salt: Hashable = None) -> Allocation:
        try:
            return super().add(seq_id, tokens, salt=salt)
        except MemoryError:
            self._sequences[seq_id] = _Sequence(array("i"), 0, salt, ROOT, [], b"")
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


def with_prefixes(prefixes: type[PrefixCache]) -> Callable[..., BlockAllocator]:
    """Return a maker of allocators that have another class of prefix cache."""

    def make(num_blocks: int, block_size: int, **options: Any) -> BlockAllocator:
        made = BlockAllocator(num_blocks, block_size, **options)
        made._prefixes = made._pool._prefixes = prefixes(num_blocks)
        return made

    return make


class HashCollides(PrefixCache):
    """Takes blocks with the same sum of bytes for the same: a hash alone."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(parent, bytes([sum(ids) % 256]), salt)


class HashTruncated(PrefixCache):
    """Compares the first token of a block only."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(parent, ids[:8], salt)


class SaltIgnored(PrefixCache):
    """Shares prefixes across salts."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(parent, ids, None)


class StaleAfterReuse(PrefixCache):
    """Still finds a block that was given up."""

    def _forget(self, block: int) -> None:
        self._nodes[block] = NONE


class ParentIgnored(PrefixCache):
    """Finds a block by its own tokens, whatever came before."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(ROOT, ids, salt)


class ParentForgotten(PrefixCache):
    """Gives a node's number away while others are below it."""

    def _forget(self, block: int) -> None:
        node = self._nodes[block]
        super()._forget(block)
        if self._keys[node] is not None:
            del self._found[self._keys[node]]
            self._vacant.append(node)


class UnwrittenAtReset(PrefixCache):
    """Forgets the tree, but not which blocks it held."""

    def clear(self) -> list[int]:
        nodes, blocks = self._nodes, super().clear()
        self._nodes = nodes
        return blocks


class WholePromptServed(BlockAllocator):
    """Leaves no token to compute."""

    def _find(self, ids: tuple[list[bytes], bytes], salt: Hashable) -> tuple[list[int], int]:
        return super()._find((ids[0], b"more"), salt)


class ServedBeforeItIsWritten(BlockAllocator):
    """Makes blocks findable when they are handed out."""

    def add(self, seq_id: Hashable, tokens: int | Sequence[int], *, salt: Hashable = None) -> Allocation:
        allocation = super().add(seq_id, tokens, salt=salt)
        self.commit(seq_id)
        return allocation


class PromisesTooMuch(BlockAllocator):
    """Counts blocks that were found as free, too."""

    def can_allocate(self, tokens: int | Sequence[int], *, salt: Hashable = None) -> bool:
        count, ids = self._tokens(tokens)
        hits, _ = self._find(split(ids, self.block_size), salt)
        return self._blocks_for(count) - len(hits) <= self._pool.num_free


PREFIX_MUTANTS: dict[str, Callable[..., BlockAllocator]] = {
    **{
        mutant.__name__: with_prefixes(mutant)
        for mutant in (
            HashCollides,
            HashTruncated,
            SaltIgnored,
            StaleAfterReuse,
            ParentIgnored,
            UnwrittenAtReset,
        )
    },
    WholePromptServed.__name__: WholePromptServed,
    ServedBeforeItIsWritten.__name__: ServedBeforeItIsWritten,
}
