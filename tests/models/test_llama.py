"""The forward pass: against one token at a time in float64, and what it refuses."""

import cmath
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn

CONFIG = pn.models.LlamaConfig(
    num_layers=2,
    hidden_size=12,
    intermediate_size=10,
    vocab_size=7,
    num_q_heads=4,
    num_kv_heads=2,
    head_dim=6,
    max_positions=32,
    rope_base=50.0,
    norm_eps=1e-2,  # large enough to be seen
)
MODEL = pn.models.random_llama(CONFIG)
TOKENS = st.lists(st.integers(0, CONFIG.vocab_size - 1), min_size=1, max_size=9)


def forward(token_ids):
    """Return logits in float64, head by head and token by token, as the papers write the formulas."""

    def norm(x, weight):
        return x / math.sqrt(np.dot(x, x) / len(x) + CONFIG.norm_eps) * weight

    def turned(head, position):
        half = CONFIG.head_dim // 2
        pairs = [
            complex(head[i], head[i + half]) * cmath.exp(1j * position * 50.0 ** (-2 * i / CONFIG.head_dim))
            for i in range(half)
        ]
        return np.array([z.real for z in pairs] + [z.imag for z in pairs])

    weights = MODEL.weights
    xs = [weights.embedding[token].astype(np.float64) for token in token_ids]
    for layer in weights.layers:
        heads = [norm(x, layer.attention_norm) @ layer.qkv for x in xs]
        heads = [part.reshape(8, CONFIG.head_dim) for part in heads]  # 4 queries, 2 keys, 2 values
        for i in reversed(range(len(xs))):
            outs = []
            for head in range(4):
                query = turned(heads[i][head], i)
                keys = [turned(heads[j][4 + head // 2], j) for j in range(i + 1)]
                scores = [math.exp(np.dot(query, key) / math.sqrt(CONFIG.head_dim)) for key in keys]
                values = [heads[j][6 + head // 2] for j in range(i + 1)]
                outs.append(sum(s * v for s, v in zip(scores, values, strict=True)) / sum(scores))
            xs[i] = xs[i] + np.concatenate(outs) @ layer.output
            gate, up = np.split(norm(xs[i], layer.ffn_norm) @ layer.gate_up, 2)
            xs[i] = xs[i] + (gate / (1 + np.exp(-gate)) * up) @ layer.down
    return np.array([norm(x, weights.output_norm) @ weights.unembedding for x in xs])


@given(token_ids=TOKENS, data=st.data())
def test_logits_are_those_of_the_formulas(token_ids, data):
    expected = forward(token_ids)
    rows = data.draw(st.none() | st.lists(st.integers(0, len(token_ids) - 1)))
    found = MODEL.forward(token_ids, np.arange(len(token_ids)), pn.models.DenseAttention(), rows)
    assert found.dtype == np.float32
    wanted = expected if rows is None else expected[rows]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * abs(expected).max())


@given(token_ids=TOKENS, shift=st.integers(1, 20))
def test_only_differences_of_positions_matter(token_ids, shift):
    positions = np.arange(len(token_ids))
    first, second = (
        MODEL.forward(token_ids, at, pn.models.DenseAttention()) for at in (positions, positions + shift)
    )
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4 * abs(first).max())


@pytest.mark.parametrize(("token_ids", "got"), [([1, -1], "-1"), ([7], "7")])
def test_tokens_outside_the_vocabulary_are_refused(token_ids, got):
    with pytest.raises(ValueError, match=rf"token_ids must lie in 0 \.\. 6 \(the vocabulary\), got {got}"):
        MODEL.forward(token_ids, np.arange(len(token_ids)), pn.models.DenseAttention())


def test_a_position_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="positions must have an item for each of 3 tokens, got 1"):
        MODEL.forward([1, 2, 3], [0], pn.models.DenseAttention())


@pytest.mark.parametrize(
    ("size", "value", "message"),
    [
        (
            "num_kv_heads",
            3,
            "num_q_heads must be a multiple of num_kv_heads, got num_q_heads=4, num_kv_heads=3",
        ),
        ("head_dim", 5, "head_dim must be even, since RoPE rotates pairs, got head_dim=5"),
        ("num_layers", 0, "num_layers must be positive, got num_layers=0"),
        ("rope_base", float("nan"), "rope_base must be finite, got rope_base=nan"),
        ("norm_eps", -1.0, "norm_eps must be positive, got norm_eps=-1.0"),
    ],
)
def test_sizes_of_no_model_are_refused(size, value, message):
    with pytest.raises(ValueError, match=message):
        pn.models.LlamaConfig(**{**vars(CONFIG), size: value})
