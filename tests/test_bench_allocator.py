"""The allocator's benchmark, on pools small enough for a test."""

import json

import numpy as np
import pytest

from paged_numba.commands import main as cli
from paged_numba.commands.bench import allocator as bench


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench, "SIZES", (1000, 2000))
    monkeypatch.setattr(bench, "LEAST_BLOCKS", 1000)
    monkeypatch.setattr(bench, "MEMORY_BLOCKS", 10_000)


def test_bench_allocator_prints_each_operation_and_writes_json(capsys, tmp_path):
    assert cli.main(["bench", "allocator", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["benchmark"] == "allocator"
    assert figures["exponents"].keys() == figures["microseconds"]["1000"].keys()
    for operation, exponent in figures["exponents"].items():
        times = [figures["microseconds"][size][operation] for size in ("1000", "2000")]
        # Two points: the exponent is the slope of the line through them.
        assert exponent == pytest.approx(np.log(times[1] / times[0]) / np.log(2))
        assert f"{operation} " in printed


def test_memory_of_a_block_is_what_the_docstring_of_the_allocator_says():
    # 4 bytes each of reference count and generation; of its place in a table; of node, neighbours in the ring.
    # Lists and dictionaries grow in steps, so that the rest is a range.
    found = bench.memory()
    assert 8 <= found["free"] < 9
    assert 12 <= found["in use"] < 17
    assert 20 <= found["free, with the prefix cache"] < 22
    assert 250 < found["in use, with the prefix cache"] < 400
