"""Copy whole KV blocks within the cache: what copy-on-write asks for."""

from numba import cuda


@cuda.jit
def copy_blocks_kernel(key_cache, value_cache, block_pairs):
    """Copy block ``src`` over block ``dst`` for each pair; no ``dst`` may be in another pair.

    One thread block copies one slot of one pair, threads laid out as in `write_kv_kernel`.

    Launch: ``[(num_pairs, block_size), (threads over head_dim, threads over KV heads)]``. Bytes moved:
    each element of the source blocks is read once and written once.
    """
    # key_cache, value_cache  float32[num_blocks, block_size, num_kv_heads, head_dim]
    # block_pairs             int64[num_pairs, 2], rows (src, dst)
    pair = cuda.blockIdx.x
    offset = cuda.blockIdx.y
    num_kv_heads, head_dim = key_cache.shape[2], key_cache.shape[3]

    src = block_pairs[pair, 0]
    dst = block_pairs[pair, 1]
    for kv_head in range(cuda.threadIdx.y, num_kv_heads, cuda.blockDim.y):
        for dim in range(cuda.threadIdx.x, head_dim, cuda.blockDim.x):
            key_cache[dst, offset, kv_head, dim] = key_cache[src, offset, kv_head, dim]
            value_cache[dst, offset, kv_head, dim] = value_cache[src, offset, kv_head, dim]
