"""``paged-numba tour``: the whole story of paged attention on real requests, checked as it is told."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import target as seam
from . import workload
from .cache import PagedKVCache
from .serving import Event, Server
from .tables import pool_map, shortened, size, table
from .toy_model import ToyModel
from .workload import InputError, Request

NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM = 8, 2, 64
BLOCK_SIZE = 16
BYTES_PER_TOKEN = 2 * NUM_KV_HEADS * HEAD_DIM * 4
"""K and V of one token, float32."""

POOL_SHARE = 0.6
"""Blocks of the pool, as a share of what all requests would need at once: some must wait."""

DEFAULT_MAX_LEN = 2048
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
    parser.add_argument("--target", choices=seam.TARGETS, default="auto", help="what runs the kernels")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of the story")


def positive(text: str) -> int:
    """Return a positive integer; the type of an argparse option."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return number


class Source:
    """The requests, where they come from, and the lengths that memory is counted for."""

    def __init__(self, text: Path | None, trace: Path | None, count: int) -> None:
        self.is_text = trace is None
        self.final_lengths = None
        if trace is not None:
            lengths = workload.read_trace(trace)
            self.name = f"the trace {trace.name}"
            self.final_lengths = lengths.sum(axis=1)
            found = len(lengths)
            self.requests = workload.from_lengths(lengths[:count], MAX_NEW_TOKENS)
        else:
            self.name = f"the text {text.name}" if text else "the text that comes with the package"
            content = workload.shipped_text() if text is None else _read(text)
            requests = workload.from_text(content, str(text or "the text"), NEW_TOKENS)
            found = len(requests)
            self.requests = requests[:count]
        if found > count:
            self.name = f"the first {count} of {found:,} in {self.name}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} must be UTF-8 text, got byte {error.object[error.start]:#x} at {error.start}"
        ) from None


