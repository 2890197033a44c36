"""Torch tensors as storage of a cache, dtypes and devices of torch, and calls inside what torch.compile compiles."""

import copy
import functools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import paged_numba as pn
from paged_numba import arrays, ops, targets
from paged_numba.ops import checks, launches
from paged_numba.testing.machines.cache import cache_machine

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
STORAGE = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}
needs_storage = pytest.mark.parametrize("storage", STORAGE)
needs_layout = pytest.mark.parametrize("layout", ["NHD", "HND", "packed"])


def a_cache(storage="float32", device="cpu", **options):
    options = {"num_layers": 2, "target": "lockstep", **options}
    return pn.PagedKVCache(6, 4, 2, 16, dtype=STORAGE[storage], device=device, **options)


def kv(count, storage="float32", seed=0, layers=2):
    """Return keys and values of tokens as tensors."""
    made = torch.Generator().manual_seed(seed)
    parts = torch.randn(2, layers, count, 2, 16, generator=made).to(STORAGE[storage])
    return parts[0], parts[1]


def bits(array):
    """Return the bytes of a tensor or a NumPy array."""
    return np.ascontiguousarray(arrays.as_array(array)).tobytes()


# Storage.


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@needs_storage
def test_an_engine_serves_from_tensors_as_from_arrays(storage, preemption):
    config = pn.models.LlamaConfig(
        num_layers=2, hidden_size=16, intermediate_size=24, vocab_size=24, num_q_heads=2, num_kv_heads=2,
        head_dim=16, max_positions=40,
    )  # fmt: skip
    model = pn.models.random_llama(config)

    def answers(device):
        engine = pn.serving.Engine(model, a_cache(storage, device, k_scale=0.5), preemption=preemption)
        for first in range(4):  # too many for the pool
            engine.add_request([first, 1, 2, 3, 4], pn.serving.SamplingParams(8, temperature=2.0))
        return engine.run()

    assert answers("cpu") == answers(None)


