"""Synchronization: barriers of a thread block and of the grid, shuffles and votes of a warp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import SynchronizationError
from ..machine import masks
from ..machine.arithmetic import logical_not, truth
from ..machine.barriers import GRID_BARRIER, require_whole_blocks
from ..machine.lanes import WARP_SIZE, source_line
from ..machine.machine import Machine
from ..machine.masks import Mask
from .intrinsic import Intrinsic, Kind

FULL_WARP = 0xFFFFFFFF
_FULL = np.int64(FULL_WARP)


# Thread block.


def syncthreads(machine: Machine, mask: Mask) -> None:
    """``cuda.syncthreads()``."""
    if machine.rendezvous is not None:
        machine.rendezvous.arrive(machine, mask, "cuda.syncthreads()", np.bool_(False))
    else:
        require_whole_blocks(machine, mask, "cuda.syncthreads()", source_line)


def _barrier(machine: Machine, mask: Mask, what: str, predicate: Any) -> Any:
    """Wait for the whole thread block; count the threads here in which `predicate` holds, int32[thread blocks, 1].

    Lanes that advance together need not wait; the barrier only has to detect divergence.
    """
    if machine.rendezvous is not None:
        return machine.rendezvous.arrive(machine, mask, what, predicate)
    require_whole_blocks(machine, mask, what, source_line)
    held = masks.lanes(predicate, machine.shape)
    if mask is not True:
        held = held & mask
    return held.sum(axis=1, keepdims=True).astype(np.int32)


def syncthreads_count(machine: Machine, mask: Mask, predicate: Any) -> Any:
    """Return the number of threads of the thread block in which `predicate` holds, int32."""
    return _barrier(machine, mask, "cuda.syncthreads_count()", truth(predicate))


def syncthreads_and(machine: Machine, mask: Mask, predicate: Any) -> Any:
    """Return 1 if `predicate` holds in all threads of the thread block, else 0, int32."""
    fails = _barrier(machine, mask, "cuda.syncthreads_and()", logical_not(predicate))
    return (fails == 0).astype(np.int32)


def syncthreads_or(machine: Machine, mask: Mask, predicate: Any) -> Any:
    """Return 1 if `predicate` holds in any thread of the thread block, else 0, int32."""
    return (_barrier(machine, mask, "cuda.syncthreads_or()", truth(predicate)) > 0).astype(np.int32)


def sync_grid(machine: Machine, mask: Mask) -> None:
    """``grid.sync()`` of a cooperative launch, whose thread blocks are all in one batch."""
    _barrier(machine, mask, GRID_BARRIER, np.bool_(False))
    here = masks.lanes(mask, machine.shape)
    if not here.all():
        missing = machine.block_name(int(np.argmin(here.all(axis=1))))
        raise SynchronizationError(
            f"{GRID_BARRIER} must be reached by every thread block, {missing} does not reach it",
            source_line(),
        )


# Warp.


def _warps(machine: Machine, lanes: Any) -> Any:
    """Return bool lanes as ``[thread blocks, warps, 32]``; places past the last thread are False."""
    short = -machine.threads % WARP_SIZE
    lanes = masks.lanes(lanes, machine.shape)
    return np.pad(lanes, ((0, 0), (0, short))).reshape(machine.batch, -1, WARP_SIZE)


def _lanes(machine: Machine, by_warp: Any) -> Any:
    """Spread values by warp, ``[thread blocks, warps]``, over the lanes of each warp."""
    return np.repeat(by_warp, WARP_SIZE, axis=1)[:, : machine.threads]


def _bits(warps: Any) -> Any:
    """Pack ``[..., 32]`` bools into uint32, lane 0 in bit 0."""
    return np.ascontiguousarray(np.packbits(warps, axis=-1, bitorder="little")).view("<u4")[..., 0]


def _membermask(value: Any) -> Any:
    if value.dtype.kind not in "iu":
        raise TypeError(f"a member mask must be an integer, got {value.dtype}")
    return value.astype(np.int64) & np.int64(FULL_WARP)


def require_members(machine: Machine, mask: Mask, membermask: Any, what: str) -> None:
    """Raise unless each calling lane is in its member mask, and every lane in the mask that has not returned calls too.

    Source: PTX ISA, ``shfl.sync``, ``vote.sync`` and ``bar.warp.sync``: behaviour is undefined otherwise.
    """
    members = _membermask(membermask)
    uniform = not isinstance(members, np.ndarray)
    if mask is True and uniform and members == FULL_WARP:
        return
    here = masks.lanes(mask, machine.shape)
    named = masks.lanes((members >> machine.laneid) & 1 == 1, machine.shape)
    outside = here & ~named
    if outside.any():
        lane = machine.first_lane(outside)
        member = int(np.broadcast_to(members, machine.shape).flat[lane])
        raise SynchronizationError(
            f"{what} needs the calling lane in its mask, lane {lane % machine.threads % WARP_SIZE} is not in "
            f"{member:#010x}, {machine.thread_name(lane)}",
            source_line(),
        )
    # Lanes in the member mask of a calling lane that have not returned and do not call.
    callers = _lanes(machine, _warps(machine, here).any(axis=2))
    if uniform:
        wanted = named & callers
    else:
        union = np.bitwise_or.reduce(
            np.where(
                _warps(machine, here),
                np.pad(
                    np.broadcast_to(members, machine.shape), ((0, 0), (0, -machine.threads % WARP_SIZE))
                ).reshape(machine.batch, -1, WARP_SIZE),
                0,
            ),
            axis=2,
        )
        wanted = (_lanes(machine, union) >> machine.laneid) & 1 == 1
    missing = wanted & ~here & ~masks.lanes(machine.exited, machine.shape)
    if missing.any():
        lane = machine.first_lane(missing)
        raise SynchronizationError(
            f"{what} must be reached by every lane in its mask, lane "
            f"{lane % machine.threads % WARP_SIZE} is elsewhere, {machine.thread_name(lane)}",
            source_line(),
        )


def syncwarp(machine: Machine, mask: Mask, membermask: Any = _FULL) -> None:
    """``cuda.syncwarp()``."""
    require_members(machine, mask, membermask, "cuda.syncwarp()")


def _shuffle(machine: Machine, mask: Mask, membermask: Any, value: Any, source: Any, what: str) -> Any:
    """Return `value` of the lane `source` (0 to 31, in the same warp) of each lane."""
    if value.dtype.name not in ("int32", "int64", "float32", "float64"):
        raise TypeError(f"{what} exchanges int32, int64, float32 or float64, got {value.dtype}")
    require_members(machine, mask, membermask, what)
    warp_start = np.arange(machine.threads).reshape(1, -1) // WARP_SIZE * WARP_SIZE
    thread = warp_start + source
    here = masks.lanes(mask, machine.shape)
    absent = thread >= machine.threads
    thread = np.where(absent, 0, thread)
    if mask is not True:
        absent = absent | ~np.take_along_axis(here, np.broadcast_to(thread, machine.shape), axis=1)
    if absent.any() and (absent & here).any():
        lane = machine.first_lane(absent & here)
        asked = int(np.broadcast_to(source, machine.shape).flat[lane])
        raise SynchronizationError(
            f"{what} reads from lane {asked}, which does not take part (its value would be undefined), "
            f"{machine.thread_name(lane)}",
            source_line(),
        )
    machine.exchange(mask, source, value.dtype.itemsize)
    if not isinstance(value, np.ndarray) or value.shape[1] == 1:
        return value
    if thread.shape[0] == 1:
        return value[:, thread[0]]
    return np.take_along_axis(np.broadcast_to(value, machine.shape), thread, axis=1)


def shfl_sync(machine: Machine, mask: Mask, membermask: Any, value: Any, source: Any) -> Any:
    """Return `value` of lane `source`, modulo 32."""
    source = source.astype(np.int64) % WARP_SIZE
    return _shuffle(machine, mask, membermask, value, source, "cuda.shfl_sync()")


def shfl_up_sync(machine: Machine, mask: Mask, membermask: Any, value: Any, delta: Any) -> Any:
    """Return `value` of the lane `delta` below; the lane's own if there is none."""
    lane, delta = machine.laneid.astype(np.int64), delta.astype(np.int64) & 31
    source = np.where(lane >= delta, lane - delta, lane)
    return _shuffle(machine, mask, membermask, value, source, "cuda.shfl_up_sync()")


