"""Public operations on paged KV caches: adopt the arrays, check them, plan, launch."""

from .attention import ALGORITHMS, merge_states, paged_attention
from .copies import copy_blocks, gather_kv, quantize_fp8, write_kv

__all__ = [
    "ALGORITHMS",
    "copy_blocks",
    "gather_kv",
    "merge_states",
    "paged_attention",
    "quantize_fp8",
    "write_kv",
]
