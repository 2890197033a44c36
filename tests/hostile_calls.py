"""A valid call of each public callable, whose arguments `test_hostile_calls.py` then replaces by hostile values.

Each maker takes a function that picks one of several options, and returns a new `Call` of new objects.
"""

import atexit
import functools
import inspect
import math
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import paged_numba as pn
from paged_numba import ops, traces
from paged_numba.cache import StepPlan
from paged_numba.draw import text
from paged_numba.lockstep.cuda import facade
from paged_numba.lockstep.language.signatures import Type
from paged_numba.ops import layouts
from paged_numba.replay import measure

F32 = np.float32
STORAGE = ("float32", "float16", ml_dtypes.bfloat16, "float8_e4m3fn")


@dataclass
class Call:
    """A call: its function, its arguments by name, and objects that it may change only if it succeeds."""

    function: Any
    arguments: dict[str, Any]
    objects: list[Any] = field(default_factory=list)
    positional: tuple[str, ...] = ()
    """Names of arguments that are passed by place."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Kinds of arguments whose names have another kind elsewhere."""

    def kind(self, name):
        """Return the kind of an argument, as `paged_numba.testing.meanings` names it."""
        return self.kinds.get(name) or KIND_OF.get(name, "any")

    def run(self, arguments):
        by_name = dict(arguments)
        by_place = [by_name.pop(name) for name in self.positional]
        extra = by_name.pop("*", ())
        return self.function(*by_place, *extra, **by_name)


KINDS = {
    "count": "length limit num_bytes num_blocks block_size num_kv_heads head_dim value_head_dim num_layers start stop "
    "block window layer seq_len num_splits num_q_heads multiprocessors max_lanes memory_budget shared_bytes warp "
    "num_slots hit_block_size request count number columns ntasks tpb sharedmem devnum device_id",
    "number": "watermark scale softcap",
    "flag": "prefix_caching causal return_lse debug check_compiles",
    "name": "layout target device algorithm order kind path name_or_path gpu space",
    "array": "query key value key_cache value_cache out out_a out_b lse_a lse_b",
    "integers": "block_tables seq_lens cu_seqlens_q slot_mapping block_table block_pairs slots",
    "numbers": "alibi_slopes sinks k_scale v_scale",
    "tokens": "tokens",
    "token_ids": "token_ids",
    "ids": "seq_ids",
    "id": "seq_id parent_id child_id salt",
    "dtype": "dtype",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}

CALLS = {}


def call(name):
    """Decorate a maker of the call of this name."""

    def register(make):
        assert name not in CALLS
        CALLS[name] = make
        return make

    return register


# Operations.


VALUE_HEAD_DIM = 5


def caches(pick, *, blocks=3, block_size=4, heads=1, head_dim=8):
    """Return the keywords that caches in some layout and dtype need."""
    layout, dtype = pick(("NHD", "HND", "packed")), np.dtype(pick(STORAGE[:3]))
    shapes = layouts.cache_shapes(layout, dtype, blocks, block_size, heads, head_dim, VALUE_HEAD_DIM)
    rng = np.random.default_rng(0)
    made = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return {"key_cache": made[0], "value_cache": made[1], "layout": layout, "target": "lockstep"}


def tokens_of(count, dtype, heads=1, head_dim=8, seed=1):
    return np.random.default_rng(seed).standard_normal((count, heads, head_dim)).astype(dtype)


@call("write_kv")
def _(pick):
    given = caches(pick)
    dims = {"key": 8, "value": VALUE_HEAD_DIM}
    key, value = (tokens_of(3, given["key_cache"].dtype, head_dim=size) for size in dims.values())
    slots = pick((np.array([0, 11, -1]), np.array([5, 6, 7], np.int32), [4, -1, 2]))
    return Call(pn.write_kv, {"key": key, "value": value, **given, "slot_mapping": slots})


@call("gather_kv")
def _(pick):
    return Call(pn.gather_kv, {**caches(pick), "block_table": pick((np.array([2, 0]), [2, 0])), "seq_len": 7})


@call("copy_blocks")
def _(pick):
    return Call(pn.copy_blocks, {**caches(pick), "block_pairs": pick((np.array([[0, 2]]), [[0, 1], [0, 2]]))})


@call("paged_attention")
def _(pick):
    given = caches(pick)
    packed = given["layout"] == "packed"
    algorithm = "auto" if packed else pick(ops.ALGORITHMS)
    dtype = pick(STORAGE[:3])
    query = tokens_of(3, dtype, heads=2)
    return Call(
        pn.paged_attention,
        {
            "query": query,
            **given,
            "block_tables": np.array([[2, 0], [1, 9]], np.int32),
            "seq_lens": np.array([6, 3], np.int32),
            "cu_seqlens_q": np.array([0, 2, 3], np.int32),
            "scale": pick((None, 0.5)),
            "causal": True,
            "window": pick((None, 3)),
            "softcap": pick((None, 20.0)),
            "alibi_slopes": pick((None, np.array([0.5, 0.25], F32))),
            "sinks": pick((None, np.array([0.5, 0.25], F32))),
            "k_scale": pick((None, 2.0, np.array([2.0], F32))),
            "v_scale": pick((None, 2.0)),
            "return_lse": pick((False, True)),
            "out": pick((None, np.zeros((*query.shape[:2], VALUE_HEAD_DIM), query.dtype))),
            "algorithm": algorithm,
            "num_splits": 2 if algorithm == "split" else None,
        },
    )


