"""A call of the cache that fails changes nothing: sequences, pool, stored tokens and host copies are as before it."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from fault_injection import Inject, Injected, pool_state

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.allocator.transactions import transaction
from paged_numba.errors import LaunchError

PACKAGE = Path(pn.__file__).parent
OURS = tuple(str(PACKAGE / name) for name in ("cache.py", "allocator", "ops", "arrays.py"))
BLOCK_SIZE, HEADS, DIM = 2, 1, 2


def kv(count, number=1.0, layers=2):
    """Return keys or values of tokens, all different."""
    shape = (layers, count, HEADS, DIM)
    return (number * 1000 + np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)


def ids(*parts):
    """Return token ids: two blocks for each part, and one token more."""
    return [part * 10 + place for part in parts for place in range(2 * BLOCK_SIZE)] + [999]


def used_cache(**options):
    """Return a cache with a fork, idle blocks, a reserved, a released and a swapped sequence, in a pool almost full."""
    cache = pn.PagedKVCache(
        18, BLOCK_SIZE, HEADS, DIM, num_layers=2, prefix_caching=True, target="lockstep", **options
    )
    for number, (name, text) in enumerate(
        {"a": ids(1), "idle": ids(1, 3), "s": ids(7), "w": ids(4)}.items(), 1
    ):
        cache.add(name, kv(len(text), number), kv(len(text), -number), text)
    cache.fork("a", "b")
    cache.reserve("r", [5, 6, 7])
    cache.write_layer(0, kv(3)[0], kv(3)[0], cache.allocator.slots("r", 0, 3))
    cache.free("idle")
    cache.swap_out("s")
    cache.release("w", 2)
    return cache


def state(cache):
    """Return everything that a cache holds, its arrays as bytes."""
    held = pool_state(cache.allocator)
    held["storage"] = [array.tobytes() for array in (*cache.key_caches, *cache.value_caches)]
    held["swapped out"] = {
        name: [part.tobytes() for pair in sequence.stored.tokens for part in pair]
        + [part.tobytes() for part in sequence.stored.written or ()]
        for name, sequence in cache.allocator._swapped.items()
    }
    if cache._layers.watch is not None:
        held["watch"] = [written.tobytes() for written in cache._layers.watch.state()["written"]]
    return held


def new(cache, text, number=8):
    return cache.add("new", kv(len(text), number), kv(len(text), -number), text)


CALLS = {
    "add": lambda cache: new(cache, ids(1, 3)),
    "add, evicting": lambda cache: new(cache, list(range(2 * cache.allocator.num_free_blocks))),
    "append": lambda cache: cache.append("w", kv(3, 9), kv(3, 9), [1, 2, 3]),
    "append, copying": lambda cache: cache.append("b", kv(3, 9), kv(3, 9), [1, 2, 3]),
    "append, copying and evicting": lambda cache: cache.append(
        "b", kv(count := 2 * cache.allocator.num_free_blocks - 1, 9), kv(count, 9), list(range(count))
    ),
    "reserve": lambda cache: cache.reserve("new", ids(1, 3)),
    "reserve, limited": lambda cache: cache.reserve("new", ids(1, 3), limit=2),
    "truncate": lambda cache: cache.truncate("a", 3),
    "truncate of a reserved one": lambda cache: cache.truncate("r", 1),
    "reserve, copying": lambda cache: cache.reserve("b", [1, 2, 3]),
    "write_layer": lambda cache: cache.write_layer(1, kv(3)[0], kv(3)[0], cache.allocator.slots("r", 0, 3)),
    "reserve_batch": lambda cache: cache.reserve_batch({"new": ids(1, 3), "r": [1]}, salts={"new": 5}),
    "reserve_batch, copying": lambda cache: cache.reserve_batch({"b": [1, 2, 3], "new": ids(1), "a": [4]}),
    "write of a plan": lambda cache: cache.plan(["r"], HEADS, slots=cache.allocator.slots("r", 0, 3)).write(
        1, kv(3)[0], kv(3)[1]
    ),
    "commit": lambda cache: cache.commit("r"),
    "fork": lambda cache: cache.fork("a", "new"),
    "fork of a reserved one": lambda cache: cache.fork("r", "new"),
    "free": lambda cache: cache.free("a"),
    "free of a reserved one": lambda cache: cache.free("r"),
    "free of a swapped one": lambda cache: cache.free("s"),
    "preempt": lambda cache: cache.preempt("r"),
    "swap_out": lambda cache: cache.swap_out("w"),
    "swap_in": lambda cache: cache.swap_in("s"),
    "release": lambda cache: cache.release("a", 2),
    "gather": lambda cache: cache.gather("a", layer=1),
    "attend": lambda cache: cache.attend(["a", "b"], np.ones((2, HEADS, DIM), np.float32)),
}


def fails_without_a_trace(call, folders, lines, **options):
    """Raise at some of the lines of a call, in turn, until it ends; return the last of `lines` that was tried."""
    cache, whole = used_cache(**options), used_cache(**options)
    call(whole)
    before = state(cache)
    for at in lines:
        inject = Inject(at, folders)
        inject.run(lambda: call(cache))
        if inject.place is None:
            break
        assert state(cache) == before, inject.place
        cache.allocator.check()
    assert state(cache) == state(whole)
    return at


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_an_exception_at_any_line_changes_nothing(call):
    assert fails_without_a_trace(call, OURS, range(10_000)) > 3


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_within_a_transaction_that_fails_later_is_taken_back(call):
    cache = used_cache()
    before = state(cache)

    @transaction
    def call_and_fail(cache):
        call(cache)
        raise Injected

    with pytest.raises(Injected):
        call_and_fail(cache)
    assert state(cache) == before


WRITES = [
    "add",
    "add, evicting",
    "append, copying and evicting",
    "reserve, copying",
    "write_layer",
    "reserve_batch, copying",
    "write of a plan",
    "swap_in",
]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("call", [CALLS[name] for name in WRITES], ids=WRITES)
def test_an_exception_within_a_launch_changes_nothing(call, debug):
    # A launch runs thousands of lines: a prime step visits all kinds of them.
    lines = range(0, 100_000, 397)
    assert fails_without_a_trace(call, (str(PACKAGE / "lockstep"),), lines, debug=debug) > 0


class OnlyOnAGPU:
    """An array that only a GPU can read."""

    __cuda_array_interface__ = {}  # noqa: RUF012

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __getitem__(self, index):
        return OnlyOnAGPU(self.array[index])


def test_a_failed_append_offers_no_other_sequence_what_it_did_not_write():
    def one(count, value=1.0):
        return np.full((count, 1, 2), value, np.float32)

    cache = pn.PagedKVCache(4, 4, 1, 2, prefix_caching=True, target="lockstep")
    cache.add("secret", one(16, 42), one(16, 42), list(range(100, 116)))
    cache.free("secret")
    cache.add("a", one(3), one(3), [1, 2, 3])
    with pytest.raises(LaunchError):
        cache.append("a", OnlyOnAGPU(one(1)), OnlyOnAGPU(one(1)), [4])
    cache.append("a", one(1), one(1), [5])
    cache.add("b", one(5), one(5), [1, 2, 3, 4, 6])
    assert (cache.gather("b")[0] == 1).all()


def test_an_observer_that_fails_changes_nothing():
    class Refuses(lockstep.observe.observer.Observer):
        def end_launch(self, machine):
            raise Injected

    cache = used_cache()
    before = state(cache)
    with lockstep.observe.observer.observing(Refuses()), pytest.raises(Injected):
        CALLS["append, copying and evicting"](cache)
    assert state(cache) == before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["gather", "attend"])
def test_what_an_observer_changes_during_a_reading_call_stays(name, fails):
    """A call that only reads is no transaction, which the next call would take for one that was interrupted."""

    class Frees(lockstep.observe.observer.Observer):
        def end_launch(self, machine):
            if "w" in cache.allocator:
                cache.free("w")
            if fails:
                raise Injected

    cache, whole = used_cache(), used_cache()
    with lockstep.observe.observer.observing(Frees()):
        if fails:
            with pytest.raises(Injected):
                CALLS[name](cache)
        else:
            CALLS[name](cache)
    whole.free("w")
    for one in (cache, whole):
        one.fork("a", "new")
    assert state(cache) == state(whole)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copy_of_a_watched_cache_is_watched(duplicate):
    cache = used_cache(debug=True)
    other = duplicate(cache)
    assert state(other) == state(cache)
    query = np.ones((1, HEADS, DIM), np.float32)
    assert (other.attend(["a"], query) == cache.attend(["a"], query)).all()
    # Layer 1 of "r" is not written: the copy knows that, and its faults are its own.
    for one in (other, cache):
        with pytest.raises(pn.errors.KernelError, match="unwritten"):
            one.attend(["r"], query, layer=1)
    slots = other.allocator.slots("r", 0, 3)
    other.write_layer(1, kv(3)[0], kv(3)[0], slots)
    other.attend(["r"], query, layer=1)
    with pytest.raises(pn.errors.KernelError, match="unwritten"):
        cache.attend(["r"], query, layer=1)


def test_a_sequence_swapped_out_behind_the_cache_gets_no_older_host_copy():
    cache = used_cache()
    cache.allocator.free("s")
    cache.allocator.add("s", [1])
    cache.allocator.swap_out("s")
    with pytest.raises(ValueError, match="by this cache"):
        cache.swap_in("s")
