"""`Recording`: the quantities of a replay over time, and their sums over any interval.

Slots are divided as in Kwon et al., SOSP 2023, figure 2:

- tokens: slots that hold the keys and values of a token;
- reserved: slots of a request that it will fill later;
- internal fragmentation: slots of a request that it will never fill;
- external fragmentation: free slots, if the next waiting request would fit into them in one piece.

Waste is the share of the last three in the sum of all four. Free slots that no request waits for are not waste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SLOTS = ("tokens", "reserved", "internal", "external")
"""The four uses of a slot."""

QUANTITIES = (*SLOTS, "running", "waiting", "waiting_running", "full")
"""Quantities of a step: slots by use; requests running; waiting; running while others wait; 1 if any waits."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A replay as intervals of time within which the running requests only generated tokens.

    Attributes
    ----------
    starts : int64[num_intervals + 1]
        First step of each interval; the last entry is the number of steps.
    values, slopes : int64[num_intervals, len(QUANTITIES)]
        Each quantity in the first step of an interval, and its change from step to step.
    preemptions : int64[num_intervals]
        Preemptions in the first step of each interval.
    refused : list of int
        Numbers of the requests that do not fit into the empty pool.
    """

    starts: Any
    values: Any
    slopes: Any
    preemptions: Any
    refused: list[int]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ...]], refused: list[int]) -> Recording:
        """Return the recording of a list of events.

        Parameters
        ----------
        rows : sequence of tuple of int
            A row for each event, in order of time; the last row is the end of the replay. Columns: step; allocated
            slots; slots that running requests hold, those that they will ever fill, and those that they have filled,
            each summed over the requests (a shared slot counts for each); stranded slots; numbers of requests that
            run, that wait, and that were preempted in this step.
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
        """Steps of the whole replay."""
        return int(self.starts[-1])

    def sums(self, edges: Any) -> dict[str, Any]:
        """Return each quantity summed over the steps between consecutive edges.

        Parameters
        ----------
        edges : int64[num_bins + 1]
            Steps, increasing, the first at least 0. Steps after the end of the replay add nothing.

        Returns
        -------
        dict of str to int64[num_bins]
            One entry for each of `QUANTITIES`, and "preemptions".
        """
        edges = np.asarray(edges)
        whole = np.cumsum(_sum(self.values, self.slopes, np.diff(self.starts)), axis=0)
        before = np.concatenate([np.zeros_like(whole[:1]), whole])
        inside = np.clip(edges, self.starts[0], self.starts[-1])
        interval = np.minimum(np.searchsorted(self.starts, inside, side="right") - 1, len(whole) - 1)
        steps = inside - self.starts[interval]
        upto = before[interval] + _sum(self.values[interval], self.slopes[interval], steps)
        sums = dict(zip(QUANTITIES, np.diff(upto, axis=0).T, strict=True))
        preempted = np.concatenate([[0], np.cumsum(self.preemptions)])
        sums["preemptions"] = np.diff(preempted[np.searchsorted(self.starts[:-1], edges)])
        return sums

    def totals(self) -> dict[str, int]:
        """Return each quantity summed over all steps."""
        return {name: int(total[0]) for name, total in self.sums(self.starts[[0, -1]]).items()}

    def peak(self, quantity: str) -> int:
        """Return the largest value of a quantity in the first step of any interval."""
        return int(self.values[:, QUANTITIES.index(quantity)].max())


def _sum(values: Any, slopes: Any, steps: Any) -> Any:
    """Return sums over the first `steps` steps of each interval, int64[num_intervals, len(QUANTITIES)]."""
    steps = steps[:, None]
    return values * steps + slopes * (steps * (steps - 1) // 2)


def waste(sums: dict[str, Any]) -> Any:
    """Return the share of the slots in `SLOTS` that hold no token; NaN if no slot is in use."""
    taken = np.asarray(sum(sums[name] for name in SLOTS), np.float64)
    with np.errstate(invalid="ignore"):
        return 1 - sums["tokens"] / taken
