"""Device code: plain Numba CUDA kernels, one idea a file, fit to copy into any project.

Ladder of decode attention: `decode_naive` (one thread per sequence and head), then `decode_block` (one
thread block per sequence and head). Moving data: `write_kv`, `gather_kv`, `copy_blocks`.
"""
