"""What must hold of the operations, for any input: the tests draw inputs, the mutants must break one.

Each function raises AssertionError where the property does not hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops, reference
from . import dense
from .strategies import PagedBatch, Tokens
from .tolerances import attention_tolerance, dense_tolerance, fixed_tolerance, storing_tolerance


def attention_agrees_with_the_oracle(
    batch: PagedBatch, algorithm: str, target: str, num_splits: int | None = None
) -> None:
    """Paged attention is dense attention in float64, but for the rounding of float32."""
    out, lse = ops.paged_attention(
        *_attention_arguments(batch),
        cu_seqlens_q=batch.cu_seqlens_q,
        scale=batch.scale,
        **batch.options,
        return_lse=True,
        algorithm=algorithm,
        num_splits=num_splits,
        layout=batch.layout,
        target=target,
    )
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        rows = batch.query_of(seq)
        dense = batch.query[rows], key, value
        expected, expected_lse = reference.attention(
            *dense, scale=batch.scale, **batch.options, return_lse=True
        )
        allowed = attention_tolerance(*dense, batch.scale, **batch.options)
        assert out.dtype == batch.query.dtype
        error = np.abs(out[rows].astype(np.float64) - expected)
        # Twice for what is stored: the error may move a number into the next binade.
        most = allowed.out + 2 * storing_tolerance(expected, out.dtype)
        assert (error <= most).all(), (
            f"out of {seq} is off by {error.max()}, {(error / most).max()} times the bound"
        )
        np.testing.assert_allclose(lse[rows], expected_lse, rtol=0, atol=allowed.lse, err_msg=f"lse of {seq}")


def attention_is_as_exact_as_dense_attention(
    batch: PagedBatch, runs: list[tuple[str, int | None]], target: str
) -> None:
    """Each error is within the fixed tolerance, the largest of a batch within thrice that of dense attention.

    Parameters
    ----------
    batch : PagedBatch
        From `grid_batches`.
    runs : list of (str, int or None)
        Algorithms, each with its number of splits.
    target : str
    """
    expected = np.zeros(batch.query.shape), np.zeros(batch.query.shape[:2])
    dense_errors = [0.0, 0.0]
    options = {"scale": batch.scale, **batch.options}
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        rows = batch.query_of(seq)
        inputs = batch.query[rows], key, value
        of_seq = reference.attention(*inputs, **options, return_lse=True)
        expected[0][rows], expected[1][rows] = of_seq
        errors = dense.rounding_errors(*inputs, of_seq, **options)
        dense_errors = [max(pair) for pair in zip(dense_errors, errors, strict=True)]
    for algorithm, num_splits in runs:
        results = ops.paged_attention(
            *_attention_arguments(batch),
            cu_seqlens_q=batch.cu_seqlens_q,
            **options,
            return_lse=True,
            algorithm=algorithm,
            num_splits=num_splits,
            layout=batch.layout,
            target=target,
        )
        for name, result, right, dense_error in zip(
            ("out", "lse"), results, expected, dense_errors, strict=True
        ):
            what = f"{name} of {algorithm} (num_splits={num_splits})"
            seen = np.isfinite(right)
            np.testing.assert_array_equal(result[~seen], right[~seen], err_msg=what)
            right = right[seen]
            error = np.abs(result[seen].astype(np.float64) - right)
            share = np.max(error / fixed_tolerance(right, result.dtype), initial=0.0)
            assert share <= 1, f"{what} is off by {error.max()}, {share} times the fixed tolerance"
            most = dense_tolerance(dense_error, right, result.dtype)
            assert error.max(initial=0.0) <= most, (
                f"{what} is off by {error.max()}, dense attention by {dense_error}: at most {most} is allowed"
            )


def merging_parts_is_attention_to_the_whole(batch: PagedBatch, cut: float, target: str) -> None:
    """Merging attention to the first and to the other keys of each sequence is attention to all."""
    whole, whole_lse = ops.paged_attention(
        *_attention_arguments(batch), scale=batch.scale, return_lse=True, target=target
    )
    parts = []
    for keep_first in (True, False):
        outs, lses = [], []
        for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            place = int(cut * len(key))
            kept = slice(0, place) if keep_first else slice(place, None)
            out, lse = reference.attention(
                batch.query[seq : seq + 1], key[kept], value[kept], scale=batch.scale, return_lse=True
            )
            # What a set without keys has as output must not matter.
            outs.append(np.where(np.isneginf(lse[0])[:, None], np.nan, out[0]))
            lses.append(lse[0])
        parts += [np.array(outs, np.float32), np.array(lses, np.float32)]
    merged, merged_lse = ops.merge_states(*parts, target=target)
    swapped, swapped_lse = ops.merge_states(*parts[2:], *parts[:2], target=target)
    np.testing.assert_array_equal(merged_lse, swapped_lse)
    np.testing.assert_allclose(merged, swapped, rtol=1e-6, atol=1e-6)
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        allowed = attention_tolerance(batch.query[seq : seq + 1], key, value, batch.scale)
        np.testing.assert_allclose(merged[seq], whole[seq], rtol=0, atol=2 * allowed.out)
        np.testing.assert_allclose(merged_lse[seq], whole_lse[seq], rtol=0, atol=2 * allowed.lse)


def no_token_notices_what_it_does_not_see(
    batch: PagedBatch, positions: Any, algorithm: str, target: str
) -> None:
    """NaN in a key and its value changes no bit for the query tokens that do not see it.

    Parameters
    ----------
    batch : PagedBatch
    positions : float[num_seqs]
        Of that key in each sequence, 0 to 1.
    algorithm, target : str
    """
    options = {"cu_seqlens_q": batch.cu_seqlens_q, **batch.options, "layout": batch.layout, "target": target}
    options.update(algorithm=algorithm, return_lse=True)
    before = ops.paged_attention(*_attention_arguments(batch), **options)
    caches = batch.key_cache.copy(), batch.value_cache.copy()
    kept = np.ones(len(batch.query), bool)
    window = batch.options.get("window")
    for seq, share in enumerate(positions):
        length = int(batch.seq_lens[seq])
        if not length:
            continue
        place = min(length - 1, int(share * length))
        block, offset = batch.block_tables[seq, place // batch.block_size], place % batch.block_size
        for cache in caches:
            (cache if batch.layout == "NHD" else cache.swapaxes(1, 2))[block, offset] = np.nan
        tokens = batch.query_of(seq)
        ahead = np.arange(length - (tokens.stop - tokens.start), length) - place
        sees = np.ones(len(ahead), bool)
        if batch.options.get("causal", True):
            sees &= ahead >= 0
        if window is not None:
            sees &= ahead < window
        kept[tokens] = ~sees
    after = ops.paged_attention(batch.query, *caches, batch.block_tables, batch.seq_lens, **options)
    for old, new in zip(before, after, strict=True):
        assert_same_bits(new[kept], old[kept])


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Raise unless two arrays have one dtype and the same bits, NaN included."""
    assert actual.dtype == expected.dtype, f"{actual.dtype} is not {expected.dtype}"
    bits = f"u{actual.dtype.itemsize}"
    np.testing.assert_array_equal(
        np.ascontiguousarray(actual).view(bits), np.ascontiguousarray(expected).view(bits)
    )


