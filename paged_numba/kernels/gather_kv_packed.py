"""Gather a sequence's keys and values from packed caches back into dense arrays."""

from numba import cuda


@cuda.jit
def gather_kv_packed_kernel(key, value, key_cache, value_cache, block_table):
    """Copy each token from the block that the block table names: the inverse of `write_kv_packed_kernel`.

    Threads are mapped to dimensions and KV heads as in `write_kv_packed_kernel`. Stores are coalesced; a warp loads
    pieces of 16 bytes from K and single numbers from V.

    Launch: ``[(seq_len, thread blocks over KV heads), (at least head_dim and value_head_dim, KV
    heads at once)]``. Bytes moved: each element of `key` and `value` is read once from the cache and written once.
    """
    # key          float[seq_len, num_kv_heads, head_dim]
    # value        float[seq_len, num_kv_heads, value_head_dim]
    # key_cache    float[num_blocks, num_kv_heads, head_dim // x, block_size, x], x numbers are 16 bytes
    # value_cache  float[num_blocks, num_kv_heads, value_head_dim, block_size]
    # block_table  int32[max_blocks], entries past the sequence's blocks are not read
    position = cuda.blockIdx.x
    kv_head = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    dim = cuda.threadIdx.x
    block_size, piece_size = key_cache.shape[3], key_cache.shape[4]
    if kv_head >= key.shape[1]:
        return

    kv_block = block_table[position // block_size]
    offset = position % block_size
    if dim < key.shape[2]:
        key[position, kv_head, dim] = key_cache[
            kv_block, kv_head, dim // piece_size, offset, dim % piece_size
        ]
    if dim < value.shape[2]:
        value[position, kv_head, dim] = value_cache[kv_block, kv_head, dim, offset]
