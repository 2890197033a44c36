"""What ``paged-numba tour`` says: each event of serving, then the checks and the memory, in plain words."""

from __future__ import annotations

from typing import Any

from ..allocator.allocator import BlockAllocator
from ..draw.text import block_tables, pool_map, shortened, size, table
from ..progress import write
from ..serving.requests import Request
from ..serving.server import Event, Server

INDENT = "   "
MAX_FAILURES = 10
MAX_GROWTHS = 2
"""How often the tour tells that a sequence takes another block."""


class Story:
    """Tells each part once, as it happens; says nothing if `quiet`.

    Attributes
    ----------
    events : list of Event
        All that was told.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.events: list[Event] = []
        self.labels: dict[Any, str] = {}
        self.growths = 0

    def say(self, *lines: str) -> None:
        """Print lines, above a progress bar if there is one."""
        if not self.quiet:
            write("\n".join(lines))

    def show(self, text: str) -> None:
        """Print a table or a map."""
        self.say(*(INDENT + line for line in text.splitlines()))

    def opening(
        self,
        target: str,
        source: str,
        requests: list[Request],
        is_text: bool,
        max_len: int,
        max_new_tokens: int | None,
    ) -> None:
        """Say what runs and on what; `max_new_tokens` is None where it cut no answer."""
        meaning = {
            "lockstep": "all threads at once, on NumPy; no GPU is used",
            "cuda": "compiled by Numba for the GPU",
            "cudasim": "Numba's simulator, one operating-system thread per CUDA thread: slow",
        }[target]
        self.say(f"1. The kernels run on the target {target}: {meaning}.", "")
        self.say(f"2. The requests: {source}.", "")
        rows = []
        for request in requests:
            text = printable(bytes(request.prompt)) if is_text else "(random bytes)"
            rows.append([request.name, text, str(len(request.prompt)), str(request.max_new_tokens)])
        self.show(table(["", "prompt", "tokens", "to generate"], rows, left=2))
        self.say(
            "",
            "   A token is a byte. A fixed random embedding and projections make its query, key and value,",
            "   so what is generated means nothing; the attention over it is real.",
        )
        if any(len(request.prompt) + request.max_new_tokens == max_len for request in requests):
            self.say(f"   Prompts are cut so that prompt and answer have {max_len:,} tokens at most.")
        if max_new_tokens is not None:
            self.say(f"   Answers are cut to {max_new_tokens} tokens.")
        self.labels = {request.name: request.name[-1] for request in requests}

    def pool(self, pool: BlockAllocator, block_bytes: int, crowded: bool) -> None:
        """Describe the pool."""
        self.say(
            "",
            f"3. The pool: {pool.num_blocks} blocks of {pool.block_size} tokens. The keys and values of a block take",
            f"   {size(block_bytes)}, all of them {size(pool.num_blocks * block_bytes)}."
            + (" All requests at once would not fit." if crowded else ""),
            "   On the map a letter is a block's owner, + a block that several share, . a free one.",
            "",
            "4. Serving:",
        )

    def tell(self, event: Event, server: Server) -> None:
        """Record an event, and narrate it if it changes the pool."""
        self.events.append(event)
        pool, names, detail = server.cache.allocator, ", ".join(event.names), event.detail
        step = f"{INDENT}step {event.step}:"
        if event.kind == "admit":
            whose = "its" if len(event.names) == 1 else "their"
            self.say(
                "", f"{step} {names} admitted. The kernel writes K and V of the prompt into {whose} blocks."
            )
            if detail["waiting"]:
                self.say(f"{INDENT}Waiting: {', '.join(detail['waiting'])}.")
            self.show(block_tables(pool, event.names))
            self._map(pool)
        elif event.kind == "fork":
            parent, child = event.names
            self.labels[child] = self.labels[parent].lower()
            self.say(
                "",
                f"{step} {parent} is forked into {child}, {self.labels[child]} on the map, for a second answer.",
                f"{INDENT}No token is copied: both block tables hold {shortened(detail['shared_blocks'])}.",
            )
            if pool.seq_len(parent) % pool.block_size == 0:
                self.say(
                    f"{INDENT}The last block is full: each will take a new one, and nothing is ever copied."
                )
            self._map(pool)
        elif event.kind == "copy":
            self.say(
                "",
                f"{step} {names} appends to block {detail['source']}, which is shared and part-filled: copy-on-write",
                f"{INDENT}gives it block {detail['copy']}. The full blocks stay shared.",
            )
        elif event.kind == "grow" and self.growths < MAX_GROWTHS:
            self.growths += 1
            self.say(f"{step} {names} has filled its blocks and takes block {detail['block']} from the pool.")
        elif event.kind == "free":
            count = len(detail["blocks"])
            self.say(
                f"{step} {names} is done and leaves its {count} blocks; {pool.num_free_blocks} are free."
            )

    def closing(self, record: dict[str, Any]) -> None:
        """Report the checks and the memory."""
        checks, memory = record["checks"], record["memory"]
        self.say(
            "",
            f"5. The check: each of {checks['outputs']} attention outputs against dense float64 attention, and the",
            f"   keys and values of {checks['gathered']} sequences bit for bit.",
            f"   Largest error {checks['max_error']:.2g}, {checks['max_error_over_tolerance']:.0%} of what float32 "
            "rounding explains.",
            *(f"   FAILED: {failure}" for failure in checks["failures"][:MAX_FAILURES]),
        )
        if len(checks["failures"]) > MAX_FAILURES:
            self.say(f"   ... and {len(checks['failures']) - MAX_FAILURES} more")
        self.say("   Passed." if checks["passed"] else "   The check FAILED.", "")
        self.say(
            f"6. Memory when fullest: {memory['num_sequences']} sequences with {memory['num_tokens']:,} tokens.",
            "",
        )
        self._memory(memory)
        if "trace_memory" in record:
            whole = record["trace_memory"]
            self.say(
                "", f"   All {whole['num_requests']:,} requests of the trace at their ends, none shared:", ""
            )
            self._memory(whole)
        self.say("", f"{record['seconds']:.1f} s on the target {record['target']}.")

    def _map(self, pool: BlockAllocator) -> None:
        self.show(pool_map(pool, self.labels))

    def _memory(self, memory: dict[str, Any]) -> None:
        """Show what paging takes beside reserving the maximum length; waste is what holds no token."""
        stored, paged, reserved = (memory[f"{kind}_bytes"] for kind in ("stored", "paged", "reserved"))
        rows = [["tokens as stored", size(stored), ""]]
        for what, taken in (
            ("blocks (paging)", paged),
            (f"{memory['max_len']:,} tokens reserved each", reserved),
        ):
            rows.append([what, size(taken), f"{1 - stored / taken:.1%}"])
        self.show(table(["", "memory", "waste"], rows))
        self.say("", f"   Reserving takes {reserved / paged:.1f} times the memory of paging.")


def printable(text: bytes, limit: int = 44) -> str:
    """Return the start of a text on one line, without characters that a terminal would obey."""
    line = " ".join(text.decode(errors="replace").split())
    return "".join(c if c.isprintable() else "?" for c in line[:limit])
