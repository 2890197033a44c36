"""The batches that the page "A batch being served" plays: served by the package's cache and recorded from its pool.

``python docs/_ext/batches.py`` prints what happens in each.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from recorder import Recorder, listed

import paged_numba as pn
from paged_numba.commands.tour import real as tour_command
from paged_numba.lockstep.observe.observer import Observer, observing

ALGORITHM = "block"
"""The kernel whose threads the page shows, for prompts, too."""


@cache
def checkpoint() -> pn.models.Checkpoint:
    """Return the small real model, with its tokenizer."""
    return pn.models.load("glassllm")


class Request(NamedTuple):
    """A prompt, the tokens to generate after it, and the model step in which it arrives."""

    prompt: str
    num_new: int
    arrival: int = 0


class Launches(Observer):
    """Notes the kernels of attention that are launched, and their threads in a thread block."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def begin_launch(self, machine: Any, function: Any, arguments: tuple[Any, ...]) -> None:
        """Note a launch."""
        if function.__name__.startswith("attention"):
            self.seen.add((function.__name__, int(np.prod([int(size) for size in machine.blockDim]))))


def new_cache(num_blocks: int, block_size: int, prefix_caching: bool) -> pn.PagedKVCache:
    """Return an empty cache for the model."""
    config = checkpoint().model.config
    return pn.PagedKVCache(
        num_blocks, block_size, config.num_kv_heads, config.head_dim,
        num_layers=config.num_layers, prefix_caching=prefix_caching, target="lockstep",
    )  # fmt: skip


