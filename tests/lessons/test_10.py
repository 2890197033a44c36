"""Lesson 10: the numbers in its prose, its kernels beside the package's layouts and attention, its answers."""

import runpy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.kernels import write_kv_packed_kernel

LESSON = lesson(10)
LAYOUTS = ("NHD", "HND", "packed")


def reads(strides, cache):
    made = LESSON.run()
    arguments = np.zeros(64, np.float32), made["query"], cache.reshape(-1), strides, made["table"], 1
    return lockstep.profile(made["scores"], 2, 32, *arguments).memory("global", "load", array="keys")


def wavefronts(width):
    made = LESSON.run()
    arguments = np.zeros(64, np.float32), made["query"], made["nhd"], made["table"], 1
    tile = lockstep.profile(made["with_tile"](width), 2, 32, *arguments).memory(
        "shared", "load", array="tile"
    )
    return tile.wavefronts / tile.requests


def sectors(addresses):
    return len({int(address) // 32 for address in addresses})


def test_numbers_in_the_prose():
    made = LESSON.run()
    strides, per_request = made["strides"], {}
    for name in LAYOUTS:
        per_request[name] = reads(strides[name], made[name.lower()]).sectors_per_request
    dims = np.arange(32)
    LESSON.check_numbers(
        claims={
            "saves 31 of 32 turns": (wavefronts(32) - wavefronts(33), wavefronts(32)),
            "NHD: 32, since neighbouring threads read numbers 512 bytes apart": (
                per_request["NHD"],
                4 * strides["NHD"][1],
            ),
            "HND: 32 as well": per_request["HND"],
            "still 256 bytes": 4 * strides["HND"][1],
            "Packed: 16, since two neighbouring pieces of 16 bytes": (per_request["packed"], 16),
            "All keys of this head are 16,384 bytes": made["key"][:, 1].nbytes,
            "a thread uses 4 bytes of a sector": made["key"].itemsize,
            "32 of them are 4 sectors": (32, sectors(4 * dims)),
            "Width 32: all numbers lie in bank ~, so 32 wavefronts": (32, wavefronts(32)),
            "NHD: 4. Packed: 8": (
                sectors(4 * dims),
                sectors(4 * (dims // 4 * strides["packed"][3] + dims % 4)),
            ),
            "lie 256 bytes apart": 4 * strides["packed"][3],
            "Two: threads 0 and 16 share a bank, so do 1 and 17": (0, 16, 1, 17),
        },
        given=[
            "64 keys in three layouts",
            "pieces of 4 numbers: piece 0 of all tokens, then piece 1",
            "one dimension of 32 keys",
            "Shared memory has 32",
            "the tile 33 numbers wide",
            "Width 33: one",
            "64 threads write a new key",
            "rows of 34 numbers",
        ],
    )
    assert reads(strides["NHD"], made["nhd"]).bytes_moved == 8 * made["key"][:, 1].nbytes
    assert wavefronts(33) == 1


def test_answers():
    made = LESSON.run()
    assert wavefronts(34) == 2
    assert 0 * 34 % 32 == 16 * 34 % 32
    assert 1 * 34 % 32 == 17 * 34 % 32
    assert [wavefronts(width) for width in (35, 37, 63)] == [1, 1, 1]
    assert wavefronts(36) > 1
    # Question 1, for the package's own kernel: a thread for each of 64 dimensions.
    key_cache, value_cache = np.zeros((1, 1, 16, 16, 4), np.float32), np.zeros((1, 1, 64, 16), np.float32)
    written = np.ones((1, 1, 64), np.float32), np.ones((1, 1, 64), np.float32)
    slots = np.zeros(1, np.int64)
    stores = lockstep.profile(write_kv_packed_kernel, 1, 64, *written, key_cache, value_cache, slots).memory(
        "global", "store", array="key_cache"
    )
    assert stores.sectors_per_request == 8
    # "Try next": the view has the tile kernel's indices, and is coalesced as well.
    view = made["hnd"].transpose(0, 2, 1, 3)
    out = np.zeros(64, np.float32)
    report = lockstep.profile(made["with_tile"](33), 2, 32, out, made["query"], view, made["table"], 1)
    np.testing.assert_allclose(out, made["oracle"], rtol=1e-4, atol=1e-4)
    assert report.memory("global", "load", array="keys").sectors_per_request == 4


@pytest.mark.parametrize("barrier", ["the tile is full", "all have read it"])
def test_a_missing_barrier_is_a_race(barrier, tmp_path):
    made = LESSON.run()
    [cell] = [code for _, code in LESSON.cells if "def with_tile" in code]
    lines = ["import numpy as np", "from numba import float32", "from paged_numba import cuda"]
    lines += [line for line in cell[: cell.index("\naccesses")].split("\n") if barrier not in line]
    file = tmp_path / "without_a_barrier.py"
    file.write_text("\n".join(lines), encoding="utf-8")
    kernel = runpy.run_path(str(file))["with_tile"](33)
    arguments = np.zeros(64, np.float32), made["query"], made["nhd"], made["table"], 1
    assert str(lockstep.sanitize(made["with_tile"](33), 2, 32, *arguments)) == "no findings"
    assert "data race: tile" in str(lockstep.sanitize(kernel, 2, 32, *arguments))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_those_of_the_package(layout):
    made = LESSON.run()
    cache = pn.PagedKVCache(8, 16, 2, 64, layout=layout, target="lockstep")
    slots = (16 * made["table"][:, None] + np.arange(16)).reshape(-1)
    pn.write_kv(
        made["key"], made["key"], cache.key_cache, cache.value_cache, slots, layout=layout, target="lockstep"
    )
    ours = made[layout.lower()]
    np.testing.assert_array_equal(ours[made["table"]], cache.key_cache[made["table"]])
    # The strides, in numbers: the last axis of a packed cache counts the numbers of a piece.
    axes = {"NHD": (0, 1, 2), "HND": (0, 2, 1), "packed": (0, 3, 1, 2)}[layout]
    strides = [cache.key_cache.strides[axis] // 4 for axis in axes]
    assert made["strides"][layout] == tuple(strides if layout == "packed" else [*strides, 4])


@pytest.mark.parametrize("layout", [*LAYOUTS, "tile"])
@given(seq_len=st.integers(1, 64), seed=st.integers(0, 2**32 - 1))
def test_scores_are_those_of_paged_attention(layout, seq_len, seed):
    made, rng = LESSON.run(), np.random.default_rng(seed)
    query, value = rng.standard_normal((1, 2, 64), np.float32), rng.standard_normal((64, 2, 64), np.float32)
    cache = made["nhd" if layout == "tile" else layout.lower()]
    weights = np.zeros((2, seq_len), np.float32)
    for head in range(2):
        arguments = made["table"], head
        if layout == "tile":
            kernel, arguments = made["with_tile"](33), (cache, *arguments)
        else:
            kernel, arguments = made["scores"], (cache.reshape(-1), made["strides"][layout], *arguments)
        lockstep.launch(kernel, -(-seq_len // 32), 32, weights[head], query[0, head], *arguments)
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)

    blocks = value.reshape(4, 16, 2, 64)
    values = np.zeros((8, 16, 2, 64), np.float32)
    values[made["table"]] = blocks
    by_dimension = {"HND": (0, 2, 1, 3), "packed": (0, 2, 3, 1)}.get(layout, (0, 1, 2, 3))
    out = pn.paged_attention(
        query,
        np.nan_to_num(cache),
        np.ascontiguousarray(values.transpose(by_dimension)),
        made["table"][None].astype(np.int32),
        [seq_len],
        scale=1,
        layout="NHD" if layout == "tile" else layout,
        target="lockstep",
    )
    np.testing.assert_allclose(
        np.einsum("ht,thd->hd", weights, value[:seq_len]), out[0], rtol=1e-3, atol=1e-4
    )


def test_the_mixed_up_call_is_plausible_and_wrong():
    made = LESSON.run()
    wrong = np.zeros(64, np.float32)
    packed = made["packed"].reshape(-1)
    lockstep.launch(
        made["scores"], 2, 32, wrong, made["query"], packed, made["strides"]["NHD"], made["table"], 1
    )
    assert np.isfinite(wrong).all()
    assert not np.isclose(wrong, made["oracle"], atol=0.1).all()
    assert 0.5 < wrong.std() / made["oracle"].std() < 2
    assert str(made["findings"]) == "no findings"
