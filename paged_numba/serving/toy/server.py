"""`Server`: continuous batching on a paged cache, with each step checked against dense attention.

The server admits the first waiting request if the pool can hold it, and every running request, at their final
lengths (`Server.admit`), so no step runs out of blocks. A request takes blocks one by one as it grows, and frees
them when it ends. The next request gets whatever blocks are free, so block tables become scattered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import reference
from ...arrays import to_host
from ...cache import PagedKVCache
from ...tolerances import attention_tolerance
from .model import ToyModel
from .requests import Request


@dataclass
class Checks:
    """Comparisons with dense attention, and their results.

    Attributes
    ----------
    outputs : int
        Attention outputs that were compared, one for each sequence and step.
    gathered : int
        Sequences whose keys and values were gathered from the cache and compared bit for bit.
    max_error : float
        Largest absolute error of an output element.
    max_error_over_tolerance : float
        Largest error of an output or its LSE, divided by the error that rounding explains.
    failures : list of str
        Comparisons that failed; at most one entry for each sequence and step.
    """

    outputs: int = 0
    gathered: int = 0
    max_error: float = 0.0
    max_error_over_tolerance: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there were comparisons, and none failed."""
        return self.outputs > 0 and not self.failures


@dataclass
class Running:
    """A sequence in the batch, with a dense copy of its keys and values for the check."""

    request: Request
    query: Any
    key: Any
    value: Any
    generated: list[int]
    rank: int = 0


@dataclass(frozen=True)
class Event:
    """Something that happened in a step; `kind` is admit, fork, copy (on write), grow, decode, preempt or free."""

    step: int
    kind: str
    names: tuple[str, ...]
    detail: dict[str, Any]


