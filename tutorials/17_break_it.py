"""
17 · Break it
=============

**Would you notice a wrong attention by what the model writes?** A model always writes something, whatever its
attention does. You will see what eight mistakes make of one answer: some make gibberish, some another good sentence,
and some the right answer, word for word. One of those is no mistake at all.
"""

# %%
# The model of lesson 16, without its engine: ``step`` computes the next tokens of all sequences. Each layer writes its
# keys and values, then attends; a mistake changes arguments of that call. A second sequence shares the pool, as in any
# server; we look at the first one's answer. ``MODEL = "smollm2"`` takes the larger model, and minutes.

import numpy as np

import paged_numba as pn

MODEL = "glassllm"
model, tokenizer, *_ = pn.models.load(MODEL)
sizes, num_new = model.config, 20
texts = {
    "ours": "“It is a very good tea-party,” said the",
    "other": "The Queen of Hearts, she made some tarts",
}
prompts = {name: tokenizer.encode(text) for name, text in texts.items()}


def step(cache, new, mistake=lambda cache, call: {}):  # new: by sequence, the tokens of this step
    slots = np.concatenate([cache.reserve(name, len(tokens)).slots for name, tokens in new.items()])
    seq_lens, rows = np.array([*map(cache.seq_len, new)]), np.cumsum([0, *map(len, new.values())])
    batch = {"block_tables": cache.block_tables([*new]), "seq_lens": seq_lens, "cu_seqlens_q": rows}

    def attend(layer, query, key, value):
        cache.write_layer(layer, key, value, slots)
        caches = {"key_cache": cache.key_caches[layer], "value_cache": cache.value_caches[layer]}
        call = {"query": query, **caches, **batch}
        return pn.paged_attention(**call | mistake(cache, call))

    positions = np.arange(rows[-1]) + np.repeat(seq_lens - rows[1:], np.diff(rows))
    return model.forward(np.concatenate([*new.values()]), positions, attend, rows=rows[1:] - 1)


def generate(mistake=None, first_step=0):
    shape = {"num_kv_heads": sizes.num_kv_heads, "head_dim": sizes.head_dim, "num_layers": sizes.num_layers}
    cache = pn.PagedKVCache(20, 4, **shape, target="lockstep")  # on the host
    new, answer, logits = prompts, [], []
    for number in range(num_new):
        last = step(cache, new, mistake) if mistake and number >= first_step else step(cache, new)
        new = {name: [int(row.argmax())] for name, row in zip(new, last, strict=True)}
        answer, logits = answer + new["ours"], [*logits, last[0]]
    return answer, np.array(logits), cache


# %%
# A model returns a number for each token of its vocabulary, the :term:`logits` of the next token; softmax makes
# probabilities of them. Our answer is :term:`greedy`: it takes the largest. The oracle keeps no cache. In one pass
# over prompt and answer it returns the logits of all 20 tokens.

right, logits, cache = generate()
tokens = prompts["ours"] + right
dense = model.forward(tokens[:-1], np.arange(len(tokens) - 1), pn.models.DenseAttention())[-num_new:]
print(repr(texts["ours"] + tokenizer.decode(right)))
print(
    f"logits from {dense.min():.0f} to {dense.max():.0f}; the cache's are off by {np.abs(logits - dense).max():.0e}"
)

# %%
# Eight mistakes
# --------------
# **Each of these calls is broken, but for one.** Four are broken from the prompt on. ``heads`` has the KV head of each
# query head, by ``%`` where ``//`` is right (lesson 09). And somebody reads layer 0 of the cache in all layers.

heads, stored = np.arange(sizes.num_q_heads) % sizes.num_kv_heads, ("key_cache", "value_cache")
from_the_prompt_on = {
    "scale left out": lambda cache, call: {"scale": 1.0},
    "head map by %": lambda cache, call: {name: call[name][:, :, heads] for name in stored},
    "always layer 0": lambda cache, call: {"key_cache": cache.key_cache, "value_cache": cache.value_cache},
    "not causal": lambda cache, call: {"causal": False},
}

