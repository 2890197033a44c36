"""Recording of an engine: who waited, ran and was preempted in each step, and who had which block."""

from __future__ import annotations

from collections.abc import Iterable

from ..draw import PoolHistory, Schedule
from .answers import Answer
from .scheduler import Scheduler


class Recording:
    """Pictures of the steps of an engine; a new one in its place starts the recording anew.

    Attributes
    ----------
    schedule : draw.Schedule
        The requests over time.
    pool : draw.PoolHistory
        The owner of each block over time.
    """

    def __init__(self) -> None:
        self.schedule = Schedule()
        self.pool = PoolHistory()

    def record(self, scheduler: Scheduler) -> None:
        """Record the state after a step."""
        pool = scheduler.pool
        self.schedule.record(pool, _ids(scheduler.running), _ids(scheduler.waiting))
        self.pool.record(pool)


def _ids(answers: Iterable[Answer]) -> list[str]:
    return [str(answer.id) for answer in answers]
