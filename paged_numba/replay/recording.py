"""What a replay recorded, and averages of it over any part of the time.

Waste is split as Kwon et al., SOSP 2023, figure 2, split it. Of the slots that are taken:

- tokens: those that hold the keys and values of a token;
- reserved: those that will hold one later in the same request;
- internal fragmentation: those of a request that it never fills;
- external fragmentation: free ones that would do for the next request that waits, were they in one piece.

Waste is all but the tokens, as a share of all four. Free slots that nobody waits for are not waste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SLOTS = ("tokens", "reserved", "internal", "external")
"""What a slot that is taken is taken for."""

QUANTITIES = (*SLOTS, "running", "waiting", "waiting_running", "full")
"""What is summed over steps: slots, requests that run, that wait, that run while others wait; 1 where any waits."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A replay as pieces of time in each of which nothing happened but that the running requests generated.

    Attributes
    ----------
    starts : int64[num_pieces + 1]
        The step in which each piece begins; the last is where all is over.
    values, slopes : int64[num_pieces, len(QUANTITIES)]
        Each quantity in a piece's first step, and its change from step to step.
    preemptions : int64[num_pieces]
        In the first step of each piece.
    refused : list of int
        Requests that do not fit even into the empty pool, by their place in the trace.
    """

    starts: Any
    values: Any
    slopes: Any
    preemptions: Any
    refused: list[int]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ...]], refused: list[int]) -> Recording:
        """Make a recording.

        Parameters
        ----------
        rows : sequence of tuple of int
            In time, the last where all is over: the step; slots held; the sums over running requests of the
            slots that they hold, that they will fill, that they have filled (what they share counts for each);
            slots stranded; requests that run, that wait, that were preempted in this step.
        refused : list of int
        """
        table = np.array(rows, np.int64)
        held, capacity, useful, length, stranded, running, waiting, preempted = table[:-1, 1:].T
        full = (waiting > 0).astype(np.int64)
        slots = (held - (capacity - length), useful - length, capacity - useful, stranded)
        values = np.stack([*slots, running, waiting, running * full, full], axis=1)
        slopes = np.zeros_like(values)
        slopes[:, 0], slopes[:, 1] = running, -running
        return cls(table[:, 0], values, slopes, preempted, refused)

    @property
    def num_preemptions(self) -> int:
        """Preemptions in all steps."""
        return int(self.preemptions.sum())

    @property
    def num_steps(self) -> int:
        """Steps until all is over."""
        return int(self.starts[-1])

    def sums(self, edges: Any) -> dict[str, Any]:
        """Return each quantity summed over the steps between edges.

        Parameters
        ----------
        edges : int64[num_bins + 1]
            Steps, rising, the first not below 0; what lies after the end counts as empty.

        Returns
        -------
        dict of str to int64[num_bins]
            By the names in `QUANTITIES`, and "preemptions".
        """
        edges = np.asarray(edges)
        whole = np.cumsum(_sum(self.values, self.slopes, np.diff(self.starts)), axis=0)
        before = np.concatenate([np.zeros_like(whole[:1]), whole])
        inside = np.clip(edges, self.starts[0], self.starts[-1])
        piece = np.minimum(np.searchsorted(self.starts, inside, side="right") - 1, len(whole) - 1)
        steps = inside - self.starts[piece]
        upto = before[piece] + _sum(self.values[piece], self.slopes[piece], steps)
        sums = dict(zip(QUANTITIES, np.diff(upto, axis=0).T, strict=True))
        preempted = np.concatenate([[0], np.cumsum(self.preemptions)])
        sums["preemptions"] = np.diff(preempted[np.searchsorted(self.starts[:-1], edges)])
        return sums

    def totals(self) -> dict[str, int]:
        """Return each quantity summed over all steps."""
        return {name: int(total[0]) for name, total in self.sums(self.starts[[0, -1]]).items()}

    def peak(self, quantity: str) -> int:
        """Return the largest value of a quantity in any piece's first step."""
        return int(self.values[:, QUANTITIES.index(quantity)].max())


def _sum(values: Any, slopes: Any, steps: Any) -> Any:
    """Return the sums over the first steps of pieces, int64[num_pieces, len(QUANTITIES)]."""
    steps = steps[:, None]
    return values * steps + slopes * (steps * (steps - 1) // 2)


def waste(sums: dict[str, Any]) -> Any:
    """Return the share of the taken slots that hold no token, NaN where none is taken."""
    taken = np.asarray(sum(sums[name] for name in SLOTS), np.float64)
    with np.errstate(invalid="ignore"):
        return 1 - sums["tokens"] / taken