class Batch:
    """A cache, the recorder of its pool, and a server for requests that come and go.

    The server is that of lesson 15 with a real model: each running request first needs a slot for its last token, and
    if no block is free, the one that joined last gives way; then those that wait join in order. Of the tokens that
    follow, the model's first choice is taken.

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
    answers : dict of str to list of int
    launches : Launches
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
        self.model, tokenizer = checkpoint().model, checkpoint().tokenizer
        self.cache = new_cache(num_blocks, block_size, prefix_caching)
        self.pool = self.cache.allocator
        self.recorder, self.launches = Recorder(self.pool), Launches()
        self.requests, self.swap, self.window = requests, swap, window
        self.prompts = {name: tokenizer.encode(request.prompt) for name, request in requests.items()}
        self.todo = dict(self.prompts)
        self.answers: dict[str, list[int]] = {name: [] for name in requests}
        self.slots: dict[str, Any] = {}
        self.waiting: list[str] = []
        self.running: list[str] = []
        self.preempted: set[str] = set()

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

    def reserve(self, name: str) -> bool:
        """Reserve slots for the tokens of a request that have no keys and values yet; tell whether blocks were free."""
        pool, tokens = self.pool, self.todo[name]
        if pool.is_swapped(name):
            if -(-(pool.seq_len(name) + len(tokens)) // pool.block_size) > pool.num_free_blocks:
                return False
            self.cache.swap_in(name)
        try:
            allocation = self.cache.reserve(name, tokens if pool.prefix_caching else len(tokens))
        except pn.OutOfBlocksError:
            return False
        self.slots[name] = allocation.slots
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
            self.todo[name] = self.prompts[name] + self.answers[name]

    def forward(self) -> Any:
        """Compute the tokens whose slots are reserved; return the logits after each request that runs."""
        names = self.running
        # What the prefix cache holds is not computed: a slot for each of the last tokens.
        counts = {name: len(self.slots[name]) for name in names}
        tokens = np.concatenate([self.todo[name][-count:] for name, count in counts.items()])
        ends = {name: self.pool.seq_len(name) for name in names}
        positions = np.concatenate(
            [np.arange(ends[name] - count, ends[name]) for name, count in counts.items()]
        )
        starts = np.concatenate([[0], np.cumsum([*counts.values()])]).astype(np.int32)
        plan = self.cache.plan(
            names, self.model.config.num_q_heads, slots=np.concatenate([self.slots[name] for name in names]),
            cu_seqlens_q=starts, window=self.window, algorithm=ALGORITHM,
        )  # fmt: skip

        def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
            plan.write(layer, key, value)
            return plan.attend(layer, query)

        with observing(self.launches):
            logits = self.model.forward(tokens, positions, attend, rows=starts[1:] - 1)
        for name in names:
            self.cache.commit(name)
        return logits

    def likeliest(self, logits: Any, count: int = 1) -> list[int]:
        """Return the tokens with the largest logits."""
        return np.argsort(-logits)[:count].tolist()

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
                while name in self.running and not self.reserve(name):
                    self.mark()
                    self.give_way(self.running[-1])
                    self.mark(f"No block is free for {name}'s next token. The last to join gives way.")
            self.mark()
            while self.waiting and self.reserve(self.waiting[0]):
                self.preempted.discard(self.waiting[0])
                self.running.append(self.waiting.pop(0))
                self.mark()
            self.model_step()

    def model_step(self) -> None:
        """Compute the next token of each request that runs; end those that have all of theirs."""
        if not self.running:
            return
        for name, row in zip([*self.running], self.forward(), strict=True):
            self.todo[name] = self.likeliest(row)
            self.answers[name] += self.todo[name]
            if len(self.answers[name]) == self.requests[name].num_new:
                self.running.remove(name)
                self.cache.free(name)
            elif self.window is not None:
                self.cache.release(name, self.window)
        self.mark()


def recording(
    title: str,
    about: str,
    cache: pn.PagedKVCache,
    recorder: Recorder,
    launches: Launches,
    served: dict[str, Any],
    window: int | None = None,
) -> dict[str, Any]:
    """Return a recording as JSON holds it, with what made it."""
    pool, loaded = cache.allocator, checkpoint()
    config = loaded.model.config
    ((kernel, threads),) = launches.seen
    return {
        "title": title,
        "about": about,
        "made_by": {
            "version": f"paged_numba {pn.__version__}",
            "script": "docs/_ext/batches.py",
            "cache": f"PagedKVCache(num_blocks={pool.num_blocks}, block_size={pool.block_size}, "
            f"num_kv_heads={config.num_kv_heads}, head_dim={config.head_dim}, num_layers={config.num_layers}"
            f"{', prefix_caching=True' * pool.prefix_caching})",
            "model": f"{loaded.name} ({loaded.licence})",
            "algorithm": ALGORITHM,
            "requests": served,
        },
        "num_blocks": pool.num_blocks,
        "block_size": pool.block_size,
        "window": window,
        "launch": {
            "kernel": kernel,
            "threads": threads,
            "num_q_heads": config.num_q_heads,
            "head_dim": config.head_dim,
        },
        "steps": recorder.steps,
    }


def recording_of(title: str, about: str, batch: Batch) -> dict[str, Any]:
    """Return the recording of a batch that was served."""
    served = {
        name: {"prompt": request.prompt, "new_tokens": request.num_new, "arrival": request.arrival}
        for name, request in batch.requests.items()
    }
    return recording(title, about, batch.cache, batch.recorder, batch.launches, served, batch.window)


def recorded(
    title: str, about: str, requests: dict[str, Request], *sizes: int, **options: Any
) -> dict[str, Any]:
    """Serve requests with a `Batch`, and return the recording."""
    batch = Batch(requests, *sizes, **options)
    batch.serve()
    return recording_of(title, about, batch)


def tour() -> dict[str, Any]:
    """Return what ``paged-numba tour`` serves with the real model."""
    loaded = checkpoint()
    _, requests = tour_command.requests_of(loaded, None, 8)
    cache = new_cache(tour_command.pool_size(requests), tour_command.BLOCK_SIZE, prefix_caching=True)
    recorder, launches = Recorder(cache.allocator), Launches()

    engine = pn.serving.Engine(loaded.model, cache, algorithm=ALGORITHM)
    scheduler = engine.scheduler

    def mark(say: str = "") -> None:
        recorder.mark(
            [
                (str(answer.id), len(answer.tokens), "preempted" if answer.num_preemptions else "new")
                for answer in scheduler.waiting
                if answer.id not in cache  # the one that joins is still in the list
            ],
            say,
        )

    # A step of the engine becomes several: those that run grow; others give way, join and leave, one by one.
    reserve, reserve_batch = cache.reserve, cache.reserve_batch
    preempt, remove = scheduler.preempt, scheduler.remove

    def grow(*args: Any, **options: Any) -> Any:
        with recorder.attempt():
            allocation = reserve_batch(*args, **options)
        mark()
        return allocation

    def join(*args: Any, **options: Any) -> Any:
        allocation = reserve(*args, **options)
        mark()
        return allocation

    def give_way(answer: Any) -> None:
        preempt(answer)
        mark("Too few blocks are free for the next tokens. The last to come gives way.")

    def leave(answer: Any) -> None:
        remove(answer)
        mark()

    for watched, name, call in (
        (cache, "reserve_batch", grow), (cache, "reserve", join),
        (scheduler, "preempt", give_way), (scheduler, "remove", leave),
    ):  # fmt: skip
        setattr(watched, name, call)
    for request in requests:
        engine.add_request(request.tokens, request.params, request_id=request.name)
    mark(f"The pool is empty, and {requests[0].name} to {requests[-1].name} wait.")
    with observing(launches):
        while engine.has_unfinished:
            engine.step()
            held_back = [str(answer.id) for answer in scheduler.held_back]
            mark(
                f"{listed(held_back)} waited, to share blocks that were computed in this step."
                if held_back
                else ""
            )
    served = {
        request.name: {"prompt": request.text, "new_tokens": request.params.max_tokens}
        for request in requests
    }
    about = (
        "The eight requests that the command paged-numba tour serves, with the package's engine. The first one is "
        "forked for a second answer. Three begin alike, and share blocks of the prefix cache. If too few blocks are "
        "free for the next tokens, the request that came last gives up its blocks. Later it is computed again."
    )
    return recording("The tour", about, cache, recorder, launches, served)


def fork() -> dict[str, Any]:
    """Return three answers to one prompt."""
    prompt, lengths = (
        "“Tell us a story,” said the March Hare to the Dormouse, and she",
        {"A": 14, "B": 6, "C": 9},
    )
    batch = Batch({name: Request(prompt, length) for name, length in lengths.items()}, 12, 8)
    batch.mark("The pool is empty.")
    batch.reserve("A")
    batch.running.append("A")
    batch.mark()
    (logits,) = batch.forward()
    for child in ("B", "C"):
        batch.cache.fork("A", child)
        batch.running.append(child)
        batch.mark()
    for name, token in zip(lengths, batch.likeliest(logits, len(lengths)), strict=True):
        batch.todo[name] = [token]
        batch.answers[name] = [token]
        batch.reserve(name)
        batch.mark()
    while batch.running:
        batch.model_step()
        for name in batch.running:
            batch.reserve(name)
        batch.mark()
    about = (
        "One prompt, three answers. They begin with the three likeliest tokens. A fork copies the block table and no "
        "block; a block that several hold is copied when one of them writes to it."
    )
    return recording_of("A fork", about, batch)


TIGHT = {
    "A": Request("The King looked at Alice, and then he said to the Gryphon", 6),
    "B": Request("The Cat looked at the", 9),
    "C": Request("“Who are you?” said the Cat to the King", 5),
    "D": Request("“No, no", 8),
}
"""Requests with as many tokens as those of lesson 15."""


def recompute() -> dict[str, Any]:
    """Return requests in a pool that is too small for them, computed again after preemption."""
    about = (
        "Four requests, as long as those of lesson 15, in 7 blocks. When no block is free, the request that joined "
        "last gives up its blocks. Later it joins again, and the keys and values of its prompt and its answer are "
        "computed again."
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
    opening = "Alice was sitting under the old tree by the river."
    other = (
        "“You should never eat a cake that is smaller than yourself,” said the King, "
        "and the Cat looked at Alice, and said"
    )
    requests = {
        "A": Request(opening + " The Cat said", 4),
        "B": Request(opening + " A very old Knight sat there", 6, 2),
        "C": Request(opening + " The White Rabbit said", 4, 10),
        "D": Request(other, 6, 11),
        "E": Request(opening + " The Mock Turtle opened the book and", 5, 19),
    }
    about = (
        "Four requests begin with the same 16 tokens, as chats begin with the same system prompt. Full blocks stay in "
        "the prefix cache when their sequences end, until the pool needs them; a request that begins with the same "
        "tokens need not compute them."
    )
    return recorded("A shared system prompt", about, requests, 14, 4, prefix_caching=True)


def window() -> dict[str, Any]:
    """Return requests whose tokens see the last 8 tokens only."""
    requests = {
        "A": Request("Once upon a time there was an old man", 26),
        "B": Request("Then the White Queen began to cry", 22, 2),
        "C": Request("At last the Queen began to", 18, 6),
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
