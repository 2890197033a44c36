"""Lesson 05: its numbers, and its kernels beside the package's."""

import ast
import runpy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import kernels, lockstep

LESSON = lesson(5)


def lines_of(name):
    """Return the number of lines of a kernel of the lesson, without its decorator."""
    [node] = [
        node
        for node in ast.parse(LESSON.text).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    return node.end_lineno - node.lineno + 1


def test_numbers_in_the_prose():
    made = LESSON.run()
    pool, slot_mapping = made["pool"], made["slot_mapping"]
    num_tokens, num_heads, head_dim = made["key"].shape
    real = (slot_mapping >= 0).sum()
    threads, written = num_tokens * num_heads * head_dim, (made["key_cache"] != made["before"][0]).sum()
    LESSON.check_numbers(
        claims={
            "a prompt of 5 tokens": pool.seq_len("c"),
            "the 7 tokens are filled up to 8": (real, num_tokens),
            "has -1 for a slot": slot_mapping[-1],
            "had 8 tokens before": pool.seq_len("b") - 1,
            "0: its two blocks of 4 are full": (pool.slots("b", 8, 9)[0] % 4, pool.block_size),
            "the token with slot -1": slot_mapping[-1],
            "what are -1 // 4 and -1 % 4": (-1, pool.block_size, -1, pool.block_size),
            "Block -1, offset 3.": (-1 // pool.block_size, -1 % pool.block_size),
            "Block -1 is the last one": "-1",
            "number 8. So slot 8 * 4 + 3 = 35": (
                *(pool.num_blocks - 1, pool.num_blocks - 1, pool.block_size, -1 % pool.block_size),
                pool.slots("idle", 7, 8)[0],
            ),
            "8 thread blocks of 16 * 2 threads are 256 threads": (num_tokens, head_dim, num_heads, threads),
            "Those of 7 tokens write, 224; the last 32 return": (real, written, threads - written),
            "It may say -1": slot_mapping[-1],
            "a single -1": slot_mapping[-1],
            "a kernel of 8 lines": lines_of("write_kv"),
            "may get block 8": pool.num_blocks - 1,
            "not with 8 tokens": num_tokens,
        },
        given=["has 32 layers", "up to 16 tokens, with slot -1"],
    )
    assert pool.seq_len("idle") == 8, "token 7 is its last"


def test_the_broken_kernel_hits_a_sequence_that_is_not_in_the_batch():
    made = LESSON.run()
    slots = made["slot_mapping"]
    key_cache, value_cache = made["before"].copy()
    made["write_kv_broken"][slots.size, (16, 2)](made["key"], made["value"], key_cache, value_cache, slots)
    changed = np.flatnonzero((key_cache != made["before"][0]).any(axis=(2, 3)))
    assert sorted({*changed} - {*slots}) == [made["pool"].slots("idle", 7, 8)[0]]
    assert f"slots that changed {changed} - slots of idle" in LESSON.output
    expected = np.flatnonzero(made["changed"])
    assert sorted(slots[slots >= 0]) == expected.tolist(), "the mended kernel writes what the mapping names"


def findings(kernel, num_tokens):
    """Return what the sanitizer says of a launch with a batch filled up to some number of tokens."""
    made = LESSON.run()
    slots = np.full(num_tokens, -1)
    slots[: made["slot_mapping"].size] = made["slot_mapping"]
    key, value = np.random.default_rng(0).standard_normal((2, num_tokens, 2, 16), dtype=np.float32)
    caches = made["before"].copy()
    return str(lockstep.sanitize(made[kernel], num_tokens, (16, 2), key, value, *caches, slots))


def test_the_sanitizer_names_the_negative_index_and_with_more_padding_a_race():
    assert "negative index" in findings("write_kv_broken", 8)
    assert "data race" not in findings("write_kv_broken", 8)
    assert "data race" in findings("write_kv_broken", 16)
    assert findings("write_kv", 8) == findings("write_kv", 16) == "no findings"
    assert LESSON.output.count("negative index: ") == 2, "one of the keys, one of the values"
    assert LESSON.output.count("no findings") == 1


@pytest.mark.parametrize(
    ("line", "mutant"),
    [
        ("    if slot < 0:  # a padding token", "    if slot < -1:  # a padding token"),
        ("    if slot < 0:  # a padding token", "    if slot <= 0:  # a padding token"),
        ("slot // block_size, slot % block_size", "slot % block_size, slot // block_size"),
        ("value_cache[block, offset, head, dim] = value", "value_cache[block, offset, head, dim] = key"),
    ],
)
def test_the_lesson_fails_with_a_wrong_kernel(line, mutant, tmp_path):
    start, end = LESSON.text.split("def write_kv(")
    assert end.count(line) == 1
    path = tmp_path / "lesson.py"
    path.write_text(f"{start}def write_kv({end.replace(line, mutant)}", encoding="utf-8")
    (tmp_path / "there").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "there")
        with pytest.raises((AssertionError, IndexError)):
            runpy.run_path(str(path))


@st.composite
def writes(draw):
    """Draw keys, values, caches, and slots of a pool, each at most once, some of them -1."""
    num_tokens, num_heads, head_dim = draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 5)))
    num_blocks, block_size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    slots = draw(st.permutations(range(num_blocks * block_size)))[:num_tokens]
    slots = np.array([*slots, *[-1] * (num_tokens - len(slots))], np.int64)
    slots[draw(st.lists(st.integers(0, num_tokens - 1)))] = -1
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = num_blocks, block_size, num_heads, head_dim
    return (*rng.standard_normal((2, num_tokens, num_heads, head_dim), dtype=np.float32),), (
        rng.standard_normal((2, *shape), dtype=np.float32),
        slots,
    )


@given(drawn=writes())
def test_kernel_writes_what_the_package_writes(drawn):
    (key, value), (caches, slots) = drawn
    ours, theirs, by_hand = caches.copy(), caches.copy(), caches.copy()
    num_tokens, num_heads, head_dim = key.shape
    LESSON.run()["write_kv"][num_tokens, (head_dim, num_heads)](key, value, *ours, slots)
    kernels.write_kv_kernel[(num_tokens, 1), (head_dim, num_heads)](key, value, *theirs, slots)
    np.testing.assert_array_equal(ours, theirs)
    pn.write_kv(key, value, *by_hand, slots)
    np.testing.assert_array_equal(ours, by_hand)
    flat = caches.reshape(2, -1, num_heads, head_dim).copy()
    flat[:, slots[slots >= 0]] = np.stack([key, value])[:, slots >= 0]
    np.testing.assert_array_equal(ours.reshape(flat.shape), flat)
