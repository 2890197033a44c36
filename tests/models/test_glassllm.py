"""The checkpoint of glassllm against glassllm's own model and tokenizer, and dense attention against the reference."""

import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.errors import InputError
from paged_numba.models import glassllm as reader
from paged_numba.models.llama import halves, rotate

TEXTS = st.text() | st.lists(
    st.sampled_from(
        ["Alice", " was", "  ", "\n", "\u2581", "e\u0301", "the ", "Queen", "'", "<eos>", "<unk>", "aaa"]
    )
).map("".join)

# The largest difference was 1e-5, at logits of up to 19: float32 rounds those to 1e-6.
LOGITS_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def theirs():
    glassllm = pytest.importorskip("glassllm", reason="pip install glassllm")
    return glassllm.load_pretrained("en")


@pytest.fixture(scope="module")
def ours(theirs):
    return pn.models.load("glassllm")


@given(text=TEXTS)
def test_tokens_are_those_of_glassllm(ours, theirs, text):
    ids = ours.tokenizer.encode(text)
    assert ids == theirs[1].encode(text)
    assert ours.tokenizer.decode(ids) == theirs[1].decode(ids)


@given(ids=st.lists(st.integers(0, 1023)))
def test_text_is_that_of_glassllm(ours, theirs, ids):
    assert ours.tokenizer.decode(ids) == theirs[1].decode(ids)


@given(
    ids=st.lists(st.integers(0, 1023), min_size=1, max_size=128),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_logits_are_those_of_glassllm(ours, theirs, ids, dtype):
    found = ours.model.forward(np.array(ids), np.arange(len(ids)), pn.models.DenseAttention(dtype))
    np.testing.assert_allclose(found, theirs[0].forward(ids).data[0], rtol=0, atol=LOGITS_TOLERANCE)


def test_greedy_tokens_are_those_of_glassllm(ours, theirs):
    ids = ours.tokenizer.encode("Alice was beginning to")
    expected = [step.token for step in theirs[0].generate(ids, 24, greedy=True)]
    for _ in range(24):
        logits = ours.model.forward(ids, np.arange(len(ids)), pn.models.DenseAttention(), rows=[-1])
        ids.append(int(logits.argmax()))
    assert ids[-24:] == expected


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_the_engine_gives_the_greedy_tokens_of_glassllm(ours, theirs, preemption):
    prompts = [
        ours.tokenizer.encode(text) for text in ("Alice was beginning to", "The Queen said", "“You are old")
    ]
    sizes = ours.model.config
    cache = pn.PagedKVCache(
        14, 4, sizes.num_kv_heads, sizes.head_dim, num_layers=sizes.num_layers, prefix_caching=True
    )
    engine = pn.serving.Engine(ours.model, cache, token_budget=6, preemption=preemption)
    for number, prompt in enumerate(prompts):
        params = pn.serving.SamplingParams(max_tokens=16, ignore_eos=True)
        engine.add_request(prompt, params, request_id=number)
    results = engine.run()
    assert engine.counters.num_preemptions
    for number, prompt in enumerate(prompts):
        expected = [step.token for step in theirs[0].generate(prompt, 16, greedy=True)]
        assert [*results[number].answers[0].token_ids] == expected


def test_the_checkpoint_says_what_it_is(ours):
    assert (ours.name, ours.licence) == ("glassllm", "MIT")
    assert ours.tokenizer.chat([{"role": "user", "content": "Who are you?"}]) is None
    assert ours.tokenizer.end_tokens == {3}
    assert ours.model.config.max_positions == 128


def test_nothing_of_glassllm_is_imported(ours):
    code = "import sys, paged_numba as pn; pn.models.load('glassllm'); print([m for m in sys.modules if 'glass' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['paged_numba.models.glassllm']"


def test_damaged_files_are_refused(tmp_path):
    weights, tokenizer = tmp_path / "en.npz", tmp_path / "en.tokenizer.json"
    tokenizer.write_text("{}", encoding="utf-8")
    for content in (b"", b"text", b"PK\x03\x04 and no more"):
        weights.write_bytes(content)
        with pytest.raises(InputError, match=r"a checkpoint must have the format of glassllm 0\.1, got "):
            reader.load(weights, tokenizer)
    np.savez(weights, __config__="{}")
    with pytest.raises(InputError, match="got KeyError"):
        reader.load(weights, tokenizer)
    with weights.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(InputError, match=r"must have the format of glassllm 0\.1"):
        reader.load(weights, tokenizer)


def test_a_model_that_is_not_installed_says_how_to_install_it(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", nothing)
    assert all(known.path is None for known in pn.models.find())
    for known in pn.models.find():
        with pytest.raises(ImportError, match=f"the model {known.name} is not installed: pip install"):
            pn.models.load(known.name)


@given(
    data=st.data(),
    n=st.integers(1, 9),
    k=st.integers(1, 3),
    group=st.integers(1, 3),
    c=st.sampled_from([2, 8]),
)
def test_dense_attention_is_that_of_the_reference(data, n, k, group, c):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    query, key, value = (rng.normal(0, 2, (n, heads, c)).astype(np.float32) for heads in (k * group, k, k))
    expected = pn.reference.attention(query, key, value)
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-6)):
        found = pn.models.DenseAttention(dtype)(0, query, key, value)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * abs(value).max())


@given(heads=st.integers(1, 3), half=st.integers(1, 4), seed=st.integers(0, 99))
def test_reordered_matrices_give_the_scores_of_neighbours(heads, half, seed):
    rng = np.random.default_rng(seed)
    x, angles = rng.normal(size=(5, 6)), rng.uniform(0, 6, (5, 1, half))
    query, key = rng.normal(size=(2, 6, heads * 2 * half))

    def scores(rotated):
        a, b = (rotated(x @ matrix, matrix) for matrix in (query, key))
        return np.einsum("nhc,mhc->hnm", a, b)

    def neighbours(projected, _):
        pairs = projected.reshape(5, heads, half, 2)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
        return np.stack([turned.real, turned.imag], axis=-1).reshape(5, heads, 2 * half)

    def ours(_, matrix):
        projected = (x @ halves(matrix, 2 * half)).reshape(5, heads, 2 * half)
        return rotate(projected, np.cos(angles), np.sin(angles))

    np.testing.assert_allclose(scores(ours), scores(neighbours), atol=1e-12)
