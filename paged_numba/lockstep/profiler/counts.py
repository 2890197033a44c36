"""Counters of memory traffic and work, and the Nsight Compute metric that corresponds to each.

All counts are sums over warps: a *request* is one memory instruction of one warp. The counts follow the source. An
optimising compiler may keep in a register what the source loads again; compare a count with a measurement only where
source and machine code perform the same accesses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ...draw.text import plural
from .transactions import SECTOR


@dataclass
class Traffic:
    """Memory traffic. The metrics named here count loads; for stores, read ``st`` in place of ``ld``.

    Attributes
    ----------
    requests : int
        Memory instructions, one for each warp: ``l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum``.
    sectors : int
        32-byte sectors of global memory that the requests touch: ``l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum``.
    lines : int
        128-byte cache lines of global memory: tag lookups, ``l1tex__t_set_accesses_pipe_lsu_mem_global_op_ld.sum``.
    bytes_asked : int
        Bytes of the distinct elements of each request, summed; 0 for shared memory.
    wavefronts : int
        Passes through shared memory: ``l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum``.
    ideal_wavefronts : int
        Wavefronts without bank conflicts.
    turns : int
        Atomic operations: rounds needed to serve a warp; a round serves one lane at each address.

    Examples
    --------
    >>> print(Traffic(requests=4, sectors=16, lines=4, bytes_asked=256))
    4 memory requests, 16 sectors, 512 bytes moved, 50% useful
    >>> print(Traffic(requests=29, wavefronts=35, ideal_wavefronts=29))
    29 memory requests, 35 wavefronts, 6 bank conflicts
    """

    requests: int = 0
    sectors: int = 0
    lines: int = 0
    bytes_asked: int = 0
    wavefronts: int = 0
    ideal_wavefronts: int = 0
    turns: int = 0

    def __str__(self) -> str:
        parts = [plural(self.requests, "memory request")]
        if self.sectors:
            moved = plural(self.bytes_moved, "byte")
            parts += [plural(self.sectors, "sector"), f"{moved} moved", f"{self.efficiency:.3g}% useful"]
        elif self.wavefronts:
            parts += [
                plural(self.wavefronts, "wavefront"),
                plural(self.bank_conflicts, "bank conflict"),
            ]
        elif self.bytes_asked:
            parts.append(f"{plural(self.bytes_asked, 'byte')} asked for")
        if self.turns:
            parts.append(plural(self.turns, "atomic turn"))
        return ", ".join(parts)

    def add(self, other: Traffic, times: int = 1) -> None:
        """Add `other`, `times` times."""
        for name in _TRAFFIC:
            setattr(self, name, getattr(self, name) + times * getattr(other, name))

    @property
    def sectors_per_request(self) -> float:
        """``l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio``: 4 is ideal for 4-byte elements."""
        return self.sectors / self.requests if self.requests else 0.0

    @property
    def bytes_moved(self) -> int:
        """Bytes of `sectors`."""
        return SECTOR * self.sectors

    @property
    def efficiency(self) -> float:
        """`bytes_asked` as a percentage of `bytes_moved`.

        ``smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct``.
        """
        return 100 * self.bytes_asked / self.bytes_moved if self.sectors else 100.0

    @property
    def bank_conflicts(self) -> int:
        """Wavefronts that bank conflicts add: ``l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum``."""
        return self.wavefronts - self.ideal_wavefronts


_TRAFFIC = tuple(item.name for item in fields(Traffic))


@dataclass
class Work:
    """What warps do besides accessing memory.

    Attributes
    ----------
    warps : int
        Statements executed, one for each warp with an active lane; an iteration of a loop is a statement.
    lanes : int
        Active lanes, summed over `warps`.
    barriers, syncwarps, shuffles, votes : int
        Operations, one for each warp.
    flops : dict
        Additions and multiplications by dtype; a fused multiply-add counts as two. The sum of
        ``smsp__sass_thread_inst_executed_op_fadd_pred_on.sum`` (``fmul``, twice ``ffma``) for float32, of
        ``dadd``, ``dmul`` and ``dfma`` for float64, of ``hadd``, ``hmul`` and ``hfma`` for float16.
    special : dict
        Divisions, powers and functions such as ``exp`` by dtype; each takes several instructions.

    Examples
    --------
    A barrier of a thread block with 4 warps counts 4 times.

    >>> print(Work(warps=20, lanes=320, barriers=4, flops={"float32": 128}))
    by warp: 20 statements with 50% of their lanes active, 4 barriers; by lane: 128 float32 operations
    """

    warps: int = 0
    lanes: int = 0
    barriers: int = 0
    syncwarps: int = 0
    shuffles: int = 0
    votes: int = 0
    flops: dict[str, int] = field(default_factory=dict)
    special: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        by_warp = [f"{plural(self.warps, 'statement')} with {self.active_lanes:.3g}% of their lanes active"]
        for name in ("barrier", "syncwarp", "shuffle", "vote"):
            count = getattr(self, f"{name}s")
            by_warp += [plural(count, name)] * bool(count)
        by_lane = [
            f"{count:,} {dtype} {what}{'' if count == 1 else 's'}"
            for what, counts in (("operation", self.flops), ("special function", self.special))
            for dtype, count in counts.items()
        ]
        words = f"by warp: {', '.join(by_warp)}"
        return f"{words}; by lane: {', '.join(by_lane)}" if by_lane else words

    def add(self, other: Work) -> None:
        """Add `other`."""
        for name in ("warps", "lanes", "barriers", "syncwarps", "shuffles", "votes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("flops", "special"):
            mine: dict[str, int] = getattr(self, name)
            for dtype, count in getattr(other, name).items():
                mine[dtype] = mine.get(dtype, 0) + count

    @property
    def active_lanes(self) -> float:
        """Percentage of the 32 lanes that are active when a warp runs a statement, on average.

        ``smsp__thread_inst_executed_per_inst_executed.pct``.
        """
        return 100 * self.lanes / (32 * self.warps) if self.warps else 100.0
