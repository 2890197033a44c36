"""The tour with a real, small model: an engine serves it, and each answer is compared with a dense forward pass."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ... import models, targets
from ...allocator.allocator import BlockAllocator
from ...arrays import to_host
from ...cache import PagedKVCache
from ...models import Checkpoint, DenseAttention
from ...progress import progress
from ...serving import Engine, SamplingParams
from ...serving.answers import AnswerId
from ...serving.prompts import paragraphs, read_text
from ...serving.sampling import next_token
from ...serving.toy.requests import name_of
from ...serving.toy.server import Event
from .memory import memory_in_use
from .narration import Narrator, printable

BLOCK_SIZE = 16

POOL_SHARE = 0.6
"""Blocks of the pool, as a share of the blocks that all requests need at once: so few that one is preempted."""

NEW_TOKENS = (24, 8, 32, 16)
"""Tokens to generate for the prompts in turn. They differ, so that answers end at different times."""

TOLERANCE = 1e-4
"""Largest difference that rounding in float32 may cause, as a share of the largest number compared."""


@dataclass(frozen=True)
class Request:
    """A prompt, and how it is answered."""

    name: str
    text: str
    tokens: list[int]
    params: SamplingParams


@dataclass
class Checks:
    """Comparisons with a dense forward pass over each whole text, which keeps no cache.

    Attributes
    ----------
    tokens : int
        Tokens that were compared with those that the dense logits give.
    compared : int
        Sequences whose keys and values in all layers were compared.
    max_error : float
        Largest difference of a key or value, as a share of the largest of its layer.
    failures : list of str
    """

    tokens: int = 0
    compared: int = 0
    max_error: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there were comparisons, and none failed."""
        return self.tokens > 0 and self.compared > 0 and not self.failures


def run(options: argparse.Namespace) -> int:
    """Serve and explain, or print JSON; return 0, or 1 if a check failed."""
    started = time.perf_counter()
    loaded = models.load(models.find()[0].name)
    source, requests = requests_of(loaded, options.text, options.requests)
    target = targets.resolve(options.target)
    config = loaded.model.config
    token_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    narrator = Narrator(quiet=options.json)
    narrator.introduce(
        target,
        source,
        [(r.name, printable(r.text.encode()), len(r.tokens), r.params.max_tokens) for r in requests],
        [
            f"The model is {loaded.name} ({loaded.licence}): {config.num_layers} layers with {config.num_q_heads} "
            f"query heads and {config.num_kv_heads} KV heads of {config.head_dim},",
            "trained on books by Lewis Carroll. It is tiny, so expect his words but no story.",
        ],
    )

    needs = blocks_of(requests)
    num_blocks = pool_size(requests)
    cache = PagedKVCache(
        num_blocks, BLOCK_SIZE, config.num_kv_heads, config.head_dim,
        num_layers=config.num_layers, prefix_caching=True, target=target,
    )  # fmt: skip
    narrator.describe_pool(cache.allocator, BLOCK_SIZE * token_bytes, crowded=num_blocks < sum(needs))
    tour = Tour(loaded, Engine(loaded.model, cache, tokenizer=loaded.tokenizer), requests, narrator)
    memory = tour.serve(token_bytes)
    tour.check()
    checks = tour.checks

    record: dict[str, Any] = {
        "target": target,
        "source": source,
        "requests": [
            {"name": r.name, "prompt_tokens": len(r.tokens), "new_tokens": r.params.max_tokens}
            for r in requests
        ],
        "model": {"name": loaded.name, "licence": loaded.licence, "source": loaded.source},
        "pool": {
            "num_blocks": num_blocks,
            "block_size": BLOCK_SIZE,
            "bytes": num_blocks * BLOCK_SIZE * token_bytes,
        },
        "answers": {name: {"text": tour.texts[name], "token_ids": tour.tokens[name]} for name in tour.tokens},
        "events": [asdict(event) for event in narrator.events],
        "steps": tour.engine.counters.num_steps,
        "checks": {**asdict(checks), "passed": checks.passed},
        "memory": memory,
        "seconds": time.perf_counter() - started,
    }
    narrator.conclude(
        [
            "the model ran again over each whole text, with no cache and dense float64 attention.",
            f"All {checks.tokens} tokens were compared with those that this run gives, and the keys and values",
            f"that the cache held of {checks.compared} answers, in all layers, with its own. They differ by at most",
            f"{checks.max_error:.1g} of the largest number in a layer; {TOLERANCE:.0e} is allowed.",
        ],
        checks.failures,
        checks.passed,
    )
    narrator.sum_up(memory, None)
    narrator.say("", f"{record['seconds']:.1f} s on the target {target}.")
    if options.json:
        print(json.dumps(record, indent=1))
    return 0 if checks.passed else 1


