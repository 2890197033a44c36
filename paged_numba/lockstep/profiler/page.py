"""Contents of a report: its summary in a line, its tables, and both as text."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...draw.text import duration, table
from ..observe.observer import unseen
from .counts import Traffic
from .overview import overview, percent
from .queries import Queries


class Section(NamedTuple):
    """A table of the report."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int
    note: str = ""


def sections(report: Queries, gpu: str) -> list[Section]:
    """Return the tables of the report that have rows."""
    made = [_global(report), _shared(report), _other(report), _work(report), _roofline(report, gpu)]
    return [section for section in made if section.rows]


def headline(report: Queries) -> list[str]:
    """Return a line for each kernel that was launched, and one for launches that were not seen."""
    lines = []
    for k in report.kernels:
        grid, thread_block = k["blocks_per_grid"], k["threads_per_block"]
        thread_blocks = f"{_size(grid)} thread block{'' if math.prod(grid) == 1 else 's'}"
        threads = f"{_size(thread_block)} thread{'' if math.prod(thread_block) == 1 else 's'}"
        launches = _count(k["launches"], "launch", "launches")
        lines.append(f"{k['kernel']}: {launches} of {thread_blocks} of {threads}")
    if report.num_unseen:
        lines.append(unseen(report.num_unseen, "counted"))
    return lines


def summary(report: Queries) -> str:
    """Return the report in one line: launches, kernels, sectors moved and bank conflicts."""
    kernels = list(dict.fromkeys(k["kernel"] for k in report.kernels))
    if not kernels:
        return "no launches"
    launches = _count(sum(k["launches"] for k in report.kernels), "launch", "launches")
    names = kernels[0] if len(kernels) == 1 else f"{len(kernels)} kernels"
    sectors = _count(report.memory("global").sectors, "sector", "sectors")
    conflicts = report.memory("shared").bank_conflicts
    parts = [f"{launches} of {names}", f"{sectors} of global memory moved"]
    if conflicts:
        parts.append(_count(conflicts, "bank conflict", "bank conflicts"))
    return ", ".join(parts)


def page_text(report: Queries, gpu: str) -> str:
    """Return the report as text: what matters, then the tables."""
    parts = ["\n".join(headline(report)) or "nothing was launched on the lockstep machine"]
    if report.kernels:
        parts.append("\n".join(_overview_lines(report, gpu)))
    for section in sections(report, gpu):
        note = f"\n{section.note}" if section.note else ""
        parts.append(f"{section.title}\n{table(section.header, section.rows, section.left)}{note}")
    return "\n\n".join(parts)


def _overview_lines(report: Queries, gpu: str) -> list[str]:
    seen = overview(report, gpu)
    lines = [sentence for sentence in (seen.traffic, seen.bound) if sentence]
    if seen.lines:
        lines.append(f"Costliest lines, by their share of the {seen.cost}:")
    for line, share, counts in seen.lines:
        lines += [f"{percent(share):>5}  {line}  {line.text}", f"{'':7}{counts}"]
    return lines


def _global(report: Queries) -> Section:
    header = [
        "array",
        "access",
        "requests",
        "sectors",
        "/request",
        "lines",
        "bytes asked",
        "bytes moved",
        "useful",
    ]
    rows = []
    for array in report.arrays("global"):
        for kind in ("load", "store", "atomic"):
            traffic = report.memory("global", kind, array=array)
            if traffic.requests:
                rows.append([array, f"{kind}s", *_global_cells(traffic)])
    for kind in ("load", "store", "atomic") if rows else ():
        traffic = report.memory("global", kind)
        if traffic.requests:
            rows.append(["total", f"{kind}s", *_global_cells(traffic)])
    note = (
        "A request is one instruction of one warp; a sector has 32 bytes, a line 128. 32 lanes that read\n"
        "neighbouring 4-byte elements touch 4 sectors; scattered elements touch up to 32."
    )
    return Section("Global memory", header, rows, 2, note)


