"""Write the keys and values of new tokens into the slots of packed caches."""

from numba import cuda


@cuda.jit
def write_kv_packed_kernel(key, value, key_cache, value_cache, slot_mapping):
    """Copy each token to the slot that the slot mapping names; a thread copies one element of K and one of V.

    Threads are mapped to dimensions and KV heads as in `write_kv_kernel`. The layout suits the kernel that reads it,
    at the cost of the write: a token's numbers are not contiguous. In float32 with block_size 16, where x is 4::

        slot_mapping   45                          slot 45 = block 2, offset 13
        key[token]     [ 0 1 2 3 | 4 5 6 7 | ... ]
                            |         |
        key_cache[2]   [ piece 0 of 16 tokens | piece 1 of 16 tokens | ... ]      at 13 * 4, (16 + 13) * 4, ...
        value_cache[2] [ dim 0 of 16 tokens | dim 1 of 16 tokens | ... ]          at 13, 16 + 13, ...

    The loads of a warp are coalesced. Its 32 stores into K make pieces of 16 bytes, half a sector each; its 32 stores
    into V go to 32 sectors.

    Launch: ``[(num_tokens, thread blocks over KV heads), (at least head_dim and value_head_dim, KV
    heads at once)]``. Bytes moved: each element of `key` and `value` is read once and written once.
    """
    # key           float[num_tokens, num_kv_heads, head_dim]
    # value         float[num_tokens, num_kv_heads, value_head_dim]
    # key_cache     float[num_blocks, num_kv_heads, head_dim // x, block_size, x], x numbers are 16 bytes
    # value_cache   float[num_blocks, num_kv_heads, value_head_dim, block_size]
    # slot_mapping  int64[num_tokens], -1: the token is skipped
    token = cuda.blockIdx.x
    kv_head = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    dim = cuda.threadIdx.x
    block_size, piece_size = key_cache.shape[3], key_cache.shape[4]

    slot = slot_mapping[token]
    if slot < 0:  # Numba would take block -1 to be the last block
        return
    if kv_head >= key.shape[1]:
        return
    kv_block = slot // block_size
    offset = slot % block_size
    if dim < key.shape[2]:
        key_cache[kv_block, kv_head, dim // piece_size, offset, dim % piece_size] = key[token, kv_head, dim]
    if dim < value.shape[2]:
        value_cache[kv_block, kv_head, dim, offset] = value[token, kv_head, dim]
