"""What pictures are drawn from: any object that answers these questions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Protocol


class Pool(Protocol):
    """A pool of KV blocks and its sequences, as `paged_numba.BlockAllocator` is."""

    num_blocks: int
    block_size: int

    def __iter__(self) -> Iterator[Hashable]:
        """Iterate over the sequences."""

    def block_table(self, seq_id: Hashable) -> Any:
        """Return the blocks of a sequence in logical order; -1 for those released."""

    def held_blocks(self, seq_id: Hashable) -> Any:
        """Return the block table without the places that were released."""

    def seq_len(self, seq_id: Hashable) -> int:
        """Return the number of tokens of a sequence."""

    def ref_count(self, block: int) -> int:
        """Return how many sequences hold a block."""


class Access(Protocol):
    """One statement's access to one array, as `paged_numba.lockstep.tracing` records it."""

    @property
    def kernel(self) -> str:
        """The kernel's name."""

    @property
    def line(self) -> Any:
        """The source line; its text is ``str(line)``."""

    @property
    def space(self) -> str:
        """``global`` or ``shared``."""

    @property
    def array(self) -> str:
        """The kernel's name of the array."""

    @property
    def kind(self) -> str:
        """``load``, ``store`` or ``atomic``."""

    @property
    def epoch(self) -> int:
        """Barriers of the thread block before the access."""

    @property
    def threads(self) -> tuple[int, ...]:
        """The threads that take part, by number in their thread block."""

    @property
    def bytes(self) -> tuple[int, ...]:
        """By thread, where its element begins."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""

    @property
    def elements(self) -> tuple[int, ...]:
        """By thread, the number of its element."""
