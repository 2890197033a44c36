"""Block tables: compute the slots of tokens, and pad the tables of a batch to one array.

With ``block_size`` 16, token 45 of a sequence lies in block ``table[45 // 16]``, at offset 45 % 16 = 13; its slot is
``table[2] * 16 + 13``.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def slots_of(table: array[int], block_size: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return the slots of the tokens ``start .. stop - 1`` of a sequence.

    Parameters
    ----------
    table : array of int32
        Block table of the sequence.
    block_size, start, stop : int
        In tokens.

    Returns
    -------
    int64[stop - start]

    See Also
    --------
    paged_numba.BlockAllocator.slots : The same for a sequence of a pool, with its arguments checked.

    Examples
    --------
    Tokens 3, 4 and 5 are the last of block 7 and the first two of block 2.

    >>> from array import array
    >>> slots_of(array("i", [7, 2]), 4, 3, 6).tolist()
    [31, 8, 9]
    """
    first, last = start // block_size, (stop - 1) // block_size
    if first == last:
        slot = table[first] * block_size + start % block_size
        return np.arange(slot, slot + stop - start, dtype=np.int64)
    blocks = np.array(table[first : last + 1], np.int64)
    every = (blocks[:, None] * block_size + _offsets(block_size)).ravel()
    return every[start - first * block_size : stop - first * block_size]


def padded(tables: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the block tables of a batch as one array, padded with -1.

    Parameters
    ----------
    tables : sequence of int32[num_seq_blocks]

    Returns
    -------
    int32[num_seqs, max_blocks]

    See Also
    --------
    paged_numba.BlockAllocator.block_table : Returns the table of one sequence.

    Examples
    --------
    >>> import numpy as np
    >>> padded([np.array([7, 2], np.int32), np.array([5], np.int32)]).tolist()
    [[7, 2], [5, -1]]
    """
    batch = np.full((len(tables), max((table.size for table in tables), default=0)), -1, np.int32)
    for row, table in zip(batch, tables, strict=True):
        row[: table.size] = table
    return batch


@functools.cache
def _offsets(block_size: int) -> NDArray[np.int64]:
    return np.arange(block_size, dtype=np.int64)
