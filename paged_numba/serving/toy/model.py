"""`ToyModel`: a stand-in for a language model, with one layer, random weights and bytes as tokens.

The text that it generates means nothing. Its queries, keys and values are like those of a real layer: they differ
at each position, and scores vary enough that a wrong attention weight shows in the output. Lesson 15 uses it, and so
does the tour of a trace or without a real model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

VOCABULARY = 256
MODEL_DIM = 64


class ToyModel:
    """Embedding, positions, and the projections of one attention layer with grouped queries.

    Parameters
    ----------
    num_q_heads, num_kv_heads, head_dim : int
    """

    def __init__(self, num_q_heads: int, num_kv_heads: int, head_dim: int) -> None:
        rng = np.random.default_rng(0)
        self.num_q_heads, self.num_kv_heads, self.head_dim = num_q_heads, num_kv_heads, head_dim

        def weights(inputs: int, outputs: int, gain: float) -> Any:
            return rng.normal(0, gain / math.sqrt(inputs), (inputs, outputs)).astype(np.float32)

        # Unit variance in x gives scores a standard deviation of gain**2 = 3.
        gain = math.sqrt(3)
        self.embedding = rng.normal(0, math.sqrt(0.5), (VOCABULARY, MODEL_DIM)).astype(np.float32)
        self.to_query = weights(MODEL_DIM, num_q_heads * head_dim, gain)
        self.to_key = weights(MODEL_DIM, num_kv_heads * head_dim, gain)
        self.to_value = weights(MODEL_DIM, num_kv_heads * head_dim, 1)
        self.to_logits = weights(num_q_heads * head_dim, VOCABULARY, 1)

    def project(self, tokens: Any, start: int) -> tuple[Any, Any, Any]:
        """Return the queries, keys and values of byte tokens at the positions ``start``, ``start + 1``, ….

        Parameters
        ----------
        tokens : uint8[num_tokens]
        start : int

        Returns
        -------
        query : float32[num_tokens, num_q_heads, head_dim]
        key, value : float32[num_tokens, num_kv_heads, head_dim]
        """
        x = self.embedding[tokens] + _positions(start, len(tokens))
        shape = len(tokens), -1, self.head_dim
        return tuple((x @ to).reshape(shape) for to in (self.to_query, self.to_key, self.to_value))

    def logits(self, out: Any) -> Any:
        """Return logits of the next byte, float[..., 256], for attention outputs float[..., num_q_heads, head_dim]."""
        return out.reshape(*out.shape[:-2], -1) @ self.to_logits

    def ranked_tokens(self, out: Any) -> Any:
        """Return all bytes, the most likely next one first, uint8[256], for the attention output of one token."""
        return np.argsort(-self.logits(out), kind="stable").astype(np.uint8)


def _positions(start: int, count: int) -> Any:
    """Return sinusoids of many wavelengths, with variance 1/2 (Vaswani et al., 2017)."""
    position = np.arange(start, start + count)[:, None]
    angle = position / 10_000 ** (np.arange(MODEL_DIM // 2) / (MODEL_DIM // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