@call("merge_states")
def _(pick):
    dtype = pick(STORAGE[:3])
    lse_a, lse_b = np.random.default_rng(0).standard_normal((2, 3, 2)).astype(F32)
    parts = {
        "out_a": tokens_of(3, dtype, 2),
        "lse_a": lse_a,
        "out_b": tokens_of(3, dtype, 2, seed=2),
        "lse_b": lse_b,
    }
    return Call(pn.merge_states, {**parts, "target": "lockstep"})


@call("quantize_fp8")
def _(pick):
    given = {"array": tokens_of(3, pick(STORAGE[:3]), 2), "scale": pick((None, 2.0, np.array([1.0, 2.0])))}
    return Call(pn.quantize_fp8, given, kinds={"array": "dense", "scale": "numbers"})


DENSE = dict.fromkeys("query key value out_a out_b lse_a lse_b".split(), "dense")
"""The oracle takes nested lists as well."""


@call("reference.attention")
def _(pick):
    key, value = (tokens_of(5, F32, seed=seed) for seed in (1, 2))
    options = {
        "scale": pick((None, 0.5)),
        "causal": True,
        "window": pick((None, 3)),
        "softcap": pick((None, 20.0)),
    }
    options |= {
        "alibi_slopes": np.array([0.5, 0.25]),
        "sinks": None,
        "k_scale": 2.0,
        "v_scale": np.array([2.0]),
    }
    options["return_lse"] = pick((False, True))
    given = {"query": tokens_of(2, F32, 2), "key": key, "value": value, **options}
    return Call(pn.reference.attention, given, kinds=DENSE)


@call("reference.merge_states")
def _(pick):
    lse = np.array([[0.0, 1.0]])
    parts = {"out_a": np.ones((1, 2, 3)), "lse_a": lse, "out_b": np.zeros((1, 2, 3)), "lse_b": lse + 1}
    return Call(pn.reference.merge_states, parts, kinds=DENSE)


@call("plan.choose")
def _(pick):
    sizes = {"num_q_heads": 8, "num_kv_heads": 2, "multiprocessors": 132, "window": None, "target": "cuda"}
    sizes |= {"block_size": 16, "head_dim": 64, "value_head_dim": pick((None, 32))}
    given = {"seq_lens": pick(([4096, 5], np.array([4096, 5]))), "cu_seqlens_q": np.array([0, 1, 2])}
    return Call(pn.plan.choose, {**given, **sizes})


@call("layouts.cache_layout")
def _(pick):
    return Call(layouts.cache_layout, {"layout": "NHD"})


# Arrays and targets.


@call("arrays.as_array")
def _(pick):
    return Call(pn.arrays.as_array, {"array": np.arange(3.0), "name": "array"}, kinds={"array": "any"})


@call("arrays.to_host")
def _(pick):
    return Call(
        pn.arrays.to_host,
        {"array": pick((np.arange(3.0), [1, 2], 5)), "name": "array"},
        kinds={"array": "any"},
    )


@call("targets.resolve")
def _(pick):
    return Call(pn.targets.resolve, {"target": "lockstep"})


@call("targets.cuda_module")
def _(pick):
    return Call(pn.targets.cuda_module, {"target": "lockstep"})


@call("targets.multiprocessors")
def _(pick):
    return Call(pn.targets.multiprocessors, {"target": "lockstep"})


for _name in ("lockstep_installed", "simulator_enabled", "cuda_unavailable_reason", "numba_cuda_failure"):
    CALLS[f"targets.{_name}"] = lambda pick, name=_name: Call(getattr(pn.targets, name), {})


# The allocator and the cache.


def allocator(pick, prefix_caching=None):
    """Return a pool with the sequences a, its fork b, and s, which is swapped out."""
    prefix_caching = pick((False, True)) if prefix_caching is None else prefix_caching
    pool = pn.BlockAllocator(8, 4, prefix_caching=prefix_caching, watermark=pick((0.0, 0.25)))
    pool.add("a", list(range(9)))
    pool.commit("a")
    pool.fork("a", "b")
    pool.add("s", [7, 8])
    pool.swap_out("s")
    return pool


def cache(pick):
    """Return a cache with the sequences a, its fork b, and s, which is swapped out."""
    layers, dtype, layout = pick((1, 2)), np.dtype(pick(STORAGE)), pick(("NHD", "HND", "packed"))
    head_dim = 16 if layout == "packed" else 2
    made = pn.PagedKVCache(
        8, 4, 1, head_dim, num_layers=layers, dtype=dtype, layout=layout, prefix_caching=pick((False, True)),
        target="lockstep", debug=pick((False, False, True)),
    )  # fmt: skip
    made.add("a", *keys_of(made, 9), list(range(9)))
    made.fork("a", "b")
    made.add("s", *keys_of(made, 2), [7, 8])
    made.swap_out("s")
    return made


