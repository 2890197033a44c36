"""Gather a sequence's scattered keys and values back into dense arrays."""

from numba import cuda


@cuda.jit
def gather_kv_kernel(key, value, key_cache, value_cache, block_table):
    """Copy each token from the block that the block table names: the inverse of `write_kv_kernel`.

    A thread copies one element of K and one of V. Threads are mapped to dimensions and KV heads as in
    `write_kv_kernel`.

    Launch: ``[(seq_len, thread blocks over KV heads), (at least head_dim and value_head_dim, KV
    heads at once)]``. Bytes moved: each element of `key` and `value` is read once from the cache and written once.
    """
    # key          float[seq_len, num_kv_heads, head_dim]
    # value        float[seq_len, num_kv_heads, value_head_dim]
    # key_cache    float[num_blocks, block_size, num_kv_heads, head_dim]
    # value_cache  float[num_blocks, block_size, num_kv_heads, value_head_dim]
    # block_table  int32[max_blocks], entries past the sequence's blocks are not read
    position = cuda.blockIdx.x
    kv_head = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    dim = cuda.threadIdx.x
    block_size = key_cache.shape[1]
    if kv_head >= key.shape[1]:
        return

    kv_block = block_table[position // block_size]
    offset = position % block_size
    if dim < key.shape[2]:
        key[position, kv_head, dim] = key_cache[kv_block, offset, kv_head, dim]
    if dim < value.shape[2]:
        value[position, kv_head, dim] = value_cache[kv_block, offset, kv_head, dim]
