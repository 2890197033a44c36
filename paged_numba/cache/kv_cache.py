"""`PagedKVCache`: the allocator, the storage and the operations in one object."""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import ops, targets
from ..allocator import Allocation, BlockAllocator
from ..allocator.block_table import padded
from ..allocator.token_ids import TokenIds, as_bytes, number_of
from ..allocator.transactions import UndoLog, alone, transaction
from ..arguments import integer, listed, positive, shown, truth
from ..arrays import ArrayLike, Device, Dtype, IntegersLike, to_host, untraced
from ..draw.text import plural
from ..ops import checks, layouts
from ..ops.attention import AttentionOptions, PlanOptions, plan_call
from ..ops.storage import bytes_of_layers, storage_of_layers
from . import batch, step_plan
from .batch import BatchAllocation
from .layers import Layers
from .step_plan import StepPlan

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
    directly, too. Whoever does so carries out what they return: copies the blocks of ``Allocation.copies`` and writes
    the tokens of ``Allocation.slots``.

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
        keys, values = storage_of_layers(shapes, num_layers, storage_type, self.target, device)
        self._layers = Layers(self.allocator, keys, values, layout, self.target, debug=debug)

    def __repr__(self) -> str:
        pool, (key, value) = self.allocator, self._layers.caches(0)[:2]
        _, block_size, num_kv_heads, head_dim = key.shape
        dims = f"{head_dim}" if value.shape == key.shape else f"{head_dim} (values {value.shape[3]})"
        parts = [
            f"{plural(pool.num_blocks, 'block')} of {block_size} tokens",
            f"{plural(num_kv_heads, 'KV head')} x {dims}",
            *([f"{self.num_layers} layers"] if self.num_layers > 1 else []),
            np.dtype(key.dtype).name,
            *([self.layout] if self.layout != "NHD" else []),
            f"{pool.num_free_blocks} free",
            *(["prefix caching"] if pool.prefix_caching else []),
            *(["debug"] if self._layers.watch is not None else []),
            f"target {self.target}",
        ]
        return f"PagedKVCache({', '.join(parts)})"

    def _repr_html_(self) -> str | None:
        """Return the text and a picture of the pool, for a notebook; None if the pool is too large to draw."""
        picture = self.allocator._repr_html_()
        return None if picture is None else f"<div><code>{html.escape(repr(self))}</code></div>{picture}"

    @property
    def key_caches(self) -> list[Any]:
        """Keys of each layer."""
        return self._layers.key_caches

    @property
    def value_caches(self) -> list[Any]:
        """Values of each layer."""
        return self._layers.value_caches

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
        return len(self._layers)

    @staticmethod
    def num_blocks_for(
        num_bytes: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        value_head_dim: int | None = None,
        num_layers: int = 1,
        dtype: Dtype = "float32",
        layout: str = "NHD",
    ) -> int:
        """Return how many blocks of keys and values fit in a number of bytes.

        Parameters
        ----------
        num_bytes : int
            Bytes for the arrays of all layers. The allocator takes about 20 bytes of host memory more for each block.
        block_size, num_kv_heads, head_dim : int
            As for the cache.
        value_head_dim : int, optional
            As for the cache.
        num_layers : int
            As for the cache.
        dtype : dtype, torch.dtype or str
            As for the cache.
        layout : {"NHD", "HND", "packed"}
            As for the cache.

        Raises
        ------
        TypeError, ValueError
            A size, the dtype or the layout is invalid, or not even one block fits.

        Examples
        --------
        A block of 16 tokens with 3 KV heads of 64 numbers, 4 bytes each, takes 24 KiB for keys and values of a layer.

        >>> import paged_numba as pn
        >>> pn.PagedKVCache.num_blocks_for(2**20, 16, 3, 64), 2**20 // (16 * 3 * 64 * 4 * 2)
        (42, 42)
        """
        num_bytes = integer("num_bytes", num_bytes)
        value_head_dim = head_dim if value_head_dim is None else value_head_dim
        checks.check_cache_sizes(block_size, num_kv_heads, head_dim, value_head_dim, layout, num_layers)
        storage_type = checks.cache_dtype(dtype)
        sizes = map(int, (1, block_size, num_kv_heads, head_dim, value_head_dim))
        shapes = layouts.cache_shapes(layout, storage_type, *sizes)
        needed = bytes_of_layers(shapes, int(num_layers), storage_type)
        if num_bytes < needed:
            raise ValueError(
                f"num_bytes must hold a block of all layers at least, {needed} bytes, got num_bytes={shown(num_bytes)}"
            )
        return num_bytes // needed

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
        layers = self._layers.tokens_by_layer(key, value)
        tokens = self._check_tokens(layers, token_ids)
        allocation = self.allocator.add(seq_id, tokens, salt=salt)
        found = allocation.num_cached_tokens
        self._layers.write_all(allocation, [(keys[found:], values[found:]) for keys, values in layers])
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
        layers = self._layers.tokens_by_layer(key, value)
        tokens = self._check_tokens(layers, token_ids)
        sequence = self.allocator._sequence(seq_id)
        were_written = sequence.num_written == sequence.length
        self._layers.write_all(self.allocator.append(seq_id, tokens), layers)
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
        allocation = batch.reserve(self.allocator, seq_id, tokens, salt, limit)
        self._layers.copy(allocation.copies)
        return allocation

    @transaction
    def reserve_batch(
        self,
        tokens: Mapping[Hashable, int | TokenIds],
        *,
        limits: Mapping[Hashable, int | None] | None = None,
        salts: Mapping[Hashable, Hashable] | None = None,
    ) -> BatchAllocation:
        """Make room for the next tokens of several sequences, as `reserve` does one after the other, or for none.

        Parameters
        ----------
        tokens : mapping of hashable to (int or sequence of int)
            For the id of each sequence, the number of tokens or their ids.
        limits : mapping of hashable to int, optional
            For the ids of some of these sequences, the argument `limit` of `reserve`.
        salts : mapping of hashable to hashable, optional
            For the ids of some of these sequences, the argument `salt` of `reserve`.

        Returns
        -------
        BatchAllocation
            The slots to write in each layer, in the order of `tokens`. Shared blocks have been copied.

        Raises
        ------
        OutOfBlocksError
            The pool has too few free blocks for all of the tokens; nothing was changed.
        SwappedSequenceError
            One of the sequences is swapped out; nothing was changed.
        TypeError, ValueError
            `limits` or `salts` names another sequence, or `reserve` does not accept an argument; nothing was changed.

        See Also
        --------
        plan : Takes the slots and `cu_seqlens_q` of the result.

        Examples
        --------
        Sequence a has a prompt of 5 tokens, sequence b gets its next token:

        >>> import paged_numba as pn
        >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2)
        >>> _ = cache.reserve("b", 3)
        >>> batch = cache.reserve_batch({"a": 5, "b": 1})
        >>> batch.slots.tolist(), batch.cu_seqlens_q.tolist()
        ([4, 5, 6, 7, 8, 3], [0, 5, 6])
        """
        allocation, copies = batch.reserve_batch(self.allocator, tokens, limits, salts)
        self._layers.copy(copies)
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
        self._layers.write(layer, key, value, self._layers.checked_slots(slots))

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
        self._layers.forget_truncated()

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
        saved = self._layers.save(seq_id)
        self.allocator.swap_out(seq_id)
        self.allocator._swapped[seq_id].stored = saved

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
        saved, num_written = sequence.stored, sequence.num_written
        if saved is None:
            raise ValueError(
                f"seq_id must be swapped out by this cache, not by its allocator alone, got seq_id={shown(seq_id)}"
            )
        self._layers.bring_back(saved, self.allocator.swap_in(seq_id))
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
    def plan(
        self,
        seq_ids: Sequence[Hashable],
        num_q_heads: int,
        *,
        slots: IntegersLike | None = None,
        cu_seqlens_q: IntegersLike | None = None,
        seq_lens: IntegersLike | None = None,
        **options: Unpack[PlanOptions],
    ) -> StepPlan:
        """Plan a step of a model, to write and attend in every layer without further work.

        Call it after the last `reserve` of the step: once the pool has changed, the plan is refused.

        Parameters
        ----------
        seq_ids : sequence of hashable
            Ids of the sequences, in the order of their query tokens.
        num_q_heads : int
            Number of query heads of the model.
        slots : int64[num_slots], optional
            Slots that ``StepPlan.write`` writes, from `reserve` or `reserve_batch`.
        cu_seqlens_q : int32[num_seqs + 1], optional
            Where the query tokens of each sequence begin and end; one query token per sequence if None.
        seq_lens : int32[num_seqs], optional
            Number of tokens of each sequence that are written, for a sequence that was reserved whole and is written in
            chunks: the query tokens are the last of these. All tokens of the sequence if None, so that all must be
            written, reserved ones too.
        **options
            Options of `paged_numba.paged_attention`, except out, layout, target, k_scale and v_scale.

        Returns
        -------
        StepPlan
            ``plan.write(layer, key, value)`` and ``plan.attend(layer, query)`` do what `write_layer` and `attend` do.

        Raises
        ------
        UnknownSequenceError, SwappedSequenceError
            A sequence is not in the pool.
        TypeError, ValueError
            A slot, length or option is invalid.

        See Also
        --------
        attend : The same for one layer.

        Examples
        --------
        One step of a model with two layers, for the 5 tokens of sequence a and the next token of sequence b:

        >>> import numpy as np
        >>> import paged_numba as pn
        >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2, num_layers=2)
        >>> tokens = np.ones((2, 3, 1, 2), np.float32)
        >>> _ = cache.add("b", tokens, tokens)
        >>> slots, cu_seqlens_q, _ = cache.reserve_batch({"a": 5, "b": 1})
        >>> plan = cache.plan(["a", "b"], num_q_heads=1, slots=slots, cu_seqlens_q=cu_seqlens_q)
        >>> query = key = value = np.ones((6, 1, 2), np.float32)
        >>> for layer in range(cache.num_layers):
        ...     plan.write(layer, key, value)
        ...     out = plan.attend(layer, query)
        >>> cache.commit("a"), cache.commit("b")
        (None, None)
        """
        _only_options("plan", PlanOptions, options)
        seq_ids = listed("seq_ids", seq_ids, "ids")
        window = options.get("window")
        lens, starts = step_plan.lengths(self.allocator, seq_ids, cu_seqlens_q, seq_lens, window)
        call = plan_call(
            self._layers.caches(0),
            positive("num_q_heads", num_q_heads),
            self.block_tables(seq_ids),
            lens,
            cu_seqlens_q=starts,
            target=self.target,
            **self._scales,
            **options,
        )
        return StepPlan(self._layers, call, None if slots is None else self._layers.checked_slots(slots))

    @alone
    def attend(
        self,
        seq_ids: Sequence[Hashable],
        query: ArrayLike,
        *,
        layer: int = 0,
        cu_seqlens_q: IntegersLike | None = None,
        seq_lens: IntegersLike | None = None,
        **options: Unpack[AttentionOptions],
    ) -> Any:
        """Attend from the last tokens of sequences; see `paged_numba.paged_attention`.

        A model calls `plan` once a step, and attends with the plan in every layer.

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
        seq_lens : int32[num_seqs], optional
            Number of tokens of each sequence that are written, for a sequence that was reserved whole and is written in
            chunks: the query tokens are the last of these. All tokens of the sequence if None, so that all must be
            written, reserved ones too.
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
            The query, a length or an option is invalid.
        """
        _only_options("attend", AttentionOptions, options)
        seq_ids = listed("seq_ids", seq_ids, "ids")
        shape = getattr(query, "shape", None)
        if cu_seqlens_q is None and (not isinstance(shape, tuple) or shape[:1] != (len(seq_ids),)):
            raise ValueError(
                f"query must have a row for each of the {len(seq_ids)} seq_ids, got query.shape={shown(shape)}"
            )
        window = options.get("window")
        lens, starts = step_plan.lengths(self.allocator, seq_ids, cu_seqlens_q, seq_lens, window)
        return ops.paged_attention(
            query,
            *self._layers.stored(layer),
            self.block_tables(seq_ids),
            lens,
            cu_seqlens_q=starts,
            layout=self.layout,
            target=self.target,
            **self._scales,
            **options,
        )

    def _check_tokens(self, layers: list[tuple[Any, Any]], token_ids: TokenIds | None) -> int | TokenIds:
        """Return the argument `tokens` of the allocator for keys and values by layer."""
        count = int(layers[0][0].shape[0])
        if token_ids is None:
            if self.allocator.prefix_caching:
                raise TypeError("token_ids must be given with prefix_caching=True, got token_ids=None")
            return count
        given = number_of(token_ids, "token_ids")
        if given != count:
            raise ValueError(f"token_ids must hold an id for each of {plural(count, 'token')}, got {given}")
        return np.frombuffer(as_bytes(token_ids, "token_ids"), np.int64)

    # Transactions: the log is the allocator's.

    @property
    def _undo(self) -> UndoLog:
        return self.allocator._undo

    def _recount(self) -> None:
        self.allocator._recount()


def _only_options(name: str, options: Any, given: Mapping[str, Any]) -> None:
    known = options.__annotations__
    for option, value in given.items():
        if option not in known:
            raise TypeError(
                f"{option} must not be given: {name} takes {', '.join(known)}, and the cache sets the rest, "
                f"got {option}={shown(value)}"
            )
