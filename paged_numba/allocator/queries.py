"""Read-only half of `BlockAllocator`: queries, statistics and the check of the invariants."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from html import escape
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ..arguments import hashable, not_negative, positive, shown
from ..draw.pools.block_tables import small_picture
from ..draw.text import plural
from ..errors import SwappedSequenceError, UnknownSequenceError
from . import invariants
from .allocation import AllocatorStats
from .block_pool import BlockPool
from .block_table import slots_of
from .empty_slots import EmptySlots
from .prefix_cache import NONE, ROOT, PrefixCache
from .sequence import SequenceState
from .token_ids import BYTES_PER_ID, TokenIds, count_and_ids, split
from .transactions import UndoLog, alone


class FirstTokens(NamedTuple):
    """What `add` does for the tokens of a new sequence.

    Attributes
    ----------
    num_given : int
        Tokens that were given.
    num_tokens : int
        Tokens that the sequence begins with: fewer if there is a limit.
    hits : list of int
        Blocks that the prefix cache found for the first of them.
    num_new : int
        Blocks for the others.
    node : int
        Node of the last hit.
    unwritten : list of bytes
        Token ids of each full block after the hits.
    part : bytes
        Token ids of the part-filled last block.
    """

    num_given: int
    num_tokens: int
    hits: list[int]
    num_new: int
    node: int
    unwritten: list[bytes]
    part: bytes


class PoolQueries:
    """The methods of `BlockAllocator` that change nothing."""

    num_blocks: int
    block_size: int
    _undo: UndoLog
    _pool: BlockPool
    _prefixes: PrefixCache | None
    _sequences: dict[Hashable, SequenceState]
    _swapped: dict[Hashable, SequenceState]
    _reserve: int
    _num_tokens: int
    _num_queried: int
    _num_hit: int
    _empty_slots: EmptySlots
    _num_recomputes: int
    _num_swaps: int

    def __repr__(self) -> str:
        facts = [
            f"{plural(self.num_blocks, 'block')} of {plural(self.block_size, 'token')}",
            plural(len(self), "sequence"),
            *([f"{len(self._swapped)} swapped out"] if self._swapped else []),
            f"{self.num_free_blocks} free",
            *(["prefix caching"] if self.prefix_caching else []),
        ]
        return f"{type(self).__name__}({', '.join(facts)})"

    def _repr_html_(self) -> str | None:
        """Return the repr and a picture of the block tables; None if the picture would be too large."""
        picture = small_picture(self)
        return picture and f"<div><code>{escape(repr(self))}</code>{picture}</div>"

    def __contains__(self, seq_id: Hashable) -> bool:
        return hashable("seq_id", seq_id) in self._sequences

    def __iter__(self) -> Iterator[Hashable]:
        # Of a copy: another thread may change the pool meanwhile.
        return iter([*self._sequences])

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def prefix_caching(self) -> bool:
        """Whether there is a prefix cache."""
        return self._prefixes is not None

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence holds; some may still hold a prefix."""
        return self._pool.num_free

    @property
    def num_watermark_blocks(self) -> int:
        """Blocks that `add` leaves free for sequences to grow into."""
        return self._reserve

    def seq_len(self, seq_id: Hashable) -> int:
        """Return the number of tokens of a sequence, which may be swapped out.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.

        See Also
        --------
        num_released_tokens : How many of these tokens were released.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.seq_len("a")
        18
        """
        return self._swapped[seq_id].length if self.is_swapped(seq_id) else self._sequence(seq_id).length

    @alone
    def block_table(self, seq_id: Hashable) -> NDArray[np.int32]:
        """Return the blocks of a sequence in logical order.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Returns
        -------
        int32[num_seq_blocks]
            -1 in the places of released blocks.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.

        See Also
        --------
        held_blocks : The table without the places of released blocks.
        PagedKVCache.block_tables : The tables of several sequences as one padded array.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.block_table("a")
        array([0, 1], dtype=int32)
        """
        return np.array(self._sequence(seq_id).table, np.int32)

    def held_blocks(self, seq_id: Hashable) -> NDArray[np.int32]:
        """Return the block table of a sequence without the places of released blocks.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Returns
        -------
        int32[num_held_blocks]
            The blocks in logical order, without released ones.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.

        See Also
        --------
        block_table : The whole table.
        release : Releases blocks that slid out of a window.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 40)
        >>> pool.release("a", window=16)
        1
        >>> pool.block_table("a").tolist(), pool.held_blocks("a").tolist()
        ([-1, 1, 2], [1, 2])
        """
        return np.array(self._sequence(seq_id).held(), np.int32)

    @alone
    def slots(self, seq_id: Hashable, start: SupportsIndex, stop: SupportsIndex) -> NDArray[np.int64]:
        """Return the slots of the tokens ``start .. stop - 1`` of a sequence.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        start : int
            The first token.
        stop : int
            The token after the last.

        Returns
        -------
        int64[stop - start]
            ``block * block_size + offset`` of each token.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.
        TypeError
            `start` or `stop` is not an integer.
        ValueError
            The sequence does not hold all of these tokens.

        See Also
        --------
        add, append : Return the slots of the new tokens.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 16), pool.add("b", 16), pool.append("a", 2)
        >>> pool.block_table("a").tolist()
        [0, 2]
        >>> pool.slots("a", 14, 18).tolist()
        [14, 15, 32, 33]
        """
        sequence = self._sequence(seq_id)
        start, stop = not_negative("start", start), not_negative("stop", stop)
        first = sequence.num_released * self.block_size
        if not first <= start <= stop <= sequence.length:
            raise ValueError(
                f"start and stop must satisfy {first} <= start <= stop <= {sequence.length} (the tokens of "
                f"{shown(seq_id)} that are not released), got start={shown(start)} stop={shown(stop)}"
            )
        return slots_of(sequence.table, self.block_size, start, stop)

    def num_released_tokens(self, seq_id: Hashable) -> int:
        """Return how many of a sequence's first tokens were released.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.

        See Also
        --------
        release : Releases blocks that slid out of a window.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 40)
        >>> _ = pool.release("a", window=16)
        >>> pool.num_released_tokens("a")
        16
        """
        return self._sequence(seq_id).num_released * self.block_size

    def is_swapped(self, seq_id: Hashable) -> bool:
        """Tell whether a sequence is swapped out.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        TypeError
            `seq_id` is not hashable.

        See Also
        --------
        swap_out, swap_in : Swap a sequence out and in.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.swap_out("a")
        >>> pool.is_swapped("a"), "a" in pool
        (True, False)
        """
        return hashable("seq_id", seq_id) in self._swapped

    def ref_count(self, block: SupportsIndex) -> int:
        """Return how many sequences hold a block.

        Parameters
        ----------
        block : int
            Number of the block in the pool.

        Raises
        ------
        TypeError
            `block` is not an integer.
        ValueError
            `block` does not lie in the pool.

        See Also
        --------
        fork : Shares the blocks of a sequence.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.fork("a", "b")
        >>> [pool.ref_count(block) for block in range(4)]
        [2, 2, 0, 0]
        """
        return self._pool.refs[self._pool.checked(block)]

    def is_cached(self, block: SupportsIndex) -> bool:
        """Tell whether a block is in the prefix cache; False without a prefix cache.

        Parameters
        ----------
        block : int
            Number of the block in the pool.

        Raises
        ------
        TypeError
            `block` is not an integer.
        ValueError
            `block` does not lie in the pool.

        See Also
        --------
        commit : Adds the full blocks of a sequence to the prefix cache.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=2, prefix_caching=True)
        >>> _ = pool.add("a", [7, 8, 9])
        >>> pool.commit("a")
        >>> pool.is_cached(0), pool.is_cached(1)    # block 1 is part-filled
        (True, False)
        """
        return self._is_cached(self._pool.checked(block))

    def generation(self, block: SupportsIndex) -> int:
        """Return how many times a block was handed out for new contents.

        Parameters
        ----------
        block : int
            Number of the block in the pool.

        Raises
        ------
        TypeError
            `block` is not an integer.
        ValueError
            `block` does not lie in the pool.

        See Also
        --------
        ref_count : How many sequences hold a block now.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 1)
        >>> pool.free("a")
        >>> _ = pool.add("b", 1)
        >>> pool.generation(0)
        2
        """
        return self._pool.generations[self._pool.checked(block)]

    @alone
    def stats(self) -> AllocatorStats:
        """Return the counts of the pool as they are now; takes constant time.

        See Also
        --------
        paged_numba.allocator.AllocatorStats : Defines each count.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.fork("a", "b")
        >>> stats = pool.stats()
        >>> stats.num_tokens, stats.num_stored_tokens, stats.num_shared_blocks
        (36, 18, 2)
        """
        free, prefixes = self._pool.num_free, self._prefixes
        used, empty = self.num_blocks - free, self._empty_slots.count(self._pool.refs)
        return AllocatorStats(
            num_blocks=self.num_blocks,
            num_free_blocks=free,
            num_used_blocks=used,
            num_shared_blocks=self._pool.num_shared,
            num_sequences=len(self._sequences),
            num_tokens=self._num_tokens,
            num_stored_tokens=used * self.block_size - empty,
            num_empty_slots=empty,
            num_cached_blocks=0 if prefixes is None else prefixes.num_idle,
            num_queried_tokens=self._num_queried,
            num_hit_tokens=self._num_hit,
            num_evictions=0 if prefixes is None else prefixes.num_evictions,
            num_swapped_sequences=len(self._swapped),
            num_recompute_preemptions=self._num_recomputes,
            num_swap_preemptions=self._num_swaps,
        )

    @alone
    def check(self) -> None:
        """Verify every invariant and count; takes time proportional to the pool and all block tables.

        Raises
        ------
        AssertionError
            An invariant is broken; the message says which, and where.

        See Also
        --------
        stats : Returns the counts.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.check()
        """
        sequences = self._sequences
        held = invariants.check_sequences(sequences, self.num_blocks, self.block_size)
        invariants.check_counts(
            sequences,
            self._swapped,
            self.block_size,
            self._num_tokens,
            self._empty_slots.count(self._pool.refs),
        )
        invariants.check_pool(self._pool, self._prefixes, held)
        if self._prefixes is not None:
            invariants.check_prefixes(self._prefixes, [sequence.node for sequence in sequences.values()])

    @alone
    def can_allocate(
        self,
        tokens: SupportsIndex | TokenIds,
        *,
        salt: Hashable = None,
        limit: SupportsIndex | None = None,
    ) -> bool:
        """Tell whether `add` would find enough free blocks for a sequence.

        Parameters
        ----------
        tokens, salt, limit : int or int[num_tokens], hashable, int
            As for `add`.

        Raises
        ------
        TypeError, ValueError
            As for `add`.

        See Also
        --------
        add : Starts the sequence.
        can_append, can_swap_in : The same for `append` and `swap_in`.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> pool.can_allocate(64), pool.can_allocate(65)
        (True, False)
        >>> pool.can_allocate(65, limit=32)    # the first 32 tokens of 65
        True
        """
        first = self._first_tokens(tokens, hashable("salt", salt), limit)
        return first.num_new + self._reserve <= self._pool.num_free_beside(first.hits)

    @alone
    def can_append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> bool:
        """Tell whether `append` would find enough free blocks.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        tokens : int, int[num_tokens] or sequence of int
            The number of tokens, 1 or more, or the token ids. The number is enough with a prefix cache, too.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.
        TypeError, ValueError
            As for `append`.

        See Also
        --------
        append : Grows the sequence.
        can_allocate, can_swap_in : The same for `add` and `swap_in`.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=2, block_size=16)
        >>> _ = pool.add("a", 30)
        >>> pool.can_append("a", 2), pool.can_append("a", 3)
        (True, False)
        """
        count, _ = count_and_ids(tokens, False, self.num_blocks * self.block_size)
        new, copied = self._growth(self._sequence(seq_id), positive("tokens", count))
        return new + copied <= self._pool.num_free

    @alone
    def can_swap_in(self, seq_id: Hashable) -> bool:
        """Tell whether `swap_in` would find enough free blocks.

        Parameters
        ----------
        seq_id : hashable
            Id of a sequence that is swapped out.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        ValueError
            The sequence is not swapped out.

        See Also
        --------
        swap_in : Gives the sequence blocks again.
        can_allocate, can_append : The same for `add` and `append`.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=2, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.swap_out("a")
        >>> _ = pool.add("b", 1)
        >>> pool.can_swap_in("a")
        False
        """
        sequence = self._swapped_sequence(seq_id)
        found, _ = self._find_again(sequence)
        hits = found[sequence.num_released :]
        new = len(sequence.table) - sequence.num_released - len(hits)
        return new <= self._pool.num_free_beside(hits)

    # Helpers.

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _is_cached(self, block: int) -> bool:
        return self._prefixes is not None and block in self._prefixes

    def _find(self, ids: tuple[list[bytes], bytes], salt: Hashable) -> tuple[list[int], int]:
        """Return the cached blocks of the first tokens, and the node of the last; leave one token to compute."""
        full, part = ids
        if self._prefixes is None or not full:
            return [], ROOT
        return self._prefixes.find(full if part else full[:-1], salt)

    def _find_again(self, sequence: SequenceState) -> tuple[list[int], int]:
        """Return the cached blocks of a swapped sequence, found for released places too, and the node of the last."""
        if self._prefixes is None or sequence.node == NONE:
            return [], sequence.node
        return self._prefixes.find(sequence.unwritten, sequence.salt)

    def _first_tokens(self, tokens: Any, salt: Hashable, limit: Any) -> FirstTokens:
        """Return what `add` does for the tokens of a new sequence."""
        most = self.num_blocks * self.block_size
        if limit is not None:
            limit = positive("limit", limit)
        count, ids = count_and_ids(tokens, self.prefix_caching, most, limit is not None)
        full, part = split(ids, self.block_size)
        hits, node = self._find((full, part), salt)
        stop = count if limit is None else min(count, len(hits) * self.block_size + limit)
        if stop < count:
            last = stop // self.block_size
            full, part = full[:last], ids[last * self.block_size * BYTES_PER_ID : stop * BYTES_PER_ID]
        num_new = self._blocks_for(stop) - len(hits)
        return FirstTokens(count, stop, hits, num_new, node, full[len(hits) :], part)

    def _growth(self, sequence: SequenceState, count: int) -> tuple[int, bool]:
        """Return how many blocks more tokens need, and whether a copy must replace the last block first."""
        new = self._blocks_for(sequence.length + count) - len(sequence.table)
        is_part_filled = sequence.length % self.block_size != 0
        return new, is_part_filled and self._pool.refs[sequence.table[-1]] > 1

    # Lookups.

    def _sequence(self, seq_id: Hashable, name: str = "seq_id") -> SequenceState:
        try:
            return self._sequences[hashable(name, seq_id)]
        except KeyError:
            if seq_id in self._swapped:
                raise SwappedSequenceError(f"the sequence {shown(seq_id)} is swapped out") from None
            raise UnknownSequenceError(f"no sequence has the id {shown(seq_id)}") from None

    def _swapped_sequence(self, seq_id: Hashable) -> SequenceState:
        if not self.is_swapped(seq_id):
            self._sequence(seq_id)
            raise ValueError(f"seq_id must name a sequence that is swapped out, got seq_id={shown(seq_id)}")
        return self._swapped[seq_id]
