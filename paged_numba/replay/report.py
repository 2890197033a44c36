"""The record of a replay as text and as a picture; both say what the record says, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from ..draw.lines import Chart, Line, Lines
from ..draw.text import table

TIME_ROWS = 8
"""Rows of the table over time; record and picture are finer."""

PAPER = (
    "Kwon et al. (SOSP 2023, figure 2) found 79.6 % waste where the maximum was reserved, 73.2 % with the next power\n"
    "of two, 61.8 % with the exact length, 3.7 % with paging; and 2 to 4 times the throughput."
)
"""What the paper reported, on other models and traces."""

ALL, NOTHING = "all", "-"

SECONDS_ON_AXIS = 600
"""What takes no longer is drawn over seconds, all else over minutes."""

SHORT = {"maximum length": "maximum", "next power of two": "power of two", "exact (oracle)": "exact"}


def text(record: dict[str, Any]) -> str:
    """Return the tables."""
    parts = [_opening(record), _policies(record), _over_time(record)]
    if record["prefix_cache"] is None:
        parts.append(
            "Prefix cache: this trace does not say which prompts begin alike, so no hit rate can be told."
        )
    else:
        parts.append(_hits(record["prefix_cache"], record["trace"]))
    parts.append(PAPER)
    return "\n\n".join(parts)


def _opening(record: dict[str, Any]) -> str:
    trace = record["trace"]
    count = trace["num_requests"]
    return (
        f"{trace['name']}: {count:,} {'request' if count == 1 else 'requests'} in {trace['seconds']:,.0f} s, "
        f"{trace['num_prompt_tokens']:,} prompt tokens,\n{trace['num_output_tokens']:,} generated; the longest holds "
        f"{trace['longest']:,}. Pool of {record['num_slots']:,} tokens, {record['steps_per_second']} steps a second."
    )


def _policies(record: dict[str, Any]) -> str:
    header = (
        "memory",
        "waste",
        "reserved",
        "internal",
        "external",
        "full batch",
        "largest",
        "preempted",
        "mean wait",
    )
    rows = []
    notes = []
    for policy in record["policies"]:
        shares = policy["shares"]
        rows.append(
            (
                policy["name"],
                _percent(policy["waste"]),
                *(_percent(shares[name]) for name in ("reserved", "internal", "external")),
                _full_batch(policy),
                f"{policy['largest_batch']:,}",
                f"{policy['num_preemptions']:,}",
                NOTHING if policy["mean_wait_seconds"] is None else f"{policy['mean_wait_seconds']:,.1f} s",
            )
        )
        if policy["num_refused"]:
            notes.append(
                f"{policy['name']}: {policy['num_refused']:,} of {record['trace']['num_requests']:,} requests were "
                f"refused, since the pool is too small for each of them alone"
            )
    if any(_full_batch(policy) == ALL for policy in record["policies"]):
        notes.append(f"{ALL}: the pool holds all requests at once: a smaller --pool-tokens compares.")
    lines = [
        "Waste is the share of slots that hold no token and yet serve no other request: reserved for later, never to",
        "be filled (internal), or free but scattered (external). If all requests are there from the start, the full",
        "batch is the mean number that run while others wait, the largest the most that run at once. The other",
        "columns are those of the trace's arrivals.",
        "",
        table(header, rows),
        *notes,
    ]
    return "\n".join(lines)


def _full_batch(policy: dict[str, Any]) -> str:
    if policy["full_batch"] is not None:
        return f"{policy['full_batch']:,.1f}"
    return ALL if policy["largest_batch"] else NOTHING


def _over_time(record: dict[str, Any]) -> str:
    seconds = record["seconds"]
    # Some of the bins of the record, far apart alike.
    places = sorted({round(i * (len(seconds) - 1) / (TIME_ROWS - 1)) for i in range(TIME_ROWS)})
    header = "waste at", *(SHORT.get(policy["name"], policy["name"]) for policy in record["policies"])
    digits = 0 if seconds[-1] >= 100 else 2
    rows = [
        (
            f"{seconds[i]:,.{digits}f} s",
            *(_percent(policy["waste_over_time"][i]) for policy in record["policies"]),
        )
        for i in places
    ]
    shown = table(header, rows)
    return f"{shown}\n{NOTHING}: nothing was running." if any(NOTHING in row for row in rows) else shown


def _hits(hits: dict[str, Any], trace: dict[str, Any]) -> str:
    header = "prefix cache, tokens", "hit rate", "evicted blocks", "preempted"
    rows = [
        (
            f"{pool['num_slots']:,}",
            _percent(pool["hit_rate"]),
            f"{pool['num_evictions']:,}",
            f"{pool['num_preemptions']:,}",
        )
        for pool in hits["pools"]
    ]
    rows.append(("nothing ever evicted", _percent(hits["unbounded_hit_rate"]), "", ""))
    notes = [
        f"{pool['num_slots']:,} tokens: {pool['num_refused']:,} of {trace['num_requests']:,} requests were refused, "
        f"since the pool is too small for each of them alone"
        for pool in hits["pools"]
        if pool["num_refused"]
    ]
    return "\n".join(
        [
            f"Blocks of {hits['block_size']}, shared by prompts that begin alike. The hit rate is that of requests",
            "when they first come: what a preempted one finds of its own again does not count.",
            "",
            table(header, rows),
            *notes,
        ]
    )


def _percent(share: float | None) -> str:
    """Return a share in per cent, small ones with more digits."""
    if share is None:
        return NOTHING
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2f} %"


def picture(record: dict[str, Any]) -> Lines:
    """Return the charts: waste, running requests and preemptions, if any, over time; hit rate by pool size."""
    times, unit = record["seconds"], "seconds"
    if times[-1] > SECONDS_ON_AXIS:
        times, unit = [second / 60 for second in times], "minutes"
    axis = f"{unit}, until paging has served all"

    def line(policy: dict[str, Any], values: Iterable[float | None]) -> Line:
        return Line(
            policy["name"], list(zip(times, values, strict=True)), dashed=policy["block_size"] is None
        )

    waste, running, preempted = [], [], []
    for policy in record["policies"]:
        shares = policy["waste_over_time"]
        waste.append(line(policy, [None if share is None else 100 * share for share in shares]))
        running.append(line(policy, policy["running_over_time"]))
        preempted.append(line(policy, accumulate(policy["preemptions_over_time"])))
    charts = [
        Chart("Memory waste, % of the taken slots", axis, waste, log_y=True),
        Chart("Running requests, with the trace's arrivals", axis, running, counts=True),
    ]
    if any(policy["num_preemptions"] for policy in record["policies"]):
        charts.append(Chart("Preemptions so far", axis, preempted, counts=True))
    hits = record["prefix_cache"]
    if hits is not None and hits["pools"]:
        rates = [(pool["num_slots"], 100 * pool["hit_rate"]) for pool in hits["pools"]]
        bound = [(slots, 100 * hits["unbounded_hit_rate"]) for slots, _ in rates]
        lines = [
            Line("nothing evicted", bound, dashed=True),
            Line(f"blocks of {hits['block_size']}", rates, marks=True),
        ]
        charts.append(Chart("Prefix cache, % of tokens found", "tokens in the pool", lines, log_x=True))
    return Lines(f"{record['trace']['name']}, pool of {record['num_slots']:,} tokens", charts)
