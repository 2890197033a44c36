"""Token ids as bytes, int64 each: compact, and compared and hashed a block at a time, with no number a token."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import integer

BYTES_PER_ID = 8


def as_bytes(tokens: Sequence[int] | Any) -> bytes:
    """Return token ids as the bytes of int64.

    Parameters
    ----------
    tokens : integer[num_tokens] or sequence of int
        A NumPy array costs no Python number a token.

    Raises
    ------
    TypeError, ValueError
        An id that is no integer, or does not fit int64.
    """
    if isinstance(tokens, np.ndarray):
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise TypeError(
                f"tokens must be integers in one dimension, got tokens.dtype={tokens.dtype} "
                f"tokens.shape={tokens.shape}"
            )
        if tokens.dtype == np.uint64 and tokens.size and tokens.max() > np.iinfo(np.int64).max:
            raise ValueError(f"tokens must fit int64, got {tokens.max()}")
        return tokens.astype(np.int64, copy=False).tobytes()
    try:
        if bool not in set(map(type, tokens)):
            # Through an iterator: an array would take the bytes of `bytes` for those of numbers.
            return array("q", iter(tokens)).tobytes()
    except (OverflowError, TypeError):
        pass
    for token in tokens:
        if not -(2**63) <= integer("tokens", token) < 2**63:
            raise ValueError(f"tokens must fit int64, got {token}")
    return array("q", map(operator.index, tokens)).tobytes()


def split(ids: bytes, block_size: int) -> tuple[list[bytes], bytes]:
    """Cut ids into those of each full block, and the rest."""
    width = block_size * BYTES_PER_ID
    full = len(ids) // width * width
    return [ids[start : start + width] for start in range(0, full, width)], ids[full:]
