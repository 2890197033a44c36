"""Write the keys and values of new tokens into the slots that the allocator gave them."""

from numba import cuda


@cuda.jit
def write_kv_kernel(key, value, key_cache, value_cache, slot_mapping):
    """Copy token by token into scattered slots.

    One thread block copies one token: ``threadIdx.x`` runs over head_dim, so that a warp reads and writes
    32 neighbouring floats, and ``threadIdx.y`` over KV heads::

        slot_mapping   45                          block_size 16: slot 45 = block 2, offset 13
        key[token]     [ head 0 | head 1 | ... ]
                            |
        key_cache[2]   [ offset 0 | ... | offset 13 | ... ]

    Launch: ``[num_tokens, (threads over head_dim, threads over KV heads)]``. Bytes moved: each element
    of `key` and `value` is read once and written once.
    """
    # key, value              float32[num_tokens, num_kv_heads, head_dim]
    # key_cache, value_cache  float32[num_blocks, block_size, num_kv_heads, head_dim]
    # slot_mapping            int64[num_tokens], -1: the token is skipped
    token = cuda.blockIdx.x
    num_kv_heads, head_dim = key.shape[1], key.shape[2]
    block_size = key_cache.shape[1]

    slot = slot_mapping[token]
    if slot < 0:  # Numba would take block -1 for the last one
        return
    kv_block = slot // block_size
    offset = slot % block_size
    for kv_head in range(cuda.threadIdx.y, num_kv_heads, cuda.blockDim.y):
        for dim in range(cuda.threadIdx.x, head_dim, cuda.blockDim.x):
            key_cache[kv_block, offset, kv_head, dim] = key[token, kv_head, dim]
            value_cache[kv_block, offset, kv_head, dim] = value[token, kv_head, dim]
