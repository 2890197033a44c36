"""Lesson 14: its kernel copies what the package's does, and its answers and the numbers in its prose hold."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import lockstep

LESSON = lesson(14)


@pytest.fixture(scope="module")
def made():
    return LESSON.run()


def test_numbers_in_the_prose(made):
    assert LESSON.output.count("WRONG") == 1
    assert re.search(r"parent +slot 10 +WRONG", LESSON.output)
    assert "write into a shared block" in LESSON.output
    cache = made["forked"]()
    pool = cache.allocator
    assert pool.num_free_blocks == 8 - 3
    assert [pool.ref_count(block) for block in pool.block_table("child")] == [2, 2, 2]
    assert pool.append("child").copies.tolist() == [[2, 3]]
    assert pool.append("parent").copies.tolist() == []
    hits = [int(number) for number in re.findall(r"^A: (\d+) hits", LESSON.output, re.MULTILINE)]
    LESSON.check_numbers(
        claims={
            "the 3 blocks of its parent now count 2": (3, 2),
            "0, 8 and 4. The second A": tuple(hits),
            "Both tables say block 2, offset 2": (
                made["forked"]().allocator.block_table("child")[10 // 4],
                10 % 4,
            ),
        },
        given=[
            "the parent has 10 tokens, in blocks of 4",
            "an 11th token of its own: row 10 of our arrays is the parent's, row 11 the child's",
            "leaves block 2 for its copy; then only the parent holds block 2",
            "system prompts of 8 tokens, C of 16, in a pool of 6 blocks",
            "C and its question need 5:",
            "a prompt of 12 tokens",
            "Two prompts of 9 tokens",
            "Its 3 blocks are full",
            "block 2 counts 1 again",
        ],
    )


def test_which_blocks_are_evicted(made):
    """The second prediction: C takes the two empty blocks, then both of B and the last of A."""
    pool = pn.BlockAllocator(num_blocks=6, block_size=4, prefix_caching=True)
    blocks = {}
    for name in ("A", "B", "A"):
        pool.add(name, [*made["systems"][name], 0])
        blocks[name] = pool.block_table(name).tolist()
        pool.commit(name)
        pool.free(name)
    assert sum(pool.is_cached(block) for block in range(6)) == 4
    pool.add("C", [*made["systems"]["C"], 0])
    assert pool.stats().num_evictions == 3
    assert [block for block in range(6) if pool.is_cached(block)] == [blocks["A"][0]]


def test_answers_hold():
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add("parent", 12)
    pool.fork("parent", "child")
    assert not pool.append("child").copies.size
    assert not pool.append("parent").copies.size

    pool = pn.BlockAllocator(num_blocks=8, block_size=4)  # "Try next"
    pool.add("parent", 10)
    pool.fork("parent", "child")
    pool.fork("parent", "second")
    assert sum(len(pool.append(name).copies) for name in ("child", "second", "parent")) == 2

    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add("parent", 10)
    pool.fork("parent", "child")
    pool.free("child")
    assert not pool.append("parent").copies.size

    pool = pn.BlockAllocator(num_blocks=8, block_size=4, prefix_caching=True)
    pool.add("one", [1, *range(8)])
    pool.commit("one")
    assert pool.add("other", [2, *range(8)]).num_cached_tokens == 0


@given(
    num_pairs=st.integers(1, 4),
    block_size=st.integers(1, 5),
    num_heads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_kernel_copies_what_the_packages_does(num_pairs, block_size, num_heads, seed):
    rng = np.random.default_rng(seed)
    caches = rng.standard_normal((2, 10, block_size, num_heads, 32), dtype=np.float32)
    expected, pairs = caches.copy(), rng.permutation(10)[: 2 * num_pairs].reshape(num_pairs, 2)
    pn.copy_blocks(*expected, pairs)
    kernel = LESSON.run()["copy_blocks"]
    kernel[(num_pairs, num_heads), (32, block_size)](*caches, pairs)
    np.testing.assert_array_equal(caches, expected)
    assert not lockstep.sanitize(kernel, (num_pairs, num_heads), (32, block_size), *caches, pairs)
