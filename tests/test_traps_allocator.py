"""Traps of block allocators and prefix caches that other engines fell into, one test each, named after the trap."""

import numpy as np
import pytest

import paged_numba as pn
from paged_numba.prefix_cache import PrefixCache
from paged_numba.testing.mutants.allocators import HashCollides, HashTruncated, ParentForgotten, with_prefixes


def ids(text):
    return [ord(letter) for letter in text]


class SameHash(tuple):
    """What a node is found by, with a hash that tells nothing."""

    def __hash__(self):
        return 7


class EveryHashCollides(PrefixCache):
    def _key(self, parent, ids, salt):
        return SameHash((super()._key(parent, ids, salt),))


def serves_only_what_it_holds(make):
    """Add every sequence of 1 to 6 of two tokens twice; tell whether each block found holds those tokens."""
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
        # Found whole, so that b computes its own; what b adds is below the block of a.
        pool.add("b", ids("wx"))
        pool.append("b", ids("yz"))
        pool.commit("b")
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
        with pytest.raises(TypeError, match="tokens must be"):
            pool.add("a", tokens)
    assert len(pool) == 0
    for name, tokens in enumerate(([97, 98, 99], b"abc", np.array([97, 98, 99], np.uint8))):
        pool.add(name, tokens)
        pool.commit(name)
    assert pool.stats().num_hit_tokens == 4
