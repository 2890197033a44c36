"""Lesson 09: the numbers in its prose, and its kernel and its faults held to the package's kernels."""

import re

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import lockstep

LESSON = lesson(9)
NONE, WHOLE_BLOCKS, MODULO = 0, 1, 2


def attend(arrays, fault):
    query = arrays[0]
    out = np.full_like(query, np.nan)
    lockstep.launch(LESSON.run()["attend"], query.shape[:2], query.shape[2], out, *arrays, fault)
    return out


def right(arrays, algorithm="naive"):
    return pn.paged_attention(*arrays, algorithm=algorithm, target="lockstep")


def agrees(arrays, fault):
    return np.allclose(attend(arrays, fault), right(arrays), rtol=1e-4, atol=1e-5)


def printed(pattern):
    """Return what the lesson prints after a pattern, by line."""
    return re.findall(rf"^{pattern}(.*)$", LESSON.output, re.MULTILINE)


def test_numbers_in_the_prose():
    made = LESSON.run()
    seq_lens, (_, block_size, num_kv_heads, head_dim) = made["SEQ_LENS"], made["arrays"][1].shape
    num_q_heads = made["arrays"][0].shape[1]
    group = num_q_heads // num_kv_heads
    of_a_key = head_dim * 4 // 32
    in_keys = seq_lens.sum() * num_kv_heads * of_a_key
    alone, shared = made["alone"].sectors, made["shared"].sectors
    assert shared == in_keys
    assert printed("sectors of keys: ") == [f"{alone:,} by query head, {shared:,} by KV head"]
    LESSON.check_numbers(
        claims={
            "blocks with 8 slots": block_size,
            "5 of ~, 2 of ~, 8 of ~": tuple((seq_lens - 1) % block_size + 1),
            "of 8 query heads and 2 KV heads": (num_q_heads, num_kv_heads),
            "query heads 0 to 3 read KV head 0, and 4 to 7 read KV head 1": (
                0, group - 1, 0, group, 2 * group - 1, num_kv_heads - 1,
            ),
            "fill 312 sectors: 39 tokens, 2 KV heads, 4 sectors": (
                in_keys, seq_lens.sum(), num_kv_heads, of_a_key,
            ),
            "move for 8 query heads": num_q_heads,
            "1,248: each of the 4 query heads": (alone, group),
            "use it 4 times": group,
        },
        given=[
            "so that they weigh 0",
            "a weight of 0",
            "if stale slots hold 7",
            "With 7, none: 0 times 7 is 0",
            "0 times NaN is NaN",
            "both rules give 0",
            "4 query heads with 2 KV heads are the fewest",  # test_the_fewest_heads_...
            "4 and 2, 16 and 4, 64 and 8",  # test_the_third_map_...
            "pull requests 936 and 47305",
            "of answer 3 (pull request 22)",
        ],
    )  # fmt: skip


def test_what_the_lesson_prints():
    assert printed(r"stale +\S+, loop over .*: errors of a, b, c ") == [
        "[0. 0. 0.]",
        "[0. 0. 0.]",
        "[nan nan  0.]",
        "[0. 0. 0.]",
    ]
    assert printed("query head +") == ["0 1 2 3 4 5 6 7"]
    assert printed("q_head // group +") == ["0 0 0 0 1 1 1 1"]
    assert printed("q_head % 2 +") == ["0 1 0 1 0 1 0 1"]  # half of them are wrong, as the lesson says
    errors = re.findall(r"query heads (\d+), KV heads (\d+): largest error (\S+)", LESSON.output)
    assert len(errors) == 8
    for num_q_heads, num_kv_heads, error in errors:
        right_for_these = num_kv_heads in ("1", num_q_heads)
        assert (float(error) < 1e-5) == right_for_these


