"""`BatchAllocation`: the slots of a step's new tokens, reserved for all sequences of a batch at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..allocator.token_ids import TokenIds
from ..arguments import shown

if TYPE_CHECKING:
    from .kv_cache import PagedKVCache


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


def reserve_batch(
    cache: PagedKVCache,
    tokens: Mapping[Hashable, int | TokenIds],
    limits: Mapping[Hashable, int | None] | None,
    salts: Mapping[Hashable, Hashable] | None,
) -> BatchAllocation:
    """Reserve within a transaction; see `paged_numba.PagedKVCache.reserve_batch`."""
    given = _items("tokens", tokens, None)
    limit_of, salt_of = _items("limits", limits, given), _items("salts", salts, given)
    allocations = [
        cache._reserve(seq_id, count_or_ids, salt_of.get(seq_id), limit_of.get(seq_id))
        for seq_id, count_or_ids in given.items()
    ]
    # No pair writes a block that another reads: a block that is copied stays with the sequences that share it.
    copies = [allocation.copies for allocation in allocations if len(allocation.copies)]
    if copies:
        cache._copy(np.concatenate(copies))
    slots = [allocation.slots for allocation in allocations]
    cu_seqlens_q = np.zeros(len(slots) + 1, np.int32)
    np.cumsum([part.size for part in slots], out=cu_seqlens_q[1:])
    return BatchAllocation(
        np.concatenate(slots) if slots else np.empty(0, np.int64),
        cu_seqlens_q,
        np.array([allocation.num_cached_tokens for allocation in allocations], np.int64),
    )


def _items(name: str, given: Any, known: dict[Hashable, Any] | None) -> dict[Hashable, Any]:
    """Return a mapping from ids of sequences as a dictionary; all ids must be among the known ones."""
    if given is None and known is not None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must map ids of sequences, got {name}={shown(given)}")
    items = dict(given)
    for seq_id in items:
        if known is not None and seq_id not in known:
            raise ValueError(f"{name} must name sequences of tokens, got {shown(seq_id)}")
    return items