TestCacheOfTensors = cache_machine(cache=functools.partial(pn.PagedKVCache, device="cpu")).TestCase
# The machine itself is tested with arrays.
TestCacheOfTensors.settings = settings(max_examples=max(10, settings.default.max_examples // 10))


@needs_layout
@needs_storage
def test_a_cache_of_tensors_holds_what_a_cache_of_arrays_holds(storage, layout):
    caches = [a_cache(storage, device, layout=layout) for device in ("cpu", None)]
    query_type = torch.float32 if storage == "float8_e4m3fn" else STORAGE[storage]
    query = torch.randn(2, 4, 16).to(query_type)
    seen = []
    for cache in caches:
        cache.add("a", *kv(6, storage))
        cache.fork("a", "b")
        cache.append("b", *kv(3, storage, seed=1))
        cache.add("c", *kv(5, storage, seed=2))
        cache.swap_out("c")
        cache.free("a")
        cache.swap_in("c")
        out = cache.attend(["b", "c"], query, layer=1)
        assert isinstance(out, torch.Tensor)
        seen.append([bits(out), *(bits(part) for name in "bc" for part in cache.gather(name, layer=1))])
        seen[-1] += [bits(stored) for stored in (*cache.key_caches, *cache.value_caches)]
    assert seen[0] == seen[1]
    for given in (*caches[0].key_caches, *caches[0].value_caches, *caches[0].gather("b")):
        assert isinstance(given, torch.Tensor)
        assert given.dtype == STORAGE[storage]
        assert given.device == torch.device("cpu")
    assert all(isinstance(given, np.ndarray) for given in (*caches[1].key_caches, *caches[1].gather("b")))


@needs_storage
def test_the_tensors_share_the_memory_of_the_kernels(storage):
    cache = a_cache(storage)
    key, value = kv(5, storage)
    assert cache.key_cache.float().isnan().all()
    cache.add("a", key, value)
    slots = torch.from_numpy(cache.allocator.slots("a", 0, 5))
    for layer in range(2):
        stored = cache.key_caches[layer].view(torch.uint8).flatten(0, 1)[slots]
        assert torch.equal(stored, key[layer].view(torch.uint8))
    # The other way round.
    cache.value_caches[1].view(torch.uint8).zero_()
    assert not cache.gather("a", layer=1)[1].float().any()
    assert torch.equal(cache.gather("a", layer=0)[1].float(), value[0].float())


def copied(cache):
    return copy.deepcopy(cache)


def pickled(cache):
    return pickle.loads(pickle.dumps(cache))


@pytest.mark.parametrize("again", [copied, pickled])
@needs_storage
def test_a_copy_has_tensors_of_its_own_that_its_kernels_see(storage, again):
    cache = a_cache(storage)
    cache.add("a", *kv(5, storage))
    cache.add("s", *kv(2, storage, seed=3))
    swapped = [bits(part) for part in cache.gather("s")]
    cache.swap_out("s")
    other = again(cache)
    before = [bits(stored) for stored in (*cache.key_caches, *cache.value_caches)]
    assert [bits(stored) for stored in (*other.key_caches, *other.value_caches)] == before
    other.append("a", *kv(2, storage, seed=1))
    other.swap_in("s")
    assert [bits(part) for part in other.gather("s")] == swapped
    assert [bits(stored) for stored in (*cache.key_caches, *cache.value_caches)] == before
    other.key_cache.view(torch.uint8).zero_()
    assert isinstance(other.gather("a")[0], torch.Tensor)
    assert not other.gather("a")[0].float().any()


@pytest.mark.parametrize("again", [lambda cache: cache, copied, pickled])
@needs_storage
def test_debug_mode_sees_kernels_that_take_the_tensors(storage, again):
    cache = a_cache(storage, debug=True)
    cache.add("a", *kv(5, storage))
    cache = again(cache)
    caches = cache.key_cache, cache.value_cache
    key, value = (part[0] for part in kv(1, storage))
    free = 4 * int(np.flatnonzero([cache.allocator.ref_count(block) == 0 for block in range(6)])[0])
    with pytest.raises(pn.errors.KernelError, match="write into a freed block"):
        pn.write_kv(key, value, *caches, [free], target="lockstep")
    # A view of the tensor, too; its twin stays inside the sequence.
    table = cache.allocator.block_table("a")
    pn.gather_kv(*(stored[:6] for stored in caches), table, 5, target="lockstep")
    with pytest.raises(pn.errors.KernelError, match="read past a sequence's end"):
        pn.gather_kv(*(stored[:6] for stored in caches), table, 6, target="lockstep")


def test_the_sanitizer_knows_which_tokens_of_a_tensor_were_never_written():
    query = torch.ones(1, 2, 16)
    for cache in (a_cache(), a_cache(device=None)):
        cache.add("a", *kv(5))
        caches, table = (cache.key_cache, cache.value_cache), [cache.allocator.block_table("a")]
        for length in (5, 6):
            with pn.lockstep.sanitizing() as findings:
                pn.paged_attention(query, *caches, table, [length], target="lockstep")
            kinds = {finding.kind for finding in findings}
            assert kinds == (set() if length == 5 else {"uninitialised read"})


@pytest.mark.parametrize("storage", ["bfloat16"])
def test_a_call_that_fails_leaves_the_tensors_as_they_were(storage, monkeypatch):
    cache = a_cache(storage)
    cache.add("a", *kv(5, storage))
    before = [bits(stored) for stored in (*cache.key_caches, *cache.value_caches)]
    write = launches.write

    def writes_and_fails(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(launches, "write", writes_and_fails)
    with pytest.raises(KeyboardInterrupt):
        cache.append("a", *kv(2, storage, seed=1))
    with pytest.raises(KeyboardInterrupt):
        cache.write_layer(1, *(part[1] for part in kv(5, storage, seed=1)), cache.allocator.slots("a", 0, 5))
    assert [bits(stored) for stored in (*cache.key_caches, *cache.value_caches)] == before
    assert cache.allocator.seq_len("a") == 5


# Dtypes and devices.


@needs_storage
def test_a_dtype_of_torch_is_the_dtype_of_that_name(storage):
    assert checks.cache_dtype(STORAGE[storage]) == checks.cache_dtype(storage)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.int8, torch.bool, torch.complex64, torch.float8_e5m2, torch.quint8]
)
def test_other_dtypes_of_torch_are_refused_by_name(dtype):
    with pytest.raises(TypeError, match=rf"dtype must be one of float32, .*, got dtype={dtype}"):
        pn.PagedKVCache(6, 4, 2, 16, dtype=dtype, target="lockstep")


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_a_device_has_several_names(device):
    assert a_cache(device=device).key_cache.device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("cuda", ValueError, r"must be cpu, where the target lockstep runs kernels, got device='cuda'"),
        (torch.device("cuda:1"), ValueError, r"must be cpu, .*, got device=device\(type='cuda', index=1\)"),
        ("meta", ValueError, "must be cpu, .*, got device='meta'"),
        ("gpu", ValueError, "must be a device of torch, got device='gpu': "),
        ("", ValueError, "must be a device of torch, got device=''"),
        (0, TypeError, "must be a torch.device or its name, got device=0"),
        (torch.zeros(1), TypeError, r"must be a torch.device or its name, got device=tensor\(\[0.\]\)"),
    ],
    ids=repr,
)
def test_a_device_where_the_target_does_not_run_is_refused(device, error, message):
    with pytest.raises(error, match=f"device {message}"):
        a_cache(device=device)


