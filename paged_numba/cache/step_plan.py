"""`StepPlan`: checks and prepares once what every layer of a model's step shares."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allocator import BlockAllocator
from ..allocator.transactions import UndoLog, alone, transaction
from ..arguments import integer, shown
from ..arrays import ArrayLike, IntegersLike, to_host, untraced
from ..draw.text import plural
from ..errors import PagedNumbaError
from ..ops import checks
from ..ops.attention import Call, run
from .layers import Layers, Slots


@untraced
class StepPlan:
    """The plan of one step of a model: writes and attends in any layer; made by `paged_numba.PagedKVCache.plan`.

    Block tables, lengths, slots and options were checked when the plan was made, the work was divided, and on a GPU the
    small arrays were copied to it. A layer checks only its own arrays and launches the kernels.

    A plan serves until a call changes a sequence of the pool, `commit` included, or the prefix cache. After that, its
    methods raise PagedNumbaError. Writes, queries and calls that fail change neither.

    Attributes
    ----------
    num_tokens : int
        Query tokens of the step.

    See Also
    --------
    paged_numba.PagedKVCache.plan : Makes a plan, with an example.
    """

    def __init__(self, layers: Layers, call: Call, slots: Slots | None) -> None:
        self._layers, self._call, self._slots = layers, call, slots
        self._state = self._undo.state

    def __repr__(self) -> str:
        parts = [plural(self.num_tokens, "query token")]
        if self._slots is not None:
            parts.append(plural(self._slots.num_slots, "slot"))
        return f"StepPlan({', '.join(parts)})"

    @property
    def num_tokens(self) -> int:
        """Query tokens of the step."""
        return self._call.num_tokens

    @transaction
    def write(self, layer: int, key: ArrayLike, value: ArrayLike) -> None:
        """Write the keys and values of the step's tokens in one layer.

        Parameters
        ----------
        layer : int
            Number of the layer.
        key : [num_slots, num_kv_heads, head_dim]
            Of the cache's dtype, in the order of the plan's slots.
        value : [num_slots, num_kv_heads, value_head_dim]
            The same for the values.

        Raises
        ------
        PagedNumbaError
            The pool has changed since the plan was made.
        TypeError, ValueError
            The plan has no slots, the layer does not exist, or a dtype or shape is invalid; nothing was written.

        See Also
        --------
        paged_numba.PagedKVCache.write_layer : The same without a plan.

        Examples
        --------
        >>> import numpy as np
        >>> import paged_numba as pn
        >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2)
        >>> slots = cache.reserve("a", 5).slots
        >>> plan = cache.plan(["a"], num_q_heads=1, slots=slots)
        >>> plan.write(0, np.ones((5, 1, 2), np.float32), np.ones((5, 1, 2), np.float32))
        >>> cache.commit("a")
        """
        self._require_current("write")
        if self._slots is None:
            raise ValueError("slots must be given to plan for a plan that writes, got slots=None")
        self._layers.write(layer, key, value, self._slots)

    @alone
    def attend(self, layer: int, query: ArrayLike, *, out: ArrayLike | None = None) -> Any:
        """Attend from the step's query tokens in one layer.

        Parameters
        ----------
        layer : int
            Number of the layer.
        query : float32, float16 or bfloat16[num_tokens, num_q_heads, head_dim]
            Queries of the step's tokens.
        out : [num_tokens, num_q_heads, value_head_dim], optional
            Array for the result, of the query's dtype.

        Returns
        -------
        out : [num_tokens, num_q_heads, value_head_dim]
            Of the query's dtype.
        lse : float32[num_tokens, num_q_heads]
            Only if the plan was made with ``return_lse=True``.

        Raises
        ------
        PagedNumbaError
            The pool has changed since the plan was made.
        TypeError, ValueError
            The layer does not exist, or a dtype or shape is invalid.

        See Also
        --------
        paged_numba.PagedKVCache.attend : The same without a plan.

        Examples
        --------
        >>> import numpy as np
        >>> import paged_numba as pn
        >>> cache = pn.PagedKVCache(8, 4, num_kv_heads=1, head_dim=2)
        >>> _ = cache.add("a", np.ones((5, 1, 2), np.float32), np.ones((5, 1, 2), np.float32))
        >>> plan = cache.plan(["a"], num_q_heads=1)
        >>> plan.attend(0, np.ones((1, 1, 2), np.float32))
        array([[[1., 1.]]], dtype=float32)
        """
        self._require_current("attend")
        return run(self._call, query, self._layers.caches(layer), out)

    def _require_current(self, name: str) -> None:
        if self._undo.state is not self._state:
            raise PagedNumbaError(
                f"{name} must be called before the pool changes again, got a plan from before a change: "
                "make a plan after the last reserve of each step"
            )

    # Transactions: the log is the allocator's.

    @property
    def _undo(self) -> UndoLog:
        return self._layers.allocator._undo

    def _recount(self) -> None:
        self._layers.allocator._recount()


def lengths(
    allocator: BlockAllocator,
    seq_ids: Sequence[Hashable],
    cu_seqlens_q: IntegersLike | None,
    seq_lens: IntegersLike | None,
    window: Any,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the number of tokens of each sequence to attend to, and where its query tokens begin, on the host.

    Raises
    ------
    TypeError, ValueError
        A sequence has fewer tokens than query tokens, `seq_lens` does not hold, for each sequence, a number from that
        of its query tokens to that of its tokens, or `window` does not hide the tokens that a sequence has released.
    """
    held = np.array([allocator.seq_len(seq_id) for seq_id in seq_ids], np.int32)
    starts, lens = to_host(cu_seqlens_q, "cu_seqlens_q"), held
    if seq_lens is not None:
        lens = to_host(seq_lens, "seq_lens")
    edges = np.arange(len(held) + 1) if starts is None else starts
    checks.check_lengths(lens, edges, len(held))
    queries = np.diff(edges.astype(np.int64))
    seq = _first(queries > held)
    if seq is not None:
        raise ValueError(
            f"cu_seqlens_q must count at most the tokens of each sequence, {held[seq]} for sequence "
            f"{shown(seq_ids[seq])}, got {plural(int(queries[seq]), 'query token')}"
        )
    seq = _first((lens < queries) | (lens > held))
    if seq is not None:
        raise ValueError(
            f"seq_lens must count the tokens of a sequence that are written, {queries[seq]} (its query tokens) .. "
            f"{held[seq]} (all of its tokens) for sequence {shown(seq_ids[seq])}, "
            f"got seq_lens[{seq}]={lens[seq]}"
        )
    released = np.array([allocator.num_released_tokens(seq_id) for seq_id in seq_ids], np.int64)
    if released.any():
        first = lens.astype(np.int64) - queries
        seen = first * 0 if window is None else np.maximum(0, first - integer("window", window) + 1)
        seq = _first((seen < released) & (queries > 0))
        if seq is not None:
            raise ValueError(
                f"window must hide the {released[seq]} released tokens of sequence {shown(seq_ids[seq])} from its "
                f"query token at position {first[seq]}, got window={shown(window)}"
            )
    return lens, starts


def _first(bad: NDArray[np.bool_]) -> int | None:
    """Return the place of the first True, None if there is none."""
    return int(np.argmax(bad)) if bad.any() else None
