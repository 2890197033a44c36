"""
15 · A small server
===================

**How does one pool serve requests that come at any time, and whose length nobody knows?** You will see requests join
in the middle of others' answers, a server that is right until memory runs short, and the price of a small pool.
"""

# %%
# The package's toy model has one attention layer with random weights. Its tokens are bytes and mean nothing;
# ``ranked_tokens`` puts the likeliest next one first. The oracle is the dense model, which starts anew at each step.

import numpy as np
from hypothesis import given, settings, strategies

import paged_numba as pn
from paged_numba.serving.toy.model import ToyModel

model = ToyModel(num_q_heads=4, num_kv_heads=2, head_dim=32)
prompts = {"A": b"Paged attention", "B": b"Poetry", "C": b"How to serve", "D": b"Why"}
num_new = {"A": 6, "B": 9, "C": 5, "D": 8}  # tokens to generate


def dense(tokens, num_new):
    for _ in range(num_new):
        query, key, value = model.project(np.frombuffer(tokens, np.uint8), 0)
        tokens += bytes(model.ranked_tokens(pn.reference.attention(query[-1:], key, value)[0])[:1])
    return tokens[-num_new:]


right = {name: dense(prompts[name], num_new[name]) for name in prompts}

# %%
# Step by step
# ------------
# In :term:`continuous batching` requests join and leave between any two steps; a :term:`scheduler` decides who takes
# part. First, each that runs needs a slot for its last token. If no block is free, the one admitted last gives up all
# its blocks and waits again: :term:`preemption`. Then those that wait join in order, if they fit: :term:`admission`.
# When a preempted request runs again, we :term:`recompute` its keys and values; to :term:`swap` would be to keep them
# in host memory meanwhile. **Are those of the prompt enough?** ``keep_answer`` decides.


def serve(num_blocks, keep_answer, arrivals=(0, 0, 0, 0)):
    cache = pn.PagedKVCache(num_blocks, block_size=4, num_kv_heads=2, head_dim=32)
    pool, schedule = cache.allocator, pn.draw.Schedule(title=f"Four requests, {num_blocks} blocks")
    waiting, running, query = [], [], {}
    step = computed = 0
    todo, answer = dict(prompts), dict.fromkeys(prompts, b"")  # todo: tokens for the next step

    def write(name):  # its keys and values, if there are blocks for them
        start = pool.seq_len(name) if name in pool else 0
        query[name], key, value = model.project(np.frombuffer(todo[name], np.uint8), start)
        try:
            (cache.append if start else cache.add)(name, key, value)
            return True
        except pn.OutOfBlocksError:
            return False

    while any(len(answer[name]) < num_new[name] for name in prompts):
        waiting += [name for name, arrival in zip(prompts, arrivals, strict=True) if arrival == step]
        step += 1
        for name in [*running]:  # 1. room for the last token of each that runs
            while name in running and not write(name):
                latest = running.pop()
                cache.preempt(latest)
                todo[latest] = prompts[latest] + (answer[latest] if keep_answer else b"")
                waiting.insert(0, latest)
        while waiting and write(waiting[0]):  # 2. admission
            running.append(waiting.pop(0))
        schedule.record(pool, running=running, waiting=waiting)
        if running:  # 3. one model step for all, whole prompts and single tokens alike (lesson 13)
            ends = np.cumsum([len(todo[name]) for name in running])
            out = cache.attend(running, np.concatenate([query[n] for n in running]), cu_seqlens_q=[0, *ends])
            computed += len(out)
            for name, end in zip([*running], ends, strict=True):
                todo[name] = bytes(model.ranked_tokens(out[end - 1])[:1])
                answer[name] += todo[name]
                if len(answer[name]) == num_new[name]:
                    running.remove(name)
                    cache.free(name)
    schedule.record(pool)  # once more, after the last step
    return answer, schedule, pool.stats().num_preemptions, computed


# %%
# Right until memory runs short
# -----------------------------
# First the prompt alone: **this server is broken**.
#
# .. dropdown:: Predict: the four requests fit into 16 blocks. With 16 and with 7, whose answers are wrong, and how?
#
#    With 16 nobody's: nobody is preempted. With 7, those of the preempted. Their answers begin again in the middle.

for num_blocks in (16, 7):
    answer, _, preemptions, _ = serve(num_blocks, keep_answer=False)
    print(f"{num_blocks:2} blocks: {preemptions} preempted, right:", [answer[n] == right[n] for n in prompts])
print("B must be", [*right["B"]], "\nB is     ", [*answer["B"]])

# %%
# So a test with a large pool finds nothing. The tokens of the answer belong to the sequence like those of the prompt.

serve(7, keep_answer=True)[1].show("15_schedule.svg")

# %%
# Who is preempted depends on who else is there, but nobody's answer may. That is a property, for all steps of arrival
# and for all pools that hold the longest request alone, from 5 blocks on.


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(strategies.integers(5, 16), strategies.lists(strategies.integers(0, 9), min_size=4, max_size=4))
def test_answers(num_blocks, arrivals):
    assert serve(num_blocks, True, arrivals)[0] == right


test_answers()

# %%
# .. dropdown:: Predict: the answers have 28 tokens in all. How many tokens a step with 16 blocks? How many with 5?
#
#    3.1, for B's 9 tokens take 9 steps. 1.1, for they take turns, and 76 tokens are computed, not 60.

print("blocks  tokens a step  preemptions  tokens computed")
for num_blocks in (5, 7, 9, 11, 13, 16):
    _, schedule, preemptions, computed = serve(num_blocks, keep_answer=True)
    print(f"{num_blocks:6}  {28 / (len(schedule.used) - 1):13.1f}  {preemptions:11}  {computed:15}")

# %%
# **In two sentences.** Before each step running requests take slots, at worst from the latest, and waiting ones join
# while blocks are left. A preempted request computes prompt *and* answer again, so memory decides when, never what.
#
# **Check yourself.**
#
# 1. With 7 blocks the broken server needs fewer steps than the right one. Is it better in anything?
# 2. Why does the latest give way, and not the one with the most blocks?
# 3. What would ``serve`` do with 4 blocks, too few for A alone?
#
# .. dropdown:: Answers
#
#    1. No. It leaves out work: its sequences are shorter than they should be.
#    2. Then the oldest always gets on, so that each request ends at some time.
#    3. It never ends: A waits for ever, and so do all behind it. A server must refuse such a request when it comes.
#
# **Try next.** With 10 blocks give the cache a :term:`watermark`, a part that admission leaves free:
# ``watermark=0.2``. What gets better, and what worse? And to what does the property shrink without the answer?
#
# **In the engines.** Our rung: ``PreemptingServer`` (``paged_numba/serving/toy/preempting.py``); lesson 16 has an
# engine. vLLM's ``_preempt_request`` (``vllm/v1/core/sched/scheduler.py``) keeps the answer.
