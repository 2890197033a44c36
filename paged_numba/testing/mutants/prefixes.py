"""Deliberately wrong prefix caches, and allocators that use the prefix cache wrongly: each has one mistake."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, SupportsIndex

from ...allocator.allocation import Allocation
from ...allocator.allocator import BlockAllocator
from ...allocator.block_pool import BlockPool
from ...allocator.prefix_cache import NONE, ROOT, PrefixCache
from ...allocator.queries import FirstTokens
from ...allocator.sequence import SequenceState
from ...allocator.token_ids import TokenIds, at_most
from ...allocator.transactions import transaction


def with_prefixes(prefixes: type[PrefixCache]) -> Callable[..., BlockAllocator]:
    """Return a function that makes allocators with another class of prefix cache."""

    def make(num_blocks: int, block_size: int, **options: Any) -> BlockAllocator:
        made = BlockAllocator(num_blocks, block_size, **options)
        made._prefixes = made._pool._prefixes = prefixes(num_blocks, made._undo)
        return made

    return make


def with_pool(pool: type[BlockPool]) -> Callable[..., BlockAllocator]:
    """Return a function that makes allocators with another class of block pool."""

    def make(num_blocks: int, block_size: int, **options: Any) -> BlockAllocator:
        made = BlockAllocator(num_blocks, block_size, **options)
        made._pool = pool(num_blocks, made._prefixes, made._undo)
        return made

    return make


class HashCollides(PrefixCache):
    """Compares a weak hash, the sum of the bytes, instead of the bytes."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(parent, bytes([sum(ids) % 256]), salt)


class HashTruncated(PrefixCache):
    """Compares only the first token of a block."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(parent, ids[:8], salt)


class SaltIgnored(PrefixCache):
    """Shares prefixes across salts."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(parent, ids, None)


class StaleAfterReuse(PrefixCache):
    """Still finds a block that was evicted."""

    def _forget(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._nodes[block] = NONE


class ParentIgnored(PrefixCache):
    """Finds a block by its own tokens, whatever tokens come before."""

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        return super()._key(ROOT, ids, salt)


class ParentForgotten(PrefixCache):
    """Reuses a node's number while other nodes are below it."""

    def _forget(self, blocks: Sequence[int]) -> None:
        nodes = [self._nodes[block] for block in blocks]
        super()._forget(blocks)
        for node in nodes:
            if self._keys[node] is not None:
                del self._found[self._keys[node]]
                self._vacant.append(node)


class UnwrittenAtReset(PrefixCache):
    """Forgets the tree, but not which node each block has."""

    def clear(self) -> list[int]:
        nodes, blocks = self._nodes, super().clear()
        self._nodes = nodes
        return blocks


class MostRecentGoesFirst(PrefixCache):
    """Evicts the most recently used block."""

    def evict(self, count: int) -> list[int]:
        last = self.idle_blocks()[-1 : -1 - count : -1]
        self.remove_idle(last)
        self._forget(last)
        self.num_evictions += count
        return last


class HeadsGoFirst(PrefixCache):
    """Evicts the beginning of a prefix before its end."""

    def add_idle(self, blocks: Sequence[int]) -> None:
        # In reverse, each block lies before the one that it should follow.
        parents, self._parents = self._parents, array("i", [ROOT]) * len(self._parents)
        for block in blocks:
            super().add_idle([block])
        self._parents = parents


class NotRenewed(PrefixCache):
    """Does not mark the released blocks of a sequence as recently used when the sequence ends."""

    def renew(self, node: int) -> None:
        pass


class TwinsForgotten(PrefixCache):
    """Forgets blocks that hold the same tokens as a cached block."""

    def insert(self, *given: Any) -> tuple[int, list[int]]:
        last = super().insert(*given)
        for twin in [block for twins in self._twins.values() for block in twins]:
            self._forget([twin])
        return last


class TwinsStay(PrefixCache):
    """Keeps a block whose last owner left although its twin is cached."""

    def keep(self, blocks: Sequence[int], findable: bool) -> list[int]:
        self.add_idle([block for block in reversed(blocks) if block in self])
        return [block for block in blocks if block not in self]


class HitsHeldTooLate(BlockPool):
    """Takes new blocks before it holds the hits, which may be evicted for them."""

    def hold(self, blocks: Iterable[int]) -> None:
        blocks = list(blocks)
        self._late = [block for block in blocks if not self.refs[block]]
        super().hold([block for block in blocks if self.refs[block]])

    def take(self, count: int) -> Any:
        taken = super().take(count)
        super().hold(getattr(self, "_late", ()))
        self._late = []
        return taken


class WholePromptServed(BlockAllocator):
    """Serves a whole prompt from the cache, so that no token is left to compute."""

    def _find(self, ids: tuple[list[bytes], bytes], salt: Hashable) -> tuple[list[int], int]:
        return super()._find((ids[0], b"more"), salt)


class ServedBeforeItIsWritten(BlockAllocator):
    """Commits blocks when they are handed out, before they are written."""

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, **options: Any) -> Allocation:
        allocation = super().add(seq_id, tokens, **options)
        self.commit(seq_id)
        return allocation


