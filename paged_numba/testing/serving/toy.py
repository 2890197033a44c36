"""A property of the toy server: which answers they give does not depend on the memory that they have."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ...cache import PagedKVCache
from ...serving.toy import preempting
from ...serving.toy.model import ToyModel
from ...serving.toy.requests import Request, name_of

BLOCK_SIZE = 4
MODEL = ToyModel(num_q_heads=2, num_kv_heads=1, head_dim=8)


class Workload(NamedTuple):
    """Requests, as lengths of prompt and answer, and how many blocks the pool has beyond those of the longest."""

    requests: list[tuple[int, int]]
    spare_blocks: int


def workloads() -> st.SearchStrategy[Workload]:
    """Return workloads, which shrink to few short requests and a pool that holds the longest alone."""
    lengths = st.tuples(st.integers(1, 2 * BLOCK_SIZE), st.integers(1, 2 * BLOCK_SIZE))
    return st.builds(Workload, st.lists(lengths, min_size=1, max_size=4), st.integers(0, 4))


def serve(workload: Workload, num_blocks: int | None = None) -> Any:
    """Serve all requests; return the server, which has their texts and counts.

    Parameters
    ----------
    workload : Workload
    num_blocks : int, optional
        Blocks of the pool. By default, those of the longest request and the spare ones.
    """
    requests = [
        Request(name_of(number), np.arange(5 * number, 5 * number + prompt, dtype=np.uint8), answer)
        for number, (prompt, answer) in enumerate(workload.requests)
    ]
    longest = max(-(-request.final_length // BLOCK_SIZE) for request in requests)
    cache = PagedKVCache(
        num_blocks or longest + workload.spare_blocks,
        BLOCK_SIZE,
        num_kv_heads=MODEL.num_kv_heads,
        head_dim=MODEL.head_dim,
        target="lockstep",
    )
    server = preempting.PreemptingServer(cache, MODEL, requests)
    while server.waiting or server.running:
        deque(server.admit(), maxlen=0)
        deque(server.step(), maxlen=0)
    return server


def answers_do_not_depend_on_the_pool(workload: Workload) -> None:
    """A server gives the same answers with a small pool, in which it preempts, and with one that holds everything."""
    tight, ample = serve(workload), serve(workload, num_blocks=4 * len(workload.requests))
    assert ample.cache.allocator.stats().num_preemptions == 0
    for name, answer in ample.texts.items():
        assert tight.texts[name] == answer, f"{name} gets another answer when it is preempted"
    assert tight.checks.passed
