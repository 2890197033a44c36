"""Recordings of pools with what the allocator itself said at each step, and a recording of 1,000 blocks."""

import functools
import itertools
import sys

import numpy as np
from site_folder import ROOT

import paged_numba as pn

sys.path.append(str(ROOT / "docs" / "_ext"))

from batches import BATCHES, TIGHT, Batch
from recorder import Recorder

__all__ = [
    "GAPS",
    "SERVED",
    "TIGHT",
    "Batch",
    "Recorder",
    "at_random",
    "batches",
    "large",
    "pool_at",
    "pools",
    "state_of",
]

WATCHED_MARK, WATCHED_LIKELIEST = Recorder.mark, Batch.likeliest
MADE = {}
"""By name, the calls of each step of a recording."""
GAPS = {}
"""By name, the smallest difference of two logits that decided about a token."""
SERVED = {}
"""By name, the `Batch` that served a recording, if one did."""


def state_of(pool):
    """Return what a pool says of itself, in the words of a page's state."""
    stats = pool.stats()
    return {
        "tables": {str(seq): [pool.seq_len(seq), pool.block_table(seq).tolist()] for seq in pool},
        "used": stats.num_used_blocks,
        "shared": stats.num_shared_blocks,
        "cached": stats.num_cached_blocks,
        "free": stats.num_free_blocks - stats.num_cached_blocks,
        "stored": stats.num_stored_tokens,
        "swapped": stats.num_swapped_sequences,
        "findable": [block for block in range(pool.num_blocks) if pool.is_cached(block)],
    }


@functools.cache
def batches():
    """Return by name each recording that the site has, made again, and the pool's own states."""
    made = {}
    for name, make in BATCHES.items():
        states = []
        MADE[name], GAPS[name] = [], np.inf

        def mark(recorder, *args, states=states, made=MADE[name], **options):
            before = len(recorder.steps)
            WATCHED_MARK(recorder, *args, **options)
            if len(recorder.steps) > before:
                states.append(state_of(recorder.pool))
                made.append(recorder.made[-1])

        def likeliest(batch, logits, count=1, name=name):
            largest = np.sort(logits)[::-1][: count + 1]
            SERVED[name] = batch
            GAPS[name] = min(GAPS[name], (largest[:-1] - largest[1:]).min())
            return WATCHED_LIKELIEST(batch, logits, count)

        Recorder.mark, Batch.likeliest = mark, likeliest
        try:
            made[name] = make(), states
        finally:
            Recorder.mark, Batch.likeliest = WATCHED_MARK, WATCHED_LIKELIEST
    return made


def pools(name):
    """Yield after each step of a recording a pool that got the calls so far, made again."""
    recording, _ = batches()[name]
    caching = "prefix_caching=True" in recording["made_by"]["cache"]
    pool = pn.BlockAllocator(recording["num_blocks"], recording["block_size"], prefix_caching=caching)
    for calls in MADE[name]:
        for method, seq, args, options in calls:
            getattr(pool, method)(seq, *args, **options)
        yield pool


def pool_at(name, step):
    """Return the pool of a recording after a step."""
    return next(itertools.islice(pools(name), step, None))


def at_random(seed, num_steps=60):
    """Return a recording of random calls of every kind, and the pool's own states."""
    random = np.random.default_rng(seed)
    pool = pn.BlockAllocator(24, 4, prefix_caching=bool(seed % 2))
    recorder, states, number, swapped = Recorder(pool), [], 0, []
    while len(recorder.steps) < num_steps:
        names = [*pool]
        name = names[random.integers(len(names))] if names else None
        ids = random.integers(0, 2, random.integers(1, 14))
        call = random.integers(9) if name else 0
        try:
            if call <= 1:
                pool.add(f"S{number}", ids if pool.prefix_caching else len(ids))
                pool.commit(f"S{number}")
                number += 1
            elif call == 2:
                pool.fork(name, f"S{number}")
                number += 1
            elif call == 3 and swapped:
                pool.swap_in(swapped[-1])
                swapped.pop()
            elif call == 4:
                pool.swap_out(name)
                swapped.append(name)
            elif call == 5:
                pool.release(name, 5)
            elif call == 6:
                (pool.free if random.random() < 0.5 else pool.preempt)(name)
            else:
                pool.append(name, ids[:3] if pool.prefix_caching else len(ids[:3]))
                pool.commit(name)
        except pn.OutOfBlocksError:
            pool.free(name)
        before = len(recorder.steps)
        recorder.mark()
        if len(recorder.steps) > before:
            states.append(state_of(pool))
    return {"num_blocks": 24, "block_size": 4, "steps": recorder.steps}, states


def large(num_blocks=1000, block_size=16, num_steps=60):
    """Return a recording of a pool of 1,000 blocks that is nearly full all the time, in the form of the site's."""
    pool = pn.BlockAllocator(num_blocks, block_size)
    recorder, random = Recorder(pool), np.random.default_rng(0)
    number, waits = 0, 300
    for _ in range(num_steps):
        while pool.can_allocate(waits + block_size * len(pool)):
            pool.add(f"R{number}", waits)
            number, waits = number + 1, int(random.integers(50, 900))
        recorder.mark([(f"R{number}", waits, "new")])
        for name in pool:
            # An answer has 100 tokens on average.
            if random.random() < 0.01 or not pool.num_free_blocks:
                pool.free(name)
            else:
                pool.append(name)
        recorder.mark([(f"R{number}", waits, "new")])
    return {
        "title": "A large pool",
        "about": "",
        "made_by": {
            "version": "",
            "script": "",
            "cache": "",
            "model": "",
            "algorithm": "block",
            "requests": {},
        },
        "num_blocks": num_blocks,
        "block_size": block_size,
        "window": None,
        "launch": {"kernel": "attention_block_kernel", "threads": 64, "num_q_heads": 8, "head_dim": 64},
        "steps": recorder.steps,
    }
