"""``paged-numba bench allocator``: time and memory for each block, in pools of 1e3 to 1e7 blocks."""

from __future__ import annotations

import time
import timeit
import tracemalloc
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...allocator.allocator import BlockAllocator
from ...allocator.transactions import UndoLog, transaction
from ...draw.text import table
from ...progress import progress
from ..options import deliver
from .provenance import as_json, provenance

BLOCK_SIZE = 16
BLOCKS_PER_SEQUENCE = 100
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
SAMPLE = 2000
"""Most sequences to time an operation on; `add`, `commit` and `free` are timed on all."""

LEAST_BLOCKS = 10**5
"""Least number of blocks to time. A small pool is used repeatedly to reach this number."""

MEMORY_BLOCKS = 10**5
CALLS = 10**5


def token_ids(seq: int) -> Any:
    """Return token ids that no other sequence has and that fill whole blocks, int64[num_tokens]."""
    count = BLOCKS_PER_SEQUENCE * BLOCK_SIZE
    return np.arange(count * seq, count * (seq + 1))


class Stopwatch:
    """Seconds for each operation, and the number of blocks that it handled."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.blocks: dict[str, int] = {}

    def time(self, operation: str, calls: Iterable[Callable[[], object]]) -> None:
        """Time each call; a call handles `BLOCKS_PER_SEQUENCE` blocks."""
        seconds, count = 0.0, 0
        for call in calls:
            start = time.perf_counter()
            call()
            seconds += time.perf_counter() - start
            count += BLOCKS_PER_SEQUENCE
        self.seconds[operation] = self.seconds.get(operation, 0) + seconds
        self.blocks[operation] = self.blocks.get(operation, 0) + count

    def microseconds(self) -> dict[str, float]:
        """Return the microseconds for one block, by operation."""
        return {name: seconds / self.blocks[name] * 1e6 for name, seconds in self.seconds.items()}


def use(num_blocks: int, watch: Stopwatch) -> None:
    """Fill a pool, time every operation on it, and empty it."""
    pool = BlockAllocator(num_blocks, BLOCK_SIZE, prefix_caching=True)
    everything = range(num_blocks // BLOCKS_PER_SEQUENCE)
    some = everything[-SAMPLE:]

    def add(seq: int) -> Callable[[], object]:
        ids = token_ids(seq)
        return lambda: pool.add(seq, ids)

    def each(call: Callable[[Hashable], object], seqs: Iterable[Hashable]) -> Iterable[Callable[[], object]]:
        return (lambda seq=seq: call(seq) for seq in seqs)  # type: ignore[misc]

    watch.time("add", map(add, everything))
    watch.time("commit", each(pool.commit, everything))
    watch.time("fork", (lambda seq=seq: pool.fork(seq, -1 - seq) for seq in some))  # type: ignore[misc]
    watch.time("free of a fork", each(pool.free, (-1 - seq for seq in some)))
    watch.time("free", each(pool.free, everything))
    # The last block of each sequence is always computed again, so a cached block is evicted for it.
    watch.time("add, cached", map(add, some))
    for seq in some:
        pool.free(seq)
    others = range(len(everything), len(everything) + len(some))
    watch.time("add, evicting", map(add, others))
    for seq in others:
        pool.free(seq)

    # One block at a time, as a sequence grows while it decodes.
    def grow(seq: int) -> Callable[[], object]:
        ids = token_ids(seq).reshape(-1, BLOCK_SIZE)
        pool.add(seq, ids[0, :0])

        def run() -> None:
            for block_ids in ids:
                pool.append(seq, block_ids)

        return run

    for seq in others[: max(1, len(others) // 10)]:
        watch.time("append, block by block", [grow(seq)])
        pool.free(seq)


def hashing() -> float:
    """Return the microseconds that a plain dictionary takes to hash and insert the token ids of a block."""
    keys = [token_ids(seq).tobytes()[: BLOCK_SIZE * 8] for seq in range(MEMORY_BLOCKS)]
    start = time.perf_counter()
    known = {key: place for place, key in enumerate(keys)}
    return (time.perf_counter() - start) / len(known) * 1e6


def transactions() -> dict[str, float]:
    """Return the microseconds that a call spends on its transaction, and of these on its lock."""

    class Owner:
        def __init__(self) -> None:
            self._undo = UndoLog()

        def _recount(self) -> None:
            pass

        def plain(self) -> None:
            pass

        @transaction
        def in_transaction(self) -> None:
            pass

        def locked(self) -> None:
            self._undo.lock.acquire()
            self._undo.lock.release()

    def microseconds(call: Callable[[], object]) -> float:
        return min(timeit.repeat(call, number=CALLS, repeat=5)) / CALLS * 1e6

    owner = Owner()
    plain = microseconds(owner.plain)
    return {
        "transaction": microseconds(owner.in_transaction) - plain,
        "lock": microseconds(owner.locked) - plain,
    }


def memory() -> dict[str, float]:
    """Return the bytes for each block, measured by tracemalloc, of an empty and of a full pool."""

    def bytes_per_block(prefix_caching: bool, fill: bool) -> float:
        tracemalloc.start()
        pool = BlockAllocator(MEMORY_BLOCKS, BLOCK_SIZE, prefix_caching=prefix_caching)
        if fill:
            for seq in range(MEMORY_BLOCKS // BLOCKS_PER_SEQUENCE):
                pool.add(seq, token_ids(seq))
                pool.commit(seq)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size / MEMORY_BLOCKS

    return {
        "free": bytes_per_block(False, False),
        "in use": bytes_per_block(False, True),
        "free, with the prefix cache": bytes_per_block(True, False),
        "in use, with the prefix cache": bytes_per_block(True, True),
    }


def run(json_path: Path | None, commit: str | None) -> int:
    """Measure, print and write JSON; return the exit status."""
    times: dict[int, dict[str, float]] = {}
    with progress(sum(SIZES), "bench allocator", "blocks") as done:
        for size in SIZES:
            watch = Stopwatch()
            for _ in range(max(1, LEAST_BLOCKS // size)):
                use(size, watch)
            times[size] = watch.microseconds()
            done(size)
    exponents = {
        name: float(np.polyfit(np.log(SIZES), np.log([times[size][name] for size in SIZES]), 1)[0])
        for name in times[SIZES[0]]
    }
    rows = [
        [name, *(f"{times[size][name]:.2f}" for size in SIZES), f"{exponent:+.3f}"]
        for name, exponent in exponents.items()
    ]
    alone, overhead, bytes_per_block = hashing(), transactions(), memory()
    text = "\n".join([
        f"Microseconds for a block of {BLOCK_SIZE} tokens, in sequences of {BLOCKS_PER_SEQUENCE}, with prefix caching.",
        table(["blocks in the pool", *(f"1e{len(str(size)) - 1}" for size in SIZES), "exponent"], rows),
        f"A plain dictionary takes {alone:.2f} microseconds to hash and insert the token ids of a block.",
        f"Each call that changes the pool is a transaction, which takes {overhead['transaction']:.2f} microseconds, "
        f"{overhead['lock']:.2f} of them for the lock.",
        table(["bytes for a block", ""], [[name, f"{size:.0f}"] for name, size in bytes_per_block.items()]),
    ])  # fmt: skip
    figures = {
        "microseconds": {str(size): found for size, found in times.items()},
        "exponents": exponents,
        "hashing_microseconds": alone,
        "transaction_microseconds": overhead["transaction"],
        "lock_microseconds": overhead["lock"],
        "bytes_per_block": bytes_per_block,
    }
    record = {"benchmark": "allocator", **figures}
    deliver(text, (json_path, lambda: as_json({**record, "provenance": provenance(commit)})))
    return 0
