"""Host-side bookkeeping of KV blocks: who owns which block, who shares it, which are free.

Nothing here touches keys or values: `add` and `append` say which slots the caller must write, and which
blocks it must copy first. Source: Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention", SOSP 2023.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import fraction, hashable, integer, not_negative, positive, truth
from ..errors import DuplicateSequenceError, OutOfBlocksError, SwappedSequenceError, UnknownSequenceError
from . import invariants
from .allocation import Allocation, AllocatorStats
from .block_pool import BlockPool, check_pool_size
from .block_table import slots
from .prefix_cache import NONE, ROOT, PrefixCache
from .sequence import SequenceState
from .token_ids import as_bytes, split

_NO_COPIES = np.empty((0, 2), np.int64)


class BlockAllocator:
    """A pool of KV blocks with a block table for each sequence.

    Parameters
    ----------
    num_blocks : int
        Blocks in the pool.
    block_size : int
        Tokens of a block.
    prefix_caching : bool
        Whether `add` finds blocks that hold the first tokens already. Sequences are then given as token ids, and
        `commit` says when they are written. Freed blocks stay findable until they are needed, those that were
        used least recently go first, and a chain's tail before its head.
    watermark : float
        Part of the pool that `add` leaves free for sequences to grow into, 0 to 1.

    Notes
    -----
    Every change takes time in proportion to the blocks that it touches, whatever the size of the pool or, for
    `append`, of the sequence; `stats` takes the same time always. A block takes 8 bytes, and about 15 in a table;
    with the prefix cache 21, and about 300 while it holds a prefix of 16 tokens, of which 8 for each token's id.
    ``paged-numba bench allocator`` measures both.

    Raises
    ------
    TypeError, ValueError
        A size that is no positive integer, or a watermark out of range.

    Examples
    --------
    >>> pool = BlockAllocator(num_blocks=4, block_size=16)
    >>> pool.add("a", 18).slots[[0, 15, 16, 17]].tolist()
    [0, 15, 16, 17]
    >>> pool.fork("a", "b")
    >>> pool.append("b").copies.tolist()    # the half-filled block 1 is shared: b gets its own
    [[1, 2]]
    >>> pool.block_table("b").tolist()
    [0, 2]
    """

    def __init__(
        self, num_blocks: int, block_size: int, *, prefix_caching: bool = False, watermark: float = 0.0
    ) -> None:
        watermark = fraction("watermark", watermark)
        self.num_blocks = positive("num_blocks", num_blocks)
        self.block_size = positive("block_size", block_size)
        check_pool_size(self.num_blocks, self.block_size)
        self._prefixes = PrefixCache(self.num_blocks) if truth("prefix_caching", prefix_caching) else None
        self._pool = BlockPool(self.num_blocks, self._prefixes)
        # 0.29 * 100 is a little below 29 in binary.
        self._reserve = int(round(watermark * self.num_blocks, 9))
        self._sequences: dict[Hashable, SequenceState] = {}
        self._swapped: dict[Hashable, SequenceState] = {}
        self._num_recomputes = self._num_swaps = 0
        self._num_tokens = self._num_empty_slots = self._num_queried = self._num_hit = 0

    # Questions.

    def __contains__(self, seq_id: Hashable) -> bool:
        return seq_id in self._sequences

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._sequences)

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def prefix_caching(self) -> bool:
        """Whether there is a prefix cache."""
        return self._prefixes is not None

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence owns; some may hold a prefix still."""
        return self._pool.num_free

    def is_cached(self, block: int) -> bool:
        """Tell whether a block holds a part of a prefix that the prefix cache knows."""
        block = self._block(block)
        return self._prefixes is not None and block in self._prefixes

    def generation(self, block: int) -> int:
        """Return how often a block was handed out to be written anew."""
        return self._pool.generations[self._block(block)]

    def is_swapped(self, seq_id: Hashable) -> bool:
        """Tell whether a sequence is swapped out."""
        return hashable("seq_id", seq_id) in self._swapped

    def seq_len(self, seq_id: Hashable) -> int:
        """Return the number of tokens of a sequence, also of one that is swapped out.

        Raises
        ------
        UnknownSequenceError
        """
        return self._swapped[seq_id].length if self.is_swapped(seq_id) else self._sequence(seq_id).length

    def num_released_tokens(self, seq_id: Hashable) -> int:
        """Return how many of a sequence's first tokens `release` gave up.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        return self._sequence(seq_id).num_released * self.block_size

    def block_table(self, seq_id: Hashable) -> Any:
        """Return the blocks of a sequence in logical order, int32[num_seq_blocks]; -1 for those released.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        return np.array(self._sequence(seq_id).table, np.int32)

    def held_blocks(self, seq_id: Hashable) -> Any:
        """Return the block table without the places that were released, int32[num_held_blocks].

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        return np.array(self._sequence(seq_id).held(), np.int32)

    def slots(self, seq_id: Hashable, start: int, stop: int) -> Any:
        """Return the slots of the tokens ``start .. stop - 1`` of a sequence, int64[stop - start].

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, ValueError
        """
        sequence = self._sequence(seq_id)
        start, stop = not_negative("start", start), not_negative("stop", stop)
        first = sequence.num_released * self.block_size
        if not first <= start <= stop <= sequence.length:
            raise ValueError(
                f"start and stop must lie in order in {first} .. {sequence.length} (the tokens of {seq_id!r} that "
                f"are not released), got start={start} stop={stop}"
            )
        return self._slots(sequence.table, start, stop)

    def ref_count(self, block: int) -> int:
        """Return how many sequences hold a block."""
        return self._pool.refs[self._block(block)]

    def stats(self) -> AllocatorStats:
        """Return the counts of the moment, in constant time."""
        free, prefixes = self._pool.num_free, self._prefixes
        used = self.num_blocks - free
        return AllocatorStats(
            num_blocks=self.num_blocks,
            num_free_blocks=free,
            num_used_blocks=used,
            num_shared_blocks=self._pool.num_shared,
            num_sequences=len(self._sequences),
            num_tokens=self._num_tokens,
            num_stored_tokens=used * self.block_size - self._num_empty_slots,
            num_empty_slots=self._num_empty_slots,
            num_cached_blocks=0 if prefixes is None else prefixes.num_idle,
            num_queried_tokens=self._num_queried,
            num_hit_tokens=self._num_hit,
            num_evictions=0 if prefixes is None else prefixes.num_evictions,
            num_swapped_sequences=len(self._swapped),
            num_recompute_preemptions=self._num_recomputes,
            num_swap_preemptions=self._num_swaps,
        )

    def can_allocate(self, tokens: int | Sequence[int], *, salt: Hashable = None) -> bool:
        """Tell whether `add` would find blocks for a sequence; see there."""
        count, ids = self._tokens(tokens)
        hits, _ = self._find(split(ids, self.block_size), hashable("salt", salt))
        return self._blocks_for(count) - len(hits) + self._reserve <= self._pool.num_free_beside(hits)

    def check(self) -> None:
        """Verify every invariant and count; costs time in proportion to the pool and all tables.

        Raises
        ------
        AssertionError
            Says which invariant is broken, and where.
        """
        sequences = self._sequences
        held = invariants.check_sequences(sequences, self.num_blocks, self.block_size)
        invariants.check_counts(
            sequences, self._swapped, self.block_size, self._num_tokens, self._num_empty_slots
        )
        invariants.check_pool(self._pool, self._prefixes, held)
        if self._prefixes is not None:
            invariants.check_prefixes(self._prefixes, [s.node for s in sequences.values() if s.node != NONE])

    # Changes. Each checks all that can fail before it changes anything.

    def add(self, seq_id: Hashable, tokens: int | Sequence[int], *, salt: Hashable = None) -> Allocation:
        """Start a sequence with its first tokens, none included.

        Parameters
        ----------
        seq_id : hashable
        tokens : int, integer[num_tokens] or sequence of int
            How many, 0 or more; or the token ids, which the prefix cache needs. They must fit int64; a NumPy
            array is fastest.
        salt : hashable, optional
            Prefixes are shared by sequences of one salt only.

        Returns
        -------
        Allocation
            Even of a prompt that is found whole, the last block is left to compute, so at least one token.

        Raises
        ------
        DuplicateSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        count, ids = self._tokens(tokens)
        hashable("salt", salt)
        self._require_new(seq_id)
        unwritten, part = split(ids, self.block_size)
        hits, node = self._find((unwritten, part), salt)
        new = self._blocks_for(count) - len(hits)
        self._require_free("add", count, new, self._pool.num_free_beside(hits), self._reserve)
        # Hits are held first: what they need may not be given up for the others.
        self._pool.hold(hits)
        table = array("i", hits)
        table.extend(self._pool.take(new))
        self._enter(seq_id, SequenceState(table, count, salt, node, unwritten[len(hits) :], part))
        cached = len(hits) * self.block_size
        self._num_empty_slots += -count % self.block_size
        if self._prefixes is not None:
            self._prefixes.use(node)
            self._num_queried += count
            self._num_hit += cached
        return Allocation(_NO_COPIES, self._slots(table, cached, count), cached)

    def append(self, seq_id: Hashable, tokens: int | Sequence[int] = 1) -> Allocation:
        """Grow a sequence; its last block, if part-filled and shared, is replaced by a copy of its own.

        Parameters
        ----------
        seq_id : hashable
        tokens : int, integer[num_tokens] or sequence of int
            How many, 1 or more; or the token ids, which the prefix cache needs.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, OutOfBlocksError, TypeError, ValueError
            Nothing was changed.
        """
        count, ids = self._tokens(tokens)
        if count == 0:
            raise ValueError(f"tokens must be positive, got tokens={tokens!r}")
        sequence = self._sequence(seq_id)
        table, start = sequence.table, sequence.length
        stop = start + count
        copied = start % self.block_size != 0 and self._pool.refs[table[-1]] > 1
        new = self._blocks_for(stop) - len(table)
        self._require_free("append", count, new + copied, self._pool.num_free)
        copies = _NO_COPIES
        if copied:
            source = table[-1:]
            table[-1:] = self._pool.take(1)
            self._pool.drop(source)
            copies = np.array([(source[0], table[-1])], np.int64)
        else:
            # The empty slots of its last block; those of a block that others keep stay empty.
            self._num_empty_slots -= -start % self.block_size
        if new:
            table.extend(self._pool.take(new))
        sequence.length = stop
        self._num_tokens += count
        self._num_empty_slots += -stop % self.block_size
        sequence.extend(ids, self.block_size)
        return Allocation(copies, self._slots(table, start, stop))

    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        """Start a sequence that shares every block of another.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, DuplicateSequenceError
            Nothing was changed.
        """
        parent = self._sequence(parent_id)
        self._require_new(child_id)
        child = parent.fork()
        self._pool.hold(child.held())
        if self._prefixes is not None:
            self._prefixes.use(child.node)
        self._enter(child_id, child)

    def free(self, seq_id: Hashable) -> None:
        """End a sequence, swapped out or not; blocks that no other shares are free again.

        Raises
        ------
        UnknownSequenceError
            Also for a sequence that was freed before; nothing was changed.
        """
        if self.is_swapped(seq_id):
            del self._swapped[seq_id]
        else:
            self._leave(seq_id)

    def preempt(self, seq_id: Hashable) -> None:
        """Free a sequence to make room; the caller adds it again later, and has it computed again.

        What it wrote stays findable by the prefix cache until the blocks are needed.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            Nothing was changed.
        """
        self._leave(seq_id)
        self._num_recomputes += 1

    def swap_out(self, seq_id: Hashable) -> None:
        """Give up the blocks of a sequence whose tokens the caller has copied to host memory.

        Sequences that share blocks with it keep them, and the prefix cache may keep the others, until they are
        needed. The sequence keeps its id and its length. It is not iterated over, and until `swap_in` it may only
        be freed.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            Nothing was changed.
        """
        ids = [] if self._prefixes is None else self._prefixes.ids(self._sequence(seq_id).node)
        sequence = self._leave(seq_id)
        if sequence.node != NONE:
            sequence.node, sequence.unwritten = ROOT, ids + sequence.unwritten
        self._swapped[seq_id] = sequence
        self._num_swaps += 1

    def swap_in(self, seq_id: Hashable) -> Allocation:
        """Give a sequence that was swapped out blocks again.

        The watermark does not bind it. Blocks that it shared with a fork are its own from here on; those that the
        prefix cache holds are shared.

        Returns
        -------
        Allocation
            The slots to copy tokens back to, those after the first `num_cached_tokens`; then comes `commit`.

        Raises
        ------
        UnknownSequenceError, ValueError
            No sequence is swapped out with this id; nothing was changed.
        OutOfBlocksError
            Nothing was changed.
        """
        if not self.is_swapped(seq_id):
            self._sequence(seq_id)
            raise ValueError(f"seq_id must be that of a sequence that is swapped out, got seq_id={seq_id!r}")
        sequence = self._swapped[seq_id]
        found: list[int] = []
        node = sequence.node
        if self._prefixes is not None and node != NONE:
            found, node = self._prefixes.find(sequence.unwritten, sequence.salt)
        hits = found[sequence.num_released :]
        kept = sequence.num_released + len(hits)
        new = len(sequence.table) - kept
        self._require_free("swap_in", sequence.length, new, self._pool.num_free_beside(hits))
        if self._prefixes is not None:
            # Before blocks are taken: those found in released places are not held, and may be given up.
            self._prefixes.use(node)
        self._pool.hold(hits)
        sequence.table[sequence.num_released :] = array("i", hits) + self._pool.take(new)
        sequence.node = node
        del sequence.unwritten[: len(found)], self._swapped[seq_id]
        self._num_empty_slots += -sequence.length % self.block_size
        self._enter(seq_id, sequence)
        cached = kept * self.block_size
        return Allocation(_NO_COPIES, self._slots(sequence.table, cached, sequence.length), cached)

    def release(self, seq_id: Hashable, window: int) -> int:
        """Give up the blocks that no token from the last one on sees through a sliding window.

        Call it after the step's attention: the tokens before the last see further back. The block table keeps its
        length, with -1 in the released places. Sequences that share a block keep it, and the prefix cache may.

        Parameters
        ----------
        seq_id : hashable
        window : int
            As of attention: a token sees no key at `window` or more positions before its own.

        Returns
        -------
        int
            How many blocks this sequence gave up.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, TypeError, ValueError
            Nothing was changed.
        """
        sequence = self._sequence(seq_id)
        gone = sequence.release(max(0, sequence.length - positive("window", window)) // self.block_size)
        self._pool.drop(gone)
        return len(gone)

    def commit(self, seq_id: Hashable) -> None:
        """Say that all tokens of a sequence are written: from here on its full blocks may be found.

        Does nothing without the prefix cache.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        sequence = self._sequence(seq_id)
        if self._prefixes is None or not sequence.unwritten:
            return
        full = sequence.length // self.block_size
        blocks = sequence.table[full - len(sequence.unwritten) : full]
        node, replaced = self._prefixes.insert(sequence.node, sequence.unwritten, blocks, sequence.salt)
        self._pool.reclaim(replaced)
        self._prefixes.use(node)
        self._prefixes.drop(sequence.node)
        sequence.node, sequence.unwritten = node, []

    def reset_prefix_cache(self) -> None:
        """Forget all prefixes; sequences keep their blocks, and none of theirs is found from here on."""
        if self._prefixes is not None:
            self._pool.reclaim(self._prefixes.clear())
            for sequence in (*self._sequences.values(), *self._swapped.values()):
                sequence.hide()

    # Pieces.

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _slots(self, table: array[int], start: int, stop: int) -> NDArray[np.int64]:
        return slots(table, self.block_size, start, stop)

    def _enter(self, seq_id: Hashable, sequence: SequenceState) -> None:
        self._sequences[seq_id] = sequence
        self._num_tokens += sequence.length

    def _leave(self, seq_id: Hashable) -> SequenceState:
        """Give back what a sequence holds."""
        sequence = self._sequence(seq_id)
        del self._sequences[seq_id]
        self._num_tokens -= sequence.length
        if sequence.table and self._pool.refs[sequence.table[-1]] == 1:
            self._num_empty_slots -= -sequence.length % self.block_size
        self._pool.drop(sequence.held())
        if self._prefixes is not None:
            if sequence.num_released:
                # Those that it released before are the head of what it gives back now.
                self._prefixes.renew(sequence.node)
            self._prefixes.drop(sequence.node)
        return sequence

    def _sequence(self, seq_id: Hashable) -> SequenceState:
        try:
            return self._sequences[hashable("seq_id", seq_id)]
        except KeyError:
            if seq_id in self._swapped:
                raise SwappedSequenceError(f"the sequence {seq_id!r} is swapped out") from None
            raise UnknownSequenceError(f"no sequence has the id {seq_id!r}") from None

    def _require_new(self, seq_id: Hashable) -> None:
        if hashable("seq_id", seq_id) in self._sequences or seq_id in self._swapped:
            raise DuplicateSequenceError(f"a sequence has the id {seq_id!r} already")

    def _block(self, block: int) -> int:
        block = integer("block", block)
        if not 0 <= block < self.num_blocks:
            raise ValueError(f"block must lie in 0 .. {self.num_blocks - 1}, got block={block}")
        return block

    def _find(self, ids: tuple[list[bytes], bytes], salt: Hashable) -> tuple[list[int], int]:
        """Return the blocks that hold the first tokens, and the last one's node; one token stays to compute."""
        full, part = ids
        if self._prefixes is None or not full:
            return [], ROOT
        return self._prefixes.find(full if part else full[:-1], salt)

    def _tokens(self, tokens: Any) -> tuple[int, bytes]:
        """Return the number of tokens, and their ids where the prefix cache needs them."""
        if isinstance(tokens, (set, frozenset, dict)):
            raise TypeError(f"tokens must be a count, or token ids in order, got {type(tokens).__name__}")
        if isinstance(tokens, str) or not hasattr(tokens, "__len__") or getattr(tokens, "ndim", 1) == 0:
            count = not_negative("tokens", tokens)
            if self._prefixes is not None:
                raise TypeError(
                    f"tokens must be the token ids with prefix_caching=True, got tokens={tokens!r}"
                )
            return count, b""
        if hasattr(tokens, "__array__"):
            tokens = np.asarray(tokens)
        ids = as_bytes(tokens) if self._prefixes is not None or isinstance(tokens, np.ndarray) else b""
        return len(tokens), b"" if self._prefixes is None else ids

    def _require_free(self, what: str, tokens: int, needed: int, free: int, watermark: int = 0) -> None:
        if needed + watermark > free:
            above = f" above a watermark of {watermark} blocks" if watermark else ""
            raise OutOfBlocksError(needed + watermark, free, f"{what} of {tokens} tokens{above}")
