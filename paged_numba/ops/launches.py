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


class Inputs(NamedTuple):
    """The parameters of attention kernels that are the same in every layer of a model.

    Attributes
    ----------
    block_tables : int32[num_seqs, max_blocks]
    alibi_slopes, sinks : float32[num_q_heads]
        0 and -inf for none.
    k_scales, v_scales : float32[num_kv_heads]
    scale, softcap : float32
        softcap 0 for none.
    """

    block_tables: Any
    alibi_slopes: Any
    sinks: Any
    k_scales: Any
    v_scales: Any
    scale: Any
    softcap: Any

    def arguments(self, *work: Any) -> tuple[Any, ...]:
        """Return a kernel's arguments after the caches.

        Parameters
        ----------
        *work
            The kernel's parameters that describe its work: `rows`, or `rows`, `tiles` and `row_step`.
        """
        return (self.block_tables, *work, *self[1:])


class Launch(NamedTuple):
    """A launch of an attention kernel, except for the arrays that differ between layers.

    Attributes
    ----------
    kernel : callable
    blocks_per_grid, threads_per_block : int or tuple of int
    arguments : tuple
        The kernel's arguments after the outputs, the query and the caches.
    dims : slice, optional
        The dimensions of values, and of the output, that the launch computes; all if None.
    """

    kernel: Any
    blocks_per_grid: Any
    threads_per_block: Any
    arguments: tuple[Any, ...]
    dims: slice | None = None


class Prepared(NamedTuple):
    """All launches of a call of attention.

    Attributes
    ----------
    launches : list of Launch
    merge : Launch or None
        The launch that merges the parts of each token, if the others compute parts.
    parts : tuple of two arrays, or None
        The output and the state of each part, which the launches write and the merge reads.
    """

    launches: list[Launch]
    merge: Launch | None = None
    parts: tuple[Any, Any] | None = None


def prepare(planned: plan.Plan, inputs: Inputs, num_q_heads: int, caches: Caches) -> Prepared:
    """Prepare the launches of a plan; if the caches lie on a GPU, copy the small arrays to it.

    Parameters
    ----------
    planned : Plan
    inputs : Inputs
    num_q_heads : int
    caches : Caches
        Caches of any layer: only their shape and their device count.
    """
    if not planned.rows.size:
        return Prepared([])
    near = caches.stored[0]
    planned = planned._replace(rows=beside(planned.rows, near))
    inputs = Inputs(*(beside(item, near) if isinstance(item, np.ndarray) else item for item in inputs))
    if planned.algorithm in ("split", "cascade") or planned.num_parts > 1:
        return _prepare_parts(inputs, planned, num_q_heads, caches)
    if planned.tiles is not None:
        return Prepared(_prepare_tiles(inputs, planned, num_q_heads, caches))
    return Prepared([_prepare_rows(inputs, planned, num_q_heads, caches)])


