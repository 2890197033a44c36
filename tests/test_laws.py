"""What must not change attention: how keys and values are stored, and how the work is divided.

`paged_numba.testing.laws` says which results are equal bit for bit, and which within rounding.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing import laws, properties
from paged_numba.testing.strategies import merge_parts, paged_batches, seeds

TARGET = "lockstep"
# Six algorithms are tried with each law, and most of them share kernels: half of the examples for each.
few = settings(max_examples=settings.default.max_examples // 2)
algorithms = pytest.mark.parametrize("algorithm", ["naive", "warp", "block", "tile", "split", "cascade"])


# Packed caches have a kernel of their own.
rows = paged_batches().filter(lambda batch: batch.layout != "packed")


def tokens(count, seed=0):
    return np.random.default_rng(seed).standard_normal((2, count, 2, 3)).astype(np.float32)


@algorithms
@few
@given(batch=rows, seed=seeds)
def test_attention_is_invariant_under_block_permutation(batch, seed, algorithm):
    order = np.random.default_rng(seed).permutation(len(batch.key_cache))
    laws.block_permutation(batch, order, algorithm, TARGET)


@algorithms
@few
@given(batch=rows)
def test_attention_is_the_same_in_either_layout(batch, algorithm):
    laws.layout(batch, algorithm, TARGET)


@algorithms
@few
@given(batch=rows, size=st.integers(1, 40), seed=seeds)
def test_attention_is_the_same_for_any_block_size(batch, size, seed, algorithm):
    laws.block_size(batch, size, seed, algorithm, TARGET)


@given(batch=rows, num_splits=st.integers(1, 9))
def test_attention_is_the_same_for_any_number_of_splits(batch, num_splits):
    laws.number_of_splits(batch, num_splits, TARGET)


@algorithms
@few
@given(batch=rows, cuts=st.lists(st.floats(0, 1), max_size=3), seed=seeds)
def test_any_chunking_of_a_prompt_gives_the_same_result(batch, cuts, seed, algorithm):
    # Some batches hold NaN in keys that their own tokens do not see, but tokens of the whole prompt see them.
    assume(not any(np.isnan(key.astype(np.float32)).any() for key in batch.keys))
    laws.chunking(batch, cuts, seed, algorithm, TARGET)


@given(parts=merge_parts())
def test_merging_is_associative_and_commutative(parts):
    laws.merging(parts, TARGET)


@given(batch=paged_batches(plain=True), cut=st.floats(0, 1))
def test_merging_parts_is_attention_to_the_whole(batch, cut):
    properties.merging_parts_is_attention_to_the_whole(batch, cut, TARGET)


def test_merging_with_nothing_is_the_identity():
    rng = np.random.default_rng(0)
    out, lse = (
        rng.standard_normal((2, 3, 5)).astype(np.float32),
        rng.standard_normal((2, 3)).astype(np.float32),
    )
    nothing = np.full_like(out, np.nan), np.full_like(lse, -np.inf)
    for parts in ((out, lse, *nothing), (*nothing, out, lse)):
        merged, merged_lse = pn.merge_states(*parts, target=TARGET)
        np.testing.assert_array_equal(merged, out)
        np.testing.assert_array_equal(merged_lse, lse)
    merged, merged_lse = pn.merge_states(*nothing, *nothing, target=TARGET)
    np.testing.assert_array_equal(merged, np.zeros_like(out))
    np.testing.assert_array_equal(merged_lse, nothing[1])


@pytest.mark.parametrize(("lse", "error"), [(100, 8e-6), (10_000, 0.001), (1e6, 0.0625)])
def test_merging_is_as_exact_as_the_lses(lse, error):
    # One key and three keys, all of the same score: the weight of the three is 3/4.
    rounded = [np.full((1, 1), lse + np.log(count), np.float32) for count in (1, 3)]
    outs = np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    merged, _ = pn.merge_states(outs[0], rounded[0], outs[1], rounded[1], target=TARGET)
    ratio = merged.item() / (1 - merged.item())
    assert np.spacing(np.float32(lse)) <= error
    assert abs(ratio / 3 - 1) <= error
    # No more can be had: at 1e6, the LSEs are 1.125 apart, and ln 3 is 1.0986.
    assert ratio == pytest.approx(np.exp(float(rounded[1].item()) - float(rounded[0].item())), rel=1e-6)


@given(shared=st.integers(0, 3), rests=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=seeds)
def test_cascade_attention_is_attention_to_prefix_and_rest(shared, rests, seed):
    rng = np.random.default_rng(seed)
    keys, values = rng.standard_normal((2, 16, 4, 2, 8)).astype(np.float32)
    query = 3 * rng.standard_normal((len(rests), 4, 8)).astype(np.float32)
    # The first blocks are every sequence's prefix: one sequence with many query tokens, and no causality among them.
    prefix = np.arange(shared, dtype=np.int32)
    own = shared + np.arange(3 * len(rests), dtype=np.int32).reshape(-1, 3)
    tables = np.concatenate([np.tile(prefix, (len(rests), 1)), own], axis=1)
    lens = np.array(rests, np.int32)
    whole = pn.paged_attention(query, keys, values, tables, lens + 4 * shared, return_lse=True, target=TARGET)
    to_prefix = pn.paged_attention(
        query, keys, values, prefix[None], np.array([4 * shared]), cu_seqlens_q=np.array([0, len(rests)]),
        causal=False, return_lse=True, target=TARGET,
    )  # fmt: skip
    to_rest = pn.paged_attention(query, keys, values, own, lens, return_lse=True, target=TARGET)
    merged = pn.merge_states(*to_prefix, *to_rest, target=TARGET)
    for result, expected in zip(merged, whole, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def grown(depth, data, lengths, deep):
    """Fork (or copy) and append `depth` times; return the cache, and the tokens of each sequence."""
    subject, dense = (
        pn.PagedKVCache(256, 4, num_kv_heads=2, head_dim=3, target=TARGET),
        {0: tokens(lengths[0])},
    )
    subject.add(0, *dense[0])
    for child in range(1, depth + 1):
        parent = data[child - 1] % child
        if deep:
            subject.add(child, *dense[parent])
        else:
            subject.fork(parent, child)
        dense[child] = dense[parent]
        for name in (parent, child):
            new = tokens(lengths[child], seed=1 + 2 * child + (name == child))
            subject.append(name, *new)
            dense[name] = np.concatenate([dense[name], new], axis=1)
    return subject, dense


@given(st.data(), st.integers(1, 6))
def test_fork_equals_a_deep_copy(data, depth):
    parents = data.draw(st.lists(st.integers(0, 5), min_size=depth, max_size=depth))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=depth + 1, max_size=depth + 1))
    forked, dense = grown(depth, parents, lengths, deep=False)
    copied, _ = grown(depth, parents, lengths, deep=True)
    query = tokens(depth + 1)[0]
    np.testing.assert_array_equal(forked.attend(list(dense), query), copied.attend(list(dense), query))
    for name in dense:
        np.testing.assert_array_equal(forked.gather(name), dense[name])
    assert forked.allocator.num_free_blocks >= copied.allocator.num_free_blocks


@given(st.data(), st.booleans())
def test_preempted_and_resumed_batch_equals_one_that_never_was(data, prefix_caching):
    # Keys and values by token id; 3 sequences with the same first 6 tokens, 8 steps of decode.
    table = tokens(40)
    ids = {name: [*range(6), 10 + name] for name in range(3)}

    def new():
        made = pn.PagedKVCache(
            32, 4, num_kv_heads=2, head_dim=3, prefix_caching=prefix_caching, target=TARGET
        )
        for name, prompt in ids.items():
            made.add(name, *table[:, prompt], prompt)
        return made

    never, preempted, known = new(), new(), {name: list(prompt) for name, prompt in ids.items()}
    for step in range(8):
        away = data.draw(st.dictionaries(st.integers(0, 2), st.sampled_from(("swap", "recompute"))))
        for name, way in away.items():
            (preempted.swap_out if way == "swap" else preempted.preempt)(name)
        if data.draw(st.booleans(), label="others take the blocks in between"):
            others = 100 + np.arange(4 * preempted.allocator.num_free_blocks)
            preempted.add("others", *tokens(len(others)), others)
            preempted.free("others")
        for name, way in away.items():
            if way == "swap":
                preempted.swap_in(name)
            else:
                preempted.add(name, *table[:, known[name]], known[name])
        for name, sequence in known.items():
            sequence.append(20 + (3 * step + name) % 20)
            for subject in (never, preempted):
                subject.append(name, *table[:, sequence[-1:]], sequence[-1:])
        query = tokens(3, seed=step)[0]
        np.testing.assert_array_equal(never.attend(range(3), query), preempted.attend(range(3), query))
        preempted.allocator.check()
