"""Scheduler: which tokens a step computes, and which answers get, keep or give up their blocks.

An answer is in one of two queues, both in order of arrival: `running` answers have blocks in the pool, `waiting` ones
have none. Prompts and answers are not told apart: each answer has tokens that are not computed yet, and a step computes
some of them. If one token is left, that is a decode; if more are, a prefill, of which the budget may allow a chunk.

Sources: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022 (iteration-
level scheduling); Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI 2024
(chunked prefill beside decodes).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterable
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ..cache import PagedKVCache
from ..errors import OutOfBlocksError
from .answers import Answer

_ORDER = attrgetter("order")


class Chunk(NamedTuple):
    """Tokens of an answer to compute in a step: `num_tokens` from `start` on, and the slots for them."""

    answer: Answer
    start: int
    num_tokens: int
    slots: Any


class Scheduler:
    """Shares the token budget of each step and the blocks of the pool among answers, first come, first served.

    Parameters
    ----------
    cache : PagedKVCache
    token_budget : int
        Most tokens of a step.
    max_sequences : int
        Most answers that run at once. Not more than the budget: so a prompt gets a token even if all others decode.
    preemption : {"recompute", "swap"}

    Attributes
    ----------
    running, waiting : list of Answer
        In order of arrival.
    preempted, held_back : list of Answer
        Those preempted in the latest step, and those not admitted since they will share blocks that it computes.
    num_preemptions : int
    """

    def __init__(self, cache: PagedKVCache, token_budget: int, max_sequences: int, preemption: str) -> None:
        self.cache, self.pool = cache, cache.allocator
        self.token_budget, self.max_sequences, self.preemption = token_budget, max_sequences, preemption
        self.running: list[Answer] = []
        self.waiting: list[Answer] = []
        self.preempted: list[Answer] = []
        self.held_back: list[Answer] = []
        self.num_preemptions = 0

    def add(self, answer: Answer) -> None:
        """Let an answer wait for its turn."""
        insort(self.waiting, answer, key=_ORDER)

    def fork(self, parent: Answer, child: Answer) -> None:
        """Let an answer run that shares all tokens of another so far."""
        self.cache.fork(parent.id, child.id)
        child.num_computed = parent.num_computed
        insort(self.running, child, key=_ORDER)

    def schedule(self) -> list[Chunk]:
        """Choose the tokens of the next step, and reserve their slots."""
        self.preempted, self.held_back = [], []
        chunks = self._continue_running()
        # What was taken from the last to come must not go to those who came even later.
        if not self.preempted:
            chunks += self._admit_waiting(self.token_budget - sum(chunk.num_tokens for chunk in chunks))
        return chunks

    def _continue_running(self) -> list[Chunk]:
        """Reserve slots for the next tokens of running answers; preempt the last of them until the rest fits."""
        while self.running:
            shares = self._shares()
            tokens: dict[Hashable, list[int]] = {
                answer.id: answer.tokens[answer.num_computed :][:num_tokens] for answer, num_tokens in shares
            }
            try:
                batch = self.cache.reserve_batch(tokens)
            except OutOfBlocksError:
                self.preempt(self._victim())
                continue
            slots = np.split(batch.slots, batch.cu_seqlens_q[1:-1])
            return [
                Chunk(answer, answer.num_computed, num_tokens, its_slots)
                for (answer, num_tokens), its_slots in zip(shares, slots, strict=True)
            ]
        return []

    def _shares(self) -> list[tuple[Answer, int]]:
        """Divide the budget: a token for each answer that decodes, so that none stalls; the rest to prompts."""
        budget = self.token_budget - sum(answer.decodes for answer in self.running)
        shares = []
        for answer in self.running:
            num_tokens = 1 if answer.decodes else min(answer.num_left, budget)
            if not answer.decodes:
                budget -= num_tokens
            if num_tokens:
                shares.append((answer, num_tokens))
        return shares

    def _victim(self) -> Answer:
        """Return the answer to preempt: the last to come, so that the first is always served."""
        return self.running[-1]

    @property
    def misfit(self) -> Answer:
        """The answer that does not fit, if `schedule` chose no token although answers wait."""
        # One that had the pool for itself was preempted last.
        return self.preempted[-1] if self.preempted else self.waiting[0]

    def preempt(self, answer: Answer) -> None:
        """Take the blocks of a running answer, which then waits in its old place."""
        if self.preemption == "swap":
            self.cache.swap_out(answer.id)
        else:
            self.cache.preempt(answer.id)
            answer.num_computed = 0
        self.running.remove(answer)
        self.add(answer)
        answer.num_preemptions += 1
        self.num_preemptions += 1
        self.preempted.append(answer)

    def _admit_waiting(self, budget: int) -> list[Chunk]:
        """Admit waiting answers in order of arrival, until one does not fit or the budget is spent."""
        chunks = []
        for answer in [*self.waiting]:
            # A prompt that will be forked into n answers takes n places from the start.
            places = sum(other.num_places for other in self.running) + answer.num_places
            if not budget or places > self.max_sequences:
                break
            if self._should_hold_back(answer):
                self.held_back.append(answer)
                continue
            admit = self._swap_in if self.pool.is_swapped(answer.id) else self._start
            chunk = admit(answer, budget)
            if chunk is None:
                break
            self.waiting.remove(answer)
            insort(self.running, answer, key=_ORDER)
            chunks.append(chunk)
            budget -= chunk.num_tokens
        return chunks

    def _should_hold_back(self, answer: Answer) -> bool:
        """Tell whether a running prompt is about to compute blocks that this answer could share.

        Then the answer waits, a few steps at most, and finds them in the prefix cache. Those behind it may overtake it:
        they came later, so they are preempted first should the answer need their blocks.
        """
        if not self.pool.prefix_caching or self.pool.is_swapped(answer.id):
            return False
        return any(
            not other.decodes and self._num_shared(answer, other) > other.num_computed
            for other in self.running
        )

    def _num_shared(self, answer: Answer, other: Answer) -> int:
        """Return how many first tokens two answers have in common, in full blocks; one token is always computed."""
        size = self.pool.block_size
        most = min(len(answer.tokens) - 1, len(other.tokens)) // size * size
        for start in range(0, most, size):
            if answer.tokens[start : start + size] != other.tokens[start : start + size]:
                return start
        return most

    def _start(self, answer: Answer, budget: int) -> Chunk | None:
        """Give an answer its first blocks, if there is room for all its tokens; return None if there is not."""
        tokens = answer.tokens
        if not self.pool.can_allocate(tokens):
            if self.running:
                return None
            # It was preempted after it had grown into the watermark, which admission leaves free. Alone in the pool, it
            # starts with the tokens that fit below, and grows again.
            tokens = tokens[: self.num_admissible_tokens]
        try:
            allocation = self.cache.reserve(answer.id, tokens, limit=budget)
        except OutOfBlocksError:
            return None
        answer.num_computed = allocation.num_cached_tokens
        if not answer.num_preemptions:
            answer.num_cached_tokens = answer.num_computed
        return Chunk(answer, answer.num_computed, allocation.slots.size, allocation.slots)

    def _swap_in(self, answer: Answer, budget: int) -> Chunk | None:
        """Bring an answer back from host memory, if there is room for all its tokens."""
        # As in `_start`, the watermark counts only while others run.
        needed = -(-len(answer.tokens) // self.pool.block_size) + self.pool.num_watermark_blocks
        if self.running and needed > self.pool.num_free_blocks:
            return None
        if not self.cache.can_swap_in(answer.id):
            return None
        self.cache.swap_in(answer.id)
        tokens = answer.tokens[answer.num_computed :][:budget]
        if not self.cache.can_append(answer.id, tokens):
            self.cache.swap_out(answer.id)
            return None
        return Chunk(answer, answer.num_computed, len(tokens), self.cache.reserve(answer.id, tokens).slots)

    @property
    def num_admissible_tokens(self) -> int:
        """Most tokens that an answer can start with, in an empty pool."""
        return (self.pool.num_blocks - self.pool.num_watermark_blocks) * self.pool.block_size

    def remove(self, answer: Answer) -> None:
        """Free the blocks of an answer that has ended."""
        if answer.id in self.pool or self.pool.is_swapped(answer.id):
            self.cache.free(answer.id)
        for queue in (self.running, self.waiting):
            if answer in queue:
                queue.remove(answer)

    def recover(self, answers: Iterable[Answer]) -> None:
        """Make queues and cache agree again after a step was interrupted, wherever that was.

        An answer keeps the tokens that it had before the step. What was reserved for others goes back.
        """
        self.running, self.waiting = [], []
        for answer in answers:
            # The last token may be in the cache already, but its logits are lost: compute it again, to sample the next.
            answer.num_computed = min(answer.num_computed, len(answer.tokens) - 1)
            if answer.finish_reason:
                self.remove(answer)
            elif self.pool.is_swapped(answer.id):
                self.add(answer)
            elif answer.id in self.pool and answer.num_computed:
                if self.pool.seq_len(answer.id) > answer.num_computed:
                    self.cache.truncate(answer.id, answer.num_computed)
                insort(self.running, answer, key=_ORDER)
            else:
                self.remove(answer)
                answer.num_computed = 0
                self.add(answer)
