"""`Layers`: the keys and values of a cache in every layer: writes tokens and copies blocks."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..allocator import Allocation, BlockAllocator
from ..arrays import ArrayLike, IntegersLike, as_array, beside, from_state, keep, to_host, to_state
from ..ops import adopt, checks, launches, layouts
from .debug import CacheWatch


class Slots(NamedTuple):
    """Slots that tokens are written to in each layer, checked.

    Attributes
    ----------
    array : int64[num_slots]
        On the device of the cache; a slot of -1 is skipped.
    num_slots : int
    blocks, offsets : int64[num_written]
        Of each slot that is not -1.
    """

    array: Any
    num_slots: int
    blocks: NDArray[np.int64]
    offsets: NDArray[np.int64]


class Saved(NamedTuple):
    """What a cache keeps of a sequence in host memory.

    Attributes
    ----------
    tokens : list of two arrays
        Keys and values of its tokens in each layer, without released tokens.
    written : list of bool[num_tokens], or None
        For each array of keys, then of values: which of the tokens were written, as far as a `CacheWatch` knows.
    """

    tokens: list[tuple[Any, Any]]
    written: list[NDArray[np.bool_]] | None


class Layers:
    """The keys and values of a cache in every layer.

    Writes and copies are part of a transaction of the allocator: they log what they overwrite.

    Parameters
    ----------
    allocator : BlockAllocator
        The allocator of the blocks.
    key_caches, value_caches : list of arrays
        The key cache and the value cache of each layer, as users see them.
    layout : {"NHD", "HND", "packed"}
    target : str
        The target that runs.
    debug : bool
        Whether a `CacheWatch` checks launches.

    Attributes
    ----------
    keys, values : list of arrays
        `key_caches` and `value_caches`, adopted: views of them if they are torch tensors, else the same.
    """

    def __init__(
        self,
        allocator: BlockAllocator,
        key_caches: list[Any],
        value_caches: list[Any],
        layout: str,
        target: str,
        debug: bool,
    ) -> None:
        self.allocator, self.key_caches, self.value_caches = allocator, key_caches, value_caches
        self.layout, self.target = layout, target
        self._adopt()
        self.watch = self._new_watch() if debug else None

    def __len__(self) -> int:
        return len(self.keys)

    def _adopt(self) -> None:
        self.keys, self.values = [*map(keep, self.key_caches)], [*map(keep, self.value_caches)]

    def _new_watch(self) -> CacheWatch:
        caches = (*self.keys, *self.values)
        return CacheWatch(self.allocator, *map(self._by_slot, caches))

    def _by_slot(self, cache: Any) -> Any:
        """Return a view of a cache on the host whose first axes are the block and the offset."""
        return np.moveaxis(cache, layouts.TOKEN_AXES[self.layout], 1)

    # A copy has arrays of its own, and so a watch of its own.

    def __getstate__(self) -> dict[str, Any]:
        watched = None if self.watch is None else self.watch.state()
        stored = {"key_caches": to_state(self.key_caches), "value_caches": to_state(self.value_caches)}
        return {**self.__dict__, **stored, "keys": None, "values": None, "watch": watched}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.key_caches, self.value_caches = from_state(self.key_caches), from_state(self.value_caches)
        self._adopt()
        if state["watch"] is not None:
            self.watch = self._new_watch()
            self.watch.restore(state["watch"])

    def stored(self, layer: int) -> tuple[Any, Any]:
        """Return the key cache and the value cache of a layer; raise if there is no such layer."""
        checks.check_layer(layer, len(self))
        return self.keys[layer], self.values[layer]

    def caches(self, layer: int) -> adopt.Caches:
        """Return the caches of a layer, adopted."""
        return adopt.caches(*self.stored(layer), self.layout)

    def tokens_by_layer(self, key: ArrayLike, value: ArrayLike) -> list[tuple[Any, Any]]:
        """Return the keys and the values of each layer, checked; with a single layer, the layer axis is optional."""
        by_layer = []
        for name, tokens in (("key", key), ("value", value)):
            array = as_array(tokens, name)
            if len(self) == 1 and getattr(array, "ndim", 3) == 3:
                by_layer.append([array])
            else:
                checks.check_layers(name, array, len(self))
                by_layer.append([array[layer] for layer in range(len(self))])
        pairs = list(zip(*by_layer, strict=True))
        for layer, (keys, values) in enumerate(pairs):
            caches = self.caches(layer)
            checks.check_tokens(keys, values, caches.key, caches.value)
        return pairs

    def copy(self, block_pairs: NDArray[np.int64]) -> None:
        """Copy blocks, rows (src, dst), in every layer."""
        if len(block_pairs):
            self._log_overwritten(block_pairs[:, 1])
            for layer in range(len(self)):
                launches.copy(self.caches(layer), block_pairs, self.target)

    def write_all(self, allocation: Allocation, tokens: list[tuple[Any, Any]]) -> None:
        """Copy blocks, then write keys and values, already adopted and checked, to each layer."""
        self.copy(allocation.copies)
        self._log_overwritten(allocation.slots // self.allocator.block_size)
        for layer, (keys, values) in enumerate(tokens):
            launches.write(keys, values, self.caches(layer), allocation.slots, self.target)

    def save(self, seq_id: Hashable) -> Saved:
        """Return a copy of a sequence's tokens in host memory; slots that are reserved but unwritten are no fault."""
        pool, watch = self.allocator, self.watch
        first, stop = pool.num_released_tokens(seq_id), pool.seq_len(seq_id)
        blocks, options = pool.held_blocks(seq_id), {"layout": self.layout, "target": self.target}
        with nullcontext() if watch is None else watch.allowing_unwritten():
            gathered = [
                ops.gather_kv(keys, values, blocks, stop - first, **options)
                for keys, values in zip(self.keys, self.values, strict=True)
            ]
        written = None if watch is None else watch.written(pool.slots(seq_id, first, stop))
        return Saved([(to_host(keys), to_host(values)) for keys, values in gathered], written)

    def bring_back(self, saved: Saved, allocation: Allocation) -> None:
        """Write the last tokens of a saved sequence, which have no block in the pool, to their slots."""
        # Count from the end: the prefix cache may hold the first tokens, or a window may have released them.
        slots, count = allocation.slots, allocation.slots.size

        def last(part: Any) -> Any:
            return part[len(part) - count :]

        near = self.keys[0]
        self.write_all(allocation, [(beside(last(k), near), beside(last(v), near)) for k, v in saved.tokens])
        if self.watch is not None and saved.written is not None:
            self.watch.mark(slots, [last(written) for written in saved.written])

    def checked_slots(self, slots: IntegersLike) -> Slots:
        """Check slots, which `write` takes for any layer; on a GPU, copy them to it."""
        host = to_host(slots, "slots")
        block_size = self.allocator.block_size
        checks.check_slots(host, "num_tokens", self.allocator.num_blocks * block_size)
        host = host.astype(np.int64)  # a copy: the caller may change the array before the last layer
        return Slots(beside(host, self.keys[0]), len(host), *np.divmod(host[host >= 0], block_size))

    def write(self, layer: int, key: ArrayLike, value: ArrayLike, slots: Slots) -> None:
        """Write keys and values to checked slots of a layer."""
        keys, values, caches = as_array(key, "key"), as_array(value, "value"), self.caches(layer)
        checks.check_tokens(keys, values, caches.key, caches.value, slots.num_slots)
        if self.target != "cuda":
            places = slots.blocks, slots.offsets
            for view in (
                (caches.key, caches.value) if self.layout != "packed" else map(self._by_slot, caches.stored)
            ):
                self.allocator._undo.append((_put_back, view, places, view[places]))
            self._log_watch()
        launches.write(keys, values, caches, slots.array, self.target)

    def forget_truncated(self) -> None:
        """Make the `CacheWatch` count slots as unwritten that no sequence holds any more."""
        if self.watch is not None:
            self._log_watch()
            self.watch.update_owners()

    # What a write overwrites.

    def _log_overwritten(self, blocks: Any) -> None:
        """Log what blocks hold that kernels will write to in every layer.

        On a GPU only blocks that were evicted in this transaction: the others hold no token that counts, and a copy to
        the host makes the GPU wait.
        """
        undo = self.allocator._undo
        if self.target == "cuda":
            blocks = blocks[np.isin(blocks, self.allocator._evicted())]
        # For a few blocks, a set takes a tenth of the time of np.unique.
        blocks = np.array(sorted({*blocks.tolist()}), np.int64)
        for cache in (*self.keys, *self.values):
            if isinstance(cache, np.ndarray):
                undo.append((_put_back, cache, blocks, cache[blocks]))
            else:
                undo.extend((_put_back, cache, block, to_host(cache[block])) for block in blocks.tolist())
        self._log_watch()

    def _log_watch(self) -> None:
        if self.watch is not None:
            self.allocator._undo.append((self.watch.restore, self.watch.state()))


def _put_back(cache: Any, places: Any, held: Any) -> None:
    """Write the former contents of blocks or slots back to them."""
    cache[places] = held
