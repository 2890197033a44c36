"""State of one sequence in a pool: its block table, its length, and its place in the prefix cache."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from .prefix_cache import NONE
from .token_ids import split


@dataclass(slots=True, eq=False)
class SequenceState:
    """A sequence of a pool.

    Attributes
    ----------
    table : array of int32
        Its blocks in logical order; NONE in the first `num_released` places.
    length : int
        Its tokens.
    salt : hashable
        Sequences share prefixes only if their salts are equal.
    node : int
        Node of the prefix cache for its last committed full block, ROOT if there is none; NONE if its blocks are no
        longer offered to the prefix cache.
    unwritten : list of bytes
        Token ids of each full block that is not committed.
    part : bytes
        Token ids of the part-filled last block.
    num_written : int
        How many of its first tokens are known to be written: those that the prefix cache held or that were committed.
    num_released : int
        Blocks that it released because they slid out of its window.
    number : int
        Counts the sequences of a pool in the order in which they entered it.
    stored : object
        What a cache keeps of the sequence in host memory while it is swapped out; None if it keeps nothing.
    """

    table: array[int]
    length: int
    salt: Hashable
    node: int
    unwritten: list[bytes]
    part: bytes
    num_written: int = 0
    num_released: int = 0
    number: int = 0
    stored: Any = None

    def fork(self) -> SequenceState:
        """Return a copy for a forked sequence."""
        return SequenceState(
            self.table[:], self.length, self.salt, self.node, self.unwritten[:], self.part,
            self.num_written, self.num_released,
        )  # fmt: skip

    def held(self) -> array[int]:
        """Return the block table without its released places."""
        return self.table[self.num_released :]

    def extend(self, ids: bytes, block_size: int) -> None:
        """Record the ids of appended tokens."""
        if ids and self.node != NONE:
            full, self.part = split(self.part + ids, block_size)
            self.unwritten += full

    def release(self, num_blocks: int) -> None:
        """Release the first blocks."""
        first, self.num_released = self.num_released, max(self.num_released, num_blocks)
        self.table[first : self.num_released] = array("i", [NONE]) * (self.num_released - first)

    def continue_from(self, node: int, unwritten: list[bytes], part: bytes) -> None:
        """Set the node of the last committed block, and the token ids after it."""
        self.node, self.unwritten, self.part = node, unwritten, part

    # Undoing changes.

    def shorten(self, num_blocks: int, length: int, num_unwritten: int, part: bytes) -> None:
        """Undo an append."""
        del self.table[num_blocks:], self.unwritten[num_unwritten:]
        self.length, self.part = length, part

    def lengthen(self, num_blocks: int, dropped: array[int], length: int, num_written: int) -> None:
        """Undo a truncation to `num_blocks` blocks, apart from its token ids."""
        self.table[num_blocks:] = dropped
        self.length, self.num_written = length, num_written

    def hold_again(self, first: int, released: array[int]) -> None:
        """Undo a release."""
        self.table[first : first + len(released)] = released
        self.num_released = first


def enter_again(sequences: dict[Hashable, SequenceState], seq_id: Hashable, sequence: SequenceState) -> None:
    """Put a removed sequence back, in its old place among the others."""
    entries = sorted({**sequences, seq_id: sequence}.items(), key=lambda entry: entry[1].number)
    sequences.clear()
    sequences.update(entries)