def shfl_down_sync(machine: Machine, mask: Mask, membermask: Any, value: Any, delta: Any) -> Any:
    """Return `value` of the lane `delta` above; the lane's own if that is past lane 31."""
    lane, delta = machine.laneid.astype(np.int64), delta.astype(np.int64) & 31
    source = np.where(lane + delta < WARP_SIZE, lane + delta, lane)
    return _shuffle(machine, mask, membermask, value, source, "cuda.shfl_down_sync()")


def shfl_xor_sync(machine: Machine, mask: Mask, membermask: Any, value: Any, lane_mask: Any) -> Any:
    """Return `value` of the lane whose number is this one's XOR `lane_mask`."""
    source = machine.laneid.astype(np.int64) ^ (lane_mask.astype(np.int64) & 31)
    return _shuffle(machine, mask, membermask, value, source, "cuda.shfl_xor_sync()")


def ballot_sync(machine: Machine, mask: Mask, membermask: Any, predicate: Any) -> Any:
    """Return an int32 whose bit i tells whether `predicate` holds in lane i."""
    if predicate.dtype.kind not in "biu":
        raise TypeError(f"a vote needs an integer or a boolean, got {predicate.dtype}")
    require_members(machine, mask, membermask, "cuda.ballot_sync()")
    held = masks.lanes(truth(predicate), machine.shape) & masks.lanes(mask, machine.shape)
    votes = _lanes(machine, _bits(_warps(machine, held))).astype(np.int64) & _membermask(membermask)
    return votes.astype(np.uint32).astype(np.int32)