def run(options: argparse.Namespace) -> int:
    """Tell the story, or print JSON; return 0, or 1 if a check failed."""
    started = time.perf_counter()
    source = Source(options.text, options.trace, options.requests)
    target = seam.resolve(options.target)
    story = Story(quiet=options.json)
    story.opening(target, source)

    needs = [-(-request.final_length // BLOCK_SIZE) for request in source.requests]
    # The first request is forked: it must fit twice.
    least = max(int(POOL_SHARE * sum(needs)), max(needs), 2 * needs[0])
    num_blocks = 16 * -(-least // 16)
    cache = PagedKVCache(num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM, target=target)
    server = Server(cache, ToyModel(NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM), source.requests)
    story.pool(cache, crowded=num_blocks < sum(needs) + needs[0])
    memory = serve(server, story)

    record = {
        "target": target,
        "source": source.name,
        "requests": [
            {"name": r.name, "prompt_tokens": len(r.prompt), "new_tokens": r.max_new_tokens} for r in source.requests
        ],
        "model": {"num_q_heads": NUM_Q_HEADS, "num_kv_heads": NUM_KV_HEADS, "head_dim": HEAD_DIM},
        "pool": {"num_blocks": num_blocks, "block_size": BLOCK_SIZE, "bytes": num_blocks * BLOCK_SIZE * BYTES_PER_TOKEN},
        "events": [asdict(event) for event in story.events if event.kind != "decode"],
        "steps": server.step_number,
        "checks": {**asdict(server.checks), "passed": server.checks.passed},
        "memory": memory,
    }  # fmt: skip
    if source.final_lengths is not None:
        record["trace_memory"] = trace_memory(source.final_lengths)
    record["seconds"] = time.perf_counter() - started
    story.closing(record, server)
    if options.json:
        print(json.dumps(record, indent=1))
    return 0 if server.checks.passed else 1


def serve(server: Server, story: Story) -> dict[str, Any]:
    """Serve all requests and return the memory accounts of the fullest moment."""
    fullest: dict[str, Any] = {"num_used_blocks": -1}
    first = server.waiting[0]
    total = first.max_new_tokens + sum(request.max_new_tokens for request in server.waiting)
    # Shown after a second, on a terminal only.
    with tqdm(total=total, desc="decode", unit=" tokens", delay=1, disable=None, leave=False) as progress:

        def tell(events: Any) -> None:
            for event in events:
                story.tell(event, server)

        tell(server.admit(limit=1))
        tell(server.fork(first.name, f"{first.name}'"))
        tell(server.admit())
        while server.running:
            if server.stats().num_used_blocks > fullest["num_used_blocks"]:
                fullest = memory_accounts(server)
            running = len(server.running)
            tell(server.step())
            tell(server.admit())
            progress.update(running)
    return fullest


def memory_accounts(server: Server) -> dict[str, Any]:
    """Return what the running sequences take in blocks, and what reservations would."""
    stats = server.stats()
    longest = max(DEFAULT_MAX_LEN, *(s.request.final_length for s in server.running.values()))
    return {
        **asdict(stats),
        "max_len": longest,
        "paged_bytes": stats.num_used_blocks * BLOCK_SIZE * BYTES_PER_TOKEN,
        "stored_bytes": stats.num_stored_tokens * BYTES_PER_TOKEN,
        "reserved_bytes": stats.num_sequences * longest * BYTES_PER_TOKEN,
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


class Story:
    """Tells each part once, as it happens; silent if `quiet`."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.events: list[Event] = []
        self.labels: dict[Any, str] = {}
        self.growth_told = 0

    def say(self, text: str = "") -> None:
        """Print beside a progress bar."""
        if not self.quiet:
            tqdm.write(text, file=sys.stdout)

    def opening(self, target: str, source: Source) -> None:
        """Say what runs and on what."""
        meaning = {
            "lockstep": "every thread of many thread blocks at once, on NumPy; no GPU is used",
            "cuda": "compiled by Numba for the GPU",
            "cudasim": "Numba's simulator, one operating-system thread per CUDA thread: slow",
        }[target]
        self.say(f"1. The kernels run on the target {target}: {meaning}.")
        self.say()
        self.say(f"2. The requests: {source.name}.")
        self.say()
        rows = []
        for request in source.requests:
            start = bytes(request.prompt).decode(errors="replace") if source.is_text else "(random bytes)"
            rows.append([request.name, " ".join(start.split())[:44], str(len(request.prompt)),
                         str(request.max_new_tokens)])  # fmt: skip
        self.say(indented(table(["", "prompt", "tokens", "to generate"], rows, left=2)))
        self.say()
        self.say(
            "   A token is a byte. A fixed random embedding and projections make its query, key and value,"
        )
        self.say("   so what is generated means nothing; the attention over it is real.")
        self.labels = labels_for(source.requests)

    def pool(self, cache: PagedKVCache, crowded: bool) -> None:
        """Describe the pool."""
        pool = cache.allocator
        self.say()
        self.say(
            f"3. The pool: {pool.num_blocks} blocks of {BLOCK_SIZE} tokens, {NUM_KV_HEADS} KV heads, head_dim {HEAD_DIM}, float32:"
        )
        self.say(f"   {size(BLOCK_SIZE * BYTES_PER_TOKEN)} a block, {size(pool.num_blocks * BLOCK_SIZE * BYTES_PER_TOKEN)} in all."
                 + (" All requests at once would not fit." if crowded else ""))  # fmt: skip
        self.say("   On the map a letter is the block's owner, + a block that several share, . a free one.")
        self.say()
        self.say("4. Serving:")

    def tell(self, event: Event, server: Server) -> None:
        """Record an event; narrate it if it is one that changes the pool much."""
        self.events.append(event)
        pool = server.cache.allocator
        names = ", ".join(event.names)
        head = f"   step {event.step}:"
        if event.kind == "admit":
            waiting = event.detail["waiting"]
            self.say()
            self.say(f"{head} {names} admitted; the kernel writes K and V of each prompt into its blocks."
                     + (f" Waiting: {', '.join(waiting)}." if waiting else ""))  # fmt: skip
            self._tables(event.names, server)
            self._map(server)
        elif event.kind == "fork":
            parent, child = event.names
            self.labels[child] = self.labels[parent].lower()
            self.say()
            self.say(
                f"{head} {parent} is forked into {child} ({self.labels[child]} on the map), to write a second answer. No token is"
            )
            self.say(
                f"           copied: both tables hold blocks {shortened(event.detail['shared_blocks'])}."
            )
            self._map(server)
            if pool.seq_len(parent) % BLOCK_SIZE == 0:
                self.say(
                    "           The last block is full: each takes a new one, and nothing will have to be copied."
                )
        elif event.kind == "copy":
            self.say()
            self.say(
                f"{head} {names} appends to block {event.detail['source']}, which is shared and part-filled: copy-on-write"
            )
            self.say(f"           gives it block {event.detail['copy']}. The full blocks stay shared.")
        elif event.kind == "grow" and self.growth_told < 2:
            self.growth_told += 1
            self.say(
                f"{head} {names} has filled its blocks and takes block {event.detail['block']} from the pool."
            )
        elif event.kind == "free":
            self.say(
                f"{head} {names} is done; {len(event.detail['blocks'])} blocks lose an owner, {pool.num_free_blocks} are free."
            )

    def _tables(self, names: tuple[str, ...], server: Server) -> None:
        pool = server.cache.allocator
        rows = []
        for name in names:
            blocks = pool.block_table(name)
            rows.append([name, shortened(blocks), str(pool.seq_len(name)), str(blocks.size)])
        self.say(indented(table(["", "block table", "tokens", "blocks"], rows, left=2)))

    def _map(self, server: Server) -> None:
        self.say(indented(pool_map(server.cache.allocator, self.labels)))

    def closing(self, record: dict[str, Any], server: Server) -> None:
        """Report the checks and the memory."""
        checks = server.checks
        self.say()
        self.say(f"5. The check: each of {checks.outputs} attention outputs against dense float64 attention,")
        self.say(f"   and the keys and values of {checks.gathered} sequences bit for bit.")
        self.say(
            f"   Largest error {checks.max_error:.2g}, {checks.max_error_over_tolerance:.0%} of what float32 rounding explains."
        )
        for failure in checks.failures[:10]:
            self.say(f"   FAILED {failure}")
        if len(checks.failures) > 10:
            self.say(f"   ... and {len(checks.failures) - 10} more")
        self.say(f"   {'Passed.' if checks.passed else 'FAILED.'}")
        self.say()
        memory = record["memory"]
        self.say(
            f"6. Memory, at the fullest moment ({memory['num_sequences']} sequences, {memory['num_tokens']} tokens):"
        )
        self.say()
        self.say(indented(memory_table(memory)))
        self.say()
        ratio = memory["reserved_bytes"] / memory["paged_bytes"]
        self.say(
            f"   Reserving {memory['max_len']:,} tokens for each sequence takes {ratio:.1f} times the memory of paging."
        )
        if "trace_memory" in record:
            whole = record["trace_memory"]
            self.say()
            self.say(f"   All {whole['num_requests']:,} requests of the trace at their ends, none shared:")
            self.say()
            self.say(indented(memory_table(whole)))
            self.say()
            ratio = whole["reserved_bytes"] / whole["paged_bytes"]
            self.say(
                f"   Reserving {whole['max_len']:,} tokens, the longest of them, for each takes {ratio:.1f} times as much."
            )
        self.say()
        self.say(f"{record['seconds']:.1f} s on the target {record['target']}.")


def memory_table(memory: dict[str, Any]) -> str:
    """Return the accounts of memory as a table; waste is what holds no token."""
    stored = memory["stored_bytes"]
    rows = [["tokens as stored", size(stored), ""]]
    for what, key in (
        ("blocks (paging)", "paged_bytes"),
        (f"{memory['max_len']:,} tokens reserved each", "reserved_bytes"),
    ):
        rows.append([what, size(memory[key]), f"{1 - stored / memory[key]:.1%}"])
    return table(["", "memory", "waste"], rows)


def labels_for(requests: list[Request]) -> dict[Any, str]:
    """Return one character for each request: the last letter of its name."""
    return {request.name: request.name[-1] for request in requests}


def indented(text: str) -> str:
    """Return text, each line moved right by three characters."""
    return "\n".join("   " + line for line in text.splitlines())
