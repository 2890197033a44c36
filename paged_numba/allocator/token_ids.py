"""Token ids packed as int64 bytes: compact, and hashed and compared a block at a time instead of a token at a time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arguments import integer, not_negative, positive, shown

TokenIds: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]
"""Token ids in order: a sequence of int, or a one-dimensional array of any integer dtype."""

BYTES_PER_ID = 8
_INT64 = np.dtype(np.int64)

MOST_TOKENS = 2**63 - 1
"""Largest count of tokens, and largest token id."""

_NOT_IDS = {bool, np.timedelta64}
"""Types that `array` would take for integers."""


def count_and_ids(
    tokens: Any, prefix_caching: bool, most: int, a_part_fits: bool = False
) -> tuple[int, bytes]:
    """Return the number of tokens and their packed ids, which are empty without a prefix cache.

    Parameters
    ----------
    tokens : int, integer[num_tokens] or sequence of int
        The number of tokens, or their ids.
    prefix_caching : bool
        Whether the ids are needed.
    most : int
        Tokens that the pool can hold; if there are more, their ids are not read.
    a_part_fits : bool
        Whether to read the first ``most + 1`` ids then.

    Raises
    ------
    TypeError
        `tokens` is neither a number nor token ids, or is a number although the ids are needed.
    ValueError
        The number is negative, or it or an id does not fit int64.
    """
    if type(tokens) is int and 0 <= tokens <= MOST_TOKENS and not prefix_caching:
        return tokens, b""
    if type(tokens) is np.ndarray and tokens.ndim == 1 and tokens.dtype is _INT64 and len(tokens) <= most:
        return len(tokens), tokens.tobytes() if prefix_caching else b""
    if _is_count(tokens):
        count = not_negative("tokens", tokens)
        if prefix_caching:
            raise TypeError(
                f"tokens must be the token ids with prefix_caching=True, got tokens={shown(tokens)}"
            )
        if count > MOST_TOKENS:
            raise ValueError(f"tokens must fit int64, got tokens={shown(tokens)}")
        return count, b""
    count = number_of(tokens, wanted="a count, or token ids in order")
    if count > most:
        if isinstance(tokens, np.ndarray):
            _require_integers(tokens, "tokens")
        if not (prefix_caching and a_part_fits):
            return count, b""
        tokens = _first(tokens, most + 1)
        return count, as_bytes(tokens)
    ids = as_bytes(tokens)
    return len(ids) // BYTES_PER_ID, ids if prefix_caching else b""


def at_most(tokens: Any, limit: SupportsIndex | None) -> Any:
    """Return the first tokens, `limit` at most: a smaller number if `tokens` is a number, else the first ids.

    All ids are checked, so that a wrong one is refused in the first chunk of a prompt, not in the last.

    Raises
    ------
    TypeError
        `tokens` is neither a number nor token ids, or `limit` is not an integer.
    ValueError
        `limit` is not positive, or an id does not fit int64.
    """
    if limit is None:
        return tokens
    limit = positive("limit", limit)
    if _is_count(tokens):
        return min(integer("tokens", tokens), limit)
    if number_of(tokens, wanted="a count, or token ids in order") <= limit:
        return tokens
    return np.frombuffer(as_bytes(tokens), np.int64)[:limit]


def _first(tokens: Any, count: int) -> Any:
    """Return the first token ids of more than `count`."""
    if isinstance(tokens, np.ndarray):
        return tokens[:count]
    try:
        return list(islice(iter(tokens), count))
    except Exception as error:  # of the object's own methods
        raise TypeError(f"tokens must be token ids in order, got tokens={shown(tokens)}") from error


def _is_count(tokens: Any) -> bool:
    """Tell whether `tokens` is a number of tokens rather than their ids."""
    try:
        return isinstance(tokens, str) or not hasattr(tokens, "__len__") or getattr(tokens, "ndim", 1) == 0
    except Exception:  # of the object's own methods
        return True


def number_of(tokens: Any, name: str = "tokens", wanted: str = "token ids in order") -> int:
    """Return how many token ids there are.

    Raises
    ------
    TypeError
        `tokens` has no length, or no order.
    """
    if not isinstance(tokens, (str, set, frozenset, dict)):
        try:
            return len(tokens)
        except Exception:  # of the object's own __len__, too
            pass
    raise TypeError(f"{name} must be {wanted}, got {name}={shown(tokens)}")


def as_bytes(tokens: TokenIds, name: str = "tokens") -> bytes:
    """Return token ids packed as int64 bytes.

    Parameters
    ----------
    tokens : integer[num_tokens] or sequence of int
        A NumPy array is converted without creating a Python int for each token.
    name : str
        Name of the argument, for the error message.

    Raises
    ------
    TypeError
        An id is not an integer, or an array has another dtype, more than one dimension, or a mask.
    ValueError
        An id does not fit int64.

    Examples
    --------
    >>> as_bytes([1, 258]).hex(" ", 8)
    '0100000000000000 0201000000000000'
    """
    if type(tokens) not in (list, tuple, np.ndarray):
        tokens = _adopted(tokens, name)
    if isinstance(tokens, np.ndarray):
        _require_integers(tokens, name)
        if tokens.dtype == _INT64:
            return tokens.tobytes()
        if tokens.dtype == np.uint64 and tokens.size and tokens.max() > MOST_TOKENS:
            raise ValueError(f"{name} must fit int64, got {tokens.max()}")
        return tokens.astype(np.int64).tobytes()
    try:
        if _NOT_IDS.isdisjoint(map(type, tokens)):
            # Through an iterator: `array` would take a `bytes` object as raw memory, not as numbers.
            return array("q", iter(tokens)).tobytes()
    except Exception:  # of an id's own __index__, too
        pass
    ids = [integer(f"{name}[{place}]", token) for place, token in enumerate(tokens)]
    for token in ids:
        if not -MOST_TOKENS - 1 <= token <= MOST_TOKENS:
            raise ValueError(f"{name} must fit int64, got {shown(token)}")
    return array("q", ids).tobytes()


def _require_integers(tokens: NDArray[Any], name: str) -> None:
    # NumPy imports `np.ma` when it is first used.
    masked = type(tokens) is not np.ndarray and isinstance(tokens, np.ma.MaskedArray)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or masked:
        mask = ", and no mask, got a masked array" if masked else ", got"
        raise TypeError(
            f"{name} must be integers in one dimension{mask} {name}.dtype={tokens.dtype} "
            f"{name}.shape={tokens.shape}"
        )


def _adopted(tokens: Any, name: str) -> Any:
    """Return token ids of another type as a NumPy array or as a list."""
    if isinstance(tokens, np.ndarray):
        return tokens
    length = number_of(tokens, name)
    why = None
    try:
        if hasattr(tokens, "__array__"):
            return np.asarray(tokens)
        # One more than its length at most: an iterator may be endless.
        ids = list(islice(iter(tokens), length + 1))
        if len(ids) == length:
            return ids
    except Exception as error:
        why = error
    raise TypeError(f"{name} must be token ids in order, got {name}={shown(tokens)}") from why


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
