"""`Patience`: detects a loop that waits forever for memory to change."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import KernelError
from ..machine import masks
from ..machine.machine import Machine
from ..machine.masks import Mask

FIRST_LOOK = 8, 1024
"""Iterations without a lane that leaves, after which memory is first compared; then after 4 times as many, and so on.

The first number is for loops that wait for other threads; other loops may change memory themselves, and run long.
"""

MOST_ITERATIONS = 1 << 18
"""Iterations without a lane that leaves, after which a loop that waits for other threads is given up."""


class Patience:
    """Watches one run of a loop whose end depends on memory alone.

    Parameters
    ----------
    for_others : bool
        Whether the loop may wait for threads that do not run it, such as the owner of a lock.
    """

    def __init__(self, for_others: bool) -> None:
        self.for_others = for_others
        self._begin(0)

    def _begin(self, lanes: int) -> None:
        self.lanes = lanes
        self.iterations = 0
        self.next_look = FIRST_LOOK[0 if self.for_others else 1]
        self.memory = b""

    def check(self, machine: Machine, lanes: Mask) -> None:
        """Note that an iteration begins, in `lanes`.

        Raises
        ------
        KernelError
            The last iteration changed no memory and no other warp can, or the loop has waited too long for others.
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
                machine.wait(self._error(machine, lanes, "memory does not change"))
            else:
                self.next_look *= 4
        if self.for_others and self.iterations > MOST_ITERATIONS:
            raise self._error(machine, lanes, f"none has in {MOST_ITERATIONS:,} iterations")

    def _error(self, machine: Machine, lanes: Any, why: str) -> KernelError:
        remedy = (
            "Threads run in lockstep, so a thread that holds a lock cannot go on while threads of its warp wait for "
            "it: let one thread of a warp take the lock, or release it inside the loop"
            if self.for_others
            else "Does the loop change what its condition tests?"
        )
        where = machine.whereabouts(machine.first_lane(lanes))
        return KernelError(f"a loop waits forever in {where}: no thread leaves it, since {why}. {remedy}")