class SwapInServedBeforeItIsWritten(BlockAllocator):
    """Commits swapped-in blocks before they are copied back."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        allocation = super().swap_in(seq_id)
        self.commit(seq_id)
        return allocation


class SwapInGoesOnFromAGoneNode(BlockAllocator):
    """Takes blocks before it uses the node that it found, so the node may be removed."""

    @transaction
    def swap_in(self, seq_id: Hashable) -> Allocation:
        prefixes: Any = self._prefixes
        used: list[int] = []
        prefixes.use = used.append
        try:
            allocation = super().swap_in(seq_id)
        finally:
            del prefixes.use
        for node in used:
            prefixes.use(node)
        return allocation


class ForkSharesWhatIsUnwritten(BlockAllocator):
    """Lets a fork share its parent's list of unwritten token ids."""

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        super().fork(parent_id, child_id)
        self._sequences[child_id].unwritten = self._sequences[parent_id].unwritten


class SwapInForgetsTheSalt(BlockAllocator):
    """Looks for the prefix of a swapped sequence without its salt."""

    def swap_in(self, seq_id: Hashable) -> Allocation:
        self._swapped[seq_id].salt = None
        return super().swap_in(seq_id)


class ResetForgetsWhereSequencesAre(BlockAllocator):
    """After a reset, inserts the next block of a sequence as if it were its first."""

    @transaction
    def reset_prefix_cache(self) -> None:
        super().reset_prefix_cache()
        for sequence in self._sequences.values():
            sequence.node = ROOT
            assert self._prefixes is not None
            self._prefixes.use(ROOT)

    def _truncate_ids(self, sequence: SequenceState, full: int) -> None:
        if sequence.node != ROOT or full == len(sequence.unwritten):
            super()._truncate_ids(sequence, full)


class CachedBlockOverwritten(BlockAllocator):
    """After a truncation, appends into a block that the prefix cache still finds."""

    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        assert self._prefixes is not None
        self._prefixes.give_up = lambda block: None  # type: ignore[method-assign]
        return super().append(seq_id, tokens)


class TruncateKeepsItsNode(BlockAllocator):
    """Goes on in the prefix cache from a block that the sequence no longer has."""

    @transaction
    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        node = self._sequence(seq_id).node
        assert self._prefixes is not None
        self._prefixes.use(node)
        super().truncate(seq_id, length)
        self._prefixes.drop(self._sequence(seq_id).node)
        self._sequence(seq_id).node = node


class TruncateForgetsThePart(BlockAllocator):
    """Forgets the token ids of the part-filled last block."""

    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        super().truncate(seq_id, length)
        self._sequence(seq_id).part = b""


class TruncateKeepsTheIds(BlockAllocator):
    """Keeps the token ids of the dropped blocks that were not committed."""

    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        unwritten = self._sequence(seq_id).unwritten[:]
        super().truncate(seq_id, length)
        self._sequence(seq_id).unwritten = unwritten


class LimitHidesThePrompt(BlockAllocator):
    """Looks in the prefix cache only for the first tokens, as many as the limit."""

    def add(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds, **options: Any) -> Allocation:
        return super().add(seq_id, at_most(tokens, options.get("limit")), **options)


class LimitCountsWhatIsFound(BlockAllocator):
    """Counts the tokens that the prefix cache holds as part of the limit."""

    def _first_tokens(self, tokens: Any, salt: Hashable, limit: Any) -> FirstTokens:
        found = len(super()._first_tokens(tokens, salt, limit).hits) * self.block_size
        return super()._first_tokens(tokens, salt, limit and max(1, limit - found))


class RefusesSwapInsThatAreFound(BlockAllocator):
    """Tells that a swapped sequence needs blocks for the tokens that the prefix cache holds, too."""

    def can_swap_in(self, seq_id: Hashable) -> bool:
        return len(self._swapped_sequence(seq_id).table) <= self._pool.num_free


class PromisesTooMuch(BlockAllocator):
    """Counts hits as free blocks too."""

    def can_allocate(
        self, tokens: SupportsIndex | TokenIds, *, salt: Hashable = None, limit: Any = None
    ) -> bool:
        return self._first_tokens(tokens, salt, limit).num_new <= self._pool.num_free


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
            HeadsGoFirst,
            TwinsForgotten,
            TwinsStay,
        )
    },
    WholePromptServed.__name__: WholePromptServed,
    **{
        mutant.__name__: mutant
        for mutant in (
            ForkSharesWhatIsUnwritten,
            ServedBeforeItIsWritten,
            SwapInServedBeforeItIsWritten,
            SwapInForgetsTheSalt,
            CachedBlockOverwritten,
            TruncateKeepsItsNode,
            TruncateForgetsThePart,
            TruncateKeepsTheIds,
            LimitHidesThePrompt,
            LimitCountsWhatIsFound,
            RefusesSwapInsThatAreFound,
            ResetForgetsWhereSequencesAre,
        )
    },
}