def _global_cells(traffic: Traffic) -> list[str]:
    return [
        f"{traffic.requests:,}",
        f"{traffic.sectors:,}",
        f"{traffic.sectors_per_request:.2f}",
        f"{traffic.lines:,}",
        f"{traffic.bytes_asked:,}",
        f"{traffic.bytes_moved:,}",
        f"{traffic.efficiency:.1f}%",
    ]


def _shared(report: Queries) -> Section:
    header = ["array", "access", "requests", "wavefronts", "ideal", "bank conflicts"]
    rows = []
    for array in report.arrays("shared"):
        for kind in ("load", "store", "atomic"):
            traffic = report.memory("shared", kind, array=array)
            if traffic.requests:
                counts = (
                    traffic.requests,
                    traffic.wavefronts,
                    traffic.ideal_wavefronts,
                    traffic.bank_conflicts,
                )
                rows.append([array, f"{kind}s", *(f"{count:,}" for count in counts)])
    note = "A wavefront is one pass through the 32 banks of 4 bytes; a conflict is one wavefront more than needed."
    return Section("Shared memory", header, rows, 2, note)


def _other(report: Queries) -> Section:
    rows = []
    for space in ("local", "constant"):
        for array in report.arrays(space):
            for kind in ("load", "store"):
                traffic = report.memory(space, kind, array=array)
                if traffic.requests:
                    rows.append(
                        [array, space, f"{kind}s", f"{traffic.requests:,}", f"{traffic.bytes_asked:,}"]
                    )
    note = "A compiler may keep a small local array in registers."
    return Section(
        "Local and constant memory", ["array", "space", "access", "requests", "bytes asked"], rows, 3, note
    )


def _work(report: Queries) -> Section:
    work = report.work()
    rows = [
        [
            "active lanes",
            f"{work.active_lanes:.1f}%",
            f"of {32 * work.warps:,} in {work.warps:,} statements by warp",
        ]
    ]
    together = {name: getattr(work, name) for name in ("barriers", "syncwarps", "shuffles", "votes")}
    rows += [[name, f"{count:,}", "by warp"] for name, count in together.items() if count]
    for space in ("global", "shared"):
        atomics = report.memory(space, "atomic")
        if atomics.requests:
            serial = f"in {atomics.turns:,} turns: lanes at the same address wait for one another"
            rows.append([f"atomics, {space}", f"{atomics.requests:,}", serial])
    what = "additions and multiplications; an FMA is two"
    rows += [[f"{dtype} operations", f"{n:,}", what] for dtype, n in sorted(work.flops.items())]
    what = "divisions, powers, exp and the like"
    rows += [[f"{dtype} functions", f"{n:,}", what] for dtype, n in sorted(work.special.items())]
    return Section("Warps and arithmetic", ["what", "count", ""], rows if work.warps else [], 1)


def _roofline(report: Queries, gpu: str) -> Section:
    roof = report.roofline(gpu)
    if not roof.least_bytes:
        return Section("", [], [], 1)
    rates = " and ".join(f"at {getattr(roof.gpu, name) / 1e12:.1f} TFLOPS in {name}" for name in roof.flops)
    rows = [
        ["device memory traffic", f"{roof.least_bytes:,} B", f"to {roof.most_bytes:,} B without any cache"],
        [
            "arithmetic intensity",
            f"{roof.intensity:.2f}",
            f"operations a byte; the ridge of this GPU is at {roof.ridge:.0f}",
        ],
        ["memory time", duration(roof.memory_seconds), f"at {roof.gpu.bandwidth / 1e12:.2f} TB/s"],
        [
            "arithmetic time",
            duration(roof.compute_seconds),
            rates or "no floating-point arithmetic",
        ],
        ["bound by", roof.bound, "without latency and launch overhead"],
    ]
    return Section(f"Roofline for {roof.gpu.name}", ["what", "", ""], rows, 1, f"Peaks: {roof.gpu.source}.")


def _size(lengths: tuple[int, ...]) -> str:
    """Return the lengths up to the last one that is not 1."""
    last = max((axis for axis, n in enumerate(lengths) if n > 1), default=0)
    return " x ".join(f"{n:,}" for n in lengths[: last + 1])


def _count(count: int, one: str, many: str) -> str:
    return f"1 {one}" if count == 1 else f"{count:,} {many}"
