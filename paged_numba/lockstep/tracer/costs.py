"""What the accesses of a recording cost: transactions warp by warp, as the profiler counts them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..machine.lanes import WARP_SIZE
from ..profiler.transactions import LINE, NOBODY, SECTOR, distinct, shared_cost, turns

Costs = dict[str, Any]
"""Lists with an item for each warp that takes part: its number (``warps``), and what its request costs."""


class CostCounter:
    """Counts the transactions of requests; shared memory's are cached, since kernels repeat their patterns."""

    def __init__(self) -> None:
        self._shared: dict[tuple[int, bytes], tuple[int, int]] = {}

    def costs(
        self, space: str, kind: str, threads: int, lanes: Any, addresses: Any, itemsize: int
    ) -> Costs | None:
        """Return what an access costs; None for local and constant memory.

        Parameters
        ----------
        space, kind : str
        threads : int
            Threads of the thread block.
        lanes : int64[n]
            The threads that take part.
        addresses : int64[n]
            The byte address of each.
        itemsize : int
            Bytes of an element.
        """
        if space not in ("global", "shared"):
            return None
        every = np.full(-(-threads // WARP_SIZE) * WARP_SIZE, NOBODY)
        every[lanes] = addresses
        rows: Any = every.reshape(-1, WARP_SIZE)
        warps = np.flatnonzero(rows.min(axis=1) < NOBODY)
        rows = rows[warps]
        found: Costs = {"warps": warps.tolist()}
        if space == "shared":
            found["wavefronts"], found["ideal"] = map(
                list, zip(*(self._wavefronts(row, itemsize) for row in rows), strict=True)
            )
        rows.sort(axis=1)
        if space == "global":
            for name, size in (("sectors", SECTOR), ("lines", LINE), ("bytes", 1)):
                units = rows // size
                found[name] = distinct(units, NOBODY // size).sum(axis=1).tolist()
            found["bytes"] = [itemsize * count for count in found["bytes"]]
        if kind == "atomic":
            found["turns"] = [turns(row[None]) for row in rows]
        return found

    def _wavefronts(self, row: Any, itemsize: int) -> tuple[int, int]:
        """Return the wavefronts of a request, and how many they would be without bank conflicts."""
        # Moved by a multiple of 128 bytes, the addresses lie in the same banks.
        pattern = np.where(row < NOBODY, row - row.min() // LINE * LINE, NOBODY)
        key = itemsize, pattern.tobytes()
        if key not in self._shared:
            cost = shared_cost(pattern[None].copy(), itemsize)
            self._shared[key] = cost.wavefronts, cost.ideal
        return self._shared[key]
