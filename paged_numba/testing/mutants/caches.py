"""Deliberately wrong caches: each is the real one with a swap that goes wrong."""

from __future__ import annotations

from collections.abc import Hashable

from ...cache import PagedKVCache


class SwapMixesKeysAndValues(PagedKVCache):
    """Brings the keys back as values, too."""

    def swap_out(self, seq_id: Hashable) -> None:
        super().swap_out(seq_id)
        key, _ = self._swapped[seq_id]
        self._swapped[seq_id] = key, key


class SwapTakesTheFirstTokens(PagedKVCache):
    """Brings back the first tokens where the prefix cache holds some already."""

    def swap_in(self, seq_id: Hashable) -> None:
        kept, allocation = self._swapped[seq_id], self.allocator.swap_in(seq_id)
        key, value = (part[: allocation.slots.size] for part in kept)
        self._write(seq_id, allocation, key, value)


class SwapLeavesTheDataBehind(PagedKVCache):
    """Gives the sequence blocks again, and writes nothing."""

    def swap_in(self, seq_id: Hashable) -> None:
        self.allocator.swap_in(seq_id)
        self.allocator.commit(seq_id)


CACHE_MUTANTS: tuple[type[PagedKVCache], ...] = (
    SwapMixesKeysAndValues,
    SwapTakesTheFirstTokens,
    SwapLeavesTheDataBehind,
)
