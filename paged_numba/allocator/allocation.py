"""Results of the allocator: the work that new tokens need (`Allocation`), and counts (`AllocatorStats`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Allocation(NamedTuple):
    """The work that the caller must do for new tokens: copy blocks first, then write slots.

    Attributes
    ----------
    copies : int64[num_copies, 2]
        Rows (src, dst): blocks to copy before anything is written.
    slots : int64[num_tokens - num_cached_tokens]
        Slots to write the new tokens to, ``block * block_size + offset``.
    num_cached_tokens : int
        Number of first tokens that need not be computed or written: the prefix cache holds them, or the sequence
        released their blocks.

    See Also
    --------
    paged_numba.copy_blocks : Copies the blocks.
    paged_numba.write_kv : Writes the slots.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
    >>> copies, slots, num_cached_tokens = pool.add("a", 3)
    >>> copies.shape, slots.tolist(), num_cached_tokens
    ((0, 2), [0, 1, 2], 0)
    """

    copies: NDArray[np.int64]
    slots: NDArray[np.int64]
    num_cached_tokens: int = 0


@dataclass(frozen=True)
class AllocatorStats:
    """Counts of a pool at one moment.

    Attributes
    ----------
    num_blocks, num_free_blocks, num_used_blocks : int
        Blocks of the pool. A shared block is used once, however many sequences share it.
    num_shared_blocks : int
        Used blocks that more than one sequence holds.
    num_sequences : int
        Sequences in the pool; sequences that are swapped out do not count.
    num_tokens : int
        Tokens of these sequences. A token in a shared block counts once for each sequence, and a token whose block was
        released counts too.
    num_stored_tokens : int
        Slots that hold a token. A slot in a shared block counts once.
    num_empty_slots : int
        Slots of used blocks that hold no token: the internal fragmentation of paging.
    num_cached_blocks : int
        Free blocks that still hold a prefix.
    num_queried_tokens, num_hit_tokens : int
        Tokens looked up in the prefix cache since the pool was created, and tokens found there.
    num_evictions : int
        Blocks that the prefix cache has evicted since the pool was created.
    num_swapped_sequences : int
        Sequences that are swapped out now.
    num_recompute_preemptions, num_swap_preemptions : int
        Calls of `paged_numba.BlockAllocator.preempt` and ``swap_out`` since the pool was created.

    See Also
    --------
    paged_numba.BlockAllocator.stats : Returns the counts of a pool.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
    >>> _ = pool.add("a", 18)
    >>> stats = pool.stats()
    >>> stats.num_used_blocks, stats.num_stored_tokens, stats.num_empty_slots
    (2, 18, 14)
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
        """Preemptions of both kinds."""
        return self.num_recompute_preemptions + self.num_swap_preemptions

    @property
    def hit_rate(self) -> float:
        """Share of the queried tokens that the prefix cache held, 0 to 1; 0 if none was queried."""
        return self.num_hit_tokens / self.num_queried_tokens if self.num_queried_tokens else 0.0
