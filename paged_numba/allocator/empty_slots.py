"""Counts the empty slots of used blocks, also where sequences that share a block end at different tokens in it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable

from .sequence import SequenceState


class EmptySlots:
    """The number of slots of used blocks that hold no token of a sequence.

    Sequences that share their part-filled last block all end at the same token, unless one of them was truncated: only
    then does this class record where each of them ends.

    Attributes
    ----------
    block_size : int
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._even = 0
        # By block: how many of its tokens each sequence has that ends in it. Other sequences have all of its tokens.
        # Also the blocks of the prefix cache that a sequence ends in, since `add` may give them to others.
        self._uneven: dict[int, list[int]] = {}

    def count(self, refs: array[int]) -> int:
        """Return the number of empty slots, given the number of sequences that hold each block."""
        empty = self._even
        for block, ends in self._uneven.items():
            if len(ends) == refs[block]:
                empty += self.block_size - max(ends)
        return empty

    def begin(self, length: int) -> None:
        """Count the last block of a sequence that no other holds, nor the prefix cache."""
        self._even += -length % self.block_size

    def fork(self, child: SequenceState) -> None:
        """Count a new sequence that shares its last block with its parent."""
        end = child.length % self.block_size
        if end and child.table[-1] in self._uneven:
            self._uneven[child.table[-1]].append(end)

    def leave(self, sequence: SequenceState, refs: array[int]) -> None:
        """Count the last block of a sequence without it, before the sequence drops the block or fills it further."""
        end = sequence.length % self.block_size
        if not end:
            return
        block = sequence.table[-1]
        ends = self._uneven.get(block)
        if ends is not None:
            ends.remove(end)
            if not ends:
                del self._uneven[block]
        elif refs[block] == 1:
            self._even -= self.block_size - end

    def truncate(
        self, sequence: SequenceState, length: int, refs: array[int], is_cached: Callable[[int], bool]
    ) -> None:
        """Count the last block of a sequence that is about to be truncated."""
        kept, end = -(-length // self.block_size), length % self.block_size
        block, old = sequence.table[kept - 1] if end else -1, sequence.length % self.block_size
        if kept < len(sequence.table) or block in self._uneven:
            old = 0
        self.leave(sequence, refs)
        if not end:
            return
        if refs[block] == 1 and not is_cached(block):
            self._even += self.block_size - end
            return
        if old and refs[block] > 1:
            # So far all its sequences end at the same token.
            self._even -= self.block_size - old
            self._uneven[block] = [old] * (refs[block] - 1)
        self._uneven.setdefault(block, []).append(end)

    def recount(
        self, sequences: Iterable[SequenceState], refs: array[int], is_cached: Callable[[int], bool]
    ) -> None:
        """Count again from the sequences of a pool."""
        ends_in: dict[int, list[int]] = {}
        for sequence in sequences:
            end = sequence.length % self.block_size
            if end:
                ends_in.setdefault(sequence.table[-1], []).append(end)
        self._even, self._uneven = 0, {}
        for block, ends in ends_in.items():
            if is_cached(block) or len(ends) < refs[block] or len({*ends}) > 1:
                self._uneven[block] = ends
            else:
                self._even += self.block_size - ends[0]
