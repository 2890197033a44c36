"""`PreemptingServer`: a server that fills its pool, and takes blocks back from the last request when none is free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...cache import PagedKVCache
from .model import ToyModel
from .requests import Request
from .server import Event, Running, Server


class PreemptingServer(Server):
    """A `Server` that admits a request as soon as its tokens fit, and preempts the last one when blocks run out.

    A preempted request gives up its blocks and waits as the first in line. When it is admitted again, the keys and
    values of its prompt and of the answer so far are computed anew.

    Parameters
    ----------
    cache : PagedKVCache
    model : ToyModel
    requests : list of Request
        In the order in which they are admitted.
    """

    def __init__(self, cache: PagedKVCache, model: ToyModel, requests: list[Request]) -> None:
        super().__init__(cache, model, requests)
        self._answers: dict[str, list[int]] = {}

    def step(self) -> Iterator[Event]:
        """Preempt until each running sequence has room for its next token, then go on as `Server.step` does."""
        while self._blocks_to_take() > self.cache.allocator.num_free_blocks:
            yield self._preempt(next(reversed(self.running)))
        yield from super().step()

    def _blocks_to_take(self) -> int:
        """Return how many blocks the next tokens need; a sequence that ends in this step writes none."""
        pool = self.cache.allocator
        return sum(
            pool.seq_len(name) % pool.block_size == 0
            and len(sequence.generated) + 1 < sequence.request.max_new_tokens
            for name, sequence in self.running.items()
        )

    def _preempt(self, name: str) -> Event:
        self.cache.preempt(name)
        sequence = self.running.pop(name)
        self.waiting.appendleft(sequence.request)
        self._answers[name] = sequence.generated
        return self._event("preempt", [name], waiting=[request.name for request in self.waiting])

    def _start(self, request: Request, tokens: Any, generated: list[int]) -> Running:
        answer = self._answers.pop(request.name, generated)
        return super()._start(request, self._tokens(request, answer), answer)

    def _tokens(self, request: Request, generated: list[int]) -> Any:
        """Return the tokens whose keys and values are computed when a request is admitted."""
        return np.concatenate([request.prompt, np.array(generated, np.uint8)])

    def _fits(self, request: Request) -> bool:
        return self.cache.allocator.can_allocate(
            len(request.prompt) + len(self._answers.get(request.name, ()))
        )
