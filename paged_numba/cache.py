"""A paged KV cache: allocator, storage and operations together, what a user holds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from . import ops, validation
from . import target as seam
from .allocation import Allocation
from .allocator import BlockAllocator
from .cache_watch import CacheWatch


class PagedKVCache:
    """Keys and values of many sequences in one pool of blocks.

    Parameters
    ----------
    num_blocks, block_size : int
        Size of the pool in blocks, and of a block in tokens (256 at most).
    num_kv_heads, head_dim : int
        Shape of one token's keys and of its values; head_dim is 256 at most.
    prefix_caching : bool
        Whether `add` finds the keys and values of first tokens that another sequence has, or had.
    target : str
        What runs the kernels and so where the storage lies; see `paged_numba.target.resolve`.
    debug : bool
        Whether each launch that is given the cache's arrays, of whatever kernel, is held against the
        allocator. A read of a freed block, of a slot that its sequence has not written or past a
        sequence's end, a write into a block that sequences share, and a block table that is no
        sequence's raise KernelError when the launch ends, or are findings in
        ``lockstep.sanitizing()``. What the host writes into the arrays itself counts as unwritten. Only on
        the target ``lockstep``, and slow.

    Attributes
    ----------
    allocator : BlockAllocator
        Who owns which block.
    key_cache, value_cache : float32[num_blocks, block_size, num_kv_heads, head_dim]
        On the GPU for the target ``cuda``, else NumPy. Slots that were never written hold NaN.
    target : str
        The target that runs.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> cache = pn.PagedKVCache(num_blocks=8, block_size=4, num_kv_heads=1, head_dim=2)
    >>> cache.add("a", np.ones((5, 1, 2), np.float32), np.ones((5, 1, 2), np.float32))
    0
    >>> cache.allocator.block_table("a").size
    2
    >>> cache.attend(["a"], np.ones((1, 1, 2), np.float32))
    array([[[1., 1.]]], dtype=float32)
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        prefix_caching: bool = False,
        target: str = "auto",
        debug: bool = False,
    ) -> None:
        self.target = seam.resolve(target)
        if debug and self.target != "lockstep":
            raise ValueError(f"debug=True needs the target lockstep, got target={self.target!r}")
        self.allocator = BlockAllocator(num_blocks, block_size, prefix_caching=prefix_caching)
        validation.check_cache_sizes(block_size, num_kv_heads, head_dim)
        shape = (num_blocks, block_size, num_kv_heads, head_dim)
        self.key_cache = seam.storage(shape, np.float32, self.target)
        self.value_cache = seam.storage(shape, np.float32, self.target)
        self._swapped: dict[Hashable, tuple[Any, Any]] = {}
        self._watch = CacheWatch(self.allocator, self.key_cache, self.value_cache) if debug else None

    def add(
        self,
        seq_id: Hashable,
        key: Any,
        value: Any,
        token_ids: Sequence[int] | None = None,
        *,
        salt: Hashable = None,
    ) -> int:
        """Start a sequence with the keys and values of its first tokens.

        Parameters
        ----------
        seq_id : hashable
        key, value : float32[num_tokens, num_kv_heads, head_dim]
        token_ids : sequence of int, optional
            The tokens; needed with prefix_caching.
        salt : hashable, optional
            Prefixes are shared by sequences of one salt only.

        Returns
        -------
        int
            How many of the first tokens were found, so that theirs in `key` and `value` were not used.

        Raises
        ------
        DuplicateSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        tokens = self._check_tokens(key, value, token_ids)
        allocation = self.allocator.add(seq_id, tokens, salt=salt)
        found = allocation.num_cached_tokens
        self._write(seq_id, allocation, key[found:], value[found:])
        return found

    def append(self, seq_id: Hashable, key: Any, value: Any, token_ids: Sequence[int] | None = None) -> None:
        """Append tokens to a sequence; a block that it shares with others is copied first.

        Parameters
        ----------
        seq_id : hashable
        key, value : float32[num_tokens, num_kv_heads, head_dim]
        token_ids : sequence of int, optional
            The tokens; needed with prefix_caching.

        Raises
        ------
        UnknownSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        tokens = self._check_tokens(key, value, token_ids)
        self._write(seq_id, self.allocator.append(seq_id, tokens), key, value)

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        """Start a sequence that shares all blocks of another.

        Raises
        ------
        UnknownSequenceError, DuplicateSequenceError
            Nothing was changed.
        """
        self.allocator.fork(parent_id, child_id)

    def free(self, seq_id: Hashable) -> None:
        """End a sequence, swapped out or not, and give back the blocks that no other shares.

        Raises
        ------
        UnknownSequenceError
            Nothing was changed.
        """
        self.allocator.free(seq_id)
        self._swapped.pop(seq_id, None)

    def preempt(self, seq_id: Hashable) -> None:
        """Free a sequence that is to be added and computed again; see `BlockAllocator.preempt`.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            Nothing was changed.
        """
        self.allocator.preempt(seq_id)

    def swap_out(self, seq_id: Hashable) -> None:
        """Move the keys and values of a sequence to host memory; see `BlockAllocator.swap_out`.

        Until `swap_in` brings them back, bit for bit, the sequence may only be freed.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            Nothing was changed.
        """
        key, value = self.gather(seq_id)
        self._swapped[seq_id] = seam.to_host(key), seam.to_host(value)
        self.allocator.swap_out(seq_id)

    def swap_in(self, seq_id: Hashable) -> None:
        """Bring a sequence back from host memory; see `BlockAllocator.swap_in`.

        Raises
        ------
        UnknownSequenceError, OutOfBlocksError, ValueError
            Nothing was changed.
        """
        allocation = self.allocator.swap_in(seq_id)
        # From the end: the first tokens may have been found, or released before the others were swapped out.
        kept, count = self._swapped.pop(seq_id), allocation.slots.size
        tokens = (seam.beside(part[len(part) - count :], like=self.key_cache) for part in kept)
        self._write(seq_id, allocation, *tokens)

    def release(self, seq_id: Hashable, window: int) -> int:
        """Give up the blocks that slid out of a window; see `BlockAllocator.release`.

        Returns
        -------
        int
            How many blocks this sequence gave up.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, TypeError, ValueError
            Nothing was changed.
        """
        return self.allocator.release(seq_id, window)

    def gather(self, seq_id: Hashable) -> tuple[Any, Any]:
        """Return the keys and values of a sequence, of its tokens that are not released.

        Returns
        -------
        key, value : float32[seq_len - num_released_tokens, num_kv_heads, head_dim]

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        pool = self.allocator
        blocks, count = pool.held_blocks(seq_id), pool.seq_len(seq_id) - pool.num_released_tokens(seq_id)
        return ops.gather_kv(self.key_cache, self.value_cache, blocks, count, target=self.target)

    def block_tables(self, seq_ids: Sequence[Hashable]) -> Any:
        """Return int32[num_seqs, max_blocks]: the block tables of sequences, padded with -1.

        Blocks that were released are -1 as well.
        """
        tables = [self.allocator.block_table(seq_id) for seq_id in seq_ids]
        padded = np.full((len(tables), max((t.size for t in tables), default=0)), -1, np.int32)
        for row, table in zip(padded, tables, strict=True):
            row[: table.size] = table
        return padded

    def attend(
        self, seq_ids: Sequence[Hashable], query: Any, *, cu_seqlens_q: Any = None, **options: Any
    ) -> Any:
        """Attend from the last tokens of sequences; see `paged_numba.paged_attention`.

        Parameters
        ----------
        seq_ids : sequence of hashable
        query : float32[num_tokens, num_q_heads, head_dim]
        cu_seqlens_q : int32[num_seqs + 1], optional
            Which query tokens are whose; one of each sequence if None.
        **options
            Of `paged_numba.paged_attention`.

        Returns
        -------
        out : float32[num_tokens, num_q_heads, head_dim]
        lse : float32[num_tokens, num_q_heads]
            Only with ``return_lse=True``.
        """
        seq_ids = list(seq_ids)
        seq_lens = np.array([self.allocator.seq_len(seq_id) for seq_id in seq_ids], np.int32)
        rows = getattr(query, "shape", (None,))[:1]
        if cu_seqlens_q is None and rows != (len(seq_ids),):
            raise ValueError(
                f"query must have a row for each of the {len(seq_ids)} seq_ids, "
                f"got query.shape={getattr(query, 'shape', None)}"
            )
        return ops.paged_attention(
            query,
            self.key_cache,
            self.value_cache,
            self.block_tables(seq_ids),
            seq_lens,
            cu_seqlens_q=cu_seqlens_q,
            target=self.target,
            **options,
        )

    def _check_tokens(self, key: Any, value: Any, token_ids: Sequence[int] | None) -> int | Sequence[int]:
        """Raise for tokens that could not be written, before any block is taken; return them for the allocator."""
        unwritten = np.full(getattr(key, "shape", (0,))[:1], -1, np.int64)
        validation.check_write_kv(key, value, self.key_cache, self.value_cache, unwritten)
        count = int(key.shape[0])
        if token_ids is not None and len(token_ids) != count:
            raise ValueError(f"token_ids must have one for each of {count} tokens, got {len(token_ids)}")
        return count if token_ids is None else token_ids

    def _write(self, seq_id: Hashable, allocation: Allocation, key: Any, value: Any) -> None:
        ops.copy_blocks(self.key_cache, self.value_cache, allocation.copies, target=self.target)
        ops.write_kv(key, value, self.key_cache, self.value_cache, allocation.slots, target=self.target)
        self.allocator.commit(seq_id)
