"""What must hold of the operations, for any input: the tests draw inputs, the mutants must break one.

Each function raises AssertionError where the property does not hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops, reference
from .strategies import PagedBatch, Tokens
from .tolerances import attention_tolerance


def attention_agrees_with_the_oracle(batch: PagedBatch, algorithm: str, target: str) -> None:
    """Paged attention is dense attention in float64, but for the rounding of float32."""
    out, lse = ops.paged_attention(
        *_attention_arguments(batch), scale=batch.scale, return_lse=True, algorithm=algorithm, target=target
    )
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        query = batch.query[seq : seq + 1]
        expected, expected_lse = reference.attention(query, key, value, scale=batch.scale, return_lse=True)
        allowed = attention_tolerance(query, key, value, batch.scale)
        np.testing.assert_allclose(out[seq], expected[0], rtol=0, atol=allowed.out, err_msg=f"out[{seq}]")
        np.testing.assert_allclose(lse[seq], expected_lse[0], rtol=0, atol=allowed.lse, err_msg=f"lse[{seq}]")


def attention_is_invariant_under_block_permutation(
    batch: PagedBatch, order: Any, algorithm: str, target: str
) -> None:
    """Where the blocks lie changes no bit of the result."""
    before = ops.paged_attention(*_attention_arguments(batch), algorithm=algorithm, target=target)
    moved_to = np.empty(len(order), np.int32)
    moved_to[order] = np.arange(len(order))
    tables = batch.block_tables.copy()
    in_use = np.arange(tables.shape[1]) < -(-batch.seq_lens[:, None] // batch.key_cache.shape[1])
    tables[in_use] = moved_to[tables[in_use]]
    after = ops.paged_attention(
        batch.query,
        batch.key_cache[order],
        batch.value_cache[order],
        tables,
        batch.seq_lens,
        algorithm=algorithm,
        target=target,
    )
    np.testing.assert_array_equal(before, after)


def write_puts_each_token_into_its_slot(tokens: Tokens, target: str) -> None:
    """Written slots hold the tokens bit for bit; all others, and those of skipped tokens, are untouched."""
    caches = tokens.caches.copy()
    ops.write_kv(tokens.key, tokens.value, caches[0], caches[1], tokens.slots, target=target)
    expected = tokens.caches.copy()
    flat = expected.reshape(2, -1, *expected.shape[3:])
    written = tokens.slots >= 0
    flat[0, tokens.slots[written]] = tokens.key[written]
    flat[1, tokens.slots[written]] = tokens.value[written]
    np.testing.assert_array_equal(caches, expected)


def gather_returns_what_was_written(batch: PagedBatch, target: str) -> None:
    """Gathering a sequence gives its keys and values bit for bit."""
    for seq, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
        gathered = ops.gather_kv(
            batch.key_cache, batch.value_cache, batch.block_tables[seq], len(key), target=target
        )
        np.testing.assert_array_equal(gathered[0], key)
        np.testing.assert_array_equal(gathered[1], value)


def copy_duplicates_blocks(tokens: Tokens, order: Any, target: str) -> None:
    """Each dst is its src bit for bit, and no other block changes; `order` permutes the blocks."""
    half = len(order) // 2
    pairs = np.stack([order[:half], order[half : 2 * half]], axis=1).astype(np.int64)
    caches = tokens.caches.copy()
    ops.copy_blocks(caches[0], caches[1], pairs, target=target)
    expected = tokens.caches.copy()
    for src, dst in pairs.tolist():
        expected[:, dst] = tokens.caches[:, src]
    np.testing.assert_array_equal(caches, expected)


def _attention_arguments(batch: PagedBatch) -> tuple[Any, ...]:
    return batch.query, batch.key_cache, batch.value_cache, batch.block_tables, batch.seq_lens
