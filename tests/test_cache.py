"""The cache: allocator, kernels and dense attention in step, and failures that change nothing."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
import paged_numba.cache
from paged_numba.testing.machines import cache_machine

TestCache = cache_machine().TestCase


def tokens(count, seed=0):
    return np.random.default_rng(seed).standard_normal((2, count, 2, 3)).astype(np.float32)


def cache(num_blocks=3):
    return pn.PagedKVCache(num_blocks, 4, num_kv_heads=2, head_dim=3, target="lockstep")


def test_docstring_example():
    assert doctest.testmod(paged_numba.cache).failed == 0
    assert doctest.testmod(paged_numba.cache).attempted > 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.add("a", *tokens(1)), pn.DuplicateSequenceError, "'a' already"),
        (lambda c: c.add("b", *tokens(5)), pn.OutOfBlocksError, "needs 2 blocks, 1 are free"),
        (lambda c: c.append("b", *tokens(1)), pn.UnknownSequenceError, "no sequence has the id 'b'"),
        (lambda c: c.append("a", *tokens(0)), ValueError, "tokens must be positive"),
        (lambda c: c.add("b", *tokens(1).astype(float)), TypeError, "key must have dtype float32"),
        (lambda c: c.append("a", tokens(2)[0], tokens(1)[1]), ValueError, "value must have shape"),
        (lambda c: c.append("a", *tokens(1)[..., :2]), ValueError, "key must have shape"),
        (lambda c: c.fork("b", "c"), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.free("b"), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.attend(["b"], tokens(1)[0]), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.gather("b"), pn.UnknownSequenceError, "'b'"),
    ],
)
def test_call_that_fails_changes_nothing(call, error, message):
    subject = cache()
    subject.add("a", *tokens(6))
    key_cache, value_cache = subject.key_cache.copy(), subject.value_cache.copy()
    with pytest.raises(error, match=message):
        call(subject)
    np.testing.assert_array_equal(subject.key_cache, key_cache)
    np.testing.assert_array_equal(subject.value_cache, value_cache)
    assert list(subject.allocator) == ["a"]
    assert subject.allocator.num_free_blocks == 1
    subject.allocator.check()


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match=r"num_kv_heads must lie in 1 .. 65535, got num_kv_heads=0"):
        pn.PagedKVCache(1, 1, 0, 1, target="lockstep")
    with pytest.raises(ValueError, match="num_blocks must be positive, got num_blocks=0"):
        pn.PagedKVCache(0, 1, 1, 1, target="lockstep")


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((4, 257, 1, 1), ValueError, r"block_size must lie in 1 \.\. 256, got block_size=257"),
        ((4, 4, 1, 257), ValueError, r"head_dim must lie in 1 \.\. 256, got head_dim=257"),
        ((4, 4, "2", 1), TypeError, "num_kv_heads must be an integer, got num_kv_heads='2'"),
        ((4, 4, 1, 2.0), TypeError, r"head_dim must be an integer, got head_dim=2\.0"),
    ],
)
def test_sizes_that_the_kernels_do_not_run_are_refused(sizes, error, message):
    with pytest.raises(error, match=message):
        pn.PagedKVCache(*sizes, target="lockstep")


class Fake:
    """Something that has a shape and a dtype, and no memory."""

    shape, dtype = (1, 2, 3), np.dtype(np.float32)


def test_tokens_that_are_no_array_take_no_block():
    subject = cache()
    subject.add("a", *tokens(3))
    with pytest.raises(TypeError, match="key must be an array, got Fake"):
        subject.append("a", Fake(), Fake())
    assert subject.allocator.seq_len("a") == 3


def test_query_needs_a_row_for_each_sequence():
    subject = cache()
    subject.add("a", *tokens(3))
    with pytest.raises(
        ValueError, match=r"query must have a row for each of the 1 seq_ids, got query\.shape=\(2, 2, 3\)"
    ):
        subject.attend(["a"], np.ones((2, 2, 3), np.float32))
    assert subject.attend((name for name in "a"), np.ones((1, 2, 3), np.float32)).shape == (1, 2, 3)


def test_sequence_may_occur_twice_in_a_batch():
    subject = cache()
    subject.add("a", *tokens(6))
    query = np.ones((2, 2, 3), np.float32)
    out = subject.attend(["a", "a"], query)
    np.testing.assert_array_equal(out[0], out[1])


def grown(depth, data, lengths, deep):
    """Fork (or copy) and append `depth` times; return the cache, and the tokens of each sequence."""
    subject, dense = cache(256), {0: tokens(lengths[0])}
    subject.add(0, *dense[0])
    for child in range(1, depth + 1):
        parent = data[child - 1] % child
        if deep:
            subject.add(child, *dense[parent])
        else:
            subject.fork(parent, child)
        dense[child] = dense[parent]
        for name in (parent, child):
            new = tokens(lengths[child], seed=1 + 2 * child + (name == child))
            subject.append(name, *new)
            dense[name] = np.concatenate([dense[name], new], axis=1)
    return subject, dense


@given(st.data(), st.integers(1, 6))
def test_fork_equals_a_deep_copy(data, depth):
    parents = data.draw(st.lists(st.integers(0, 5), min_size=depth, max_size=depth))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=depth + 1, max_size=depth + 1))
    forked, dense = grown(depth, parents, lengths, deep=False)
    copied, _ = grown(depth, parents, lengths, deep=True)
    query = tokens(depth + 1)[0]
    np.testing.assert_array_equal(forked.attend(list(dense), query), copied.attend(list(dense), query))
    for name in dense:
        np.testing.assert_array_equal(forked.gather(name), dense[name])
    assert forked.allocator.num_free_blocks >= copied.allocator.num_free_blocks


@given(st.data(), st.booleans())
def test_preempted_and_resumed_batch_equals_one_that_never_was(data, prefix_caching):
    # Keys and values by token id; 3 sequences with the same first 6 tokens, 8 steps of decode.
    table = tokens(40)
    ids = {name: [*range(6), 10 + name] for name in range(3)}

    def new():
        made = pn.PagedKVCache(
            32, 4, num_kv_heads=2, head_dim=3, prefix_caching=prefix_caching, target="lockstep"
        )
        for name, prompt in ids.items():
            made.add(name, *table[:, prompt], prompt)
        return made

    never, preempted, known = new(), new(), {name: list(prompt) for name, prompt in ids.items()}
    for step in range(8):
        away = data.draw(st.dictionaries(st.integers(0, 2), st.sampled_from(("swap", "recompute"))))
        for name, way in away.items():
            (preempted.swap_out if way == "swap" else preempted.preempt)(name)
        if data.draw(st.booleans(), label="others take the blocks in between"):
            others = 100 + np.arange(4 * preempted.allocator.num_free_blocks)
            preempted.add("others", *tokens(len(others)), others)
            preempted.free("others")
        for name, way in away.items():
            if way == "swap":
                preempted.swap_in(name)
            else:
                preempted.add(name, *table[:, known[name]], known[name])
        for name, sequence in known.items():
            sequence.append(20 + (3 * step + name) % 20)
            for subject in (never, preempted):
                subject.append(name, *table[:, sequence[-1:]], sequence[-1:])
        query = tokens(3, seed=step)[0]
        np.testing.assert_array_equal(never.attend(range(3), query), preempted.attend(range(3), query))
        preempted.allocator.check()


def test_swap_keeps_every_bit_and_only_free_and_swap_in_take_a_swapped_sequence():
    subject = cache(4)
    key, value = tokens(6)
    key[0, 0, 0], value[5, 1, 2] = np.nan, -0.0
    subject.add("a", key, value)
    subject.fork("a", "b")
    subject.swap_out("a")
    assert subject.allocator.num_free_blocks == 2
    for call in (
        lambda: subject.attend(["a"], tokens(1)[0]),
        lambda: subject.append("a", *tokens(1)),
        lambda: subject.fork("a", "c"),
        lambda: subject.gather("a"),
        lambda: subject.preempt("a"),
        lambda: subject.swap_out("a"),
        lambda: subject.release("a", 1),
    ):
        with pytest.raises(pn.SwappedSequenceError, match="the sequence 'a' is swapped out"):
            call()
    with pytest.raises(ValueError, match="must be that of a sequence that is swapped out, got seq_id='b'"):
        subject.swap_in("b")
    subject.add("c", *tokens(1))
    with pytest.raises(pn.OutOfBlocksError, match="swap_in of 6 tokens needs 2 blocks, 1 are free"):
        subject.swap_in("a")
    subject.free("c")
    subject.swap_in("a")
    # b keeps the blocks that both had, a has its own.
    assert not set(subject.allocator.block_table("a")) & set(subject.allocator.block_table("b"))
    for gathered, written in zip(subject.gather("a"), (key, value), strict=True):
        np.testing.assert_array_equal(gathered.view(np.uint32), written.view(np.uint32))
    subject.allocator.check()


def test_released_tokens_are_not_gathered_and_survive_a_swap():
    subject = cache(4)
    key, value = tokens(11)
    subject.add("a", key, value)
    # Token 10 sees 7 to 10: of 4 + 4 + 3 tokens the first 4 go.
    assert subject.release("a", 4) == 1
    assert subject.block_tables(["a"]).tolist() == [[-1, 1, 2]]
    subject.swap_out("a")
    subject.swap_in("a")
    assert subject.allocator.block_table("a").tolist()[0] == -1
    np.testing.assert_array_equal(subject.gather("a"), np.stack([key, value])[:, 4:])
    with pytest.raises(ValueError, match=r"lie in order in 4 \.\. 11 .*got start=3 stop=5"):
        subject.allocator.slots("a", 3, 5)
