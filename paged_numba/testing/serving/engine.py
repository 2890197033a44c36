"""Properties of the engine: its answers are those of a model that keeps no cache, and no block is lost.

The oracle runs the model over the whole sequence of an answer, with attention in float64. The logits of the engine must
agree within `LOGITS_TOLERANCE`, and each token must be the one to sample from the logits of the engine. So two tokens
may be as near to one another as they like: where rounding decides between them, either is right.
"""

from __future__ import annotations

import codecs
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ... import reference
from ...cache import PagedKVCache
from ...models import LlamaConfig, random_llama
from ...serving import SamplingParams
from ...serving import engine as engines
from ...serving import text as answer_text

CONFIG = LlamaConfig(
    num_layers=2,
    hidden_size=16,
    intermediate_size=24,
    vocab_size=24,
    num_q_heads=2,
    num_kv_heads=1,
    head_dim=8,
    max_positions=40,
)
MODEL = random_llama(CONFIG)
LOGITS_TOLERANCE = 2e-4
"""Largest difference of two logits; the standard deviation of a logit is 4, and rounding explains about 2e-5."""

PIECES = (
    b"",
    b"\xc3",
    b"\xa9",
    b"\xe2\x82",
    b"\xac",
    b"ab",
    *(bytes([byte]) for byte in b"abcdefghijklmnopqr"),
)
"""What tokens stand for: no text, parts of characters, letters."""


class Pieces:
    """A tokenizer of the model's 24 tokens; token 0 ends a text."""

    end_tokens = frozenset({0})

    def encode(self, text: str) -> list[int]:
        """Return the token of each letter."""
        return [PIECES.index(bytes([byte])) for byte in text.encode()]

    def piece(self, token_id: int) -> bytes:
        """Return the bytes of a token."""
        return PIECES[token_id]


class Job(NamedTuple):
    """A request: its prompt and parameters, and the steps before which it comes and is cancelled."""

    prompt: list[int]
    params: SamplingParams
    arrival: int = 0
    cancelled: int | None = None