def keys_of(made, count):
    _, _, heads, head_dim = made._layers.caches(0).key.shape
    dtype = made.key_cache.dtype
    parts = [tokens_of(count, dtype, heads, head_dim, seed) for seed in range(2 * made.num_layers)]
    keys, values = np.stack(parts[::2]), np.stack(parts[1::2])
    return (keys, values) if made.num_layers > 1 else (keys[0], values[0])


def tokens_for(pool, pick, least=0):
    return (
        pick(([3, 4, 5], np.array([3, 4, 5]), range(3))) if pool.prefix_caching else pick((least, 3, [3, 4]))
    )


@call("BlockAllocator")
def _(pick):
    sizes = {
        "num_blocks": 4,
        "block_size": 16,
        "prefix_caching": pick((False, True)),
        "watermark": pick((0.0, 0.5)),
    }
    return Call(pn.BlockAllocator, sizes)


def of_pool(name, **arguments):
    """Register a call of an allocator's method; an argument may be a function of the pool and `pick`."""

    @call(f"BlockAllocator.{name}")
    def _(pick):
        pool = allocator(pick)
        given = {key: one(pool, pick) if callable(one) else one for key, one in arguments.items()}
        special = name.startswith("__")
        return Call(getattr(pool, name), given, [pool], tuple(given) if special else ())


for _name in "seq_len block_table held_blocks num_released_tokens commit free preempt swap_out".split():
    of_pool(_name, seq_id="a")
for _name in ("is_cached", "ref_count", "generation"):
    of_pool(_name, block=1)
for _name in ("stats", "check", "reset_prefix_cache", "__len__", "__repr__", "_repr_html_"):
    of_pool(_name)
of_pool("slots", seq_id="a", start=1, stop=9)
of_pool("is_swapped", seq_id=lambda pool, pick: pick(("a", "s")))
of_pool("__contains__", seq_id="a")
of_pool("can_allocate", tokens=tokens_for, salt=None, limit=lambda pool, pick: pick((None, 2)))
of_pool("can_append", seq_id="a", tokens=functools.partial(tokens_for, least=1))
of_pool("can_swap_in", seq_id="s")
of_pool("truncate", seq_id=lambda pool, pick: pick(("a", "b")), length=6)
of_pool(
    "add",
    seq_id="new",
    tokens=tokens_for,
    salt=lambda pool, pick: pick((None, "salt")),
    limit=lambda pool, pick: pick((None, 2)),
)
of_pool("append", seq_id=lambda pool, pick: pick(("a", "b")), tokens=functools.partial(tokens_for, least=1))
of_pool("fork", parent_id="a", child_id="new")
of_pool("release", seq_id="a", window=3)
of_pool("swap_in", seq_id="s")


@call("PagedKVCache")
def _(pick):
    sizes = {"num_blocks": 4, "block_size": 4, "num_kv_heads": 1, "head_dim": 16, "num_layers": pick((1, 2))}
    sizes["value_head_dim"] = pick((None, 5))
    kind = {"dtype": pick(STORAGE), "layout": pick(("NHD", "HND", "packed")), "k_scale": None, "v_scale": 2.0}
    options = {"prefix_caching": pick((False, True)), "watermark": 0.25, "target": "lockstep", "debug": False}
    options["device"] = None
    return Call(pn.PagedKVCache, {**sizes, **kind, **options})


def of_cache(name, **arguments):
    """Register a call of a cache's method; an argument may be a function of the cache and `pick`."""

    @call(f"PagedKVCache.{name}")
    def _(pick):
        made = cache(pick)
        given = {key: one(made, pick) if callable(one) else one for key, one in arguments.items()}
        return Call(getattr(made, name), given, [made])


def key_values(count):
    return {
        "key": lambda made, pick: keys_of(made, count)[0],
        "value": lambda made, pick: keys_of(made, count)[1],
        "token_ids": lambda made, pick: pick((list(range(count)), np.arange(count), range(count))),
    }


for _name in "commit free preempt swap_out".split():
    of_cache(_name, seq_id="a")
for _name in ("__repr__", "_repr_html_"):
    of_cache(_name)
of_cache("add", seq_id="new", **key_values(5), salt=None)
of_cache("append", seq_id=lambda made, pick: pick(("a", "b")), **key_values(2))
of_cache(
    "reserve",
    seq_id=lambda made, pick: pick(("a", "new")),
    tokens=lambda made, pick: tokens_for(made.allocator, pick, least=1),
    salt=None,
    limit=lambda made, pick: pick((None, 2)),
)
of_cache("seq_len", seq_id=lambda made, pick: pick(("a", "s")))
of_cache("can_append", seq_id="a", tokens=lambda made, pick: tokens_for(made.allocator, pick, least=1))
of_cache("can_swap_in", seq_id="s")
of_cache("truncate", seq_id=lambda made, pick: pick(("a", "b")), length=6)
of_cache("fork", parent_id="a", child_id="new")
of_cache("release", seq_id="a", window=3)
of_cache("swap_in", seq_id="s")
of_cache("gather", seq_id="a", layer=0)
of_cache("block_tables", seq_ids=lambda made, pick: pick((["a", "b"], ("b",), [])))


