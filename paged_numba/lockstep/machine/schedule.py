"""Schedule: runs the warps of a thread block one after the other from barrier to barrier, as a GPU may.

Each warp has a machine and a host thread of its own. One warp runs at a time, until it reaches a barrier or the
end of the kernel; then the next one runs. The results of a kernel depend on this order only if the kernel lacks
a barrier.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...errors import KernelError, SynchronizationError
from . import masks
from .lanes import WARP_SIZE, Lanes, source_line
from .machine import Machine, SharedMemory
from .masks import Mask

Program = Callable[..., Any]


class Arrival(NamedTuple):
    """A warp that waits at a barrier."""

    here: Any
    """Lanes that are at the barrier."""
    held: Any
    """Lanes at the barrier for which the predicate holds."""
    what: str
    line: str


class _StopWarpError(Exception):
    """Ends the host thread of a warp after another warp has failed."""


def in_turns(
    whole: Machine,
    part: Callable[[range], Machine],
    program: Program,
    arguments: Callable[[Machine], list[Any]],
    *,
    reverse: bool,
) -> Callable[[int, int], int]:
    """Return a function that runs a batch of thread blocks warp by warp and returns the bytes of memory used.

    Parameters
    ----------
    whole : Machine
        The machine of whole thread blocks.
    part : callable
        Returns a machine for some of the threads of each thread block.
    program : callable
        The lane program of the kernel.
    arguments : callable
        Returns the kernel's arguments as lane values of a machine.
    reverse : bool
        Whether the last warp runs first.
    """
    starts = range(0, whole.threads, WARP_SIZE)
    warps = [part(range(start, min(start + WARP_SIZE, whole.threads))) for start in starts]
    given = [arguments(warp) for warp in warps]

    def run_batch(first: int, count: int) -> int:
        memory = SharedMemory()
        whole.begin_batch(first, count, memory)
        for warp in warps:
            warp.begin_batch(first, count, memory)
        Turns(whole, warps, lambda w: program(warps[w], True, *given[w]), reverse).run()
        return memory.nbytes + sum(warp.local_bytes for warp in warps)

    return run_batch


class Turns:
    """The warps of one batch, which take turns; implements `barriers.Rendezvous`."""

    def __init__(
        self, whole: Machine, warps: list[Machine], body: Callable[[int], Any], reverse: bool
    ) -> None:
        self.whole = whole
        self.warps = warps
        self.body = body
        self.order = sorted(range(len(warps)), reverse=reverse)
        self.turn = [threading.Semaphore(0) for _ in warps]
        self.back = threading.Semaphore(0)
        self.arrivals: dict[int, Arrival] = {}
        self.finished: set[int] = set()
        self.waiting: dict[int, KernelError] = {}
        self.error: BaseException | None = None
        self.stopping = False
        self.count: Any = None

    def run(self) -> None:
        """Run every warp to its end; raise the first error of any warp."""
        threads = [threading.Thread(target=self._work, args=(w,), daemon=True) for w in self.order]
        for warp in self.warps:
            warp.rendezvous = self
        for thread in threads:
            thread.start()
        before: Any = None
        try:
            while len(self.finished) < len(self.warps):
                self.waiting.clear()
                for w in self.order:
                    if w not in self.finished and w not in self.arrivals:
                        self.turn[w].release()
                        self.back.acquire()
                        if self.error is not None:
                            raise self.error
                if self.waiting:
                    after = len(self.finished), len(self.arrivals), self.warps[0].digest()
                    if after == before:
                        raise next(iter(self.waiting.values()))
                    before = after
                elif self.arrivals:
                    self._meet()
        finally:
            self.stopping = True
            for w in self.order:
                self.turn[w].release()
            for thread in threads:
                thread.join()

    def _work(self, w: int) -> None:
        self.turn[w].acquire()
        try:
            if not self.stopping:
                with np.errstate(all="ignore"):
                    self.body(w)
        except _StopWarpError:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.finished.add(w)
            self.back.release()

    def arrive(self, lanes: Lanes, mask: Mask, what: str, predicate: Any) -> Any:
        """Wait for the other warps; see `barriers.Rendezvous.arrive`."""
        w = self._number(lanes)
        here = masks.lanes(mask, lanes.shape)
        held = masks.lanes(predicate, lanes.shape) & here
        self.arrivals[w] = Arrival(here, held, what, source_line())
        self._let_others_run(w)
        return self.count

    def pass_turn(self, lanes: Lanes, error: KernelError) -> None:
        """Let the other warps run; see `barriers.Rendezvous.pass_turn`."""
        w = self._number(lanes)
        self.waiting[w] = error
        self._let_others_run(w)

    def _number(self, lanes: Lanes) -> int:
        return next(number for number, warp in enumerate(self.warps) if warp is lanes)

    def _let_others_run(self, w: int) -> None:
        self.back.release()
        self.turn[w].acquire()
        if self.stopping:
            raise _StopWarpError

    def _meet(self) -> None:
        """Check that whole thread blocks wait at the same barrier, and let them continue."""
        first = self.arrivals[min(self.arrivals)]
        members = [w for w, arrival in self.arrivals.items() if arrival[2:] == first[2:]]
        if len(members) < len(self.arrivals):
            if not self.whole.collects_errors:
                other = next(arrival for arrival in self.arrivals.values() if arrival[2:] != first[2:])
                raise SynchronizationError(
                    f"{first.what} must be reached by all threads of a thread block, but some are at {first.line} "
                    f"and others at {other.what}",
                    other.line,
                )
            # After an error that is only reported, the warps at the first barrier in the source continue.
            first = min(self.arrivals.values(), key=_line_number)
            members = [w for w, arrival in self.arrivals.items() if arrival[2:] == first[2:]]
        here, held = [], []
        for w, warp in enumerate(self.warps):
            nobody = np.zeros(warp.shape, bool)
            here.append(self.arrivals[w].here if w in members else nobody)
            held.append(self.arrivals[w].held if w in members else nobody)
        self.whole.exited = np.concatenate(
            [masks.lanes(warp.exited, warp.shape) for warp in self.warps], axis=1
        )
        parts = [self.warps[w] for w in members]
        met = self.whole.meet(np.concatenate(here, axis=1), first.what, first.line, parts)
        self.count = np.concatenate(held, axis=1).sum(axis=1, keepdims=True).astype(np.int32) * met
        for w in members:
            del self.arrivals[w]


def _line_number(arrival: Arrival) -> int:
    return int(arrival.line.rpartition(":")[2])