def run_fresh(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


USE = """
import sys
import numpy as np, paged_numba as pn
def use(**options):
    cache = pn.PagedKVCache(4, 4, 1, 2, target="lockstep", **options)
    cache.add("a", np.ones((3, 1, 2), np.float32), np.ones((3, 1, 2), np.float32))
    cache.attend(["a"], np.ones((1, 1, 2), np.float32))
"""


def test_torch_is_imported_by_its_users_alone():
    refused = """
try:
    use(device="cpu")
except ValueError as error:
    print(error)
"""
    printed = run_fresh(USE + "use()" + refused + "print('torch' in sys.modules)")
    assert printed == "device must be None unless torch has been imported, got device='cpu'\nFalse"


def test_the_tracer_of_torch_is_imported_by_its_users_alone():
    assert run_fresh(f"import torch{USE}use(device='cpu')\nprint('torch._dynamo' in sys.modules)") == "False"


# torch.compile.


@pytest.fixture
def traced(monkeypatch):
    """A list with an entry for each call of a function of ours: whether torch traced it."""
    found = []
    resolve = targets.resolve

    def noted(target):
        found.append(torch.compiler.is_compiling())
        return resolve(target)

    monkeypatch.setattr(targets, "resolve", noted)
    torch.compiler.reset()
    yield found
    torch.compiler.reset()


def compiled(function):
    # This backend runs what was traced as it stands.
    return torch.compile(function, backend="eager")


def operations():
    """Return a function for each operation: it takes a tensor and returns one."""
    table, lens = np.array([[1, 0]], np.int32), np.array([6], np.int32)
    caches = torch.randn(2, 3, 4, 2, 16)
    where = {"target": "lockstep"}

    def write(x):
        own = caches.clone()
        pn.write_kv(x * 2, x, *own, [3, 9], **where)
        return own + 1

    def copy_blocks(x):
        own = caches.clone()
        pn.copy_blocks(*own, [[0, 2]], **where)
        return own * x.sum()

    def merge(x):
        lse = x[..., 0] * 3
        return pn.merge_states(x * 2, lse, x, lse + 1, **where)[0] - 1

    return {
        "write_kv": write,
        "copy_blocks": copy_blocks,
        "gather_kv": lambda x: pn.gather_kv(*caches, table[0], 6, **where)[1] + x[:1],
        "paged_attention": lambda x: pn.paged_attention(x[:1] * 2, *caches, table, lens, **where) + 1,
        "merge_states": merge,
    }


@pytest.mark.parametrize("name", operations())
def test_an_operation_in_compiled_code_runs_untraced(name, traced):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 16)
    function = operations()[name]
    expected = function(x)
    calls = len(traced)
    assert torch.equal(compiled(function)(x), expected)
    assert len(traced) == 2 * calls > 0
    assert not any(traced)


