"""What matters in a report: the traffic beside the least possible, what bounds the kernel, the costliest lines."""

from __future__ import annotations

from typing import NamedTuple

from ...draw.text import duration, plural
from ..observe.code import CodeLine
from .queries import Queries

MOST_LINES = 3
"""Number of lines that an overview names."""

LEAST_SHARE = 0.01
"""Lines with a smaller share of the cost are not named."""


class Costly(NamedTuple):
    """A line that costs much, with its share of the cost, 0 to 1, and its counts in words."""

    line: CodeLine
    share: float
    counts: str


class Overview(NamedTuple):
    """What a reader of a report should see first.

    Attributes
    ----------
    moved, least : int
        Bytes of global memory that the launches moved, and with each sector moved once a launch.
    bound : str
        What bounds the launches on the GPU, in a sentence; empty if they moved nothing.
    cost : str
        What the costliest lines have the largest shares of.
    lines : list of Costly
    """

    moved: int
    least: int
    bound: str
    cost: str
    lines: list[Costly]

    @property
    def traffic(self) -> str:
        """`moved` and `least` in a sentence; empty if nothing was moved."""
        if not self.moved:
            return ""
        if self.moved == self.least:
            return (
                f"{self.moved:,} bytes of global memory moved: each sector once, which is the least possible."
            )
        return (
            f"{self.moved:,} bytes of global memory moved, {self.moved / self.least:.1f} times the least possible: "
            f"each sector once would be {self.least:,}."
        )


def overview(report: Queries, gpu: str) -> Overview:
    """Return the overview of a report, with the roofline of `gpu`."""
    roof = report.roofline(gpu)
    bound = ""
    if roof.least_bytes:
        ridge = "" if not roof.flops else f", and arithmetic would take as long at {roof.ridge:.0f}"
        bound = (
            f"Bound by {'memory' if roof.bound == 'memory' else 'arithmetic'} on the {roof.gpu.name}: "
            f"{roof.intensity:.2f} operations a byte{ridge}. It cannot take less than {duration(roof.seconds)}."
        )
    space, shares = shares_of_traffic(report)
    cost = f"traffic to {space} memory" if space else "statements"
    if not space:
        shares = _shares({line: report.work(line=line).warps for line in report.code_lines})
    lines = [
        Costly(line, shares[line], _in_words(report, line))
        for line in sorted(shares, key=lambda line: -shares[line])[:MOST_LINES]
        if shares[line] >= LEAST_SHARE
    ]
    return Overview(roof.most_bytes, roof.least_bytes, bound, cost, lines)


def percent(share: float) -> str:
    """Return a share, 0 to 1, in whole per cent."""
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def shares_of_traffic(report: Queries) -> tuple[str, dict[CodeLine, float]]:
    """Return a memory space and each line's share of the traffic to it, 0 to 1.

    The space is ``global`` or, without such traffic, ``shared``; empty, with no shares, if there is neither.
    """
    for space in ("global", "shared"):
        traffic = {line: report.memory(space, line=line) for line in report.code_lines}
        shares = _shares({line: moved.sectors or moved.wavefronts for line, moved in traffic.items()})
        if shares:
            return space, shares
    return "", {}


def _shares(weights: dict[CodeLine, int]) -> dict[CodeLine, float]:
    """Return the weights divided by their sum; nothing if that is 0."""
    whole = sum(weights.values())
    return {line: weight / whole for line, weight in weights.items()} if whole else {}


def _in_words(report: Queries, line: CodeLine) -> str:
    moved, shared = report.memory("global", line=line), report.memory("shared", line=line)
    words = []
    if moved.sectors:
        words.append(f"{plural(moved.sectors, 'sector')}, {moved.efficiency:.0f}% of the bytes useful")
    if shared.bank_conflicts:
        words.append(plural(shared.bank_conflicts, "bank conflict"))
    elif shared.wavefronts:
        words.append(plural(shared.wavefronts, "wavefront"))
    return ", ".join(words) or f"{plural(report.work(line=line).warps, 'statement')}, counted by warp"
