"""Traps of block allocators and prefix caches that other engines fell into, one test each, named after the trap."""

import numpy as np
import pytest

import paged_numba as pn
from paged_numba.allocator.prefix_cache import PrefixCache
from paged_numba.testing.mutants.prefixes import (
    HashCollides,
    HashTruncated,
    HitsHeldTooLate,
    ParentForgotten,
    StaleAfterReuse,
    SwapInGoesOnFromAGoneNode,
    TwinsForgotten,
    with_pool,
    with_prefixes,
)


def ids(text):
    return [ord(letter) for letter in text]


class SameHash(tuple):
    """Key of a node, with the same hash for all keys."""

    def __hash__(self):
        return 7


class EveryHashCollides(PrefixCache):
    def _key(self, parent, ids, salt):
        return SameHash((super()._key(parent, ids, salt),))


def serves_only_what_it_holds(make):
    """Add every sequence of 1 to 6 tokens of 0 and 1, twice; tell whether each block found holds those tokens."""
    pool, held = make(1000, 2, prefix_caching=True), {}
    right = True
    for name, code in enumerate([*range(2, 128), *range(2, 128)]):
        tokens = [int(bit) for bit in f"{code:b}"[1:]]
        salt = None if code % 3 else "salt"
        found = pool.add(name, tokens, salt=salt).num_cached_tokens // 2
        table = pool.block_table(name).tolist()
        prefixes = [(salt, tokens[: 2 * place + 2]) for place in range(len(table))]
        right &= all(held[block] == prefix for block, prefix in zip(table[:found], prefixes, strict=False))
        held.update(zip(table[found:], prefixes[found:], strict=True))
        pool.commit(name)
    pool.check()
    return right and pool.stats().num_hit_tokens > 0


def test_hash_collision():
    assert serves_only_what_it_holds(with_prefixes(EveryHashCollides))
    assert not serves_only_what_it_holds(with_prefixes(HashCollides))


def test_hash_truncation():
    assert serves_only_what_it_holds(pn.BlockAllocator)
    assert not serves_only_what_it_holds(with_prefixes(HashTruncated))
    # Ids that agree in their low 32 bits, and in all that a float64 holds.
    for one, other in ((1, 1 + 2**32), (2**53, 2**53 + 1), (-1, 2**32 - 1)):
        pool = pn.BlockAllocator(8, 1, prefix_caching=True)
        pool.add("a", [one, 0])
        pool.commit("a")
        assert pool.add("b", [other, 0]).num_cached_tokens == 0
        assert pool.add("c", np.array([one, 0])).num_cached_tokens == 1


def test_the_name_of_a_prefix_reused_while_others_are_below_it():
    def serves_nothing_wrong(make):
        pool = make(5, 2, prefix_caching=True)
        pool.add("a", ids("wx"))
        pool.commit("a")
        pool.add("b", ids("wxyz!"))
        pool.commit("b")
        # Both let go of "wx", and b keeps the block below it.
        pool.release("b", 3)
        pool.free("a")
        pool.add("c", ids("12345"))
        assert pool.stats().num_evictions == 1
        pool.commit("c")
        pool.free("c")
        return pool.add("d", ids("12yz!")).num_cached_tokens == 2

    assert serves_nothing_wrong(pn.BlockAllocator)
    assert not serves_nothing_wrong(with_prefixes(ParentForgotten))


def test_ids_that_do_not_fit():
    pool = pn.BlockAllocator(4, 2, prefix_caching=True)
    for tokens in ([1, 2**63], np.array([1, 2**63], np.uint64), [-(2**63) - 1]):
        with pytest.raises(ValueError, match=r"tokens must fit int64, got -?922"):
            pool.add("a", tokens)
    for tokens in (np.ones(2), np.ones((2, 2), int), np.ones(2, bool), [True, 1]):
        with pytest.raises(TypeError, match=r"tokens(\[\d\])? must be"):
            pool.add("a", tokens)
    assert len(pool) == 0
    for name, tokens in enumerate(([97, 98, 99], b"abc", np.array([97, 98, 99], np.uint8))):
        pool.add(name, tokens)
        pool.commit(name)
    assert pool.stats().num_hit_tokens == 4


def test_a_stale_hash_after_a_block_was_reused():
    def finds_nothing_stale(make):
        pool = make(2, 2, prefix_caching=True)
        pool.add("a", ids("wxyz"))
        pool.commit("a")
        pool.free("a")
        pool.add("b", ids("1234"))  # both blocks belong to b now, and are not written yet
        pool.free("b")
        return pool.add("c", ids("wxy")).num_cached_tokens == 0

    assert finds_nothing_stale(pn.BlockAllocator)
    assert not finds_nothing_stale(with_prefixes(StaleAfterReuse))


def test_hits_evicted_by_their_own_allocation():
    def keeps_its_hits(make):
        pool = make(3, 2, prefix_caching=True)
        for text in ("wx", "1234"):
            pool.add(text, ids(text))
            pool.commit(text)
            pool.free(text)
        # "wx" is found, and would be the first block to be evicted for the two blocks after it.
        assert pool.can_allocate(ids("wx5678"))
        allocation = pool.add("b", ids("wx5678"))
        return allocation.num_cached_tokens == 2 and len(set(pool.block_table("b").tolist())) == 3

    assert keeps_its_hits(pn.BlockAllocator)
    assert not keeps_its_hits(with_pool(HitsHeldTooLate))


