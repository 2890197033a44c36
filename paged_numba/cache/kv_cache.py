"""`PagedKVCache`: the allocator, the storage and the operations in one object."""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import ops, targets
from ..allocator import Allocation, BlockAllocator
from ..allocator.block_table import padded
from ..allocator.token_ids import TokenIds, as_bytes, at_most, number_of
from ..allocator.transactions import UndoLog, alone, transaction
from ..arguments import hashable, listed, shown, truth
from ..arrays import ArrayLike, Device, Dtype, IntegersLike, as_array, beside, on_host, to_host, untraced
from ..draw.text import plural
from ..ops import adopt, checks, launches, layouts
from ..ops.attention import AttentionOptions
from ..ops.storage import adopted_layers, from_state, storage_of_layers, to_state
from .debug import CacheWatch

if TYPE_CHECKING:
    from typing_extensions import Unpack


@untraced
class PagedKVCache:
    """Keys and values of many sequences in one pool of blocks.

    Parameters
    ----------
    num_blocks, block_size : int
        Size of the pool in blocks, and of a block in tokens.
    num_kv_heads, head_dim : int
        Shape of one token's keys in a layer; head_dim is 1,024 at most, and 256 in the layout ``packed``.
    num_layers : int
        Number of attention layers, which share the block table of a sequence.
    value_head_dim : int, optional
        Dimensions of a value, with the same limits; head_dim if None.
    dtype : dtype, torch.dtype or str
        Dtype of the storage: float32, float16, bfloat16 or float8_e4m3fn (NumPy has the last two from ml_dtypes).
    layout : {"NHD", "HND", "packed"}
        Order of the storage's axes; see `paged_numba.ops.layouts`.
    k_scale, v_scale : float or float[num_kv_heads], optional
        Factors by which stored keys and values are multiplied when they are read, for float8_e4m3fn: callers store
        ``key / k_scale``.
    prefix_caching : bool
        Whether `add` reuses blocks that already hold the keys and values of a sequence's first tokens.
    watermark : float
        Fraction of the pool, 0 to 1, that `add` leaves free for sequences to grow into.
    target : str
        Target that runs the kernels, on whose device the storage lies; see `paged_numba.targets.resolve`.
    device : torch.device or str, optional
        If given, the storage is torch tensors on this device, and `gather` returns tensors. It must be the device on
        which the target runs: ``cuda`` for the target ``cuda``, else ``cpu``.
    debug : bool
        Whether to check each launch of any kernel that takes the cache's arrays against the allocator. A fault raises
        KernelError when the launch ends, or becomes a finding of an enclosing ``lockstep.sanitizing()``. Faults are
        reads of an unwritten slot or past the end of a sequence, reads and writes of a freed block, writes into a
        shared block, and block tables that belong to no sequence. A slot that the host writes without a kernel
        counts as unwritten. Slow, and available on the target ``lockstep`` only.

    Attributes
    ----------
    allocator : BlockAllocator
        The block tables of the sequences, and the free blocks.
    key_caches : list of [num_blocks, block_size, num_kv_heads, head_dim]
        One array for each layer, shown in the layout NHD. Torch tensors if `device` is given, else GPU arrays for the
        target ``cuda``, else NumPy arrays. Slots that were never written hold NaN.
    value_caches : list of [num_blocks, block_size, num_kv_heads, value_head_dim]
        The same for the values.
    key_cache, value_cache
        The arrays of the first layer.
    target : str
        The target that runs: ``cuda``, ``lockstep`` or ``cudasim``.

    Raises
    ------
    TypeError, ValueError
        A size, dtype, layout, scale or device is invalid, or ``debug=True`` is given for a target other than
        ``lockstep``.
    MemoryError
        The storage does not fit into memory.
    TargetUnavailableError
        The target cannot run here.

    See Also
    --------
    BlockAllocator : The bookkeeping alone.
    write_kv, gather_kv, copy_blocks, paged_attention : The operations on arrays of your own.

    Notes
    -----
    A method that raises any exception has changed nothing: sequences, blocks, stored tokens and host copies are as
    before the call. One exception: on a GPU, slots that `write_layer` has written stay written.

    Any thread may call any method; a call waits until the calls of other threads have ended.

    The cache keeps no record of sequences beside the allocator's, so that methods of ``cache.allocator`` may be called
    directly, too. Whoever does so carries out what they return: copies the blocks of `Allocation.copies` and writes the
    tokens of `Allocation.slots`.

    ``len(cache)`` is the number of sequences, iteration gives their ids, and ``seq_id in cache`` tells whether a
    sequence is in the pool; sequences that are swapped out do not count.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> cache = pn.PagedKVCache(num_blocks=8, block_size=4, num_kv_heads=1, head_dim=2)
    >>> cache.add("a", np.ones((5, 1, 2), np.float32), np.ones((5, 1, 2), np.float32))
    0
    >>> cache.allocator.block_table("a").size
    2
    >>> cache.attend(["a"], np.ones((1, 1, 2), np.float32))
    array([[[1., 1.]]], dtype=float32)
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        num_layers: int = 1,
        value_head_dim: int | None = None,
        dtype: Dtype = "float32",
        layout: str = "NHD",
        k_scale: float | ArrayLike | None = None,
        v_scale: float | ArrayLike | None = None,
        prefix_caching: bool = False,
        watermark: float = 0.0,
        target: str = "auto",
        device: Device | None = None,
        debug: bool = False,
    ) -> None:
        self.target = targets.resolve(target)
        if truth("debug", debug) and self.target != "lockstep":
            raise ValueError(f"debug=True needs the target lockstep, got target={self.target!r}")
        self.allocator = BlockAllocator(
            num_blocks, block_size, prefix_caching=prefix_caching, watermark=watermark
        )
        value_head_dim = head_dim if value_head_dim is None else value_head_dim
        checks.check_cache_sizes(block_size, num_kv_heads, head_dim, value_head_dim, layout, num_layers)
        storage_type = checks.cache_dtype(dtype)
        self.layout = layout
        num_layers, *sizes = map(
            int, (num_layers, num_blocks, block_size, num_kv_heads, head_dim, value_head_dim)
        )
        num_kv_heads = sizes[2]
        shapes = layouts.cache_shapes(layout, storage_type, *sizes)
        scales = {"k_scale": k_scale, "v_scale": v_scale}
        self._scales = {
            name: checks.cache_scale(name, to_host(given, name), num_kv_heads)
            for name, given in scales.items()
        }
        self.key_caches, self.value_caches = storage_of_layers(
            shapes, num_layers, storage_type, self.target, device
        )
        self._arrays = adopted_layers(self.key_caches, self.value_caches)
        self._watch = self._new_watch() if debug else None

    def _new_watch(self) -> CacheWatch:
        axis = layouts.TOKEN_AXES[self.layout]
        caches = (np.moveaxis(cache, axis, 1) for layer in self._arrays for cache in layer)
        return CacheWatch(self.allocator, *caches)

    # A copy has arrays of its own, and so a watch of its own.

    def __getstate__(self) -> dict[str, Any]:
        watched = None if self._watch is None else self._watch.state()
        stored = {name: to_state(getattr(self, name)) for name in ("key_caches", "value_caches")}
        return {**self.__dict__, **stored, "_arrays": None, "_watch": watched}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.key_caches, self.value_caches = from_state(self.key_caches), from_state(self.value_caches)
        self._arrays = adopted_layers(self.key_caches, self.value_caches)
        if state["_watch"] is not None:
            self._watch = self._new_watch()
            self._watch.restore(state["_watch"])

    def __repr__(self) -> str:
        pool, (key, value) = self.allocator, self._layer(0)[:2]
        _, block_size, num_kv_heads, head_dim = key.shape
        dims = f"{head_dim}" if value.shape == key.shape else f"{head_dim} (values {value.shape[3]})"
        parts = [
            f"{plural(pool.num_blocks, 'block')} of {block_size} tokens",
            f"{plural(num_kv_heads, 'KV head')} x {dims}",
            *([f"{self.num_layers} layers"] if self.num_layers > 1 else []),
            np.dtype(value.dtype).name,
            *([self.layout] if self.layout != "NHD" else []),
            f"{pool.num_free_blocks} free",
            *(["prefix caching"] if pool.prefix_caching else []),
            *(["debug"] if self._watch is not None else []),
            f"target {self.target}",
        ]
        return f"PagedKVCache({', '.join(parts)})"

    def _repr_html_(self) -> str | None:
        """Return the text and a picture of the pool, for a notebook; None if the pool is too large to draw."""
        picture = self.allocator._repr_html_()
        return None if picture is None else f"<div><code>{html.escape(repr(self))}</code></div>{picture}"

    @property
    def key_cache(self) -> Any:
        """Keys of the first layer."""
        return self.key_caches[0]

    @property
    def value_cache(self) -> Any:
        """Values of the first layer."""
        return self.value_caches[0]

    @property
    def num_layers(self) -> int:
        """Number of attention layers."""
        return len(self.key_caches)

    # Queries of the allocator.

    def __contains__(self, seq_id: Hashable) -> bool:
        return seq_id in self.allocator

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.allocator)

    def __len__(self) -> int:
        return len(self.allocator)

    def seq_len(self, seq_id: Hashable) -> int:
        """Return the number of tokens of a sequence, which may be swapped out; see `BlockAllocator.seq_len`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        """
        return self.allocator.seq_len(seq_id)

    def can_append(self, seq_id: Hashable, tokens: int | TokenIds = 1) -> bool:
        """Tell whether the pool has enough free blocks to append tokens; see `BlockAllocator.can_append`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        tokens : int or sequence of int
            Number of tokens, 1 or more, or their ids.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            No sequence in the pool has this id.
        TypeError, ValueError
            The allocator does not accept the tokens.
        """
        return self.allocator.can_append(seq_id, tokens)

    def can_swap_in(self, seq_id: Hashable) -> bool:
        """Tell whether the pool has enough free blocks for a swapped sequence; see `BlockAllocator.can_swap_in`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        ValueError
            The sequence is not swapped out.
        """
        return self.allocator.can_swap_in(seq_id)

    @transaction
    def add(
        self,
        seq_id: Hashable,
        key: ArrayLike,
        value: ArrayLike,
        token_ids: TokenIds | None = None,
        *,
        salt: Hashable = None,
    ) -> int:
        """Start a sequence with the keys and values of its first tokens.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        key : [num_tokens, num_kv_heads, head_dim]
            Of the cache's dtype; with several layers ``[num_layers, num_tokens, num_kv_heads, head_dim]``.
        value : [num_tokens, num_kv_heads, value_head_dim]
            The same for the values.
        token_ids : sequence of int, optional
            The ids of the tokens; required with ``prefix_caching=True``.
        salt : hashable, optional
            Sequences share prefixes only with sequences of the same salt.

        Returns
        -------
        int
            Number of first tokens that the prefix cache already held; their rows of `key` and `value` are ignored.

        Raises
        ------
        DuplicateSequenceError
            A sequence has this id.
        OutOfBlocksError
            The pool has too few free blocks above the watermark.
        TypeError, ValueError
            The keys or values have the wrong shape or dtype, or the token ids do not match the tokens.

        See Also
        --------
        reserve : For a model, whose layers compute their keys and values one after the other.

        Examples
        --------
        >>> import numpy as np
        >>> import paged_numba as pn
        >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2, prefix_caching=True)
        >>> kv = np.ones((9, 1, 2), np.float32)
        >>> cache.add("a", kv, kv, range(9)), cache.add("b", kv, kv, range(9))    # b shares two full blocks with a
        (0, 8)
        """
        layers = self._by_layer(key, value)
        tokens = self._check_tokens(layers, token_ids)
        allocation = self.allocator.add(seq_id, tokens, salt=salt)
        found = allocation.num_cached_tokens
        self._write(allocation, [(keys[found:], values[found:]) for keys, values in layers])
        self.allocator.commit(seq_id)
        return found

    @transaction
    def append(
        self, seq_id: Hashable, key: ArrayLike, value: ArrayLike, token_ids: TokenIds | None = None
    ) -> None:
        """Append tokens to a sequence; if its last block is shared and part-filled, copy that block first.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        key : [num_tokens, num_kv_heads, head_dim]
            Of the cache's dtype; with several layers ``[num_layers, num_tokens, num_kv_heads, head_dim]``.
        value : [num_tokens, num_kv_heads, value_head_dim]
            The same for the values.
        token_ids : sequence of int, optional
            The ids of the tokens; required with ``prefix_caching=True``.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            No sequence in the pool has this id.
        OutOfBlocksError
            The pool has too few free blocks.
        TypeError, ValueError
            There are no tokens, the keys or values have the wrong shape or dtype, or the token ids do not match.
        """
        layers = self._by_layer(key, value)
        tokens = self._check_tokens(layers, token_ids)
        sequence = self.allocator._sequence(seq_id)
        were_written = sequence.num_written == sequence.length
        self._write(self.allocator.append(seq_id, tokens), layers)
        # Else tokens are reserved that the caller has yet to write: the prefix cache must not offer their blocks.
        if were_written:
            self.allocator.commit(seq_id)

    @transaction
    def reserve(
        self, seq_id: Hashable, tokens: int | TokenIds, *, salt: Hashable = None, limit: int | None = None
    ) -> Allocation:
        """Make room for tokens whose keys and values a model computes layer by layer.

        Starts the sequence if it is new, else grows it. Then, for each layer, call `write_layer` and `attend`, since a
        layer needs the attention of the layer before it; after the last layer call `commit`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        tokens : int or sequence of int
            Number of tokens, or their ids; see `BlockAllocator.add` and `BlockAllocator.append`.
        salt : hashable, optional
            Salt of a new sequence; see `add`.
        limit : int, optional
            The most tokens, 1 or more, to reserve now beyond those that the prefix cache holds. So a prompt that is
            computed in chunks finds the same prefix as one that is computed at once: give all of its tokens at first,
            and in later calls those that are left.

        Returns
        -------
        Allocation
            The slots to write in each layer. The copies that it lists have been made.

        Raises
        ------
        OutOfBlocksError
            The pool has too few free blocks.
        SwappedSequenceError
            The sequence is swapped out.
        TypeError, ValueError
            The allocator does not accept the tokens.

        Examples
        --------
        One step of a model with two layers and a sequence of 5 tokens:

        >>> import numpy as np
        >>> import paged_numba as pn
        >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2, num_layers=2)
        >>> allocation = cache.reserve("a", 5)
        >>> query = key = value = np.ones((5, 1, 2), np.float32)
        >>> for layer in range(cache.num_layers):
        ...     cache.write_layer(layer, key, value, allocation.slots)
        ...     out = cache.attend(["a"], query, layer=layer, cu_seqlens_q=[0, 5])
        >>> cache.commit("a")
        """
        hashable("salt", salt)
        pool = self.allocator
        if seq_id in pool or pool.is_swapped(seq_id):
            allocation = pool.append(seq_id, at_most(tokens, limit))
        else:
            allocation = pool.add(seq_id, tokens, salt=salt, limit=limit)
        self._copy(allocation)
        return allocation

    @transaction
    def write_layer(self, layer: int, key: ArrayLike, value: ArrayLike, slots: IntegersLike) -> None:
        """Write keys and values of tokens in one layer.

        Parameters
        ----------
        layer : int
            Number of the layer.
        key : [num_tokens, num_kv_heads, head_dim]
            Of the cache's dtype.
        value : [num_tokens, num_kv_heads, value_head_dim]
            The same for the values.
        slots : int64[num_tokens]
            From `reserve`; the slots of several sequences may be concatenated.

        Raises
        ------
        TypeError, ValueError
            The layer does not exist, or a dtype, shape or slot is invalid; nothing was written.
        """
        arguments = ops.copies.checked_write(key, value, *self._stored(layer), slots, self.layout, "slots")
        if self.target != "cuda":
            self._log_blocks(on_host(arguments[-1], "slots") // self.allocator.block_size, [layer])
        launches.write(*arguments, self.target)

    @transaction
    def commit(self, seq_id: Hashable) -> None:
        """Mark the reserved tokens of a sequence as written in all layers; see `BlockAllocator.commit`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        """
        self.allocator.commit(seq_id)

    @transaction
    def fork(self, parent_id: Hashable, child_id: Hashable) -> None:
        """Start a sequence that shares all blocks of another.

        Parameters
        ----------
        parent_id : hashable
            Id of the sequence whose blocks are shared.
        child_id : hashable
            Id of the new sequence.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            No sequence in the pool has the id `parent_id`; nothing was changed.
        DuplicateSequenceError
            A sequence has the id `child_id`; nothing was changed.
        """
        self.allocator.fork(parent_id, child_id)

    @transaction
    def truncate(self, seq_id: Hashable, length: int) -> None:
        """Take back the last tokens of a sequence; see `BlockAllocator.truncate`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        length : int
            Number of tokens to keep.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, TypeError, ValueError
            Nothing was changed.

        Examples
        --------
        A step fails between `reserve` and `commit`:

        >>> import paged_numba as pn
        >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2)
        >>> before = 0
        >>> _ = cache.reserve("a", 5)
        >>> cache.truncate("a", before)
        >>> cache.seq_len("a"), cache.allocator.num_free_blocks
        (0, 8)
        """
        self.allocator.truncate(seq_id, length)

    @transaction
    def free(self, seq_id: Hashable) -> None:
        """End a sequence, swapped out or not, and free the blocks that no other sequence shares.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id; nothing was changed.
        """
        self.allocator.free(seq_id)

    @transaction
    def preempt(self, seq_id: Hashable) -> None:
        """Free a sequence that the caller will add and compute again; see `BlockAllocator.preempt`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            Nothing was changed.
        """
        self.allocator.preempt(seq_id)

    @transaction
    def swap_out(self, seq_id: Hashable) -> None:
        """Move the keys and values of a sequence to host memory; see `BlockAllocator.swap_out`.

        `swap_in` brings them back bit for bit; until then the sequence can only be freed.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            Nothing was changed.
        """
        gathered = [self.gather(seq_id, layer=layer) for layer in range(self.num_layers)]
        kept = [(to_host(key), to_host(value)) for key, value in gathered]
        self.allocator.swap_out(seq_id)
        self.allocator._swapped[seq_id].stored = kept

    @transaction
    def swap_in(self, seq_id: Hashable) -> None:
        """Bring a sequence back from host memory; see `BlockAllocator.swap_in`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.

        Raises
        ------
        UnknownSequenceError
            No sequence has this id.
        OutOfBlocksError
            The pool has too few free blocks.
        ValueError
            The sequence is in the pool, or its allocator swapped it out without this cache.
        """
        sequence = self.allocator._swapped_sequence(seq_id)
        kept, num_written = sequence.stored, sequence.num_written
        if kept is None:
            raise ValueError(
                f"seq_id must be swapped out by this cache, not by its allocator alone, got seq_id={shown(seq_id)}"
            )
        allocation = self.allocator.swap_in(seq_id)
        # Count from the end: the prefix cache may hold the first tokens, or a window may have released them.
        count = allocation.slots.size

        def last(part: Any) -> Any:
            return beside(part[len(part) - count :], like=self._arrays[0][0])

        self._write(allocation, [(last(key), last(value)) for key, value in kept])
        if num_written == sequence.length:
            self.allocator.commit(seq_id)
        else:
            self.allocator._record_written(sequence, max(num_written, sequence.num_written))

    @transaction
    def release(self, seq_id: Hashable, window: int) -> int:
        """Release the blocks that slid out of a window; see `BlockAllocator.release`.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        window : int
            As for attention: a token sees no key at `window` or more positions before its own.

        Returns
        -------
        int
            Number of blocks that the sequence released.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError, TypeError, ValueError
            Nothing was changed.
        """
        return self.allocator.release(seq_id, window)

    @alone
    def gather(self, seq_id: Hashable, *, layer: int = 0) -> tuple[Any, Any]:
        """Return the keys and values of a sequence's tokens in a layer, without released tokens.

        Parameters
        ----------
        seq_id : hashable
            Id of the sequence.
        layer : int
            Number of the layer.

        Returns
        -------
        key : [seq_len - num_released_tokens, num_kv_heads, head_dim]
            Of the cache's dtype; a torch tensor if the storage is.
        value : [seq_len - num_released_tokens, num_kv_heads, value_head_dim]
            The same for the values.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        pool = self.allocator
        blocks, count = pool.held_blocks(seq_id), pool.seq_len(seq_id) - pool.num_released_tokens(seq_id)
        checks.check_layer(layer, self.num_layers)
        stored = self.key_caches[layer], self.value_caches[layer]
        return ops.gather_kv(*stored, blocks, count, layout=self.layout, target=self.target)

    @alone
    def block_tables(self, seq_ids: Sequence[Hashable]) -> NDArray[np.int32]:
        """Return the block tables of sequences as one array, int32[num_seqs, max_blocks].

        Shorter tables are padded with -1; a released block is -1, too.

        Parameters
        ----------
        seq_ids : sequence of hashable
            Ids of the sequences, one for each row.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
        """
        return padded([self.allocator.block_table(seq_id) for seq_id in listed("seq_ids", seq_ids, "ids")])

    @alone
    def attend(
        self,
        seq_ids: Sequence[Hashable],
        query: ArrayLike,
        *,
        layer: int = 0,
        cu_seqlens_q: IntegersLike | None = None,
        **options: Unpack[AttentionOptions],
    ) -> Any:
        """Attend from the last tokens of sequences; see `paged_numba.paged_attention`.

        Parameters
        ----------
        seq_ids : sequence of hashable
            Ids of the sequences, in the order of their query tokens.
        query : float32, float16 or bfloat16[num_tokens, num_q_heads, head_dim]
            Queries of the last tokens of each sequence.
        layer : int
            Number of the layer.
        cu_seqlens_q : int32[num_seqs + 1], optional
            Where the query tokens of each sequence begin and end; one query token per sequence if None.
        **options
            Options of `paged_numba.paged_attention`, except layout, target, k_scale and v_scale, which the cache sets.

        Returns
        -------
        out : [num_tokens, num_q_heads, value_head_dim]
            Of the query's dtype.
        lse : float32[num_tokens, num_q_heads]
            Only with ``return_lse=True``.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            A sequence is not in the pool.
        TypeError, ValueError
            The query or an option is invalid.
        """
        _only_options_of_attention(options)
        seq_ids = listed("seq_ids", seq_ids, "ids")
        seq_lens = np.array([self.allocator.seq_len(seq_id) for seq_id in seq_ids], np.int32)
        shape = getattr(query, "shape", None)
        if cu_seqlens_q is None and (not isinstance(shape, tuple) or shape[:1] != (len(seq_ids),)):
            raise ValueError(
                f"query must have a row for each of the {len(seq_ids)} seq_ids, got query.shape={shown(shape)}"
            )
        return ops.paged_attention(
            query,
            *self._stored(layer),
            self.block_tables(seq_ids),
            seq_lens,
            cu_seqlens_q=cu_seqlens_q,
            layout=self.layout,
            target=self.target,
            **self._scales,
            **options,
        )

    def _stored(self, layer: int) -> tuple[Any, Any]:
        checks.check_layer(layer, self.num_layers)
        return self._arrays[layer]

    def _layer(self, layer: int) -> adopt.Caches:
        return adopt.caches(*self._stored(layer), self.layout)

    def _by_layer(self, key: ArrayLike, value: ArrayLike) -> list[tuple[Any, Any]]:
        """Return the keys and the values of each layer; with a single layer, the layer axis is optional."""
        layers = []
        for name, tokens in (("key", key), ("value", value)):
            array = as_array(tokens, name)
            if self.num_layers == 1 and getattr(array, "ndim", 3) == 3:
                layers.append([array])
            else:
                checks.check_layers(name, array, self.num_layers)
                layers.append([array[layer] for layer in range(self.num_layers)])
        return list(zip(*layers, strict=True))

    def _check_tokens(self, layers: list[tuple[Any, Any]], token_ids: TokenIds | None) -> int | TokenIds:
        """Check the tokens before any block is allocated; return the argument `tokens` of the allocator."""
        for layer, (keys, values) in enumerate(layers):
            caches = self._layer(layer)
            checks.check_tokens(keys, values, caches.key, caches.value)
        count = int(layers[0][0].shape[0])
        if token_ids is None:
            if self.allocator.prefix_caching:
                raise TypeError("token_ids must be given with prefix_caching=True, got token_ids=None")
            return count
        given = number_of(token_ids, "token_ids")
        if given != count:
            raise ValueError(f"token_ids must hold an id for each of {plural(count, 'token')}, got {given}")
        return np.frombuffer(as_bytes(token_ids, "token_ids"), np.int64)

    def _copy(self, allocation: Allocation) -> None:
        if len(allocation.copies):
            self._log_overwritten(allocation.copies[:, 1])
            for layer in range(self.num_layers):
                launches.copy(self._layer(layer), allocation.copies, self.target)

    def _write(self, allocation: Allocation, layers: list[tuple[Any, Any]]) -> None:
        """Write keys and values, already adopted and checked, to each layer."""
        self._copy(allocation)
        self._log_overwritten(allocation.slots // self.allocator.block_size)
        for layer, (keys, values) in enumerate(layers):
            launches.write(keys, values, self._layer(layer), allocation.slots, self.target)

    # Transactions: the log is the allocator's.

    @property
    def _undo(self) -> UndoLog:
        return self.allocator._undo

    def _recount(self) -> None:
        self.allocator._recount()

    def _log_overwritten(self, blocks: Any) -> None:
        """Log what blocks hold that kernels will write to in every layer.

        On a GPU only blocks that were evicted in this transaction: the others hold no token that counts, and a copy to
        the host makes the GPU wait.
        """
        if self.target == "cuda":
            blocks = blocks[np.isin(blocks, self.allocator._evicted())]
        self._log_blocks(blocks, range(self.num_layers))

    def _log_blocks(self, blocks: Any, layers: Iterable[int]) -> None:
        # A slot of -1 is skipped. For a few blocks, a set takes a tenth of the time of np.unique.
        blocks = np.array(sorted({*blocks.tolist()} - {-1}), np.int64)
        for layer in layers:
            for array in self._stored(layer):
                if isinstance(array, np.ndarray):
                    self._undo.append((_put_back, array, blocks, array[blocks]))
                else:
                    self._undo.extend(
                        (_put_back, array, block, to_host(array[block])) for block in blocks.tolist()
                    )
        if self._watch is not None:
            self._undo.append((self._watch.restore, self._watch.state()))


def _put_back(array: Any, blocks: Any, held: Any) -> None:
    """Write the former contents of blocks back to them."""
    array[blocks] = held


def _only_options_of_attention(options: Mapping[str, Any]) -> None:
    known = AttentionOptions.__annotations__
    for name, value in options.items():
        if name not in known:
            raise TypeError(
                f"{name} must not be given: attend takes {', '.join(known)}, and the cache sets the rest, "
                f"got {name}={shown(value)}"
            )
