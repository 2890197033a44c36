"""Memory of the tour's sequences: what they take with paging, and would take with reservations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...allocator.allocator import BlockAllocator


def memory_in_use(pool: BlockAllocator, max_len: int, token_bytes: int) -> dict[str, Any]:
    """Return the pool's counts, and the bytes that its sequences take.

    Parameters
    ----------
    pool : BlockAllocator
    max_len : int
        Tokens that would be reserved for each sequence without paging.
    token_bytes : int
        Bytes of a token's keys and values.
    """
    stats = pool.stats()
    return {
        **asdict(stats),
        "max_len": max_len,
        "paged_bytes": stats.num_used_blocks * pool.block_size * token_bytes,
        "stored_bytes": stats.num_stored_tokens * token_bytes,
        "reserved_bytes": stats.num_sequences * max_len * token_bytes,
    }
