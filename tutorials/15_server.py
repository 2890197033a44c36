"""
15 · A small server
===================

**How does one pool serve requests that come at any time, and whose length nobody knows?** Before each model step, a few
lines decide who takes part and who gives up blocks. You will see requests join in the middle of others' answers, a
server that is right until memory runs short, a test for any order of arrival, and the price of a small pool.
"""

# %%
# The package's toy model has one attention layer with random weights. Its tokens are bytes that mean nothing, but the
# most likely next one follows from those before it. The oracle is the dense model, which computes all at each step.

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.serving.toy_model import ToyModel

model = ToyModel(num_q_heads=4, num_kv_heads=2, head_dim=32)
prompts = {"A": b"Paged attention", "B": b"Blocks", "C": b"A server for", "D": b"Why"}
num_new = {"A": 6, "B": 9, "C": 5, "D": 8}  # tokens to generate


def dense(tokens, num_new):
    for _ in range(num_new):
        query, key, value = model.project(np.frombuffer(tokens, np.uint8), 0)
        tokens += bytes(model.ranked_tokens(pn.reference.attention(query[-1:], key, value)[0])[:1])
    return tokens[-num_new:]


right = {name: dense(prompts[name], num_new[name]) for name in prompts}
print({name: [*answer] for name, answer in right.items()})

# %%
# One step
# --------
# In :term:`continuous batching` requests join and leave between any two steps. The :term:`scheduler` decides before each
# step who takes part:
#
# 1. Those that run come first. Each needs a slot for its last token. If the pool is empty, the one that came last gives
#    up all its blocks and waits again: :term:`preemption`.
# 2. Those that wait may run, in their order, as long as all their tokens fit: :term:`admission`.
# 3. One call of attention serves all that run: whole prompts and single tokens alike, as in lesson 13.
#
# A preempted request has lost its keys and values. When it runs again, we :term:`recompute` them; to :term:`swap` would
# be to keep them in host memory meanwhile. Which tokens does it compute again? That is the argument ``again``.


def serve(num_blocks, again, arrivals=(0, 0, 0, 0)):
    cache = pn.PagedKVCache(num_blocks, block_size=4, num_kv_heads=2, head_dim=32)
    pool, schedule, waiting, running, computed = cache.allocator, pn.draw.Schedule(), [], [], 0
    query, todo, answer = {}, dict(prompts), dict.fromkeys(prompts, b"")  # todo: tokens for the next step

    def write(name):
        """Write the keys and values of a request's tokens, if there are blocks for them."""
        start = pool.seq_len(name) if name in pool else 0
        query[name], key, value = model.project(np.frombuffer(todo[name], np.uint8), start)
        try:
            (cache.append if start else cache.add)(name, key, value)
        except pn.OutOfBlocksError:
            return False
        return True

    while any(len(answer[name]) < num_new[name] for name in prompts):
        waiting += [n for n, step in zip(prompts, arrivals, strict=True) if step == len(schedule.used)]
        for name in [*running]:
            while name in running and not write(name):
                latest = running.pop()
                cache.preempt(latest)
                todo[latest] = again(prompts[latest], answer[latest])
                waiting.insert(0, latest)
        while waiting and write(waiting[0]):
            running.append(waiting.pop(0))
        schedule.record(pool, running=running, waiting=waiting)
        if running:
            ends = np.cumsum([len(todo[name]) for name in running])
            computed += ends[-1]
            out = cache.attend(running, np.concatenate([query[n] for n in running]), cu_seqlens_q=[0, *ends])
            for name, end in zip([*running], ends, strict=True):
                todo[name] = bytes(model.ranked_tokens(out[end - 1])[:1])
                answer[name] += todo[name]
                if len(answer[name]) == num_new[name]:
                    running.remove(name)
                    cache.free(name)
    preemptions, steps = pool.stats().num_preemptions, len(schedule.used)
    return SimpleNamespace(answer=answer, schedule=schedule, preemptions=preemptions, steps=steps, computed=computed)


# %%
# Right until memory runs short
# -----------------------------
# **This answer to the question is broken**: a request that comes back starts with its prompt.
#
# .. dropdown:: Predict: all four together need 16 blocks at most. With 16 and with 7, whose answers are wrong, and how?
#
#    With 16 nobody's, as nobody is preempted. With 7, those of the preempted: what comes after the prompt is added to
#    what was said before, so the answer begins again in its middle.


def prompt_only(prompt, answer):
    return prompt


for num_blocks in (16, 7):
    run = serve(num_blocks, prompt_only)
    wrong = [name for name in prompts if run.answer[name] != right[name]]
    print(f"{num_blocks:2} blocks: {run.preemptions} preemptions, wrong: {wrong}")
print("B must be", [*right["B"]], "\nB is     ", [*run.answer["B"]])

# %%
# The tokens generated so far belong to the sequence, like those of the prompt. All must be computed again.


def all_tokens(prompt, answer):
    return prompt + answer


run = serve(7, all_tokens)
assert run.answer == right
run.schedule.show("15_schedule.svg")

# %%
# Any order of arrival
# --------------------
# Who is preempted, and when, depends on who else is there. What it says must not: for any steps of arrival, and any pool
# that can hold the longest request alone, which takes 5 blocks.


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(num_blocks=st.integers(5, 16), arrivals=st.lists(st.integers(0, 9), min_size=4, max_size=4))
def answers_are_those_of_the_dense_model(num_blocks, arrivals):
    assert serve(num_blocks, all_tokens, arrivals).answer == right


answers_are_those_of_the_dense_model()

# %%
# The price of a small pool
# -------------------------
# .. dropdown:: Predict: the answers have 28 tokens in all. How many tokens a step with 16 blocks? How many with 5?
#
#    3.1 and 1.1. With 16 blocks all four run from the start, and B's 9 tokens take 9 steps. 5 blocks are full with A
#    alone, so the requests take turns, and what is preempted is computed again: 76 tokens in place of 60.

for num_blocks in (5, 7, 9, 11, 13, 16):
    run = serve(num_blocks, all_tokens)
    print(f"{num_blocks:2} blocks: {28 / run.steps:.1f} tokens a step, {run.preemptions} preemptions, ", end="")
    print(f"{run.computed} tokens computed")

# %%
# **In two sentences.** Before each step running requests take the slots that they need, if need be from the latest of
# them, and waiting ones join while blocks are left. A preempted request computes its prompt *and* its answer so far
# again, so memory decides when a token comes but never which.
#
# **Check yourself.**
#
# 1. The broken server needs fewer steps with 7 blocks than the right one. Is it faster?
# 2. Why does the latest request give way, and not the one with the most blocks?
# 3. With 4 blocks, request A alone does not fit. What does ``serve`` do?
#
# .. dropdown:: Answers
#
#    1. No. It skips work: a preempted request goes on with a shorter sequence than it has.
#    2. So that the oldest always gets on, and each request ends at some time.
#    3. It never ends: A is preempted and admitted again for ever. A server must refuse such a request when it comes.
#
# **Try next.** Give the cache ``watermark=0.2``: :term:`watermark` is the part of the pool that admission leaves free for
# those that run. Are there fewer preemptions? Then give the property ``prompt_only``. Which example does it shrink to?
#
# **In the engines.** Our rung is ``Server`` (``paged_numba/serving/server.py``), which admits at final lengths and never
# preempts. vLLM: ``Scheduler.schedule`` and ``_preempt_request`` (``vllm/v1/core/sched/scheduler.py``) keep the
# answer and set ``num_computed_tokens`` to 0. The same in 80 lines: nano-vllm, ``nanovllm/engine/scheduler.py``.
