"""
19 · Four keys for a warp
=========================

Write the kernel ``score``: ``scores[token]`` is the dot product of the query and the key of the token. Eight
neighbouring lanes share a key, so a warp takes four keys at once: lane ``g`` of the eight takes the dimensions ``g``,
``g + 8``, ``g + 16`` and so on. Shuffles add up the parts of the eight lanes; then one of these lanes writes the
score.

Use neither shared memory nor barriers. All 32 lanes of a warp must take part in a shuffle with the mask ``ALL``,
including lanes without a token: there may be more threads than needed.

Shapes::

    scores   float32[num_tokens]
    query    float32[head_dim]               head_dim is a multiple of 8
    keys     float32[num_tokens, head_dim]

A warp whose first token is 4, with ``head_dim = 16``::

    lane         0     1    ...   7      8     9    ...  15     16  ...
    token        4     4          4      5     5          5      6
    g            0     1          7      0     1          7      0
    dimensions  0, 8  1, 9      7, 15   0, 8  1, 9      7, 15   0, 8

Example: ``query = [1, 0, 0, 0, 0, 0, 0, 2]`` and ``keys[0] = [3, 0, 0, 0, 0, 0, 0, 4]`` give ``scores[0] = 11``.

What is checked: each key is read once, with four sectors per request.
"""

from numba import float32

from paged_numba import cuda

ALL = 0xFFFFFFFF


@cuda.jit
def score(scores, query, keys):
    token, g = cuda.grid(1) // 8, cuda.threadIdx.x % 8
    # >>> Your code: the part of this lane; the shuffles; the write (8 lines).
    part = float32(0)
    if token < scores.size:
        for dim in range(g, query.size, 8):
            part += query[dim] * keys[token, dim]
    for distance in (4, 2, 1):
        part += cuda.shfl_xor_sync(ALL, part, distance)
    if g == 0 and token < scores.size:
        scores[token] = part
    # <<<
