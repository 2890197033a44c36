"""Block allocator: hands out KV blocks to sequences, shares blocks between sequences, and takes blocks back.

It never touches keys or values: `add` and `append` return the slots that the caller must write, and the blocks that the
caller must copy first. Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", SOSP 2023.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from typing import SupportsIndex

import numpy as np

from ..arguments import between, fraction, hashable, positive, shown, truth
from ..errors import DuplicateSequenceError, OutOfBlocksError
from . import invariants
from .allocation import Allocation
from .block_pool import BlockPool, check_pool_size
from .block_table import slots_of
from .empty_slots import EmptySlots
from .prefix_cache import NONE, ROOT, PrefixCache
from .queries import PoolQueries
from .sequence import SequenceState, enter_again
from .token_ids import BYTES_PER_ID, TokenIds, count_and_ids
from .transactions import UndoLog, whole

_NO_COPIES = np.empty((0, 2), np.int64)


class BlockAllocator(PoolQueries):
    """A pool of KV blocks, and a block table for each sequence.

    Parameters
    ----------
    num_blocks : int
        Blocks in the pool.
    block_size : int
        Tokens in a block.
    prefix_caching : bool
        Whether `add` looks for blocks that already hold the first tokens. The caller then passes token ids, and calls
        `commit` once the tokens are written. Freed blocks stay in the prefix cache until they are needed: the least
        recently used block is evicted first, and the end of a prefix before its beginning.
    watermark : float
        Share of the pool, 0 to 1, that `add` leaves free for running sequences to grow into.

    Attributes
    ----------
    num_blocks, block_size : int

    Raises
    ------
    TypeError
        A size is not an integer, `prefix_caching` not a bool, or `watermark` not a number.
    ValueError
        A size is not positive, the pool is too large, or `watermark` does not lie in 0 .. 1.
    MemoryError
        The bookkeeping of so many blocks does not fit into memory.

    See Also
    --------
    paged_numba.PagedKVCache : The allocator together with the storage and the operations on it.
    paged_numba.draw.BlockTables, paged_numba.draw.PoolHistory : Pictures of a pool.

    Notes
    -----
    ``len(pool)`` is the number of sequences, iteration gives their ids, and ``seq_id in pool`` tells whether a
    sequence is in the pool; sequences that are swapped out do not count.

    A method that raises any exception, even MemoryError or KeyboardInterrupt, has changed nothing. Any thread may call
    any method, and waits until the calls of other threads have ended. A call that changes the pool must not come from
    within another, as from a signal handler, a finalizer, or a method of an id; it raises PagedNumbaError.

    The time of a call is proportional to the number of blocks that it touches. It does not depend on the size of the
    pool nor, for `append`, on the length of the sequence; `stats` takes constant time. A block takes 8 bytes of memory,
    or about 15 if it is in a block table; with the prefix cache 21, or about 300 if it holds a prefix of 16 tokens (8
    bytes for each token id). ``paged-numba bench allocator`` measures time and memory.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
    >>> pool.add("a", 18).slots[[0, 15, 16, 17]].tolist()
    [0, 15, 16, 17]
    >>> pool.fork("a", "b")
    >>> pool.append("b").copies.tolist()    # a and b share block 1, which is part-filled: b gets a copy, block 2
    [[1, 2]]
    >>> pool.block_table("b").tolist()
    [0, 2]
    >>> pool
    BlockAllocator(4 blocks of 16 tokens, 2 sequences, 1 free)
    """

    def __init__(
        self,
        num_blocks: SupportsIndex,
        block_size: SupportsIndex,
        *,
        prefix_caching: bool = False,
        watermark: float = 0.0,
    ) -> None:
        watermark = fraction("watermark", watermark)
        self.num_blocks = positive("num_blocks", num_blocks)
        self.block_size = positive("block_size", block_size)
        check_pool_size(self.num_blocks, self.block_size, truth("prefix_caching", prefix_caching))
        self._undo = UndoLog()
        self._prefixes = PrefixCache(self.num_blocks, self._undo) if prefix_caching else None
        self._pool = BlockPool(self.num_blocks, self._prefixes, self._undo)
        # Rounded first: 0.29 * 100 is a little below 29 in binary.
        self._reserve = int(round(watermark * self.num_blocks, 9))
        self._sequences: dict[Hashable, SequenceState] = {}
        self._swapped: dict[Hashable, SequenceState] = {}
        self._num_entered = self._num_recomputes = self._num_swaps = 0
        self._num_tokens = self._num_queried = self._num_hit = 0
        self._empty_slots = EmptySlots(self.block_size)

    # Changes. Each method logs how to undo a step before the step; see `transactions`.

    @whole
    def add(
        self,
        seq_id: Hashable,
        tokens: SupportsIndex | TokenIds,
        *,
        salt: Hashable = None,
        limit: SupportsIndex | None = None,
    ) -> Allocation:
        """Start a sequence with its first tokens.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        tokens : int, int[num_tokens] or sequence of int
            The number of tokens, 0 or more; or the token ids, which the prefix cache needs. They must fit int64; a
            NumPy array is fastest.
        salt : hashable, optional
            Sequences share prefixes only if their salts are equal.
        limit : int, optional
            The most tokens, 1 or more, to begin with beyond those that the prefix cache holds; `append` then takes the
            others. So a prompt that is computed in chunks finds the same prefix as one that is computed at once.

        Returns
        -------
        Allocation
            At least the last of `tokens` is left to compute, even if the prefix cache holds all of them.

        Raises
        ------
        DuplicateSequenceError
            A sequence already has this id; nothing was changed.
        OutOfBlocksError
            The pool has fewer free blocks above its watermark than needed; nothing was changed.
        TypeError
            `tokens` is neither a number of tokens nor token ids, or is a number although there is a prefix cache; or
            `seq_id` or `salt` is not hashable.
        ValueError
            The number of tokens is negative, or a token id does not fit int64.

        See Also
        --------
        can_allocate : Tells whether there are enough free blocks.
        append : Grows the sequence.
        commit : Must be called once the tokens are written, if there is a prefix cache.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=8, block_size=2, prefix_caching=True)
        >>> pool.add("a", [1, 2, 3, 4]).num_cached_tokens
        0
        >>> pool.commit("a")
        >>> allocation = pool.add("b", [1, 2, 3, 5])
        >>> allocation.num_cached_tokens, allocation.slots.tolist()
        (2, [4, 5])
        >>> pool.block_table("a").tolist(), pool.block_table("b").tolist()
        ([0, 1], [0, 2])

        A prompt of 7 tokens in chunks of 2 tokens at most; the prefix cache holds its first 2.

        >>> pool.add("c", [1, 2, 8, 9, 10, 11, 12], limit=2).slots.tolist(), pool.seq_len("c")
        ([6, 7], 4)
        >>> pool.append("c", [10, 11]).slots.tolist()
        [8, 9]
        """
        hashable("salt", salt)
        self._require_new(seq_id)
        count, stop, hits, new, node, unwritten, part = self._first_tokens(tokens, salt, limit)
        self._require_free("add", stop, new, self._pool.num_free_beside(hits), self._reserve)
        # Hold the hits before taking other blocks, which may evict prefixes.
        if hits:
            self._pool.hold(hits)
        table = array("i", hits)
        table.extend(self._pool.take(new))
        cached = len(hits) * self.block_size
        self._enter(seq_id, SequenceState(table, stop, salt, node, unwritten, part, cached))
        self._empty_slots.begin(stop)
        if self._prefixes is not None:
            self._prefixes.use(node)
            self._count("_num_queried", count)
            self._count("_num_hit", cached)
        return Allocation(_NO_COPIES, slots_of(table, self.block_size, cached, stop), cached)

    @whole
    def append(self, seq_id: Hashable, tokens: SupportsIndex | TokenIds = 1) -> Allocation:
        """Grow a sequence; if its last block is part-filled and shared, replace it by a copy first.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        tokens : int, int[num_tokens] or sequence of int
            The number of tokens, 1 or more; or the token ids, which the prefix cache needs.

        Returns
        -------
        Allocation
            `copies` has one row if the last block is replaced (copy on write), else none.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.
        OutOfBlocksError
            The pool has fewer free blocks than needed; nothing was changed.
        TypeError
            `tokens` is neither a number of tokens nor token ids, or is a number although there is a prefix cache.
        ValueError
            There are no tokens, or a token id does not fit int64.

        See Also
        --------
        add : Starts a sequence.
        fork : Shares the blocks of a sequence.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.fork("a", "b")
        >>> allocation = pool.append("b")
        >>> allocation.copies.tolist(), allocation.slots.tolist()    # slot 34 = block 2 * 16 + offset 2
        ([[1, 2]], [34])
        """
        count, ids = count_and_ids(tokens, self._prefixes is not None, self.num_blocks * self.block_size)
        if count == 0:
            raise ValueError(f"tokens must be positive, got tokens={shown(tokens)}")
        sequence = self._sequence(seq_id)
        table, start, stop = sequence.table, sequence.length, sequence.length + count
        new, copied = self._growth(sequence, count)
        self._require_free("append", count, new + copied, self._pool.num_free)
        copies = _NO_COPIES
        self._undo.append((sequence.shorten, len(table), start, len(sequence.unwritten), sequence.part))
        self._empty_slots.leave(sequence, self._pool.refs)
        taken: Sequence[int] = self._pool.take(new + copied) if new or copied else ()
        if copied:
            source = table[-1]
            self._undo.append((table.__setitem__, len(table) - 1, source))
            table[-1] = taken[0]
            self._pool.drop([source])
            copies = np.array([(source, taken[0])], np.int64)
        elif self._prefixes is not None and start % self.block_size and table[-1] in self._prefixes:
            # It was full before `truncate`; now other tokens will follow in it.
            self._prefixes.give_up(table[-1])
        if new:
            table.extend(taken[copied:])
        sequence.length = stop
        self._num_tokens += count
        self._empty_slots.begin(stop)
        sequence.extend(ids, self.block_size)
        return Allocation(copies, slots_of(table, self.block_size, start, stop))

    @whole
    def truncate(self, seq_id: Hashable, length: SupportsIndex) -> None:
        """Take back the last tokens of a sequence: rejected draft tokens, or those of a step that failed.

        Blocks that hold none of its other tokens are dropped; the prefix cache may keep them. If the last block that is
        left is shared, the next `append` replaces it by a copy; if it is in the prefix cache, that `append` makes the
        prefix cache forget it. With a sliding window, call `truncate` before `release`: a released block does not come
        back, even if the tokens that follow see it.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        length : int
            The number of tokens to keep. Released tokens count, and are kept.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.
        TypeError
            `length` is not an integer.
        ValueError
            The sequence has fewer tokens, or has released more.

        See Also
        --------
        append : Grows the sequence.
        free : Takes back all tokens, and ends the sequence.

        Examples
        --------
        Of five draft tokens, the first two were right:

        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=8, block_size=4)
        >>> _ = pool.add("a", 6)
        >>> pool.append("a", 5).slots.tolist()
        [6, 7, 8, 9, 10]
        >>> pool.truncate("a", 8)
        >>> pool.block_table("a").tolist(), pool.append("a").slots.tolist()
        ([0, 1], [8])
        """
        sequence = self._sequence(seq_id)
        low = sequence.num_released * self.block_size
        what = f"from the released tokens of {shown(seq_id)} to all of its tokens"
        length = between("length", length, low, sequence.length, what)
        before, kept = sequence.length, self._blocks_for(length)
        dropped = sequence.table[kept:]
        self._undo.append((sequence.lengthen, kept, dropped, before, sequence.num_written))
        self._empty_slots.truncate(sequence, length, self._pool.refs, self._is_cached)
        del sequence.table[kept:]
        sequence.length, sequence.num_written = length, min(length, sequence.num_written)
        self._num_tokens -= before - length
        self._pool.drop(dropped)
        self._truncate_ids(sequence, before // self.block_size)

    @whole
    def commit(self, seq_id: Hashable) -> None:
        """Record that all tokens of a sequence are written: from now on `add` may find its full blocks.

        Does nothing without a prefix cache.

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
        is_cached : Tells whether a block is in the prefix cache.
        reset_prefix_cache : Forgets all prefixes.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=8, block_size=2, prefix_caching=True)
        >>> _ = pool.add("a", [1, 2, 3])
        >>> pool.add("b", [1, 2, 4]).num_cached_tokens    # a is not written yet
        0
        >>> pool.commit("a")
        >>> pool.add("c", [1, 2, 4]).num_cached_tokens
        2
        """
        sequence = self._sequence(seq_id)
        if sequence.num_written < sequence.length:
            self._record_written(sequence, sequence.length)
        if self._prefixes is None or not sequence.unwritten:
            return
        full = sequence.length // self.block_size
        blocks = sequence.table[full - len(sequence.unwritten) : full]
        node, replaced = self._prefixes.insert(sequence.node, sequence.unwritten, blocks, sequence.salt)
        self._pool.reclaim(replaced)
        self._prefixes.use(node)
        self._prefixes.drop(sequence.node)
        self._continue_from(sequence, node, [], sequence.part)

    @whole
    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        """Start a sequence that shares every block of another.

        Parameters
        ----------
        parent_id : hashable
            Id of the sequence whose blocks are shared.
        child_id : hashable
            Id of the new sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has the id `parent_id`.
        SwappedSequenceError
            The parent is swapped out.
        DuplicateSequenceError
            A sequence already has the id `child_id`.

        See Also
        --------
        append : Copies the shared, part-filled last block on the first write to it.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.fork("a", "b")
        >>> pool.block_table("b").tolist(), pool.num_free_blocks
        ([0, 1], 2)
        """
        parent = self._sequence(parent_id, "parent_id")
        self._require_new(child_id, "child_id")
        child = parent.fork()
        self._pool.hold(child.held())
        if self._prefixes is not None:
            self._prefixes.use(child.node)
        self._enter(child_id, child)
        self._empty_slots.fork(child)

    @whole
    def free(self, seq_id: Hashable) -> None:
        """End a sequence, which may be swapped out; blocks that no other sequence holds are free again.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id, or it was freed before.

        See Also
        --------
        preempt : Frees a sequence that is added again later.
        release : Frees only the blocks that slid out of a window.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.fork("a", "b")
        >>> _ = pool.append("b", 16)
        >>> pool.free("b")
        >>> pool
        BlockAllocator(4 blocks of 16 tokens, 1 sequence, 2 free)
        """
        if self.is_swapped(seq_id):
            self._undo.append((self._swapped.__setitem__, seq_id, self._swapped[seq_id]))
            del self._swapped[seq_id]
        else:
            self._leave(seq_id)

    @whole
    def release(self, seq_id: Hashable, window: SupportsIndex) -> int:
        """Release the blocks that neither the last token nor any later one sees through a sliding window.

        Call it after the attention of a step: the tokens before the last see further back. The block table keeps its
        length, with -1 in the released places. Other sequences that share a released block keep it, and the prefix
        cache may keep it.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        window : int
            As for attention: a token sees no key at `window` or more positions before its own.

        Returns
        -------
        int
            How many blocks were released.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is swapped out.
        TypeError
            `window` is not an integer.
        ValueError
            `window` is not positive.

        See Also
        --------
        held_blocks : The blocks that are left.
        num_released_tokens : How many tokens were released so far.

        Examples
        --------
        The last of 40 tokens, at position 39, sees positions 24 to 39: block 0 is no longer needed.

        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 40)
        >>> pool.release("a", window=16)
        1
        >>> pool.block_table("a").tolist()
        [-1, 1, 2]
        """
        sequence = self._sequence(seq_id)
        first = sequence.num_released
        beyond = max(0, sequence.length - positive("window", window)) // self.block_size
        released = sequence.table[first:beyond]
        self._undo.append((sequence.hold_again, first, released))
        sequence.release(beyond)
        self._pool.drop(released)
        return len(released)

    @whole
    def preempt(self, seq_id: Hashable) -> None:
        """Free a sequence to make room; the caller adds it again later and computes its tokens again.

        The prefix cache may keep the committed blocks until they are needed.

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
        swap_out : Makes room too, but saves the computed tokens.
        free : Ends a sequence for good, and does not count as a preemption.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.preempt("a")
        >>> pool.num_free_blocks, pool.stats().num_recompute_preemptions
        (4, 1)
        """
        self._leave(seq_id)
        self._count("_num_recomputes")

    @whole
    def swap_out(self, seq_id: Hashable) -> None:
        """Free the blocks of a sequence whose tokens the caller has copied to host memory.

        Other sequences that share its blocks keep them, and the prefix cache may keep the rest until they are needed.
        The sequence keeps its id and its length, iteration skips it, and until `swap_in` it may only be freed.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        SwappedSequenceError
            The sequence is already swapped out.

        See Also
        --------
        swap_in : Gives the sequence blocks again.
        preempt : Makes room, too, but the tokens must be computed again.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=16)
        >>> _ = pool.add("a", 18)
        >>> pool.swap_out("a")
        >>> pool
        BlockAllocator(4 blocks of 16 tokens, 0 sequences, 1 swapped out, 4 free)
        """
        ids = [] if self._prefixes is None else self._prefixes.ids(self._sequence(seq_id).node)
        # A copy: `stored` belongs to this stay in host memory alone.
        sequence = self._leave(seq_id).fork()
        if sequence.node != NONE:
            sequence.continue_from(ROOT, ids + sequence.unwritten, sequence.part)
        self._undo.append((self._swapped.pop, seq_id, None))
        self._swapped[seq_id] = sequence
        self._count("_num_swaps")

    @whole
    def swap_in(self, seq_id: Hashable) -> Allocation:
        """Give blocks to a sequence that was swapped out.

        The watermark does not apply. The sequence no longer shares blocks with its forks, only with the sequences whose
        blocks the prefix cache finds.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Returns
        -------
        Allocation
            The slots to copy the tokens back to, from token `num_cached_tokens` on. Call `commit` afterwards.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        ValueError
            The sequence is not swapped out.
        OutOfBlocksError
            The pool has fewer free blocks than needed; nothing was changed.

        See Also
        --------
        swap_out : Frees the blocks of a sequence.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=4, block_size=2)
        >>> _ = pool.add("a", 3)
        >>> pool.swap_out("a")
        >>> _ = pool.add("b", 1)
        >>> pool.swap_in("a").slots.tolist()
        [2, 3, 4]
        """
        sequence = self._swapped_sequence(seq_id)
        found, node = self._find_again(sequence)
        hits = found[sequence.num_released :]
        kept = sequence.num_released + len(hits)
        new = len(sequence.table) - kept
        self._require_free("swap_in", sequence.length, new, self._pool.num_free_beside(hits))
        if self._prefixes is not None:
            # Before taking blocks: that may evict blocks found for released places, which no sequence holds.
            self._prefixes.use(node)
        self._pool.hold(hits)
        table = sequence.table[: sequence.num_released] + array("i", hits) + self._pool.take(new)
        self._undo.append((setattr, sequence, "table", sequence.table))
        sequence.table = table
        self._continue_from(sequence, node, sequence.unwritten[len(found) :], sequence.part)
        self._undo.append((self._swapped.__setitem__, seq_id, sequence))
        del self._swapped[seq_id]
        self._enter(seq_id, sequence)
        self._empty_slots.begin(sequence.length)
        cached = kept * self.block_size
        self._record_written(sequence, cached)
        self._undo.append((setattr, sequence, "stored", sequence.stored))
        sequence.stored = None
        return Allocation(
            _NO_COPIES, slots_of(sequence.table, self.block_size, cached, sequence.length), cached
        )

    @whole
    def reset_prefix_cache(self) -> None:
        """Forget all prefixes.

        Sequences keep their blocks, but `add` never finds a block of a sequence that was added before the reset.

        See Also
        --------
        commit : Adds the full blocks of a sequence to the prefix cache.

        Examples
        --------
        >>> import paged_numba as pn
        >>> pool = pn.BlockAllocator(num_blocks=8, block_size=2, prefix_caching=True)
        >>> _ = pool.add("a", [1, 2, 3])
        >>> pool.commit("a")
        >>> pool.reset_prefix_cache()
        >>> pool.add("b", [1, 2, 3]).num_cached_tokens
        0
        """
        if self._prefixes is not None:
            self._pool.reclaim(self._prefixes.clear())
            for sequence in (*self._sequences.values(), *self._swapped.values()):
                self._continue_from(sequence, NONE, [], b"")

    # Helpers.

    def _record_written(self, sequence: SequenceState, num_tokens: int) -> None:
        self._undo.append((setattr, sequence, "num_written", sequence.num_written))
        sequence.num_written = num_tokens

    def _enter(self, seq_id: Hashable, sequence: SequenceState) -> None:
        """Add a sequence to the pool."""
        self._undo.append((self._sequences.pop, seq_id, None))
        sequence.number = self._num_entered
        self._num_entered += 1
        self._sequences[seq_id] = sequence
        self._num_tokens += sequence.length

    def _leave(self, seq_id: Hashable) -> SequenceState:
        """Remove a sequence from the pool, free its blocks, and return it."""
        sequence = self._sequence(seq_id)
        self._undo.append((enter_again, self._sequences, seq_id, sequence))
        del self._sequences[seq_id]
        self._num_tokens -= sequence.length
        self._empty_slots.leave(sequence, self._pool.refs)
        self._pool.drop(sequence.held())
        if self._prefixes is not None:
            if sequence.num_released:
                # Blocks that the sequence released earlier begin its prefix, so they must not be evicted first.
                self._prefixes.renew(sequence.node)
            self._prefixes.drop(sequence.node)
        return sequence

    def _count(self, name: str, by: int = 1) -> None:
        """Increase a count that `_recount` cannot derive from the sequences."""
        self._undo.append((setattr, self, name, getattr(self, name)))
        setattr(self, name, getattr(self, name) + by)

    def _truncate_ids(self, sequence: SequenceState, full: int) -> None:
        """Set the place of a truncated sequence in the prefix cache; before, `full` of its blocks were full."""
        if self._prefixes is None or sequence.node == NONE:
            return
        place, rest = divmod(sequence.length, self.block_size)
        node, ids, first = sequence.node, [*sequence.unwritten, sequence.part], full - len(sequence.unwritten)
        if place < first:
            node, last = self._prefixes.ancestor(node, first - place)
            ids, first = [last], place
        self._prefixes.use(node)
        self._prefixes.drop(sequence.node)
        part = ids[place - first][: rest * BYTES_PER_ID]
        self._continue_from(sequence, node, ids[: place - first], part)

    def _continue_from(self, sequence: SequenceState, node: int, unwritten: list[bytes], part: bytes) -> None:
        self._undo.append((sequence.continue_from, sequence.node, sequence.unwritten, sequence.part))
        sequence.continue_from(node, unwritten, part)

    # Undoing changes.

    def _recount(self) -> None:
        """Compute again all counts that follow from the sequences, and so need no log."""
        sequences = self._sequences
        self._pool.recount(invariants.check_sequences(sequences, self.num_blocks, self.block_size))
        self._num_tokens = sum(sequence.length for sequence in sequences.values())
        self._empty_slots.recount(sequences.values(), self._pool.refs, self._is_cached)
        if self._prefixes is not None:
            self._prefixes.recount(sequence.node for sequence in sequences.values())

    def _evicted(self) -> list[int]:
        """Return the blocks that the running transaction has evicted from the prefix cache."""
        return [] if self._prefixes is None else self._prefixes.evicted()

    # Checks.

    def _require_new(self, seq_id: Hashable, name: str = "seq_id") -> None:
        if hashable(name, seq_id) in self._sequences or seq_id in self._swapped:
            raise DuplicateSequenceError(f"a sequence already has the id {shown(seq_id)}")

    def _require_free(self, what: str, tokens: int, needed: int, free: int, watermark: int = 0) -> None:
        if needed + watermark > free:
            why = f"{what} of {tokens} token{'' if tokens == 1 else 's'}"
            raise OutOfBlocksError(needed, free, why, watermark)
