"""Which keys each query token sees: causality and the sliding window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.columns import NUM_ROW_COLUMNS, ROW_END, ROW_FIRST, ROW_POSITION, ROW_SEQ, ROW_TOKEN


def query_rows(seq_lens: Any, cu_seqlens_q: Any, causal: bool, window: int | None) -> NDArray[np.int32]:
    """Return a row for each query token: its position and the keys that it sees.

    Parameters
    ----------
    seq_lens : int[num_seqs]
    cu_seqlens_q : int[num_seqs + 1]
        Query tokens ``cu_seqlens_q[s] .. cu_seqlens_q[s + 1] - 1`` are the last tokens of sequence s.
    causal : bool
        Whether to hide the keys after a token's own position.
    window : int or None
        Hides the keys `window` or more positions before a token's own.

    Returns
    -------
    int32[num_tokens, 5]
        Columns in `paged_numba.kernels.columns`.

    Examples
    --------
    Two tokens of a sequence of 5 and one token of a sequence of 3; each sees the keys up to its own:

    >>> query_rows([5, 3], [0, 2, 3], True, None).tolist()    # token, sequence, position, first key, one past the last
    [[0, 0, 3, 0, 4], [1, 0, 4, 0, 5], [2, 1, 2, 0, 3]]
    """
    lens, starts = np.asarray(seq_lens, np.int64), np.asarray(cu_seqlens_q, np.int64)
    counts = np.diff(starts)
    token = np.arange(starts[-1])
    seq = np.repeat(np.arange(len(lens)), counts)
    # Aligned at the end: the last query token has the last position.
    position = token - starts[1:][seq] + lens[seq]
    end = np.maximum(position + 1, 0) if causal else lens[seq]
    rows = np.empty((len(token), NUM_ROW_COLUMNS), np.int32)
    rows[:, ROW_TOKEN], rows[:, ROW_SEQ], rows[:, ROW_POSITION], rows[:, ROW_END] = token, seq, position, end
    if window is None:
        rows[:, ROW_FIRST] = 0
    else:
        first = np.maximum(position - min(window, 2**31) + 1, 0)
        rows[:, ROW_FIRST] = np.minimum(first, end)
    return rows
