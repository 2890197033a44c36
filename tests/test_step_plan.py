"""Plans of steps, batches of reservations, and chunks: each does what single calls do."""

import copy

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import targets
from paged_numba.cache import BatchAllocation, layers
from paged_numba.errors import KernelError, PagedNumbaError
from paged_numba.ops import ALGORITHMS, launches
from paged_numba.testing import strategies
from paged_numba.testing.properties import assert_same_bits

NUM_LAYERS = 2


def cache_of(batch):
    """Return an empty cache of two layers that can hold a batch."""
    _, num_kv_heads, head_dim = batch.keys[0].shape
    num_blocks = 1 + sum(-(-len(keys) // batch.block_size) for keys in batch.keys)
    return pn.PagedKVCache(
        num_blocks,
        batch.block_size,
        num_kv_heads,
        head_dim,
        num_layers=NUM_LAYERS,
        value_head_dim=batch.values[0].shape[2],
        dtype=batch.key_cache.dtype,
        layout=batch.layout,
        **{name: batch.options.get(name) for name in ("k_scale", "v_scale")},
        target="lockstep",
    )


def keys_and_values(batch, seq, layer, part=slice(None)):
    """Return tokens of a sequence in a layer; the second layer has them in reverse order."""
    step = 1 if layer == 0 else -1
    return batch.keys[seq][::step][part], batch.values[seq][::step][part]


def written(cache, batch, names, parts, plan):
    """Write parts of sequences with a plan, in every layer."""
    for layer in range(NUM_LAYERS):
        tokens = [keys_and_values(batch, seq, layer, part) for seq, part in zip(names, parts, strict=True)]
        key, value = (np.concatenate(arrays) for arrays in zip(*tokens, strict=True))
        plan.write(layer, key, value)


def options_of(batch, algorithm):
    kept = {name: given for name, given in batch.options.items() if name not in ("k_scale", "v_scale")}
    return {**kept, "scale": batch.scale, "algorithm": "auto" if batch.layout == "packed" else algorithm}


@settings(max_examples=25)
@given(
    batch=strategies.paged_batches(),
    algorithm=st.sampled_from(ALGORITHMS),
    return_lse=st.booleans(),
)
def test_a_plan_attends_in_every_layer_as_a_call_of_its_own(batch, algorithm, return_lse):
    cache, names = cache_of(batch), range(len(batch.keys))
    queries = [min(len(batch.query[batch.query_of(seq)]), len(batch.keys[seq])) for seq in names]
    before = [len(batch.keys[seq]) - count for seq, count in zip(names, queries, strict=True)]
    slots = cache.reserve_batch(dict(zip(names, before, strict=True))).slots
    written(
        cache,
        batch,
        names,
        [slice(count) for count in before],
        cache.plan([], batch.query.shape[1], slots=slots),
    )
    for name in names:
        cache.commit(name)

    now = [seq for seq in names if queries[seq]]
    assume(now)
    slots, cu_seqlens_q, _ = cache.reserve_batch({seq: queries[seq] for seq in now})
    query = batch.query[: cu_seqlens_q[-1]]
    options = {**options_of(batch, algorithm), "return_lse": return_lse}
    decode = max(queries, default=0) <= 1
    plan = cache.plan(
        now, query.shape[1], slots=slots, cu_seqlens_q=None if decode else cu_seqlens_q, **options
    )
    written(cache, batch, now, [slice(before[seq], None) for seq in now], plan)
    tables = cache.block_tables(now)
    for layer in range(NUM_LAYERS):
        for seq in now:
            key, value = keys_and_values(batch, seq, layer)
            assert_same_bits(cache.gather(seq, layer=layer)[0], key)
            assert_same_bits(cache.gather(seq, layer=layer)[1], value)
        out = plan.attend(layer, query)
        one_shot = pn.paged_attention(
            query,
            cache.key_caches[layer],
            cache.value_caches[layer],
            tables,
            np.array([len(batch.keys[seq]) for seq in now], np.int32),
            cu_seqlens_q=cu_seqlens_q,
            k_scale=batch.options.get("k_scale"),
            v_scale=batch.options.get("v_scale"),
            layout=batch.layout,
            target="lockstep",
            **options,
        )
        again = cache.attend(now, query, layer=layer, cu_seqlens_q=cu_seqlens_q, **options)
        for left, right, third in zip(
            *((x if return_lse else (x,)) for x in (out, one_shot, again)), strict=True
        ):
            assert_same_bits(left, right)
            assert_same_bits(left, third)


@given(
    lens=st.lists(st.integers(1, 13), min_size=1, max_size=3),
    chunk=st.integers(1, 13),
    layout=st.sampled_from(("NHD", "HND", "packed")),
    window=st.none() | st.integers(1, 9),
    algorithm=st.sampled_from(("naive", "warp", "block")),  # in these a row does not depend on its neighbours
)
def test_chunks_of_a_prompt_that_is_reserved_whole_are_the_whole_prompt(
    lens, chunk, layout, window, algorithm
):
    cache = pn.PagedKVCache(12, 4, 1, 4, num_layers=NUM_LAYERS, layout=layout, target="lockstep")
    options = {"window": window, "algorithm": "auto" if layout == "packed" else algorithm}
    rng = np.random.default_rng(0)
    keys = [rng.standard_normal((2, NUM_LAYERS, length, 1, 4), dtype=np.float32) for length in lens]
    queries = [3 * rng.standard_normal((length, 2, 4), dtype=np.float32) for length in lens]
    cache.reserve_batch(dict(enumerate(lens)))
    outs = [[[] for _ in lens] for _ in range(NUM_LAYERS)]
    for start in range(0, max(lens), chunk):
        now = [seq for seq, length in enumerate(lens) if length > start]
        stops = [min(lens[seq], start + chunk) for seq in now]
        chunks = list(zip(now, stops, strict=True))
        cu_seqlens_q = np.cumsum([0, *(stop - start for stop in stops)])
        slots = np.concatenate([cache.allocator.slots(seq, start, stop) for seq, stop in chunks])
        query = np.concatenate([queries[seq][start:stop] for seq, stop in chunks])
        lengths = {"cu_seqlens_q": cu_seqlens_q, "seq_lens": stops}
        plan = cache.plan(now, 2, slots=slots, **lengths, **options)
        for layer in range(NUM_LAYERS):
            plan.write(
                layer, *np.concatenate([keys[seq][:, layer, start:stop] for seq, stop in chunks], axis=1)
            )
            out = plan.attend(layer, query)
            assert_same_bits(out, cache.attend(now, query, layer=layer, **lengths, **options))
            for seq, rows in zip(now, np.split(out, cu_seqlens_q[1:-1]), strict=True):
                outs[layer][seq].append(rows)
    for layer in range(NUM_LAYERS):
        expected = cache.attend(
            range(len(lens)),
            np.concatenate(queries),
            layer=layer,
            cu_seqlens_q=np.cumsum([0, *lens]),
            **options,
        )
        assert np.isfinite(expected).all()
        assert_same_bits(np.concatenate([rows for seq in outs[layer] for rows in seq]), expected)


def used_cache(prefix_caching=False):
    """Return a cache with a sequence of 6 tokens, two forks of it, and another sequence; blocks of 4 tokens."""
    cache = pn.PagedKVCache(
        12, 4, 1, 2, num_layers=NUM_LAYERS, prefix_caching=prefix_caching, target="lockstep"
    )
    for number, (name, count) in enumerate({"a": 6, "other": 3}.items()):
        tokens = number + np.arange(NUM_LAYERS * count * 2, dtype=np.float32).reshape(NUM_LAYERS, count, 1, 2)
        cache.add(name, tokens, -tokens, list(range(count)))
    cache.fork("a", "b")
    cache.fork("b", "c")
    return cache


names = st.sampled_from(["a", "b", "c", "other", "new", "newer"])


@given(
    counts=st.dictionaries(names, st.integers(1, 9), max_size=6),
    prefix_caching=st.booleans(),
    limit=st.none() | st.integers(1, 9),
)
def test_a_batch_is_reserved_as_its_sequences_one_after_the_other(counts, prefix_caching, limit):
    at_once, in_turn = used_cache(prefix_caching), used_cache(prefix_caching)
    tokens = {name: list(range(count)) if prefix_caching else count for name, count in counts.items()}
    salts = {name: "salt" for name in tokens if name == "newer"}
    limits = None if limit is None else dict.fromkeys(tokens, limit)
    before = copy.deepcopy(at_once)
    single = []
    try:
        for name, its in tokens.items():
            single.append(in_turn.reserve(name, its, salt=salts.get(name), limit=limit))
    except pn.OutOfBlocksError as error:
        blocks = error.needed, error.free
        with pytest.raises(pn.OutOfBlocksError, match=f"for sequence {name!r}") as caught:
            at_once.reserve_batch(tokens, limits=limits, salts=salts)
        assert (caught.value.needed, caught.value.free) == blocks
        in_turn = before
    else:
        batch = at_once.reserve_batch(tokens, limits=limits, salts=salts)
        assert batch.slots.tolist() == [slot for one in single for slot in one.slots.tolist()]
        assert np.diff(batch.cu_seqlens_q).tolist() == [one.slots.size for one in single]
        assert batch.num_cached_tokens.tolist() == [one.num_cached_tokens for one in single]
        assert [part.dtype for part in batch] == [np.int64, np.int32, np.int64]
    at_once.allocator.check()
    assert list(at_once.allocator) == list(in_turn.allocator)
    for name in in_turn.allocator:
        np.testing.assert_array_equal(
            at_once.allocator.block_table(name), in_turn.allocator.block_table(name)
        )
        assert at_once.allocator.seq_len(name) == in_turn.allocator.seq_len(name)
    for one, other in zip(
        (*at_once.key_caches, *at_once.value_caches),
        (*in_turn.key_caches, *in_turn.value_caches),
        strict=True,
    ):
        assert_same_bits(one, other)


def test_two_forks_get_copies_of_the_block_that_they_share():
    cache = used_cache()
    cache.reserve_batch({"a": 1, "b": 1, "c": 1})
    last = [cache.allocator.block_table(name)[1] for name in "abc"]
    assert len(set(last)) == 3
    for caches in (cache.key_caches, cache.value_caches):
        for layer in caches:
            assert_same_bits(layer[last[0], :2], layer[last[1], :2])
            assert_same_bits(layer[last[0], :2], layer[last[2], :2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda c: c.reserve_batch({"new": 4, "a": 99}),
            pn.OutOfBlocksError,
            "for sequence 'a'.* needs .* blocks",
        ),
        (
            lambda c: c.reserve_batch({"new": 4, "a": 0}),
            ValueError,
            "tokens must be positive, got tokens=0.*'a'",
        ),
        (lambda c: c.reserve_batch({"new": 4, "a": 1.5}), TypeError, "tokens must be .*for sequence 'a'"),
        (lambda c: c.reserve_batch({"a": 1, "new": 4}, salts={"new": []}), TypeError, "salt must be .*'new'"),
        (lambda c: c.reserve_batch({"new": 4, "s": 1}), pn.SwappedSequenceError, "'s'"),
        (
            lambda c: c.reserve_batch([("new", 4)]),
            TypeError,
            r"tokens must be a mapping from ids of sequences, got",
        ),
        (lambda c: c.reserve_batch({"new": 4}, limits={"a": 1}), ValueError, "limits must name .* got 'a'"),
        (lambda c: c.reserve_batch({"new": 4}, salts=7), TypeError, "salts must be a mapping"),
        (
            lambda c: c.reserve_batch({"new": 4, "a": 2}, limits={"a": 0}),
            ValueError,
            "limit must be positive, got limit=0, for sequence 'a' of the batch",
        ),
    ],
)
def test_a_batch_that_cannot_be_reserved_changes_nothing(call, error, message):
    cache = used_cache()
    cache.reserve("s", 1)
    cache.swap_out("s")
    plan = cache.plan(["a"], 1)
    before = {name: cache.allocator.block_table(name).tolist() for name in cache.allocator}
    with pytest.raises(error, match=message):
        call(cache)
    assert {name: cache.allocator.block_table(name).tolist() for name in cache.allocator} == before
    cache.allocator.check()
    plan.attend(0, np.ones((1, 1, 2), np.float32))  # the pool is that of the plan


def test_a_batch_of_no_sequences_is_empty():
    batch = used_cache().reserve_batch({})
    assert isinstance(batch, BatchAllocation)
    assert [part.tolist() for part in batch] == [[], [0], []]


CHANGES = {
    "reserve": lambda cache: cache.reserve("other", [1]),
    "reserve of a new one": lambda cache: cache.reserve("new", [1]),
    "reserve_batch": lambda cache: cache.reserve_batch({"a": [1]}),
    "add": lambda cache: cache.add("new", *np.ones((2, NUM_LAYERS, 3, 1, 2), np.float32), [1, 2, 3]),
    "append": lambda cache: cache.append("a", *np.ones((2, NUM_LAYERS, 1, 1, 2), np.float32), [1]),
    "fork": lambda cache: cache.fork("a", "new"),
    "commit": lambda cache: cache.commit("a"),
    "free": lambda cache: cache.free("b"),
    "preempt": lambda cache: cache.preempt("b"),
    "truncate": lambda cache: cache.truncate("a", 2),
    "release": lambda cache: cache.release("a", 1),
    "swap_out": lambda cache: cache.swap_out("a"),
    "the allocator": lambda cache: cache.allocator.append("a", [1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("prefix_caching", [False, True])
def test_a_plan_is_refused_once_the_pool_has_changed(change, prefix_caching):
    cache = used_cache(prefix_caching)
    query, key = np.ones((1, 2, 2), np.float32), np.ones((1, 1, 2), np.float32)
    cache.reserve("a", [6])
    plan = cache.plan(["a"], 2, slots=[40])
    plan.attend(0, query)
    change(cache)
    with pytest.raises(PagedNumbaError, match="attend must be called before the pool changes again"):
        plan.attend(0, query)
    with pytest.raises(PagedNumbaError, match="write must be called before the pool changes again"):
        plan.write(0, key, key)


def test_calls_that_change_no_table_leave_a_plan_valid():
    cache = used_cache()
    query, tokens = np.ones((1, 2, 2), np.float32), np.ones((1, 1, 2), np.float32)
    slots = cache.reserve("a", 1).slots
    plan = cache.plan(["a"], 2, slots=slots)
    cache.write_layer(0, tokens, tokens, slots)
    plan.write(1, tokens, tokens)
    cache.gather("a")
    cache.attend(["other"], query)
    plan.attend(0, query)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.plan(["a"], 0), ValueError, "num_q_heads must be positive, got num_q_heads=0"),
        (lambda c: c.plan(["a"], 1.0), TypeError, "num_q_heads must be an integer, got num_q_heads=1.0"),
        (lambda c: c.plan(["nobody"], 1), pn.UnknownSequenceError, "'nobody'"),
        (lambda c: c.plan(["a"], 1, out=None), TypeError, "out must not be given: plan takes scale, causal"),
        (lambda c: c.plan(["a"], 1, slots=[48]), ValueError, r"slots must lie in -1 .. 47 .*got slots\[0\]=48"),
        (lambda c: c.plan(["a"], 1, slots=[1, 1]), ValueError, "slots must not name a slot twice"),
        (lambda c: c.plan(["a"], 1, window=0), ValueError, "window must be positive or None"),
        (lambda c: c.plan(["a"], 1, seq_lens=[7]), ValueError, r"1 \(its query tokens\) .. 6 \(all .*'a'.*=7"),
        (lambda c: c.plan(["a"], 1, seq_lens=[0]), ValueError, r"seq_lens\[0\]=0"),
        (lambda c: c.plan(["a"], 1, seq_lens=[2], cu_seqlens_q=[0, 3]), ValueError, r"3 \(its query tokens\) .. 6"),
        (lambda c: c.plan(["a"], 1, seq_lens=[2, 2]), ValueError, r"seq_lens must have shape \[1\]"),
        (lambda c: c.plan(["a"], 1, seq_lens=[2.5]), TypeError, "seq_lens must hold integers"),
        (lambda c: c.attend(["a"], ROW, seq_lens=[7]), ValueError, r"seq_lens\[0\]=7"),
        (lambda c: c.plan(["a"], 1, cu_seqlens_q=[0, 7]), ValueError, "6 for sequence 'a', got 7 query tokens"),
        (lambda c: c.attend(["a"], MANY, cu_seqlens_q=[0, 7]), ValueError, "6 for sequence 'a', got 7 query"),
        (lambda c: c.plan(["a"], 1).write(0, ROW, ROW), ValueError, "slots must be given to plan"),
        (lambda c: c.plan(["a"], 1).attend(2, ROW), ValueError, "layer must lie in 0 .. 1"),
        (lambda c: c.plan(["a"], 1).attend(0, ROW.repeat(2, 0)), ValueError, r"query must have shape \[1, 1, 2\]"),
        (lambda c: c.plan(["a"], 1).attend(0, ROW.astype(float)), TypeError, "query must have dtype float32"),
        (lambda c: c.plan(["a"], 1).attend(0, ROW, out=ROW), ValueError, "out and query must not share memory"),
        (lambda c: c.plan(["a"], 1, slots=[40]).write(0, ROW, ROW[:, :, :1]), ValueError, "value must have shape"),
        (lambda c: c.plan(["a"], 1, slots=[40, 41]).write(0, ROW, ROW), ValueError, r"key must have shape \[2, 1, 2\]"),
    ],
)  # fmt: skip
def test_wrong_plans_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call(used_cache())


ROW = np.ones((1, 1, 2), np.float32)
MANY = np.ones((7, 1, 2), np.float32)


@given(length=st.integers(1, 12), window=st.integers(1, 12), queries=st.integers(0, 12), data=st.data())
def test_released_tokens_are_attended_to_by_none(length, window, queries, data):
    queries = min(queries, length)
    cache = pn.PagedKVCache(12, 2, 1, 2, target="lockstep")
    tokens = np.random.default_rng(0).standard_normal((2, length, 1, 2), np.float32)
    cache.add("a", *tokens)
    cache.add("b", *tokens[:, :1])
    whole = copy.deepcopy(cache)
    cache.release("a", window)
    released = cache.allocator.num_released_tokens("a")
    given_window = data.draw(st.none() | st.integers(1, 12), label="window")
    seq_len = data.draw(st.integers(queries, length), label="seq_len")
    options = {"cu_seqlens_q": [0, 1, 1 + queries], "seq_lens": [1, seq_len], "window": given_window}
    query = np.ones((1 + queries, 1, 2), np.float32)
    first = 0 if given_window is None else max(0, seq_len - queries - given_window + 1)
    if queries and first < released:
        message = f"window must hide the {released} released tokens of sequence 'a'.*window={given_window}"
        with pytest.raises(ValueError, match=message):
            cache.attend(["b", "a"], query, **options)
        with pytest.raises(ValueError, match=message):
            cache.plan(["b", "a"], 1, **options)
    else:
        expected = whole.attend(["b", "a"], query, **options)
        assert_same_bits(cache.attend(["b", "a"], query, **options), expected)
        assert_same_bits(cache.plan(["b", "a"], 1, **options).attend(0, query), expected)


def test_a_sequence_without_tokens_has_no_query_token():
    cache = used_cache()
    cache.truncate("a", 0)
    with pytest.raises(ValueError, match="0 for sequence 'a', got 1 query token"):
        cache.plan(["other", "a"], 1)
    with pytest.raises(ValueError, match="0 for sequence 'a', got 1 query token"):
        cache.attend(["other", "a"], np.ones((2, 1, 2), np.float32))
    assert cache.plan(["other", "a"], 1, cu_seqlens_q=[0, 1, 1]).num_tokens == 1


def test_a_plan_keeps_its_own_copy_of_the_slots_and_lengths():
    cache = used_cache()
    slots, cu_seqlens_q, _ = cache.reserve_batch({"a": 1, "other": 1})
    lens = np.array([7, 4])
    plan = cache.plan(["a", "other"], 1, slots=slots, cu_seqlens_q=cu_seqlens_q, seq_lens=lens)
    place = slots[0] // 4, slots[0] % 4
    slots[:], cu_seqlens_q[:], lens[:] = -1, 0, 0
    plan.write(0, *np.full((2, 2, 1, 2), 5, np.float32))
    assert cache.key_cache[place].tolist() == [[5, 5]]
    assert np.isfinite(plan.attend(0, ROW.repeat(2, 0))).all()


def test_a_plan_writes_its_result_to_an_array():
    cache, out = used_cache(), np.zeros_like(ROW)
    plan = cache.plan(["a"], 1)
    assert plan.attend(0, ROW, out=out) is out
    assert_same_bits(out, cache.attend(["a"], ROW))


def test_debugging_finds_a_plan_that_reads_what_nobody_wrote():
    cache = pn.PagedKVCache(8, 4, 1, 2, target="lockstep", debug=True)
    slots = cache.reserve("a", 3).slots
    plan = cache.plan(["a"], 1, slots=slots, cu_seqlens_q=[0, 3])
    rows = ROW.repeat(3, 0)
    with pytest.raises(KernelError, match="read of an unwritten slot"):
        plan.attend(0, rows)
    plan.write(0, rows, rows)
    plan.attend(0, rows)


def test_a_plan_says_what_it_does():
    cache = used_cache()
    slots = cache.reserve("a", 2).slots
    assert repr(cache.plan(["a"], 1, slots=slots, cu_seqlens_q=[0, 2])) == "StepPlan(2 query tokens, 2 slots)"
    assert repr(cache.plan(["a"], 1)) == "StepPlan(1 query token)"


def test_a_copied_cache_refuses_the_plan_of_the_first():
    cache = used_cache()
    plan = cache.plan(["a"], 1)
    with pytest.raises(PagedNumbaError, match="attend must be called before the pool changes"):
        copy.deepcopy(plan).attend(0, ROW)
    plan.attend(0, ROW)


class OnDevice(np.ndarray):
    """Stands for an array on a GPU: on a GPU, a launch would copy any other array there and back."""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_small_arrays_are_copied_to_the_device_once(algorithm, monkeypatch):
    num_copies, arguments = 0, []
    launch, beside, empty = targets.launch, launches.beside, launches.empty

    def copied(array, like):
        nonlocal num_copies
        num_copies += 1
        return beside(array, like).view(OnDevice)

    def watched(kernel, blocks_per_grid, threads_per_block, *args, target):
        arguments.extend(args)
        plain = [arg.view(np.ndarray) if isinstance(arg, OnDevice) else arg for arg in args]
        launch(kernel, blocks_per_grid, threads_per_block, *plain, target=target)

    for module in (launches, layers):
        monkeypatch.setattr(module, "beside", copied)
    monkeypatch.setattr(launches, "empty", lambda *args, like: empty(*args, like=like).view(OnDevice))
    monkeypatch.setattr(targets, "launch", watched)

    cache = pn.PagedKVCache(16, 4, 2, 8, num_layers=3, k_scale=0.5, target="lockstep")
    reserved = cache.reserve_batch({"a": 9, "b": 5})
    options = {"alibi_slopes": np.ones(4), "sinks": np.zeros(4), "algorithm": algorithm}
    plan = cache.plan(["a", "b"], 4, slots=reserved.slots, cu_seqlens_q=reserved.cu_seqlens_q, **options)
    needed = num_copies
    assert needed > 0
    arguments.clear()
    query, key, value = np.ones((14, 4, 8), np.float32), *np.ones((2, 14, 2, 8), np.float32)
    for layer in range(3):
        plan.write(layer, key, value)
        out = plan.attend(layer, query)
        caches = [cache.key_caches[layer], cache.value_caches[layer]]
        for argument in arguments:
            if isinstance(argument, np.ndarray) and not isinstance(argument, OnDevice):
                own = argument.shape == (14, 4) or any(
                    np.shares_memory(argument, array) for array in (query, key, value, out, *caches)
                )
                assert own, f"an array of the shape {argument.shape} is copied in each layer"
        arguments.clear()
    assert num_copies == needed
