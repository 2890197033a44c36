"""Device code: plain Numba CUDA kernels, one idea a file, fit to copy into any project.

Ladder of attention: `attention_naive` (one thread per query token and head), `attention_block` (one thread block
for each), `attention_tile` (one for neighbouring query tokens and all heads of a KV head: each key and value is loaded
once for all), then several thread blocks for the keys of each tile, put together by `merge_splits`. Attention over
disjoint sets of keys: `merge_states`. Moving data: `write_kv`, `gather_kv`, `copy_blocks`. For caches in the layout of
the first vLLM kernels: `attention_packed`, `write_kv_packed`, `gather_kv_packed`.
"""