class Workload(NamedTuple):
    """Requests, and an engine to serve them; the pool has `spare_blocks` more than the longest prompt needs."""

    jobs: list[Job]
    block_size: int = 4
    spare_blocks: int = 0
    token_budget: int = 8
    prefix_caching: bool = False
    preemption: str = "recompute"
    watermark: float = 0.0

    @property
    def num_blocks(self) -> int:
        """Blocks of the pool."""
        needed = max(-(-len(job.prompt) // self.block_size) for job in self.jobs)
        return needed + self.spare_blocks + int(self.watermark * (needed + self.spare_blocks) * 2)


def params(max_answers: int = 3) -> st.SearchStrategy[SamplingParams]:
    """Return parameters of short answers, which shrink to one greedy answer of one token."""
    return st.builds(
        SamplingParams,
        max_tokens=st.integers(1, 8),
        temperature=st.sampled_from((0.0, 0.7, 2.0)),
        top_k=st.none() | st.integers(1, 5),
        top_p=st.none() | st.floats(0.1, 1),
        seed=st.integers(0, 3),
        n=st.integers(1, max_answers),
        stop=st.lists(st.text("abcdé€", min_size=1, max_size=3), max_size=2),
        stop_token_ids=st.lists(st.integers(0, CONFIG.vocab_size - 1), max_size=1),
        ignore_eos=st.booleans(),
    )


_COMMON = [5, 9, 3, 17, 8, 8, 21, 2, 13, 11, 6, 19]


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Draw a workload; prompts begin alike, and the pool is so small that many answers are preempted."""
    token_budget = draw(st.integers(1, 12))
    own = st.lists(st.integers(0, CONFIG.vocab_size - 1), min_size=1, max_size=5)
    prompts = st.builds(lambda count, rest: _COMMON[:count] + rest, st.integers(0, len(_COMMON)), own)
    jobs = st.builds(
        Job,
        prompts,
        params(min(3, token_budget)),
        st.integers(0, 4),
        st.none() | st.integers(0, 12),
    )
    return Workload(
        draw(st.lists(jobs, min_size=1, max_size=4)),
        block_size=draw(st.sampled_from((1, 2, 3, 4, 8))),
        spare_blocks=draw(st.integers(0, 6)),
        token_budget=token_budget,
        prefix_caching=draw(st.booleans()),
        preemption=draw(st.sampled_from(("recompute", "swap"))),
        watermark=draw(st.sampled_from((0.0, 0.0, 0.2))),
    )


class Served(NamedTuple):
    """A workload that was served: the engine, and by answer what it streamed and the logits it sampled from."""

    engine: Any
    token_ids: dict[Any, list[int]]
    texts: dict[Any, str]
    finish_reasons: dict[Any, str]
    logits: dict[Any, dict[int, Any]]
    num_preemptions: int


def serve(workload: Workload, interrupt: Callable[[Any], Any] | None = None) -> Served:
    """Serve a workload to its end, and check in each step what must hold in each.

    Parameters
    ----------
    workload : Workload
    interrupt : callable, optional
        Called with the engine in place of each step; returns the step's outputs.
    """
    logits: dict[Any, dict[int, Any]] = {}

    class Watched(engines.Engine):
        def _forward(self, chunks: Any) -> Any:
            _check_chunks(self, chunks)
            return super()._forward(chunks)

        def _sample(self, answer: Any, row: Any) -> None:
            answers = [answer]
            if answer.id.index == 0 and not answer.num_generated:
                answers = self._requests[answer.id.request_id].answers
            for member in answers:
                logits.setdefault(member.id[:2], {})[member.num_generated] = row
            super()._sample(answer, row)

    cache = PagedKVCache(
        workload.num_blocks,
        workload.block_size,
        CONFIG.num_kv_heads,
        CONFIG.head_dim,
        num_layers=CONFIG.num_layers,
        prefix_caching=workload.prefix_caching,
        watermark=workload.watermark,
        target="lockstep",
    )
    engine = Watched(
        MODEL, cache, tokenizer=Pieces(), token_budget=workload.token_budget, preemption=workload.preemption
    )
    served = Served(engine, {}, {}, {}, logits, 0)
    step = 0
    while step <= 4 or engine.has_unfinished:
        assert step < 500, "the engine does not come to an end"
        for number, job in enumerate(workload.jobs):
            if job.arrival == step:
                engine.add_request(job.prompt, job.params, request_id=number)
            elif job.cancelled == step and number in engine._requests:
                engine.cancel(number)
        for output in engine.step() if interrupt is None else interrupt(engine):
            answer = output.request_id, output.index
            assert answer not in served.finish_reasons, f"{answer} has an output after its end"
            served.token_ids.setdefault(answer, []).extend(output.token_ids)
            served.texts[answer] = served.texts.get(answer, "") + output.text
            if output.finish_reason:
                served.finish_reasons[answer] = output.finish_reason
        step += 1
    cache.allocator.check()
    stats = cache.allocator.stats()
    assert stats.num_used_blocks == 0, f"{stats.num_used_blocks} blocks are lost"
    assert stats.num_swapped_sequences == 0, "an answer is still swapped out"
    return served._replace(num_preemptions=stats.num_preemptions)


def _check_chunks(engine: Any, chunks: Any) -> None:
    """Check a step: it keeps to the budget, serves the first to come, and preempts the last."""
    scheduler = engine.scheduler
    assert 0 < sum(chunk.num_tokens for chunk in chunks) <= scheduler.token_budget
    assert len(scheduler.running) <= scheduler.max_sequences
    assert scheduler.running[0] in [chunk.answer for chunk in chunks], "the first to come gets no token"
    for answer in scheduler.preempted:
        assert all(other.order < answer.order for other in scheduler.running), "a later one is not preempted"


def answers_are_those_without_a_cache(workload: Workload) -> None:
    """Tokens, logits, texts and ends of all answers are those of dense forwards, whatever the memory and the order."""
    _check_answers(workload, serve(workload))


def _check_answers(workload: Workload, served: Served, texts: bool = True) -> None:
    capacity = workload.num_blocks * workload.block_size
    for number, job in enumerate(workload.jobs):
        for index in range(job.params.n):
            answer = number, index
            tokens, reason = served.token_ids.get(answer, []), served.finish_reasons[answer]
            longest = min(
                job.params.max_tokens,
                CONFIG.max_positions - len(job.prompt),
                capacity + 1 - len(job.prompt),
            )
            expected = _expected_logits((*job.prompt, *tokens))[len(job.prompt) - 1 :]
            for place, token in enumerate(tokens):
                error = np.abs(served.logits[answer][place] - expected[place]).max()
                assert error <= LOGITS_TOLERANCE, (
                    f"answer {answer}, token {place}: the logits are off by {error:.2g}"
                )
                right = _sampled(served.logits[answer][place], job.params, index, place)
                assert token == right, f"answer {answer}, token {place}: {token} is sampled, not {right}"
            text, end = _expected_end(tokens, job.params, longest)
            assert reason == end or (reason == "cancelled" and job.cancelled is not None), (reason, end)
            if texts and reason != "cancelled":
                assert served.texts[answer] == text, (served.texts[answer], text)


@lru_cache(maxsize=256)
def _expected_logits(tokens: tuple[int, ...]) -> Any:
    """Return the logits of all tokens of a sequence, float32[num_tokens, vocab_size], computed without a cache."""

    def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
        return reference.attention(query, key, value).astype(np.float32)

    return MODEL.forward(np.array(tokens), np.arange(len(tokens)), attend)


def _sampled(logits: Any, params: SamplingParams, index: int, place: int) -> int:
    """Return the token to sample, from the definition of the parameters."""
    if params.temperature == 0:
        return int(np.argmax(logits))
    highest = max(logits.tolist())
    weights = {
        token: math.exp((logit - highest) / params.temperature) for token, logit in enumerate(logits.tolist())
    }
    ranked = sorted(weights, key=lambda token: -weights[token])[: params.top_k]
    if params.top_p is not None:
        total, count, likely = sum(weights[token] for token in ranked), 0, 0.0
        while count < len(ranked) and likely < params.top_p * total:
            likely += weights[ranked[count]]
            count += 1
        ranked = ranked[:count]
    drawn = np.random.default_rng([params.seed, index, place]).random() * sum(
        weights[token] for token in ranked
    )
    for token in sorted(ranked):
        drawn -= weights[token]
        if drawn < 0:
            break
    return token


def _expected_end(tokens: list[int], params: SamplingParams, longest: int) -> tuple[str, str | None]:
    """Return the text of an answer, and why it ends; None if it should go on."""
    ends = set(params.stop_token_ids) | (set() if params.ignore_eos else set(Pieces.end_tokens))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = ""
    for place, token in enumerate(tokens):
        if token in ends:
            assert place == len(tokens) - 1, "the answer goes on after a token that ends it"
            return text + decoder.decode(b"", final=True), "stop"
        text += decoder.decode(PIECES[token])
        starts = [text.find(stop) for stop in params.stop if stop in text]
        if starts:
            assert place == len(tokens) - 1, "the answer goes on after a stop string"
            return text[: min(starts)], "stop"
    return text + decoder.decode(b"", final=True), "length" if len(tokens) == longest else None


_LETTERS = st.sampled_from(range(1, 11))

texts_and_stops = st.tuples(
    st.lists(_LETTERS, max_size=8), st.lists(st.text("abcdé€", min_size=1, max_size=3), max_size=2)
)
"""Tokens, some of which make characters of several bytes together, and stop strings; shrink to few and short ones."""


def text_is_whole_and_ends_before_a_stop_string(tokens: list[int], stop: list[str]) -> None:
    """Text comes in whole characters, never goes back, and shows no part of a stop string."""
    params = SamplingParams(max_tokens=9, stop=stop)
    text, shown = answer_text.AnswerText(), [""]
    for count, token in enumerate(tokens, start=1):
        text = text.push(PIECES[token], stop)
        shown.append(text.shown)
        if text.is_cut:
            tokens = tokens[:count]
            break
    expected, end = _expected_end(tokens, params, longest=0)
    assert text.is_cut == (end == "stop")
    shown.append(text.finish(stop).shown)
    assert shown[-1] == expected
    for before, after in itertools.pairwise(shown):
        assert after.startswith(before), f"{before!r} was shown, then {after!r}"


def a_shared_prefix_is_computed_once(
    num_requests: int, num_own: int, block_size: int, token_budget: int
) -> None:
    """Of prompts that come together and begin with the same full blocks, only the first computes these."""
    shared = _COMMON[: len(_COMMON) // block_size * block_size]
    jobs = [
        Job([*shared, *[number] * num_own], SamplingParams(max_tokens=1, ignore_eos=True))
        for number in range(num_requests)
    ]
    served = serve(
        Workload(jobs, block_size, spare_blocks=100, token_budget=token_budget, prefix_caching=True)
    )
    computed = served.engine.counters.num_computed_tokens
    assert computed == len(shared) + num_requests * num_own, f"{computed} tokens are computed"


def an_interrupted_step_loses_nothing(workload: Workload, places: list[int]) -> None:
    """Wherever a step is interrupted, the engine goes on: the same answers, and no block lost.

    Parameters
    ----------
    workload : Workload
    places : list of int
        A step is interrupted after so many lines of the engine's code; the steps after it at the next places.
    """
    left = list(places)

    def step(engine: Any) -> Any:
        while left:
            with suppress(KeyboardInterrupt), _interrupted_after(left.pop(0)):
                return engine.step()
            engine.cache.allocator.check()
        return engine.step()

    _check_answers(workload, serve(workload, step), texts=False)


_CODE = str(Path(engines.__file__).parent)


@contextmanager
def _interrupted_after(num_lines: int) -> Iterator[None]:
    """Raise KeyboardInterrupt when so many lines of `paged_numba/serving` have run, as Ctrl-C might."""
    left = num_lines

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(_CODE) or frame.f_code.co_name == "recover":
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