def _prepare_rows(inputs: Inputs, planned: plan.Plan, num_q_heads: int, caches: Caches) -> Launch:
    """Attend with a thread, a warp or a thread block for each query token and head."""
    _, block_size, _, head_dim = caches.key.shape
    num_rows, largest = len(planned.rows), max(head_dim, caches.value.shape[3])
    by_row_and_head = (num_rows, num_q_heads)
    kernel, blocks_per_grid, threads = {
        "naive": ("attention_naive_kernel", -(-num_rows * num_q_heads // _NAIVE_THREADS), _NAIVE_THREADS),
        "warp": ("attention_warp_kernel", by_row_and_head, _WARP),
        "block": ("attention_block_kernel", by_row_and_head, attention_threads(max(largest, block_size))),
        "packed": ("attention_packed_kernel", by_row_and_head, attention_threads(largest)),
    }[planned.algorithm]
    return Launch(getattr(kernels, kernel), blocks_per_grid, threads, inputs.arguments(planned.rows))


def _prepare_tiles(inputs: Inputs, planned: plan.Plan, num_q_heads: int, caches: Caches) -> list[Launch]:
    """Attend with a thread block for each tile of query tokens and each KV head."""
    num_kv_heads, value_head_dim = caches.value.shape[2:]
    group = num_q_heads // num_kv_heads
    parts = -(-group // MAX_HEADS)
    # A tile's thread block has a thread for each dimension of a value: if there are too many, each launch takes some.
    dims: list[slice | None] = [None]
    if value_head_dim > _MAX_TILE_THREADS:
        dims = [slice(at, at + _MAX_TILE_THREADS) for at in range(0, value_head_dim, _MAX_TILE_THREADS)]
    tiles: Any = planned.tiles
    # Tiles of one query token need fewer rows than tiles of several tokens.
    one = tiles[:, TILE_SIZE] == 1
    prepared = []
    for chosen, tokens in ((tiles[one], 1), (tiles[~one], tiles[:, TILE_SIZE].max(initial=0))):
        if not len(chosen):
            continue
        num_rows = power_of_two(-(-group // parts) * int(tokens))
        threads = attention_threads(max(min(value_head_dim, _MAX_TILE_THREADS), 2 * num_rows))
        kernel = kernels.attention_tile_kernel_for(num_rows, threads)
        arguments = inputs.arguments(planned.rows, beside(chosen, caches.stored[0]), planned.num_parts)
        blocks_per_grid = (len(chosen), num_kv_heads * parts)
        prepared += [Launch(kernel, blocks_per_grid, threads, arguments, part) for part in dims]
    return prepared


def _prepare_parts(inputs: Inputs, planned: plan.Plan, num_q_heads: int, caches: Caches) -> Prepared:
    """Attend to each part of a token's keys, then merge the parts of each token."""
    value_head_dim, near = caches.value.shape[3], caches.stored[0]
    num_parts = len(planned.rows)
    num_tokens = num_parts // planned.num_parts
    part_out = empty((num_parts, num_q_heads, value_head_dim), np.float32, like=near)
    # For each head the largest score, then the sum of weights: an LSE would round both to one number.
    part_state = empty((num_parts, 2 * num_q_heads), np.float32, like=near)
    # A sink counts once: the merge adds it.
    no_sinks = beside(np.full(num_q_heads, -np.inf, np.float32), near)
    arguments = (inputs._replace(sinks=no_sinks), planned, num_q_heads, caches)
    launches = [_prepare_rows(*arguments)] if planned.tiles is None else _prepare_tiles(*arguments)
    starts = beside(np.arange(num_tokens + 1, dtype=np.int32) * planned.num_parts, near)
    merge = Launch(
        kernels.merge_splits_kernel,
        (num_tokens, num_q_heads),
        _whole_warps(value_head_dim),
        (starts, inputs.sinks),
    )
    return Prepared(launches, merge, (part_out, part_state))


def attend(prepared: Prepared, query: Any, caches: Caches, out: Any, lse: Any, target: str) -> None:
    """Launch prepared kernels for a query and the caches of a layer."""
    outputs = prepared.parts or (out, lse)
    for kernel, blocks_per_grid, threads, arguments, dims in prepared.launches:
        arrays = (*outputs, query, *caches.for_kernels)
        if dims is not None:
            values = caches.value[:, :, :, dims]
            arrays = (outputs[0][:, :, dims], outputs[1], query, caches.key, values)
        targets.launch(kernel, blocks_per_grid, threads, *arrays, *arguments, target=target)
    if prepared.merge is not None:
        kernel, blocks_per_grid, threads, arguments, _ = prepared.merge
        targets.launch(kernel, blocks_per_grid, threads, out, lse, *outputs, *arguments, target=target)


def _copy_configuration(caches: Caches) -> tuple[int, tuple[int, int]]:
    """Return the number of thread blocks over the KV heads, and (threads, KV heads per thread block)."""
    num_kv_heads, head_dim = caches.key.shape[2:]
    over_dim = _whole_warps(max(head_dim, caches.value.shape[3]))
    heads = max(1, min(num_kv_heads, _MAX_COPY_THREADS // over_dim))
    return -(-num_kv_heads // heads), (over_dim, heads)


def _whole_warps(threads: int) -> int:
    """Return a number of threads rounded up to whole warps."""
    return _WARP * -(-threads // _WARP)
