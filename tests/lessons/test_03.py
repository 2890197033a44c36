"""Lesson 03: the numbers in its prose, its quantiles against the trace, and its accounting against a plain count."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import ROOT, lesson

import paged_numba as pn
from paged_numba.lockstep.profiler import GPUS

LESSON = lesson(3)
TRACE = ROOT.parent / "shared" / "data" / "azure_llm_2023_conv.csv"

needs_trace = pytest.mark.skipif(not TRACE.exists(), reason=f"needs the trace at {TRACE}")


def shares(text):
    """Return, by block size, the numbers of the table that the lesson prints."""
    rows = [line.replace("%", "").split() for line in text.splitlines() if line.rstrip().endswith("%")]
    return {
        int(row[0]): [float(number) for number in row[1:]]
        for row in rows
        if row[0].isdigit() and len(row) == 6
    }


def test_numbers_in_the_prose():
    made = LESSON.run()
    table = shares(LESSON.output)
    gpu = GPUS["H100"]
    parameters = 2 * 128256 * 4096 + 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096) + 4096
    assert made["parameters"] == pytest.approx(parameters, rel=1e-3)
    LESSON.check_numbers(
        claims={
            "A token costs 128 KiB": made["bytes_of_token"] / 1024,
            "32 layers, one after the other, and 32 heads in each": (made["layers"], made["heads"]),
            "a layer has 8 :term:`KV heads <KV head>`": made["kv_heads"],
            "A key is 128 numbers": made["head_dim"],
            "32 layers, times a key and a value, times 8 KV heads, times 128 numbers, times 2 bytes: 131,072 bytes, "
            "128 KiB": (32, 8, made["head_dim"], 2, 32 * 2 * 8 * 128 * 2, made["bytes_of_token"] / 1024),
            "4 operations for each byte, for both": made["intensities"]["attention, decode"],
            "It is 4 since 4 heads share a KV head: each number that is read is used in 4 heads, twice in each, "
            "and has 2 bytes": (4 * 2 / 2, made["heads"] // made["kv_heads"], 4, 2),
            "decode attention stays at 4.": made["operations"] / made["bytes_of_token"],
            "10 % of the prompts have up to 207 tokens, 20 % up to 387": (
                made["percent"][1],
                made["prompt_quantiles"][1],
                made["percent"][2],
                made["prompt_quantiles"][2],
            ),
            "29 reservations, and about 12 times as many": (table[16384][0], table[16][0] / table[16384][0]),
            "spends 4 operations on a byte where the GPU could do 40": (4, gpu.float16 / gpu.bandwidth),
            "524,288 bytes": 32 * 2 * 32 * 128 * 2,
            "1 operation for each byte": made["operations"] / (32 * 2 * 32 * 128 * 2),
        },
        given=[
            "19,366 real ones",
            "Llama 3 8B",
            "takes 2 bytes",
            "for 1,000 tokens, and for 2,000",
            "989e12 operations per second",  # NVIDIA H100 data sheet, SXM, dense bfloat16
            "Of 80 GB",
            "between 0 and 100",
            "here of 16,384 slots",
            "in blocks of 16?",
            "in 20.4 % of the memory for a server that reserves 2,048 slots, and in 96.3 % for vLLM",  # figure 2
            "Llama 2 7B has 32 layers, too, but 32 KV heads",
            "with blocks of 16?",
            "point 3 of the picture",
            "blocks of 1 and of 2,048",
        ],
    )
    assert list(made["intensities"])[2] == "attention, decode", "point 3 of the picture"
    assert made["roofline"].rate(4) < gpu.float16


def test_the_table_counts_what_a_pool_counts():
    # Each request alone in a pool, token by token: slots that hold a token, and empty slots, later filled or not.
    made, table = LESSON.run(), shares(LESSON.output)
    some = range(0, 2000, 400)
    for block_size in (256, 16):
        for i in some:
            prompt, answer = int(made["prompts"][i]), int(made["answers"][i])
            pool = pn.BlockAllocator(1024, block_size)
            pool.add("request", prompt)
            first = int(made["answers"][:i].sum())
            for step in range(answer):
                pool.append("request")
                assert pool.stats().num_stored_tokens == made["held"][first + step]
                taken = -(-made["held"][first + step] // block_size) * block_size
                assert pool.stats().num_used_blocks * block_size == taken
    for numbers in table.values():
        assert sum(numbers[1:]) == pytest.approx(100, abs=0.2)
    assert table[16384][1] < 10 < 99 < table[16][1], (
        "reserved memory is almost empty, paged memory almost full"
    )


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), min_size=1), st.integers(1, 64))
def test_kinds_of_slots_by_hand(requests, block_size):
    prompts, answers = np.array(requests).T
    names = {"np": np, "prompts": prompts, "answers": answers, "slots": 10_000, "print": lambda *_: None}
    code = next(code for _, code in LESSON.cells if "for block_size in" in code)
    exec(code.replace("(16384, 256, 16)", f"({block_size},)"), names)
    tokens = later = never = 0
    for prompt, answer in requests:
        for held in range(prompt + 1, prompt + answer + 1):
            for slot in range(-(-held // block_size) * block_size):
                tokens += slot < held
                later += held <= slot < prompt + answer
                never += slot >= max(held, prompt + answer)
    steps = sum(answer for _, answer in requests)
    expected = np.array([tokens, later, never]) / steps * names["at_once"]
    np.testing.assert_allclose(names["kinds"][:3], expected)
    assert names["kinds"][3] == 10_000 % block_size


@needs_trace
def test_quantiles_are_those_of_the_trace():
    made = LESSON.run()
    lengths = np.loadtxt(TRACE, int, delimiter=",", skiprows=1, usecols=(1, 2))
    assert f"{len(lengths):,} real ones" in LESSON.prose
    for column, name in enumerate(("prompt_quantiles", "answer_quantiles")):
        quantiles = np.percentile(lengths[:, column], made["percent"], method="inverted_cdf")
        assert quantiles.tolist() == made[name]
        drawn = made[("prompts", "answers")[column]]
        assert drawn.mean() == pytest.approx(lengths[:, column].mean(), rel=0.05)
    assert lengths.sum(axis=1).max() < 16384, "a reservation has room for every request"


@needs_trace
def test_the_trace_itself_says_nearly_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, str(LESSON.path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PAGED_NUMBA_TARGET": "lockstep",
            "AZURE_TRACE": str(TRACE),
        },
        check=True,
    )
    drawn, real = shares(LESSON.output), shares(done.stdout)
    assert real[16384][0] == drawn[16384][0] == 29
    for block_size in drawn:
        np.testing.assert_allclose(real[block_size][1:], drawn[block_size][1:], atol=1)
        assert real[block_size][0] == pytest.approx(drawn[block_size][0], rel=0.1)
