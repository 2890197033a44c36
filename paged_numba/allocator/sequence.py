"""What the allocator knows of a sequence: its block table, and what the prefix cache must still be told."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from dataclasses import dataclass

from .prefix_cache import NONE
from .token_ids import split


@dataclass(slots=True, eq=False)
class SequenceState:
    """A sequence.

    Attributes
    ----------
    table : array of int32
        Its blocks in logical order; NONE in the first `num_released` places.
    length : int
        Its tokens.
    salt : hashable
    node : int
        The prefix cache's, of the last full block that was written; NONE if it shall not be found any more.
    unwritten : list of bytes
        Token ids of the full blocks after that one.
    part : bytes
        Token ids of the part-filled block.
    num_released : int
        Blocks that slid out of its window.
    """

    table: array[int]
    length: int
    salt: Hashable
    node: int
    unwritten: list[bytes]
    part: bytes
    num_released: int = 0

    def fork(self) -> SequenceState:
        """Return another that goes on from here."""
        return SequenceState(
            self.table[:], self.length, self.salt, self.node, self.unwritten[:], self.part, self.num_released
        )

    def held(self) -> array[int]:
        """Return the blocks that it holds."""
        return self.table[self.num_released :]

    def extend(self, ids: bytes, block_size: int) -> None:
        """Note the ids of new tokens."""
        if ids and self.node != NONE:
            full, self.part = split(self.part + ids, block_size)
            self.unwritten += full

    def release(self, num_blocks: int) -> array[int]:
        """Give up the first blocks; return those that it held until now."""
        gone = self.table[self.num_released : num_blocks]
        self.table[self.num_released : num_blocks] = array("i", [NONE]) * len(gone)
        self.num_released += len(gone)
        return gone

    def hide(self) -> None:
        """Have nothing of this sequence found any more."""
        self.node, self.unwritten, self.part = NONE, [], b""
