"""Recording of an engine: who waited, ran and was preempted in each step, and who had which block."""

from __future__ import annotations

from ..draw import PoolHistory, Schedule
from .answers import AnswerId
from .scheduler import Scheduler


class Recording:
    """Pictures of the steps of an engine that is made with a `recording`.

    It keeps all steps. For an engine that runs for long, record a part: ``engine.recording`` may be set to another
    recording, or to None.

    Attributes
    ----------
    schedule : draw.Schedule
        The answers over time: those that wait, whose prompts are computed, that decode, and that are preempted. The
        first answer to a request has the request's name; the second one is ``name/1``.
    pool : draw.PoolHistory
        The owner of each block over time.

    Examples
    --------
    >>> import paged_numba as pn
    >>> config = pn.models.LlamaConfig(num_layers=1, hidden_size=16, intermediate_size=16, vocab_size=9, num_q_heads=1,
    ...                                num_kv_heads=1, head_dim=8, max_positions=64)
    >>> cache = pn.PagedKVCache(5, 4, num_kv_heads=1, head_dim=8)
    >>> engine = pn.serving.Engine(pn.models.random_llama(config), cache, token_budget=4,
    ...                            recording=pn.serving.Recording())
    >>> for name in ("a", "b"):
    ...     _ = engine.add_request([1, 2, 3, 4, 5], pn.serving.SamplingParams(max_tokens=8), request_id=name)
    >>> _ = engine.run()
    >>> print(engine.recording.schedule)    # b is preempted, and its 8 tokens so far are computed again
    Requests over time
    step    0         10
    a       pp#######
    b       .pp###xxxpp####
    . waiting, p prefill, # running, x preempted
    used 5       #
    used 4    ####
    used 3   ########  ####
    used 2   ######## #####
    used 1  ###############
    """

    def __init__(self) -> None:
        self.schedule = Schedule()
        self.pool = PoolHistory()

    def record(self, scheduler: Scheduler) -> None:
        """Record a step whose tokens are computed, but not yet sampled; the engine calls this in each step.

        Parameters
        ----------
        scheduler : Scheduler
            Its queues and its pool are recorded.
        """
        running: list[AnswerId] = []
        prefill: list[AnswerId] = []
        for answer in scheduler.running:
            (running if answer.decodes else prefill).append(answer.id)
        self.schedule.record(scheduler.pool, running, [answer.id for answer in scheduler.waiting], prefill)
        self.pool.record(scheduler.pool)
