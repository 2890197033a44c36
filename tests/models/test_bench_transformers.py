"""The side of ``paged-numba bench model`` that runs transformers, where that is installed."""

from dataclasses import replace

import numpy as np
import pytest

import paged_numba as pn
from paged_numba.commands.bench import model as bench

for package in ("torch", "transformers", "accelerate", "tokenizers"):
    pytest.importorskip(package)
gguf_files = pytest.importorskip("gguf_files")  # needs the package gguf


@pytest.mark.filterwarnings("ignore")  # those of transformers
@pytest.mark.parametrize("batch", [1, 2])
def test_a_step_of_transformers_is_that_of_the_model_each_time(tmp_path, monkeypatch, batch):
    # transformers reads no attention.key_length: it takes hidden_size / num_q_heads.
    monkeypatch.setattr(gguf_files, "CONFIG", replace(gguf_files.CONFIG, head_dim=16))
    written = gguf_files.model()
    path = gguf_files.write(
        tmp_path / "small.gguf", gguf_files.tensors_of(written), gguf_files.metadata_of(written.config)
    )
    model = pn.models.load(path).model
    context = bench.Context(model, 9)
    expected = bench.dense(model, context, batch)(bench.Clock())
    step = bench.transformers(path, context, batch)
    for _ in range(3):  # a step leaves the cache as it was
        clock = bench.Clock()
        np.testing.assert_allclose(step(clock), expected, rtol=0, atol=1e-3)
        assert clock.step > 0
