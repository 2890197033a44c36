"""`KernelCounts`: counts what the kernels of a test move; `growth` compares two counts."""

from __future__ import annotations

from typing import Any

from ...lockstep.profiler.counts import Traffic as Counts
from ...lockstep.profiler.profiler import Profiler
from ...lockstep.profiler.transactions import SECTOR

Kernels = dict[str, dict[str, int]]
"""For each kernel, `MEASURES` and the number of launches."""

Traffic = dict[str, Kernels]
"""For each test, by its id, what its kernels moved."""

MEASURES = {
    "global_bytes": "bytes of global memory moved",
    "bank_conflicts": "cycles of shared-memory bank conflicts",
    "atomic_turns": "turns of atomic operations",
    "local_bytes": "bytes of local memory asked for",
}
"""What must not grow, in words. Each is a count that the kernel and its arguments determine."""


class KernelCounts(Profiler):
    """Observer that adds up the traffic of each kernel.

    Attributes
    ----------
    kernels : dict
        By kernel, named as ``module.function``: launches, global_sectors and `MEASURES`.
    paused : bool
        Whether launches do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Kernels = {}
        self.paused = False
        self._kernel = ""

    def begin_launch(self, machine: Any, function: Any, arguments: tuple[Any, ...]) -> None:
        """Note whose launch it is."""
        super().begin_launch(machine, function, arguments)
        self._kernel = f"{function.__module__}.{function.__qualname__}"

    def end_launch(self, machine: Any) -> None:
        """Add the counts of the launch to those of its kernel."""
        super().end_launch(machine)
        spaces = {space: Counts() for space in ("global", "shared", "local", "constant")}
        for key, counts in self.traffic.items():
            spaces[key.space].add(counts)
        self.traffic.clear()
        self.work.clear()
        if self.paused:
            return
        moved = {
            "launches": 1,
            "global_sectors": spaces["global"].sectors,
            "global_bytes": SECTOR * spaces["global"].sectors,
            "bank_conflicts": spaces["shared"].bank_conflicts,
            "atomic_turns": spaces["global"].turns + spaces["shared"].turns,
            "local_bytes": spaces["local"].bytes_asked,
        }
        total = self.kernels.setdefault(self._kernel, dict.fromkeys(moved, 0))
        for name, count in moved.items():
            total[name] += count


def growth(before: Kernels, now: Kernels) -> list[str]:
    """Return a line for each count of a kernel that is larger now; a kernel that is new has not grown."""
    lines = []
    for kernel, counts in now.items():
        old = before.get(kernel, {})
        for measure, words in MEASURES.items():
            was, count = old.get(measure), counts[measure]
            if was is not None and count > was:
                by = f"{100 * (count - was) / was:.3g} % more" if was else "none before"
                launches = _launches(old.get("launches", 0), counts["launches"])
                lines.append(f"{kernel}: {words}: {was:,} before, {count:,} now ({by}{launches})")
    return lines


def _launches(before: int, now: int) -> str:
    return "" if before == now else f"; {before} launches before, {now} now"
