"""Barriers: the check that all threads of a thread block reach them, and the interface through which warps wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...errors import KernelError, SynchronizationError
from . import masks
from .lanes import Lanes
from .masks import Mask


class Rendezvous(Protocol):
    """The meeting point of warps that run one at a time; see `schedule.Turns`."""

    def arrive(self, lanes: Lanes, mask: Mask, what: str, predicate: Any) -> Any:
        """Wait for the other warps at the barrier `what`; return the threads for which `predicate` holds.

        Parameters
        ----------
        lanes : Lanes
            The warp that arrives, in each thread block of the batch.
        mask, predicate : bool or bool array
            By lane.

        Returns
        -------
        int32[thread blocks, 1]
            Threads of each thread block for which `predicate` holds.
        """

    def pass_turn(self, lanes: Lanes, error: KernelError) -> None:
        """Let the other warps run; raise `error` if none of them goes on."""


GRID_BARRIER = "grid.sync()"


def require_whole_blocks(lanes: Lanes, mask: Mask, what: str, line: Callable[[], str]) -> None:
    """Raise SynchronizationError if some threads of a thread block are in `mask` and others skip the barrier.

    Since compute capability 7.0 a barrier waits only for the threads that have not exited (CUDA C++ Programming Guide,
    Synchronization Functions); the barrier of the grid still waits for all.

    Parameters
    ----------
    what : str
        The barrier, for the message.
    line : callable
        Returns the line of the barrier, for the message.
    """
    if mask is True or lanes.threads == 1 or mask.shape[1] == 1:
        return
    here = masks.lanes(mask, lanes.shape)
    gone = masks.lanes(lanes.exited, lanes.shape)
    may_exit = lanes.compute_capability >= (7, 0) and what != GRID_BARRIER
    arrived = here | gone if may_exit else here
    broken = here.any(axis=1) & ~arrived.all(axis=1)
    if not broken.any():
        return
    row = int(np.argmax(broken))
    missing = int(np.argmin(arrived[row]))
    why = "is in another branch or has left the loop"
    if gone[row, missing]:
        why = "has returned"
        if what != GRID_BARRIER:
            why += ", and before compute capability 7.0 a barrier waits for it too"
    raise SynchronizationError(
        f"{what} must be reached by all threads of a thread block, but {int(here[row].sum())} of "
        f"{lanes.threads} threads of {lanes.block_name(row)} reach it: {lanes.thread_of_block(missing)} {why}",
        line(),
    )
