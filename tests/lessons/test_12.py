"""Lesson 12: the numbers in its prose, its kernels beside split-KV attention and `merge_states`, its answers."""

import functools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.ops.plan import MIN_SPLIT_TOKENS, WAVES

LESSON = lesson(12)


def attend(query, keys, values, table, starts):
    made, num_splits = LESSON.run(), len(starts) - 1
    part_out, part_lse = np.ones((num_splits, 8, 32), np.float32), np.ones((num_splits, 8), np.float32)
    launched = lockstep.profile(
        made["attend"], (num_splits, 8), 32, part_out, part_lse, query, keys, values, table, starts
    )
    return part_out, part_lse, launched


def merge(part_out, part_lse):
    out = np.zeros(part_out.shape[1:], np.float32)
    launched = lockstep.profile(LESSON.run()["merge"], 8, 32, out, part_out, part_lse)
    return out, launched


def planned(batch, seq_len=4096):
    sizes = LESSON.run()["sizes"]
    return pn.plan.choose([seq_len] * batch, range(batch + 1), **sizes)


def test_numbers_in_the_prose():
    made = LESSON.run()
    heads, head_dim = made["query"].shape
    multiprocessors = made["sizes"]["multiprocessors"]
    starts = made["starts"]
    both = 2 * 4096 * heads * head_dim
    LESSON.check_numbers(
        claims={
            "an H100 has 132": multiprocessors,
            "one sequence, 8 heads, 4,096 tokens": (heads, len(made["key"])),
            "8, one for each head": heads,
            "The other 124 wait": multiprocessors - heads,
            "How do 16 results become one": planned(1).num_splits,
            "each split has 256 tokens": 4096 // planned(1).num_splits,
            "With 3,600 tokens, 15 splits of 240": (
                starts[-1],
                np.diff(starts).astype(bool).sum(),
                starts[1],
            ),
            "with 16 splits 0.4 % more bytes": (16, 100 * 2 * 16 * heads * (head_dim + 1) / both),
            "256 tokens for a split": MIN_SPLIT_TOKENS,
            "with 8 heads they make 264 thread blocks": (heads, 33 * heads),
            "1.44 times as large": 1 / math.log(2),
        },
        given=[
            "scores are nearly 0",
            "is 0, and any number",
            "divided 0 by 0",
            "and 0 times NaN",
            "a batch of 33 such",
            "to base 2",
            "add up to 1.",
            "multiply by log 2 first",
            "by 10, by 100",
            "tolerance of 0.001",
        ],
    )
    assert WAVES == 2
    assert 33 * heads == WAVES * multiprocessors, "two for each multiprocessor"
    assert planned(33).num_splits == 1
    assert planned(32).num_splits == 2
    # What the splits store and the merge loads, beside what they load of keys and values.
    arguments = (made[name] for name in ("query", "key_cache", "value_cache", "block_table"))
    part_out, part_lse, launched = attend(*arguments, np.arange(0, 4097, 256))
    extra = launched.memory("global", "store").bytes_asked
    merged = merge(part_out, part_lse)[1]
    extra += merged.memory("global", "load", array="part_out").bytes_asked + part_lse.nbytes
    loaded = sum(
        launched.memory("global", "load", array=name).bytes_moved for name in ("key_cache", "value_cache")
    )
    assert loaded == 4 * both
    assert extra == 4 * 2 * 16 * heads * (head_dim + 1)


def test_the_average_is_wrong_but_not_for_equal_keys():
    lines = dict(
        line.split(" largest error of the average ")
        for line in LESSON.output.splitlines()
        if "average" in line
    )
    assert float(lines["equal keys"]) < 1e-6
    assert float(lines["real keys "]) > 1


