"""Measurements for the report: each memory policy, and the prefix cache with pools of several sizes.

Each policy is replayed twice: with the arrivals of the trace, for waste, waiting and preemptions over time; and
with all requests arriving at once, so that memory alone limits how many run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..allocator.block_pool import MAX_SLOTS
from ..arguments import between, listed, positive, shown
from ..progress import progress
from ..traces import Trace
from .pools import RESERVATIONS, ContiguousPool, PagedPool, Pool
from .recording import SLOTS, Recording, waste
from .simulation import STEPS_PER_SECOND, arrival_steps, simulate

SHARES_OF_POOL = (0.25, 1, 4, 16)
"""Pool sizes for the prefix cache, as multiples of `num_slots`."""

NUM_BINS = 120
"""Number of intervals for figures over time."""


@dataclass(frozen=True)
class Policy:
    """A memory policy: blocks of one size, or contiguous reservations.

    Attributes
    ----------
    name : str
    block_size : int or None
        Tokens of a block; None if memory is reserved contiguously.
    """

    name: str
    block_size: int | None = None

    def pool(self, trace: Trace, num_slots: int) -> Pool:
        """Return an empty pool of `num_slots` slots for the requests of a trace."""
        if self.block_size is None:
            return ContiguousPool(num_slots, RESERVATIONS[self.name](trace))
        return PagedPool(trace, num_slots, self.block_size)


def policies(block_sizes: Sequence[int]) -> list[Policy]:
    """Return the three reservation policies, then paging with each block size."""
    sizes = [positive("block_sizes", size) for size in listed("block_sizes", block_sizes, "integers")]
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"block_sizes must differ, got block_sizes={shown(block_sizes)}")
    return [*map(Policy, RESERVATIONS), *(Policy(f"blocks of {size}", size) for size in sizes)]


def measure(trace: Trace, num_slots: int, block_sizes: Sequence[int], hit_block_size: int) -> dict[str, Any]:
    """Replay a trace with every policy; return the figures as a record that JSON can hold.

    Parameters
    ----------
    trace : Trace
    num_slots : int
        Size of the pool in tokens.
    block_sizes : sequence of int
        Block sizes to compare, in tokens.
    hit_block_size : int
        Block size of the pools in which the prefix cache is measured.

    Raises
    ------
    TypeError, ValueError
        The trace has no arrivals, a size is not a positive integer, or a block is larger than the pool.
    """
    if not isinstance(trace, Trace) or trace.arrivals is None:
        raise TypeError(f"trace must be a Trace with arrivals, got trace={shown(trace)}")
    num_slots = between("num_slots", num_slots, 1, MAX_SLOTS)
    hit_block_size = positive("hit_block_size", hit_block_size)
    compared = policies(block_sizes)
    largest = max((policy.block_size or 0 for policy in compared), default=0)
    if not 1 <= largest <= num_slots:
        raise ValueError(
            f"block_sizes must hold at least one size, and none above num_slots={shown(num_slots)}, "
            f"got block_sizes={shown(block_sizes)}"
        )
    pools = [] if trace.hash_ids is None else [int(share * num_slots) for share in SHARES_OF_POOL]
    pools = [slots for slots in pools if slots >= hit_block_size]
    with progress((2 * len(compared) + len(pools)) * len(trace), "replay", "requests") as done:
        runs = [_both_runs(policy, trace, num_slots, done) for policy in compared]
        hits = [_hits(trace, slots, hit_block_size, done) for slots in pools]
    # Figures over time end with the first paged replay. Reservations may take much longer.
    end = next(
        run.num_steps
        for policy, (run, _) in zip(compared, runs, strict=True)
        if policy.block_size is not None
    )
    edges = np.unique(np.linspace(0, end, NUM_BINS + 1).astype(np.int64))
    return {
        "trace": {
            "name": trace.name,
            "num_requests": len(trace),
            "num_failed": trace.num_failed,
            "seconds": float(trace.arrivals[-1]),
            "num_prompt_tokens": int(trace.prompt_lens.sum()),
            "num_output_tokens": int(trace.output_lens.sum()),
            "longest": int(trace.final_lens.max()),
        },
        "num_slots": num_slots,
        "steps_per_second": STEPS_PER_SECOND,
        "seconds": (edges[:-1] / STEPS_PER_SECOND).tolist(),
        "policies": [
            {
                "name": policy.name,
                "block_size": policy.block_size,
                **_summary(*run, len(trace)),
                **_over_time(run[0], edges),
            }
            for policy, run in zip(compared, runs, strict=True)
        ],
        "prefix_cache": None
        if trace.hash_ids is None
        else {
            "block_size": hit_block_size,
            "unbounded_hit_rate": trace.unbounded_hit_rate(hit_block_size, arrival_steps(trace)),
            "pools": hits,
        },
    }


def _both_runs(
    policy: Policy, trace: Trace, num_slots: int, done: Callable[[int], object]
) -> tuple[Recording, Recording]:
    as_they_came = simulate(trace, policy.pool(trace, num_slots), done)
    return as_they_came, simulate(trace.all_at_once(), policy.pool(trace, num_slots), done)


def _summary(run: Recording, crowded: Recording, num_requests: int) -> dict[str, Any]:
    total, crowd = run.totals(), crowded.totals()
    taken = sum(total[name] for name in SLOTS)
    served = num_requests - len(run.refused)
    return {
        "waste": _number(waste(total)),
        "shares": {name: total[name] / taken if taken else None for name in SLOTS},
        # None if no request ever waits.
        "full_batch": crowd["waiting_running"] / crowd["full"] if crowd["full"] else None,
        "largest_batch": crowded.peak("running"),
        "num_preemptions": run.num_preemptions,
        "mean_wait_seconds": total["waiting"] / STEPS_PER_SECOND / served if served else None,
        "num_refused": len(run.refused),
    }


def _over_time(run: Recording, edges: Any) -> dict[str, Any]:
    sums = run.sums(edges)
    return {
        "waste_over_time": [_number(share) for share in waste(sums)],
        "running_over_time": (sums["running"] / np.diff(edges)).tolist(),
        "preemptions_over_time": sums["preemptions"].tolist(),
    }


def _hits(trace: Trace, num_slots: int, block_size: int, done: Callable[[int], object]) -> dict[str, Any]:
    pool = PagedPool(trace, num_slots, block_size, share_prefixes=True)
    run = simulate(trace, pool, done)
    return {
        "num_slots": num_slots,
        "hit_rate": pool.num_found_tokens / max(1, pool.num_prompt_tokens),
        "num_evictions": pool.allocator.stats().num_evictions,
        "num_preemptions": run.num_preemptions,
        "num_refused": len(run.refused),
    }


def _number(share: Any) -> float | None:
    return None if np.isnan(share) else float(share)
