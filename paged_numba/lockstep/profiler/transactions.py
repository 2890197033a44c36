"""Memory transactions of a warp's addresses: sectors and lines of global memory, wavefronts of shared memory.

A row is a request: the byte addresses of the 32 lanes of one warp at one instruction. Inactive lanes hold
`NOBODY`. Global memory moves in sectors of 32 bytes, four to a cache line of 128 (Nsight Compute, Kernel
Profiling Guide, "Memory Tables"). Shared memory has 32 banks of 4 bytes; a bank serves one word in a
wavefront, to any number of lanes (CUDA C++ Programming Guide, "Shared Memory").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SECTOR, LINE, BANKS, WORD = 32, 128, 32, 4
NOBODY = np.int64(2**62)
"""The address of an inactive lane: larger than every other one, so that it is sorted last."""
_NO_WORD = NOBODY // WORD


class GlobalCost(NamedTuple):
    """Total cost of requests to global memory."""

    addresses: int
    """Distinct elements, summed over requests."""
    sectors: int
    lines: int
    touched: Any
    """int64 array: the number of each touched sector, at least once."""


def global_cost(rows: Any) -> GlobalCost:
    """Count the distinct elements, sectors and lines of each request.

    Parameters
    ----------
    rows : int64[requests, 32]
        Byte addresses, sorted by request; at least one lane of each is active.
    """
    first, rest = rows[:, 0], rows[:, 1:]
    # Two addresses lie in the same aligned 2**k bytes if they differ below bit k only.
    differs = rest ^ rows[:, :-1]
    # The step from the last active lane to the inactive ones does not count.
    steps_out = int(np.count_nonzero(rows[:, -1] >= NOBODY))
    other_sector = differs >= SECTOR
    entered = rest[other_sector]
    if steps_out:
        entered = entered[entered < NOBODY]
    addresses = len(rows) + int(np.count_nonzero(differs)) - steps_out
    lines = len(rows) + int(np.count_nonzero(differs >= LINE)) - steps_out
    return GlobalCost(addresses, len(rows) + entered.size, lines, np.concatenate([first, entered]) // SECTOR)


def distinct(rows: Any, nobody: Any) -> Any:
    """Return, for sorted rows, which entries differ from their predecessor and are not `nobody`."""
    fresh = np.empty(rows.shape, bool)
    fresh[:, 0] = True
    np.not_equal(rows[:, 1:], rows[:, :-1], out=fresh[:, 1:])
    if rows.size and rows[:, -1].max() >= nobody:
        fresh &= rows < nobody
    return fresh


def turns(rows: Any) -> int:
    """Return the turns that atomic operations take: the sum over requests of the most lanes at one address.

    `rows` as in `global_cost`.
    """
    place = np.arange(32)
    first = np.maximum.accumulate(np.where(distinct(rows, NOBODY), place, 0), axis=1)
    run = np.where(rows < NOBODY, place - first + 1, 0)
    return int(run.max(axis=1).sum())


class SharedCost(NamedTuple):
    """Total cost of requests to shared memory."""

    wavefronts: int
    ideal: int
    """Wavefronts if the distinct words were spread evenly over the banks."""


def shared_cost(rows: Any, itemsize: int) -> SharedCost:
    """Count the wavefronts of requests.

    Accesses of 8 bytes are served in two halves of a warp, accesses of 16 bytes in four quarters. Two neighbouring
    parts are served together if each of their active lanes accesses the same address as its neighbour, lane
    i XOR 1, or if each accesses the same address as lane i XOR 2.

    Parameters
    ----------
    rows : int64[requests, 32]
        Byte addresses; at least one lane of each row is active.
    itemsize : int
        Bytes that each lane accesses.
    """
    words = max(1, itemsize // WORD)
    if words == 1:
        first = rows // WORD
        # Words within a range of 32 lie in different banks.
        last = np.where(first < _NO_WORD, first, 0).max(axis=1)
        spread = first[last - first.min(axis=1) >= BANKS]
        spread.sort(axis=1)
        wavefronts, ideal = _phases(spread)
        simple = len(rows) - len(spread)
        return SharedCost(simple + int(wavefronts.sum()), simple + int(ideal.sum()))
    parts = min(words, 4)
    merged = _merges(rows, parts)
    everything = _spread(rows // WORD, words)
    width = 32 * words // parts
    alone = _phases(np.sort(everything.reshape(-1, width), axis=1))[0].reshape(-1, 2).sum(axis=1)
    together = _phases(np.sort(everything.reshape(-1, 2 * width), axis=1))[0]
    _, ideal = _phases(np.sort(everything.reshape(len(rows), -1), axis=1))
    return SharedCost(int(np.where(merged, together, alone).sum()), int(ideal.sum()))


def _spread(first: Any, words: int) -> Any:
    """Return the words of each lane, [requests, 32, words]."""
    spread = first[:, :, None] + np.arange(words)
    return np.where(first[:, :, None] >= _NO_WORD, _NO_WORD, spread)


def _merges(rows: Any, parts: int) -> Any:
    """Return which pairs of neighbouring parts are served together, bool[requests * parts / 2]."""
    together = np.zeros(len(rows) * parts // 2, bool)
    for other in (1, 2):
        partner = rows[:, np.arange(32) ^ other]
        same = (rows == partner) | (rows >= NOBODY) | (partner >= NOBODY)
        together |= same.reshape(len(together), -1).all(axis=1)
    return together


def _phases(ordered: Any) -> tuple[Any, Any]:
    """Return the wavefronts and the ideal wavefronts of each row of sorted words that are served together."""
    fresh = distinct(ordered, _NO_WORD)
    row = np.broadcast_to(np.arange(len(ordered))[:, None], ordered.shape)[fresh]
    bank = ordered[fresh] & (BANKS - 1)
    in_bank = np.bincount(row * BANKS + bank, minlength=len(ordered) * BANKS).reshape(-1, BANKS)
    return in_bank.max(axis=1, initial=0), -(-np.bincount(row, minlength=len(ordered)) // BANKS)
