"""Plot of a replay: a row of small charts for each policy, on axes that the rows share. Needs matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..draw.names import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")

RESERVED, PAGED, HITS = "#d55e00", "#0072b2", "#009e73"
"""Colours of the Okabe-Ito palette, which readers with colour-vision deficiency can tell apart."""

UNITS = ((172_800, 86_400, "days"), (7_200, 3_600, "hours"), (600, 60, "minutes"))
"""For times longer than the first number of seconds: the seconds of a unit, and its name."""

LEAST_WASTE = 0.01
"""Lowest end of the logarithmic axis of waste, in per cent."""

OUTLIER = 50
"""A chart leaves out of its axis what is this many times as large as 98 % of its values, and marks it."""


class Measure(NamedTuple):
    """What a column of charts shows: the values of each policy over time."""

    title: str
    values: list[list[float]]
    log: bool = False


def render(record: dict[str, Any], file_format: str) -> bytes:
    """Return the plot of a replay's record as a file of one of `FORMATS`.

    Parameters
    ----------
    record : dict
        From `paged_numba.replay.measure.measure`, or its JSON.
    file_format : {"svg", "png", "pdf"}

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    import matplotlib

    written = io.BytesIO()
    # The same record gives the same file. Text stays text in SVG, so that it can be searched.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "paged_numba", "pdf.fonttype": 42}):
        metadata = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}[
            file_format
        ]
        figure(record).savefig(written, format=file_format, metadata=metadata, dpi=150)
    return written.getvalue()


def figure(record: dict[str, Any]) -> Figure:
    """Return the plot of a replay's record: waste, running requests and preemptions, and below them the hit rate."""
    from matplotlib.figure import Figure

    policies, hits = record["policies"], record["prefix_cache"]
    measures = _measures(policies)
    pools = [] if hits is None else hits["pools"]
    rows = len(policies)
    made = Figure(
        figsize=(3.2 * len(measures) + 1.4, 0.82 * rows + 1.3 + 2.3 * bool(pools)), layout="constrained"
    )
    trace = record["trace"]
    title = f"{one_line(trace['name'])}: a pool of {record['num_slots']:,} tokens"
    # The name of a file may hold a dollar sign, which is no formula.
    made.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    heights = (0.82 * rows + 0.9, 2.3) if pools else (1,)
    over_time, *below = made.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    charts = over_time.subplots(rows, len(measures), sharex=True, squeeze=False)
    times, unit = _in_unit(record["seconds"])
    for column, measure in enumerate(measures):
        bottom, top = _limits(measure)
        for row, policy in enumerate(policies):
            chart = charts[row][column]
            colour = RESERVED if policy["block_size"] is None else PAGED
            _steps(chart, times, measure.values[row], colour, bottom, top)
            _axes(chart, measure.log, bottom, top)
            if len(times) == 1:
                chart.set_xticks(times)
            if not column:
                chart.set_ylabel(_label(policy), rotation=0, ha="right", va="center", fontsize=9)
        charts[0][column].set_title(measure.title, fontsize=10, loc="left")
    over_time.supxlabel(f"{unit}, until paging has served all requests", fontsize=9)
    for part in below:
        _hit_rates(part.subplots(), hits)
    return made


def _label(policy: dict[str, Any]) -> str:
    waste = policy["waste"]
    return policy["name"] if waste is None else f"{policy['name']}\nwaste {100 * waste:.3g} %"


def _measures(policies: list[dict[str, Any]]) -> list[Measure]:
    """Return the columns of the plot; preemptions only if there were some."""
    waste = [[_number(share) * 100 for share in policy["waste_over_time"]] for policy in policies]
    running = [[_number(count) for count in policy["running_over_time"]] for policy in policies]
    measures = [Measure("Waste, % of the taken slots", waste, log=True), Measure("Running requests", running)]
    if any(policy["num_preemptions"] for policy in policies):
        preempted = [list(accumulate(map(_number, policy["preemptions_over_time"]))) for policy in policies]
        measures.append(Measure("Preemptions so far", preempted))
    return measures


def _number(value: float | None) -> float:
    """Return a value; NaN, which leaves a gap, if there is none."""
    return math.nan if value is None else float(value)