class Server:
    """Serves requests with a model of one attention layer.

    Parameters
    ----------
    cache : PagedKVCache
    model : ToyModel
    requests : list of Request
        In the order in which they are admitted.

    Raises
    ------
    ValueError
        The pool is too small for one of the requests alone.
    """

    def __init__(self, cache: PagedKVCache, model: ToyModel, requests: list[Request]) -> None:
        self.cache, self.model = cache, model
        self.waiting = deque(requests)
        self.running: dict[str, Running] = {}
        self.checks = Checks()
        self.texts: dict[str, bytes] = {}
        self.step_number = 0
        pool = cache.allocator
        for request in requests:
            if self._blocks(request) > pool.num_blocks:
                raise ValueError(
                    f"num_blocks must be at least {self._blocks(request)} to hold request {request.name} "
                    f"({request.final_length} tokens), got num_blocks={pool.num_blocks}"
                )

    def admit(self, limit: int | None = None) -> Iterator[Event]:
        """Admit waiting requests, in order and at most `limit`, while the pool can hold them at their final lengths."""
        admitted: list[str] = []
        while self.waiting and len(admitted) != limit and self._fits(self.waiting[0]):
            request = self.waiting.popleft()
            self.running[request.name] = self._start(request, request.prompt, [])
            admitted.append(request.name)
        if admitted:
            yield self._event("admit", admitted, waiting=[request.name for request in self.waiting])

    def fork(self, parent: str, child: str) -> Iterator[Event]:
        """Fork a sequence, if the pool can hold both; the child starts with the second most likely token."""
        source = self.running[parent]
        if not self._fits(source.request):
            return
        self.cache.fork(parent, child)
        self.running[child] = Running(
            source.request, source.query, source.key, source.value, list(source.generated), rank=1
        )
        pool = self.cache.allocator
        table = pool.block_table(child).tolist()
        is_full = pool.seq_len(child) % pool.block_size == 0
        yield self._event("fork", [parent, child], shared_blocks=table, is_full=is_full)

    def step(self) -> Iterator[Event]:
        """Attend for all running sequences in one call, check the outputs, and write the next token of each."""
        names = list(self.running)
        query = np.stack([self.running[name].query for name in names])
        out, lse = self.cache.attend(names, query, return_lse=True)
        for row, name in enumerate(names):
            self._check(name, out[row], lse[row])
        self.step_number += 1
        yield self._event("decode", names)
        for row, name in enumerate(names):
            sequence = self.running[name]
            sequence.generated.append(int(self.model.ranked_tokens(out[row])[sequence.rank]))
            sequence.rank = 0
            if len(sequence.generated) == sequence.request.max_new_tokens:
                yield from self._finish(name)
            else:
                yield from self._append(name, sequence)

    def _start(self, request: Request, tokens: Any, generated: list[int]) -> Running:
        """Compute the keys and values of a sequence's tokens and write them; `generated` are the last of the tokens."""
        query, key, value = self.model.project(tokens, 0)
        self.cache.add(request.name, key, value)
        return Running(request, query[-1], key, value, generated)

    def _append(self, name: str, sequence: Running) -> Iterator[Event]:
        pool = self.cache.allocator
        before = pool.block_table(name)
        token = np.array(sequence.generated[-1:], np.uint8)
        query, key, value = self.model.project(token, pool.seq_len(name))
        self.cache.append(name, key, value)
        sequence.query = query[0]
        sequence.key = np.concatenate([sequence.key, key])
        sequence.value = np.concatenate([sequence.value, value])
        after = pool.block_table(name)[: before.size]
        for source, copy in zip(before[before != after], after[before != after], strict=True):
            yield self._event("copy", [name], source=int(source), copy=int(copy))
        for block in pool.block_table(name)[before.size :].tolist():
            yield self._event("grow", [name], block=block)

    def _finish(self, name: str) -> Iterator[Event]:
        """Compare all keys and values of a sequence bit for bit, and free its blocks."""
        sequence = self.running[name]
        key, value = (to_host(array) for array in self.cache.gather(name))
        self.checks.gathered += 1
        if not (np.array_equal(key, sequence.key) and np.array_equal(value, sequence.value)):
            self.checks.failures.append(f"{name}: the gathered keys or values differ from those written")
        blocks = self.cache.allocator.block_table(name)
        self.cache.free(name)
        self.cache.allocator.check()
        self.texts[name] = bytes(sequence.generated)
        del self.running[name]
        yield self._event("free", [name], blocks=blocks.tolist())

    def _check(self, name: str, out: Any, lse: Any) -> None:
        sequence = self.running[name]
        inputs = sequence.query[None], sequence.key, sequence.value
        expected, expected_lse = reference.attention(*inputs, return_lse=True)
        allowed = attention_tolerance(*inputs)
        error = float(np.abs(out - expected[0]).max())
        share = max(error / allowed.out, float(np.abs(lse - expected_lse[0]).max()) / allowed.lse)
        self.checks.outputs += 1
        # Not `share > 1`: NaN must fail, too.
        if not share <= 1:
            self.checks.failures.append(
                f"{name}, step {self.step_number}: largest error {error:.3g} is {share:.3g} times "
                "what rounding explains"
            )
        self.checks.max_error = _larger(self.checks.max_error, error)
        self.checks.max_error_over_tolerance = _larger(self.checks.max_error_over_tolerance, share)

    def _blocks(self, request: Request) -> int:
        return -(-request.final_length // self.cache.allocator.block_size)

    def _fits(self, request: Request) -> bool:
        """Tell whether the pool can hold a request and all running ones at their final lengths."""
        committed = sum(self._blocks(sequence.request) for sequence in self.running.values())
        return committed + self._blocks(request) <= self.cache.allocator.num_blocks

    def _event(self, kind: str, names: list[str], **detail: Any) -> Event:
        return Event(self.step_number, kind, tuple(names), detail)


def _larger(a: float, b: float) -> float:
    """Return the maximum, or NaN if either is NaN."""
    return float(np.maximum(a, b))
