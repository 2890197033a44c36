"""Laws: attention does not depend on how keys and values are stored, nor on how the work is divided.

Each function raises AssertionError if its law does not hold. If a kernel sums in the same
order, results are equal bit for bit, as the docstrings say; otherwise they differ by at most twice the tolerance.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .. import ops, reference
from ..tolerances import UNIT_ROUNDOFF, attention_tolerance, storing_tolerance
from .properties import assert_same_bits, attention_arguments, kernel_options
from .strategies import PagedBatch, scattered


def block_permutation(batch: PagedBatch, order: Any, algorithm: str, target: str) -> None:
    """Moving the blocks in the pool changes no bit.

    Parameters
    ----------
    batch : PagedBatch
    order : int[num_blocks]
        The block that moves to each place.
    algorithm, target : str
    """
    moved_to = np.empty(len(order), np.int32)
    moved_to[order] = np.arange(len(order))
    tables = batch.block_tables.copy()
    in_use = np.arange(tables.shape[1]) < -(-batch.seq_lens[:, None] // batch.block_size)
    tables[in_use] = moved_to[tables[in_use]]
    moved = replace(
        batch, key_cache=batch.key_cache[order], value_cache=batch.value_cache[order], block_tables=tables
    )
    _assert_same(_attend(batch, algorithm, target), _attend(moved, algorithm, target))


def layout(batch: PagedBatch, algorithm: str, target: str) -> None:
    """NHD and HND, each contiguous or a strided view of the other, give the same bits."""
    expected = _attend(batch, algorithm, target)
    other = "HND" if batch.layout == "NHD" else "NHD"
    views = [cache.swapaxes(1, 2) for cache in (batch.key_cache, batch.value_cache)]
    for caches in (views, [np.ascontiguousarray(view) for view in views]):
        turned = replace(batch, key_cache=caches[0], value_cache=caches[1], layout=other)
        _assert_same(expected, _attend(turned, algorithm, target))


def block_size(batch: PagedBatch, size: int, seed: int, algorithm: str, target: str) -> None:
    """Another block size gives the same results; with ``naive``, ``warp`` and ``tile``, the same bits.

    These three sum in an order that does not depend on blocks.

    Parameters
    ----------
    batch : PagedBatch
    size : int
        Another block size.
    seed : int
        Seed of the block tables of the other cache.
    algorithm, target : str
    """
    # The same seed: the blocks of keys and of values lie in the same places.
    ((key_cache,), tables), ((value_cache,), _) = (
        scattered(np.random.default_rng(seed), [tokens[None] for tokens in dense], 1, size)
        for dense in (batch.keys, batch.values)
    )
    other = replace(batch, key_cache=key_cache, value_cache=value_cache, block_tables=tables, layout="NHD")
    results = _attend(batch, algorithm, target), _attend(other, algorithm, target)
    if algorithm in ("naive", "warp", "tile"):
        _assert_same(*results)
    else:
        _assert_close(batch, *results)


def number_of_splits(batch: PagedBatch, num_splits: int, target: str) -> None:
    """``split`` and ``block`` return the result of ``tile`` and of one part for any number of splits.

    ``split`` returns the bits of ``tile`` for one split without sinks.
    """
    expected = _attend(batch, "tile", target)
    for algorithm in ("split", "block"):
        _assert_close(batch, expected, _attend(batch, algorithm, target, num_splits=num_splits))
    if "sinks" not in batch.options:
        _assert_same(expected, _attend(batch, "split", target, num_splits=1))


def chunking(batch: PagedBatch, cuts: Any, seed: int, algorithm: str, target: str) -> None:
    """A prompt attended in chunks gives the results of the whole prompt.

    ``naive``, ``warp`` and ``block`` compute each token on its own and give the same bits. In the other algorithms, a
    tile of several tokens divides each row's sum among fewer threads than a tile of one token.

    Parameters
    ----------
    batch : PagedBatch
        Its first sequence is the prompt; at most 70 tokens of it, which make two tiles of keys.
    cuts : float[num_cuts]
        Ends of the chunks as shares of the prompt, 0 to 1.
    seed : int
        Seed of the queries.
    algorithm, target : str
    """
    length = min(70, int(batch.seq_lens[0]))
    rng = np.random.default_rng(seed)
    query = (3 * rng.standard_normal((length, *batch.query.shape[1:]))).astype(batch.query.dtype)
    # Causal: a token must not see what later chunks write.
    options = {name: option for name, option in batch.options.items() if name != "causal"}

    def attend(start: int, stop: int) -> Any:
        chunk = replace(
            batch,
            query=query[start:stop],
            block_tables=batch.block_tables[:1],
            seq_lens=np.array([stop], np.int32),
            cu_seqlens_q=np.array([0, stop - start]),
            options=options,
            scale=None,
        )
        return _attend(chunk, algorithm, target)

    edges = np.unique([0, length, *(np.asarray(cuts) * length).astype(int)]).tolist()
    whole = attend(0, length)
    parts = [attend(start, stop) for start, stop in pairwise(edges)] or [whole]
    chunked = tuple(np.concatenate(results) for results in zip(*parts, strict=True))
    if algorithm in ("naive", "warp", "block"):
        _assert_same(whole, chunked)
    else:
        first = replace(
            batch,
            query=query,
            keys=[batch.keys[0][:length]],
            values=[batch.values[0][:length]],
            cu_seqlens_q=np.array([0, length]),
            options=options,
            scale=None,
        )
        _assert_close(first, whole, chunked)


def merging(parts: list[tuple[Any, Any]], target: str) -> None:
    """Merging is associative, commutative and exact, within rounding.

    Parameters
    ----------
    parts : list of (float[num_tokens, num_q_heads, head_dim], float32[num_tokens, num_q_heads])
        Three outputs and LSEs.
    target : str
    """
    a, b, c = parts

    def merge(one: Any, other: Any) -> Any:
        return ops.merge_states(*one, *other, target=target)

    # The output of a set without keys may be NaN and must not count.
    finite = [np.where(np.isneginf(lse)[..., None], 0.0, out.astype(np.float64)) for out, lse in parts]
    exact = reference.merge_states(*reference.merge_states(finite[0], a[1], finite[1], b[1]), finite[2], c[1])
    magnitude = np.abs(finite).max(axis=0)
    # A merge rounds its LSE, which weights the next merge, and rounds its output when it stores it.
    lse_size = np.max([np.where(np.isneginf(lse), 0.0, np.abs(lse)) for _, lse in parts], axis=0)
    roundoff = (8 + 4 * lse_size) * UNIT_ROUNDOFF
    most = magnitude * roundoff[..., None] + 3 * storing_tolerance(magnitude, a[0].dtype)
    for order in (
        merge(merge(a, b), c),
        merge(a, merge(b, c)),
        merge(merge(c, a), b),
        merge(c, merge(b, a)),
    ):
        out, lse = order
        assert out.dtype == a[0].dtype
        assert (np.abs(out.astype(np.float64) - exact[0]) <= most).all()
        np.testing.assert_array_equal(np.isneginf(lse), np.isneginf(exact[1]))
        seen = ~np.isneginf(lse)
        assert (np.abs(lse[seen] - exact[1][seen]) <= roundoff[seen]).all()


def _attend(batch: PagedBatch, algorithm: str, target: str, **more: Any) -> Any:
    options = {**batch.options, **kernel_options(batch, algorithm), **more}
    return ops.paged_attention(
        *attention_arguments(batch),
        cu_seqlens_q=batch.cu_seqlens_q,
        scale=batch.scale,
        return_lse=True,
        target=target,
        **options,
    )


def _assert_same(one: Any, other: Any) -> None:
    for result, expected in zip(one, other, strict=True):
        assert_same_bits(result, expected)


def _assert_close(batch: PagedBatch, one: Any, other: Any) -> None:
    """Raise unless both results can be roundings of the same exact outputs and LSEs."""
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        rows = batch.query_of(seq)
        allowed = attention_tolerance(batch.query[rows], key, value, batch.scale, **batch.options)
        outs = [out[rows].astype(np.float64) for out, _ in (one, other)]
        # Twice the rounding of a stored number, for each result: its error may move the number into the next binade.
        stored = 4 * storing_tolerance(np.maximum(*np.abs(outs)), one[0].dtype)
        assert (np.abs(outs[0] - outs[1]) <= 2 * allowed.out + stored).all()
        np.testing.assert_allclose(one[1][rows], other[1][rows], rtol=0, atol=2 * allowed.lse)
