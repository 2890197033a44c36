"""A recording of a pool of 1,000 blocks, for the measure of what a step costs."""

import numpy as np
from recorder import Recorder

import paged_numba as pn

NUM_BLOCKS, BLOCK_SIZE, NUM_STEPS = 1000, 16, 80


def large_batch():
    """Return a recording of a pool of 1,000 blocks that is nearly full all the time."""
    pool = pn.BlockAllocator(NUM_BLOCKS, BLOCK_SIZE)
    recorder, random = Recorder(pool), np.random.default_rng(0)
    lengths = iter(random.integers(50, 900, 10_000).tolist())
    number, waits = 0, next(lengths)
    for _ in range(NUM_STEPS):
        while pool.can_allocate(waits + BLOCK_SIZE * len(pool)):
            pool.add(f"R{number}", waits)
            number, waits = number + 1, next(lengths)
        recorder.mark([(f"R{number}", waits, "new")])
        for name in pool:
            # An answer has 100 tokens on average.
            if random.random() < 0.01 or not pool.num_free_blocks:
                pool.free(name)
            else:
                pool.append(name)
        recorder.mark([(f"R{number}", waits, "new")])
    return {
        "title": "Large",
        "about": "A large pool.",
        "made_by": {"version": pn.__version__, "script": "tests", "cache": "BlockAllocator", "requests": {}},
        "num_blocks": NUM_BLOCKS,
        "block_size": BLOCK_SIZE,
        "window": None,
        "launch": {"kernel": "attention_block_kernel", "threads": 64, "num_q_heads": 8, "head_dim": 64},
        "steps": recorder.steps,
    }
