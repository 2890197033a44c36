"""Requests and their answers while they are served, and what the engine returns: `Output` and `Result`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .sampling import SamplingParams
from .text import AnswerText


class AnswerId(NamedTuple):
    """Id of an answer, and of its sequence in the cache; as text ``a`` for the first answer, ``a/1`` for the next."""

    request_id: Hashable
    index: int  # type: ignore[assignment]  # hides the method of a tuple
    engine: int = 0  # its number in this process: another may serve from the same cache

    def __str__(self) -> str:
        return f"{self.request_id}/{self.index}" if self.index else str(self.request_id)


class Shown(NamedTuple):
    """How much of an answer was returned in outputs."""

    num_tokens: int = 0
    num_characters: int = 0
    is_end: bool = False


NOTHING = Shown()


@dataclass(eq=False)
class Answer:
    """One answer to a request, with the tokens so far.

    Attributes
    ----------
    id : AnswerId
    order : tuple of int
        Arrival of its request, and its index: who comes first is served first.
    params : SamplingParams
    tokens : list of int
        The prompt, then the answer.
    prompt_len : int
    longest : int
        Most tokens of prompt and answer together.
    end_tokens : frozenset of int
        Tokens that end the answer.
    text : AnswerText or None
        None without a tokenizer.
    piece : callable or None
        The tokenizer's: returns the bytes of a token.
    num_computed : int
        First tokens whose keys and values the cache holds. The others are computed in steps to come; a new token is
        sampled when none is left.
    finish_reason : {None, "stop", "length", "cancelled", "error"}
    error : str or None
    num_preemptions, first_step, last_step : int
        Preemptions so far, and the steps in which the first and the last token were sampled; -1 if none was.
    num_cached_tokens : int
        Tokens that the prefix cache held when it was admitted first.
    shown : Shown
        What was returned in outputs.
    """

    id: AnswerId
    order: tuple[int, int]
    params: SamplingParams
    tokens: list[int]
    prompt_len: int
    longest: int
    end_tokens: frozenset[int]
    text: AnswerText | None
    piece: Any
    num_computed: int = 0
    finish_reason: str | None = None
    error: str | None = None
    num_preemptions: int = 0
    first_step: int = -1
    last_step: int = -1
    num_cached_tokens: int = 0
    shown: Shown = NOTHING

    @property
    def num_left(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return len(self.tokens) - self.num_computed

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_len

    @property
    def num_places(self) -> int:
        """How many running answers it counts as: all `n` until its prompt is computed and forked, then 1."""
        return self.params.n if self.id.index == 0 and not self.num_generated else 1

    @property
    def decodes(self) -> bool:
        """Whether only the newest token of the answer is left to compute."""
        return self.num_left == 1 and self.num_generated > 0

    def add(self, token: int, step: int) -> None:
        """Add a sampled token, and end the answer if it is the last, or if the tokenizer fails for it."""
        tokens, text, stop = [*self.tokens, token], self.text, self.params.stop
        ends = token in self.end_tokens
        if text is not None and not ends:
            try:
                piece = self.piece(token)
            except Exception as error:
                self.end("error", f"the tokenizer raised {type(error).__name__} for token {token}: {error}")
                return
            text = text.push(piece, stop)
            ends = text.is_cut
        reason = "stop" if ends else "length" if len(tokens) == self.longest else None
        if reason and text is not None:
            text = text.finish(stop)
        first = step if self.first_step < 0 else self.first_step
        # One line, so that Ctrl-C finds the answer with the token or without it.
        self.tokens, self.text, self.finish_reason, self.first_step, self.last_step = (
            tokens,
            text,
            reason,
            first,
            step,
        )

    def end(self, reason: str, error: str | None = None) -> None:
        """End the answer before its last token."""
        text = None if self.text is None else self.text.finish(self.params.stop)
        self.text, self.finish_reason, self.error = text, reason, error

    def output(self) -> Output:
        """Return what is new since `shown`."""
        return Output(
            self.id.request_id,
            self.id.index,
            self.tokens[self.prompt_len + self.shown.num_tokens :],
            "" if self.text is None else self.text.shown[self.shown.num_characters :],
            self.finish_reason,
            self.error,
            self.num_cached_tokens,
        )

    @property
    def progress(self) -> Shown:
        """What there is to show."""
        characters = 0 if self.text is None else len(self.text.shown)
        return Shown(self.num_generated, characters, self.finish_reason is not None)


@dataclass(eq=False)
class Request:
    """A prompt and its answers."""

    id: Hashable
    prompt_token_ids: list[int]
    answers: list[Answer]

    @property
    def is_finished(self) -> bool:
        """Whether all answers have ended."""
        return all(answer.finish_reason for answer in self.answers)

    def result(self) -> Result:
        """Return the answers as the user sees them."""
        return Result(
            self.id,
            tuple(self.prompt_token_ids),
            tuple(
                Completion(
                    index=answer.id.index,
                    token_ids=tuple(answer.tokens[answer.prompt_len :]),
                    text="" if answer.text is None else answer.text.shown,
                    finish_reason=answer.finish_reason,
                    error=answer.error,
                    num_preemptions=answer.num_preemptions,
                    first_step=answer.first_step,
                    last_step=answer.last_step,
                )
                for answer in self.answers
            ),
            self.answers[0].num_cached_tokens,
        )


@dataclass(frozen=True)
class Output:
    """What a step added to an answer.

    Attributes
    ----------
    request_id : hashable
    index : int
        Which answer to the request.
    token_ids : list of int
        New tokens.
    text : str
        New text: whole characters, without any part of a stop string. Empty without a tokenizer.
    finish_reason : {None, "stop", "length", "cancelled", "error"}
        None while the answer goes on.
    error : str or None
        What went wrong, if `finish_reason` is "error".
    num_cached_tokens : int
        Tokens of the prompt that the prefix cache held.
    """

    request_id: Hashable
    index: int
    token_ids: Sequence[int]
    text: str
    finish_reason: str | None = None
    error: str | None = None
    num_cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One finished answer.

    Attributes
    ----------
    index : int
    token_ids : tuple of int
    text : str
    finish_reason : {"stop", "length", "cancelled", "error"}
    error : str or None
    num_preemptions : int
        How often its blocks were taken away.
    first_step, last_step : int
        Steps of the engine in which its first and its last token were sampled; -1 if none was.
    """

    index: int
    token_ids: Sequence[int]
    text: str
    finish_reason: str | None
    error: str | None = None
    num_preemptions: int = 0
    first_step: int = -1
    last_step: int = -1


@dataclass(frozen=True)
class Result:
    """A finished request.

    Attributes
    ----------
    request_id : hashable
    prompt_token_ids : tuple of int
    answers : tuple of Completion
    num_cached_tokens : int
        Tokens of the prompt that the prefix cache held when the request was admitted.
    """

    request_id: Hashable
    prompt_token_ids: Sequence[int]
    answers: Sequence[Completion]
    num_cached_tokens: int = 0
