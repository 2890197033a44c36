"""The tour with the toy model, whose text means nothing: for traces, and where no real model is installed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import models, targets, traces
from ...cache import PagedKVCache
from ...progress import progress
from ...serving.prompts import read_text
from ...serving.toy.model import ToyModel
from ...serving.toy.requests import Request, from_text, from_trace, shipped_text
from ...serving.toy.server import Event, Server
from ...traces import Trace
from .memory import memory_in_use
from .narration import Narrator, printable

NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM = 8, 2, 64
BLOCK_SIZE = 16
BYTES_PER_TOKEN = 2 * NUM_KV_HEADS * HEAD_DIM * 4
"""K and V of one token, float32."""

POOL_SHARE = 0.6
"""Blocks of the pool, as a share of the blocks that all requests need at once: less than 1, so that some wait."""

MAX_LEN = 2048
"""Tokens that a server without paging would reserve for each sequence. Longer prompts are cut."""

NEW_TOKENS = (24, 8, 32, 16)
"""Tokens to generate for the prompts of a text, in turn. They differ, so that sequences end at different times."""

MAX_NEW_TOKENS = 32
"""Most tokens to generate for a request of a trace."""


@dataclass(frozen=True)
class Workload:
    """Requests to serve.

    Attributes
    ----------
    source : str
        Where the requests come from, in words.
    requests : list of Request
    max_new_tokens : int or None
        Length to which answers are cut; None if no answer is longer.
    trace : Trace or None
        The whole trace; None if the requests are the prompts of a text.
    """

    source: str
    requests: list[Request]
    max_new_tokens: int | None = None
    trace: Trace | None = None


def workload(text: Path | None, trace_file: Path | None, count: int) -> Workload:
    """Return the first `count` requests of a trace or a text; the text is the package's own by default."""
    if trace_file is not None:
        trace = traces.read(trace_file)
        served = trace.first(count)
        cut = MAX_NEW_TOKENS if (served.output_lens > MAX_NEW_TOKENS).any() else None
        source = _first_of(count, len(trace), f"the trace {trace.name}")
        if trace.num_failed:
            source += f", without the {trace.num_failed:,} that failed"
        return Workload(source, from_trace(served, MAX_NEW_TOKENS, MAX_LEN), cut, trace)
    content = shipped_text() if text is None else read_text(text)
    requests = from_text(content, str(text or "the text"), NEW_TOKENS, MAX_LEN)
    name = f"the text {text.name}" if text else "the text that comes with the package"
    return Workload(_first_of(count, len(requests), name), requests[:count])


def _first_of(count: int, found: int, name: str) -> str:
    return f"the first {count} of {found:,} in {name}" if found > count else name


