"""Every kernel on the GPU and on lockstep, in one process; skipped if there is no GPU."""

import copy

import numpy as np
import pytest

import paged_numba as pn
from paged_numba import targets
from paged_numba.kernels import attention_textbook_kernel
from paged_numba.ops import checks

pytestmark = pytest.mark.gpu

SHAPES = [
    # num_seqs, num_q_heads, num_kv_heads, head_dim, block_size
    (1, 1, 1, 1, 1),
    (3, 4, 2, 13, 7),
    (2, 8, 8, 64, 16),
    (4, 5, 1, 80, 16),
    (5, 8, 2, 128, 32),
    (2, 3, 3, 256, 256),
    # Many query heads to a KV head: several threads share a key, sums lie in local memory.
    (2, 64, 1, 128, 16),
    (2, 71, 1, 64, 16),
    (1, 128, 1, 256, 16),
]


def test_large_scores_lose_no_digit():
    # 300 equal scores of 1e6: the output is the mean of the values.
    rng = np.random.default_rng(0)
    keys = np.full((20, 16, 2, 64), 1e6 / 64, np.float32)
    values = rng.standard_normal(keys.shape).astype(np.float32)
    query, tables = np.ones((1, 8, 64), np.float32), rng.permutation(20).astype(np.int32)[None]
    dense = [cache[tables[0]].reshape(-1, 2, 64)[:300] for cache in (keys, values)]
    expected, expected_lse = pn.reference.attention(query, *dense, scale=1.0, return_lse=True)
    for algorithm in ("naive", "warp", "block", "tile", "split", "cascade", "auto"):
        out, lse = pn.paged_attention(
            query, keys, values, tables, [300], scale=1.0, algorithm=algorithm, return_lse=True, target="cuda"
        )
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5, err_msg=algorithm)
        np.testing.assert_allclose(lse, expected_lse, rtol=1e-6, err_msg=algorithm)


