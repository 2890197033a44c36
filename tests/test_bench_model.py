"""The model's benchmark, on a model small enough for a test."""

import json

import numpy as np
import pytest

from paged_numba import models
from paged_numba.commands import main as cli
from paged_numba.commands.bench import model as bench

SIZES = models.LlamaConfig(
    num_layers=2, hidden_size=16, intermediate_size=24, vocab_size=32,
    num_q_heads=4, num_kv_heads=2, head_dim=8, max_positions=64,
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 3)
    monkeypatch.setattr(bench, "find_model", lambda: (models.random_llama(SIZES), "a small model", None))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("context", [2, 17, 200])
def test_bench_model_prints_the_parts_of_a_step_and_all_sides_agree(capsys, tmp_path, batch, context):
    where = tmp_path / "figures.json"
    arguments = ["--batch", str(batch), "--context", str(context), "--json", str(where)]
    assert cli.main(["bench", "model", *arguments]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(where.read_text())
    assert (figures["benchmark"], figures["model"]) == ("model", "a small model")
    assert (figures["batch"], figures["context"]) == (batch, context)
    assert figures["sides"].keys() == {"paged, lockstep", "dense NumPy"}
    for side, found in figures["sides"].items():
        assert found["tokens_per_s"] == pytest.approx(batch / found["step_s"])
        assert all(0 < found[f"{part.replace(' ', '_')}_s"] < found["step_s"] for part in bench.PARTS)
        assert f"{side} " in printed
    assert "transformers: left out" in printed
    assert "all sides agree" in printed


def test_bench_model_notices_that_a_side_computes_something_else(capsys, monkeypatch):
    right = bench.paged

    def wrong(model, _, *rest):
        context = bench.Context(model, 20)
        context.values[1] = context.values[1][::-1]
        return right(model, context, *rest)

    monkeypatch.setattr(bench, "paged", wrong)
    assert cli.main(["bench", "model", "--context", "20"]) == 1
    assert "the sides DISAGREE" in capsys.readouterr().out


def test_parts_of_a_step_add_up_and_products_are_those_of_the_model():
    model, clock = models.random_llama(SIZES), bench.Clock()
    ids, positions = np.array([3, 1, 4]), np.arange(3)
    dense = models.DenseAttention()
    logits = clock.run(lambda: bench.timed(model, clock).forward(ids, positions, dense))
    np.testing.assert_array_equal(logits, model.forward(ids, positions, dense))
    assert type(logits) is np.ndarray
    assert sum(clock.seconds.values()) == pytest.approx(clock.step)
    assert clock.seconds["matrix products"] > 0 == clock.seconds["attention"]


def test_bench_model_needs_a_token_before_the_computed_one(capsys):
    assert cli.main(["bench", "model", "--context", "1"]) == 2
    assert (
        "--context must be at least 2, the computed token and one before it, got 1" in capsys.readouterr().err
    )