@call("PagedKVCache.num_blocks_for")
def _(pick):
    sizes = {"num_bytes": 10**6, "block_size": 4, "num_kv_heads": 1, "head_dim": 16, "value_head_dim": None}
    kind = {"num_layers": 2, "dtype": pick(STORAGE), "layout": pick(("NHD", "HND", "packed"))}
    return Call(pn.PagedKVCache.num_blocks_for, {**sizes, **kind})


@call("PagedKVCache.write_layer")
def _(pick):
    made = cache(pick)
    slots = made.reserve("a", [5, 6, 7]).slots
    key, value = (array if array.ndim == 3 else array[0] for array in keys_of(made, 3))
    return Call(made.write_layer, {"layer": 0, "key": key, "value": value, "slots": slots}, [made])


@call("PagedKVCache.reserve_batch")
def _(pick):
    made = cache(pick)
    tokens = {name: tokens_for(made.allocator, pick, least=1) for name in ("a", "new")}
    limits, salts = pick((None, {"new": 2})), pick((None, {"new": "salt"}))
    return Call(made.reserve_batch, {"tokens": tokens, "limits": limits, "salts": salts}, [made])


@call("PagedKVCache.plan")
def _(pick):
    made = cache(pick)
    options = {
        "scale": 0.5,
        "causal": True,
        "window": None,
        "softcap": None,
        "sinks": None,
        "alibi_slopes": None,
    }
    options |= {"return_lse": False, "algorithm": "auto", "num_splits": None, "slots": [8, 9]}
    batch = {"cu_seqlens_q": pick((None, [0, 1, 2])), "seq_lens": pick((None, [9, 3]))}
    return Call(made.plan, {"seq_ids": ["a", "b"], "num_q_heads": 2, **batch, **options}, [made])


@call("StepPlan.write")
def _(pick):
    made = cache(pick)
    plan = made.plan(["a"], 2, slots=made.allocator.slots("a", 6, 9))
    key, value = (array if array.ndim == 3 else array[0] for array in keys_of(made, 3))
    return Call(plan.write, {"layer": 0, "key": key, "value": value}, [made])


@call("StepPlan.attend")
def _(pick):
    made = cache(pick)
    query = tokens_of(2, F32, 2, made._layers.caches(0).key.shape[3])
    plan = made.plan(["a", "b"], 2)
    return Call(plan.attend, {"layer": 0, "query": query, "out": pick((None, np.zeros_like(query)))}, [made])


@call("PagedKVCache.attend")
def _(pick):
    made = cache(pick)
    query = tokens_of(2, F32, 2, made._layers.caches(0).key.shape[3])
    options = {
        "layer": 0,
        "cu_seqlens_q": None,
        "seq_lens": pick((None, [9, 3])),
        "scale": 0.5,
        "causal": True,
        "window": None,
        "softcap": None,
    }
    options |= {"sinks": None, "alibi_slopes": None, "return_lse": False, "out": None, "algorithm": "auto"}
    return Call(made.attend, {"seq_ids": ["a", "b"], "query": query, **options, "num_splits": None}, [made])


# Pictures.


def accesses():
    @facade.jit
    def shift(source, out):
        tile = facade.shared.array(4, np.float32)
        i = facade.threadIdx.x
        tile[i] = source[i]
        facade.syncthreads()
        out[i] = tile[i]

    with pn.lockstep.tracing() as recorded:
        shift[1, 4](np.ones(4, F32), np.zeros(4, F32))
    return recorded


accesses = functools.cache(accesses)


@call("draw.BlockTables.of")
def _(pick):
    pool = allocator(pick)
    return Call(
        pn.draw.BlockTables.of, {"pool": pool, "seq_ids": pick((None, ["a"])), "title": "tables"}, [pool]
    )


@call("draw.PoolHistory.record")
def _(pick):
    history = pn.draw.PoolHistory()
    pool = allocator(pick)
    return Call(history.record, {"pool": pool}, [pool, history])


@call("draw.TokenPath.of")
def _(pick):
    pool = allocator(pick)
    given = {"pool": pool, "seq_id": "a", "position": pick((0, 4)), "title": "path"}
    return Call(pn.draw.TokenPath.of, given, [pool])


@call("draw.Schedule")
def _(pick):
    return Call(pn.draw.Schedule, {"title": "requests"})


@call("draw.Schedule.record")
def _(pick):
    schedule, pool = pn.draw.Schedule(), allocator(pick)
    return Call(
        schedule.record, {"pool": pool, "running": ["a"], "waiting": pick(([], ["b"]))}, [pool, schedule]
    )


