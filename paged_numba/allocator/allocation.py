"""What the allocator returns: what the caller must do for new tokens, and counts worth plotting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Allocation(NamedTuple):
    """What the caller must do before the new tokens count.

    Attributes
    ----------
    copies : int64[num_copies, 2]
        Rows (src, dst): blocks to copy first.
    slots : int64[num_tokens - num_cached_tokens]
        Where to write the new tokens, ``block * block_size + offset``.
    num_cached_tokens : int
        The first tokens that need not be computed or written: the prefix cache holds them, or they were released.
    """

    copies: Any
    slots: Any
    num_cached_tokens: int = 0


@dataclass(frozen=True)
class AllocatorStats:
    """Counts worth plotting.

    Attributes
    ----------
    num_blocks, num_free_blocks, num_used_blocks : int
        Blocks of the pool. A shared block is used once, however many sequences share it.
    num_cached_blocks : int
        Free blocks that still hold a prefix.
    num_shared_blocks : int
        Used blocks that more than one sequence shares.
    num_sequences : int
        Those in the pool.
    num_tokens : int
        Tokens of these; one that several share counts for each, and one that was released counts too.
    num_stored_tokens : int
        Slots that hold a token; one that several sequences share counts once.
    num_empty_slots : int
        Slots of used blocks that hold no token: the internal waste of paging.
    num_queried_tokens, num_hit_tokens, num_evictions : int
        Of the prefix cache, since the pool was made: tokens of added sequences, those that were found, and
        blocks that were given up.
    num_swapped_sequences : int
        Sequences that are swapped out now.
    num_recompute_preemptions, num_swap_preemptions : int
        Sequences that were preempted since the pool was made, one way and the other.
    """

    num_blocks: int
    num_free_blocks: int
    num_used_blocks: int
    num_shared_blocks: int
    num_sequences: int
    num_tokens: int
    num_stored_tokens: int
    num_empty_slots: int
    num_cached_blocks: int = 0
    num_queried_tokens: int = 0
    num_hit_tokens: int = 0
    num_evictions: int = 0
    num_swapped_sequences: int = 0
    num_recompute_preemptions: int = 0
    num_swap_preemptions: int = 0

    @property
    def num_preemptions(self) -> int:
        """Sequences that were preempted, either way."""
        return self.num_recompute_preemptions + self.num_swap_preemptions

    @property
    def hit_rate(self) -> float:
        """Part of the tokens of added sequences that the prefix cache held, 0 to 1."""
        return self.num_hit_tokens / self.num_queried_tokens if self.num_queried_tokens else 0.0