def requests_of(loaded: Checkpoint, file: Path | None, count: int) -> tuple[str, list[Request]]:
    """Return where the requests come from, and the first `count` of them; the text is the package's own by default."""
    if file is None:
        name, text = "the text that comes with the package", shipped_text()
    else:
        name, text = f"the text {file.name}", read_text(file)
    prompts = paragraphs(text, name)
    longest = loaded.model.config.max_positions
    requests = []
    for number, prompt in enumerate(prompts[:count]):
        num_new = NEW_TOKENS[number % len(NEW_TOKENS)]
        # The first request gets two answers, which differ since their tokens are drawn.
        params = SamplingParams(
            num_new, temperature=0.0 if number else 0.6, n=1 if number else 2, ignore_eos=True
        )
        tokens = loaded.tokenizer.encode(prompt)[: longest - num_new]
        requests.append(Request(name_of(number), prompt, tokens, params))
    if len(requests) < len(prompts):
        name = f"the first {len(requests)} of {len(prompts):,} in {name}"
    return name, requests


def blocks_of(requests: list[Request]) -> list[int]:
    """Return the number of blocks that each request needs at its end."""
    return [-(-(len(r.tokens) + r.params.max_tokens - 1) // BLOCK_SIZE) for r in requests]


def pool_size(requests: list[Request]) -> int:
    """Return the number of blocks of the tour's pool."""
    needs = blocks_of(requests)
    return max(int(POOL_SHARE * sum(needs)), 2 * needs[0], *needs)


def shipped_text() -> str:
    """Return the openings that come with the package, for a model that was trained on Lewis Carroll."""
    return (resources.files("paged_numba.serving") / "openings.txt").read_text(encoding="utf-8")


class Tour:
    """Serves requests step by step, and tells a narrator what each step changed.

    Parameters
    ----------
    loaded : Checkpoint
    engine : Engine
    requests : list of Request
    narrator : Narrator

    Attributes
    ----------
    texts, tokens : dict of str to str, and to list of int
        The answers so far, by name.
    """

    def __init__(
        self, loaded: Checkpoint, engine: Engine, requests: list[Request], narrator: Narrator
    ) -> None:
        self.loaded, self.engine, self.narrator = loaded, engine, narrator
        self.requests = {request.name: request for request in requests}
        self.texts: dict[str, str] = {}
        self.tokens: dict[str, list[int]] = {}
        self.checks = Checks()
        # Keys and values of each layer, read from the cache before the last step of an answer.
        self._held: dict[str, list[tuple[Any, Any]]] = {}
        self._step = 0

    @property
    def pool(self) -> BlockAllocator:
        """The allocator of the engine's cache."""
        return self.engine.cache.allocator

    def serve(self, token_bytes: int) -> dict[str, Any]:
        """Serve all requests; return the memory at the step with the most blocks in use."""
        for request in self.requests.values():
            self.engine.add_request(request.tokens, request.params, request_id=request.name)
        total = sum(request.params.max_tokens * request.params.n for request in self.requests.values())
        fullest: dict[str, Any] = {"num_used_blocks": -1}
        with progress(total, "generate", "tokens") as done:
            while self.engine.has_unfinished:
                before = self._tables()
                self._hold_last()
                outputs = self.engine.step()
                self._step += 1
                for output in outputs:
                    name = str(AnswerId(output.request_id, output.index))
                    self.texts[name] = self.texts.get(name, "") + output.text
                    self.tokens.setdefault(name, []).extend(output.token_ids)
                    done(len(output.token_ids))
                for event in self._events(before, self._tables()):
                    self.narrator.narrate(event, self.pool)
                if self.pool.num_blocks - self.pool.num_free_blocks > fullest["num_used_blocks"]:
                    fullest = memory_in_use(self.pool, self.loaded.model.config.max_positions, token_bytes)
        return fullest

    def _tables(self) -> dict[str, list[int]]:
        return {str(seq_id): self.pool.block_table(seq_id).tolist() for seq_id in self.pool}

    def _events(self, before: dict[str, list[int]], after: dict[str, list[int]]) -> Iterator[Event]:
        """Compare the block tables before and after a step."""
        ended = [name for name in before if name not in after]
        for name in ended:
            if self._is_done(name):
                text = self.texts[name]
                yield self._event("free", [name], blocks=before[name], text=text)
            else:
                yield self._event("preempt", [name], waiting=self._waiting())
        admitted = [name for name in after if name not in before and name in self.requests]
        if admitted:
            cached = {name: self._cached(name) for name in admitted}
            held_back = [str(answer.id) for answer in self.engine.scheduler.held_back]
            yield self._event(
                "admit", admitted, waiting=self._waiting(), held_back=held_back, cached_tokens=cached
            )
        for name, table in after.items():
            if name not in before and name not in self.requests:
                parent = name.partition("/")[0]
                is_full = len(self.requests[parent].tokens) % BLOCK_SIZE == 0
                yield self._event("fork", [parent, name], shared_blocks=table, is_full=is_full)
            old = before.get(name, table)
            for source, copy in zip(old, table, strict=False):
                if source != copy:
                    yield self._event("copy", [name], source=source, copy=copy)
            for block in table[len(old) :]:
                yield self._event("grow", [name], block=block)

    def _event(self, kind: str, names: list[str], **detail: Any) -> Event:
        return Event(self._step, kind, tuple(names), detail)

    def _is_done(self, name: str) -> bool:
        return len(self.tokens.get(name, ())) == self.requests[name.partition("/")[0]].params.max_tokens

    def _waiting(self) -> list[str]:
        return [str(answer.id) for answer in self.engine.scheduler.waiting]

    def _cached(self, name: str) -> int:
        running = {str(answer.id): answer for answer in self.engine.scheduler.running}
        return running[name].num_cached_tokens

    # The check.

    def _hold_last(self) -> None:
        """Read the keys and values of each answer that gets its last token in the next step."""
        for answer in self.engine.scheduler.running:
            if answer.num_generated == answer.params.max_tokens - 1 and answer.id in self.pool:
                cache = self.engine.cache
                layers = [cache.gather(answer.id, layer=layer) for layer in range(cache.num_layers)]
                self._held[str(answer.id)] = [(to_host(key), to_host(value)) for key, value in layers]

    def check(self) -> None:
        """Compare each answer, and what the cache held of it, with a forward pass that keeps no cache."""
        for name, tokens in self.tokens.items():
            request = self.requests[name.partition("/")[0]]
            self._check(name, request, [*request.tokens, *tokens])

    def _check(self, name: str, request: Request, tokens: list[int]) -> None:
        layers: list[tuple[Any, Any]] = []
        dense = DenseAttention("float64")

        def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
            layers.append((key, value))
            return dense(layer, query, key, value)

        logits = self.loaded.model.forward(np.array(tokens), np.arange(len(tokens)), attend)
        checks, begin = self.checks, len(request.tokens)
        for place, token in enumerate(tokens[begin:]):
            row = logits[begin + place - 1]
            expected = next_token(row, request.params, int(name not in self.requests), place)
            checks.tokens += 1
            # Rounding decides between two logits that are almost equal.
            tie = abs(row[token] - row[expected]) <= TOLERANCE * np.abs(row).max()
            if token != expected and not tie:
                checks.failures.append(
                    f"{name}: token {place} of the answer is {token}, and should be {expected}"
                )
                break
        for number, (held, right) in enumerate(zip(self._held.get(name, ()), layers, strict=False)):
            error = max(_difference(mine, its) for mine, its in zip(held, right, strict=True))
            checks.max_error = float(np.maximum(checks.max_error, error))
            # Not `error > TOLERANCE`: NaN must fail, too.
            if not error <= TOLERANCE:
                checks.failures.append(
                    f"{name}, layer {number}: keys or values are off by {error:.2g} of the largest, "
                    f"{error / TOLERANCE:.3g} times what rounding explains"
                )
                break
        checks.compared += name in self._held


def _difference(held: Any, right: Any) -> float:
    """Return the largest difference of two arrays, as a share of the largest number; the first may be shorter."""
    return float(np.abs(held - right[: len(held)]).max() / np.abs(right).max())
