"""Barriers: the check that all threads of a thread block reach them, and the interface through which warps wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...errors import SynchronizationError
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


def require_whole_blocks(lanes: Lanes, mask: Mask, what: str, line: Callable[[], str]) -> None:
    """Raise SynchronizationError if some threads of a thread block, but not all, are in `mask`.

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
    broken = here.any(axis=1) & ~here.all(axis=1)
    if not broken.any():
        return
    row = int(np.argmax(broken))
    missing = int(np.argmin(here[row]))
    exited = bool(masks.lanes(lanes.exited, lanes.shape)[row, missing])
    raise SynchronizationError(
        f"{what} must be reached by all threads of a thread block, but {int(here[row].sum())} of "
        f"{lanes.threads} threads of blockIdx={lanes.block_idx(row)} reach it: "
        f"threadIdx={lanes.thread_idx(missing)} "
        f"{'has returned' if exited else 'is in another branch or has left the loop'}",
        line(),
    )
