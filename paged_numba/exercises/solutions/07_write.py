"""
07 · Write a batch to its slots
===============================

Write the kernel ``write_kv``, which copies the new keys and values of a batch to their slots. In lesson 05, each
number of a token had its own thread. In a model with many heads, a token has more numbers than a thread block may
have threads. Here, a thread block takes one token, and its threads share the token's ``num_kv_heads * head_dim``
numbers: thread 0 takes numbers 0, ``cuda.blockDim.x``, ``2 * cuda.blockDim.x`` and so on, and thread 1 takes the
number after each of these. There may also be more threads than numbers.

A token with slot -1 is padding: its key and value are neither read nor written. Slots that ``slot_mapping`` does not
name stay as they are.

Shapes::

    key_cache, value_cache   float32[num_blocks, block_size, num_kv_heads, head_dim]
    key, value               float32[num_tokens, num_kv_heads, head_dim]
    slot_mapping             int64[num_tokens], slot = block * block_size + offset, or -1

A token with 2 heads of 3 numbers, and a thread block of 4 threads::

    number    0    1    2    3    4    5
    head      0    0    0    1    1    1
    dim       0    1    2    0    1    2
    thread    0    1    2    3    0    1

Example: with 2 blocks of 4 slots and ``slot_mapping = [6, -1]``, the launch ``write_kv[2, 4](...)`` copies ``key[0]``
to ``key_cache[1, 2]`` and ``value[0]`` to ``value_cache[1, 2]``, and leaves the other 7 slots alone.
"""

from paged_numba import cuda


@cuda.jit
def write_kv(key_cache, value_cache, key, value, slot_mapping):
    # >>> Your code: the token and slot of this thread block, the guard, and this thread's loop (9 lines).
    token, num_heads, head_dim = cuda.blockIdx.x, key.shape[1], key.shape[2]
    slot, block_size = slot_mapping[token], key_cache.shape[1]
    if slot < 0:
        return
    block, offset = slot // block_size, slot % block_size
    for number in range(cuda.threadIdx.x, num_heads * head_dim, cuda.blockDim.x):
        head, dim = number // head_dim, number % head_dim
        key_cache[block, offset, head, dim] = key[token, head, dim]
        value_cache[block, offset, head, dim] = value[token, head, dim]
    # <<<
