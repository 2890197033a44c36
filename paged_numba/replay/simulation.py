"""Simulation of continuous batching: which requests run, which wait, and how much memory each holds.

Time passes in steps of equal length. A step does, in this order:

1. Each running request, the earliest first, takes a slot for the token that it generated in the step before. If
   no memory is free, the running request that arrived last is preempted: its memory is freed, and it becomes the
   first in the queue; when it is admitted again, all its tokens so far are computed again.
2. Waiting requests are admitted in order of arrival while the next one fits; no request is admitted in a
   step that preempted a request.
3. Each running request generates a token; the prompts of requests just admitted are computed as well. A request
   that has all its tokens ends, and its memory is free in the next step.

So a request with p prompt tokens and n to generate holds p, p + 1, …, p + n - 1 tokens in n steps. vLLM schedules
in this way, but also limits the batch (`max_num_seqs`, `max_num_batched_tokens`); here, memory alone does. Steps in
which running requests only generate tokens are not simulated one by one.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..traces import Trace
from .pools import Pool
from .recording import Recording

STEPS_PER_SECOND = 20
"""A step takes 50 ms: an H200 reads its whole memory in 29 ms at 4.8 TB/s; the rest is for prompts."""


def arrival_steps(trace: Trace) -> Any:
    """Return the first step that begins after each request has arrived, int64[num_requests]."""
    # Without the subtraction, rounding could move an arrival at the start of a step into the next one.
    return np.ceil(trace.arrivals * STEPS_PER_SECOND - 1e-6).astype(np.int64)


def simulate(trace: Trace, pool: Pool, done: Callable[[int], object] = lambda count: None) -> Recording:
    """Replay all requests of a trace against a pool.

    Parameters
    ----------
    trace : Trace
    pool : Pool
        Empty; it is empty again at the end.
    done : callable
        Called with 1 each time a request ends or is refused.
    """
    return _Simulation(trace, pool, done).run()


class _Simulation:
    def __init__(self, trace: Trace, pool: Pool, done: Callable[[int], object]) -> None:
        self.pool, self.done = pool, done
        self.arrival_steps: list[int] = arrival_steps(trace).tolist()
        self.final_lens: list[int] = trace.final_lens.tolist()
        num_requests = len(trace)
        self.num_arrived = 0
        self.waiting: deque[int] = deque()
        self.running: dict[int, None] = {}  # in the order of arrival
        # Whether the first waiting request may fit. After a failure, only freed memory or a new prefix can change that.
        self.retry = True
        # The length of a running request is offsets[request] + step: it grows by one each step.
        self.offsets = [0] * num_requests
        self.lens: list[int] = trace.prompt_lens.tolist()  # length at the next admission
        self.capacities = [0] * num_requests
        self.step = -1
        # By step, requests that end, and requests that need a block. Entries of requests preempted since are ignored.
        self.endings: dict[int, list[int]] = {}
        self.growths: dict[int, list[int]] = {}
        self.due: list[int] = []
        # Sums over running requests: slots that they hold, slots that they will fill, offsets.
        self.capacity = self.useful = self.offset = 0
        self.num_preemptions = 0  # in this step
        self.refused: list[int] = []
        self.rows: list[tuple[int, ...]] = []

    def run(self) -> Recording:
        while (step := self._next_step()) is not None:
            self.step, self.num_preemptions = step, 0
            self._end(self.endings.pop(step, []))
            self._arrive()
            self._grow(self.growths.pop(step, []))
            if not self.num_preemptions:
                self._admit()
            self._record(step)
        if len(self.rows) == 1:  # all requests were refused in one step; end after it
            self._record(self.step + 1)
        return Recording.of(self.rows, self.refused)

    def _next_step(self) -> int | None:
        """Return the next step in which more happens than generation; None if no such step is left."""
        while self.due and self.due[0] <= self.step:
            heapq.heappop(self.due)
        candidates = self.due[:1]
        if self.num_arrived < len(self.arrival_steps):
            candidates.append(self.arrival_steps[self.num_arrived])
        if self.waiting and self.retry:
            candidates.append(self.step + 1)
        return min(candidates, default=None)

    def _arrive(self) -> None:
        while (
            self.num_arrived < len(self.arrival_steps) and self.arrival_steps[self.num_arrived] <= self.step
        ):
            if self.pool.ever_fits(self.num_arrived):
                self.waiting.append(self.num_arrived)
            else:
                self.refused.append(self.num_arrived)
                self.done(1)
            self.num_arrived += 1

    def _end(self, requests: list[int]) -> None:
        for request in requests:
            # A request that was preempted since ends later, or waits.
            if request in self.running and self._length(request) == self.final_lens[request] + 1:
                self._leave(request, self.final_lens[request], self.pool.release)
                self.done(1)

    def _grow(self, requests: list[int]) -> None:
        """Allocate memory for one more token of each full request; preempt while no memory is free."""
        for request in sorted(requests):
            if request not in self.running or self._length(request) != self.capacities[request] + 1:
                continue
            self.pool.commit(request, self._length(request) - 1)
            while not (capacity := self.pool.grow(request)):
                if self._preempt_latest() == request:
                    break
            else:
                self._account(request, -1)
                self.capacities[request] = capacity
                self._account(request, +1)
                self._expect_growth(request)

    def _preempt_latest(self) -> int:
        latest = next(reversed(self.running))
        # The tokens that it generated so far are computed again with its prompt.
        self.lens[latest] = self._length(latest)
        self._leave(latest, self._length(latest) - 1, self.pool.preempt)
        self.waiting.appendleft(latest)
        self.num_preemptions += 1
        return latest

    def _leave(self, request: int, written: int, give_back: Callable[[int], None]) -> None:
        self._account(request, -1)
        del self.running[request]
        self.pool.commit(request, written)
        give_back(request)
        self.retry = True

    def _admit(self) -> None:
        admitted = []
        while self.waiting and self.retry:
            request = self.waiting[0]
            capacity = self.pool.admit(request, self.lens[request])
            if not capacity:
                self.retry = False
                break
            self.waiting.popleft()
            self.running[request] = None
            self.offsets[request] = self.lens[request] - self.step
            self.capacities[request] = capacity
            self._account(request, +1)
            self._expect_growth(request)
            self._expect(self.endings, self.final_lens[request] + 1, request)
            admitted.append(request)
        for request in admitted:
            # Written at the end of this step: the waiting request can find the prefix from the next step on.
            self.pool.commit(request, self.lens[request])
            self.retry = True

    def _length(self, request: int) -> int:
        return self.offsets[request] + self.step

    def _expect_growth(self, request: int) -> None:
        if self.capacities[request] < self.final_lens[request]:
            self._expect(self.growths, self.capacities[request] + 1, request)

    def _expect(self, table: dict[int, list[int]], length: int, request: int) -> None:
        """Add a request to a table, at the step in which it will have the given length."""
        step = length - self.offsets[request]
        table.setdefault(step, []).append(request)
        heapq.heappush(self.due, step)

    def _account(self, request: int, sign: int) -> None:
        self.capacity += sign * self.capacities[request]
        self.useful += sign * min(self.capacities[request], self.final_lens[request])
        self.offset += sign * self.offsets[request]

    def _record(self, step: int) -> None:
        stranded = self.pool.num_stranded_slots(self.waiting[0]) if self.waiting else 0
        length = self.offset + step * len(self.running)
        self.rows.append(
            (
                step,
                self.pool.num_held_slots,
                self.capacity,
                self.useful,
                length,
                stranded,
                len(self.running),
                len(self.waiting),
                self.num_preemptions,
            )
        )
