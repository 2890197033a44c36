"""``paged-numba tour``: the whole story of paged attention on real requests, checked as it is told."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import targets
from ..cache import PagedKVCache
from ..errors import InputError
from ..progress import progress
from ..serving.requests import from_lengths, from_text, shipped_text
from ..serving.server import Server
from ..serving.toy_model import ToyModel
from ..traces import read_trace
from .narration import Story
from .options import positive

NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM = 8, 2, 64
BLOCK_SIZE = 16
BYTES_PER_TOKEN = 2 * NUM_KV_HEADS * HEAD_DIM * 4
"""K and V of one token, float32."""

POOL_SHARE = 0.6
"""Blocks of the pool, as a share of what all requests would need at once: some must wait."""

MAX_LEN = 2048
"""What a server without paging would reserve for each sequence; longer prompts are cut."""

NEW_TOKENS = (24, 8, 32, 16)
"""Tokens to generate for the prompts of a text, in turn: they end at different times, as in life."""

MAX_NEW_TOKENS = 32
"""Bound of the tokens to generate for a request of a trace."""

DEFAULT_REQUESTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba tour``."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", type=Path, metavar="FILE", help="prompts, with blank lines between them")
    source.add_argument(
        "--trace", type=Path, metavar="FILE", help="CSV of requests: ContextTokens, GeneratedTokens"
    )
    parser.add_argument(
        "--requests", type=positive, metavar="N", default=DEFAULT_REQUESTS,
        help="serve the first N requests (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--target", choices=targets.TARGETS, default="auto", help="what runs the kernels")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of the story")


class Source:
    """The requests, where they come from, what their answers are cut to, the lengths that memory is counted for."""

    def __init__(self, text: Path | None, trace: Path | None, count: int) -> None:
        self.is_text = trace is None
        self.final_lengths = None
        self.max_new_tokens = None
        if trace is not None:
            lengths = read_trace(trace)
            self.name = f"the trace {trace.name}"
            self.final_lengths = lengths.sum(axis=1)
            found = len(lengths)
            if (lengths[:count, 1] > MAX_NEW_TOKENS).any():
                self.max_new_tokens = MAX_NEW_TOKENS
            self.requests = from_lengths(lengths[:count], MAX_NEW_TOKENS, MAX_LEN)
        else:
            self.name = f"the text {text.name}" if text else "the text that comes with the package"
            content = shipped_text() if text is None else _read(text)
            requests = from_text(content, str(text or "the text"), NEW_TOKENS, MAX_LEN)
            found = len(requests)
            self.requests = requests[:count]
        if found > count:
            self.name = f"the first {count} of {found:,} in {self.name}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} must be UTF-8 text, got byte {error.object[error.start]:#x} at {error.start}"
        ) from None


def run(options: argparse.Namespace) -> int:
    """Tell the story, or print JSON; return 0, or 1 if a check failed."""
    started = time.perf_counter()
    source = Source(options.text, options.trace, options.requests)
    target = targets.resolve(options.target)
    story = Story(quiet=options.json)
    story.opening(target, source.name, source.requests, source.is_text, MAX_LEN, source.max_new_tokens)

    needs = [-(-request.final_length // BLOCK_SIZE) for request in source.requests]
    # The first request is forked: it must fit twice.
    least = max(int(POOL_SHARE * sum(needs)), 2 * needs[0], *needs)
    num_blocks = 16 * -(-least // 16)
    cache = PagedKVCache(num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM, target=target)
    server = Server(cache, ToyModel(NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM), source.requests)
    story.pool(cache.allocator, BLOCK_SIZE * BYTES_PER_TOKEN, crowded=num_blocks < sum(needs) + needs[0])
    memory = serve(server, story)

    record: dict[str, Any] = {
        "target": target,
        "source": source.name,
        "requests": [
            {"name": request.name, "prompt_tokens": len(request.prompt), "new_tokens": request.max_new_tokens}
            for request in source.requests
        ],
        "model": {"num_q_heads": NUM_Q_HEADS, "num_kv_heads": NUM_KV_HEADS, "head_dim": HEAD_DIM},
        "pool": {
            "num_blocks": num_blocks,
            "block_size": BLOCK_SIZE,
            "bytes": num_blocks * BLOCK_SIZE * BYTES_PER_TOKEN,
        },
        "events": [asdict(event) for event in story.events if event.kind != "decode"],
        "steps": server.step_number,
        "checks": {**asdict(server.checks), "passed": server.checks.passed},
        "memory": memory,
    }
    if source.final_lengths is not None:
        record["trace_memory"] = trace_memory(source.final_lengths)
    record["seconds"] = time.perf_counter() - started
    story.closing(record)
    if options.json:
        print(json.dumps(record, indent=1))
    return 0 if server.checks.passed else 1


def serve(server: Server, story: Story) -> dict[str, Any]:
    """Serve all requests and return the memory accounts of the fullest moment."""
    fullest: dict[str, Any] = {"num_used_blocks": -1}
    first = server.waiting[0]
    total = first.max_new_tokens + sum(request.max_new_tokens for request in server.waiting)
    with progress(total, "decode", "tokens") as done:

        def tell(events: Any) -> None:
            for event in events:
                story.tell(event, server)

        tell(server.admit(limit=1))
        tell(server.fork(first.name, f"{first.name}'"))
        tell(server.admit())
        while server.running:
            pool = server.cache.allocator
            if pool.num_blocks - pool.num_free_blocks > fullest["num_used_blocks"]:
                fullest = memory_accounts(server)
            running = len(server.running)
            tell(server.step())
            tell(server.admit())
            done(running)
    return fullest


def memory_accounts(server: Server) -> dict[str, Any]:
    """Return what the running sequences take in blocks, and what reservations would."""
    stats = server.cache.allocator.stats()
    return {
        **asdict(stats),
        "max_len": MAX_LEN,
        "paged_bytes": stats.num_used_blocks * BLOCK_SIZE * BYTES_PER_TOKEN,
        "stored_bytes": stats.num_stored_tokens * BYTES_PER_TOKEN,
        "reserved_bytes": stats.num_sequences * MAX_LEN * BYTES_PER_TOKEN,
    }


def trace_memory(final_lengths: Any) -> dict[str, Any]:
    """Return what all requests of a trace would take at their ends, with pages and with reservations."""
    longest = int(final_lengths.max())
    return {
        "num_requests": len(final_lengths),
        "max_len": longest,
        "stored_bytes": int(final_lengths.sum()) * BYTES_PER_TOKEN,
        "paged_bytes": int((-(-final_lengths // BLOCK_SIZE)).sum()) * BLOCK_SIZE * BYTES_PER_TOKEN,
        "reserved_bytes": len(final_lengths) * longest * BYTES_PER_TOKEN,
    }