def test_tracing_would_be_noticed(traced):
    traceable = lambda x: x + len(targets.resolve("lockstep"))  # noqa: E731
    assert compiled(traceable)(torch.zeros(1)) == len("lockstep")
    assert traced == [True]


def test_every_operation_on_arrays_is_called_in_compiled_code():
    on_arrays = {name for name in ops.__all__ if callable(getattr(ops, name))}
    assert on_arrays - {"quantize_fp8"} == set(operations())


class Model(torch.nn.Module):
    """Layers of projections and attention over a cache."""

    def __init__(self, cache):
        super().__init__()
        self.cache = cache
        self.weights = torch.nn.Parameter(torch.randn(2, 16, 16).to(cache.key_cache.dtype) / 4)

    def forward(self, x):
        allocation = self.cache.reserve("a", len(x))
        for layer in range(2):
            key = x @ self.weights[layer]
            self.cache.write_layer(layer, key, key + 1, allocation.slots)
            x = x + self.cache.attend(["a"], x * 2, layer=layer, cu_seqlens_q=[0, len(x)])
        self.cache.commit("a")
        return x * 2


@pytest.mark.parametrize("device", ["cpu", None])
@torch.no_grad()
def test_a_compiled_model_computes_what_the_model_computes(device, traced):
    torch.manual_seed(0)
    model = Model(a_cache("float32", "cpu"))
    steps = [torch.randn(count, 2, 16) for count in (5, 1, 3, 1, 2, 4, 1)]
    expected = [model(x) for x in steps]
    model.cache = a_cache("float32", device)
    fast = compiled(model)
    # Too many recompilations raise, instead of a warning.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        got = [fast(x) for x in steps]
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert model.cache.allocator.seq_len("a") == sum(map(len, steps))
    assert traced
    assert not any(traced)


@torch.no_grad()
def test_calls_of_many_functions_reach_no_limit_of_torch(traced):
    cache, functions = a_cache(), operations()

    def step(x):
        for function in functions.values():
            x = x + function(x).sum()
        cache.add("a", *kv(3))
        cache.append("a", *kv(2))
        cache.fork("a", "b")
        cache.swap_out("b")
        cache.swap_in("b")
        cache.free("a")
        return x + cache.gather("b")[0].sum() + cache.attend(["b"], x[:1]) + len(cache.block_tables(["b"]))

    x = torch.randn(2, 2, 16)
    expected = step(x)
    cache.free("b")
    # The limit counts the compilations of one code object, and the functions share one.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        assert torch.equal(compiled(step)(x), expected)
    assert not any(traced)


def test_an_allocator_in_compiled_code_counts_as_usual(traced):
    pool = pn.BlockAllocator(8, 4)

    def step(x):
        slots = pool.append("a", 3).slots if "a" in pool else pool.add("a", 3).slots
        return x + torch.from_numpy(slots) + pool.seq_len("a") + len(pool.block_table("a"))

    fast = compiled(step)
    assert [fast(torch.zeros(3)).tolist() for _ in range(2)] == [[4, 5, 6], [11, 12, 13]]


def test_an_error_in_compiled_code_is_the_error_of_the_call(traced):
    cache = a_cache()

    def attend(x):
        return cache.attend(["nobody"], x + 1)

    with pytest.raises(pn.errors.UnknownSequenceError, match="nobody"):
        compiled(attend)(torch.zeros(1, 2, 16))


def test_whole_graphs_are_refused_with_the_reason():
    cache = a_cache()
    cache.add("a", *kv(3))

    def attend(x):
        return cache.attend(["a"], x)

    with pytest.raises(
        RuntimeError, match=r"paged_numba runs PagedKVCache\.attend as it stands, between graphs"
    ):
        torch.compile(attend, backend="eager", fullgraph=True)(torch.zeros(1, 2, 16))
