"""Properties that the operations have for any input: the tests draw inputs, and each mutant must break a property.

Each function raises AssertionError if its property does not hold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels, lockstep, ops, reference, targets
from ..tolerances import attention_tolerance, dense_tolerance, fixed_tolerance, storing_tolerance
from . import dense
from .strategies import TOKEN_AXES, PagedBatch, Tokens, laid_out


def attention_agrees_with_the_oracle(
    batch: PagedBatch, algorithm: str, target: str, num_splits: int | None = None
) -> None:
    """Paged attention agrees with dense float64 attention up to float32 rounding."""
    options = {**batch.options, **kernel_options(batch, algorithm, num_splits)}
    out, lse = ops.paged_attention(
        *attention_arguments(batch),
        cu_seqlens_q=batch.cu_seqlens_q,
        scale=batch.scale,
        return_lse=True,
        target=target,
        **options,
    )
    _agrees_with_the_oracle(batch, out, lse)


def textbook_attention_agrees_with_the_oracle(batch: PagedBatch, target: str) -> None:
    """`attention_textbook_kernel` agrees with dense float64 attention up to float32 rounding.

    Parameters
    ----------
    batch : PagedBatch
        From `paged_batches(plain=True)`.
    target : str
    """
    out = np.full_like(batch.query, np.nan)
    num_seqs, num_q_heads, head_dim = batch.query.shape
    scale = np.float32(1 / math.sqrt(head_dim) if batch.scale is None else batch.scale)
    arguments = (out, *attention_arguments(batch), scale)
    targets.launch(kernels.attention_textbook_kernel, num_seqs, num_q_heads, *arguments, target=target)
    _agrees_with_the_oracle(batch, out)


def a_block_far_into_the_cache_is_found(num_blocks: int, sizes: tuple[int, int, int], target: str) -> None:
    """`attention_textbook_kernel` finds the last block of a cache of any size.

    Parameters
    ----------
    num_blocks : int
    sizes : tuple of int
        block_size, num_kv_heads and head_dim.
    target : str
    """
    # Each block holds its own number everywhere: a view, which takes no memory of its own.
    numbers = np.arange(num_blocks, dtype=np.float32)
    cache = np.broadcast_to(numbers[:, None, None, None], (num_blocks, *sizes))
    query = np.zeros((1, *sizes[1:]), np.float32)
    out = np.full_like(query, np.nan)
    table, seq_lens = np.array([[num_blocks - 1]], np.int32), np.ones(1, np.int32)
    arguments = (out, query, cache, cache, table, seq_lens, np.float32(1))
    targets.launch(kernels.attention_textbook_kernel, 1, sizes[1], *arguments, target=target)
    if not (out == num_blocks - 1).all():  # pytest would add the whole array to the message of an assert
        raise AssertionError(f"block {num_blocks - 1} is asked for, {out.flat[0]:.0f} is read")


def _agrees_with_the_oracle(batch: PagedBatch, out: Any, lse: Any = None) -> None:
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        rows = batch.query_of(seq)
        dense = batch.query[rows], key, value
        expected, expected_lse = reference.attention(
            *dense, scale=batch.scale, **batch.options, return_lse=True
        )
        allowed = attention_tolerance(*dense, batch.scale, **batch.options)
        assert out.dtype == batch.query.dtype
        with np.errstate(invalid="ignore"):  # elements that a wrong kernel leaves unwritten may be any NaN
            error = np.abs(out[rows].astype(np.float64) - expected)
        # Twice the rounding of a stored number: its error may move the number into the next binade.
        most = allowed.out + 2 * storing_tolerance(expected, out.dtype)
        assert (error <= most).all(), (
            f"out of sequence {seq} is off by {error.max()}, {(error / most).max()} times the bound"
        )
        if lse is not None:
            message = f"lse of sequence {seq}"
            np.testing.assert_allclose(lse[rows], expected_lse, rtol=0, atol=allowed.lse, err_msg=message)


def attention_is_as_exact_as_dense_attention(
    batch: PagedBatch, runs: list[tuple[str, int | None]], target: str
) -> None:
    """Each error is within the fixed tolerance, and at most 3 times the largest error of dense attention.

    Parameters
    ----------
    batch : PagedBatch
        From `grid_batches`.
    runs : list of (str, int or None)
        Algorithms, each with its number of splits.
    target : str
    """
    shape = batch.query.shape[:2]
    expected = np.zeros((*shape, batch.values[0].shape[2])), np.zeros(shape)
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
            *attention_arguments(batch),
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
            with np.errstate(invalid="ignore"):
                error = np.abs(result[seen].astype(np.float64) - right)
            share = np.max(error / fixed_tolerance(right, result.dtype), initial=0.0)
            assert share <= 1, f"{what} is off by {error.max()}, {share} times the fixed tolerance"
            most = dense_tolerance(dense_error, right, result.dtype)
            assert error.max(initial=0.0) <= most, (
                f"{what} is off by {error.max()}, dense attention by {dense_error}: at most {most} is allowed"
            )


def merging_parts_is_attention_to_the_whole(batch: PagedBatch, cut: float, target: str) -> None:
    """Merging attention to the first keys of each sequence and to the rest gives attention to all keys."""
    whole, whole_lse = ops.paged_attention(
        *attention_arguments(batch), scale=batch.scale, return_lse=True, target=target
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
            # The output of a set without keys must not matter.
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
    """NaN in a key and its value changes no bit of the results of query tokens that do not see it.

    Parameters
    ----------
    batch : PagedBatch
    positions : float[num_seqs]
        Position of the NaN key in each sequence, as a share of the sequence, 0 to 1.
    algorithm, target : str
    """
    options = {
        "cu_seqlens_q": batch.cu_seqlens_q,
        **batch.options,
        **kernel_options(batch, algorithm),
        "target": target,
    }
    options["return_lse"] = True
    before = ops.paged_attention(*attention_arguments(batch), **options)
    caches = batch.key_cache.copy(), batch.value_cache.copy()
    # Several sequences may share a block.
    slots = {
        (int(batch.block_tables[seq, place // batch.block_size]), place % batch.block_size)
        for seq, share in enumerate(positions)
        for place in [min(int(batch.seq_lens[seq]) - 1, int(share * batch.seq_lens[seq]))]
        if place >= 0
    }
    for cache in caches:
        for block, offset in slots:
            np.moveaxis(cache, TOKEN_AXES[batch.layout], 1)[block, offset] = np.nan
    kept = np.ones(len(batch.query), bool)
    window = batch.options.get("window")
    for seq, length in enumerate(batch.seq_lens.tolist()):
        tokens, table = batch.query_of(seq), batch.block_tables[seq].tolist()
        for place in range(length):
            if (table[place // batch.block_size], place % batch.block_size) in slots:
                ahead = np.arange(length - (tokens.stop - tokens.start), length) - place
                sees = np.ones(len(ahead), bool)
                if batch.options.get("causal", True):
                    sees &= ahead >= 0
                if window is not None:
                    sees &= ahead < window
                kept[tokens] &= ~sees
    after = ops.paged_attention(batch.query, *caches, batch.block_tables, batch.seq_lens, **options)
    for old, new in zip(before, after, strict=True):
        assert_same_bits(new[kept], old[kept])


def a_row_that_sees_no_key_of_a_tile_stays_as_it_was(target: str) -> None:
    """A row does not change if its window hides all keys of a shared tile."""
    rng = np.random.default_rng(0)
    # 10 shared blocks of 16. The last token of one sequence sees keys from 129 on, the first of the other from 20 to
    # 51. Keys come in tiles of 64 from 20 on: the former sees none of the first tile, 20 to 83.
    key_cache, value_cache = rng.standard_normal((2, 12, 16, 1, 8)).astype(np.float32)
    tables = np.array([[*range(10), 10], [*range(10), 11]], np.int32)
    query = 3 * rng.standard_normal((34, 1, 8)).astype(np.float32)
    lens, starts, window = np.array([161, 84], np.int32), np.array([0, 1, 34]), 32
    out, lse = ops.paged_attention(
        query, key_cache, value_cache, tables, lens, cu_seqlens_q=starts, window=window, return_lse=True,
        algorithm="cascade", target=target,
    )  # fmt: skip
    for seq, length in enumerate(lens):
        rows = slice(starts[seq], starts[seq + 1])
        key, value = (cache[tables[seq]].reshape(-1, 1, 8)[:length] for cache in (key_cache, value_cache))
        expected = reference.attention(query[rows], key, value, window=window, return_lse=True)
        allowed = attention_tolerance(query[rows], key, value)
        np.testing.assert_allclose(out[rows], expected[0], rtol=0, atol=allowed.out)
        np.testing.assert_allclose(lse[rows], expected[1], rtol=0, atol=allowed.lse)


def the_sanitizer_finds_nothing(batch: PagedBatch, algorithm: str) -> None:
    """The sanitizer finds no race and no read of unwritten memory."""
    options = {**batch.options, **kernel_options(batch, algorithm)}
    with lockstep.sanitizing() as findings:
        ops.paged_attention(
            *attention_arguments(batch),
            cu_seqlens_q=batch.cu_seqlens_q,
            target="lockstep",
            **options,
        )
    assert not findings, str(findings)


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Raise unless two arrays have the same dtype and the same bits, NaN included."""
    assert actual.dtype == expected.dtype, f"{actual.dtype} is not {expected.dtype}"
    bits = f"u{actual.dtype.itemsize}"
    np.testing.assert_array_equal(
        np.ascontiguousarray(actual).view(bits), np.ascontiguousarray(expected).view(bits)
    )


