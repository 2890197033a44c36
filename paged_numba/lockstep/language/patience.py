"""`Patience`: notices that a loop which waits for memory to change waits forever."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import KernelError
from ..machine import masks
from ..machine.machine import Machine
from ..machine.masks import Mask

FIRST_LOOK = 8
"""Iterations in which no lane leaves before memory is compared; then twice as many, and so on."""

MOST_ITERATIONS = 1 << 16
"""Iterations in which no lane leaves, though memory changes: more are a loop without end."""


class Patience:
    """Watches one run of a loop whose end depends on memory alone."""

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, lanes: int) -> None:
        self.lanes = lanes
        self.iterations = 0
        self.next_look = FIRST_LOOK
        self.memory = b""

    def check(self, machine: Machine, lanes: Mask) -> None:
        """Note that an iteration begins, in `lanes`.

        Raises
        ------
        KernelError
            The last iteration changed no memory, no lane has left since, and no other warp can change the memory.
        """
        count = int(np.count_nonzero(masks.lanes(lanes, machine.shape)))
        if count != self.lanes:
            self._begin(count)
            return
        self.iterations += 1
        if self.iterations == self.next_look:
            self.memory = machine.digest()
        elif self.iterations == self.next_look + 1:
            if machine.digest() == self.memory:
                self._begin(count)
                machine.wait(_error(machine, lanes))
            else:
                self.next_look *= 2
        if self.iterations > MOST_ITERATIONS:
            raise _error(machine, lanes)


def _error(machine: Machine, lanes: Any) -> KernelError:
    return KernelError(
        f"a loop waits forever in {machine.whereabouts(machine.first_lane(lanes))}: no thread leaves it, and no "
        "memory changes that could end it. Threads run in lockstep, so a thread that holds a lock cannot go on while "
        "threads of its thread block wait for it: let one thread of a thread block take the lock, or release it "
        "inside of the loop"
    )
