"""Uses every public name as intended: mypy must accept this program, and it must run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import paged_numba as pn
from paged_numba import cuda, lockstep
from paged_numba.kernels import attention_textbook_kernel

assert_type(pn.__version__, str)


# The allocator.

pool = pn.BlockAllocator(num_blocks=8, block_size=4, prefix_caching=True, watermark=0.1)
assert_type(pool, pn.BlockAllocator)
if pool.can_allocate([1, 2, 3]):
    allocation = pool.add("a", [1, 2, 3], salt="tenant")
    assert_type(allocation.num_cached_tokens, int)
assert_type(pool.append("a", [4, 5]).num_cached_tokens, int)
pool.commit("a")
pool.fork("a", ("b", 1))
assert_type(pool.seq_len("a"), int)
assert_type(pool.num_free_blocks, int)
assert_type(pool.stats().hit_rate, float)
assert_type(pool.stats().num_preemptions, int)
assert_type("a" in pool, bool)
assert_type([pool.ref_count(int(block)) for block in pool.block_table("a")], list[int])
pool.swap_out("a")
assert_type(pool.swap_in("a").num_cached_tokens, int)
assert_type(pool.release("a", window=4), int)
pool.preempt("a")
pool.check()

# Token ids as an array; arrays whose dtype is known say so.
allocation = pool.add("c", np.arange(6))
assert_type(allocation.slots, NDArray[np.int64])
assert_type(allocation.copies, NDArray[np.int64])
assert_type(pool.slots("c", 0, 2), NDArray[np.int64])
assert_type(pool.block_table("c"), NDArray[np.int32])
assert_type(pool.held_blocks("c"), NDArray[np.int32])


# Errors: each also a subclass of the builtin that it refines.


def room_for(tokens: int) -> int:
    """Return the blocks that are missing to add a sequence."""
    try:
        pool.add("d", range(tokens))
    except pn.OutOfBlocksError as error:
        assert_type(error.needed, int)
        return error.needed - error.free
    except (pn.DuplicateSequenceError, pn.SwappedSequenceError, pn.UnknownSequenceError) as error:
        raise pn.errors.InputError(str(error)) from error
    return 0


assert_type(room_for(100), int)
refined: list[type[Exception]] = [MemoryError, ValueError, RuntimeError, LookupError]
refined = [pn.OutOfBlocksError, pn.DuplicateSequenceError, pn.SwappedSequenceError, pn.UnknownSequenceError]


# Operations.

rng = np.random.default_rng(0)
query = rng.standard_normal((2, 2, 8), dtype=np.float32)
key, value = rng.standard_normal((2, 6, 1, 8), dtype=np.float32)
key_cache, value_cache = np.zeros((2, 8, 4, 1, 8), np.float32)
slots = np.arange(6)
tables = np.array([[0, 1], [0, 1]], np.int32)

assert_type(pn.write_kv(key, value, key_cache, value_cache, slots, layout="NHD", target="auto"), None)
assert_type(pn.copy_blocks(key_cache, value_cache, [(0, 2), (1, 3)]), None)
gathered_key, gathered_value = pn.gather_kv(key_cache, value_cache, [2, 3], 6)
out, lse = pn.paged_attention(
    query,
    key_cache,
    value_cache,
    tables,
    [6, 5],
    cu_seqlens_q=np.array([0, 1, 2]),
    scale=0.5,
    causal=True,
    window=5,
    softcap=30.0,
    alibi_slopes=np.ones(2, np.float32),
    sinks=np.zeros(2, np.float32),
    return_lse=True,
    algorithm="auto",
)
out, lse = pn.merge_states(out, lse, out, lse)
quantised = pn.quantize_fp8(key, 0.5), pn.quantize_fp8(value, scale=np.ones(1, np.float32))
expected = pn.reference.attention(query[:1], gathered_key, gathered_value, causal=False, scale=0.5)


# The cache.

cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=8, dtype="float32", layout="NHD", debug=False)
assert_type(cache, pn.PagedKVCache)
assert_type(cache.add("a", key, value), int)
cache.append("a", key[:1], value[:1])
cache.fork("a", "b")
assert_type(cache.allocator, pn.BlockAllocator)
assert_type(cache.num_layers, int)
assert_type(cache.reserve("b", 1).num_cached_tokens, int)
cache.write_layer(0, key[:1], value[:1], cache.allocator.slots("b", 7, 8))
cache.commit("b")
attended = cache.attend(["a", "b"], query, causal=True)
cache.free("a")


# Modules.

view: Any = pn.arrays.as_array(query)
given: pn.arrays.ArrayLike = query
assert_type(pn.targets.resolve("auto"), str)
choice = pn.plan.choose([4096], [0, 1], num_q_heads=32, num_kv_heads=8, multiprocessors=132)
assert_type(choice.algorithm, str)
assert_type(choice.why, str)
picture = pn.draw.BlockTables.of(pool)
assert_type(picture, pn.draw.BlockTables)
assert_type(picture.svg(), str)


# The lockstep machine, and `cuda` where there may be no GPU.


@cuda.jit(device=True)
def next_number(x: Any) -> Any:
    return x + 1


@cuda.jit
def add_one(x: Any) -> None:
    i = cuda.grid(1)
    if i < x.size:
        x[i] = next_number(x[i])


host = np.zeros(100, np.float32)
assert_type(lockstep.launch(add_one, 4, (32, 1), host, shared_bytes=0), None)
report = lockstep.profile(add_one, 4, 32, host)
assert_type(report.text(), str)
assert_type(len(lockstep.sanitize(add_one, 4, 32, host)), int)
with lockstep.options(order="reverse"), lockstep.sanitizing() as findings:
    add_one[4, 32](host)
assert_type([finding.kind for finding in findings.errors], list[str])
with lockstep.profiling() as report, lockstep.tracing() as accesses:
    lockstep.launch(add_one, 4, 32, host)
assert_type(accesses[0].line.number, int)
on_device = cuda.to_device(host)
assert_type(on_device.shape, tuple[int, ...])
cuda.synchronize()


# Kernels, launched by hand: one sequence of 2 tokens in block 0.

out = np.empty((1, 1, 2), np.float32)
attention_textbook_kernel[1, 1](
    out, np.ones((1, 1, 2), np.float32), np.ones((1, 2, 1, 2), np.float32), np.ones((1, 2, 1, 2), np.float32),
    np.zeros((1, 1), np.int32), np.array([2], np.int32), np.float32(0.5),
)  # fmt: skip
assert out.tolist() == [[[1, 1]]]
