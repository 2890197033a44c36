"""Lesson 13: its kernel is the package's attention for any batch of chunks, and its prose says what it prints."""

import runpy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import lockstep

LESSON = lesson(13)


@pytest.fixture(scope="module")
def made():
    return LESSON.run()


def test_numbers_in_the_prose(made):
    right = made["right"]
    sectors = {
        tile: lockstep.profile(made["prefill"], (-(-20 // tile), 1, 1), (32, tile), *made["arrays"])
        .memory("global", "load", array="key_cache")
        .sectors
        for tile in (1, 32)
    }
    assert (right[2, 0, 3:] == 0).all()
    assert (right[2, 0, :3] > 0).all()
    assert np.flatnonzero(made["wrong"][0, 0, :20]).tolist() == [0]
    LESSON.check_numbers(
        claims={
            "42 and 4.": (sectors[1] / 20, sectors[32] / 20),
            "10.5 on average": np.arange(1, 21).mean(),
            "has 32 floats, 4 sectors": (made["key"].shape[-1], made["key"][0, 0].nbytes / 32),
        },
        given=[
            "one load of a key that serves 20 queries",
            "Our sequence has 20 tokens",
            "Value number t is 1 in dimension t, and 0 in all other",
            "Query 2 has no weight for token 3",
            "a chunk with tokens 12 to 19. Which keys does the query of token 12 look at?",
            "Only key 0. ~ is 8 - 8 + 0: the kernel takes token 12",
            "each of its 20 queries",
            "with a tile of 1, and with a tile of 32?",
            "query i loads i + 1 keys",
            "the 20 keys of the last query serve all",
            "chunks of 100 and of 3",
            "up to version 2.0",
        ],
    )


@given(
    past_and_chunk=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=3),
    block_size=st.sampled_from([1, 4, 16]),
    tile=st.sampled_from([1, 3, 4, 8]),
    num_heads=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_kernel_is_the_packages_attention(past_and_chunk, block_size, tile, num_heads, seed):
    rng = np.random.default_rng(seed)
    cache = pn.PagedKVCache(60, block_size, num_heads, 32)
    for half in (0, 1):  # the blocks of the sequences lie among one another
        for seq, (past, chunk) in enumerate(past_and_chunk):
            count = (past + chunk + half) // 2
            key, value = rng.standard_normal((2, count, num_heads, 32), dtype=np.float32)
            if half == 0:
                cache.add(seq, key, value)
            elif count:
                cache.append(seq, key, value)
    chunks = [chunk for _, chunk in past_and_chunk]
    rows = np.cumsum([0, *chunks])
    seq_lens = np.array([past + chunk for past, chunk in past_and_chunk])
    query = 3 * rng.standard_normal((rows[-1], num_heads, 32), dtype=np.float32)
    tables = cache.block_tables(range(len(chunks)))
    arrays = query, cache.key_cache, cache.value_cache, tables, seq_lens
    expected = pn.paged_attention(*arrays, cu_seqlens_q=rows)
    out = np.full_like(query, np.nan)
    grid = -(-max(chunks) // tile), len(chunks), num_heads
    LESSON.run()["prefill"][grid, (32, tile)](out, *arrays, rows)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_answers_hold(made, tmp_path):
    """The third answer: thread blocks beyond a short chunk load all its keys, and an early return mends it."""
    cache, query = made["cache"], np.ones((13, 1, 32), np.float32)
    tables = cache.block_tables(["ours", "other"])
    arrays = query, cache.key_cache, cache.value_cache, tables, np.array([20, 9]), np.array([0, 10, 13])
    index = "    index = cuda.blockIdx.x * tile + warp"
    start, stop = LESSON.text.index("import math"), LESSON.text.index("def attend")
    before, after = LESSON.text[start:stop].split(index)
    mended = tmp_path / "mended.py"
    mended.write_text(f"{before}{index}\n    if index - warp >= chunk:\n        return{after}")

    expected = pn.paged_attention(*arrays[:5], cu_seqlens_q=arrays[5])
    # The tiles of the first chunk load 14, 18 and 20 keys; the second has 9, for one thread block or for three.
    for kernel, blocks in ((made["prefill"], 3), (runpy.run_path(str(mended))["prefill"], 1)):
        out = np.zeros_like(query)
        assert not lockstep.sanitize(kernel, (3, 2, 1), (32, 4), out, *arrays)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)
        report = lockstep.profile(kernel, (3, 2, 1), (32, 4), out, *arrays)
        assert report.memory("global", "load", array="key_cache").sectors == 4 * (14 + 18 + 20 + blocks * 9)
