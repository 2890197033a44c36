"""Lesson 06: its numbers, its faults, and its kernels beside the package's."""

import runpy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import kernels, lockstep

LESSON = lesson(6)


def sectors(report, *names):
    return sum(report.memory("global", array=name).sectors for name in names)


def test_numbers_in_the_prose():
    made = LESSON.run()
    lens, num_heads, head_dim = made["seq_lens"].tolist(), *made["query"].shape[1:]
    report = made["attending"]
    loaded = sectors(report, "key_cache", "value_cache")
    least = 2 * lens[2] * num_heads * head_dim * 4 // 32
    assert made["key"].nbytes + made["value"].nbytes == 32 * least
    gathered = 2 * sectors(made["copying"], "cache", "dense")
    per_request = report.memory("global", "load", array="key_cache").sectors_per_request
    assert report.memory("global", "load", array="key_cache").efficiency == 100 / 8
    assert sectors(report, "key_cache") == 2 * sectors(report, "value_cache")
    LESSON.check_numbers(
        claims={
            "have 5, 8 and 13 tokens": tuple(lens),
            "its blocks are 0 and 1,": tuple(made["tables"][0, :2]),
            "its 8 tokens fill": lens[1],
            "keys and values of 13 tokens fill 416 sectors": (lens[2], least),
            "To gather 832,": gathered,
            "To attend 4,992, or 12 times 416": (loaded, loaded / least, least),
            "the 4 threads read 4 numbers from 4 sectors": (num_heads, num_heads, per_request),
            "move 3 arrays, not 2": (loaded / sectors(report, "value_cache"), "2"),
        },
        given=[
            "sequences 0, 1 and 2",
            "Sequence 0 hides",
            "Sequence 1 hides",
            "sectors <sector>` of 32 bytes",
            "each whole, for 32 threads",
            "has score 0",
            "a score of 9",
            "there, or -1",
        ],
    )
    assert loaded == 12 * least, "the twelve times of the first paragraph"
    assert f"gather {gathered}\nattend {loaded}\n" in LESSON.output


def test_each_fault_is_hidden_by_one_sequence():
    lines = [line.split("right:")[1].split() for line in LESSON.output.splitlines() if "right:" in line]
    assert [" ".join(line).strip("[ ]") for line in lines] == ["True False False", "False True False"]


def test_attention_reads_dense_arrays_as_one_block():
    # The first question of the lesson, and its answer.
    made = LESSON.run()
    right, paged = made["batch"](np.random.default_rng(6), [5, 8, 13], 4, made["tables"])
    query, *_, seq_lens = paged
    out = np.empty_like(query[2:])
    table = np.array([[0]])
    made["attention"][1, 4](out, query[2:], made["key"][None], made["value"][None], table, seq_lens[2:])
    np.testing.assert_allclose(out, right[2:], rtol=1e-4, atol=1e-5)


def test_entries_behind_the_end_are_not_read():
    # The second.
    made = LESSON.run()
    tables = np.array([[0, 1, -1, -1], [4, 2, 999, -1], [7, 3, 9, 5]], np.int32)
    right, (query, keys, values, _, seq_lens) = made["batch"](
        np.random.default_rng(6), [5, 8, 13], 4, made["tables"]
    )
    out = np.empty_like(query)
    made["attention"][3, 4](out, query, keys, values, tables, seq_lens)
    np.testing.assert_allclose(out, right, rtol=1e-4, atol=1e-5)


LOOKUP = "tables[seq, token // block_size]"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (f"block, offset = {LOOKUP}", "block, offset = token // block_size"),
        (f"block, offset = {LOOKUP}", "block, offset = tables[0, token // block_size]"),
        ("{LOOKUP}, token % block_size", "{LOOKUP}, 0"),
        ("range(seq_lens[seq])", "range(-(-seq_lens[seq] // block_size) * block_size)"),
        ("range(seq_lens[seq])", "range(seq_lens[seq] - 1)"),
        ("total += weight", "total += 1"),
        ("largest = max(largest, score * scale)", "largest = float32(100)"),
        ("weight * value_cache", "weight * key_cache"),
        (
            "table[token // cache.shape[1]], token % cache.shape[1]",
            "token // cache.shape[1], token % cache.shape[1]",
        ),
    ],
)
def test_the_lesson_fails_with_a_wrong_kernel(right, wrong, tmp_path):
    right, wrong = (part.replace("{LOOKUP}", LOOKUP) for part in (right, wrong))
    text = LESSON.text[: LESSON.text.index("# What it moves")]
    assert right in text
    path = tmp_path / "lesson.py"
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    with pytest.raises((AssertionError, IndexError)), np.errstate(all="ignore"):
        runpy.run_path(str(path))


def test_the_property_alone_finds_the_faults_that_sequences_hide(tmp_path):
    """The loop over block sizes fails for both broken kernels, without the example before it."""
    text = LESSON.text[: LESSON.text.index("# What it moves")]
    example = "attention[3, 4](out, *paged)\nnp.testing.assert_allclose(out, right, rtol=1e-4, atol=1e-5)\n"
    assert text.count(example) == 1
    for number, (right, wrong) in enumerate(
        [
            (LOOKUP, "token // block_size"),
            ("range(seq_lens[seq])", "range(-(-seq_lens[seq] // block_size) * block_size)"),
        ]
    ):
        path = tmp_path / f"lesson{number}.py"
        path.write_text(text.replace(example, "").replace(right, wrong), encoding="utf-8")
        with pytest.raises((AssertionError, IndexError)), np.errstate(all="ignore"):
            runpy.run_path(str(path))


@st.composite
def batches(draw):
    """Draw lengths, with multiples of the block size on purpose, a block size, and scattered tables."""
    block_size = draw(st.integers(1, 5))
    multiples = st.integers(1, 3).map(lambda count: count * block_size)
    lens = draw(st.lists(st.one_of(multiples, st.integers(1, 15)), min_size=1, max_size=3))
    width = -(-max(lens) // block_size)
    order = draw(st.permutations(range(len(lens) * width)))
    return lens, block_size, np.array(order, np.int32).reshape(len(lens), width), draw(st.integers(0, 99))


@given(drawn=batches(), order=st.sampled_from(("together", "forward", "reverse")))
def test_kernel_computes_what_the_textbook_kernel_computes(drawn, order):
    lens, block_size, tables, seed = drawn
    made = LESSON.run()
    right, paged = made["batch"](np.random.default_rng(seed), lens, block_size, tables)
    ours, theirs = np.full((2, *right.shape), np.nan, np.float32)
    with lockstep.options(order=order):
        made["attention"][len(lens), 4](ours, *paged)
        kernels.attention_textbook_kernel[len(lens), 4](theirs, *paged, np.float32(1 / np.sqrt(32)))
    np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours, pn.paged_attention(*paged), rtol=1e-4, atol=1e-5)


@given(drawn=batches())
def test_gather_copies_what_the_package_copies(drawn):
    lens, block_size, tables, seed = drawn
    made = LESSON.run()
    _, (_, key_cache, value_cache, tables, _) = made["batch"](
        np.random.default_rng(seed), lens, block_size, tables
    )
    for table, seq_len in zip(tables, lens, strict=True):
        ours = np.empty((2, seq_len, 4, 32), np.float32)
        for dense, cache in zip(ours, (key_cache, value_cache), strict=True):
            made["gather"][seq_len, (32, 4)](dense, cache, table)
        np.testing.assert_array_equal(ours, pn.gather_kv(key_cache, value_cache, table, seq_len))
