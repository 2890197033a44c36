"""What becomes of a scaled dot product before softmax."""

import math

from numba import cuda, float32


@cuda.jit(device=True, inline="always")  # inlined before typing: compiles with no GPU too
def adjusted_score(score, softcap, slope, distance):
    """Return the score with logit soft capping (Gemma 2, 2024) and ALiBi (Press et al., 2022), in this order.

    A `softcap` of 0 caps nothing; a `slope` of 0 adds nothing. `distance` is the key's position less the
    query's: 0 for a token's own key, negative before it.
    """
    if softcap > 0:
        score = softcap * math.tanh(score / softcap)
    return score + slope * float32(distance)
