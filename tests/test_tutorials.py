"""The tutorials: as their readers run them, as properties, and with wrong allocators and kernels under them."""

import functools
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.serving.toy_model import ToyModel
from paged_numba.testing.mutants import allocators, kernels

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
MODELS = ((1, 1, 3), (4, 2, 8), (3, 3, 5))

toy_model = functools.cache(ToyModel)
prompts = st.binary(min_size=1, max_size=20)


@functools.cache
def tutorial(name):
    spec = importlib.util.spec_from_file_location(f"tutorial_{name}", TUTORIALS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


def make_cache(num_sequences, num_tokens, block_size, shape):
    """Return a cache with as many blocks as sequences that share nothing need."""
    num_blocks = num_sequences * -(-num_tokens // block_size)
    return pn.PagedKVCache(num_blocks, block_size, *shape[1:], target="lockstep")


def run_script(name, folder):
    return subprocess.run(
        [sys.executable, str(TUTORIALS / f"{name}.py")],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAGED_NUMBA_TARGET": "lockstep"},
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "passages"),
    [
        ("parallel_sampling", ["copy-on-write", "6.1 - 9.8 %", "prompt tokens  2 samples"]),
        (
            "beam_search",
            ["Beams without a child: 4", "37.6 - 55.2 %", "forks lead to it", "closest decision"],
        ),
    ],
)
def test_script_tells_its_story_in_an_empty_folder(name, passages, tmp_path):
    done = run_script(name, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    for passage in [*passages, "on the target lockstep", "references 4 4 4 4", "Kwon et al., SOSP 2023"]:
        assert text.count(" ".join(passage.split())) >= 1, passage
    assert text.count(" %") == 1, "the paper's figures are quoted once"
    assert text.endswith("Passed.")
    assert "FAILED" not in text
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert not list(tmp_path.iterdir())


def test_blocks_by_hand():
    # 68 = 4 * 16 + 4 tokens: 4 shared blocks. 108 tokens take 7 blocks: 4 + 4 * 3 in use, 4 * 7 apart.
    assert tutorial("parallel_sampling").blocks_by_hand(68, 40, 4, 16) == (16, 28)


@given(
    prompt=prompts,
    num_samples=st.integers(1, 5),
    new_tokens=st.integers(1, 6),
    block_size=st.integers(1, 9),
    shape=st.sampled_from(MODELS),
    seed=st.integers(0, 99),
)
def test_samples_hold_what_they_wrote(prompt, num_samples, new_tokens, block_size, shape, seed):
    sampling = tutorial("parallel_sampling")
    cache = make_cache(num_samples, len(prompt) + new_tokens, block_size, shape)
    samples = sampling.start(cache, toy_model(*shape), prompt, num_samples)
    assert cache.allocator.stats().num_used_blocks == -(-len(prompt) // block_size)
    checks = sampling.Checks()
    steps = sampling.generate(cache, toy_model(*shape), samples, new_tokens, seed, checks)
    for written, copies in enumerate(steps, start=1):
        expected = sampling.blocks_by_hand(len(prompt), written, num_samples, block_size)
        assert sampling.blocks_in_use(cache) == expected
        assert len(copies) == (num_samples - 1 if written == 1 and len(prompt) % block_size else 0)
    for sample in samples:
        checks.stored(cache, sample)
    assert checks.failures == []
    assert checks.outputs == num_samples * new_tokens
    assert [len(sample.text) for sample in samples] == [new_tokens] * num_samples


@given(
    prompt=prompts,
    width=st.integers(1, 5),
    new_tokens=st.integers(1, 6),
    block_size=st.integers(1, 9),
    shape=st.sampled_from(MODELS),
)
def test_beam_search_equals_the_dense_one(prompt, width, new_tokens, block_size, shape):
    beam_search = tutorial("beam_search")
    cache = make_cache(width, len(prompt) + new_tokens, block_size, shape)
    checks = beam_search.Checks()
    steps = list(beam_search.checked_search(cache, toy_model(*shape), prompt, width, new_tokens, checks))
    # Where rounding may decide who wins, both searches are right.
    assume(checks.margin > 2 * checks.score_rounding)
    assert checks.failures == []
    assert checks.outputs == 1 + width * (new_tokens - 1)
    assert checks.scores == width * new_tokens
    assert checks.stored == width
    cache.allocator.check()
    for step in steps:
        assert step.used <= step.apart
        assert sum(step.num_children.values()) == width
        assert len(step.copies) <= width - len(step.num_children)
    for beam in steps[-1].beams:
        cache.free(beam.seq_id)
    assert cache.allocator.num_free_blocks == cache.allocator.num_blocks


def test_beam_as_wide_as_the_alphabet_finds_the_best_pair_of_letters():
    beam_search = tutorial("beam_search")
    model, prompt, letters = ToyModel(4, 2, 8), b"Which two?", beam_search.LETTERS.tobytes()
    cache = make_cache(len(letters), len(prompt) + 2, 4, (4, 2, 8))
    checks = beam_search.Checks()
    *_, last = beam_search.checked_search(cache, model, prompt, len(letters), 2, checks)
    assert checks.failures == []

    def log_probabilities(text):
        query, key, value = model.project(np.frombuffer(text, np.uint8), 0)
        return beam_search.log_probabilities(model, pn.reference.attention(query[-1:], key, value)[0])

    first = dict(zip(letters, log_probabilities(prompt), strict=True))
    second = {a: dict(zip(letters, log_probabilities(prompt + bytes([a])), strict=True)) for a in letters}
    scores = {
        bytes(pair): first[pair[0]] + second[pair[0]][pair[1]]
        for pair in itertools.product(letters, repeat=2)
    }
    best = sorted(scores, key=scores.get, reverse=True)
    assert [beam.text for beam in last.beams[:5]] == best[:5]
    np.testing.assert_allclose(
        [beam.score for beam in last.beams[:5]], [scores[text] for text in best[:5]], atol=1e-4
    )


def fails(name, monkeypatch, capsys):
    """Tell whether a short run of a tutorial ends as a failure: by its checks or with an exception."""
    module = tutorial(name)
    monkeypatch.setenv("PAGED_NUMBA_TARGET", "lockstep")
    monkeypatch.setattr(module, "NEW_TOKENS", 8)
    try:
        status = module.main()
    except (AssertionError, LookupError, MemoryError, ValueError, pn.errors.KernelError):
        return True
    assert bool(re.search("FAILED", capsys.readouterr().out)) == bool(status)
    return status == 1


@pytest.mark.parametrize("name", ["parallel_sampling", "beam_search"])
@pytest.mark.parametrize(
    "mutant",
    [
        allocators.CopyOnWriteForgotten,
        allocators.CopyNotReported,
        allocators.CopiesTheWrongWay,
        allocators.BlockFreedTwice,
        allocators.LastBlockLeaked,
        allocators.ForkWithoutReferences,
        allocators.ForkSharesTheTable,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_tutorial_notices_a_wrong_allocator(name, mutant, monkeypatch, capsys):
    monkeypatch.setattr("paged_numba.cache.BlockAllocator", mutant)
    assert fails(name, monkeypatch, capsys)


@pytest.mark.parametrize("name", ["parallel_sampling", "beam_search"])
@pytest.mark.parametrize("kernel", ["values not copied", "last token missed"])
def test_tutorial_notices_a_wrong_kernel(name, kernel, monkeypatch, capsys):
    mutant = next(
        m
        for m in kernels.KERNEL_MUTANTS
        if m.name == kernel and m.module in ("copy_blocks", "attention_block")
    )
    with kernels.installed(mutant):
        assert fails(name, monkeypatch, capsys)


@pytest.mark.parametrize("name", ["parallel_sampling", "beam_search"])
def test_tutorial_passes_the_same_short_run_with_nothing_wrong(name, monkeypatch, capsys):
    assert not fails(name, monkeypatch, capsys)


def test_beam_search_notices_beams_that_are_not_the_best(monkeypatch, capsys):
    monkeypatch.setattr(np, "argsort", lambda scores, **_: np.arange(scores.size))
    assert fails("beam_search", monkeypatch, capsys)


def test_beam_search_notices_a_wrong_score(monkeypatch, capsys):
    beam_search = tutorial("beam_search")
    search = beam_search.search

    def search_with_wrong_scores(*inputs):
        for step in search(*inputs):
            yield replace(step, beams=[replace(beam, score=beam.score + 0.1) for beam in step.beams])

    monkeypatch.setattr(beam_search, "search", search_with_wrong_scores)
    assert fails("beam_search", monkeypatch, capsys)