@call("draw.PoolHistory")
def _(pick):
    return Call(pn.draw.PoolHistory, {"title": "history"})


@call("draw.WarpAccess.of")
def _(pick):
    recorded = accesses()
    return Call(
        pn.draw.WarpAccess.of,
        {"accesses": recorded, "array": "source", "kind": "load", "line": None, "warp": 0, "title": "load"},
    )


@call("draw.Tree.of")
def _(pick):
    return Call(pn.draw.Tree.of, {"accesses": accesses(), "array": "tile", "title": "tree"})


@call("draw.Tree.of_shuffles")
def _(pick):
    @facade.jit
    def exchange(out):
        out[0] = facade.shfl_xor_sync(0xFFFFFFFF, facade.threadIdx.x, 1)

    accesses = pn.lockstep.trace(exchange, 1, 32, np.zeros(1))
    return Call(pn.draw.Tree.of_shuffles, {"accesses": accesses, "warp": 0, "line": None, "title": "lanes"})


@call("draw.Threads")
def _(pick):
    return Call(
        lambda **given: pn.draw.Threads(**given).text(),
        {"blocks_per_grid": 3, "threads_per_block": 4, "shape": 10, "title": "threads"},
    )


@call("draw.Splits")
def _(pick):
    lse = [0.5, -math.inf, 1.5]
    return Call(
        lambda **given: pn.draw.Splits(**given).text(),
        {"starts": [0, 4, 4], "seq_len": 10, "lse": lse, "title": "splits"},
    )


@call("draw.Mask")
def _(pick):
    return Call(
        lambda **given: pn.draw.Mask(**given).text(), {"seen": [[True, False, True]], "title": "mask"}
    )


@call("draw.OnlineSoftmax")
def _(pick):
    return Call(
        lambda **given: pn.draw.OnlineSoftmax(**given).text(),
        {"scores": [0.5, 1.5, -2.0], "title": "scores"},
    )


@call("draw.Roofline")
def _(pick):
    return Call(
        lambda **given: pn.draw.Roofline(**given).text(),
        {"bandwidth": 2e12, "peak": 4e13, "intensities": {"copy": 1.0}, "title": "roofline"},
    )


# lockstep.


@facade.jit
def add_one(x):
    i = facade.grid(1)
    if i < x.size:
        x[i] += 1


def is_long(blocks):
    """Tell whether a launch of so many thread blocks, which is valid, would take hours."""
    counts = blocks if isinstance(blocks, (list, tuple)) else [blocks]
    return any(isinstance(count, (int, np.integer)) and 10**5 < count < 2**31 for count in counts)


def launches(function, **more):
    def run(kernel, blocks_per_grid, threads_per_block, *args, **options):
        if not is_long(blocks_per_grid):
            function(kernel, blocks_per_grid, threads_per_block, *args, **options)

    def make(pick):
        shape = {"blocks_per_grid": pick((2, (2, 1))), "threads_per_block": pick((4, (4, 1, 1)))}
        given = {"kernel": pick((add_one, add_one.py_func)), **shape, "*": (np.zeros(5),), **more}
        return Call(run, given, [], ("kernel", "blocks_per_grid", "threads_per_block"))

    return make


for _name in ("launch", "profile", "record", "sanitize", "trace"):
    CALLS[f"lockstep.{_name}"] = launches(getattr(pn.lockstep, _name), shared_bytes=0)
CALLS["targets.launch"] = launches(pn.targets.launch, target="lockstep")


@call("lockstep.check_compiles")
def _(pick):
    return Call(pn.lockstep.check_compiles, {"kernel": add_one, "signature": "void(float64[:])"})


@call("lockstep.lane_program")
def _(pick):
    return Call(pn.lockstep.lane_program, {"function": add_one})


OPTIONS = {"max_lanes": 64, "memory_budget": 2**20, "order": "forward", "compute_capability": (9, 0)}
OPTIONS["check_compiles"] = False


CALLS["time_kernel"] = launches(pn.time_kernel)


@call("lockstep.Options")
def _(pick):
    return Call(pn.lockstep.Options, dict(OPTIONS))


def entered(manager):
    """Return a function that enters a context manager and leaves it."""

    @functools.wraps(manager)
    def enter(*args, **kwargs):
        with manager(*args, **kwargs) as found:
            return found

    return enter


@call("lockstep.options")
def _(pick):
    return Call(entered(pn.lockstep.options), dict(OPTIONS))


@call("lockstep.tracing")
def _(pick):
    return Call(entered(pn.lockstep.tracing), {"thread_block": (0, 0, 0)})


for _name in ("installed", "profiling", "recording", "sanitizing"):
    CALLS[f"lockstep.{_name}"] = lambda pick, name=_name: Call(entered(getattr(pn.lockstep, name)), {})


@functools.cache
def report():
    return pn.lockstep.profile(add_one, 2, 4, np.zeros(5))


