"""Copy whole KV blocks within the cache, for copy-on-write."""

from numba import cuda


@cuda.jit
def copy_blocks_kernel(key_cache, value_cache, block_pairs):
    """Copy block ``src`` over block ``dst`` for each pair; no ``dst`` may be in another pair.

    A thread copies one element of K and one of V. Threads are mapped to dimensions and KV heads as in
    `write_kv_kernel`; ``blockIdx.z`` is the offset in the block.

    Launch: ``[(num_pairs, thread blocks over KV heads, block_size), (at least head_dim and
    value_head_dim, KV heads at once)]``. Bytes moved: each element of the source blocks is read once and written once.
    """
    # key_cache    float[num_blocks, block_size, num_kv_heads, head_dim]
    # value_cache  float[num_blocks, block_size, num_kv_heads, value_head_dim]
    # block_pairs  int64[num_pairs, 2], rows (src, dst)
    pair = cuda.blockIdx.x
    kv_head = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    offset = cuda.blockIdx.z
    dim = cuda.threadIdx.x
    if kv_head >= key_cache.shape[2]:
        return

    src = block_pairs[pair, 0]
    dst = block_pairs[pair, 1]
    if dim < key_cache.shape[3]:
        key_cache[dst, offset, kv_head, dim] = key_cache[src, offset, kv_head, dim]
    if dim < value_cache.shape[3]:
        value_cache[dst, offset, kv_head, dim] = value_cache[src, offset, kv_head, dim]