def any_sync(machine: Machine, mask: Mask, membermask: Any, predicate: Any) -> Any:
    """Return whether `predicate` holds in any member lane, bool."""
    return ballot_sync(machine, mask, membermask, predicate) != 0


def all_sync(machine: Machine, mask: Mask, membermask: Any, predicate: Any) -> Any:
    """Return whether `predicate` holds in all member lanes, bool."""
    return ballot_sync(machine, mask, membermask, logical_not(predicate)) == 0


def eq_sync(machine: Machine, mask: Mask, membermask: Any, predicate: Any) -> Any:
    """Return whether `predicate` is the same in all member lanes, bool."""
    return all_sync(machine, mask, membermask, predicate) | ~any_sync(machine, mask, membermask, predicate)


def match_any_sync(machine: Machine, mask: Mask, membermask: Any, value: Any) -> Any:
    """Return an int32 mask of the member lanes whose `value` equals this lane's."""
    require_members(machine, mask, membermask, "cuda.match_any_sync()")
    short = -machine.threads % WARP_SIZE
    spread = np.pad(np.broadcast_to(value, machine.shape), ((0, 0), (0, short)))
    by_warp = spread.reshape(machine.batch, -1, WARP_SIZE)
    here = _warps(machine, mask)
    same = (by_warp[..., :, None] == by_warp[..., None, :]) & here[..., None, :]
    matches = _bits(same).reshape(machine.batch, -1)[:, : machine.threads].astype(np.int64)
    return (matches & _membermask(membermask)).astype(np.uint32).astype(np.int32)


def match_all_sync(machine: Machine, mask: Mask, membermask: Any, value: Any) -> Any:
    """Return (the member mask, True) if `value` is the same in all member lanes, else (0, False)."""
    matches = match_any_sync(machine, mask, membermask, value)
    members = ballot_sync(machine, mask, membermask, np.bool_(True))
    same = matches == members
    return np.where(same, members, np.int32(0)), same


def activemask(machine: Machine, mask: Mask) -> Any:
    """Return a uint32 with a bit for each lane of the warp that runs this statement."""
    return _lanes(machine, _bits(_warps(machine, mask)))


def lanemask_lt(machine: Machine, mask: Mask) -> Any:
    """Return a uint32 with the bits of the lanes below this one."""
    return ((np.int64(1) << machine.laneid.astype(np.int64)) - 1).astype(np.uint32)


class GridGroup:
    """The group of all threads of the grid, which ``cuda.cg.this_grid()`` returns."""

    __lane_attributes__ = ("sync",)

    def __init__(
        self, machine: Machine, mask: Mask, sync: Callable[[Machine, Mask], None] = sync_grid
    ) -> None:
        self.sync = lambda: sync(machine, mask)


_KINDS: dict[Kind, tuple[Callable[..., Any], ...]] = {
    "block": (syncthreads, syncthreads_count, syncthreads_and, syncthreads_or),
    "syncwarp": (syncwarp,),
    "shuffle": (shfl_sync, shfl_up_sync, shfl_down_sync, shfl_xor_sync),
    "vote": (all_sync, any_sync, ballot_sync, eq_sync, match_any_sync, match_all_sync),
    "": (activemask, lanemask_lt),
}

SYNCHRONIZATION: dict[str, Intrinsic] = {
    **{
        function.__name__: Intrinsic(function, masked=True, kind=kind)
        for kind, functions in _KINDS.items()
        for function in functions
    },
    "cg.this_grid": Intrinsic(GridGroup, masked=True, kind="grid"),
}
"""Barriers, shuffles and votes on ``cuda``, by path."""
