"""`sectors`: a limit of the sectors that move, whose reason says what an answer does instead."""

from __future__ import annotations

from ...lockstep.profiler.report import Report
from ..checker.task import Limit


def sectors(report: Report, array: str, most: int, needed: int, why: str, kind: str = "load") -> Limit:
    """Return a limit of the sectors of one array that move.

    Parameters
    ----------
    report : Report
    array : str
        Name of the array in the kernel.
    most : int
        Most sectors.
    needed : int
        Bytes that must move if each element moves as often as it must.
    why : str
        Where `most` comes from, as a sentence; what the answer does is added if it moves more.
    kind : str
        ``load`` or ``store``.
    """
    traffic = report.memory("global", kind, array=array)
    if traffic.sectors > most:
        each = traffic.bytes_asked / traffic.requests / 4
        cause = (
            f"Your warps {'load' if kind == 'load' else 'store'} {array} by {traffic.requests:,} requests, "
            f"each of {each:.3g} number{'s' * (each != 1)} in {traffic.sectors_per_request:.3g} "
            f"sector{'s' * (traffic.sectors != traffic.requests)}"
        )
        if traffic.bytes_asked > needed:
            cause += f": {traffic.bytes_asked // 4:,} numbers, and {needed // 4:,} are needed"
        why = f"{why.removesuffix('.')}. {cause}"
    done = "loaded from" if kind == "load" else "stored to"
    return Limit(f"sectors {done} {array}", traffic.sectors, most, why)
