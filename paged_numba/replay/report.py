"""Report of a replay: its record as text."""

from __future__ import annotations

from typing import Any

from ..draw.text import table

TIME_ROWS = 8
"""Rows of the table over time. The record and the plot have more points."""

PAPER = (
    "Kwon et al. (SOSP 2023, figure 2) measured 79.6 % waste with the maximum length reserved, 73.2 % with the next\n"
    "power of two, 61.8 % with the exact length and 3.7 % with paging, which had 2 to 4 times the throughput."
)
"""The figures of the paper, for other models and traces."""

ALL, NOTHING = "all", "-"

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