def _in_unit(seconds: Sequence[float]) -> tuple[list[float], str]:
    """Return times in the unit that suits the longest, and its name."""
    longest = max(seconds, default=0)
    for beyond, length, name in UNITS:
        if longest > beyond:
            return [second / length for second in seconds], name
    return list(seconds), "seconds"


def _limits(measure: Measure) -> tuple[float, float]:
    """Return the ends of the axis that the charts of a column share: without outliers, and always finite."""
    values = np.array([value for row in measure.values for value in row], float)
    values = values[np.isfinite(values)]
    most = float(values.max(initial=0))
    usual = float(np.quantile(values, 0.98)) if values.size else 0
    if usual and most > OUTLIER * usual:
        most = usual
    if measure.log:
        return LEAST_WASTE, max(100.0, 1.2 * most)
    return 0, 1.15 * most or 1.0


def _steps(
    chart: Axes, times: list[float], values: list[float], colour: str, bottom: float, top: float
) -> None:
    """Draw values as steps; triangles at the top mark what lies above the axis."""
    at, drawn = np.array(times, float), np.array(values, float)
    above = np.flatnonzero(drawn > top)
    drawn = np.where(np.isnan(drawn), np.nan, np.clip(drawn, bottom, top))
    if not bottom:  # an area over a logarithmic axis would say nothing
        chart.fill_between(at, drawn, bottom, step="post", color=colour, alpha=0.18, linewidth=0)
    alone = (
        np.isfinite(drawn) & ~np.isfinite(np.r_[np.nan, drawn[:-1]]) & ~np.isfinite(np.r_[drawn[1:], np.nan])
    )
    chart.plot(at, drawn, color=colour, drawstyle="steps-post", linewidth=1.3)
    chart.plot(at[alone], drawn[alone], color=colour, marker="o", markersize=3, linestyle="none")
    for place in above:
        label = "∞" if math.isinf(values[place]) else f"{values[place]:,.3g}"
        chart.plot(at[place], top, color=colour, marker="^", clip_on=False)
        # Towards the middle of the chart, where there is room.
        left = at[place] > (at[0] + at[-1]) / 2
        chart.annotate(
            label, (at[place], top), (-6 if left else 6, -7), textcoords="offset points", fontsize=7,
            ha="right" if left else "left",
        )  # fmt: skip


def _axes(chart: Axes, log: bool, bottom: float, top: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    if log:
        chart.set_yscale("log")
        chart.yaxis.set_major_locator(FixedLocator([0.1, 1, 10, 100]))
        chart.yaxis.set_minor_locator(NullLocator())
    else:
        chart.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    chart.yaxis.set_major_formatter(FuncFormatter(_number_text))
    chart.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    chart.xaxis.set_major_formatter(FuncFormatter(_number_text))
    chart.set_ylim(bottom, top)
    chart.tick_params(labelsize=7)
    chart.grid(axis="y", linewidth=0.4, alpha=0.6)
    chart.spines[["top", "right"]].set_visible(False)


def _number_text(value: float, place: int | None = None) -> str:
    return f"{value:,.12g}"


def _hit_rates(chart: Axes, hits: dict[str, Any]) -> None:
    """Draw the prefix cache's hit rate by the size of the pool, and the rate if nothing is ever evicted."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    slots = [pool["num_slots"] for pool in hits["pools"]]
    chart.plot(
        slots, [100 * pool["hit_rate"] for pool in hits["pools"]], color=HITS, marker="o", linewidth=1.3
    )
    bound = 100 * hits["unbounded_hit_rate"]
    chart.axhline(bound, color="0.4", linestyle="--", linewidth=1)
    chart.annotate(
        "if nothing is ever evicted",
        (0.005, bound),
        xycoords=("axes fraction", "data"),
        va="bottom",
        fontsize=8,
    )
    chart.set_xscale("log")
    chart.set_xticks(slots)
    chart.xaxis.set_minor_locator(NullLocator())
    chart.xaxis.set_major_formatter(FuncFormatter(_number_text))
    chart.set_ylim(0, max(1.0, 1.25 * bound))
    chart.set_title(
        f"Prefix cache: % of prompt tokens found, in blocks of {hits['block_size']}", fontsize=10, loc="left"
    )
    chart.set_xlabel("tokens in the pool", fontsize=9)
    chart.tick_params(labelsize=8)
    chart.grid(axis="y", linewidth=0.4, alpha=0.6)
    chart.spines[["top", "right"]].set_visible(False)
