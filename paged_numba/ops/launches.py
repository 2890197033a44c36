"""Attention launched: the kernels' arguments, launch configurations and workspaces."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import targets
from ..arrays import beside, empty
from . import plan

_WARP = 32
_MAX_COPY_THREADS = 256
_NAIVE_THREADS = 64


class Attention(NamedTuple):
    """What all attention kernels are given, and how each is launched.

    Attributes
    ----------
    query : float[num_tokens, num_q_heads, head_dim]
    cache : tuple
        Keys and values, float[num_blocks, block_size, num_kv_heads, head_dim], and int32 block tables; for `packed`
        keys and values in the packed layout.
    alibi_slopes, sinks : float32[num_q_heads]
        0 and -inf for none.
    scales : list of float32[num_kv_heads]
        Of keys and of values.
    scale, softcap : float32
        softcap 0 for none.
    target : str
    """

    query: Any
    cache: tuple[Any, Any, Any]
    alibi_slopes: Any
    sinks: Any
    scales: list[Any]
    scale: Any
    softcap: Any
    target: str

    def naive(self, out: Any, lse: Any, rows: Any) -> None:
        """Attend with one thread for each query token and head."""
        from ..kernels.attention_naive import attention_naive_kernel

        blocks = -(-len(rows) * self.query.shape[1] // _NAIVE_THREADS)
        arguments = (*self._inputs(out, lse, rows), *self._options())
        targets.launch(attention_naive_kernel, blocks, _NAIVE_THREADS, *arguments, target=self.target)

    def warp(self, out: Any, lse: Any, rows: Any) -> None:
        """Attend with a warp for each query token and head."""
        from ..kernels.attention_warp import attention_warp_kernel

        arguments = (*self._inputs(out, lse, rows), *self._options())
        grid = len(rows), self.query.shape[1]
        targets.launch(attention_warp_kernel, grid, _WARP, *arguments, target=self.target)

    def block(self, out: Any, lse: Any, rows: Any) -> None:
        """Attend with a thread block for each query token and head."""
        from ..kernels.attention_block import attention_block_kernel

        _, num_q_heads, head_dim = self.query.shape
        threads = _attention_threads(max(head_dim, self.cache[0].shape[1]))
        arguments = (*self._inputs(out, lse, rows), *self._options())
        targets.launch(
            attention_block_kernel, (len(rows), num_q_heads), threads, *arguments, target=self.target
        )

    def packed(self, out: Any, lse: Any, rows: Any) -> None:
        """Attend with a thread block for each query token and head, to packed caches."""
        from ..kernels.attention_packed import attention_packed_kernel

        _, num_q_heads, head_dim = self.query.shape
        threads = _attention_threads(head_dim)
        arguments = (*self._inputs(out, lse, rows), *self._options())
        targets.launch(
            attention_packed_kernel, (len(rows), num_q_heads), threads, *arguments, target=self.target
        )

    def tiles(self, out: Any, lse: Any, rows: Any, tiles: Any, row_step: int = 1, sinks: Any = None) -> None:
        """Attend with a thread block for each tile of query tokens and KV head."""
        from ..kernels.attention_tile import attention_tile_kernel_for

        _, num_q_heads, head_dim = self.query.shape
        num_kv_heads = self.cache[0].shape[2]
        group = num_q_heads // num_kv_heads
        parts = -(-group // plan.MAX_HEADS)
        inputs, options = self._inputs(out, lse, rows), self._options(sinks)
        # Tiles of one query token need less room than those of several.
        one = tiles[:, 1] == 1
        for chosen, tokens in ((tiles[one], 1), (tiles[~one], tiles[:, 1].max(initial=0))):
            if not len(chosen):
                continue
            num_rows = _power_of_two(-(-group // parts) * int(tokens))
            threads = _attention_threads(max(head_dim, 2 * num_rows))
            kernel = attention_tile_kernel_for(num_rows, threads)
            arguments = (*inputs, *self._beside(chosen), row_step, *options)
            targets.launch(
                kernel, (len(chosen), num_kv_heads * parts), threads, *arguments, target=self.target
            )

    def parts(self, out: Any, lse: Any, rows: Any, tiles: Any, num_parts: int) -> None:
        """Attend to parts of each token's keys, `num_parts` rows for each token, then merge them."""
        from ..kernels.merge_splits import merge_splits_kernel

        num_tokens, num_q_heads, head_dim = self.query.shape
        split_out = empty((len(rows), num_q_heads, head_dim), np.float32, like=self.query)
        split_lse = empty((len(rows), num_q_heads), np.float32, like=self.query)
        # A sink counts once: the merge adds it.
        self.tiles(split_out, split_lse, rows, tiles, num_parts, np.full_like(self.sinks, -np.inf))
        starts = np.arange(num_tokens + 1, dtype=np.int32) * num_parts
        arguments = (out, lse, split_out, split_lse, *self._beside(starts, self.sinks))
        threads = _WARP * -(-head_dim // _WARP)
        targets.launch(
            merge_splits_kernel, (num_tokens, num_q_heads), threads, *arguments, target=self.target
        )

    def _inputs(self, out: Any, lse: Any, rows: Any) -> tuple[Any, ...]:
        return (out, lse, self.query, *self.cache, *self._beside(rows))

    def _options(self, sinks: Any = None) -> tuple[Any, ...]:
        sinks = self.sinks if sinks is None else sinks
        return (*self._beside(self.alibi_slopes, sinks, *self.scales), self.scale, self.softcap)

    def _beside(self, *arrays: Any) -> tuple[Any, ...]:
        return tuple(beside(array, self.query) for array in arrays)


def _attention_threads(least: int) -> int:
    """Return a power of two that is at least `least`, two warps at least."""
    return max(2 * _WARP, _power_of_two(least))


def _power_of_two(count: int) -> int:
    """Return the smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def copy_configuration(key_cache: Any) -> tuple[int, tuple[int, int]]:
    """Return thread blocks over KV heads, and (threads over head_dim, KV heads of a thread block)."""
    num_kv_heads, head_dim = key_cache.shape[2:]
    over_dim = _WARP * -(-head_dim // _WARP)
    heads = max(1, min(num_kv_heads, _MAX_COPY_THREADS // over_dim))
    return -(-num_kv_heads // heads), (over_dim, heads)
