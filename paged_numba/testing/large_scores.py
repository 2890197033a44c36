"""Attention with large scores: a strategy for batches whose scores are exact, and the property that no digit is lost.

The tolerance of random batches grows with the scores, since dot products are rounded. Here each score is one product
with a power of two, which float32 holds exactly, however large, so the fixed tolerance applies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .. import ops, reference
from ..tolerances import fixed_tolerance
from .properties import attention_arguments, kernel_options
from .strategies import BLOCK_SIZES, PagedBatch, batch_of, lengths, scattered, seeds

LEVELS = (1e6, 1e4, 1e8, -1e4, -1e6, -1e8, 3.0)
"""Sizes of scores; around 1e6 neighbouring float32 numbers are 1/16 apart, around 1e8 they are 8 apart."""


@st.composite
def large_score_batches(draw: st.DrawFn, layout: str = "NHD") -> PagedBatch:
    """Draw a batch with equal, nearly equal or very different scores of up to 1e8, some of them -inf.

    Runs of neighbouring tokens have scores of the same level. Shrinks towards equal scores of 1e6 without options.
    """
    block_size = draw(st.sampled_from(BLOCK_SIZES), label="block_size")
    head_dim = draw(st.sampled_from((4, 40) if layout == "packed" else (1, 2, 5, 40)), label="head_dim")
    num_kv_heads = draw(st.integers(1, 2), label="num_kv_heads")
    num_q_heads = num_kv_heads * draw(st.integers(1, 3), label="query heads of a KV head")
    seq_lens = draw(st.lists(lengths(block_size), min_size=1, max_size=3), label="seq_lens")
    levels = draw(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=3), label="levels")
    run = draw(st.sampled_from((1, block_size, 17)), label="tokens of a run")
    steps = draw(st.sampled_from((0, 1, 9)), label="float32 numbers between the scores of a level")
    infinite = draw(st.sampled_from((0.0, 0.3, 1.0)), label="share of scores of -inf")
    scale = draw(st.sampled_from((1.0, -0.5)), label="scale")
    options = draw(_exact_options(num_q_heads, levels))
    chunks = draw(st.sampled_from((None, *((n,) * len(seq_lens) for n in (2, 5)))), label="query tokens")
    rng = np.random.default_rng(draw(seeds, label="seed"))

    dense = []
    for length in seq_lens:
        tokens = rng.standard_normal((2, length, num_kv_heads, head_dim)).astype(np.float32)
        runs = rng.choice(np.array(levels, np.float32), (-(-length // run), num_kv_heads))
        scores = np.repeat(runs, run, axis=0)[:length]
        scores += rng.integers(0, steps + 1, scores.shape) * np.spacing(scores)
        in_runs = rng.random(runs.shape) < infinite
        scores[np.repeat(in_runs, run, axis=0)[:length]] = -np.inf
        tokens[0, ..., 0] = scores / np.float32(options.get("k_scale", 1))
        dense.append(tokens)
    caches, block_tables = scattered(rng, dense, spare=1, block_size=block_size)
    starts = None if chunks is None else np.cumsum([0, *chunks]).astype(np.int32)
    query = np.zeros((len(seq_lens) if starts is None else starts[-1], num_q_heads, head_dim), np.float32)
    query[..., 0] = 1 / scale
    return batch_of(query, caches, block_tables, dense, scale, starts, options, layout)


@st.composite
def _exact_options(draw: st.DrawFn, num_q_heads: int, levels: list[float]) -> dict[str, Any]:
    """Draw options that leave scores exact: tanh of a large number is 1, and slopes of 8 add multiples of 8."""
    options: dict[str, Any] = {}
    if draw(st.booleans(), label="not causal"):
        options["causal"] = False
    if draw(st.booleans(), label="with a window"):
        options["window"] = draw(st.integers(1, 40), label="window")
    if draw(st.booleans(), label="with sinks"):
        options["sinks"] = np.resize(np.array(levels[::-1], np.float32), num_q_heads)
    if draw(st.booleans(), label="with scales"):
        options["k_scale"], options["v_scale"] = 2.0, 0.5
    adjustment = draw(st.sampled_from((None, "softcap", "alibi_slopes")), label="adjustment")
    if adjustment == "softcap":
        options["softcap"] = 4.0
    elif adjustment == "alibi_slopes":
        options["alibi_slopes"] = np.full(num_q_heads, 8, np.float32)
    return options


def large_scores_lose_no_digit(
    batch: PagedBatch, algorithm: str, target: str, num_splits: int | None = None
) -> None:
    """Outputs and LSEs are within the fixed tolerance of dense float64 attention.

    Parameters
    ----------
    batch : PagedBatch
        From `large_score_batches`.
    algorithm, target : str
    num_splits : int, optional
    """
    options = {"scale": batch.scale, **batch.options}
    of_kernel = {
        **options,
        **kernel_options(batch, algorithm, num_splits),
        "cu_seqlens_q": batch.cu_seqlens_q,
    }
    results = ops.paged_attention(*attention_arguments(batch), **of_kernel, return_lse=True, target=target)
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        rows = batch.query_of(seq)
        expected = reference.attention(batch.query[rows], key, value, **options, return_lse=True)
        for name, result, right in zip(("out", "lse"), results, expected, strict=True):
            seen = np.isfinite(right)
            np.testing.assert_array_equal(result[rows][~seen], right[~seen], err_msg=name)
            error = np.abs(result[rows][seen] - right[seen])
            assert (error <= fixed_tolerance(right[seen], np.float32)).all(), (
                f"{name} of sequence {seq} is off by {error.max()}"
            )
