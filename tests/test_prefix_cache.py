"""Prefix caching: in step with a model, by hand, and with real keys and values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.machines import prefix_machine

TestPrefixCache = prefix_machine().TestCase


def ids(text):
    return [ord(letter) for letter in text]


@pytest.fixture
def pool():
    return pn.BlockAllocator(4, 2, prefix_caching=True)


def test_a_prefix_is_served_when_it_is_written_and_one_token_is_left(pool):
    pool.add("a", ids("wxyz"))
    assert pool.add("early", ids("wxyz")).num_cached_tokens == 0
    pool.free("early")
    pool.commit("a")
    allocation = pool.add("b", ids("wxyz"))
    # Found whole; the last block is computed all the same.
    assert allocation.num_cached_tokens == 2
    assert pool.block_table("b").tolist() == [0, 2]
    assert allocation.slots.tolist() == [4, 5]
    assert pool.stats().hit_rate == 2 / 12


def test_freed_blocks_are_found_until_they_are_needed_tails_first(pool):
    pool.add("a", ids("wxyz"))
    pool.commit("a")
    pool.free("a")
    assert (pool.num_free_blocks, pool.stats().num_cached_blocks) == (4, 2)
    pool.add("b", ids("123456"))  # two blocks were empty; the tail "yz" is evicted, "wx" stays
    assert pool.stats().num_evictions == 1
    assert [pool.is_cached(block) for block in range(4)] == [True, False, False, False]
    pool.free("b")
    assert pool.add("c", ids("wxyz")).num_cached_tokens == 2


def test_evictions_are_counted_by_the_block():
    pool = pn.BlockAllocator(4, 2, prefix_caching=True)
    pool.add("a", ids("stuvwxyz"))
    pool.commit("a")
    pool.free("a")
    pool.add("b", ids("123456"))
    assert pool.stats().num_evictions == 3


def test_what_cannot_be_found_any_more_is_not_kept():
    pool = pn.BlockAllocator(12, 1, prefix_caching=True)
    pool.add("a", ids("abcdef"))
    pool.commit("a")
    pool.release("a", 4)
    pool.add("b", ids("1234567"))  # the blocks after "a" are evicted
    pool.free("b")
    pool.add("c", ids("xyz"))
    pool.commit("c")
    for name in "ca":
        pool.free(name)
    assert pool.stats().num_cached_blocks == 4  # "a", and the blocks of c
    pool.add("d", ids("12345678"))
    assert pool.add("e", ids("xyz!")).num_cached_tokens == 3


def test_equal_blocks_are_freed_in_any_order():
    pool = pn.BlockAllocator(2000, 1, prefix_caching=True)
    names = list(range(1000))
    for name in names:
        pool.add(name, [7, name])
    for name in names:
        pool.commit(name)
    for name in np.random.default_rng(0).permutation(names).tolist():
        pool.free(name)
        assert pool.stats().num_cached_blocks == (1001 if len(pool) == 0 else 1000 - len(pool))
    pool.check()


def test_what_was_used_least_recently_goes_first():
    pool = pn.BlockAllocator(3, 2, prefix_caching=True)
    for name in ("ab", "cd", "ef"):
        pool.add(name, ids(name))
        pool.commit(name)
    for name in ("cd", "ab", "ef"):
        pool.free(name)
    pool.add("new", ids("gh"))
    assert pool.add("again", ids("ab!")[:3]).num_cached_tokens == 2


def test_hits_are_not_given_up_for_the_rest_of_the_same_prompt():
    pool = pn.BlockAllocator(2, 2, prefix_caching=True)
    pool.add("a", ids("wxyz"))
    pool.commit("a")
    pool.free("a")
    assert pool.can_allocate(ids("wx12"))
    assert pool.add("b", ids("wx12")).num_cached_tokens == 2
    pool.free("b")
    # "wx" is found, and two more blocks are not there.
    assert not pool.can_allocate(ids("wx1234"))
    with pytest.raises(pn.OutOfBlocksError, match="2"):
        pool.add("c", ids("wx1234"))


def test_the_watermark_is_left_to_grow_into():
    pool = pn.BlockAllocator(10, 1, watermark=0.2)
    assert not pool.can_allocate(9)
    with pytest.raises(
        pn.OutOfBlocksError,
        match="add of 9 tokens needs 9 blocks above a watermark of 2, 10 are free",
    ):
        pool.add("a", 9)
    pool.add("a", 8)
    pool.append("a", 2)
    assert pool.num_free_blocks == 0
    with pytest.raises(ValueError, match=r"watermark must lie in 0 .. 1, got watermark=1.5"):
        pn.BlockAllocator(10, 1, watermark=1.5)


def test_counts_do_not_do_for_the_prefix_cache(pool):
    with pytest.raises(
        TypeError, match="tokens must be the token ids with prefix_caching=True, got tokens=4"
    ):
        pool.add("a", 4)
    with pytest.raises(TypeError, match=r"tokens\[1\] must be an integer, got tokens\[1\]=1.5"):
        pool.add("a", [1, 1.5])
    assert "a" not in pool


def test_a_cache_attends_to_what_it_found():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((2, 128, 2, 4)).astype(np.float32)  # keys and values of a token id
    cache = pn.PagedKVCache(8, 4, 2, 4, prefix_caching=True, target="lockstep", debug=True)
    first, second = ids("the prefix of one"), ids("the prefix of two")
    assert cache.add("a", *table[:, first], first) == 0
    assert cache.add("b", *table[:, second], second) == 12
    cache.free("a")
    assert cache.add("c", *table[:, first], first) == 16
    cache.append("c", *table[:, ids("!")], ids("!"))
    for name, tokens in (("b", second), ("c", [*first, ord("!")])):
        np.testing.assert_array_equal(cache.gather(name), table[:, tokens])
    with pytest.raises(ValueError, match="token_ids must hold an id for each of 17 tokens, got 3"):
        cache.add("d", *table[:, first], first[:3])


@given(
    st.sampled_from((0.0, 0.2, 0.5)),
    st.lists(st.tuples(st.text("ab", max_size=9), st.sampled_from(("keep", "free", "swap"))), max_size=8),
    st.text("ab", max_size=12),
)
def test_can_allocate_says_yes_exactly_when_add_succeeds(watermark, history, text):
    pool = pn.BlockAllocator(10, 2, prefix_caching=True, watermark=watermark)

    def add(name, text):
        could, before = pool.can_allocate(ids(text)), pool.stats()
        try:
            pool.add(name, ids(text))
        except pn.OutOfBlocksError:
            assert not could
            assert pool.stats() == before
            return False
        assert could
        # The watermark is left free.
        assert not text or pool.num_free_blocks >= int(10 * watermark)
        pool.commit(name)
        return True

    for name, (tokens, then) in enumerate(history):
        if add(name, tokens) and then != "keep":
            (pool.free if then == "free" else pool.swap_out)(name)
    add("last", text)
    pool.check()
