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
from paged_numba.models import LlamaConfig, random_llama
from paged_numba.testing.mutants import allocators, kernels

SAMPLING, BEAMS = (Lesson(TUTORIALS / f"{name}.py") for name in ("parallel_sampling", "beam_search"))
VOCABULARY = 29


def a_model(num_q_heads, num_kv_heads, head_dim):
    sizes = {"num_q_heads": num_q_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
    return random_llama(
        LlamaConfig(
            num_layers=2,
            hidden_size=16,
            intermediate_size=24,
            vocab_size=VOCABULARY,
            max_positions=64,
            **sizes,
        )
    )


MODELS = {shape: a_model(*shape) for shape in ((1, 1, 4), (4, 2, 8), (3, 3, 6))}

# Rounding explains about 2e-5 of logits with a standard deviation of 4, and of keys and values.
TOLERANCE = 2e-4

prompts = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20)
shapes = st.sampled_from(sorted(MODELS))


def a_cache(num_sequences, num_tokens, block_size, shape):
    """Return a cache with as many blocks as sequences that share nothing need."""
    num_blocks = num_sequences * -(-num_tokens // block_size)
    return pn.PagedKVCache(num_blocks, block_size, *shape[1:], num_layers=2, target="lockstep")


class Dense(NamedTuple):
    """A sequence without a paged cache: the logits after it, and the keys and values of each layer."""

    logits: Any
    stored: list


def dense(model, tokens):
    stored, attention = [], pn.models.DenseAttention("float64")

    def attend(layer, query, key, value):
        stored.append((key, value))
        return attention(layer, query, key, value)

    [logits] = model.forward(tokens, np.arange(len(tokens)), attend, rows=[-1])
    return Dense(logits, stored)


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
    prompt_len, written = len(made["prompt"]), len(made["tokens"]["a"])
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
    full, rest = divmod(len(made["prompt"]), 8)
    first = full + made["WIDTH"]
    assert f"{first} blocks in use, {made['WIDTH'] - 1} copied" in BEAMS.output
    assert rest == 1, "one token of the prompt in its last block"
    pool = made["pool"]
    for beam in made["beams"]:
        held = [pool.ref_count(block) for block in pool.block_table(beam.seq_id).tolist()]
        assert held == [made["WIDTH"]] * (len(held) - 2) + [1, 1], "the last two blocks are its own"
    BEAMS.check_numbers(
        claims={
            "the prompt has 33 tokens, a block 8": (len(made["prompt"]), made["pool"].block_size),
            "8 in use": first,
            "3 were copied": made["WIDTH"] - 1,
            "32 tokens": len(made["beams"][0].tokens),
        },
        given=["section 6.3", "37.6 to 55.2 %", "widths up to 6", "a pool of 20 blocks"],
    )


# Parallel sampling.


def test_blocks_by_hand():
    # 68 = 4 * 16 + 4 tokens: 4 shared blocks. 108 tokens take 7 blocks: 4 + 4 * 3 in use, 4 * 7 apart.
    assert SAMPLING.run()["blocks_by_hand"](68, 40, 4, 16) == (16, 28)


def check_stored(cache, seq_id, expected):
    """Compare all keys and values of a sequence, in each layer."""
    for layer, pair in enumerate(expected.stored):
        for stored, dense_ones in zip(cache.gather(seq_id, layer=layer), pair, strict=True):
            np.testing.assert_allclose(pn.arrays.to_host(stored), dense_ones, rtol=0, atol=TOLERANCE)


def check_sampling(cache, model, prompt, num_samples, new_tokens, seed):
    """Raise unless the samples have the logits of their tokens, and use the blocks that arithmetic gives."""
    made, pool, names = SAMPLING.run(), cache.allocator, [*range(num_samples)]
    steps, rng = made["sample"](cache, model, prompt, names, seed), np.random.default_rng(seed)
    _, logits = next(steps)
    assert pool.stats().num_used_blocks == -(-len(prompt) // pool.block_size)
    for row in logits:
        np.testing.assert_allclose(row, dense(model, prompt).logits, rtol=0, atol=TOLERANCE)
    for written in range(1, new_tokens + 1):
        before = {name: pool.block_table(name) for name in names}
        drawn = [made["draw"](rng, row) for row in logits]
        tokens, logits = next(steps)
        assert [tokens[name][-1] for name in names] == drawn
        for name, row in zip(names, logits, strict=True):
            expected = dense(model, prompt + tokens[name])
            np.testing.assert_allclose(row, expected.logits, rtol=0, atol=TOLERANCE)
        shared, apart = made["blocks_by_hand"](len(prompt), written, num_samples, pool.block_size)
        assert pool.stats().num_used_blocks == shared
        assert sum(pool.block_table(name).size for name in names) == apart
        copied = sum((pool.block_table(name)[: old.size] != old).sum() for name, old in before.items())
        assert copied == (num_samples - 1 if written == 1 and len(prompt) % pool.block_size else 0)
    for name in names:
        assert len(tokens[name]) == new_tokens
        check_stored(cache, name, dense(model, prompt + tokens[name]))
        cache.free(name)
    pool.check()
    assert pool.num_free_blocks == pool.num_blocks


def test_a_sample_is_drawn_from_the_softmax_of_the_logits():
    made, rng = SAMPLING.run(), np.random.default_rng(0)
    logits = np.log(np.array([0.5, 0.3, 0.2])) * made["TEMPERATURE"]
    counts = np.bincount([made["draw"](rng, logits) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2], atol=0.04)


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


# Beam search. The dense one has no paged cache: each step computes each beam again, from its prompt on.


def log_probabilities(model, tokens):
    """Return the logarithm of each token's probability to come next, from the definition of softmax."""
    logits = dense(model, tokens).logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits)


def dense_search(model, prompt, width):
    """Yield the scores of the beams by their tokens, and the margin before the best loser."""
    beams, margin = {(): 0.0}, math.inf
    while True:
        yield beams, margin
        candidates = [
            (score + float(more), (*tokens, token))
            for tokens, score in beams.items()
            for token, more in enumerate(log_probabilities(model, [*prompt, *tokens]))
        ]
        best = heapq.nlargest(width + 1, candidates)
        margin = best[width - 1][0] - best[width][0] if len(best) > width else math.inf
        beams = {tokens: score for score, tokens in best[:width]}


def check_beams(cache, model, prompt, width, new_tokens, search=None, unsure=lambda: None):
    """Raise unless the search equals the dense one; return the last beams.

    `unsure` is called where rounding may decide which beams win, so that both searches are right.
    """
    made, pool = BEAMS.run(), cache.allocator
    steps = (search or made["search"])(cache, model, prompt, width)
    plain = dense_search(model, prompt, width)
    next(steps), next(plain)
    for written in range(1, new_tokens + 1):
        beams, logits, copies = next(steps)
        expected, margin = next(plain)
        # An error of all logits changes a logarithm of a probability twice: through its logit, and through the sum.
        rounding = 2 * TOLERANCE * written
        if margin <= 2 * rounding:
            unsure()
        assert sorted(beam.tokens for beam in beams) == sorted(expected)
        assert all(abs(beam.score - expected[beam.tokens]) <= rounding for beam in beams)
        for beam, row in zip(beams, logits, strict=True):
            right = dense(model, [*prompt, *beam.tokens])
            np.testing.assert_allclose(row, right.logits, rtol=0, atol=TOLERANCE)
        # Of a parent's children, all but the last copy its last block, unless that is full.
        num_parents = len({beam.parent_id for beam in beams})
        assert copies == (width - num_parents if (len(prompt) + written - 1) % pool.block_size else 0)
        tables = [pool.block_table(beam.seq_id).tolist() for beam in beams]
        assert pool.stats().num_used_blocks == len(set(itertools.chain(*tables)))
        assert {len(table) for table in tables} == {-(-(len(prompt) + written) // pool.block_size)}
    for beam in beams:
        check_stored(cache, beam.seq_id, dense(model, [*prompt, *beam.tokens]))
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


def test_beam_as_wide_as_the_vocabulary_finds_the_best_pair_of_tokens():
    model, prompt = MODELS[4, 2, 8], [5, 9, 3, 17, 8, 8, 21, 2]
    cache = a_cache(VOCABULARY, len(prompt) + 2, 4, (4, 2, 8))
    beams = check_beams(cache, model, prompt, VOCABULARY, 2)
    first = log_probabilities(model, prompt)
    scores = {
        (token, last): first[token] + more
        for token in range(VOCABULARY)
        for last, more in enumerate(log_probabilities(model, [*prompt, token]))
    }
    best = sorted(scores, key=scores.get, reverse=True)
    assert [beam.tokens for beam in beams[:5]] == best[:5]
    np.testing.assert_allclose(
        [beam.score for beam in beams[:5]], [scores[tokens] for tokens in best[:5]], atol=1e-3
    )


# With something wrong under them.

SHAPE = (4, 2, 8)
ERRORS = (AssertionError, LookupError, MemoryError, ValueError, pn.errors.KernelError)


def short_run(example, search=None):
    model, prompt = MODELS[SHAPE], [*range(3, 24)]
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
