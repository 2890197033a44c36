"""Plain text for terminals: aligned tables, block tables and maps of a pool."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from .allocator import BlockAllocator
from .lockstep.text import table

__all__ = ["pool_map", "shortened", "size", "table"]

MAP_WIDTH, MAP_LINES = 64, 16


def pool_map(pool: BlockAllocator, labels: dict[Hashable, str]) -> str:
    """Return a character for each block of a pool: its owner's label, ``+`` if shared, ``.`` if free.

    Parameters
    ----------
    pool : BlockAllocator
    labels : dict
        One character for each sequence.
    """
    cells = ["."] * pool.num_blocks
    for seq_id in pool:
        for block in pool.held_blocks(seq_id).tolist():
            cells[block] = "+" if pool.ref_count(block) > 1 else labels[seq_id]
    digits = len(str(pool.num_blocks - 1))
    lines = [
        f"{first:>{digits}} |{''.join(cells[first : first + MAP_WIDTH])}|"
        for first in range(0, pool.num_blocks, MAP_WIDTH)
    ]
    if len(lines) > MAP_LINES:
        left_out = pool.num_blocks - MAP_LINES * MAP_WIDTH
        lines[MAP_LINES:] = [f"{' ' * digits} ... and {left_out} blocks more"]
    return "\n".join(lines)


def shortened(numbers: Sequence[Any], limit: int = 12) -> str:
    """Return numbers with spaces between, the middle of more than `limit` left out."""
    words = [str(number) for number in numbers]
    if len(words) > limit:
        words = [*words[: limit - 2], "..", words[-1]]
    return " ".join(words)


def size(count: float) -> str:
    """Return a number of bytes with its unit, in powers of 1,024.

    >>> size(800), size(16384), size(3 * 2**30)
    ('800 B', '16.0 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:,.1f} {unit}"