for _name, _given in {
    "text": {"gpu": "H200"},
    "html": {"gpu": "H200"},
    "page": {"gpu": "H200"},
    "json": {},
    "roofline": {"gpu": "H200"},
    "source": {},
    "to_dict": {},
    "arrays": {"space": "global"},
    "memory": {"space": "global", "kind": "load", "array": "x", "line": None},
    "work": {"line": None},
}.items():
    CALLS[f"Report.{_name}"] = lambda pick, name=_name, given=_given: Call(
        getattr(report(), name), dict(given)
    )


@functools.cache
def recorded():
    return pn.lockstep.record(add_one, 2, 4, np.zeros(5))


for _name in ("json", "left_out", "page", "summary", "to_dict"):
    CALLS[f"Recording.{_name}"] = lambda pick, name=_name: Call(getattr(recorded(), name), {})


# Host functions of the facade.


@call("cuda.jit")
def _(pick):
    return Call(
        facade.jit,
        {"func_or_sig": pick((add_one.py_func, None, "void(float64[:])")), "device": False},
        kinds={"device": "any"},
    )


CALLS["lockstep.jit"] = CALLS["cuda.jit"]


def device():
    return facade.to_device(np.arange(6.0).reshape(2, 3))


@call("cuda.to_device")
def _(pick):
    return Call(
        facade.to_device,
        {"obj": np.arange(3.0), "copy": True, "to": pick((None, facade.to_device(np.ones(3))))},
    )


for _name in ("device_array", "pinned_array", "mapped_array", "managed_array"):
    CALLS[f"cuda.{_name}"] = lambda pick, name=_name: Call(
        getattr(facade, name), {"shape": pick((3, (2, 3))), "dtype": F32, "order": "C"}
    )
for _name in ("device_array_like", "pinned_array_like", "mapped_array_like"):
    CALLS[f"cuda.{_name}"] = lambda pick, name=_name: Call(getattr(facade, name), {"ary": np.ones((2, 3))})
for _name in ("as_cuda_array", "is_cuda_array"):
    CALLS[f"cuda.{_name}"] = lambda pick, name=_name: Call(getattr(facade, name), {"obj": np.ones(3)})
for (
    _name
) in """list_devices current_context get_current_device is_available detect synchronize close stream event
cuda_error is_bfloat16_supported is_float16_supported is_supported_version
default_stream legacy_default_stream per_thread_default_stream""".split():
    CALLS[f"cuda.{_name}"] = lambda pick, name=_name: Call(getattr(facade, name), {})
for _name in ("profile_start", "profile_stop", "profiling", "pinned", "mapped", "defer_cleanup"):
    _function = getattr(facade, _name)
    CALLS[f"cuda.{_name}"] = lambda pick, one=_function: Call(
        entered(one) if hasattr(one, "__wrapped__") else one, {}
    )


@call("cuda.select_device")
def _(pick):
    return Call(facade.select_device, {"device_id": 0})


@call("cuda.event_elapsed_time")
def _(pick):
    start, end = facade.event(), facade.event()
    start.record()
    end.record()
    return Call(facade.event_elapsed_time, {"start": start, "end": end})


@call("cuda.external_stream")
def _(pick):
    return Call(facade.external_stream, {"ptr": 7})


@call("cuda.from_cuda_array_interface")
def _(pick):
    owner = device()
    return Call(facade.from_cuda_array_interface, {"desc": owner.__cuda_array_interface__, "owner": owner})


@call("cuda.require_context")
def _(pick):
    return Call(facade.require_context, {"fn": add_one.py_func})


@call("cuda.vectorize")
def _(pick):
    return Call(
        lambda target, identity: facade.vectorize("float32(float32)", target, identity=identity),
        {"target": "cuda", "identity": pick((None, 0))},
    )


@call("cuda.guvectorize")
def _(pick):
    return Call(
        lambda target, signature: facade.guvectorize("void(f4[:], f4[:])", signature, target=target)(
            reversed_rows
        ),
        {"target": "cuda", "signature": "(n)->(n)"},
    )


def reversed_rows(source, out):
    for i in range(source.shape[0]):
        out[i] = source[source.shape[0] - 1 - i]


@call("cuda.Kernel.__getitem__")
def _(pick):
    return Call(lambda configuration: add_one[configuration](np.zeros(5)), {"configuration": (2, 4)})


@call("cuda.Kernel.forall")
def _(pick):
    def run(ntasks, tpb, sharedmem):
        configured = add_one.forall(ntasks, tpb=tpb, sharedmem=sharedmem)
        if not is_long(ntasks):
            configured(np.zeros(5))

    return Call(run, {"ntasks": 5, "tpb": pick((0, 4)), "sharedmem": 0})


for _name, _given in {
    "copy_to_host": {"ary": None},
    "copy_to_device": {"ary": np.ones((2, 3))},
    "reshape": {"*": (3, 2)},
    "ravel": {"order": "C"},
    "transpose": {"axes": None},
    "view": {"dtype": np.int64},
    "squeeze": {"axis": None},
    "is_c_contiguous": {},
    "is_f_contiguous": {},
}.items():

    def _make(pick, name=_name, given=_given):
        array = device()
        return Call(getattr(array, name), dict(given), [array.__lockstep_array__])

    CALLS[f"cuda.DeviceArray.{_name}"] = _make


