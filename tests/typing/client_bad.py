"""Uses the public names wrongly: mypy must report what the comments say, each on its line, and nothing else."""

from __future__ import annotations

import numpy as np

import paged_numba as pn
from paged_numba import PagedKvCache, arrays, kernels  # E: attr-defined

keys = np.zeros((3, 1, 8), np.float32)
cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=8)
pool = pn.BlockAllocator(num_blocks=8, block_size=4)


# Names that do not exist, at every depth.

pn.BlockAlocator(8, 4)  # E: attr-defined
pn.target.resolve("auto")  # E: attr-defined
pn.lockstep.lanch  # E: attr-defined
pn.errors.OutOfBlockError  # E: attr-defined
pn.reference.attend  # E: attr-defined
pn.draw.BlockTable  # E: attr-defined
pn.plan.chose  # E: attr-defined
pn.importlib  # E: attr-defined
arrays.to_hosts  # E: attr-defined
pool.num_blocks_free  # E: attr-defined
pool.append("a").slot  # E: attr-defined
pool.stats().num_used  # E: attr-defined
cache.attention(["a"], keys)  # E: attr-defined
PagedKvCache


# Arguments that do not exist, or are missing.

pn.BlockAllocator(8)  # E: call-arg
pn.BlockAllocator(8, 4, prefix_cache=True)  # E: call-arg
pn.PagedKVCache(8, 4, num_heads=1, head_dim=8)  # E: call-arg
pn.write_kv(keys, keys, cache.key_cache, cache.value_cache, slots=[0, 1, 2])  # E: call-arg
pn.gather_kv(cache.key_cache, cache.value_cache, [0])  # E: call-arg
pn.copy_blocks(cache.key_cache, cache.value_cache, [(0, 1)], axes="NHD")  # E: call-arg
pn.paged_attention(keys, keys, keys, [[0]], [1], sliding_window=4)  # E: call-arg
pn.merge_states(keys, keys[:, :, 0], keys)  # E: call-arg
pn.quantize_fp8(keys, k_scale=2.0)  # E: call-arg
pn.reference.attention(keys, keys, keys, is_causal=False)  # E: call-arg
pn.lockstep.launch(print, 4, 32, dynamic_shared_bytes=64)  # E: call-arg
cache.attend(query=keys)  # E: call-arg


# Values of the wrong type.

pn.BlockAllocator("8", 4)  # E: arg-type
pn.BlockAllocator(8, 4, watermark="0.1")  # E: arg-type
pool.add("a", 1.5)  # E: arg-type
pool.fork([], "b")  # E: arg-type
pool.release("a", window=1.5)  # E: arg-type
pn.gather_kv(cache.key_cache, cache.value_cache, [0], "3")  # E: arg-type
pn.paged_attention(keys, keys, keys, [[0]], [1], window=4.5)  # E: arg-type
pn.quantize_fp8(keys, "2")  # E: arg-type
pn.targets.resolve(0)  # E: arg-type
num_free: str = pool.num_free_blocks  # E: assignment

# Arrays: of any library, but arrays; those returned have a dtype.
slots: list[int] = pool.slots("a", 0, 1)  # E: assignment
floats: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = pool.block_table("a")  # E: assignment
pn.write_kv("key", keys, cache.key_cache, cache.value_cache, [0, 1, 2])  # E: arg-type
pn.write_kv(keys, keys, cache.key_cache, cache.value_cache, "slots")  # E: arg-type
pn.paged_attention(keys, keys, keys, [[0]], seq_lens=1)  # E: arg-type
cache.add("a", 1.5, keys)  # E: arg-type

# Kernels.

kernels.attention_texbook_kernel[1, 2](keys)  # E: attr-defined
