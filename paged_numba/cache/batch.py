"""`BatchAllocation`: the slots of a step's new tokens, reserved for all sequences of a batch at once."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..allocator import Allocation, BlockAllocator
from ..allocator.token_ids import TokenIds, at_most
from ..arguments import hashable, shown
from ..errors import OutOfBlocksError


class BatchAllocation(NamedTuple):
    """Slots of the new tokens of several sequences, in the order in which the sequences were given.

    Attributes
    ----------
    slots : int64[num_tokens]
        Slots to write in each layer, those of all sequences concatenated.
    cu_seqlens_q : int32[num_seqs + 1]
        Slots ``cu_seqlens_q[s] .. cu_seqlens_q[s + 1] - 1`` are those of sequence s.
    num_cached_tokens : int64[num_seqs]
        Number of first tokens of each sequence that need not be computed, since the prefix cache holds them.

    See Also
    --------
    paged_numba.PagedKVCache.reserve_batch : Returns it.

    Examples
    --------
    >>> import paged_numba as pn
    >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2)
    >>> batch = cache.reserve_batch({"a": 2, "b": 1})
    >>> batch.slots.tolist(), batch.cu_seqlens_q.tolist()
    ([0, 1, 4], [0, 2, 3])
    """

    slots: NDArray[np.int64]
    cu_seqlens_q: NDArray[np.int32]
    num_cached_tokens: NDArray[np.int64]


def reserve(
    allocator: BlockAllocator, seq_id: Hashable, tokens: int | TokenIds, salt: Hashable, limit: int | None
) -> Allocation:
    """Start a sequence or grow it; see `paged_numba.PagedKVCache.reserve`. The caller copies the blocks."""
    hashable("salt", salt)
    if seq_id in allocator or allocator.is_swapped(seq_id):
        return allocator.append(seq_id, at_most(tokens, limit))
    return allocator.add(seq_id, tokens, salt=salt, limit=limit)


def reserve_batch(
    allocator: BlockAllocator,
    tokens: Mapping[Hashable, int | TokenIds],
    limits: Mapping[Hashable, int | None] | None,
    salts: Mapping[Hashable, Hashable] | None,
) -> tuple[BatchAllocation, NDArray[np.int64]]:
    """Reserve tokens of several sequences within a transaction; see `paged_numba.PagedKVCache.reserve_batch`.

    Returns
    -------
    allocation : BatchAllocation
    copies : int64[num_copies, 2]
        Rows (src, dst): blocks to copy, in any order. No src is a dst: a block that is copied stays with the sequences
        that still share it, so that it is not handed out again.
    """
    given = _by_id("tokens", tokens)
    limit_of = {} if limits is None else _by_id("limits", limits, given)
    salt_of = {} if salts is None else _by_id("salts", salts, given)
    allocations = []
    try:
        for seq_id, its_tokens in given.items():
            allocations.append(
                reserve(allocator, seq_id, its_tokens, salt_of.get(seq_id), limit_of.get(seq_id))
            )
    except OutOfBlocksError as error:
        needed, free, why, watermark = error.args
        why = f"{why} for sequence {shown(seq_id)}, after those before it in the batch,"
        raise OutOfBlocksError(needed, free, why, watermark) from None
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"{error}, for sequence {shown(seq_id)} of the batch") from error
    slots = [allocation.slots for allocation in allocations]
    cu_seqlens_q = np.zeros(len(slots) + 1, np.int32)
    np.cumsum([part.size for part in slots], out=cu_seqlens_q[1:])
    num_cached_tokens = np.array([allocation.num_cached_tokens for allocation in allocations], np.int64)
    copies = [allocation.copies for allocation in allocations if len(allocation.copies)]
    return (
        BatchAllocation(np.concatenate([*slots, _NO_SLOTS]), cu_seqlens_q, num_cached_tokens),
        np.concatenate([*copies, _NO_COPIES]),
    )


_NO_SLOTS, _NO_COPIES = np.empty(0, np.int64), np.empty((0, 2), np.int64)


def _by_id(name: str, given: Any, known: Container[Hashable] | None = None) -> dict[Hashable, Any]:
    """Return a mapping from ids of sequences as a dictionary; each must be known."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a mapping from ids of sequences, got {name}={shown(given)}")
    by_id = dict(given)
    for seq_id in by_id:
        if known is not None and seq_id not in known:
            raise ValueError(f"{name} must name sequences that tokens names, got {shown(seq_id)}")
    return by_id