@call("cuda.DeviceArray.split")
def _(pick):
    array = facade.to_device(np.arange(6.0))
    return Call(lambda section: [part.copy_to_host() for part in array.split(section)], {"section": 4})


# Text, traces, tolerances, replays.


@call("text.block_tables")
def _(pick):
    pool = allocator(pick)
    return Call(text.block_tables, {"pool": pool, "seq_ids": ["a", "b"]}, [pool])


@call("text.pool_map")
def _(pick):
    pool = allocator(pick)
    return Call(text.pool_map, {"pool": pool, "labels": {"a": "A", "b": "B"}}, [pool])


@call("text.reference_counts")
def _(pick):
    pool = allocator(pick)
    return Call(text.reference_counts, {"pool": pool}, [pool])


def trace():
    ids = [np.array([1]), np.array([1, 2])]
    return traces.Trace("t", np.array([0.0, 1.0]), np.array([5, 600]), np.array([2, 3]), ids)


@call("Trace.first")
def _(pick):
    return Call(trace().first, {"count": 1})


@call("Trace.all_at_once")
def _(pick):
    return Call(trace().all_at_once, {})


@call("Trace.unbounded_hit_rate")
def _(pick):
    return Call(trace().unbounded_hit_rate, {"block_size": 4, "steps": np.array([0, 1])})


@call("Trace.token_ids")
def _(pick):
    return Call(trace().token_ids, {"request": 1, "start": 3, "stop": 7})


@functools.cache
def trace_file():
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    (folder / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,5,2\n", encoding="utf-8")
    return folder / "trace.csv"


@call("traces.read")
def _(pick):
    return Call(traces.read, {"path": pick((trace_file(), str(trace_file())))})


@call("measure.policies")
def _(pick):
    return Call(measure.policies, {"block_sizes": [4, 16]})


@call("measure.measure")
def _(pick):
    given = {"trace": trace(), "num_slots": 2048, "block_sizes": [4, 16], "hit_block_size": 16}
    return Call(measure.measure, given)


# What is public.


@call("models.find")
def _(pick):
    return Call(pn.models.find, {})


@call("models.load")
def _(pick):
    return Call(pn.models.load, {"name_or_path": "glassllm"})


SIZES = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "vocab_size": 5,
    "num_q_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 4,
    "max_positions": 64,
}


@call("models.LlamaConfig")
def _(pick):
    given = {"num_layers": 1, **SIZES, "rope_base": 1e4, "norm_eps": 1e-5}
    kinds = {name: "number" if isinstance(value, float) else "count" for name, value in given.items()}
    return Call(pn.models.LlamaConfig, given, kinds=kinds)


@call("models.random_llama")
def _(pick):
    config = pn.models.LlamaConfig(num_layers=1, **SIZES)
    return Call(pn.models.random_llama, {"config": config, "seed": 1}, kinds={"seed": "count"})


@call("models.DenseAttention")
def _(pick):
    return Call(pn.models.DenseAttention, {"dtype": pick(("float32", "float64"))}, kinds={"dtype": "name"})


def engine(pick):
    model = pn.models.random_llama(pn.models.LlamaConfig(num_layers=1, **SIZES))
    kv = pn.PagedKVCache(8, 4, 2, 4, prefix_caching=pick((False, True)), target="lockstep")
    served = pn.serving.Engine(model, kv)
    served.add_request([1, 2, 3], pn.serving.SamplingParams(2), request_id="a")
    return served


@call("serving.SamplingParams")
def _(pick):
    given = {"max_tokens": 2, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "seed": 1, "n": 2}
    kinds = {name: "number" if isinstance(value, float) else "count" for name, value in given.items()}
    given |= {"stop": ["a"], "stop_token_ids": [3], "ignore_eos": True}
    return Call(pn.serving.SamplingParams, given, kinds=kinds | {"ignore_eos": "flag", "stop": "any"})


@call("serving.Engine")
def _(pick):
    made = engine(pick)
    given = {"model": made.model, "cache": made.cache, "token_budget": 8, "max_sequences": 4}
    given |= {"preemption": pick(("recompute", "swap"))}
    kinds = {"token_budget": "count", "max_sequences": "count", "preemption": "name"}
    return Call(pn.serving.Engine, given, [made.cache], kinds=kinds)


@call("Engine.add_request")
def _(pick):
    given = {"prompt": [1, 2, 3], "params": pn.serving.SamplingParams(2), "request_id": "b"}
    return Call(engine(pick).add_request, given, kinds={"request_id": "id"})


@call("Engine.cancel")
def _(pick):
    return Call(engine(pick).cancel, {"request_id": "a"}, kinds={"request_id": "id"})


for _name in ("step", "stream", "run"):

    def _make(pick, name=_name):
        return Call(getattr(engine(pick), name), {})

    CALLS[f"Engine.{_name}"] = _make


