"""The worked examples: as their readers run them, as properties, and with wrong allocators and kernels under them."""

import heapq
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from reading import TUTORIALS, Lesson

import paged_numba as pn
from paged_numba.serving.toy.model import ToyModel
from paged_numba.testing.mutants import allocators, kernels
from paged_numba.tolerances import attention_tolerance

SAMPLING, BEAMS = (Lesson(TUTORIALS / f"{name}.py") for name in ("parallel_sampling", "beam_search"))
MODELS = {shape: ToyModel(*shape) for shape in ((1, 1, 3), (4, 2, 8), (3, 3, 5))}

prompts = st.binary(min_size=1, max_size=20)
shapes = st.sampled_from(sorted(MODELS))


def a_cache(num_sequences, num_tokens, block_size, shape):
    """Return a cache with as many blocks as sequences that share nothing need."""
    num_blocks = num_sequences * -(-num_tokens // block_size)
    return pn.PagedKVCache(num_blocks, block_size, *shape[1:], target="lockstep")


# As scripts.


@pytest.mark.parametrize("example", [SAMPLING, BEAMS], ids=["sampling", "beams"])
def test_example_has_the_form_of_a_lesson(example):
    assert len(example.text.splitlines()) <= 150
    assert "?**" in example.cells[0][0]
    assert "You will see" in example.cells[0][0]
    assert max(map(len, example.output.splitlines())) <= 110
    pictures = [line.split()[-1][:-1] for line in example.output.splitlines() if line.startswith("Saved as")]
    assert sorted(example.saved) == sorted(pictures)
    assert all(text.startswith("<svg") for text in example.saved.values())


def test_numbers_in_the_prose_of_parallel_sampling():
    made = SAMPLING.run()
    prompt_len, written = len(made["PROMPT"]), len(made["texts"]["a"])
    full, rest = divmod(prompt_len, 16)
    SAMPLING.check_numbers(
        claims={
            "the prompt has 68 tokens and a block 16": (prompt_len, made["pool"].block_size),
            "5, as for a single sample": full + 1,
            "one with 4 tokens": rest,
            "Each has the reference count 4": len(made["names"]),
            "to 40 tokens": written,
            "so that 64 are left": full * 16,
        },
        # Kwon et al., SOSP 2023, section 6.3.
        given=["section 6.3", "6.1 to 9.8 %"],
    )
    assert "blocks in use 8\n" in SAMPLING.output, "three copies beside the five blocks"
    assert "reference counts [4, 4, 4, 4, 4]" in SAMPLING.output
    assert f"saved here: {made['saving'](68, 4):.1f} %" in SAMPLING.output


def test_numbers_in_the_prose_of_beam_search():
    made = BEAMS.run()
    full, rest = divmod(len(made["PROMPT"]), 8)
    first = full + made["WIDTH"]
    assert f"{first} blocks in use, {made['WIDTH'] - 1} copied" in BEAMS.output
    assert rest == 1, "one token of the prompt in its last block"
    BEAMS.check_numbers(
        claims={
            "the prompt has 33 tokens, a block 8": (len(made["PROMPT"]), made["pool"].block_size),
            "8 in use": first,
            "3 were copied": made["WIDTH"] - 1,
            "32 letters": len(made["beams"][0].text),
        },
        given=["section 6.3", "37.6 to 55.2 %", "widths up to 6", "a pool of 20 blocks"],
    )


# Parallel sampling.


def test_blocks_by_hand():
    # 68 = 4 * 16 + 4 tokens: 4 shared blocks. 108 tokens take 7 blocks: 4 + 4 * 3 in use, 4 * 7 apart.
    assert SAMPLING.run()["blocks_by_hand"](68, 40, 4, 16) == (16, 28)


def check_output(out, query, key, value):
    """Compare an attention output with dense float64 attention; return the error that rounding explains."""
    expected, allowed = (
        pn.reference.attention(query, key, value)[0],
        attention_tolerance(query, key, value).out,
    )
    assert np.abs(out - expected).max() <= allowed
    return allowed


def check_stored(cache, seq_id, key, value):
    """Compare all keys and values of a sequence, bit for bit."""
    for stored, expected in zip(cache.gather(seq_id), (key, value), strict=True):
        np.testing.assert_array_equal(pn.arrays.to_host(stored), expected)


def check_sampling(cache, model, prompt, num_samples, new_tokens, seed):
    """Raise unless the samples attend to what they wrote, and use the blocks that arithmetic gives."""
    made, pool, names = SAMPLING.run(), cache.allocator, [*range(num_samples)]
    steps = made["sample"](cache, model, prompt, names, seed)
    texts, _ = next(steps)
    assert pool.stats().num_used_blocks == -(-len(prompt) // pool.block_size)
    query, key, value = model.project(np.frombuffer(prompt, np.uint8), 0)
    held = dict.fromkeys(names, (query[-1:], key, value))
    for written in range(1, new_tokens + 1):
        before = {name: pool.block_table(name) for name in names}
        texts, out = next(steps)
        for name, row in zip(names, out, strict=True):
            check_output(row, *held[name])
            token = np.frombuffer(texts[name][-1:], np.uint8)
            new = model.project(token, len(prompt) + written - 1)
            held[name] = (
                new[0],
                *(np.concatenate(pair) for pair in zip(held[name][1:], new[1:], strict=True)),
            )
        shared, apart = made["blocks_by_hand"](len(prompt), written, num_samples, pool.block_size)
        assert pool.stats().num_used_blocks == shared
        assert sum(pool.block_table(name).size for name in names) == apart
        copied = sum((pool.block_table(name)[: old.size] != old).sum() for name, old in before.items())
        assert copied == (num_samples - 1 if written == 1 and len(prompt) % pool.block_size else 0)
    for name in names:
        assert len(texts[name]) == new_tokens
        check_stored(cache, name, *held[name][1:])
        cache.free(name)
    pool.check()
    assert pool.num_free_blocks == pool.num_blocks


@given(
    prompt=prompts,
    num_samples=st.integers(1, 5),
    new_tokens=st.integers(1, 6),
    block_size=st.integers(1, 9),
    shape=shapes,
    seed=st.integers(0, 99),
)
def test_samples_hold_what_they_wrote(prompt, num_samples, new_tokens, block_size, shape, seed):
    cache = a_cache(num_samples, len(prompt) + new_tokens, block_size, shape)
    check_sampling(cache, MODELS[shape], prompt, num_samples, new_tokens, seed)


# Beam search. The dense one has no paged cache: each beam has its own keys and values.


class DenseBeam(NamedTuple):
    text: bytes
    score: float
    query: Any
    key: Any
    value: Any


def dense_search(model, prompt, width):
    """Search in float64; yield the beams by text, and the margin in score before the best loser."""
    made = BEAMS.run()
    query, key, value = model.project(np.frombuffer(prompt, np.uint8), 0)
    beams, margin = {b"": DenseBeam(b"", 0.0, query[-1:], key, value)}, math.inf
    while True:
        yield beams, margin
        candidates = []
        for beam in beams.values():
            out = pn.reference.attention(beam.query, beam.key, beam.value)
            [scores] = made["log_probabilities"](model, out)
            pairs = zip(made["LETTERS"].tolist(), scores, strict=True)
            candidates += [(beam.score + float(score), beam.text, letter) for letter, score in pairs]
        best = heapq.nlargest(width + 1, candidates)
        margin = best[width - 1][0] - best[width][0] if len(best) > width else math.inf
        parents, beams = beams, {}
        for score, text, letter in best[:width]:
            parent = parents[text]
            query, key, value = model.project(np.array([letter], np.uint8), len(parent.key))
            beams[text + bytes([letter])] = DenseBeam(
                text + bytes([letter]),
                score,
                query,
                np.concatenate([parent.key, key]),
                np.concatenate([parent.value, value]),
            )


def check_beams(cache, model, prompt, width, new_tokens, search=None, unsure=lambda: None):
    """Raise unless the search equals the dense one; return the last beams.

    `unsure` is called where rounding may decide which beams win, so that both searches are right.
    """
    made, pool = BEAMS.run(), cache.allocator
    # Largest effect of an output's error on a log-probability: once through its logit, once through the sum of
    # all. Errors of many elements, and of many steps, are independent, so their squares add up.
    columns = model.to_logits[:, made["LETTERS"]]
    gain = 2 * float(np.linalg.norm(columns, axis=0).max()) / made["TEMPERATURE"]
    steps = (search or made["search"])(cache, model, prompt, width)
    dense = dense_search(model, prompt, width)
    (parents, *_), (known, _) = next(steps), next(dense)
    rounding = 0.0
    for written in range(1, new_tokens + 1):
        beams, out, copies = next(steps)
        expected, margin = next(dense)
        allowed = [check_output(row, *known[beam.text][2:]) for beam, row in zip(parents, out, strict=True)]
        rounding = math.hypot(rounding, gain * max(allowed))
        if margin <= 2 * rounding:
            unsure()
        assert sorted(beam.text for beam in beams) == sorted(expected)
        assert all(abs(beam.score - expected[beam.text].score) <= rounding for beam in beams)
        # Of a parent's children, all but the last copy its last block, unless that is full.
        num_parents = len({beam.parent_id for beam in beams})
        assert copies == (width - num_parents if (len(prompt) + written - 1) % pool.block_size else 0)
        tables = [pool.block_table(beam.seq_id).tolist() for beam in beams]
        assert pool.stats().num_used_blocks == len(set(itertools.chain(*tables)))
        assert {len(table) for table in tables} == {-(-(len(prompt) + written) // pool.block_size)}
        parents, known = beams, expected
    for beam in beams:
        check_stored(cache, beam.seq_id, *known[beam.text][3:])
        cache.free(beam.seq_id)
    pool.check()
    assert pool.num_free_blocks == pool.num_blocks
    return beams


@given(
    prompt=prompts,
    width=st.integers(1, 5),
    new_tokens=st.integers(1, 6),
    block_size=st.integers(1, 9),
    shape=shapes,
)
def test_beam_search_equals_the_dense_one(prompt, width, new_tokens, block_size, shape):
    cache = a_cache(width, len(prompt) + new_tokens, block_size, shape)
    check_beams(cache, MODELS[shape], prompt, width, new_tokens, unsure=reject)


def test_beam_as_wide_as_the_alphabet_finds_the_best_pair_of_letters():
    made, model, prompt = BEAMS.run(), MODELS[4, 2, 8], b"Which two?"
    letters = made["LETTERS"].tobytes()
    cache = a_cache(len(letters), len(prompt) + 2, 4, (4, 2, 8))
    beams = check_beams(cache, model, prompt, len(letters), 2)

    def log_probabilities(text):
        query, key, value = model.project(np.frombuffer(text, np.uint8), 0)
        [scores] = made["log_probabilities"](model, pn.reference.attention(query[-1:], key, value))
        return dict(zip(letters, scores, strict=True))

    first = log_probabilities(prompt)
    second = {letter: log_probabilities(prompt + bytes([letter])) for letter in letters}
    scores = {
        bytes(pair): first[pair[0]] + second[pair[0]][pair[1]]
        for pair in itertools.product(letters, repeat=2)
    }
    best = sorted(scores, key=scores.get, reverse=True)
    assert [beam.text for beam in beams[:5]] == best[:5]
    np.testing.assert_allclose(
        [beam.score for beam in beams[:5]], [scores[text] for text in best[:5]], atol=1e-4
    )


# With something wrong under them.

SHAPE = (8, 2, 64)
ERRORS = (AssertionError, LookupError, MemoryError, ValueError, pn.errors.KernelError)


def short_run(example, search=None):
    model, prompt = ToyModel(*SHAPE), BEAMS.run()["PROMPT"]
    cache = a_cache(4, len(prompt) + 8, 8, SHAPE)
    if example == "sampling":
        check_sampling(cache, model, prompt, 4, 8, seed=0)
    else:
        check_beams(cache, model, prompt, 4, 8, search)


either = pytest.mark.parametrize("example", ["sampling", "beams"])


@either
def test_checks_pass_with_nothing_wrong(example):
    short_run(example)


@either
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
def test_checks_notice_a_wrong_allocator(example, mutant, monkeypatch):
    monkeypatch.setattr("paged_numba.cache.kv_cache.BlockAllocator", mutant)
    with pytest.raises(ERRORS):
        short_run(example)


@either
@pytest.mark.parametrize("kernel", ["values not copied", "last token missed"])
def test_checks_notice_a_wrong_kernel(example, kernel):
    mutant = next(
        m
        for m in kernels.KERNEL_MUTANTS
        if m.name == kernel and m.module in ("copy_blocks", "attention_block")
    )
    with kernels.installed(mutant), pytest.raises(ERRORS):
        short_run(example)


def test_checks_notice_beams_that_are_not_the_best(monkeypatch):
    monkeypatch.setattr(np, "argsort", lambda scores, **_: np.arange(scores.size))
    with pytest.raises(AssertionError):
        short_run("beams")


def test_checks_notice_a_wrong_score():
    def wrong_scores(*inputs):
        for beams, *rest in BEAMS.run()["search"](*inputs):
            yield [beam._replace(score=beam.score + 0.1) for beam in beams], *rest

    with pytest.raises(AssertionError):
        short_run("beams", wrong_scores)
