"""The text that ``paged-numba tour`` prints: the requests, each event of serving, the check, the memory."""

from __future__ import annotations

from typing import Any

from ...allocator.allocator import BlockAllocator
from ...draw.text import block_tables, pool_map, shortened, size, table
from ...progress import write
from ...serving.toy.server import Event

INDENT = "   "
MAX_FAILURES = 10
MAX_GROWTHS = 2
"""How many times the tour reports that a sequence takes one more block."""


class Narrator:
    """Prints each part of the tour as it happens; prints nothing if `quiet`.

    Attributes
    ----------
    events : list of Event
        All events so far.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.events: list[Event] = []
        self.labels: dict[Any, str] = {}
        self.num_growths = 0

    def say(self, *lines: str) -> None:
        """Print lines, above a progress bar if there is one."""
        if not self.quiet:
            write("\n".join(lines))

    def show(self, text: str) -> None:
        """Print a table or a map."""
        self.say(*(INDENT + line for line in text.splitlines()))

    def introduce(
        self, target: str, source: str, requests: list[tuple[str, str, int, int]], remarks: list[str]
    ) -> None:
        """Print the target, the requests (name, text, prompt tokens, tokens to generate), and remarks on them."""
        meaning = {
            "lockstep": "all threads advance together, on NumPy; no GPU is used",
            "cuda": "compiled by Numba for the GPU",
            "cudasim": "Numba's simulator, one operating-system thread per CUDA thread: slow",
        }[target]
        self.say(f"1. The kernels run on the target {target}: {meaning}.", "")
        self.say(f"2. The requests: {source}.", "")
        rows = [[name, text, *map(str, numbers)] for name, text, *numbers in requests]
        self.show(table(["", "prompt", "tokens", "to generate"], rows, left=2))
        self.say("", *(INDENT + remark for remark in remarks))
        self.labels = {name: name[-1] for name, *_ in requests}

    def describe_pool(self, pool: BlockAllocator, block_bytes: int, crowded: bool) -> None:
        """Print the size of the pool and how to read its map."""
        self.say(
            "",
            f"3. The pool: {pool.num_blocks} blocks of {pool.block_size} tokens. The keys and values of a block take",
            f"   {size(block_bytes)}, those of the pool {size(pool.num_blocks * block_bytes)}."
            + (" The pool cannot hold all requests at once." if crowded else ""),
            "   In the maps below, each character is a block: the letter of the sequence that uses it,",
            "   + if several sequences share it, . if it is free.",
            "",
            "4. Serving:",
        )

    def narrate(self, event: Event, pool: BlockAllocator) -> None:
        """Record an event; print it if it changes the pool."""
        self.events.append(event)
        names, detail = ", ".join(event.names), event.detail
        step = f"{INDENT}step {event.step}:"
        if event.kind == "admit":
            prompts = "the prompt into its" if len(event.names) == 1 else "the prompts into their"
            self.say("", f"{step} {names} admitted. A kernel writes the keys and values of {prompts} blocks.")
            for name, count in detail.get("cached_tokens", {}).items():
                if count:
                    self.say(
                        f"{INDENT}The prefix cache already held {count} tokens of {name}: their blocks are shared."
                    )
            if detail["waiting"]:
                self.say(f"{INDENT}Waiting: {', '.join(detail['waiting'])}.")
            held_back = detail.get("held_back", ())
            if held_back:
                begin = "begins" if len(held_back) == 1 else "begin"
                self.say(
                    f"{INDENT}{', '.join(held_back)} {begin} like a prompt of this step; once its blocks are computed, "
                    "they can be shared."
                )
            ids = {str(seq_id): seq_id for seq_id in pool}
            self.show(block_tables(pool, [ids[name] for name in event.names]))
            self._map(pool)
        elif event.kind == "fork":
            parent, child = event.names
            self.labels[child] = self.labels[parent].lower()
            self.say(
                "",
                f"{step} {parent} is forked into {child} ({self.labels[child]} on the map), for a second answer.",
                f"{INDENT}Nothing is copied: both block tables hold {shortened(detail['shared_blocks'])}.",
            )
            if detail["is_full"]:
                self.say(
                    f"{INDENT}The last block is full, so each takes a new block for its next token; none is copied."
                )
            self._map(pool)
        elif event.kind == "copy":
            self.say(
                "",
                f"{step} {names} appends to block {detail['source']}, which is shared and not full: copy-on-write.",
                f"{INDENT}{names} first gets its own copy, block {detail['copy']}. The full blocks stay shared.",
            )
        elif event.kind == "grow" and self.num_growths < MAX_GROWTHS:
            self.num_growths += 1
            self.say(f"{step} {names} has filled its blocks and takes block {detail['block']}.")
        elif event.kind == "preempt":
            self.say(
                "",
                f"{step} no block is free, so {names}, which came last, gives up its blocks and waits.",
            )
            self._map(pool)
        elif event.kind == "free":
            count = len(detail["blocks"])
            self.say(
                f"{step} {names} is done and lets go of its {count} blocks; "
                f"{pool.num_free_blocks} are free after the step."
            )
            if "text" in detail:
                self.say(f"{INDENT}{names} writes: {printable(detail['text'].encode(), 80)}")

    def conclude(self, checked: list[str], failures: list[str], passed: bool) -> None:
        """Print what was checked, and the result."""
        self.say("", f"5. The check: {checked[0]}", *(INDENT + line for line in checked[1:]))
        self.say(*(f"   FAILED: {failure}" for failure in failures[:MAX_FAILURES]))
        if len(failures) > MAX_FAILURES:
            self.say(f"   ... and {len(failures) - MAX_FAILURES} more")
        self.say("   Passed." if passed else "   The check FAILED.", "")

    def sum_up(self, memory: dict[str, Any], trace_memory: dict[str, Any] | None) -> None:
        """Print the memory at the fullest step and, if given, that of a whole trace."""
        self.say(
            f"6. Memory at the step with the most blocks in use, for {memory['num_sequences']} sequences with"
            f" {memory['num_tokens']:,} tokens:",
            "",
        )
        self._memory(memory)
        if trace_memory is not None:
            self.say(
                "",
                f"   All {trace_memory['num_requests']:,} requests of the trace, each at its full length, "
                "without sharing:",
                "",
            )
            self._memory(trace_memory)

    def _map(self, pool: BlockAllocator) -> None:
        # Of a fork in the same step, the label is not known yet.
        labels = {seq_id: self.labels.get(str(seq_id), str(seq_id)[0].lower()) for seq_id in pool}
        self.show(pool_map(pool, labels))

    def _memory(self, memory: dict[str, Any]) -> None:
        """Print the memory that paging takes, and that reservations of the maximum length would take."""
        stored, paged, reserved = (memory[f"{kind}_bytes"] for kind in ("stored", "paged", "reserved"))
        rows = [["tokens as stored", size(stored), ""]]
        for what, taken in (
            ("blocks (paging)", paged),
            (f"{memory['max_len']:,} tokens reserved each", reserved),
        ):
            rows.append([what, size(taken), f"{1 - stored / taken:.1%}"])
        self.show(table(["", "memory", "waste"], rows))
        self.say(
            "",
            "   Waste is the share of the memory that holds no token. Shared tokens are stored once.",
            f"   Reserving takes {reserved / paged:.1f} times as much memory as paging.",
        )


def printable(text: bytes, limit: int = 44) -> str:
    """Return the start of a text on one line; control characters become question marks."""
    line = " ".join(text.decode(errors="replace").split())
    return "".join(c if c.isprintable() else "?" for c in line[:limit])
