"""
15 · A small server
===================

**How does one pool serve requests that come and go at any time?** A scheduler decides before each model step who takes
part.
"""

# %%
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.serving.toy_model import ToyModel

model = ToyModel(num_q_heads=4, num_kv_heads=2, head_dim=32)


@dataclass
class Request:
    name: str
    prompt: bytes
    num_new: int  # tokens to generate
    answer: bytes = b""
    todo: bytes = b""  # tokens whose keys and values are not in the cache


def dense_answer(prompt, num_new):
    """The answer without a cache: every step computes all tokens again."""
    tokens = prompt
    for _ in range(num_new):
        query, key, value = model.project(np.frombuffer(tokens, np.uint8), 0)
        out = pn.reference.attention(query[-1:], key, value)
        tokens += bytes([model.ranked_tokens(out[0])[0]])
    return tokens[len(prompt) :]


class Server:
    def __init__(self, num_blocks, forgets=False):
        self.cache = pn.PagedKVCache(num_blocks, block_size=4, num_kv_heads=2, head_dim=32)
        self.waiting, self.running, self.forgets = deque(), [], forgets
        self.schedule, self.num_preempted, self.num_steps = None, 0, 0

    def submit(self, request):
        request.todo = request.prompt
        self.waiting.append(request)

    def room(self, request):
        try:
            return self.cache.reserve(request.name, len(request.todo))
        except pn.OutOfBlocksError:
            return None

    def step(self):
        batch, slots = [], []
        for request in list(self.running):
            while request in self.running and (allocation := self.room(request)) is None:
                self.preempt(self.running.pop())
            if request in self.running:
                batch.append(request)
                slots.append(allocation.slots)
        while self.waiting and (allocation := self.room(self.waiting[0])) is not None:
            self.running.append(self.waiting.popleft())
            batch.append(self.running[-1])
            slots.append(allocation.slots)
        self.compute(batch, np.concatenate(slots))
        self.num_steps += 1

    def preempt(self, request):
        self.cache.preempt(request.name)
        request.todo = request.prompt if self.forgets else request.prompt + request.answer
        self.waiting.appendleft(request)
        self.num_preempted += 1

    def compute(self, batch, slots):
        parts = []
        for request in batch:
            start = self.cache.allocator.seq_len(request.name) - len(request.todo)
            parts.append(model.project(np.frombuffer(request.todo, np.uint8), start))
        query, key, value = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        rows = np.cumsum([0, *(len(request.todo) for request in batch)])
        self.cache.write_layer(0, key, value, slots)
        out = self.cache.attend([request.name for request in batch], query, cu_seqlens_q=rows)
        for request, last in zip(batch, rows[1:] - 1, strict=True):
            request.todo = bytes([model.ranked_tokens(out[last])[0]])
            request.answer += request.todo
            if len(request.answer) == request.num_new:
                self.cache.free(request.name)
                self.running.remove(request)


import time
PROMPTS = [(b"Paged attention keeps", 12), (b"Blocks", 16), (b"A server for", 9), (b"Who waits?", 14)]
t = time.time()
right = {prompt: dense_answer(prompt, n) for prompt, n in PROMPTS}
print(right, time.time() - t)
for num_blocks in (8, 9, 10, 12, 16, 24, 40):
  for forgets in (False, True):
    t = time.time()
    server = Server(num_blocks, forgets)
    requests = [Request(chr(65 + i), p, n) for i, (p, n) in enumerate(PROMPTS)]
    for r in requests:
        server.submit(r)
    while server.running or server.waiting:
        server.step()
    ok = [r.answer == right[r.prompt] for r in requests]
    print(num_blocks, forgets, server.num_steps, server.num_preempted, sum(len(r.answer) for r in requests) / server.num_steps, ok, time.time() - t)
