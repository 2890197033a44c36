"""Block pool: reference counts, the list of free blocks, and the bounds of a pool's size."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

from ..arguments import between, require_memory, shown
from .prefix_cache import PrefixCache
from .transactions import RECOUNT, UndoLog

MAX_BLOCKS = 2**31 - 1
"""Largest number of blocks in a pool: block tables are int32."""

MAX_SLOTS = 2**48
"""Largest number of slots in a pool: far more than any memory holds, and far from overflow in int64."""

BYTES_PER_BLOCK = 8
"""Bytes of bookkeeping for each block; a prefix cache needs `BYTES_OF_PREFIXES` more."""

BYTES_OF_PREFIXES = 12


def check_pool_size(num_blocks: int, block_size: int, prefix_caching: bool) -> None:
    """Raise ValueError for a pool that is too large, MemoryError for one that does not fit into memory."""
    if num_blocks > MAX_BLOCKS:
        raise ValueError(f"num_blocks must be at most {MAX_BLOCKS}, got num_blocks={shown(num_blocks)}")
    if num_blocks * block_size > MAX_SLOTS:
        raise ValueError(
            f"num_blocks * block_size must be at most {MAX_SLOTS}, got num_blocks={num_blocks} "
            f"block_size={shown(block_size)}"
        )
    needed = num_blocks * (BYTES_PER_BLOCK + (BYTES_OF_PREFIXES if prefix_caching else 0))
    require_memory(f"the bookkeeping of num_blocks={num_blocks} blocks", needed)


class BlockPool:
    """Reference counts of all blocks, and the free blocks: empty blocks, and idle blocks of the prefix cache.

    Attributes
    ----------
    num_shared : int
        Blocks that more than one sequence holds.
    refs : array of int32[num_blocks]
        Number of sequences that hold each block.
    generations : array of int32[num_blocks]
        How many times each block was handed out for new contents.
    """

    def __init__(self, num_blocks: int, prefixes: PrefixCache | None, undo: UndoLog) -> None:
        self.num_blocks = num_blocks
        self.num_shared = 0
        self.refs = array("i", [0]) * num_blocks
        self.generations = array("i", [0]) * num_blocks
        self._prefixes = prefixes
        self._undo = undo
        # A stack of returned blocks; blocks from `_fresh` on were never handed out.
        self._free = array("i")
        self._fresh = 0

    @property
    def num_empty(self) -> int:
        """Free blocks that hold no prefix."""
        return len(self._free) + self.num_blocks - self._fresh

    @property
    def num_free(self) -> int:
        """Blocks that no sequence holds."""
        return self.num_empty + (0 if self._prefixes is None else self._prefixes.num_idle)

    def num_free_beside(self, hits: Iterable[int]) -> int:
        """Return how many blocks stay free after holding `hits`, blocks that the prefix cache found."""
        refs = self.refs
        return self.num_free - sum(not refs[block] for block in hits)

    def empty_blocks(self) -> list[int]:
        """Return the free blocks that hold no prefix."""
        return [*self._free, *range(self._fresh, self.num_blocks)]

    def checked(self, block: SupportsIndex) -> int:
        """Return a block number as an int; raise TypeError or ValueError if the pool has no such block."""
        return between("block", block, 0, self.num_blocks - 1)

    def take(self, count: int) -> array[int]:
        """Hand out free blocks, evicting prefixes only if there are too few empty blocks."""
        free, fresh = self._free, self._fresh
        left = max(0, len(free) - count)
        blocks = free[left:]
        blocks.reverse()
        again = len(blocks)
        self._undo.append((self._untake, blocks, again, left, fresh))
        del free[left:]
        if again < count:
            self._fresh = min(fresh + count - again, self.num_blocks)
            blocks.extend(range(fresh, self._fresh))
            if len(blocks) < count and self._prefixes is not None:
                blocks.extend(self._prefixes.evict(count - len(blocks)))
        refs, generations = self.refs, self.generations
        for block in blocks:
            refs[block], generations[block] = 1, generations[block] + 1
        return blocks

    def hold(self, blocks: Iterable[int]) -> None:
        """Increment the reference counts of blocks."""
        self._undo.append(RECOUNT)
        refs, shared = self.refs, 0
        idle = []
        for block in blocks:
            count = refs[block]
            if count == 1:
                shared += 1
            elif count == 0:
                idle.append(block)
            refs[block] = count + 1
        self.num_shared += shared
        if idle and self._prefixes is not None:
            self._prefixes.remove_idle(idle)

    def drop(self, blocks: Sequence[int]) -> None:
        """Decrement the reference counts of a run of a sequence's blocks; free those that reach 0."""
        if not blocks:
            return
        refs, free, prefixes, shared = self.refs, self._free, self._prefixes, 0
        self._undo.append((self._truncate, len(free)))
        gone = []
        # The last block first: the next sequence then gets them in the old order.
        for block in reversed(blocks):
            count = refs[block] - 1
            refs[block] = count
            if count == 0:
                gone.append(block)
            elif count == 1:
                shared += 1
        self.num_shared -= shared
        if gone and prefixes is not None:
            gone = prefixes.keep(gone, prefixes.is_below_a_block(blocks[0]))
        free.extend(gone)

    def reclaim(self, blocks: Iterable[int]) -> None:
        """Put blocks that no longer hold a prefix back on the list of empty blocks."""
        self._undo.append((self._truncate, len(self._free)))
        self._free.extend(blocks)

    # Undoing changes. Reference counts need no log: `recount` counts them again.

    def recount(self, held: Iterable[int]) -> None:
        """Set the reference counts to the number of tables that hold each block."""
        self.refs[:] = array("i", held)
        self.num_shared = sum(count > 1 for count in self.refs)

    def _untake(self, blocks: array[int], again: int, left: int, fresh: int) -> None:
        for block in blocks:
            if self.refs[block]:
                self.refs[block], self.generations[block] = 0, self.generations[block] - 1
        self._free[left:] = blocks[:again][::-1]
        self._fresh = fresh

    def _truncate(self, num_free: int) -> None:
        del self._free[num_free:]
