"""Barriers of a thread block: the check that all of its threads are there, and the rendezvous of warps in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...errors import SynchronizationError
from . import masks
from .lanes import Lanes
from .masks import Mask


class Rendezvous(Protocol):
    """Where a warp that runs by itself waits for the other warps of its thread block."""

    def arrive(self, lanes: Any, mask: Mask, what: str, predicate: Any) -> Any:
        """Wait at a barrier; return how many lanes of each thread block hold `predicate`."""


def require_whole_blocks(lanes: Lanes, mask: Mask, what: str, line: Callable[[], str]) -> None:
    """Raise where some threads of a thread block are at a barrier and others are not."""
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
        f"{what} must be reached by all threads of a block, but {int(here[row].sum())} of "
        f"{lanes.threads} threads of blockIdx={lanes.block_idx(row)} reach it: "
        f"threadIdx={lanes.thread_idx(missing)} "
        f"{'has returned' if exited else 'is in another branch or has left the loop'}, {line()}"
    )