def write_puts_each_token_into_its_slot(tokens: Tokens, target: str) -> None:
    """Written slots hold their tokens bit for bit; all other slots are unchanged."""
    caches = laid_out(tokens.caches, tokens.layout, tokens.head_dims)
    ops.write_kv(tokens.key, tokens.value, *caches, tokens.slots, layout=tokens.layout, target=target)
    expected = tokens.caches.copy()
    for token, slot in enumerate(tokens.slots.tolist()):
        if slot >= 0:
            block, offset = divmod(slot, expected.shape[2])
            for cache, part in zip(expected, (tokens.key, tokens.value), strict=True):
                cache[block, offset, :, : part.shape[2]] = part[token]
    for cache, wanted in zip(caches, laid_out(expected, tokens.layout, tokens.head_dims), strict=True):
        assert_same_bits(cache, wanted)


def gather_returns_what_was_written(batch: PagedBatch, target: str) -> None:
    """Gathering a sequence returns its keys and values bit for bit."""
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
    """Each destination becomes its source bit for bit, and no other block changes.

    Parameters
    ----------
    tokens : Tokens
    order : int[num_blocks]
        A permutation of the blocks; the first half is copied to the second half.
    target : str
    """
    half = len(order) // 2
    pairs = np.stack([order[:half], order[half : 2 * half]], axis=1).astype(np.int64)
    caches = laid_out(tokens.caches, tokens.layout, tokens.head_dims)
    ops.copy_blocks(*caches, pairs, layout=tokens.layout, target=target)
    expected = tokens.caches.copy()
    for src, dst in pairs.tolist():
        expected[:, dst] = tokens.caches[:, src]
    for cache, wanted in zip(caches, laid_out(expected, tokens.layout, tokens.head_dims), strict=True):
        assert_same_bits(cache, wanted)


def attention_arguments(batch: PagedBatch) -> tuple[Any, Any, Any, Any, Any]:
    """Return the positional arguments of `paged_attention`."""
    return batch.query, batch.key_cache, batch.value_cache, batch.block_tables, batch.seq_lens


def kernel_options(batch: PagedBatch, algorithm: str, num_splits: int | None = None) -> dict[str, Any]:
    """Return the options that choose the kernel; packed caches have only one kernel."""
    if batch.layout == "packed":
        return {"layout": "packed"}
    return {"layout": batch.layout, "algorithm": algorithm, "num_splits": num_splits}
