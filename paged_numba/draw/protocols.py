"""Protocols of the objects that pictures are drawn from."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ..arguments import hashable, listed, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Pool(Protocol):
    """A pool of KV blocks and its sequences, such as a `paged_numba.BlockAllocator`."""

    num_blocks: int
    block_size: int

    def __iter__(self) -> Iterator[Hashable]:
        """Iterate over the ids of the sequences."""

    def block_table(self, seq_id: Hashable) -> NDArray[np.int32]:
        """Return the blocks of a sequence in logical order; -1 in the places of released blocks."""

    def held_blocks(self, seq_id: Hashable) -> NDArray[np.int32]:
        """Return the block table of a sequence without the places of released blocks."""

    def seq_len(self, seq_id: Hashable) -> int:
        """Return the number of tokens of a sequence."""

    def ref_count(self, block: int) -> int:
        """Return how many sequences hold a block."""


class SourceLine(Protocol):
    """A line of a kernel."""

    @property
    def number(self) -> int:
        """Line number in the file."""

    @property
    def text(self) -> str:
        """The line, without indentation."""


class Access(Protocol):
    """Access of one statement to one array, as `paged_numba.lockstep.tracing` records it."""

    @property
    def kernel(self) -> str:
        """The kernel's name."""

    @property
    def line(self) -> SourceLine:
        """The source line."""

    @property
    def space(self) -> str:
        """``global`` or ``shared``; ``register`` for a shuffle."""

    @property
    def array(self) -> str:
        """Name of the array in the kernel."""

    @property
    def kind(self) -> str:
        """``load``, ``store``, ``atomic`` or ``shuffle``."""

    @property
    def epoch(self) -> int:
        """Number of barriers that the thread block passed before the access."""

    @property
    def threads(self) -> tuple[int, ...]:
        """Numbers, within the thread block, of the threads that take part."""

    @property
    def bytes(self) -> tuple[int, ...]:
        """Byte at which the element of each thread begins."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""

    @property
    def syncwarps(self) -> tuple[int, ...]:
        """For each thread, the number of ``syncwarp`` calls before the access."""

    @property
    def elements(self) -> tuple[int, ...]:
        """Index of each thread's element in the flattened array; for a shuffle, the thread that it reads from."""


def checked_pool(pool: Any) -> Pool:
    """Return the pool; raise TypeError if it lacks a part of `Pool`."""
    _require_parts("pool", pool, Pool, "a BlockAllocator")
    return pool


def same_size(pool: Pool, num_blocks: int | None) -> Pool:
    """Return the pool; raise ValueError unless it has as many blocks as those recorded before, if any were."""
    if num_blocks not in (None, pool.num_blocks):
        raise ValueError(
            f"pool must have as many blocks as at the first step, {num_blocks}, got num_blocks={pool.num_blocks}"
        )
    return pool


def different_ids(seq_ids: Any) -> list[Hashable]:
    """Return ids of sequences as a list without repetitions; raise TypeError if they are not hashable."""
    ids = listed("seq_ids", seq_ids, "ids")
    return list(dict.fromkeys(hashable("seq_id", seq_id) for seq_id in ids))


def checked_accesses(accesses: Any) -> list[Access]:
    """Return accesses as a list; raise TypeError if one lacks a part of `Access`."""
    found = listed("accesses", accesses, "accesses")
    for place, access in enumerate(found):
        _require_parts(f"accesses[{place}]", access, Access, "an access that lockstep.tracing recorded")
    return found


def _require_parts(name: str, value: Any, protocol: Any, what: str) -> None:
    for part in {**vars(protocol), **protocol.__annotations__}:
        if (part == "__iter__" or not part.startswith("_")) and not hasattr(value, part):
            raise TypeError(
                f"{name} must be {what} or have the same attributes, but lacks {part}, got {name}={shown(value)}"
            )