def blocks_of(requests: list[Request]) -> list[int]:
    """Return the number of blocks that each request needs at its end."""
    return [-(-request.final_length // BLOCK_SIZE) for request in requests]


def pool_size(requests: list[Request]) -> int:
    """Return the number of blocks of the tour's pool."""
    needs = blocks_of(requests)
    # The first request is forked, so the pool must hold it twice.
    least = max(int(POOL_SHARE * sum(needs)), 2 * needs[0], *needs)
    return 16 * -(-least // 16)


def run(options: argparse.Namespace) -> int:
    """Serve and explain, or print JSON; return 0, or 1 if a check failed."""
    started = time.perf_counter()
    work = workload(options.text, options.trace, options.requests)
    target = targets.resolve(options.target)
    narrator = Narrator(quiet=options.json)
    narrator.introduce(target, work.source, _rows(work), _remarks(work))

    needs = blocks_of(work.requests)
    num_blocks = pool_size(work.requests)
    cache = PagedKVCache(num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM, target=target)
    server = Server(cache, ToyModel(NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM), work.requests)
    narrator.describe_pool(
        cache.allocator, BLOCK_SIZE * BYTES_PER_TOKEN, crowded=num_blocks < sum(needs) + needs[0]
    )
    memory = serve(server, narrator)

    record: dict[str, Any] = {
        "target": target,
        "source": work.source,
        "requests": [
            {"name": request.name, "prompt_tokens": len(request.prompt), "new_tokens": request.max_new_tokens}
            for request in work.requests
        ],
        "model": {"num_q_heads": NUM_Q_HEADS, "num_kv_heads": NUM_KV_HEADS, "head_dim": HEAD_DIM},
        "pool": {
            "num_blocks": num_blocks,
            "block_size": BLOCK_SIZE,
            "bytes": num_blocks * BLOCK_SIZE * BYTES_PER_TOKEN,
        },
        "events": [asdict(event) for event in narrator.events if event.kind != "decode"],
        "steps": server.step_number,
        "checks": {**asdict(server.checks), "passed": server.checks.passed},
        "memory": memory,
    }
    if work.trace is not None:
        record["trace_memory"] = trace_memory(work.trace.prompt_lens + work.trace.output_lens)
    record["seconds"] = time.perf_counter() - started
    checks = server.checks
    checked = [
        f"all {checks.outputs} attention outputs were compared with dense float64 attention, and",
        f"the keys and values of {checks.gathered} sequences, bit for bit, with those written.",
        f"Largest error {checks.max_error:.2g}, which is {checks.max_error_over_tolerance:.0%} of what float32 "
        "rounding explains.",
    ]
    narrator.conclude(checked, checks.failures, checks.passed)
    narrator.sum_up(memory, record.get("trace_memory"))
    narrator.say("", f"{record['seconds']:.1f} s on the target {target}.")
    if options.json:
        print(json.dumps(record, indent=1))
    return 0 if checks.passed else 1


def _rows(work: Workload) -> list[tuple[str, str, int, int]]:
    texts = [
        printable(bytes(request.prompt)) if work.trace is None else "(random bytes)"
        for request in work.requests
    ]
    return [
        (request.name, text, len(request.prompt), request.max_new_tokens)
        for request, text in zip(work.requests, texts, strict=True)
    ]


def _remarks(work: Workload) -> list[str]:
    remarks = [
        "A token is a byte. The model has one layer with fixed random weights, so the text that it",
        "generates means nothing; the attention is real.",
    ]
    small = models.find()[0]
    if work.trace is None and small.path is None:
        remarks.append(f"To serve a real model: {small.install}, then take the tour again.")
    if any(len(request.prompt) + request.max_new_tokens == MAX_LEN for request in work.requests):
        remarks.append(f"Prompts are cut so that a prompt and its answer have at most {MAX_LEN:,} tokens.")
    if work.max_new_tokens is not None:
        remarks.append(f"Answers are cut to {work.max_new_tokens} tokens.")
    return remarks


def serve(server: Server, narrator: Narrator) -> dict[str, Any]:
    """Serve all requests; return the memory at the step with the most blocks in use."""
    fullest: dict[str, Any] = {"num_used_blocks": -1}
    first = server.waiting[0]
    total = first.max_new_tokens + sum(request.max_new_tokens for request in server.waiting)
    with progress(total, "decode", "tokens") as done:

        def narrate(events: Iterator[Event]) -> None:
            for event in events:
                narrator.narrate(event, server.cache.allocator)

        narrate(server.admit(limit=1))
        narrate(server.fork(first.name, f"{first.name}'"))
        narrate(server.admit())
        while server.running:
            pool = server.cache.allocator
            if pool.num_blocks - pool.num_free_blocks > fullest["num_used_blocks"]:
                fullest = memory_in_use(pool, MAX_LEN, BYTES_PER_TOKEN)
            running = len(server.running)
            narrate(server.step())
            narrate(server.admit())
            done(running)
    return fullest


def trace_memory(full_lens: Any) -> dict[str, Any]:
    """Return the bytes that all requests of a trace take at their full lengths, with paging and with reservations."""
    longest = int(full_lens.max())
    return {
        "num_requests": len(full_lens),
        "max_len": longest,
        "stored_bytes": int(full_lens.sum()) * BYTES_PER_TOKEN,
        "paged_bytes": int((-(-full_lens // BLOCK_SIZE)).sum()) * BLOCK_SIZE * BYTES_PER_TOKEN,
        "reserved_bytes": len(full_lens) * longest * BYTES_PER_TOKEN,
    }