@given(
    seq_len=st.integers(1, 200),
    num_splits=st.integers(1, 6),
    size=st.sampled_from([0.1, 1, 4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_splits_and_merge_are_those_of_the_package(seq_len, num_splits, size, seed):
    rng = np.random.default_rng(seed)
    query = size * rng.standard_normal((8, 32), np.float32)
    keys, values = rng.standard_normal((2, 20, 16, 8, 32), np.float32)
    table = rng.permutation(20)[:13]
    starts = np.sort(np.r_[0, rng.integers(0, seq_len + 1, num_splits - 1), seq_len])
    part_out, part_lse, _ = attend(query, keys, values, table, starts)
    out = merge(part_out, part_lse)[0]

    arguments = query[None], keys, values, table[None], [seq_len]
    theirs, lse = pn.paged_attention(
        *arguments, scale=1, algorithm="split", num_splits=num_splits, return_lse=True, target="lockstep"
    )
    np.testing.assert_allclose(out, theirs[0], rtol=1e-3, atol=1e-4)
    states = [(part_out[split][None], part_lse[split][None]) for split in range(num_splits)]
    two_at_a_time = functools.reduce(lambda a, b: pn.merge_states(*a, *b, target="lockstep"), states)
    np.testing.assert_allclose(out, two_at_a_time[0][0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(two_at_a_time[1], lse, rtol=1e-5, atol=1e-5)
    backwards = merge(part_out[::-1].copy(), part_lse[::-1].copy())[0]
    np.testing.assert_allclose(out, backwards, rtol=1e-4, atol=1e-5)


def test_starts_are_those_of_the_package():
    made = LESSON.run()
    rows = pn.plan.query_rows([3600], [0, 1], True, None)
    parts = pn.ops.tiles.split_rows(rows, 16, 16)
    assert made["starts"].tolist() == [*parts[:, 3].tolist(), 3600]
    assert parts[:, 4].tolist() == made["starts"][1:].tolist()


def test_an_empty_split_changes_nothing_and_nan_would():
    made = LESSON.run()
    part_out, part_lse = made["part_out"].copy(), made["part_lse"]
    assert (part_lse[-1] == -np.inf).all()
    assert (part_out[-1] == 0).all()
    part_out[-1] = 7
    np.testing.assert_array_equal(merge(part_out, part_lse)[0], merge(part_out[:-1], part_lse[:-1])[0])
    part_out[-1] = np.nan
    assert np.isnan(merge(part_out, part_lse)[0]).all()


def test_answers():
    made = LESSON.run()
    query, keys, values, table = (made[name] for name in ("query", "key_cache", "value_cache", "block_table"))
    part_out, part_lse, _ = attend(query, keys, values, table, np.arange(0, 4097, 256))
    key, value = made["key"], made["value"]
    oracle = pn.reference.attention(query[None], key, value, scale=1)[0]
    # 2: a token in two splits counts twice.
    overlap_out, overlap_lse, _ = attend(query, keys, values, table, np.array([0, 4096]))
    twice, _ = merge(np.r_[part_out[:1], overlap_out], np.r_[part_lse[:1], overlap_lse])
    counted = [np.r_[array[:256], array] for array in (key, value)]
    np.testing.assert_allclose(
        twice, pn.reference.attention(query[None], *counted, scale=1)[0], rtol=1e-3, atol=1e-4
    )
    # 3: base 2 is plausible, wrong, and right again after a multiplication by log 2.
    base_2 = part_lse / np.float32(math.log(2))
    wrong = merge(part_out, base_2)[0]
    assert np.isfinite(wrong).all()
    assert abs(wrong - oracle).max() > 0.05
    lighter, heavier = (np.exp(lse - lse.max(axis=0)) for lse in (part_lse, base_2))
    assert ((heavier / heavier.sum(axis=0)).max(axis=0) > (lighter / lighter.sum(axis=0)).max(axis=0)).all()
    right = merge(part_out, base_2 * np.float32(math.log(2)))[0]
    np.testing.assert_allclose(right, oracle, rtol=1e-4, atol=1e-5)


def test_the_keys_of_try_next_hide_the_average():
    made = LESSON.run()
    errors = []
    for divisor in (1, 10, 100):
        keys = made["key_cache"] / np.float32(divisor)
        arguments = made["query"], keys, made["value_cache"], made["block_table"], np.arange(0, 4097, 256)
        part_out = attend(*arguments)[0]
        oracle = pn.reference.attention(made["query"][None], made["key"] / divisor, made["value"], scale=1)[0]
        errors.append(abs(part_out.mean(axis=0) - oracle).max())
    assert errors[0] > errors[1] > 1e-3 > errors[2]
