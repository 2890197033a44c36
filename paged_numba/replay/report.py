"""Report of a replay: its record as text and as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from ..draw.lines import Chart, Line, Lines
from ..draw.text import table

TIME_ROWS = 8
"""Rows of the table over time. The record and the picture have more points."""

PAPER = (
    "Kwon et al. (SOSP 2023, figure 2) measured 79.6 % waste with the maximum length reserved, 73.2 % with the next\n"
    "power of two, 61.8 % with the exact length and 3.7 % with paging, which had 2 to 4 times the throughput."
)
"""The figures of the paper, for other models and traces."""

ALL, NOTHING = "all", "-"

SECONDS_ON_AXIS = 600
"""Longest time whose axis is in seconds. Longer times are drawn in minutes."""

SHORT = {"maximum length": "maximum", "next power of two": "power of two", "exact (oracle)": "exact"}


def text(record: dict[str, Any]) -> str:
    """Return the report as text."""
    parts = [_opening(record), _policies(record), _over_time(record)]
    if record["prefix_cache"] is None:
        parts.append(
            "Prefix cache: this trace does not say which prompts share a prefix, so its hit rate is unknown."
        )
    else:
        parts.append(_hits(record["prefix_cache"], record["trace"]))
    parts.append(PAPER)
    return "\n\n".join(parts)


def _opening(record: dict[str, Any]) -> str:
    trace = record["trace"]
    count = trace["num_requests"]
    failed = f"\nFailed requests, left out: {trace['num_failed']:,}." if trace["num_failed"] else ""
    return (
        f"{trace['name']}: {count:,} {'request' if count == 1 else 'requests'} in {trace['seconds']:,.0f} s, "
        f"{trace['num_prompt_tokens']:,} prompt tokens,\n{trace['num_output_tokens']:,} generated; the longest holds "
        f"{trace['longest']:,}. Pool of {record['num_slots']:,} tokens, {record['steps_per_second']} steps a second."
        f"{failed}"
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
                f"refused: the pool is too small for each of them alone"
            )
    if any(_full_batch(policy) == ALL for policy in record["policies"]):
        notes.append(f"{ALL}: the pool holds all requests at once; compare with a smaller --pool-tokens.")
    lines = [
        "Waste is the share of slots that hold no token and yet serve no other request: reserved for later tokens,",
        "never filled (internal), or free but scattered (external). Full batch and largest are from a replay in which",
        "all requests arrive at once: the mean number that run while others wait, and the most that run at once.",
        "The other columns are from a replay with the arrival times of the trace.",
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
    # Evenly spaced bins of the record.
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
    return f"{shown}\n{NOTHING}: no request was running." if any(NOTHING in row for row in rows) else shown


def _hits(hits: dict[str, Any], trace: dict[str, Any]) -> str:
    header = "pool, tokens", "hit rate", "evicted blocks", "preempted"
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
        f"{pool['num_slots']:,} tokens: {pool['num_refused']:,} of {trace['num_requests']:,} requests were refused: "
        f"the pool is too small for each of them alone"
        for pool in hits["pools"]
        if pool["num_refused"]
    ]
    return "\n".join(
        [
            f"Prefix cache: prompts share prefixes in blocks of {hits['block_size']} tokens. The hit rate is the",
            "share of prompt tokens found when requests are first admitted, not after a preemption.",
            "",
            table(header, rows),
            *notes,
        ]
    )


def _percent(share: float | None) -> str:
    """Return a share in per cent, with two decimals below 1 %."""
    if share is None:
        return NOTHING
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2f} %"


def picture(record: dict[str, Any]) -> Lines:
    """Return charts: waste, running requests and preemptions over time; hit rate by pool size."""
    times, unit = record["seconds"], "seconds"
    if times[-1] > SECONDS_ON_AXIS:
        times, unit = [second / 60 for second in times], "minutes"
    axis = f"{unit}, until paging has served all requests"

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
