"""The batches that the page "A batch being served" plays: served by the package's cache and recorded from its pool.

``python docs/_ext/batches.py`` prints what happens in each.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from recorder import Recorder

import paged_numba as pn
from paged_numba.commands.tour import toy as tour_command
from paged_numba.lockstep.observe.observer import Observer, observing
from paged_numba.serving.toy.model import ToyModel
from paged_numba.serving.toy.server import Server

NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM = (
    tour_command.NUM_Q_HEADS,
    tour_command.NUM_KV_HEADS,
    tour_command.HEAD_DIM,
)
MODEL = ToyModel(NUM_Q_HEADS, NUM_KV_HEADS, HEAD_DIM)


class Request(NamedTuple):
    """A prompt, the tokens to generate after it, and the model step in which it arrives."""

    prompt: bytes
    num_new: int
    arrival: int = 0


class Launches(Observer):
    """Notes the kernel of each launch, and its threads in a thread block."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def begin_launch(self, machine: Any, function: Any, arguments: tuple[Any, ...]) -> None:
        """Note a launch."""
        self.seen.append((function.__name__, int(np.prod([int(size) for size in machine.blockDim]))))


class Batch:
    """A cache, the recorder of its pool, and a server for requests that come and go.

    The server is that of lesson 15: each running request first needs a slot for its last token, and if no block is
    free, the one that joined last gives way; then those that wait join in order.

    Parameters
    ----------
    requests : dict of str to Request
    num_blocks, block_size : int
    prefix_caching : bool
    swap : bool
        Whether a request that gives way is swapped out; else it is computed again.
    window : int, optional
        How many tokens a token sees.

    Attributes
    ----------
    answers : dict of str to bytes
    """

    def __init__(
        self,
        requests: dict[str, Request],
        num_blocks: int,
        block_size: int,
        *,
        prefix_caching: bool = False,
        swap: bool = False,
        window: int | None = None,
    ) -> None:
        self.cache = pn.PagedKVCache(
            num_blocks, block_size, NUM_KV_HEADS, HEAD_DIM, prefix_caching=prefix_caching, target="lockstep"
        )
        self.pool = self.cache.allocator
        self.recorder = Recorder(self.pool)
        self.requests, self.swap, self.window = requests, swap, window
        self.todo = {name: request.prompt for name, request in requests.items()}
        self.answers = dict.fromkeys(requests, b"")
        self.waiting: list[str] = []
        self.running: list[str] = []
        self.preempted: set[str] = set()
        self.queries: dict[str, Any] = {}

    def mark(self, say: str = "") -> None:
        """End a step of the recording."""
        self.recorder.mark(
            [
                (name, len(self.todo[name]), "preempted" if name in self.preempted else "new")
                for name in self.waiting
                if not self.pool.is_swapped(name)
            ],
            say,
        )

    def write(self, name: str) -> bool:
        """Write the keys and values that a request has none of yet; tell whether there were blocks for them."""
        pool, cache = self.pool, self.cache
        start = pool.seq_len(name) if name in pool or pool.is_swapped(name) else 0
        needed = -(-(start + len(self.todo[name])) // pool.block_size)
        if pool.is_swapped(name):
            if needed > pool.num_free_blocks:
                return False
            cache.swap_in(name)
        query, key, value = MODEL.project(np.frombuffer(self.todo[name], np.uint8), start)
        ids = [self.todo[name]] if pool.prefix_caching else []
        try:
            (cache.append if start else cache.add)(name, key, value, *map(list, ids))
        except pn.OutOfBlocksError:
            return False
        self.queries[name] = query[-1]
        return True

    def give_way(self, name: str) -> None:
        """Take its blocks from a request, which waits again."""
        self.running.remove(name)
        self.waiting.insert(0, name)
        self.preempted.add(name)
        if self.swap:
            self.cache.swap_out(name)
        else:
            self.cache.preempt(name)
            self.todo[name] = self.requests[name].prompt + self.answers[name]

    def attend(self) -> Any:
        """Attend from the last token of each request that runs."""
        queries = np.stack([self.queries[name] for name in self.running])
        return self.cache.attend(self.running, queries, window=self.window)

    def arrivals(self, step: int) -> Iterator[str]:
        """Yield the requests that arrive in a step."""
        return (name for name, request in self.requests.items() if request.arrival == step)

    def serve(self) -> None:
        """Serve all requests."""
        step = 0
        while any(len(self.answers[name]) < request.num_new for name, request in self.requests.items()):
            came = [*self.arrivals(step)]
            self.waiting += came
            if came:
                self.mark(f"{' and '.join(came) if len(came) < 3 else f'{came[0]} to {came[-1]}'} arrived.")
            step += 1
            for name in [*self.running]:
                while name in self.running and not self.write(name):
                    self.mark()
                    self.give_way(self.running[-1])
                    self.mark(f"No block is free for {name}'s next token. The last to join gives way.")
            self.mark()
            while self.waiting and self.write(self.waiting[0]):
                self.preempted.discard(self.waiting[0])
                self.running.append(self.waiting.pop(0))
                self.mark()
            self.model_step()

    def model_step(self) -> None:
        """Compute the next token of each request that runs; end those that have all of theirs."""
        if not self.running:
            return
        for name, row in zip([*self.running], self.attend(), strict=True):
            self.todo[name] = bytes(MODEL.ranked_tokens(row)[:1])
            self.answers[name] += self.todo[name]
            if len(self.answers[name]) == self.requests[name].num_new:
                self.running.remove(name)
                self.cache.free(name)
            elif self.window is not None:
                self.cache.release(name, self.window)
        self.mark()


def recording(
    title: str, about: str, cache: pn.PagedKVCache, recorder: Recorder, served: Any, window: int | None = None
) -> dict[str, Any]:
    """Return a recording as JSON holds it, with what made it."""
    pool = cache.allocator
    launches = Launches()
    cache_again = pn.PagedKVCache(2, pool.block_size, NUM_KV_HEADS, HEAD_DIM, target="lockstep")
    query, key, value = MODEL.project(np.zeros(1, np.uint8), 0)
    cache_again.add("a", key, value)
    with observing(launches):
        cache_again.attend(["a"], query)
    ((kernel, threads),) = launches.seen
    return {
        "title": title,
        "about": about,
        "made_by": {
            "version": f"paged_numba {pn.__version__}",
            "script": "docs/_ext/batches.py",
            "cache": f"PagedKVCache(num_blocks={pool.num_blocks}, block_size={pool.block_size}, "
            f"num_kv_heads={NUM_KV_HEADS}, head_dim={HEAD_DIM}"
            f"{', prefix_caching=True' * pool.prefix_caching})",
            "model": f"ToyModel(num_q_heads={NUM_Q_HEADS}, num_kv_heads={NUM_KV_HEADS}, head_dim={HEAD_DIM})",
            "requests": served,
        },
        "num_blocks": pool.num_blocks,
        "block_size": pool.block_size,
        "window": window,
        "launch": {"kernel": kernel, "threads": threads, "num_q_heads": NUM_Q_HEADS, "head_dim": HEAD_DIM},
        "steps": recorder.steps,
    }


def recorded(
    title: str, about: str, requests: dict[str, Request], *sizes: int, **options: Any
) -> dict[str, Any]:
    """Serve requests with a `Batch`, and return the recording."""
    batch = Batch(requests, *sizes, **options)
    batch.serve()
    served = {
        name: {"prompt": request.prompt.decode(), "new_tokens": request.num_new, "arrival": request.arrival}
        for name, request in requests.items()
    }
    return recording(title, about, batch.cache, batch.recorder, served, batch.window)


def tour() -> dict[str, Any]:
    """Return what ``paged-numba tour`` serves with the toy model."""
    requests = tour_command.workload(None, None, 8).requests
    num_blocks = tour_command.pool_size(requests)
    cache = pn.PagedKVCache(num_blocks, tour_command.BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM, target="lockstep")
    recorder, server = Recorder(cache.allocator), Server(cache, MODEL, requests)

    def mark(say: str = "") -> None:
        recorder.mark([(request.name, len(request.prompt), "new") for request in server.waiting], say)

    mark(f"The pool is empty, and {requests[0].name} to {requests[-1].name} wait.")
    first = requests[0].name
    for events in (server.admit(limit=1), server.fork(first, f"{first}'"), server.admit()):
        list(events)
        mark()
    while server.running:
        list(server.step())
        mark()
        list(server.admit())
        mark()
    served = {
        request.name: {"prompt": len(request.prompt), "new_tokens": request.max_new_tokens}
        for request in requests
    }
    about = (
        "The eight requests that the command paged-numba tour serves where no real model is installed. "
        "The first one is forked for a second answer. "
        "A request joins when the pool has room for it and for all that run until they are done."
    )
    return recording("The tour", about, cache, recorder, served)


def fork() -> dict[str, Any]:
    """Return three answers to one prompt."""
    prompt, lengths = b"Write a haiku about a", {"A": 14, "B": 6, "C": 9}
    batch = Batch({name: Request(prompt, length) for name, length in lengths.items()}, 12, 8)
    batch.mark("The pool is empty.")
    batch.write("A")
    batch.running.append("A")
    batch.mark()
    for child in ("B", "C"):
        batch.cache.fork("A", child)
        batch.running.append(child)
        batch.queries[child] = batch.queries["A"]
        batch.mark()
    first = MODEL.ranked_tokens(batch.attend()[0])
    for rank, name in enumerate(lengths):
        batch.todo[name] = batch.answers[name] = bytes(first[rank : rank + 1])
        batch.write(name)
        batch.mark()
    while batch.running:
        batch.model_step()
        for name in batch.running:
            batch.write(name)
        batch.mark()
    about = (
        "One prompt, three answers. A fork copies the block table and no block; a block that several hold is copied "
        "when one of them writes to it."
    )
    return recording("A fork", about, batch.cache, batch.recorder, lengths)


TIGHT = {
    "A": Request(b"Paged attention", 6),
    "B": Request(b"Poetry", 9),
    "C": Request(b"How to serve", 5),
    "D": Request(b"Why", 8),
}
"""The requests of lesson 15."""


def recompute() -> dict[str, Any]:
    """Return requests in a pool that is too small for them, computed again after preemption."""
    about = (
        "The four requests of lesson 15 in 7 blocks. When no block is free, the request that joined last gives up "
        "its blocks. Later it joins again, and the keys and values of its prompt and its answer are computed again."
    )
    return recorded("A tight pool: recompute", about, TIGHT, 7, 4)


def swap() -> dict[str, Any]:
    """Return the same requests, swapped out instead."""
    about = (
        "The same requests and pool. Now the keys and values of the request that gives way are copied to host "
        "memory, and later back into the pool, into whatever blocks are free."
    )
    return recorded("A tight pool: swap", about, TIGHT, 7, 4, swap=True)


def system_prompt() -> dict[str, Any]:
    """Return requests that begin with the same text."""
    system = b"You are a poet. "
    requests = {
        "A": Request(system + b"Sun?", 4),
        "B": Request(system + b"A moon?", 6, 2),
        "C": Request(system + b"Rain?", 4, 10),
        "D": Request(b"Add 17 and 25, and then 4 more", 6, 11),
        "E": Request(system + b"And snow?", 5, 19),
    }
    about = (
        "Four requests begin with the same 16 tokens. Full blocks stay in the prefix cache when their sequences end, "
        "until the pool needs them; a request that begins with the same tokens need not compute them."
    )
    return recorded("A shared system prompt", about, requests, 14, 4, prefix_caching=True)


def window() -> dict[str, Any]:
    """Return requests whose tokens see the last 8 tokens only."""
    requests = {
        "A": Request(b"Once upon a", 26),
        "B": Request(b"A tale of", 22, 2),
        "C": Request(b"The end", 18, 6),
    }
    about = (
        "Each token attends to the last 8 tokens of its sequence only. A block whose tokens no later token sees is "
        "released, so that each sequence holds 3 blocks of 4 tokens at most, however long its answer gets."
    )
    return recorded("A sliding window", about, requests, 10, 4, window=8)


BATCHES: dict[str, Callable[[], dict[str, Any]]] = {
    "tour": tour,
    "fork": fork,
    "recompute": recompute,
    "swap": swap,
    "system_prompt": system_prompt,
    "window": window,
}


@cache
def recordings() -> dict[str, dict[str, Any]]:
    """Serve all batches, and return their recordings by name."""
    return {name: make() for name, make in BATCHES.items()}


if __name__ == "__main__":
    for made in recordings().values():
        print(f"\n{made['title']}\n{made['about']}")
        for number, step in enumerate(made["steps"]):
            print(f"{number:3} {step['say']}")