MODULES = {
    "": pn,
    "layouts": layouts,
    "plan": pn.plan,
    "reference": pn.reference,
    "arrays": pn.arrays,
    "targets": pn.targets,
    "draw": pn.draw,
    "text": text,
    "lockstep": pn.lockstep,
    "cuda": facade,
    "traces": traces,
    "measure": measure,
    "exercises": pn.exercises,
    "models": pn.models,
    "serving": pn.serving,
}
CLASSES = {
    "BlockAllocator": pn.BlockAllocator,
    "Engine": pn.serving.Engine,
    "PagedKVCache": pn.PagedKVCache,
    "Recording": type(recorded()),
    "Report": type(report()),
    "StepPlan": StepPlan,
    "Trace": traces.Trace,
    "cuda.DeviceArray": facade.DeviceArray,
}
RECORD = "holds what the package has computed"
HELPER = "takes arguments that a public function has checked"
UNCHECKED = {
    **dict.fromkeys(["lockstep.install", "lockstep.uninstall"], "takes no arguments, and changes numba.cuda"),
    "lockstep.breakpoint": "refuses every call outside a kernel",
    **dict.fromkeys(
        ["draw.BlockTables", "draw.TokenPath", "draw.Tree", "draw.WarpAccess", "plan.Plan"], RECORD
    ),
    **dict.fromkeys(["plan.Choice", "traces.Trace", "traces.CsvFormat", "measure.Policy"], RECORD),
    **dict.fromkeys(
        "OutOfBlocksError UnknownSequenceError DuplicateSequenceError SwappedSequenceError".split(), RECORD
    ),
    **dict.fromkeys(
        [f"arrays.{name}" for name in "on_host empty storage beside transposed reshaped".split()], HELPER
    ),
    **dict.fromkeys(
        [f"arrays.{name}" for name in "torch_device dtype_name keep to_state from_state untraced".split()],
        HELPER,
    ),
    **dict.fromkeys(
        [
            "targets.import_failure",
            "plan.plan_attention",
            "layouts.piece_size",
            "layouts.cache_shapes",
            "layouts.excess",
            "layouts.check_attention_sizes",
        ],
        HELPER,
    ),
    **dict.fromkeys([f"text.{name}" for name in ("duration", "shortened", "size", "table")], HELPER),
    **dict.fromkeys(
        [f"cuda.{name}" for name in "Context Device DeviceArray Event Kernel Stream".split()],
        "made by functions",
    ),
    **dict.fromkeys(
        [f"cuda.{name}" for name in "ArgHint DeviceName In InOut Out".split()], "a mark for launches"
    ),
    **dict.fromkeys(
        ["cuda.DeviceArray.getitem", "cuda.DeviceArray.setitem"], "indexing by NumPy, with its errors"
    ),
    **dict.fromkeys(
        [f"cuda.{name}" for name in "DeviceRecord MappedArray MemoryPointer DeviceArray.of".split()],
        "made by functions",
    ),
    **dict.fromkeys(["cuda.Reduce", "cuda.reduce"], "takes any function, which fails at the first call"),
    **dict.fromkeys(
        [f"cuda.DeviceArray.{name}" for name in "as_cuda_arg bind get_ipc_handle".split()],
        "takes a stream, which may be anything",
    ),
    "exercises.Verdict": RECORD,
    **dict.fromkeys([f"models.{name}" for name in "Checkpoint Known Llama".split()], RECORD),
    **dict.fromkeys(
        [f"serving.{name}" for name in "Completion Counters Output Recording Result".split()], RECORD
    ),
    "models.Tokenizer": "a protocol",
    "exercises.check": "takes any object for an answer, see tests/exercises/test_check.py",
    **dict.fromkeys(["Report.save_html", "Report.save_json", "exercises.start"], "writes a file"),
    **dict.fromkeys(
        [f"arrays.Has{name}" for name in "ArrayInterface CudaArrayInterface DLPack LockstepArray".split()],
        "a protocol",
    ),
    **dict.fromkeys(["arrays.TorchDevice", "arrays.TorchDtype"], "a protocol"),
}


def public_callables():
    """Return the names of all public functions, classes and methods."""
    named = set()
    for prefix, module in MODULES.items():
        listed = (
            getattr(module, "__all__", ())
            if module in (pn, pn.draw, text, pn.lockstep, pn.exercises)
            else vars(module)
        )
        for name in listed:
            thing = getattr(module, name)
            own = getattr(thing, "__module__", "").startswith(module.__name__.removesuffix(".facade"))
            if (
                not name.startswith("_")
                and callable(thing)
                and own
                and not isinstance(thing, (facade.DeviceName, Type))
            ):
                named.add(f"{prefix}.{name}".lstrip("."))
    for prefix, made in CLASSES.items():
        named |= {
            f"{prefix}.{name}"
            for one in made.__mro__
            for name, member in vars(one).items()
            if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, classmethod))
        }
    return named
