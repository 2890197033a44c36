"""Sizes of today's models: head_dim up to 1,024, values of another head_dim than keys, blocks of any size.

Every algorithm computes the same as the oracle or says which sizes it takes, and ``auto`` takes them all.
"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.ops.attention import ALGORITHMS
from paged_numba.testing import properties
from paged_numba.testing.strategies import STORAGE, batch_of, scattered, seeds

TARGET = "lockstep"
EXAMPLES = max(1, settings.default.max_examples // 50)

# What each algorithm takes at most. The algorithms that are not here take the sizes of any cache.
MOST = {
    "naive": (1024, 512, 65535),
    "warp": (256, 256, 65535),
    "block": (256, 256, 256),
    "packed": (256, 256, 65535),
}
# 192 and 128: DeepSeek-V3. 576 and 512: its latent cache. 512 and 512: Gemma 4.
HEAD_DIMS = [
    (192, 128), (576, 512), (512, 512), (256, 257), (257, 256), (1024, 8), (8, 1024), (7, 9),
]  # fmt: skip
BLOCK_SIZES = [256, 257, 512, 1024]
WINDOW = 9
"""Keys that a token sees in large blocks: the last ones, so that a test is quick."""


def sizes_batch(
    head_dim, value_head_dim, block_size, seq_lens, seed, layout="NHD", storage=STORAGE[0], **options
):
    """Return decode of sequences, with scores of standard deviation 2."""
    rng = np.random.default_rng(seed)
    dims = max(head_dim, value_head_dim)
    dense = [rng.standard_normal((2, length, 2, dims)).astype(np.float32) for length in seq_lens]
    caches, tables = scattered(rng, dense, 1, block_size)
    query = 2 * rng.standard_normal((len(seq_lens), 4, head_dim)).astype(np.float32)
    dense, caches = [tokens.astype(storage) for tokens in dense], caches.astype(storage)
    return batch_of(query, caches, tables, dense, None, None, options, layout, value_head_dim)


def agrees_or_is_refused(batch, name):
    """Attend by an algorithm, or in the layout ``packed``; the sizes that it does not take must be refused."""
    head_dim, value_head_dim = (parts[0].shape[2] for parts in (batch.keys, batch.values))
    most = MOST.get(name, (1024, 1024, 65535))
    if all(
        size <= limit for size, limit in zip((head_dim, value_head_dim, batch.block_size), most, strict=True)
    ):
        properties.attention_agrees_with_the_oracle(batch, name, TARGET)
        return
    which = "layout" if name == "packed" else "algorithm"
    with pytest.raises(
        ValueError,
        match=rf"(head_dim|block_size) must be at most \d+ for {which}='{name}', got .* take up to",
    ):
        properties.attention_agrees_with_the_oracle(batch, name, TARGET)


@pytest.mark.parametrize("head_dims", HEAD_DIMS, ids=str)
@settings(max_examples=EXAMPLES)
@given(length=st.sampled_from((9, 8, 1)), seed=seeds, storage=st.sampled_from(STORAGE[:3]))
def test_head_dims_of_keys_and_values(head_dims, length, seed, storage):
    batch = sizes_batch(*head_dims, 4, [length, 2], seed, storage=storage)
    for name in ALGORITHMS:
        agrees_or_is_refused(batch, name)
    properties.gather_returns_what_was_written(batch, TARGET)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@settings(max_examples=EXAMPLES)
@given(more=st.sampled_from((5, 1, 0, 40)), seed=seeds)
def test_blocks_of_any_size(block_size, more, seed):
    lengths = [block_size + more, 3]
    batch = sizes_batch(4, 3, block_size, lengths, seed, window=WINDOW)
    for name in ALGORITHMS:
        agrees_or_is_refused(batch, name)
    packed = sizes_batch(4, 3, block_size, lengths, seed, "packed", window=WINDOW)
    agrees_or_is_refused(packed, "packed")
    properties.gather_returns_what_was_written(packed, TARGET)


@pytest.mark.parametrize("head_dims", [(256, 256), (256, 20), (64, 256), (320, 64), (64, 320)], ids=str)
def test_head_dims_of_packed_caches(head_dims):
    batch = sizes_batch(*head_dims, 4, [9, 2], 0, "packed")
    agrees_or_is_refused(batch, "packed")
    properties.gather_returns_what_was_written(batch, TARGET)


@pytest.mark.parametrize(
    ("target", "sizes", "algorithm", "why"),
    [
        ("lockstep", {"head_dim": 256}, "block", "block is the fastest"),
        ("lockstep", {"head_dim": 512}, "tile", "head_dim is 512, and block takes at most 256: 1 tile"),
        ("lockstep", {"value_head_dim": 257}, "tile", "value_head_dim is 257, and block takes at most 256: 1 tile"),
        ("lockstep", {"block_size": 512}, "tile", "block_size is 512, and block takes at most 256: 1 tile"),
        ("cudasim", {"head_dim": 1024, "value_head_dim": 512, "block_size": 1024}, "naive", "naive is the fastest"),
        ("cudasim", {"head_dim": 513}, "tile", "value_head_dim is 513, and naive takes at most 512: 1 tile"),
        ("cuda", {"head_dim": 1024, "block_size": 1024}, "tile", "1 tile of query tokens"),
    ],
)  # fmt: skip
def test_the_choice_takes_the_sizes(target, sizes, algorithm, why):
    choice = pn.plan.choose(
        [100], [0, 1], num_q_heads=4, num_kv_heads=2, multiprocessors=132, target=target, **sizes
    )
    assert choice.algorithm == algorithm
    assert choice.why.startswith(why)


@pytest.mark.parametrize("algorithm", ["tile", "split"])
def test_a_value_of_more_than_256_dimensions_takes_a_launch_for_each_256(algorithm):
    batch = sizes_batch(8, 513, 4, [300], 0)
    with pn.lockstep.profiling() as report:
        properties.attention_agrees_with_the_oracle(
            batch, algorithm, TARGET, 2 if algorithm == "split" else None
        )
    launches = Counter()
    for kernel in report.kernels:
        launches[kernel["kernel"]] += kernel["launches"]
    assert launches.pop("attention_tile_kernel") == 3
    assert launches == ({"merge_splits_kernel": 1} if algorithm == "split" else {})


def test_a_cache_keeps_values_of_another_head_dim():
    rng = np.random.default_rng(0)
    cache = pn.PagedKVCache(
        8, 4, 2, 576, value_head_dim=512, dtype="float16", num_layers=2, target=TARGET, debug=True
    )
    key, value = (rng.standard_normal((2, 9, 2, dims)).astype(np.float16) for dims in (576, 512))
    cache.add("a", key, value)
    cache.fork("a", "b")
    cache.append("b", key[:, :1], value[:, :1])
    cache.swap_out("a")
    cache.swap_in("a")
    for layer in range(2):
        np.testing.assert_array_equal(cache.gather("a", layer=layer)[0], key[layer])
        np.testing.assert_array_equal(cache.gather("a", layer=layer)[1], value[layer])
    query = rng.standard_normal((1, 4, 576)).astype(np.float32)
    out = cache.attend(["a"], query, layer=1)
    np.testing.assert_allclose(out, pn.reference.attention(query, key[1], value[1]), atol=1e-5)
    assert "2 KV heads x 576 (values 512), 2 layers" in repr(cache)
    with pytest.raises(
        ValueError, match=r"value must have shape \[9, 2, 512\], got value.shape=\(9, 2, 576\)"
    ):
        cache.add("c", key, key)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"head_dim": 1025}, r"head_dim must lie in 1 \.\. 1024, got head_dim=1025"),
        ({"value_head_dim": 1025}, r"value_head_dim must lie in 1 \.\. 1024, got value_head_dim=1025"),
        ({"value_head_dim": 0}, r"value_head_dim must lie in 1 \.\. 1024, got value_head_dim=0"),
        ({"head_dim": 512, "layout": "packed"}, "head_dim must be at most 256 for layout='packed', got head_dim=512"),
        ({"value_head_dim": 257, "layout": "packed"}, "value_head_dim must be at most 256 for layout='packed'"),
    ],
)  # fmt: skip
def test_a_cache_whose_sizes_no_kernel_takes_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        pn.PagedKVCache(
            **{"num_blocks": 2, "block_size": 4, "num_kv_heads": 1, "head_dim": 64, **sizes}, target=TARGET
        )


def test_caches_of_values_that_no_launch_reaches_are_named():
    caches = np.zeros((2, 4, 1, 8), np.float32), np.zeros((2, 4, 1, 1025), np.float32)
    with pytest.raises(
        ValueError, match=r"value_head_dim must be at most 1024, got value_cache.shape=\(2, 4, 1, 1025\)"
    ):
        pn.copy_blocks(*caches, np.zeros((0, 2), int), target=TARGET)
    with pytest.raises(ValueError, match="value_cache must not be empty"):
        pn.copy_blocks(caches[0], caches[1][..., :0], np.zeros((0, 2), int), target=TARGET)
