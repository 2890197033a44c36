"""Scores: the dot product of a query and a key, and the options that act on it before softmax."""

import math

from numba import cuda, float32

PART = 16


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def dot(query, key, head_dim):
    """Return the dot product of a query and a key, a sum of sums of 16 products.

    Rounding errors grow with the number of additions in a row (Higham, "The accuracy of floating point summation",
    1993): at most 32 for 256 dimensions, so errors are about a quarter as large as in one long sum.
    """
    score = float32(0)
    for first_dim in range(0, head_dim, PART):
        part = float32(0)
        for dim in range(first_dim, min(first_dim + PART, head_dim)):
            part += float32(query[dim]) * float32(key[dim])
        score += part
    return score


@cuda.jit(device=True, inline="always")
def adjusted_score(score, softcap, slope, distance):
    """Return the score after soft capping (Gemma 2, 2024) and ALiBi (Press et al., 2022), in this order.

    A `softcap` of 0 caps nothing; a `slope` of 0 adds nothing. `distance` is the key's position minus the
    query's: 0 for the token's own key, negative for keys before it.
    """
    if softcap > 0:
        score = softcap * math.tanh(score / softcap)
    return score + slope * float32(distance)
