"""Deliberately wrong caches: each is `PagedKVCache` with one mistake."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from ...cache import BatchAllocation, PagedKVCache, StepPlan, batch


class SwapMixesKeysAndValues(PagedKVCache):
    """Restores the keys as values too."""

    def swap_out(self, seq_id: Hashable) -> None:
        super().swap_out(seq_id)
        sequence = self.allocator._swapped[seq_id]
        sequence.stored = sequence.stored._replace(tokens=[(key, key) for key, _ in sequence.stored.tokens])


class SwapTakesTheFirstTokens(PagedKVCache):
    """Restores the first tokens instead of the last when the prefix cache holds some of the first."""

    def swap_in(self, seq_id: Hashable) -> None:
        saved = self.allocator._swapped_sequence(seq_id).stored
        if saved is None:
            super().swap_in(seq_id)  # raises
        allocation = self.allocator.swap_in(seq_id)
        count = allocation.slots.size
        self._layers.write_all(allocation, [(key[:count], value[:count]) for key, value in saved.tokens])
        self.allocator.commit(seq_id)


class SwapLeavesTheDataBehind(PagedKVCache):
    """Gives the sequence blocks, but writes nothing to them."""

    def swap_in(self, seq_id: Hashable) -> None:
        if self.allocator._swapped_sequence(seq_id).stored is None:
            super().swap_in(seq_id)  # raises
        self.allocator.swap_in(seq_id)
        self.allocator.commit(seq_id)


class SwapNotesWhoNotWhen(PagedKVCache):
    """Keeps the copy in host memory after the sequence came back."""

    def swap_out(self, seq_id: Hashable) -> None:
        super().swap_out(seq_id)
        self._kept = {**getattr(self, "_kept", {}), seq_id: self.allocator._swapped[seq_id].stored}

    def swap_in(self, seq_id: Hashable) -> None:
        sequence = self.allocator._swapped_sequence(seq_id)
        sequence.stored = sequence.stored or getattr(self, "_kept", {}).get(seq_id)
        super().swap_in(seq_id)


class AppendCommitsWhatIsReserved(PagedKVCache):
    """Commits reserved tokens that nobody has written yet."""

    def append(self, seq_id: Hashable, *tokens: Any) -> None:
        super().append(seq_id, *tokens)
        self.allocator.commit(seq_id)


class BatchForgetsTheCopies(PagedKVCache):
    """Reserves tokens of several sequences without copying the blocks that they share."""

    def reserve_batch(self, tokens: Any, **options: Any) -> BatchAllocation:
        return batch.reserve_batch(self.allocator, tokens, None, options["salts"])[0]


class BatchMixesUpTheSequences(PagedKVCache):
    """Returns the slots of the last sequence first."""

    def reserve_batch(self, tokens: Any, **options: Any) -> BatchAllocation:
        made = super().reserve_batch(tokens, **options)
        parts = np.split(made.slots, made.cu_seqlens_q[1:-1])
        return made._replace(slots=np.concatenate(parts[::-1]))


class PlanMissesTheTokensOfTheStep(PagedKVCache):
    """Plans attention to the tokens that each sequence had before the step."""

    def plan(self, seq_ids: Any, num_q_heads: int, **options: Any) -> StepPlan:
        lens = [self.seq_len(seq_id) for seq_id in seq_ids]
        queries = np.diff(options["cu_seqlens_q"])
        before = [max(query, length - query) for query, length in zip(queries, lens, strict=True)]
        return super().plan(seq_ids, num_q_heads, **options, seq_lens=np.array(before, np.int32))


CACHE_MUTANTS: tuple[type[PagedKVCache], ...] = (
    SwapMixesKeysAndValues,
    SwapTakesTheFirstTokens,
    SwapLeavesTheDataBehind,
    SwapNotesWhoNotWhen,
    AppendCommitsWhatIsReserved,
    BatchForgetsTheCopies,
    BatchMixesUpTheSequences,
    PlanMissesTheTokensOfTheStep,
)
