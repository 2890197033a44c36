"""`Llama`: the forward pass of a Llama-type model in NumPy, with attention as a parameter.

The caller decides where keys and values are kept, and how the model attends to them. Shapes stand beside each
line: `n` tokens, `d` hidden_size, `h` query heads, `k` KV heads, `c` head_dim, `f` intermediate_size, `v` vocab_size.

Sources: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023; Su et al., "RoFormer: Enhanced
Transformer with Rotary Position Embedding", 2021; Shazeer, "GLU Variants Improve Transformer", 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from .. import arguments

Attend = Callable[[int, Any, Any, Any], Any]
"""``attend(layer, query, key, value)``: stores the keys and values of new tokens, and returns their attention.

query and the result are float32[n, h, c], key and value float32[n, k, c]; the tokens are in the order of `token_ids`.
"""


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes of a model.

    Parameters
    ----------
    num_layers, hidden_size, intermediate_size, vocab_size, num_q_heads, num_kv_heads, head_dim : int
        A positive number each; `num_q_heads` is a multiple of `num_kv_heads`, and `head_dim` is even.
    max_positions : int
        Longest sequence for which the model was trained, prompt and answer together.
    rope_base : float
        Base of the wavelengths of RoPE.
    norm_eps : float
        What RMSNorm adds to a mean square.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("rope_base", "norm_eps"):
                arguments.positive(field.name, value)
            elif arguments.finite(field.name, value) <= 0:
                raise ValueError(f"{field.name} must be positive, got {field.name}={arguments.shown(value)}")
        if self.num_q_heads % self.num_kv_heads:
            raise ValueError(
                "num_q_heads must be a multiple of num_kv_heads, "
                f"got num_q_heads={self.num_q_heads}, num_kv_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, since RoPE rotates pairs, got head_dim={self.head_dim}")


class Layer(NamedTuple):
    """Weights of a layer, float32; matrices are [inputs, outputs]."""

    attention_norm: Any  # [d]
    qkv: Any  # [d, (h + 2 * k) * c]
    output: Any  # [h * c, d]
    ffn_norm: Any  # [d]
    gate_up: Any  # [d, 2 * f]
    down: Any  # [f, d]


class Weights(NamedTuple):
    """Weights of a model, float32; where the model ties embedding and unembedding, one is a view of the other."""

    embedding: Any  # [v, d]
    layers: Sequence[Layer]
    output_norm: Any  # [d]
    unembedding: Any  # [d, v]
    rope_frequencies: Any  # float64[c / 2], radians per position


class Llama:
    """A Llama-type model.

    Parameters
    ----------
    config : LlamaConfig
        Its sizes.
    weights : Weights
        Its weights, float32.

    See Also
    --------
    paged_numba.models.load : Reads a model with weights that somebody has trained.

    Examples
    --------
    The same tokens give the same logits on a paged cache and on dense attention:

    >>> import numpy as np
    >>> import paged_numba as pn
    >>> config = pn.models.LlamaConfig(num_layers=2, hidden_size=16, intermediate_size=32, vocab_size=10,
    ...                                num_q_heads=4, num_kv_heads=2, head_dim=4, max_positions=64)
    >>> model, token_ids, positions = pn.models.random_llama(config), [3, 1, 4], np.arange(3)
    >>> dense = model.forward(token_ids, positions, pn.models.DenseAttention())
    >>> cache = pn.PagedKVCache(8, 16, num_kv_heads=2, head_dim=4, num_layers=2)
    >>> step = cache.reserve("a", token_ids)
    >>> def attend(layer, query, key, value):
    ...     cache.write_layer(layer, key, value, step.slots)
    ...     return cache.attend(["a"], query, layer=layer, cu_seqlens_q=[0, len(query)])
    >>> bool(np.allclose(model.forward(token_ids, positions, attend), dense, atol=1e-5))
    True
    """

    def __init__(self, config: LlamaConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights

    def forward(self, token_ids: Any, positions: Any, attend: Attend, rows: Any = None) -> Any:
        """Compute the logits of tokens of one or more sequences.

        Parameters
        ----------
        token_ids : int[n]
            New tokens; the tokens of a sequence stand together, in order.
        positions : int[n]
            Position of each token in its sequence.
        attend : callable
            Attention over the tokens so far, see `Attend`. It is called once for each layer, in order.
        rows : int[num_rows], optional
            Tokens whose logits are wanted, as indices into `token_ids`; all if None.

        Returns
        -------
        float32[num_rows, v]
            Row by row, for each token of the vocabulary.

        Raises
        ------
        ValueError
            A token is not in the vocabulary, or there is not one position for each.
        """
        sizes, weights = self.config, self.weights
        token_ids = _token_ids(token_ids, sizes.vocab_size)  # [n]
        n, h, k, c = len(token_ids), sizes.num_q_heads, sizes.num_kv_heads, sizes.head_dim
        if len(positions) != n:
            raise ValueError(f"positions must have an item for each of {n} tokens, got {len(positions)}")
        cos, sin = self._rotations(positions)  # [n, 1, c / 2]
        x = weights.embedding[token_ids]  # [n, d]
        for number, layer in enumerate(weights.layers):
            qkv = rms_norm(x, layer.attention_norm, sizes.norm_eps) @ layer.qkv  # [n, (h + 2k) * c]
            # The query heads come first, then the heads of the keys, then those of the values. `rotate` makes new
            # arrays of the first two. The values are copied, so that `attend` gets three contiguous arrays.
            qkv = qkv.reshape(n, h + 2 * k, c)
            query, key, value = qkv[:, :h], qkv[:, h : h + k], np.ascontiguousarray(qkv[:, h + k :])
            out = attend(number, rotate(query, cos, sin), rotate(key, cos, sin), value)  # [n, h, c]
            x = x + out.reshape(n, h * c) @ layer.output  # [n, d]
            gate_up = rms_norm(x, layer.ffn_norm, sizes.norm_eps) @ layer.gate_up  # [n, 2f]
            gate, up = np.split(gate_up, 2, axis=1)  # [n, f] each
            x = x + (silu(gate) * up) @ layer.down  # [n, d]; SwiGLU
        if rows is not None:
            x = x[rows]
        return rms_norm(x, weights.output_norm, sizes.norm_eps) @ weights.unembedding  # [num_rows, v]

    def _rotations(self, positions: Any) -> tuple[Any, Any]:
        """Return the cosines and sines of RoPE, float32[n, 1, c / 2]: the same for all heads and layers."""
        angles = np.multiply.outer(np.asarray(positions, np.float64), self.weights.rope_frequencies)
        return tuple(part(angles).astype(np.float32)[:, None] for part in (np.cos, np.sin))


def _token_ids(token_ids: Any, vocab_size: int) -> Any:
    """Return token ids as an array; NumPy would read a negative one from the end of the vocabulary."""
    token_ids = np.asarray(token_ids, np.int64)
    wrong = token_ids[(token_ids < 0) | (token_ids >= vocab_size)]
    if wrong.size:
        raise ValueError(f"token_ids must lie in 0 .. {vocab_size - 1} (the vocabulary), got {wrong[0]}")
    return token_ids


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    """Scale each row of x, float32[n, d], to a mean square of 1, then by the weights, float32[d]."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight


def rotate(x: Any, cos: Any, sin: Any) -> Any:
    """Rotate each pair (x[i], x[i + c / 2]) of a head by its token's angle (RoPE); float32[n, heads, c]."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def halves(matrix: Any, head_dim: int) -> Any:
    """Reorder the columns of a query or key matrix whose RoPE rotates pairs (x[2 * i], x[2 * i + 1]) for `rotate`.

    Scores stay the same, since queries and keys are reordered alike. matrix: [d, heads * c].
    """
    pairs = matrix.reshape(len(matrix), -1, head_dim // 2, 2)
    return pairs.swapaxes(2, 3).reshape(matrix.shape)


def silu(x: Any) -> Any:
    """Return ``x * sigmoid(x)``."""
    with np.errstate(over="ignore"):  # exp(-x) is inf for x < -88, and the result -0
        return x / (1 + np.exp(-x))


def rope_frequencies(config: LlamaConfig) -> Any:
    """Return ``rope_base ** (-2 * i / head_dim)`` for i = 0 .. head_dim / 2 - 1, float64[c / 2]."""
    return config.rope_base ** (-np.arange(0, config.head_dim, 2) / config.head_dim)


def random_llama(config: LlamaConfig, seed: int = 0) -> Llama:
    """Return a model with random weights, whose scores vary enough that a wrong attention shows in its logits.

    Parameters
    ----------
    config : LlamaConfig
        Its sizes.
    seed : int
        Of the random numbers.

    Returns
    -------
    Llama
        Its unembedding is the transpose of its embedding.

    Examples
    --------
    >>> import paged_numba as pn
    >>> config = pn.models.LlamaConfig(num_layers=1, hidden_size=16, intermediate_size=32, vocab_size=10,
    ...                                num_q_heads=4, num_kv_heads=2, head_dim=4, max_positions=64)
    >>> pn.models.random_llama(config).weights.embedding.shape
    (10, 16)
    """
    if not isinstance(config, LlamaConfig):
        raise TypeError(f"config must be a LlamaConfig, got config={arguments.shown(config)}")
    seed = arguments.not_negative("seed", seed)
    rng = np.random.default_rng(seed)
    d, f, c = config.hidden_size, config.intermediate_size, config.head_dim
    h, k = config.num_q_heads, config.num_kv_heads

    def matrix(inputs: int, outputs: int, gain: float = 1.0) -> Any:
        return rng.normal(0, gain / np.sqrt(inputs), (inputs, outputs)).astype(np.float32)

    def layer() -> Layer:
        # Unit variance in x and a gain of sqrt(3) give scores a standard deviation of 3.
        qkv = [matrix(d, h * c, 3**0.5), matrix(d, k * c, 3**0.5), matrix(d, k * c)]
        ones = np.ones(d, np.float32)
        return Layer(
            ones, np.concatenate(qkv, axis=1), matrix(h * c, d), ones, matrix(d, 2 * f), matrix(f, d)
        )

    embedding = rng.normal(0, 1, (config.vocab_size, d)).astype(np.float32)
    layers = [layer() for _ in range(config.num_layers)]
    ones = np.ones(d, np.float32)
    return Llama(config, Weights(embedding, layers, ones, embedding.T, rope_frequencies(config)))
