"""Lesson 08: the numbers in its prose, and its kernel held to the package's kernels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import lockstep

LESSON = lesson(8)


def test_numbers_in_the_prose():
    made = LESSON.run()
    cache, scores = made["cache"], made["scores"]
    picture = pn.draw.OnlineSoftmax(scores)
    online, textbook = lockstep.profile(*made["online"]), lockstep.profile(*made["textbook"])
    one, two = (
        {array: report.memory("global", array=array) for array in ("key_cache", "value_cache")}
        for report in (online, textbook)
    )
    fewer = {array: two[array].sectors / one[array].sectors for array in ("key_cache", "value_cache")}
    passes = two["key_cache"].bytes_asked / one["key_cache"].bytes_asked
    assert fewer["key_cache"] == fewer["value_cache"] * passes
    assert two["value_cache"].bytes_asked == one["value_cache"].bytes_asked  # each value is read once
    warps, tokens = 4 * 64 // 32, int(made["seq_lens"][0])
    barriers = online.work().barriers / warps / tokens
    LESSON.check_numbers(
        claims={
            "sequences of 100 tokens": tokens,
            "with 4 heads of 64 dimensions": cache.key_cache.shape[2:],
            "rises from 3 to 5": (picture.maxima[3], picture.maxima[4]),
            "which is 0.14": picture.factors[4],
            "moves 8 times fewer": fewer["value_cache"],
            "16 times: the same 8, times 2": (fewer["key_cache"], fewer["value_cache"], passes),
            "64 sums per thread": cache.key_cache.shape[3],
            "meet at 8 barriers": barriers,
            "Which of the 8 barriers": barriers,
            "6, one after each": math.log2(cache.key_cache.shape[3]),
        },
        given=[
            "token 0 is made the best match",
            "token 90 is",
            "the factor is ~, which is 1",
            "each factor is 1",
            "weights of tokens 0 to 89",
            "no longer add up to 1",
            "0, as ~ of minus infinity is. It multiplies sums that are 0",
        ],
    )


def test_one_pass_gives_the_sum_of_two():
    made = LESSON.run()
    assert made["total"] == pytest.approx(made["two_passes"])


def test_the_planted_tokens_are_the_best_match_of_every_head():
    made = LESSON.run()
    for name, best in (("early", 0), ("late", 90)):
        scores = np.einsum("hd,thd->th", made["query"], made["keys"][name])
        assert (scores.argmax(0) == best).all()


@st.composite
def sequences(draw):
    """Return a query and a dense sequence, a cache that holds it, and its block table."""
    num_heads, head_dim = draw(st.integers(1, 3)), 2 ** draw(st.integers(0, 6))
    block_size, seq_len = draw(st.integers(1, 8)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    query = 3 * rng.standard_normal((num_heads, head_dim), dtype=np.float32)
    key, value = rng.standard_normal((2, seq_len, num_heads, head_dim), dtype=np.float32)
    cache = pn.PagedKVCache(2 + seq_len, block_size, num_heads, head_dim, target="lockstep")
    cache.key_cache[:] = cache.value_cache[:] = np.nan
    cache.add("other", key[:1], value[:1])
    cache.add("ours", key, value)
    return query, key, value, cache


def attend(query, cache, *, rescaling=True):
    out = np.full_like(query, np.nan)
    table, seq_len = cache.allocator.block_table("ours"), cache.allocator.seq_len("ours")
    arrays = out, query, cache.key_cache, cache.value_cache, table, seq_len
    lockstep.launch(LESSON.run()["attend"], *query.shape, *arrays, rescaling)
    return out


@given(sequence=sequences(), order=st.sampled_from(("together", "forward", "reverse")))
def test_the_kernel_agrees_with_the_package(sequence, order):
    query, key, value, cache = sequence
    with lockstep.options(order=order):
        out = attend(query, cache)
    arrays = query[None], cache.key_cache, cache.value_cache, cache.block_tables(["ours"])
    seq_lens = np.array([len(key)], np.int32)
    for algorithm in ("warp", "block"):
        same = pn.paged_attention(*arrays, seq_lens, algorithm=algorithm, target="lockstep")
        np.testing.assert_allclose(out, same[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out, pn.reference.attention(query[None], key, value)[0], rtol=1e-4, atol=1e-5)


@given(sequence=sequences())
def test_the_broken_kernel_is_right_if_no_score_exceeds_the_first(sequence):
    query, key, value, cache = sequence
    scores = np.einsum("hd,thd->th", query, key)
    right = pn.reference.attention(query[None], key, value)[0]
    out = attend(query, cache, rescaling=False)
    never_rescaled = (scores <= scores[0]).all(0)
    np.testing.assert_allclose(out[never_rescaled], right[never_rescaled], rtol=1e-4, atol=1e-5)
    # Also where it is wrong, its result is a mean of the values.
    assert (out >= value.min(0) - 1e-4).all()
    assert (out <= value.max(0) + 1e-4).all()


def test_the_broken_kernel_is_wrong_for_a_late_maximum():
    errors = [float(line.split()[-1]) for line in LESSON.output.splitlines() if "largest error" in line]
    assert [error > 1e-2 for error in errors] == [False, True, False, False]


def test_rescaling_only_the_sum_of_the_weights_gives_more_than_any_value():
    made = LESSON.run()
    query, key, value = made["query"][0], made["keys"]["late"][:, 0], made["value"][:, 0]
    scores = key @ query / 8
    not_rescaled = np.exp(scores - np.maximum.accumulate(scores)) @ value
    assert abs(not_rescaled / np.exp(scores - scores.max()).sum()).max() > abs(value).max()


@given(sequence=sequences())
def test_the_sanitizer_finds_nothing(sequence):
    query, _, _, cache = sequence
    with lockstep.sanitizing() as findings:
        attend(query, cache)
    assert not findings.errors
