"""Chunks of a prompt, truncation, and calls of the allocator behind the cache's back."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.properties import assert_same_bits

texts = st.lists(st.integers(0, 1), min_size=1, max_size=14)


def keys_of(ids):
    """Return keys that depend on all tokens up to their own, as those of a model do."""
    states = itertools.accumulate(ids, lambda state, token: (31 * state + token + 1) % 997, initial=0)
    return np.array(list(states)[1:], np.float32).reshape(-1, 1, 1)


def cache(num_blocks=64, block_size=4, **options):
    return pn.PagedKVCache(num_blocks, block_size, 1, 1, prefix_caching=True, target="lockstep", **options)


def add(subject, name, ids):
    return subject.add(name, keys_of(ids), -keys_of(ids), ids)


def write(subject, ids, start, slots):
    stop = start + len(slots)
    for cache, sign in ((subject.key_cache, 1), (subject.value_cache, -1)):
        cache.reshape(-1)[slots] = sign * keys_of(ids)[start:stop].ravel()


def assert_holds(subject, name, ids):
    assert subject.seq_len(name) == len(ids)
    key, value = subject.gather(name)
    assert_same_bits(key, keys_of(ids))
    assert_same_bits(value, -keys_of(ids))


@given(
    history=st.lists(st.tuples(texts, st.booleans()), max_size=3),
    prompt=texts,
    limits=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    block_size=st.integers(1, 5),
    commits=st.booleans(),
)
def test_a_prompt_reserved_in_chunks_is_as_one_reserved_whole(history, prompt, limits, block_size, commits):
    whole, chunked = (cache(block_size=block_size) for _ in range(2))
    for subject in (whole, chunked):
        for name, (text, stays) in enumerate(history):
            add(subject, name, text)
            if not stays:
                subject.free(name)
    allocation = whole.reserve("new", prompt)
    write(whole, prompt, allocation.num_cached_tokens, allocation.slots)
    found = []
    for limit in itertools.cycle(limits):
        start = chunked.seq_len("new") if found else 0
        part = chunked.reserve("new", prompt[start:], limit=limit)
        found.append(part.num_cached_tokens)
        start += part.num_cached_tokens
        assert part.slots.size == min(limit, len(prompt) - start) > 0
        write(chunked, prompt, start, part.slots)
        if commits:
            chunked.commit("new")
        if chunked.seq_len("new") == len(prompt):
            break
    assert found == [allocation.num_cached_tokens] + [0] * (len(found) - 1)
    assert found[0] < len(prompt)
    for subject in (whole, chunked):
        subject.commit("new")
        assert_holds(subject, "new", prompt)
        assert subject.allocator.held_blocks("new").size == -(-len(prompt) // block_size)
    assert whole.allocator.stats() == chunked.allocator.stats()
    assert add(whole, "next", [*prompt, 2]) == add(chunked, "next", [*prompt, 2])


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda ids: np.array(ids, np.int32), len])
def test_a_limit_takes_every_kind_of_tokens(kind):
    subject = pn.PagedKVCache(8, 4, 1, 1, target="lockstep", prefix_caching=kind is not len)
    ids = list(range(10))
    assert subject.allocator.can_allocate(kind(ids), limit=4)
    assert subject.reserve("a", kind(ids), limit=4).slots.tolist() == [0, 1, 2, 3]
    assert subject.reserve("a", kind(ids[4:]), limit=3).slots.tolist() == [4, 5, 6]
    assert subject.reserve("a", kind(ids[7:]), limit=10**12).slots.tolist() == [7, 8, 9]


@given(
    prefix_caching=st.booleans(),
    limit=st.integers(1, 5),
    place=st.integers(0, 4),
    wrong=st.sampled_from([True, None, 1.5, 2**63, "1"]),
    is_new=st.booleans(),
)
def test_a_wrong_id_is_refused_in_the_first_chunk(prefix_caching, limit, place, wrong, is_new):
    subject = pn.PagedKVCache(8, 4, 1, 1, prefix_caching=prefix_caching, target="lockstep")
    subject.reserve("a", [1, 2])
    ids = [3, 4, 5, 6, 7]
    ids[place] = wrong
    name = "new" if is_new else "a"
    with pytest.raises((TypeError, ValueError), match="tokens"):
        subject.reserve(name, ids, limit=limit)
    with pytest.raises((TypeError, ValueError), match="tokens"):
        subject.reserve_batch({name: ids}, limits={name: limit})
    assert [*subject] == ["a"]
    assert subject.seq_len("a") == 2


def test_a_prompt_longer_than_the_pool_is_reserved_in_chunks_if_a_window_releases_the_first():
    subject, ids = cache(num_blocks=3, block_size=2), list(range(20))
    with pytest.raises(pn.OutOfBlocksError):
        subject.reserve("a", ids)
    for start in range(0, 20, 2):
        slots = subject.reserve("a", ids[start:], limit=2).slots
        write(subject, ids, start, slots)
        subject.commit("a")
        subject.release("a", 3)
    assert subject.seq_len("a") == 20


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
@pytest.mark.parametrize("call", ["add", "can_allocate", "reserve", "reserve more"])
def test_a_limit_is_a_positive_integer(call, limit):
    subject = cache()
    if call == "reserve more":
        subject.reserve("a", [1])
    calls = {
        "add": lambda: subject.allocator.add("a", [1, 2, 3], limit=limit),
        "can_allocate": lambda: subject.allocator.can_allocate([1, 2, 3], limit=limit),
    }
    with pytest.raises((TypeError, ValueError), match="limit must be"):
        calls.get(call, lambda: subject.reserve("a", [1, 2, 3], limit=limit))()
    assert len(subject) == (call == "reserve more")


# Truncation.


def test_rejected_drafts_leave_nothing_behind():
    """Two of five draft tokens were right; block 1 holds tokens 4 to 7."""
    subject, ids = cache(num_blocks=4), [*range(6)]
    add(subject, "a", ids)
    slots = subject.reserve("a", [10, 11, 12, 13, 14]).slots
    assert slots.tolist() == [6, 7, 8, 9, 10]
    write(subject, [*ids, 10, 11, 12, 13, 14], 6, slots)
    subject.truncate("a", 8)
    subject.commit("a")
    assert subject.allocator.block_table("a").tolist() == [0, 1]
    assert_holds(subject, "a", [*ids, 10, 11])
    assert add(subject, "b", [*ids, 10, 11, 12, 13]) == 8


def test_a_committed_block_that_other_tokens_overwrite_is_no_prefix_any_more():
    subject, ids = cache(num_blocks=4), [*range(9)]
    add(subject, "a", ids)
    subject.truncate("a", 6)
    # Until the block is overwritten, another sequence may find it.
    assert add(subject, "b", ids) == 8
    subject.free("b")
    subject.append("a", keys_of([*ids[:6], 20])[6:], -keys_of([*ids[:6], 20])[6:], [20])
    assert_holds(subject, "a", [*ids[:6], 20])
    assert add(subject, "b", ids) == 4
    assert_holds(subject, "b", ids)


def test_a_shared_block_is_copied_before_other_tokens_overwrite_it():
    subject, ids = cache(num_blocks=4), [*range(8)]
    add(subject, "a", ids)
    subject.fork("a", "b")
    subject.truncate("b", 5)
    assert subject.allocator.stats().num_empty_slots == 0
    # Two blocks are free: one for the copy, whose tokens 5 to 7 are free then, and one for 4 tokens more.
    assert subject.can_append("b", 7)
    assert not subject.can_append("b", 8)
    subject.append("b", keys_of([*ids[:5], 20])[5:], -keys_of([*ids[:5], 20])[5:], [20])
    assert_holds(subject, "a", ids)
    assert_holds(subject, "b", [*ids[:5], 20])
    assert subject.allocator.block_table("b").tolist() == [0, 2]


@pytest.mark.parametrize("ends", [(1, 1), (3, 1, 1), (2, 2, 2), (1, 0), (3, 2, 1, 0)])
@pytest.mark.parametrize("freed", ["a", "b", "c"])
@pytest.mark.parametrize("length", [3, 4])
def test_slots_of_a_shared_block_are_empty_after_the_longest_of_its_sequences(ends, freed, length):
    """One of three sequences that share a block of 4 is truncated again and again; then one of them ends."""
    pool = pn.BlockAllocator(4, 4)
    pool.add("a", length)
    pool.fork("a", "b")
    pool.fork("a", "c")
    lengths = dict.fromkeys("abc", length)
    for end in ends:
        pool.truncate("b", end)
        lengths["b"] = end
        assert pool.stats().num_stored_tokens == length
        pool.check()
    pool.free(freed)
    pool.truncate("c" if freed == "a" else "a", 2)
    lengths["c" if freed == "a" else "a"] = 2
    del lengths[freed]
    assert pool.stats().num_stored_tokens == max(lengths.values())
    pool.check()


@pytest.mark.parametrize(
    ("length", "error", "message"),
    [
        (
            10,
            ValueError,
            r"length must lie in 4 .. 9 \(from the released tokens of 'a' to all of its tokens\), got length=10",
        ),
        (
            3,
            ValueError,
            r"length must lie in 4 .. 9 \(from the released tokens of 'a' to all of its tokens\), got length=3",
        ),
        (4.0, TypeError, r"length must be an integer, got length=4.0"),
    ],
)
def test_a_length_that_the_sequence_does_not_hold_is_refused(length, error, message):
    subject = cache()
    add(subject, "a", range(9))
    subject.release("a", 3)
    with pytest.raises(error, match=message):
        subject.truncate("a", length)
    assert subject.seq_len("a") == 9


def test_what_is_truncated_to_nothing_is_as_a_sequence_of_no_tokens():
    subject = cache(num_blocks=4)
    add(subject, "a", range(9))
    subject.truncate("a", 0)
    assert (subject.seq_len("a"), subject.allocator.num_free_blocks) == (0, 4)
    assert_holds(subject, "a", [])
    subject.append("a", keys_of([5]), -keys_of([5]), [5])
    assert_holds(subject, "a", [5])
    subject.allocator.check()


# Calls of the allocator.


def ended_by_its_allocator(subject, how):
    """Reserve tokens of a sequence, and end it without telling the cache."""
    pool, ids = subject.allocator, list(range(9))
    subject.reserve("a", ids)
    if how == "swap_out":
        pool.swap_out("a")
        pool.free("a")
    elif how == "truncate":
        pool.truncate("a", 0)
    elif how == "commit":
        write(subject, ids, 0, pool.slots("a", 0, 9))
        pool.commit("a")
    else:
        getattr(pool, how)("a")


@pytest.mark.parametrize("how", ["free", "preempt", "swap_out", "truncate", "commit"])
def test_a_reservation_that_the_allocator_ended_hides_no_later_prompt(how):
    subject, ids = cache(), list(range(9))
    ended_by_its_allocator(subject, how)
    if how in ("truncate", "commit"):
        done = subject.seq_len("a")
        subject.append("a", *(sign * keys_of([*ids, 9])[done:] for sign in (1, -1)), [*ids, 9][done:])
    else:
        add(subject, "a", ids)
    assert add(subject, "b", ids) == 8
    assert_holds(subject, "b", ids)


def test_a_copy_in_host_memory_is_that_of_one_stay_there():
    """The allocator brings the sequence back and swaps it out again: the first copy lacks its last tokens."""
    subject = cache()
    add(subject, "a", range(5))
    subject.swap_out("a")
    subject.allocator.swap_in("a")
    subject.allocator.append("a", [7, 8])
    subject.allocator.swap_out("a")
    with pytest.raises(ValueError, match="seq_id must be swapped out by this cache"):
        subject.swap_in("a")
    subject.allocator.free("a")
    # Nor is it that of a later sequence of the same id.
    add(subject, "a", [1, 2])
    subject.swap_out("a")
    subject.swap_in("a")
    assert_holds(subject, "a", [1, 2])


def test_tokens_that_the_allocator_handed_out_are_reserved():
    subject, ids = cache(), list(range(9))
    slots = subject.allocator.add("a", ids).slots
    subject.append("a", keys_of([*ids, 9])[9:], -keys_of([*ids, 9])[9:], [9])
    assert add(subject, "b", ids) == 0
    write(subject, ids, 0, slots)
    subject.commit("a")
    assert add(subject, "c", ids) == 8


# A pool by its size in bytes.


@pytest.mark.parametrize("layout", ["NHD", "HND", "packed"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float8_e4m3fn"])
@given(
    block_size=st.integers(1, 5),
    heads=st.integers(1, 3),
    layers=st.integers(1, 3),
    num_blocks=st.integers(1, 6),
    more=st.floats(0, 1, exclude_max=True),
)
def test_the_storage_fills_the_bytes_but_for_less_than_a_block(
    layout, dtype, block_size, heads, layers, num_blocks, more
):
    sizes = {"num_layers": layers, "dtype": dtype, "layout": layout}

    def nbytes(num_blocks):
        made = pn.PagedKVCache(num_blocks, block_size, heads, 16, target="lockstep", **sizes)
        return sum(array.nbytes for array in (*made.key_caches, *made.value_caches))

    given_bytes = nbytes(num_blocks) + int(more * nbytes(1))
    fit = pn.PagedKVCache.num_blocks_for(given_bytes, block_size, heads, 16, **sizes)
    assert nbytes(fit) <= given_bytes < nbytes(fit + 1)


def test_bytes_for_less_than_a_block_are_refused():
    """16 tokens, 3 heads of 64 numbers, keys and values in 30 layers: 16 * 3 * 64 * 2 * 30 * 2 bytes in float16."""
    sizes = (16, 3, 64)
    assert pn.PagedKVCache.num_blocks_for(368_640, *sizes, num_layers=30, dtype="float16") == 1
    message = "num_bytes must hold a block of all layers at least, 368640 bytes, got num_bytes=368639"
    with pytest.raises(ValueError, match=message):
        pn.PagedKVCache.num_blocks_for(368_639, *sizes, num_layers=30, dtype="float16")
    with pytest.raises(TypeError, match=r"num_bytes must be an integer, got num_bytes=1000000\.0"):
        pn.PagedKVCache.num_blocks_for(1e6, *sizes)
    with pytest.raises(ValueError, match="head_dim must lie in"):
        pn.PagedKVCache.num_blocks_for(10**6, 16, 3, 0)
