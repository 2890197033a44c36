"""Pictures of what a kernel did with memory, whatever its writer called the arrays."""

from __future__ import annotations

from collections.abc import Sequence

from ...draw.kernels.tree import Tree
from ...draw.kernels.warp_access import WarpAccess
from ...lockstep.observe.trace import Access

MOST_ROUNDS = 24
"""A picture of more rounds is too long to look at."""


def tree(accesses: Sequence[Access], title: str = "") -> Tree | None:
    """Return the rounds of the first shared array that was stored to; None without one, or with too many rounds."""
    for access in accesses:
        if access.space == "shared" and access.kind == "store":
            picture = Tree.of(accesses, access.array, title=title)
            return (
                picture if len({(step.epoch, step.round) for step in picture.steps}) <= MOST_ROUNDS else None
            )
    return None


def worst_access(accesses: Sequence[Access], space: str) -> WarpAccess | None:
    """Return the statement of warp 0 that uses memory worst, or None if none wastes any.

    Of those to global memory, it is the statement that touches the most sectors; of those to shared memory, the one
    that needs the most wavefronts.
    """
    pictures = {}
    for access in accesses:
        place = access.array, access.kind, access.line.number
        wanted = access.space == space and access.kind != "atomic" and access.threads[0] < 32
        if wanted and place not in pictures:
            pictures[place] = WarpAccess.of(accesses, access.array, access.kind, line=access.line.number)
    if space == "shared":
        wasteful = [picture for picture in pictures.values() if picture.banks.conflicts]
        return max(wasteful, key=lambda one: one.banks.wavefronts, default=None)
    wasteful = [picture for picture in pictures.values() if picture.useful < 100]
    return max(wasteful, key=lambda one: len(one.sectors), default=None)
