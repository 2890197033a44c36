"""Token ids packed as int64 bytes: compact, and hashed and compared a block at a time instead of a token at a time."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arguments import integer, not_negative

TokenIds: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]
"""Token ids in order: a sequence of int, or a one-dimensional array of any integer dtype."""

BYTES_PER_ID = 8
_INT64 = np.dtype(np.int64)


def count_and_ids(tokens: Any, prefix_caching: bool) -> tuple[int, bytes]:
    """Return the number of tokens, and their packed ids; no ids without a prefix cache.

    Parameters
    ----------
    tokens : int, integer[num_tokens] or sequence of int
        The number of tokens, or their ids.
    prefix_caching : bool
        Whether the ids are needed.

    Raises
    ------
    TypeError
        `tokens` is neither a number nor token ids, or is a number although the ids are needed.
    ValueError
        The number is negative, or an id does not fit int64.
    """
    if type(tokens) is np.ndarray and tokens.ndim:
        ids = as_bytes(tokens)
        return len(tokens), ids if prefix_caching else b""
    if isinstance(tokens, (set, frozenset, dict)):
        raise TypeError(f"tokens must be a count, or token ids in order, got {type(tokens).__name__}")
    if isinstance(tokens, str) or not hasattr(tokens, "__len__") or getattr(tokens, "ndim", 1) == 0:
        count = not_negative("tokens", tokens)
        if prefix_caching:
            raise TypeError(f"tokens must be the token ids with prefix_caching=True, got tokens={tokens!r}")
        return count, b""
    if hasattr(tokens, "__array__"):
        tokens = np.asarray(tokens)
    ids = as_bytes(tokens) if prefix_caching or isinstance(tokens, np.ndarray) else b""
    return len(tokens), ids if prefix_caching else b""


def as_bytes(tokens: TokenIds) -> bytes:
    """Return token ids packed as int64 bytes.

    Parameters
    ----------
    tokens : integer[num_tokens] or sequence of int
        A NumPy array is converted without creating a Python int for each token.

    Raises
    ------
    TypeError
        An id is not an integer, or an array has another dtype or more than one dimension.
    ValueError
        An id does not fit int64.

    Examples
    --------
    >>> as_bytes([1, 258]).hex(" ", 8)
    '0100000000000000 0201000000000000'
    """
    if isinstance(tokens, np.ndarray):
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise TypeError(
                f"tokens must be integers in one dimension, got tokens.dtype={tokens.dtype} "
                f"tokens.shape={tokens.shape}"
            )
        if tokens.dtype == _INT64:
            return tokens.tobytes()
        if tokens.dtype == np.uint64 and tokens.size and tokens.max() > np.iinfo(np.int64).max:
            raise ValueError(f"tokens must fit int64, got {tokens.max()}")
        return tokens.astype(np.int64).tobytes()
    try:
        if bool not in set(map(type, tokens)):
            # Through an iterator: `array` would take a `bytes` object as raw memory, not as numbers.
            return array("q", iter(tokens)).tobytes()
    except (OverflowError, TypeError):
        pass
    for token in tokens:
        if not -(2**63) <= integer("tokens", token) < 2**63:
            raise ValueError(f"tokens must fit int64, got {token}")
    return array("q", map(operator.index, tokens)).tobytes()


def split(ids: bytes, block_size: int) -> tuple[list[bytes], bytes]:
    """Split packed token ids into the full blocks and the remainder.

    Examples
    --------
    >>> full, part = split(as_bytes([1, 2, 3, 4, 5]), block_size=2)
    >>> len(full), part == as_bytes([5])
    (2, True)
    """
    width = block_size * BYTES_PER_ID
    full = len(ids) // width * width
    return [ids[start : start + width] for start in range(0, full, width)], ids[full:]