# %%
# Four begin with the first decode. Somebody counts the tokens before the new one is written, so its query does not see
# its own key. A :term:`window` of 16 belongs to another model. The last two change block tables: our logical block 1 is
# taken from the other, or the logical blocks 0 and 1 of both are swapped.


def tables(call, place, blocks):
    changed = call["block_tables"].copy()
    changed[place] = blocks
    return {"block_tables": changed}


in_decode = {
    "own token unseen": lambda cache, call: {"seq_lens": call["seq_lens"] - 1},
    "window of 16": lambda cache, call: {"window": 16},
    "foreign block": lambda cache, call: tables(call, (0, 1), call["block_tables"][1, 1]),
    "blocks swapped": lambda cache, call: tables(call, np.s_[:, :2], call["block_tables"][:, 1::-1]),
}
pn.draw.BlockTables.of(cache.allocator, title="Two sequences, after the right answer").show("17_tables.svg")

# %%
# .. dropdown:: Predict: which write gibberish, which another good sentence, and which the right answer, word for word?
#
#    Gibberish: the head map and layer 0. Another sentence, as good as this model's sentences are: the scale, the
#    window and the foreign block. The right answer: not causal, own token unseen, and blocks swapped.

runs = {name: generate(mistake)[:2] for name, mistake in from_the_prompt_on.items()}
runs |= {name: generate(mistake, first_step=1)[:2] for name, mistake in in_decode.items()}
for name, (answer, _) in runs.items():
    print(f"{name:16}  {tokenizer.decode(answer)!r}")

# %%
# What a test must look at
# ------------------------
# A test that compares texts passes three of the eight. (The prompt was chosen for this. With most others, the own token
# unseen makes another sentence.) A token of an answer shows only which logit is the largest. The logits themselves can
# be compared as long as two answers agree, and for one token more: so far the model has read the same.
#
# .. dropdown:: Predict: three answers are right. How far off are their logits?
#
#    Not causal: 1.2. Own token unseen: 3.6, more than any of the other sentences. Blocks swapped: 0.00001.

print("                  equal tokens  logits off by")
for name, (answer, wrong_logits) in runs.items():
    equal = np.cumprod(np.equal(answer, right)).sum()
    off = np.abs(wrong_logits - dense)[: equal + 1].max()
    print(f"{name:16}  {equal:12}  {off:13.5f}  {'WRONG' if off > 1e-3 else 'right'}")

# %%
# The limit of 0.001 lies far above rounding and far below the smallest mistake. Swapped blocks stay below it, for a
# weighted sum has no order. The position of a token is not its place in the table: it is in the key itself, which
# :term:`RoPE` rotates by the position before it is written. Only the mask goes by place, and the newest token may look
# at all keys.
#
# **In two sentences.** A wrong attention can write good sentences, and even the right ones, while its logits are off
# by more than any rounding. So compare logits with an oracle that keeps no cache, for the same tokens.
#
# **Check yourself.**
#
# 1. The blocks are swapped from the prompt on. Is the attention still right?
# 2. In decode, the first block is swapped with the last one. Is the attention still right?
# 3. Two right kernels write different answers. How can that be?
#
# .. dropdown:: Answers
#
#    1. No. The mask of the prompt's queries goes by place, and so hides the wrong tokens. The answer stays the same.
#    2. Only when the last block is full. Else its empty slots come before the end of the sequence, and are read.
#    3. At some token the two largest logits lie closer together than rounding. Which one wins is then no mistake.
#
# **Try next.** Make the scale, ``head_dim ** -0.5``, wrong by 10 %. Does the answer change? What do the logits say?
#
# **In the engines.** Our rung is ``pn.models.DenseAttention``. vLLM compares models by ``check_logprobs_close``
# (``tests/models/utils.py``): by default it looks at logprobs only at the first token where two answers differ.