def decode_inputs(num_seqs, num_q_heads, num_kv_heads, head_dim, block_size, seed=0):
    """Return query, caches, tables and lengths; slots that no sequence owns hold NaN."""
    rng = np.random.default_rng(seed)
    lens = rng.choice([0, 1, block_size - 1, block_size, block_size + 1, 3 * block_size + 2], num_seqs)
    per_seq = -(-int(lens.max(initial=1)) // block_size) + 1
    num_blocks = num_seqs * per_seq + 2
    tables = rng.permutation(num_blocks)[: num_seqs * per_seq].reshape(num_seqs, per_seq).astype(np.int32)
    caches = np.full((2, num_blocks, block_size, num_kv_heads, head_dim), np.nan, np.float32)
    for table, length in zip(tables, lens, strict=True):
        for position in range(length):
            slot = table[position // block_size], position % block_size
            caches[(slice(None), *slot)] = 3 * rng.standard_normal((2, num_kv_heads, head_dim))
        table[-(-length // block_size) :] = 10**6
    query = rng.standard_normal((num_seqs, num_q_heads, head_dim)).astype(np.float32)
    return query, caches[0], caches[1], tables, lens.astype(np.int32)


@pytest.mark.parametrize("algorithm", ["naive", "warp", "block", "tile", "split", "cascade"])
@pytest.mark.parametrize("shape", SHAPES)
def test_ragged_attention_with_all_options_is_the_same_on_both_targets(shape, algorithm):
    _, keys, values, tables, lens = decode_inputs(*shape)
    rng = np.random.default_rng(3)
    starts = np.cumsum([0, *(min(int(n), 3) for n in lens)]).astype(np.int32)
    num_q_heads = shape[1]
    query = rng.standard_normal((starts[-1], num_q_heads, shape[3])).astype(np.float32)
    options = {
        "cu_seqlens_q": starts,
        "window": 9,
        "softcap": 5.0,
        "alibi_slopes": rng.random(num_q_heads),
        "sinks": rng.standard_normal(num_q_heads),
        "return_lse": True,
        "algorithm": algorithm,
    }
    results = [
        pn.paged_attention(query, keys, values, tables, lens, **options, target=target)
        for target in ("cuda", "lockstep")
    ]
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)
    if len(query):
        merged = [pn.merge_states(*results[1], *results[1], target=target) for target in ("cuda", "lockstep")]
        for ours, expected in zip(*merged, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["naive", "warp", "block", "tile", "split", "cascade"])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_the_same_on_both_targets(shape, algorithm):
    inputs = decode_inputs(*shape)
    out, lse = pn.paged_attention(*inputs, return_lse=True, algorithm=algorithm, target="cuda")
    expected, expected_lse = pn.paged_attention(
        *inputs, return_lse=True, algorithm=algorithm, target="lockstep"
    )
    # Both sum in float32, in the same order but for fused multiply-add: weights of peaky logits differ by ulps.
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(lse, expected_lse, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_textbook_kernel_launched_by_hand_is_the_same_on_both_targets(shape, on_device, monkeypatch):
    from numba import cuda

    inputs = decode_inputs(*shape)
    query = inputs[0]
    scale = np.float32(1 / np.sqrt(query.shape[2]))
    results = {}
    for target in ("cuda", "lockstep"):
        monkeypatch.setenv(targets.ENVIRONMENT, target)
        arrays = [np.full_like(query, np.nan), *inputs]
        if target == "cuda" and on_device:
            arrays = [cuda.to_device(array) for array in arrays]
        attention_textbook_kernel[query.shape[:2]](*arrays, scale)
        out = arrays[0]
        results[target] = out.copy_to_host() if hasattr(out, "copy_to_host") else out
    np.testing.assert_allclose(results["cuda"], results["lockstep"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize(
    ("query_type", "storage"),
    [
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float8_e4m3fn"),
        ("float32", "float8_e4m3fn"),
    ],
)
@pytest.mark.parametrize("on_device", [False, True])
def test_storage_of_every_dtype_and_layout_is_the_same_on_both_targets(
    query_type, storage, layout, on_device
):
    pytest.importorskip("ml_dtypes")
    from numba import cuda

    query, keys, values, tables, lens = decode_inputs(*SHAPES[4])
    dtype = checks.cache_dtype(storage)
    caches = [cache.astype(dtype) for cache in (keys, values)]
    if layout == "HND":
        caches = [np.ascontiguousarray(cache.swapaxes(1, 2)) for cache in caches]
    query = query.astype(checks.cache_dtype(query_type))
    options = {"layout": layout, "k_scale": 0.5, "v_scale": 2.0, "return_lse": True}
    for algorithm in ("naive", "warp", "block", "tile", "split", "cascade"):
        expected = pn.paged_attention(
            query, *caches, tables, lens, **options, algorithm=algorithm, target="lockstep"
        )
        arrays = [query, *caches, tables, lens]
        if on_device:
            arrays = [cuda.to_device(array) for array in arrays]
        got = pn.paged_attention(*arrays, **options, algorithm=algorithm, target="cuda")
        for ours, theirs in zip(got, expected, strict=True):
            ours = ours.copy_to_host() if on_device else ours
            # One unit in the last place of the output, where both round to it.
            bound = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}[theirs.dtype.name]
            np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=bound, atol=bound)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_torch_tensors_on_the_gpu_are_used_where_they_lie(storage, layout):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    query, keys, values, tables, lens = decode_inputs(*SHAPES[4])
    query_type = "float32" if storage == "float8_e4m3fn" else storage
    to = {"device": "cuda", "dtype": getattr(torch, storage)}
    caches = [torch.as_tensor(cache).to(**to) for cache in (keys, values)]
    if layout == "HND":
        caches = [cache.transpose(1, 2).contiguous() for cache in caches]
    query = torch.as_tensor(query).to("cuda", getattr(torch, query_type))
    tables, lens = torch.as_tensor(tables, device="cuda"), torch.as_tensor(lens, device="cuda")
    options = {"layout": layout, "return_lse": True}
    got = pn.paged_attention(query, *caches, tables, lens, **options, target="cuda")
    on_host = [array.cpu() for array in (query, *caches, tables, lens)]
    expected = pn.paged_attention(*on_host, **options, target="lockstep")
    bound = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}[query_type]
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.is_cuda
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours.double().cpu(), theirs.double(), rtol=bound, atol=bound)
    key, value = torch.randn(2, 5, *keys.shape[2:]).to(**to)
    slots = torch.arange(5, device="cuda")
    pn.write_kv(key, value, *caches, slots, layout=layout, target="cuda")
    first = torch.zeros(1, dtype=torch.int32, device="cuda")
    for gathered, written in zip(
        pn.gather_kv(*caches, first, 5, layout=layout, target="cuda"), (key, value), strict=True
    ):
        assert torch.equal(gathered.float(), written.float())


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_the_storage_of_a_cache_is_torch_tensors_on_the_gpu(storage):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    dtype = getattr(torch, storage)
    cache = pn.PagedKVCache(6, 4, 2, 16, num_layers=2, dtype=dtype, device="cuda", target="cuda")
    assert cache.key_cache.is_cuda
    assert cache.key_cache.float().isnan().all()
    key, value = torch.randn(2, 2, 6, 2, 16, device="cuda").to(dtype)
    cache.add("a", key, value)
    cache.swap_out("a")
    cache.swap_in("a")
    cache = copy.deepcopy(cache)
    for layer in range(2):
        gathered = cache.gather("a", layer=layer)
        for ours, given in zip(gathered, (key[layer], value[layer]), strict=True):
            assert ours.is_cuda
            assert torch.equal(ours.view(torch.uint8), given.view(torch.uint8))
    query_type = torch.float32 if storage == "float8_e4m3fn" else dtype
    assert cache.attend(["a"], torch.ones(1, 4, 16, device="cuda", dtype=query_type)).is_cuda


@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_moved_bits_of_every_dtype_are_the_same_on_both_targets(storage, layout):
    pytest.importorskip("ml_dtypes")
    dtype = checks.cache_dtype(storage)
    rng = np.random.default_rng(1)

    def bits(*shape):
        return rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]

    key, value = bits(2, 9, 2, 8)
    start = bits(2, 6, 4, 2, 8) if layout == "NHD" else bits(2, 6, 2, 4, 8)
    results = []
    for target in ("cuda", "lockstep"):
        caches = start.copy()
        options = {"layout": layout, "target": target}
        pn.write_kv(key, value, *caches, np.array([3, 4, 5, 6, 7, -1, 8, 9, 10]), **options)
        pn.copy_blocks(*caches, np.array([[0, 3], [1, 5]]), **options)
        gathered = pn.gather_kv(*caches, np.array([5, 3, 2], np.int32), 9, **options)
        results.append([np.ascontiguousarray(array).view(np.uint8) for array in (caches, *gathered)])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_moved_tokens_are_the_same_bits_on_both_targets(shape):
    _, _, num_kv_heads, head_dim, block_size = shape
    rng = np.random.default_rng(1)
    num_blocks, num_tokens = 6, 3 * block_size + 1
    key, value = rng.standard_normal((2, num_tokens, num_kv_heads, head_dim)).astype(np.float32)
    slots = rng.permutation(num_blocks * block_size)[:num_tokens].astype(np.int64)
    slots[:: max(2, num_tokens // 3)] = -1
    pairs = np.array([[0, 3], [1, 5]])
    results = {}
    for target in ("cuda", "lockstep"):
        caches = np.full((2, num_blocks, block_size, num_kv_heads, head_dim), np.nan, np.float32)
        pn.write_kv(key, value, *caches, slots, target=target)
        pn.copy_blocks(*caches, pairs, target=target)
        gathered = pn.gather_kv(*caches, np.array([5, 3, 2], np.int32), 2 * block_size + 1, target=target)
        results[target] = [caches, *gathered]
    for ours, expected in zip(results["cuda"], results["lockstep"], strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert not np.isnan(results["cuda"][0]).all()


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[3] % 4 == 0])
def test_packed_caches_are_the_same_on_both_targets(shape):
    query, keys, values, tables, lens = decode_inputs(*shape)
    num_blocks, block_size, num_kv_heads, head_dim = keys.shape
    packed = np.full((num_blocks, num_kv_heads, head_dim // 4, block_size, 4), np.nan, np.float32)
    by_dim = np.full((num_blocks, num_kv_heads, head_dim, block_size), np.nan, np.float32)
    tokens = [cache.reshape(-1, num_kv_heads, head_dim) for cache in (keys, values)]
    slots = np.random.default_rng(4).permutation(len(tokens[0])).astype(np.int64)
    pairs = np.array([[0, num_blocks - 1]])
    options = {
        "window": 9,
        "softcap": 5.0,
        "alibi_slopes": np.linspace(0, 1, shape[1]),
        "sinks": np.linspace(-1, 1, shape[1]),
        "return_lse": True,
    }
    results = {}
    for target in ("cuda", "lockstep"):
        caches, written = [packed.copy(), by_dim.copy()], [packed.copy(), by_dim.copy()]
        pn.write_kv(*tokens, *caches, np.arange(len(slots)), layout="packed", target=target)
        attended = pn.paged_attention(query, *caches, tables, lens, **options, layout="packed", target=target)
        pn.write_kv(*tokens, *written, slots, layout="packed", target=target)
        if num_blocks > 1:
            pn.copy_blocks(*written, pairs, layout="packed", target=target)
        gathered = pn.gather_kv(
            *written, np.arange(num_blocks), num_blocks * block_size - 1, layout="packed", target=target
        )
        results[target] = [*caches, *written, *gathered], attended
    for ours, expected in zip(results["cuda"][0], results["lockstep"][0], strict=True):
        np.testing.assert_array_equal(ours, expected)
    for ours, expected in zip(results["cuda"][1], results["lockstep"][1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", ["NHD", "packed"])
def test_cache_on_the_gpu_keeps_its_storage_there(layout):
    rng = np.random.default_rng(2)
    caches = {
        target: pn.PagedKVCache(16, 4, num_kv_heads=2, head_dim=8, layout=layout, target=target)
        for target in ("cuda", "lockstep")
    }
    assert hasattr(caches["cuda"].key_cache, "__cuda_array_interface__")
    tokens = rng.standard_normal((2, 7, 2, 8)).astype(np.float32)
    query = rng.standard_normal((2, 4, 8)).astype(np.float32)
    results = {}
    for target, cache in caches.items():
        cache.add("a", *tokens)
        cache.fork("a", "b")
        cache.append("b", *tokens[:, :2])
        results[target] = cache.attend(["a", "b"], query)
    np.testing.assert_allclose(results["cuda"], results["lockstep"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("algorithm", ["auto", "block", "tile", "split", "cascade"])
def test_a_plan_serves_every_layer_on_both_targets(algorithm):
    rng = np.random.default_rng(3)
    query = rng.standard_normal((3, 9, 4, 16)).astype(np.float32)
    key, value = rng.standard_normal((2, 3, 9, 2, 16)).astype(np.float32)
    results = {}
    for target in ("cuda", "lockstep"):
        cache = pn.PagedKVCache(16, 4, num_kv_heads=2, head_dim=16, num_layers=3, target=target)
        cache.add("a", key[:, :6], value[:, :6])
        cache.fork("a", "b")  # its last block is copied before it grows
        batch = cache.reserve_batch({"a": 1, "b": 2, "c": 6})
        plan = cache.plan(
            ["a", "b", "c"], 4, slots=batch.slots, cu_seqlens_q=batch.cu_seqlens_q, algorithm=algorithm
        )
        for layer in range(3):
            plan.write(layer, key[layer], value[layer])
        results[target] = [plan.attend(layer, query[layer]) for layer in range(3)]
    np.testing.assert_allclose(results["cuda"], results["lockstep"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_device_arrays_are_used_without_a_copy(dtype):
    cache = pn.PagedKVCache(8, 4, 2, 16, dtype=dtype, layout="packed", target="cuda")
    kept = [array.copy_to_host() for array in (cache.key_cache, cache.value_cache)]
    tokens = np.random.default_rng(5).standard_normal((2, 7, 2, 16)).astype(kept[0].dtype)
    cache.add("a", *tokens)
    cache.fork("a", "b")
    cache.append("b", *tokens[:, :1])
    cache.swap_out("a")
    cache.swap_in("a")
    for ours, expected in zip(cache.gather("a"), tokens, strict=True):
        np.testing.assert_array_equal(ours.copy_to_host().astype(np.float32), expected.astype(np.float32))
    for array, old in zip((cache.key_cache, cache.value_cache), kept, strict=True):
        assert (array.copy_to_host().view(np.uint8) != old.view(np.uint8)).any()


def test_device_arrays_are_used_without_a_copy():
    from numba import cuda

    inputs = decode_inputs(*SHAPES[2])
    on_device = [cuda.to_device(array) for array in inputs]
    out = pn.paged_attention(*on_device)
    assert hasattr(out, "__cuda_array_interface__")
    expected = pn.paged_attention(*inputs, target="lockstep")
    np.testing.assert_allclose(out.copy_to_host(), expected, rtol=2e-5, atol=2e-5)


def test_a_failed_append_puts_evicted_blocks_back():
    """A copy-on-write and an append that evict blocks of the prefix cache, ended by an error after the launches."""
    kv = np.arange(7 * 1 * 2, dtype=np.float32).reshape(7, 1, 2)
    cache = pn.PagedKVCache(4, 2, 1, 2, prefix_caching=True, target="cuda")
    cache.add("idle", kv, -kv, range(7))
    cache.free("idle")
    cache.add("a", kv[:1], kv[:1], [100])
    cache.fork("a", "b")

    def fail(seq_id):
        raise KeyboardInterrupt

    cache.allocator.commit = fail
    with pytest.raises(KeyboardInterrupt):
        cache.append("b", kv[:3], kv[:3], [1, 2, 3])
    del cache.allocator.commit
    cache.allocator.check()
    assert cache.allocator.block_table("b").tolist() == cache.allocator.block_table("a").tolist()
    for name in "ab":
        cache.free(name)
    assert cache.add("again", kv, kv, range(7)) == 6
    keys, values = (part.copy_to_host() for part in cache.gather("again"))
    np.testing.assert_array_equal(keys[:6], kv[:6])
    np.testing.assert_array_equal(values[:6], -kv[:6])