def write_puts_each_token_into_its_slot(tokens: Tokens, target: str) -> None:
    """Written slots hold the tokens bit for bit; all others, and those of skipped tokens, are untouched."""
    caches = tokens.caches.copy()
    ops.write_kv(
        tokens.key, tokens.value, caches[0], caches[1], tokens.slots, layout=tokens.layout, target=target
    )
    expected = tokens.caches.copy()
    by_block = expected if tokens.layout == "NHD" else expected.swapaxes(2, 3)
    for token, slot in enumerate(tokens.slots.tolist()):
        if slot >= 0:
            block, offset = divmod(slot, by_block.shape[2])
            by_block[:, block, offset] = tokens.key[token], tokens.value[token]
    assert_same_bits(caches, expected)


def gather_returns_what_was_written(batch: PagedBatch, target: str) -> None:
    """Gathering a sequence gives its keys and values bit for bit."""
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        gathered = ops.gather_kv(
            batch.key_cache,
            batch.value_cache,
            batch.block_tables[seq],
            len(key),
            layout=batch.layout,
            target=target,
        )
        assert_same_bits(gathered[0], key)
        assert_same_bits(gathered[1], value)


def copy_duplicates_blocks(tokens: Tokens, order: Any, target: str) -> None:
    """Each dst is its src bit for bit, and no other block changes; `order` permutes the blocks."""
    half = len(order) // 2
    pairs = np.stack([order[:half], order[half : 2 * half]], axis=1).astype(np.int64)
    caches = tokens.caches.copy()
    ops.copy_blocks(caches[0], caches[1], pairs, layout=tokens.layout, target=target)
    expected = tokens.caches.copy()
    for src, dst in pairs.tolist():
        expected[:, dst] = tokens.caches[:, src]
    assert_same_bits(caches, expected)


def _attention_arguments(batch: PagedBatch) -> tuple[Any, ...]:
    return batch.query, batch.key_cache, batch.value_cache, batch.block_tables, batch.seq_lens