def test_a_prefix_given_up_by_the_swap_in_that_found_it():
    def serves_nothing_wrong(make):
        pool = make(5, 2, prefix_caching=True)
        pool.add("a", ids("uvwxy"))
        pool.commit("a")
        pool.release("a", 3)
        pool.swap_out("a")
        pool.add("b", ids("123456"))
        pool.add("c", ids("78"))  # "wx" is evicted
        pool.free("c")
        # "uv" is found, but a no longer holds its block, and takes that block for "wx" or "y".
        assert pool.swap_in("a").num_cached_tokens == 2
        pool.free("b")
        pool.add("d", ids("pq!"))
        pool.commit("d")
        pool.commit("a")
        pool.free("d")
        return pool.add("e", ids("pqwx!")).num_cached_tokens == 2

    assert serves_nothing_wrong(pn.BlockAllocator)
    assert not serves_nothing_wrong(SwapInGoesOnFromAGoneNode)


def test_a_prefix_lost_with_one_of_two_blocks_that_hold_it():
    def finds_the_other(make):
        pool = make(4, 2, prefix_caching=True)
        for name in "ab":
            pool.add(name, ids("wx"))
        for name in "ab":
            pool.commit(name)
        pool.free("a")
        pool.add("c", ids("123456"))  # all that is free
        pool.free("c")
        return pool.add("d", ids("wx!")).num_cached_tokens == 2

    assert finds_the_other(pn.BlockAllocator)
    assert not finds_the_other(with_prefixes(TwinsForgotten))


@pytest.mark.parametrize("swapped", [False, True])
def test_double_free(swapped):
    pool = pn.BlockAllocator(4, 4)
    pool.add("a", 3)
    if swapped:
        pool.swap_out("a")
    pool.free("a")
    for call in (pool.free, pool.preempt, pool.swap_out, pool.swap_in):
        with pytest.raises(pn.UnknownSequenceError, match="'a'"):
            call("a")
    assert pool.num_free_blocks == 4
    pool.check()


def test_leaks_on_abort():
    # However a sequence ends, and whatever it shared: the pool is whole again.
    cache = pn.PagedKVCache(8, 2, 1, 2, prefix_caching=True, target="lockstep")
    kv = np.ones((5, 1, 2), np.float32)
    for end in (
        cache.free,
        cache.preempt,
        lambda name: (cache.swap_out(name), cache.free(name)),
        lambda name: (cache.swap_out(name), cache.swap_in(name), cache.free(name)),
        lambda name: (cache.release(name, 1), cache.free(name)),
        lambda name: (cache.release(name, 2), cache.swap_out(name), cache.free(name)),
    ):
        cache.add("a", kv, kv, ids("abcde"))
        cache.fork("a", "b")
        end("a")
        cache.append("b", kv[:1], kv[:1], ids("f"))
        end("b")
        assert len(cache.allocator) == 0
        assert cache.allocator.num_free_blocks == 8
        assert not cache.allocator._swapped
        cache.allocator.check()
    cache.allocator.reset_prefix_cache()
    assert cache.allocator.stats().num_cached_blocks == 0
    # Nothing is left of the tree but its root.
    assert len(cache.allocator._prefixes._keys) == 1


def test_counters_stale_after_preemption():
    pool = pn.BlockAllocator(8, 2, prefix_caching=True)
    empty = pool.stats()
    for name in ("a", "b"):
        pool.add(name, [*ids("wxyz"), ord(name)])
        pool.commit(name)
    pool.fork("a", "c")
    pool.preempt("a")
    pool.swap_out("b")
    pool.preempt("c")
    stats = pool.stats()
    assert (stats.num_sequences, stats.num_swapped_sequences, stats.num_preemptions) == (0, 1, 3)
    assert (stats.num_recompute_preemptions, stats.num_swap_preemptions) == (2, 1)
    for name in (
        "num_used_blocks",
        "num_shared_blocks",
        "num_tokens",
        "num_stored_tokens",
        "num_empty_slots",
    ):
        assert getattr(stats, name) == getattr(empty, name) == 0
    # "wx" and "yz" of a; b found them, and the blocks of "a" and "b" alone are part-filled: not cached.
    assert (stats.num_free_blocks, stats.num_cached_blocks) == (8, 2)
    assert pool.swap_in("b").num_cached_tokens == 4
    assert pool.stats().num_tokens == 5
    pool.check()


def test_recompute_after_preemption_differing():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((2, 128, 1, 4)).astype(np.float32)
    cache = pn.PagedKVCache(6, 2, 1, 4, prefix_caching=True, target="lockstep", debug=True)
    text, query = ids("wxyzw"), np.ones((1, 1, 4), np.float32)
    cache.add("a", *table[:, text], text)
    for letter in "stu":  # decoded, and so findable
        cache.append("a", *table[:, ids(letter)], ids(letter))
        text += ids(letter)
    before, out = cache.gather("a"), cache.attend(["a"], query)
    cache.preempt("a")
    assert cache.add("a", *table[:, text], text) == 6
    np.testing.assert_array_equal(cache.gather("a"), before)
    np.testing.assert_array_equal(cache.attend(["a"], query), out)


def test_what_was_written_before_a_reset_is_never_served_after_it():
    pool = pn.BlockAllocator(8, 2, prefix_caching=True)
    pool.add("a", ids("wxy"))
    pool.commit("a")
    pool.swap_out("a")
    pool.add("b", ids("12"))
    pool.fork("b", "c")
    pool.reset_prefix_cache()
    pool.swap_in("a")
    pool.append("a", ids("zwx"))
    for name in ("a", "b", "c"):
        pool.commit(name)
    for text in ("wxyzw", "yzwx!", "12!"):
        assert pool.add(text, ids(text)).num_cached_tokens == 0
        pool.free(text)
    pool.check()
