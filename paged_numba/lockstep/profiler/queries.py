"""`Queries` of a profile: traffic by memory space, array and line, work by line, and a roofline."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...arguments import integer, one_of
from ..observe.code import CodeFunction, CodeLine
from .counts import Traffic, Work
from .gpus import GPU, GPUS
from .profiler import Key, Profiler

SPACES = ("global", "shared", "local", "constant")
KINDS = ("load", "store", "atomic")


class Roofline(NamedTuple):
    """The least time that the profiled launches could take on a GPU: Williams et al., "Roofline", CACM 52 (4), 2009.

    Attributes
    ----------
    gpu : GPU
    flops : dict of str to int
        Additions and multiplications by dtype, without special functions.
    least_bytes, most_bytes : int
        Traffic to device memory with perfect caches, which move each sector once a launch, and with none.
    memory_seconds, compute_seconds : float
        Time of `least_bytes` at peak bandwidth, and of `flops` at peak rate.
    """

    gpu: GPU
    flops: dict[str, int]
    least_bytes: int
    most_bytes: int
    memory_seconds: float
    compute_seconds: float

    @property
    def intensity(self) -> float:
        """Operations per byte of `least_bytes`."""
        return sum(self.flops.values()) / self.least_bytes if self.least_bytes else 0.0

    @property
    def ridge(self) -> float:
        """The intensity above which arithmetic bounds the time, not memory, for the dtypes of `flops`."""
        rate = sum(self.flops.values()) / self.compute_seconds if self.compute_seconds else self.gpu.float32
        return rate / self.gpu.bandwidth

    @property
    def bound(self) -> str:
        """``memory`` or ``compute``, whichever takes longer."""
        return "memory" if self.memory_seconds >= self.compute_seconds else "compute"

    @property
    def seconds(self) -> float:
        """The least time on this GPU, without launch overhead and latency."""
        return max(self.memory_seconds, self.compute_seconds)


class Queries:
    """Queries of the counts of a profiler; `Report` adds pages to them.

    Parameters
    ----------
    profiler : Profiler
        Holds the counts, which grow with each launch that it observes.
    """

    def __init__(self, profiler: Profiler) -> None:
        self._profiler = profiler

    @property
    def kernels(self) -> list[dict[str, Any]]:
        """The kernels by configuration, as dicts: kernel, blocks_per_grid, threads_per_block, launches."""
        return [{**launch._asdict(), "launches": count} for launch, count in self._profiler.launches.items()]

    @property
    def num_unseen(self) -> int:
        """Launches of other threads that ran meanwhile, and that no observer saw."""
        return self._profiler.num_unseen

    @property
    def code_lines(self) -> list[CodeLine]:
        """The lines that ran, sorted by file and number."""
        return sorted(self._profiler.work, key=lambda line: (line.function.file, line.number))

    @property
    def functions(self) -> list[CodeFunction]:
        """The kernels and device functions that ran."""
        return list(dict.fromkeys(line.function for line in self.code_lines))

    def arrays(self, space: str) -> list[str]:
        """Return the names of the arguments and declared arrays in a memory space.

        Parameters
        ----------
        space : {"global", "shared", "local", "constant"}
            The memory space.

        Raises
        ------
        ValueError
            There is no such memory space.
        """
        one_of("space", space, SPACES)
        return list(self._profiler.arrays.get(space, ()))

    def memory(
        self,
        space: str = "global",
        kind: str | None = None,
        *,
        array: str | None = None,
        line: int | CodeLine | None = None,
    ) -> Traffic:
        """Return the traffic to a memory space, optionally of one kind, array or line only; `print` it for one line.

        Parameters
        ----------
        space : {"global", "shared", "local", "constant"}
        kind : {"load", "store", "atomic"}, optional
        array : str, optional
            Name of the array in the kernel.
        line : int or CodeLine, optional
            A line number, in any file, or a line.

        Raises
        ------
        TypeError, ValueError
            There is no such memory space, kind or array, or `line` is not a line number.
        """
        one_of("space", space, SPACES)
        if kind is not None:
            one_of("kind", kind, KINDS)
        if array is not None:
            one_of("array", array, self.arrays(space))
        line, found = _wanted_line(line), Traffic()
        for key, traffic in self._profiler.traffic.items():
            if key.space != space or kind not in (None, key.kind) or array not in (None, key.array):
                continue
            if line is None or line in (key.line, key.line.number):
                found.add(traffic)
        return found

    def work(self, *, line: int | CodeLine | None = None) -> Work:
        """Return statements, barriers and arithmetic, optionally of one line only; `line` as in `memory`.

        Barriers are counted by warp: one barrier of a thread block with 4 warps counts as 4.

        Parameters
        ----------
        line : int or CodeLine, optional
            As in `memory`.
        """
        line, found = _wanted_line(line), Work()
        for code_line, work in self._profiler.work.items():
            if line is None or line in (code_line, code_line.number):
                found.add(work)
        return found

    def roofline(self, gpu: str = "H200") -> Roofline:
        """Estimate the least time of the launches on a GPU, and whether memory or arithmetic bounds it.

        Parameters
        ----------
        gpu : str
            A name in `paged_numba.lockstep.profiler.GPUS`.

        Raises
        ------
        ValueError
            There is no such GPU in `GPUS`.
        """
        one_of("gpu", gpu, GPUS)
        peaks = GPUS[gpu]
        flops = self.work().flops
        least = sum(self._profiler.footprint.values())
        compute = sum(count / getattr(peaks, dtype) for dtype, count in flops.items())
        # An atomic operation reads and writes its sectors.
        most = self.memory("global").bytes_moved + self.memory("global", "atomic").bytes_moved
        return Roofline(peaks, flops, least, most, least / peaks.bandwidth, compute)

    def to_dict(self) -> dict[str, Any]:
        """Return all counts as dicts, lists, numbers and strings."""
        return {
            "kernels": self.kernels,
            "memory": [
                _entry(key, traffic) for key, traffic in sorted(self._profiler.traffic.items(), key=_order)
            ],
            "work": [
                {
                    "file": line.function.short_file,
                    "line": line.number,
                    "source": line.text,
                    **vars(self.work(line=line)),
                }
                for line in self.code_lines
            ],
            "footprint_bytes": dict(self._profiler.footprint),
            "unseen_launches": self.num_unseen,
        }


def _wanted_line(line: Any) -> int | CodeLine | None:
    return line if line is None or isinstance(line, CodeLine) else integer("line", line)


def _order(item: tuple[Key, Traffic]) -> tuple[Any, ...]:
    key = item[0]
    return key.line.function.file, key.line.number, SPACES.index(key.space), key.array, key.kind


def _entry(key: Key, traffic: Traffic) -> dict[str, Any]:
    counts = {name: count for name, count in vars(traffic).items() if count}
    place = {"file": key.line.function.short_file, "line": key.line.number}
    return {**place, "space": key.space, "array": key.array, "kind": key.kind, **counts}
