"""Launches of kernels: for each operation the kernel, its launch configuration and its arguments.

Callers adopt and check the arrays. If there are no tokens or blocks, nothing is launched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import kernels, targets
from ..arrays import beside, empty
from ..kernels.columns import TILE_SIZE
from . import plan
from .adopt import Caches
from .tiles import MAX_HEADS, attention_threads, power_of_two

_WARP = 32
_NAIVE_THREADS = 64
_MAX_COPY_THREADS = 256
_MAX_TILE_THREADS = 256

# Each function reads the kernels that it launches from `kernels`, which imports them then, since they require Numba.


def write(key: Any, value: Any, caches: Caches, slots: Any, target: str) -> None:
    """Write tokens; a thread block handles one token and as many KV heads as its threads cover."""
    kernel = kernels.write_kv_packed_kernel if caches.layout == "packed" else kernels.write_kv_kernel
    _move_tokens(kernel, key, value, caches, slots, target)


def gather(key: Any, value: Any, caches: Caches, block_table: Any, target: str) -> None:
    """Gather a sequence; a thread block handles one token and as many KV heads as its threads cover."""
    kernel = kernels.gather_kv_packed_kernel if caches.layout == "packed" else kernels.gather_kv_kernel
    _move_tokens(kernel, key, value, caches, block_table, target)


def _move_tokens(kernel: Any, key: Any, value: Any, caches: Caches, places: Any, target: str) -> None:
    """Launch a kernel that moves tokens between dense arrays and the cache, whose places are slots or a block table."""
    num_tokens = key.shape[0]
    if num_tokens:
        over_heads, threads = _copy_configuration(caches)
        arguments = (key, value, *caches.for_kernels, places)
        targets.launch(kernel, (num_tokens, over_heads), threads, *arguments, target=target)


def copy(caches: Caches, block_pairs: Any, target: str) -> None:
    """Copy blocks; a thread block handles one token of a pair and as many KV heads as its threads cover."""
    num_pairs = block_pairs.shape[0]
    if num_pairs:
        over_heads, threads = _copy_configuration(caches)
        blocks_per_grid = (num_pairs, over_heads, caches.key.shape[1])
        arguments = (caches.key, caches.value, block_pairs)
        targets.launch(kernels.copy_blocks_kernel, blocks_per_grid, threads, *arguments, target=target)


def merge(out: Any, lse: Any, states: Sequence[Any], target: str) -> None:
    """Merge two states; a thread block handles one token and query head, a thread one dimension."""
    if lse.shape[0]:
        arguments = (out, lse, *states)
        threads = _whole_warps(out.shape[2])
        targets.launch(kernels.merge_states_kernel, tuple(lse.shape), threads, *arguments, target=target)


class Attention(NamedTuple):
    """The arguments that all attention kernels share, in the order of their parameters after the outputs.

    Attributes
    ----------
    query : float[num_tokens, num_q_heads, head_dim]
    caches : Caches
    block_tables : int32[num_seqs, max_blocks]
    alibi_slopes, sinks : float32[num_q_heads]
        0 and -inf for none.
    k_scales, v_scales : float32[num_kv_heads]
    scale, softcap : float32
        softcap 0 for none.
    """

    query: Any
    caches: Caches
    block_tables: Any
    alibi_slopes: Any
    sinks: Any
    k_scales: Any
    v_scales: Any
    scale: Any
    softcap: Any

    def arguments(self, *work: Any, sinks: Any = None) -> tuple[Any, ...]:
        """Return a kernel's arguments after its outputs.

        Parameters
        ----------
        *work
            The kernel's parameters that describe its work: `rows`, or `rows`, `tiles` and `row_step`.
        sinks : float32[num_q_heads], optional
            Sinks to pass in place of `self.sinks`.
        """
        sinks = self.sinks if sinks is None else sinks
        host = (*work, self.alibi_slopes, sinks, self.k_scales, self.v_scales)
        beside_query = (beside(item, self.query) if isinstance(item, np.ndarray) else item for item in host)
        return (
            self.query,
            *self.caches.for_kernels,
            self.block_tables,
            *beside_query,
            self.scale,
            self.softcap,
        )


def attend(inputs: Attention, planned: plan.Plan, out: Any, lse: Any, target: str) -> None:
    """Launch the kernels of a plan."""
    if not planned.rows.size:
        return
    if planned.algorithm in ("split", "cascade") or planned.num_parts > 1:
        _attend_parts(inputs, planned, out, lse, target)
    elif planned.tiles is not None:
        _attend_tiles(inputs, planned, out, lse, target)
    else:
        _attend_rows(inputs, planned, out, lse, target)


def _attend_rows(
    inputs: Attention, planned: plan.Plan, out: Any, lse: Any, target: str, sinks: Any = None
) -> None:
    """Attend with a thread, a warp or a thread block for each query token and head."""
    _, num_q_heads, head_dim = inputs.query.shape
    num_rows, block_size = len(planned.rows), inputs.caches.key.shape[1]
    largest = max(head_dim, out.shape[2])
    by_row_and_head = (num_rows, num_q_heads)
    kernel, blocks_per_grid, threads = {
        "naive": ("attention_naive_kernel", -(-num_rows * num_q_heads // _NAIVE_THREADS), _NAIVE_THREADS),
        "warp": ("attention_warp_kernel", by_row_and_head, _WARP),
        "block": ("attention_block_kernel", by_row_and_head, attention_threads(max(largest, block_size))),
        "packed": ("attention_packed_kernel", by_row_and_head, attention_threads(largest)),
    }[planned.algorithm]
    arguments = inputs.arguments(planned.rows, sinks=sinks)
    targets.launch(getattr(kernels, kernel), blocks_per_grid, threads, out, lse, *arguments, target=target)


def _attend_tiles(
    inputs: Attention, planned: plan.Plan, out: Any, lse: Any, target: str, sinks: Any = None
) -> None:
    """Attend with a thread block for each tile of query tokens and each KV head."""
    num_q_heads, value_head_dim = out.shape[1:]
    num_kv_heads = inputs.caches.key.shape[2]
    group = num_q_heads // num_kv_heads
    parts = -(-group // MAX_HEADS)
    value_parts = -(-value_head_dim // _MAX_TILE_THREADS)
    tiles: Any = planned.tiles
    # Tiles of one query token need fewer rows than tiles of several tokens.
    one = tiles[:, TILE_SIZE] == 1
    for chosen, tokens in ((tiles[one], 1), (tiles[~one], tiles[:, TILE_SIZE].max(initial=0))):
        if not len(chosen):
            continue
        num_rows = power_of_two(-(-group // parts) * int(tokens))
        threads = attention_threads(max(-(-value_head_dim // value_parts), 2 * num_rows))
        kernel = kernels.attention_tile_kernel_for(num_rows, threads)
        arguments = inputs.arguments(planned.rows, chosen, planned.num_parts, sinks=sinks)
        blocks_per_grid = (len(chosen), num_kv_heads * parts, value_parts)
        targets.launch(kernel, blocks_per_grid, threads, out, lse, *arguments, target=target)


def _attend_parts(inputs: Attention, planned: plan.Plan, out: Any, lse: Any, target: str) -> None:
    """Attend to each part of a token's keys, then merge the parts of each token."""
    num_tokens, num_q_heads, value_head_dim = out.shape
    part_out = empty((len(planned.rows), num_q_heads, value_head_dim), np.float32, like=inputs.query)
    # For each head the largest score, then the sum of weights: an LSE would round both to one number.
    part_state = empty((len(planned.rows), 2 * num_q_heads), np.float32, like=inputs.query)
    # A sink counts once: the merge adds it.
    no_sinks = np.full_like(inputs.sinks, -np.inf)
    attend_to_parts = _attend_rows if planned.tiles is None else _attend_tiles
    attend_to_parts(inputs, planned, part_out, part_state, target, no_sinks)
    starts = np.arange(num_tokens + 1, dtype=np.int32) * planned.num_parts
    starts, sinks = (beside(array, inputs.query) for array in (starts, inputs.sinks))
    arguments = (out, lse, part_out, part_state, starts, sinks)
    threads = _whole_warps(value_head_dim)
    targets.launch(kernels.merge_splits_kernel, (num_tokens, num_q_heads), threads, *arguments, target=target)


def _copy_configuration(caches: Caches) -> tuple[int, tuple[int, int]]:
    """Return the number of thread blocks over the KV heads, and (threads, KV heads per thread block)."""
    num_kv_heads, head_dim = caches.key.shape[2:]
    over_dim = _whole_warps(max(head_dim, caches.value.shape[3]))
    heads = max(1, min(num_kv_heads, _MAX_COPY_THREADS // over_dim))
    return -(-num_kv_heads // heads), (over_dim, heads)


def _whole_warps(threads: int) -> int:
    """Return a number of threads rounded up to whole warps."""
    return _WARP * -(-threads // _WARP)
