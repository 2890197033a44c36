"""Random numbers in kernels: the generator xoroshiro128+, with the states and the draws of ``numba.cuda.random``.

Each thread draws from a state of its own. The states lie 2**64 draws apart from one another. The generator is by
David Blackman and Sebastiano Vigna, https://prng.di.unimi.it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy import float32, float64, int64, uint64

from ....arguments import integer, not_negative
from ..device_array import DeviceArray
from ..kernels import jit
from ..memory import device_array

__all__ = [
    "create_xoroshiro128p_states",
    "init_xoroshiro128p_states",
    "xoroshiro128p_dtype",
    "xoroshiro128p_jump",
    "xoroshiro128p_next",
    "xoroshiro128p_normal_float32",
    "xoroshiro128p_normal_float64",
    "xoroshiro128p_uniform_float32",
    "xoroshiro128p_uniform_float64",
]

xoroshiro128p_dtype = xoroshiro128p_type = np.dtype([("s0", np.uint64), ("s1", np.uint64)], align=True)
"""The state of a generator."""

_TWO_PI = 2 * math.pi
_TWO_PI32 = np.float32(_TWO_PI)
_JUMP = 0xD86B048B86AA9922_BEAC0467EBA5FACB
"""The polynomial that jumps over 2**64 draws."""
_JUMP_LOW, _JUMP_HIGH = uint64(_JUMP % 2**64), uint64(_JUMP >> 64)


# In kernels.


@jit(device=True)
def _rotated(x, k):  # type: ignore[no-untyped-def]
    return (x << uint64(k)) | (x >> uint64(64 - k))


@jit(device=True)
def xoroshiro128p_next(states, index):  # type: ignore[no-untyped-def]
    """Return the next random uint64 of a state, and advance the state."""
    i = int64(index)
    s0 = states[i]["s0"]
    s1 = states[i]["s1"]
    result = s0 + s1
    s1 ^= s0
    states[i]["s0"] = _rotated(s0, 55) ^ s1 ^ (s1 << uint64(14))
    states[i]["s1"] = _rotated(s1, 36)
    return result


@jit(device=True)
def xoroshiro128p_jump(states, index):  # type: ignore[no-untyped-def]
    """Advance a state by 2**64 draws."""
    i = int64(index)
    s0 = uint64(0)
    s1 = uint64(0)
    for bit in range(128):
        word = _JUMP_LOW if bit < 64 else _JUMP_HIGH
        if word >> uint64(bit % 64) & uint64(1):
            s0 ^= states[i]["s0"]
            s1 ^= states[i]["s1"]
        xoroshiro128p_next(states, i)
    states[i]["s0"] = s0
    states[i]["s1"] = s1


@jit(device=True)
def xoroshiro128p_uniform_float64(states, index):  # type: ignore[no-untyped-def]
    """Return a float64 in [0, 1), and advance the state by a draw."""
    return float64(xoroshiro128p_next(states, index) >> uint64(11)) * float64(2.0**-53)


@jit(device=True)
def xoroshiro128p_uniform_float32(states, index):  # type: ignore[no-untyped-def]
    """Return a float32 in [0, 1], and advance the state by a draw."""
    return float32(xoroshiro128p_uniform_float64(states, index))


@jit(device=True)
def xoroshiro128p_normal_float32(states, index):  # type: ignore[no-untyped-def]
    """Return a float32 from the normal distribution, and advance the state by two draws."""
    a = xoroshiro128p_uniform_float32(states, index)
    b = xoroshiro128p_uniform_float32(states, index)
    return math.sqrt(-float32(2.0) * math.log(a)) * math.cos(_TWO_PI32 * b)


@jit(device=True)
def xoroshiro128p_normal_float64(states, index):  # type: ignore[no-untyped-def]
    """Return a float64 from the normal distribution, and advance the state by two draws, of float32 as in Numba."""
    a = xoroshiro128p_uniform_float32(states, index)
    b = xoroshiro128p_uniform_float32(states, index)
    return math.sqrt(-float64(2.0) * math.log(a)) * math.cos(_TWO_PI * b)


# On the host: a draw, and so a jump, is a linear map of the 128 bits of a state, each a column of 2 words.


def _next(state: Any) -> Any:
    """Return states, uint64[n, 2], one draw later."""
    s0, s1 = state[:, 0], state[:, 0] ^ state[:, 1]

    def rotated(x: Any, k: int) -> Any:
        return (x << uint64(k)) | (x >> uint64(64 - k))

    return np.stack([rotated(s0, 55) ^ s1 ^ (s1 << uint64(14)), rotated(s1, 36)], axis=1)


def _applied(columns: Any, states: Any) -> Any:
    """Return a linear map, given by its 128 columns, of each state: the sum of what each of its 16 bytes gives."""
    result = np.zeros_like(states)
    for place, values in enumerate(states.astype("<u8").view(np.uint8).reshape(-1, 16).T):
        table = np.zeros((1, 2), np.uint64)
        for column in columns[8 * place : 8 * place + 8]:
            table = np.concatenate([table, table ^ column])
        result ^= table[values]
    return result


@cache
def _jump(power: int) -> Any:
    """Return the columns of the map that jumps over 2**64 draws ``2**power`` times."""
    if power:
        return _applied(_jump(power - 1), _jump(power - 1))
    bits = np.arange(128)
    state = np.zeros((128, 2), np.uint64)
    state[bits, bits // 64] = uint64(1) << (bits % 64).astype(np.uint64)
    columns = np.zeros_like(state)
    for bit in range(128):
        if _JUMP >> bit & 1:
            columns ^= state
        state = _next(state)
    return columns


def init_xoroshiro128p_states(states: Any, seed: int, subsequence_start: int = 0, stream: Any = 0) -> None:
    """Overwrite states with those of a seed, each 2**64 draws after the one before.

    Parameters
    ----------
    states : DeviceArray
        1-D, of `xoroshiro128p_dtype`.
    seed : int
        Its lowest 64 bits count.
    subsequence_start : int
        How many times 2**64 draws to leave out at first.
    stream : object
        Work is done when the call returns.

    Examples
    --------
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> states = cuda.random.create_xoroshiro128p_states(2, seed=1)
    >>> states.copy_to_host()["s0"]
    array([10451216379200822465,  8341117667364343960], dtype=uint64)
    """
    count, start = states.shape[0], not_negative("subsequence_start", subsequence_start)
    z = (integer("seed", seed) + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    made = np.full((1, 2), z ^ z >> 31, np.uint64)
    for power in range(start.bit_length()):
        if start >> power & 1:
            made = _applied(_jump(power), made)
    power = 0
    while len(made) < count:  # the second half lies `len(made)` jumps after the first one
        made = np.concatenate([made, _applied(_jump(power), made)])
        power += 1
    host = np.empty(count, xoroshiro128p_dtype)
    host["s0"], host["s1"] = made[:count].T
    states.copy_to_device(host)


def create_xoroshiro128p_states(
    n: int, seed: int, subsequence_start: int = 0, stream: Any = 0
) -> DeviceArray:
    """Return new states of a seed, each 2**64 draws after the one before.

    Parameters
    ----------
    n : int
        How many states to make: one for each thread that draws.
    seed : int
        Its lowest 64 bits count.
    subsequence_start : int
        How many times 2**64 draws to leave out at first.
    stream : object
        Work is done when the call returns.

    Returns
    -------
    DeviceArray
        1-D, of `xoroshiro128p_dtype`.

    See Also
    --------
    init_xoroshiro128p_states : Overwrite states that exist.

    Examples
    --------
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> cuda.random.create_xoroshiro128p_states(2, seed=1).shape
    (2,)
    """
    states = device_array(not_negative("n", n), xoroshiro128p_dtype, stream=stream)
    init_xoroshiro128p_states(states, seed, subsequence_start, stream)
    return states
