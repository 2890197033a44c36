"""Write the keys and values of new tokens into the slots that the allocator gave them."""

from numba import cuda


@cuda.jit
def write_kv_kernel(key, value, key_cache, value_cache, slot_mapping):
    """Copy each token to the slot that the slot mapping names.

    A thread copies one element of K and one of V. ``threadIdx.x`` is the dimension, so a warp reads and writes 32
    neighbouring numbers; ``threadIdx.y`` counts KV heads::

        slot_mapping   45                          block_size 16: slot 45 = block 2, offset 13
        key[token]     [ head 0 | head 1 | ... ]
                            |
        key_cache[2]   [ offset 0 | ... | offset 13 | ... ]

    Launch: ``[(num_tokens, thread blocks over KV heads), (at least head_dim and value_head_dim, KV
    heads at once)]``. Bytes moved: each element of `key` and `value` is read once and written once.
    """
    # key           float[num_tokens, num_kv_heads, head_dim]
    # value         float[num_tokens, num_kv_heads, value_head_dim]
    # key_cache     float[num_blocks, block_size, num_kv_heads, head_dim]
    # value_cache   float[num_blocks, block_size, num_kv_heads, value_head_dim]
    # slot_mapping  int64[num_tokens], -1: the token is skipped
    token = cuda.blockIdx.x
    kv_head = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    dim = cuda.threadIdx.x
    block_size = key_cache.shape[1]

    slot = slot_mapping[token]
    if slot < 0:  # Numba would take block -1 to be the last block
        return
    if kv_head >= key.shape[1]:
        return
    kv_block = slot // block_size
    offset = slot % block_size
    if dim < key.shape[2]:
        key_cache[kv_block, offset, kv_head, dim] = key[token, kv_head, dim]
    if dim < value.shape[2]:
        value_cache[kv_block, offset, kv_head, dim] = value[token, kv_head, dim]
