"""`Engine`: serves requests with a model whose keys and values lie in a paged cache.

A step of the engine takes a few tokens of many answers through the model at once: whole prompts, chunks of prompts, and
the newest token of each answer that is being written. Which ones is up to the `Scheduler`. To read the code, begin with
`Engine._step`: schedule, forward, sample.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np

from ..arguments import hashable, integer, listed, one_of, positive, shown
from ..arrays import to_host
from ..cache import PagedKVCache
from ..draw.text import plural
from ..ops import adopt, quantize_fp8
from .answers import Answer, AnswerId, Output, Request, Result
from .recording import Recording
from .sampling import SamplingParams, next_token, what_is_wrong
from .scheduler import Chunk, Scheduler
from .text import AnswerText

MOST_SEQUENCES = 64
"""Most answers that run at once, unless the caller says otherwise."""

_engine_numbers = count()


@dataclass
class Counters:
    """What an engine has done so far.

    Attributes
    ----------
    num_steps, num_computed_tokens, num_generated_tokens, num_preemptions : int
        Computed tokens are those that went through the model; a token that is computed again counts again.
    model_seconds, attention_seconds, write_seconds, host_seconds : float
        Time in the model outside of attention (matrix products for the most part), in attention, in writes of keys and
        values, and in the engine itself: scheduling, the plan of a step, sampling, text.
    """

    num_steps: int = 0
    num_computed_tokens: int = 0
    num_generated_tokens: int = 0
    num_preemptions: int = 0
    model_seconds: float = 0.0
    attention_seconds: float = 0.0
    write_seconds: float = 0.0
    host_seconds: float = 0.0

    @property
    def _forward_seconds(self) -> float:
        """Time in the forward pass of the model."""
        return self.model_seconds + self.attention_seconds + self.write_seconds


class Engine:
    """Serves requests: continuous batching, chunked prefill, prefix sharing, preemption.

    Parameters
    ----------
    model : Llama
        Or any object with its `config` and `forward`.
    cache : PagedKVCache
        With as many layers, KV heads and numbers a head as the model.
    tokenizer : Tokenizer, optional
        Needed for prompts of text, for text in the outputs, and for stop strings.
    token_budget : int
        Most tokens that a step computes.
    max_sequences : int, optional
        Most answers that run at once; the budget, but at most 64, if None.
    preemption : {"recompute", "swap"}
        What happens to the tokens of an answer whose blocks are taken: they are computed again, or copied to host
        memory.
    algorithm : str
        Algorithm of attention; see `paged_numba.paged_attention`.
    recording : Recording, optional
        Records each step. It grows with every step, by a number for each block of the pool.

    Attributes
    ----------
    counters : Counters
        What it has done so far.
    recording : Recording or None
        The argument; it may be replaced between two steps.

    Raises
    ------
    TypeError, ValueError
        The cache does not fit the model, or another argument is invalid.

    See Also
    --------
    paged_numba.PagedKVCache : Holds the keys and values.

    Examples
    --------
    >>> import paged_numba as pn
    >>> config = pn.models.LlamaConfig(num_layers=2, hidden_size=32, intermediate_size=64, vocab_size=50, num_q_heads=4,
    ...                                num_kv_heads=2, head_dim=8, max_positions=64)
    >>> model = pn.models.random_llama(config)
    >>> cache = pn.PagedKVCache(16, 4, num_kv_heads=2, head_dim=8, num_layers=2, prefix_caching=True)
    >>> engine = pn.serving.Engine(model, cache, token_budget=8)
    >>> params = pn.serving.SamplingParams(max_tokens=4)
    >>> for prompt in ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [3, 1, 4, 1, 5, 8]):
    ...     _ = engine.add_request(prompt, params)
    >>> results = engine.run()
    >>> [len(results[name].answers[0].token_ids) for name in results]
    [4, 4]
    >>> [results[name].num_cached_tokens for name in results]    # the second found a block of the first
    [0, 4]
    """

    def __init__(
        self,
        model: Any,
        cache: PagedKVCache,
        *,
        tokenizer: Any = None,
        token_budget: int = 256,
        max_sequences: int | None = None,
        preemption: str = "recompute",
        algorithm: str = "auto",
        recording: Recording | None = None,
    ) -> None:
        token_budget = positive("token_budget", token_budget)
        if max_sequences is None:
            max_sequences = min(token_budget, MOST_SEQUENCES)
        max_sequences = positive("max_sequences", max_sequences)
        if max_sequences > token_budget:
            raise ValueError(
                f"max_sequences must be at most token_budget={token_budget}, so that a step has a token for each, "
                f"got max_sequences={max_sequences}"
            )
        one_of("preemption", preemption, ("recompute", "swap"))
        if not isinstance(recording, Recording | None):
            raise TypeError(f"recording must be a Recording or None, got recording={shown(recording)}")
        self._dtype = _stored_dtype(model, cache)
        self.model, self.cache, self.tokenizer, self.algorithm = model, cache, tokenizer, algorithm
        self.scheduler = Scheduler(cache, token_budget, max_sequences, preemption)
        self.counters, self.recording = Counters(), recording
        # Sequences of other engines may lie in the same cache under the same names.
        self._number = next(_engine_numbers)
        self._requests: dict[Hashable, Request] = {}
        # Those with something new for the caller.
        self._changed: dict[Hashable, Request] = {}
        self._num_requests = 0
        self._outputs: list[Output] = []
        # Of the requests that `run` serves; kept if an exception interrupts it.
        self._results: dict[Hashable, Result | None] = {}

    @property
    def has_unfinished(self) -> bool:
        """Whether a request waits or runs, or has an output that no step has returned yet."""
        return bool(self._requests or self._outputs)

    def add_request(
        self, prompt: str | Sequence[int], params: SamplingParams, *, request_id: Hashable = None
    ) -> Hashable:
        """Let a request wait for its turn.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, or token ids.
        params : SamplingParams
            How its answers are sampled, and when they end.
        request_id : hashable, optional
            Its id in outputs and results; "0", "1", ... if None. An id may be used again once its request has ended.

        Returns
        -------
        hashable
            The id of the request.

        Raises
        ------
        TypeError, ValueError
            The prompt is empty, too long for the model's context or the pool, or has ids that the model does not have;
            the id is taken; or the prompt or ``params.stop`` is text, but the engine has no tokenizer.

        Notes
        -----
        An answer ends with the reason "length" when it has ``params.max_tokens`` tokens, and earlier if the model's
        context or the whole pool is full.
        """
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params must be SamplingParams, got params={shown(params)}")
        tokens = self._checked_prompt(prompt)
        request_id = self._checked_id(request_id)
        self._check_params(params)
        # The last token of an answer is never written to the pool.
        longest = min(
            self.model.config.max_positions,
            self.cache.allocator.num_blocks * self.cache.allocator.block_size + 1,
            len(tokens) + params.max_tokens,
        )
        ends = frozenset(params.stop_token_ids)
        if self.tokenizer is not None and not params.ignore_eos:
            ends |= self.tokenizer.end_tokens
        answers = [
            Answer(
                AnswerId(request_id, index, self._number),
                (self._num_requests, index),
                params,
                tokens.copy(),
                len(tokens),
                longest,
                ends,
                None if self.tokenizer is None else AnswerText(),
                getattr(self.tokenizer, "piece", None),
            )
            for index in range(params.n)
        ]
        self._num_requests += 1
        self._requests[request_id] = Request(request_id, tokens, answers)
        self.scheduler.add(answers[0])
        return request_id

    def step(self) -> list[Output]:
        """Take some tokens of each running answer through the model, and return what is new.

        Returns
        -------
        list of Output
            One for each answer that got a token or ended. The list is empty while prompts are computed.

        Notes
        -----
        If the model or the cache raises an exception, or Ctrl-C does, the exception goes on to the caller, and requests
        and blocks are as before the step: the next call tries again. To go on without a request, `cancel` it.
        """
        self._step()
        # One line, so that Ctrl-C loses no output.
        outputs, self._outputs = self._outputs, []; return outputs  # noqa: E702  # fmt: skip

    def stream(self) -> Iterator[Output]:
        """Iterate over the outputs of all steps until every request has ended; more may be added meanwhile.

        An iteration that is left loses no output: the next one begins there.

        Yields
        ------
        Output
            What a step added to an answer.
        """
        while self.has_unfinished:
            if not self._outputs:
                self._step()
            while self._outputs:
                output, *self._outputs = self._outputs
                yield output

    def run(self) -> dict[Hashable, Result]:
        """Serve until every request has ended.

        Returns
        -------
        dict of hashable to Result
            By id, in the order in which the requests were added.
        """
        for request_id in self._requests:
            self._results.setdefault(request_id)
        while self.has_unfinished:
            self.step()
        results, self._results = self._results, {}
        return {request_id: result for request_id, result in results.items() if result is not None}

    def cancel(self, request_id: Hashable) -> None:
        """End a request, wherever it is; its last output has the finish reason "cancelled".

        Parameters
        ----------
        request_id : hashable
            That of `add_request`.

        Raises
        ------
        TypeError, ValueError
            No request with this id waits or runs.
        """
        if hashable("request_id", request_id) not in self._requests:
            raise ValueError(
                f"request_id must be that of a request that waits or runs, got {shown(request_id)}"
            )
        for answer in self._requests[request_id].answers:
            if answer.finish_reason is None:
                self._end(answer, "cancelled")

    # Steps.

    def _step(self) -> None:
        """Make a step, and add what is new to the outputs."""
        begin, in_forward = perf_counter(), self.counters._forward_seconds
        try:
            chunks = self.scheduler.schedule()
            if chunks:
                logits = self._forward(chunks)
                if self.recording is not None:
                    self.recording.record(self.scheduler)
                self._advance(chunks, logits)
            elif self.scheduler.waiting:  # nothing runs that could free blocks for it
                self._refuse(self.scheduler.misfit)
            else:  # Ctrl-C may have come between the two halves of `add_request`
                self.scheduler.recover(self._started_answers())
        except BaseException:
            self.scheduler.recover(self._started_answers())
            raise
        self.counters.num_steps += bool(chunks)
        self.counters.num_preemptions = self.scheduler.num_preemptions
        self._collect_outputs()
        in_forward = self.counters._forward_seconds - in_forward
        self.counters.host_seconds += perf_counter() - begin - in_forward

    def _forward(self, chunks: list[Chunk]) -> Any:
        """Take the chunks through the model; return the logits of the last token of each, float32[num_chunks, v]."""
        lengths = [chunk.num_tokens for chunk in chunks]
        cu_seqlens_q = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        token_ids = np.concatenate(
            [chunk.answer.tokens[chunk.start :][: chunk.num_tokens] for chunk in chunks]
        )
        positions = np.concatenate([self._positions(chunk) for chunk in chunks])
        # What all layers share is checked and prepared once.
        plan = self.cache.plan(
            [chunk.answer.id for chunk in chunks],
            self.model.config.num_q_heads,
            slots=np.concatenate([chunk.slots for chunk in chunks]),
            cu_seqlens_q=cu_seqlens_q,
            algorithm=self.algorithm,
        )
        counters = self.counters

        def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
            begin = perf_counter()
            plan.write(layer, self._stored(key, "k_scale"), self._stored(value, "v_scale"))
            written = perf_counter()
            out = to_host(plan.attend(layer, query))
            counters.write_seconds += written - begin
            counters.attention_seconds += perf_counter() - written
            return out

        begin, in_attend = perf_counter(), counters.write_seconds + counters.attention_seconds
        logits = self.model.forward(token_ids, positions, attend, rows=cu_seqlens_q[1:] - 1)
        in_attend = counters.write_seconds + counters.attention_seconds - in_attend
        counters.model_seconds += perf_counter() - begin - in_attend
        counters.num_computed_tokens += len(token_ids)
        return logits

    def _positions(self, chunk: Chunk) -> Any:
        return np.arange(chunk.start, chunk.start + chunk.num_tokens)

    def _stored(self, array: Any, scale: str) -> Any:
        """Return keys or values in the dtype of the cache, divided by its scale."""
        factor = self.cache._scales[scale]
        if self._dtype.name == "float8_e4m3fn":
            return quantize_fp8(array, factor)
        if factor is not None:
            array = array / factor[:, None]  # a factor for each KV head
        return array.astype(self._dtype, copy=False)

    def _advance(self, chunks: list[Chunk], logits: Any) -> None:
        """Count the tokens of the chunks as computed; sample one for each answer that has none left to compute."""
        for chunk, row in zip(chunks, logits, strict=True):
            answer = chunk.answer
            self.cache.commit(answer.id)
            answer.num_computed = chunk.start + chunk.num_tokens
            if not answer.num_left:
                self._sample(answer, row)

    def _sample(self, answer: Answer, logits: Any) -> None:
        """Add a token to an answer; if its prompt is now computed, fork it into all answers to the request."""
        answers = self._with_siblings(answer)
        self._note_change(answer)
        wrong = what_is_wrong(logits)
        for member in answers:
            if member is not answer:
                self.scheduler.fork(answer, member)
            if wrong:
                member.end("error", f"the model returned {wrong} for the logits of the next token")
                continue
            member.add(self._next_token(member, logits), self.counters.num_steps)
            self.counters.num_generated_tokens += 1
        for member in answers:
            if member.finish_reason:
                self.scheduler.remove(member)

    def _next_token(self, answer: Answer, logits: Any) -> int:
        return next_token(logits, answer.params, answer.id.index, answer.num_generated)

    def _with_siblings(self, answer: Answer) -> list[Answer]:
        """Return an answer, and while its prompt is computed, all answers that will be forked from it."""
        is_prompt = answer.id.index == 0 and not answer.num_generated
        return self._requests[answer.id.request_id].answers if is_prompt else [answer]

    def _note_change(self, answer: Answer) -> None:
        """Note that an answer is about to get a token or to end."""
        request_id = answer.id.request_id
        self._changed[request_id] = self._requests[request_id]

    def _end(self, answer: Answer, reason: str, error: str | None = None) -> None:
        self._note_change(answer)
        answer.end(reason, error)
        self.scheduler.remove(answer)

    def _refuse(self, answer: Answer) -> None:
        """End an answer that does not fit, although no other answer of this engine has a block."""
        pool = self.cache.allocator
        error = (
            f"the pool has no room for {plural(len(answer.tokens), 'token')}: sequences that are not of this engine "
            f"leave {pool.num_free_blocks} of its {plural(pool.num_blocks, 'block')} free"
        )
        for member in self._with_siblings(answer):
            self._end(member, "error", error)

    def _started_answers(self) -> Iterator[Answer]:
        """Iterate over the answers that have a place in a queue: the first to each prompt, all once it is computed."""
        for request in self._requests.values():
            yield request.answers[0]
            if request.answers[0].num_generated or request.answers[0].finish_reason:
                yield from request.answers[1:]

    def _collect_outputs(self) -> None:
        """Collect what is new, and forget the requests that have ended."""
        for request in [*self._changed.values()]:
            for answer in request.answers:
                new, progress = answer.output(), answer.progress
                if progress.num_tokens > answer.shown.num_tokens or progress.is_end > answer.shown.is_end:
                    self._outputs, answer.shown = [*self._outputs, new], progress
                if answer.finish_reason:  # again, should Ctrl-C have come between its end and this
                    self.scheduler.remove(answer)
            if request.is_finished:
                if request.id in self._results:
                    self._results[request.id] = request.result()
                if self._requests.get(request.id) is request:
                    del self._requests[request.id]
            del self._changed[request.id]

    # Checks.

    def _checked_prompt(self, prompt: Any) -> list[int]:
        """Return the token ids of a prompt that the model and the pool can hold."""
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise TypeError(
                    f"prompt must be token ids: the engine has no tokenizer, got prompt={shown(prompt)}"
                )
            tokens = self.tokenizer.encode(prompt)
        else:
            tokens = [integer("prompt", token_id) for token_id in listed("prompt", prompt, "token ids")]
        if not tokens:
            raise ValueError(f"prompt must hold at least one token, got prompt={shown(prompt)}")
        config, count = self.model.config, len(tokens)
        wrong = next((token for token in tokens if not 0 <= token < config.vocab_size), None)
        if wrong is not None:
            raise ValueError(
                f"prompt must hold token ids in 0 .. {config.vocab_size - 1}, got {shown(wrong)}"
            )
        if count >= config.max_positions:
            raise ValueError(
                f"prompt must be shorter than the model's context of {config.max_positions} tokens, got {count} tokens"
            )
        pool, most = self.cache.allocator, self.scheduler.num_admissible_tokens
        if count > most:
            above = f" above a watermark of {pool.num_watermark_blocks}" if pool.num_watermark_blocks else ""
            raise ValueError(
                f"prompt must fit into the pool: {most} tokens in {plural(pool.num_blocks, 'block')}{above}, "
                f"got {count} tokens"
            )
        return tokens

    def _checked_id(self, request_id: Hashable) -> Hashable:
        """Return the id of a new request; the first free number, as text, for None."""
        if request_id is None:
            number = self._num_requests
            while str(number) in self._requests:
                number += 1
            return str(number)
        if hashable("request_id", request_id) in self._requests:
            raise ValueError(f"request_id must be new, but a request waits or runs under {shown(request_id)}")
        return request_id

    def _check_params(self, params: Any) -> None:
        if params.n > self.scheduler.max_sequences:
            raise ValueError(
                f"params.n must be at most max_sequences={self.scheduler.max_sequences}, got n={params.n}"
            )
        if params.stop and self.tokenizer is None:
            raise ValueError(f"params.stop needs an engine with a tokenizer, got stop={shown(params.stop)}")


def _stored_dtype(model: Any, cache: Any) -> Any:
    """Return the dtype of a cache's keys and values; raise an error unless the cache has the sizes of the model."""
    if not isinstance(cache, PagedKVCache):
        raise TypeError(f"cache must be a PagedKVCache, got cache={shown(cache)}")
    if not (hasattr(model, "config") and callable(getattr(model, "forward", None))):
        raise TypeError(
            f"model must have a config and a method forward, such as Llama, got model={shown(model)}"
        )
    stored = adopt.caches(cache.key_cache, cache.value_cache, cache.layout)
    num_kv_heads, head_dim = stored.key.shape[2:]
    sizes = [
        ("num_layers", cache.num_layers),
        ("num_kv_heads", num_kv_heads),
        ("head_dim", head_dim),
        ("head_dim", stored.value.shape[3]),
    ]
    for name, size in sizes:
        needed = getattr(model.config, name)
        if size != needed:
            raise ValueError(f"cache must have the model's {name}={needed}, got {name}={size}")
    return np.dtype(stored.key.dtype)
