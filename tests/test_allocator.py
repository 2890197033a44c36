"""The allocator against plain dictionaries, by hand, and with bad arguments."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import BlockAllocator, DuplicateSequenceError, OutOfBlocksError, UnknownSequenceError
from paged_numba.testing.machines import allocator_machine

TestAllocator = allocator_machine().TestCase


def test_fork_and_copy_on_write_by_hand():
    # 6 blocks of 4 slots. a: 6 tokens = blocks 0, 1 with 2 slots left in 1.
    pool = BlockAllocator(6, 4)
    assert pool.add("a", 6).slots.tolist() == [0, 1, 2, 3, 4, 5]
    pool.fork("a", "b")
    assert [pool.ref_count(block) for block in range(3)] == [2, 2, 0]
    # b appends 3: the shared block 1 is copied to 2, tokens 6, 7 go to 2*4+2 and 2*4+3, token 8 to block 3.
    allocation = pool.append("b", 3)
    assert allocation.copies.tolist() == [[1, 2]]
    assert allocation.slots.tolist() == [10, 11, 12]
    assert pool.block_table("b").tolist() == [0, 2, 3]
    # a is the only owner of block 1 now and appends in place.
    assert pool.append("a").copies.tolist() == []
    assert pool.slots("a", 6, 7).tolist() == [6]
    # Used: 0 (4 tokens), 1 (3), 2 (4), 3 (1): 12 stored, 16 - 12 = 4 empty; a has 7 tokens, b 9.
    stats = pool.stats()
    assert (stats.num_used_blocks, stats.num_shared_blocks, stats.num_free_blocks) == (4, 1, 2)
    assert (stats.num_tokens, stats.num_stored_tokens, stats.num_empty_slots) == (16, 12, 4)
    pool.free("a")
    assert pool.num_free_blocks == 3
    pool.free("b")
    assert pool.num_free_blocks == 6
    pool.check()


def test_append_to_a_full_shared_block_copies_nothing():
    pool = BlockAllocator(3, 4)
    pool.add("a", 4)
    pool.fork("a", "b")
    assert pool.append("b").copies.tolist() == []
    assert pool.block_table("b").tolist() == [0, 1]


def test_exhausted_pool_says_needed_and_free_and_changes_nothing():
    pool = BlockAllocator(3, 4)
    pool.add("a", 5)
    with pytest.raises(OutOfBlocksError, match="add of 5 tokens needs 2 blocks, 1 is free") as caught:
        pool.add("b", 5)
    assert (caught.value.needed, caught.value.free) == (2, 1)
    assert "b" not in pool
    # A copy on write counts: 2 blocks for the tokens and 1 for the copy.
    pool.fork("a", "c")
    with pytest.raises(OutOfBlocksError, match="append of 8 tokens needs 3 blocks, 1 is free"):
        pool.append("c", 8)
    assert pool.block_table("c").tolist() == pool.block_table("a").tolist()
    pool.add("d", 1)
    with pytest.raises(OutOfBlocksError, match="add of 1 token needs 1 block, 0 are free"):
        pool.add("e", 1)
    pool.check()


def test_ids_must_be_known_or_new():
    pool = BlockAllocator(3, 4)
    pool.add("a", 1)
    with pytest.raises(DuplicateSequenceError, match="a sequence already has the id 'a'"):
        pool.add("a", 1)
    with pytest.raises(DuplicateSequenceError, match="already has the id 'a'"):
        pool.fork("a", "a")
    pool.free("a")
    for call in (
        lambda: pool.free("a"),
        lambda: pool.append("a"),
        lambda: pool.fork("a", "b"),
        lambda: pool.block_table("a"),
        lambda: pool.seq_len("a"),
        lambda: pool.slots("a", 0, 0),
    ):
        with pytest.raises(UnknownSequenceError, match="no sequence has the id 'a'"):
            call()
    assert pool.num_free_blocks == 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: BlockAllocator(0, 4), ValueError, "num_blocks must be positive, got num_blocks=0"),
        (lambda: BlockAllocator(4, -1), ValueError, "block_size must be positive, got block_size=-1"),
        (
            lambda: BlockAllocator(2, 2**62),
            ValueError,
            r"num_blocks \* block_size must be at most .* got num_blocks=2",
        ),
        (lambda: BlockAllocator(4, 2.0), TypeError, r"block_size must be an integer, got block_size=2\.0"),
        (lambda: BlockAllocator(True, 2), TypeError, "num_blocks must be an integer, got num_blocks=True"),
        (lambda: pool_with_a().add("b", -1), ValueError, "tokens must not be negative, got tokens=-1"),
        (lambda: pool_with_a().add("b", "x"), TypeError, "tokens must be an integer, got tokens='x'"),
        (lambda: pool_with_a().append("a", 0), ValueError, "tokens must be positive, got tokens=0"),
        (lambda: pool_with_a().slots("a", 2, 1), ValueError, "got start=2 stop=1"),
        (lambda: pool_with_a().slots("a", 0, 4), ValueError, "0 <= start <= stop <= 3 .*got start=0 stop=4"),
        (lambda: pool_with_a().ref_count(1.5), TypeError, r"block must be an integer, got block=1\.5"),
        (
            lambda: BlockAllocator(4, 4, prefix_caching=1),
            TypeError,
            "prefix_caching must be True or False, got .*=1",
        ),
        (lambda: pool_with_a().add([1], 1), TypeError, r"seq_id must be hashable, got seq_id=\[1\]"),
        (lambda: pool_with_a().fork("a", [1]), TypeError, r"child_id must be hashable, got child_id=\[1\]"),
        (lambda: pool_with_a().free([1]), TypeError, r"seq_id must be hashable, got seq_id=\[1\]"),
        (lambda: pool_with_a().seq_len([1]), TypeError, r"seq_id must be hashable, got seq_id=\[1\]"),
        (lambda: pool_with_a().add("b", 1, salt=[1]), TypeError, r"salt must be hashable, got salt=\[1\]"),
        (
            lambda: pool_with_a().can_allocate(1, salt=[1]),
            TypeError,
            r"salt must be hashable, got salt=\[1\]",
        ),
        (lambda: pool_with_a().ref_count(4), ValueError, r"block must lie in 0 \.\. 3, got block=4"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def pool_with_a():
    pool = BlockAllocator(4, 4)
    pool.add("a", 3)
    return pool


@given(st.integers(1, 20), st.lists(st.integers(0, 60), max_size=6))
def test_sequences_need_no_more_blocks_than_their_tokens_fill(block_size, lengths):
    pool = BlockAllocator(sum(-(-n // block_size) for n in lengths) + 1, block_size)
    for i, length in enumerate(lengths):
        assert np.unique(pool.add(i, length).slots).size == length
        assert pool.block_table(i).size == -(-length // block_size)
    assert pool.num_free_blocks == 1


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda pool: pool._pool._free.append(0), "block 0 is free and in 1 tables"),
        (lambda pool: pool._pool._free.append(3), "a block is free twice"),
        (lambda pool: setattr(pool._pool, "_fresh", 2), "do not make 4"),
        (lambda pool: pool._pool.refs.__setitem__(0, 2), "block 0 is in 1 tables, its reference count is 2"),
        (lambda pool: pool._sequences["a"].table.append(1), "needs 1 blocks, has"),
        (lambda pool: pool._sequences["a"].table.__setitem__(0, 9), "holds block 9, not in the pool"),
        (lambda pool: setattr(pool._pool, "num_shared", 1), "0 blocks are shared, 1 are counted"),
        (lambda pool: setattr(pool, "_num_tokens", 4), "sequences have 3 tokens, 4 are counted"),
        (lambda pool: setattr(pool._empty_slots, "_even", 0), "1 slots are empty, 0 are counted"),
    ],
)
def test_check_finds_each_broken_invariant(corrupt, message):
    pool = pool_with_a()
    pool.check()
    corrupt(pool)
    with pytest.raises(AssertionError, match=message):
        pool.check()


@pytest.mark.parametrize("prefix_caching", [False, True])
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({1, 2}, "tokens must be a count, or token ids in order, got tokens={1, 2}"),
        ({1: 2}, "tokens must be a count, or token ids in order, got tokens={1: 2}"),
        (np.ones((2, 2), int), r"tokens must be integers in one dimension, got .*\(2, 2\)"),
        (np.ones(2), "tokens must be integers in one dimension, got tokens.dtype=float64"),
    ],
)
def test_tokens_that_are_no_ids_in_order_are_refused(tokens, message, prefix_caching):
    pool = BlockAllocator(4, 4, prefix_caching=prefix_caching)
    with pytest.raises(TypeError, match=message):
        pool.add("a", tokens)
    assert pool.num_free_blocks == 4


def test_odd_numbers_are_taken_or_refused_by_name():
    assert BlockAllocator(4, 4).add("a", np.array(3)).slots.size == 3
    # 29 of 100 blocks stay free, though 0.29 * 100 is less than 29 in binary.
    pool = BlockAllocator(100, 4, watermark=0.29)
    assert pool.can_allocate(71 * 4)
    assert not pool.can_allocate(72 * 4)
    for watermark in ("0.5", None, True):
        with pytest.raises(TypeError, match="watermark must be a number, got"):
            BlockAllocator(4, 4, watermark=watermark)
    for block in (-1, 4):
        with pytest.raises(ValueError, match=rf"block must lie in 0 .. 3, got block={block}"):
            BlockAllocator(4, 4, prefix_caching=True).is_cached(block)


def test_repr_says_what_the_pool_holds():
    pool = BlockAllocator(64, 16, prefix_caching=True)
    assert repr(pool) == "BlockAllocator(64 blocks of 16 tokens, 0 sequences, 64 free, prefix caching)"
    for name in ("a", "b", "c"):
        pool.add(name, range(9 * 16))
    pool.swap_out("c")
    assert repr(pool) == (
        "BlockAllocator(64 blocks of 16 tokens, 2 sequences, 1 swapped out, 46 free, prefix caching)"
    )
    one = BlockAllocator(1, 1)
    one.add(0, 1)
    assert repr(one) == "BlockAllocator(1 block of 1 token, 1 sequence, 0 free)"


def test_a_notebook_shows_the_block_tables():
    pool = pool_with_a()
    pool.add("<b>", 5)
    html = pool._repr_html_()
    texts = [element.text for element in ET.fromstring(html).iter() if element.text]
    assert repr(pool) in texts
    assert {"<b>", "5 tokens", "2", "free"} <= set(texts)


@pytest.mark.parametrize("num_blocks", [256, 257, 10**6])
@pytest.mark.parametrize("num_sequences", [16, 17])
@pytest.mark.parametrize("num_seq_blocks", [32, 33])
def test_a_notebook_shows_a_large_pool_as_text(num_blocks, num_sequences, num_seq_blocks):
    pool = BlockAllocator(num_blocks, 1)
    pool.add(0, num_seq_blocks)
    for name in range(1, num_sequences):
        pool.fork(0, name)
    html = pool._repr_html_()
    assert (html is not None) == ((num_blocks, num_sequences, num_seq_blocks) == (256, 16, 32))
    # None makes a notebook show the plain text; a picture stays small.
    assert html is None or len(html) < 500_000


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda cache: cache._keys.__setitem__(2, None), "continues from node 2, which was removed"),
        (lambda cache: cache._keys.__setitem__(2, b""), "node 2 is found by a wrong key"),
        (lambda cache: cache._nodes.__setitem__(1, 1), "node 2 has block 1, which has node 1"),
        (lambda cache: cache._blocks.__setitem__(2, -1), "block 1 has node 2, which has block -1"),
        (lambda cache: cache._twins.__setitem__(1, {1: None}), "is a twin of another node's block"),
        (lambda cache: cache._twins.__setitem__(4, {3: None}), "block 3 is idle and a twin"),
        (lambda cache: cache._uses.__setitem__(2, 9), "node 2 has 2 uses, 9 are counted"),
        (lambda cache: cache._vacant.append(9), "a node is neither found, nor vacant, nor the root"),
        (lambda cache: setattr(cache, "num_idle", 1), "2 blocks are idle, 1 are counted"),
    ],
)
def test_check_finds_each_broken_invariant_of_the_prefix_cache(corrupt, message):
    pool = BlockAllocator(8, 2, prefix_caching=True)
    # a has blocks 0 and 1, and continues from node 2; b has 2 and 3, which are idle.
    pool.add("a", [1, 2, 3, 4])
    pool.add("b", [5, 6, 7, 8])
    for name in ("a", "b"):
        pool.commit(name)
    pool.free("b")
    pool.check()
    corrupt(pool._prefixes)
    with pytest.raises(AssertionError, match=message):
        pool.check()


def test_a_watermark_beyond_any_float_is_refused_by_name():
    with pytest.raises(ValueError, match=r"watermark must lie in 0 \.\. 1"):
        BlockAllocator(2, 2, watermark=10**400)
