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

QUANTITIES = ("tokens", "reserved", "internal", "external", "running", "waiting", "waiting_running", "full")
"""What is summed over steps: four kinds of slots, requests that run and wait, those that run while others wait,
and 1 for each step in which requests wait."""

_SLOPES = {"tokens": 1, "reserved": -1}  # a step, for each running request


@dataclass(frozen=True, eq=False)
class Recording:
    """A replay as pieces of time in each of which nothing happened but that the running requests generated.

    Attributes
    ----------
    starts : int64[num_pieces + 1]
        The step in which each piece begins; the last is where all is over.
    values, slopes : int64[num_pieces, len(QUANTITIES)]
        Each quantity in a piece's first step, and its change from step to step.
    num_preemptions : int
    refused : list of int
        Requests that do not fit even into the empty pool, by their place in the trace.
    """

    starts: Any
    values: Any
    slopes: Any
    num_preemptions: int
    refused: list[int]

    @classmethod
    def of(
        cls, rows: Sequence[tuple[int, ...]], num_preemptions: int, refused: list[int]
    ) -> Recording:
        """Make a recording from rows in time: step, slots held, sums over running requests of the slots they
        hold, will fill and have filled (a shared slot counts for each), slots stranded, running, waiting."""
        table = np.array(rows, np.int64)
        step, held, capacity, useful, length, stranded, running, waiting = table[:-1].T
        full = waiting > 0
        values = {
            "tokens": held - (capacity - length),
            "reserved": useful - length,
            "internal": capacity - useful,
            "external": stranded,
            "running": running,
            "waiting": waiting,
            "waiting_running": running * full,
            "full": full,
        }
        return cls(
            table[:, 0],
            np.stack([values[name] for name in QUANTITIES], axis=1).astype(np.int64),
            np.stack([running * _SLOPES.get(name, 0) for name in QUANTITIES], axis=1),
            num_preemptions,
            refused,
        )

    @property
    def num_steps(self) -> int:
        """Steps until all is over."""
        return int(self.starts[-1])

    def sums(self, edges: Any) -> dict[str, Any]:
        """Return each quantity summed over the steps between edges.

        Parameters
        ----------
        edges : int64[num_bins + 1]
            Steps, rising.

        Returns
        -------
        dict of str to int64[num_bins]
            By the names in `QUANTITIES`.
        """
        lengths = np.diff(self.starts)[:, None]
        whole = self.values * lengths + self.slopes * (lengths * (lengths - 1) // 2)
        before = np.concatenate([np.zeros((1, whole.shape[1]), np.int64), np.cumsum(whole, axis=0)])
        inside = np.clip(edges, self.starts[0], self.starts[-1])
        piece = np.minimum(np.searchsorted(self.starts, inside, side="right") - 1, len(whole) - 1)
        steps = (inside - self.starts[piece])[:, None]
        upto = before[piece] + self.values[piece] * steps + self.slopes[piece] * (steps * (steps - 1) // 2)
        return dict(zip(QUANTITIES, np.diff(upto, axis=0).T, strict=True))

    def totals(self) -> dict[str, int]:
        """Return each quantity summed over all steps."""
        return {name: int(total[0]) for name, total in self.sums(self.starts[[0, -1]]).items()}


def waste(sums: dict[str, Any]) -> Any:
    """Return the share of the taken slots that hold no token, NaN where none is taken."""
    taken = sum(sums[name] for name in QUANTITIES[:4])
    with np.errstate(invalid="ignore"):
        return 1 - np.divide(sums["tokens"], taken)
