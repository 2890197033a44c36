"""Deliberately wrong engines: each is a class of `paged_numba.serving` with a mistake."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from ...serving.answers import Answer
from ...serving.engine import Engine
from ...serving.sampling import next_token
from ...serving.scheduler import Chunk, Scheduler
from ...serving.text import AnswerText


class PositionsBeginAnew(Engine):
    """Counts the positions of a preempted answer from the tokens that it computes again, not from its prompt on."""

    def _positions(self, chunk: Chunk) -> Any:
        return super()._positions(chunk) - (chunk.start if chunk.answer.num_preemptions else 0)


class RandomNumbersBeginAnew(Engine):
    """Draws the first random numbers again when an answer was preempted, as if its generator were made anew."""

    def _next_token(self, answer: Answer, logits: Any) -> int:
        place = answer.num_generated if not answer.num_preemptions else 0
        return next_token(logits, answer.params, answer.id.index, place)


class AnswersShareRandomNumbers(Engine):
    """Draws the same random numbers for all answers to a prompt."""

    def _next_token(self, answer: Answer, logits: Any) -> int:
        return next_token(logits, answer.params, 0, answer.num_generated)


class BatchSharesRandomNumbers(Engine):
    """Draws all random numbers from one generator, so that an answer depends on what else is in the batch."""

    def _next_token(self, answer: Answer, logits: Any) -> int:
        return next_token(logits, answer.params, 0, self.counters.num_generated_tokens)


class LogitsOfTheFirstToken(Engine):
    """Samples from the logits of the first token of each chunk."""

    def _forward(self, chunks: list[Chunk]) -> Any:
        forward = self.model.forward

        class First:
            config = self.model.config

            def forward(self, token_ids: Any, positions: Any, attend: Any, rows: Any) -> Any:
                return forward(token_ids, positions, attend, np.concatenate([[0], rows[:-1] + 1]))

        model, self.model = self.model, First()
        try:
            return super()._forward(chunks)
        finally:
            self.model = model


class CancelledAnswerKeepsItsBlocks(Engine):
    """Forgets to free the blocks of a cancelled request."""

    def cancel(self, request_id: Hashable) -> None:  # noqa: D102
        for answer in self._requests[request_id].answers:
            if answer.id in self.cache:
                self.cache.fork(answer.id, ("forgotten", request_id))
        super().cancel(request_id)


class FirstIsPreempted(Scheduler):
    """Preempts the answer that has run longest."""

    def _victim(self) -> Answer:
        return self.running[0]


class SwappedAnswerIsOneTokenBehind(Scheduler):
    """Counts the last computed token of an answer as not computed when it is swapped out."""

    def preempt(self, answer: Answer) -> None:  # noqa: D102
        super().preempt(answer)
        answer.num_computed = max(0, answer.num_computed - 1)


class ForkIsOneTokenBehind(Scheduler):
    """Counts the last token of the prompt as not computed when it forks."""

    def fork(self, parent: Answer, child: Answer) -> None:  # noqa: D102
        super().fork(parent, child)
        child.num_computed -= 1


class PrefixIsComputedByAll(Scheduler):
    """Admits answers that begin alike at once, so that each computes what they could share."""

    def _should_hold_back(self, answer: Answer) -> bool:
        return False


class SpendsTwoBudgets(Scheduler):
    """Gives the whole budget to prompts, whatever the other answers take."""

    def _admit_waiting(self, budget: int) -> list[Chunk]:
        return super()._admit_waiting(self.token_budget)


class FailedStepKeepsItsSlots(Scheduler):
    """Leaves what a failed step has reserved."""

    def recover(self, answers: Iterable[Answer]) -> None:  # noqa: D102
        pass


class CharacterIsSplit(AnswerText):
    """Decodes each token by itself."""

    def push(self, piece: bytes, stop: Sequence[str]) -> AnswerText:  # noqa: D102
        return super().push(piece.decode(errors="replace").encode(), stop)


class StopStringShowsItsBeginning(AnswerText):
    """Shows text at once, also what becomes a stop string."""

    def push(self, piece: bytes, stop: Sequence[str]) -> AnswerText:  # noqa: D102
        text = super().push(piece, stop)
        return type(self)(text.shown + text.held, "", text.split, text.is_cut)


ENGINE_MUTANTS: tuple[type[Engine | Scheduler | AnswerText], ...] = (
    PositionsBeginAnew,
    RandomNumbersBeginAnew,
    AnswersShareRandomNumbers,
    BatchSharesRandomNumbers,
    LogitsOfTheFirstToken,
    CancelledAnswerKeepsItsBlocks,
    FirstIsPreempted,
    SwappedAnswerIsOneTokenBehind,
    ForkIsOneTokenBehind,
    PrefixIsComputedByAll,
    SpendsTwoBudgets,
    FailedStepKeepsItsSlots,
    CharacterIsSplit,
    StopStringShowsItsBeginning,
)
