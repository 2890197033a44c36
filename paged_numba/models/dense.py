"""`DenseAttention`: attention over a whole sequence with no cache, the oracle of everything that keeps one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import one_of


class DenseAttention:
    """Attention for the forward pass of a model over all tokens of one sequence; it keeps no keys or values.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        In what scores, softmax and sums are computed.

    See Also
    --------
    paged_numba.reference.attention : Also has windows, sinks and other options.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> config = pn.models.LlamaConfig(num_layers=2, hidden_size=16, intermediate_size=32, vocab_size=10,
    ...                                num_q_heads=4, num_kv_heads=2, head_dim=4, max_positions=64)
    >>> model = pn.models.random_llama(config)
    >>> model.forward([3, 1, 4], np.arange(3), pn.models.DenseAttention()).shape
    (3, 10)
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype: Any = np.dtype(one_of("dtype", dtype, ("float32", "float64")))

    def __call__(self, layer: int, query: Any, key: Any, value: Any) -> Any:
        """Return the attention of all tokens of a sequence, each to itself and those before it.

        Parameters
        ----------
        layer : int
            Not used.
        query : float[n, h, c]
        key, value : float[n, k, c]

        Returns
        -------
        float32[n, h, c]
        """
        n, h, c = query.shape
        k = key.shape[1]
        # Query heads that share a KV head stand together.
        query = query.astype(self.dtype).reshape(n, k, h // k, c).transpose(1, 2, 0, 3)  # [k, h / k, n, c]
        key, value = (
            part.astype(self.dtype).swapaxes(0, 1)[:, None] for part in (key, value)
        )  # [k, 1, n, c]
        scores = query @ key.swapaxes(2, 3) / np.sqrt(self.dtype.type(c))  # [k, h / k, n, n]
        scores[..., ~np.tri(n, dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out = (weights / weights.sum(axis=-1, keepdims=True)) @ value  # [k, h / k, n, c]
        return out.transpose(2, 0, 1, 3).reshape(n, h, c).astype(np.float32)