@st.composite
def batches(draw):
    """Return the arguments of attention for a ragged batch; NaN lies in the slots without a token."""
    num_kv_heads, group = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    block_size, head_dim = draw(st.integers(1, 8)), 2 ** draw(st.integers(0, 5))
    lens = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    cache = pn.PagedKVCache(4 * 20, block_size, num_kv_heads, head_dim, target="lockstep")
    cache.key_cache[:] = cache.value_cache[:] = np.nan
    for seq, seq_len in enumerate(lens):
        cache.add(seq, *rng.standard_normal((2, seq_len, num_kv_heads, head_dim), dtype=np.float32))
    query = 3 * rng.standard_normal((len(lens), num_kv_heads * group, head_dim), dtype=np.float32)
    tables = cache.block_tables(range(len(lens)))
    return query, cache.key_cache, cache.value_cache, tables, np.array(lens, np.int32)


@given(arrays=batches(), order=st.sampled_from(("together", "forward", "reverse")))
def test_the_kernel_agrees_with_the_package(arrays, order):
    with lockstep.options(order=order):
        out = attend(arrays, NONE)
    for algorithm in ("naive", "block", "tile"):
        np.testing.assert_allclose(out, right(arrays, algorithm), rtol=1e-4, atol=1e-5)


@given(arrays=batches())
def test_a_loop_over_whole_blocks_spoils_sequences_whose_tail_is_not_full(arrays):
    stale = arrays[4] % arrays[1].shape[1] != 0
    assert (np.isnan(attend(arrays, WHOLE_BLOCKS)).any((1, 2)) == stale).all()
    # Finite numbers there do no harm.
    key_cache, value_cache = (np.nan_to_num(cache, nan=7) for cache in arrays[1:3])
    assert agrees((arrays[0], key_cache, value_cache, *arrays[3:]), WHOLE_BLOCKS)


heads = st.tuples(st.integers(1, 6), st.integers(1, 6))


def wrong_for(num_kv_heads, group):
    return not agrees(LESSON.run()["batch"](num_kv_heads * group, num_kv_heads, np.nan)[1], MODULO)


@given(heads=heads)
def test_the_broken_head_map_is_right_for_one_kv_head_or_for_groups_of_one(heads):
    num_kv_heads, group = heads
    assert wrong_for(num_kv_heads, group) == (num_kv_heads > 1 and group > 1)


def test_the_fewest_heads_for_which_the_map_is_wrong():
    assert find(heads, lambda drawn: wrong_for(*drawn)) == (2, 2)  # 4 query heads, 2 KV heads


@given(heads=heads)
def test_the_broken_head_map_returns_means_of_cached_values(heads):
    num_kv_heads, group = heads
    cache, arrays = LESSON.run()["batch"](num_kv_heads * group, num_kv_heads, np.nan)
    out = attend(arrays, MODULO)
    for seq, name in enumerate("abc"):
        _, value = cache.gather(name)
        for q_head, row in enumerate(out[seq]):
            values = value[:, q_head % num_kv_heads]
            assert (values.min(0) - 1e-5 <= row).all()
            assert (row <= values.max(0) + 1e-5).all()


@given(num_kv_heads=st.integers(1, 16), group=st.integers(1, 16))
def test_the_third_map_is_right_if_there_are_as_many_kv_heads_as_heads_in_a_group(num_kv_heads, group):
    q_head = np.arange(num_kv_heads * group)
    assert (q_head // num_kv_heads == q_head // group).all() == (num_kv_heads == group)
    for answer in ((4, 2), (16, 4), (64, 8)):  # query heads, KV heads
        assert answer[0] // answer[1] == answer[1]


@given(arrays=batches())
def test_the_sanitizer_finds_nothing(arrays):
    with lockstep.sanitizing() as findings:
        attend(arrays, NONE)
    assert not findings.errors


@pytest.mark.parametrize("algorithm", ["block", "tile"])
def test_a_thread_block_for_a_kv_head_reads_each_key_once(algorithm):
    _, arrays = LESSON.run()["batch"](8, 2, np.nan)
    with lockstep.profiling() as report:
        right(arrays, algorithm)
    sectors = report.memory("global", array="key_cache").sectors
    assert (sectors == LESSON.run()["shared"].sectors) == (algorithm == "tile")
