"""Checks before a launch: first shapes and dtypes, then the values of the small integer arrays.

A kernel checks nothing: a wrong block number makes it read or overwrite tokens of other sequences. Static checks
need only the shape and dtype, so they take arrays of any kind; value checks take NumPy arrays.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..arguments import between, integer, is_number, one_of, positive, shown, truth
from ..arrays import dtype_name
from ..kernels.columns import ROW_END, ROW_FIRST, ROW_SEQ
from .layouts import (
    CACHE_LIMITS,
    MAX_GRID_DIM,
    MAX_THREADS,
    cache_layout,
    check_attention_sizes,
    piece_size,
)
from .memory import check_apart, check_written, memory_of

CACHE_DTYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn")
QUERY_DTYPES = CACHE_DTYPES[:3]
"""Names of dtypes; the last two of CACHE_DTYPES come from ml_dtypes."""

MAX_LENGTH = 2**31 - 1
"""Most tokens of a sequence: kernels hold positions as int32."""

_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def check_cache_sizes(
    block_size: Any, num_kv_heads: Any, head_dim: Any, value_head_dim: Any, layout: str, num_layers: Any = 1
) -> None:
    """Raise unless a cache of these sizes can be written, gathered, copied and attended to."""
    positive("num_layers", num_layers)
    for (name, limit), count in zip(
        CACHE_LIMITS.items(), (block_size, num_kv_heads, head_dim, value_head_dim), strict=True
    ):
        between(name, count, 1, limit)
    if cache_layout(layout) == "packed":
        check_attention_sizes("packed", block_size, head_dim, value_head_dim)


def cache_dtype(dtype: Any) -> Any:
    """Return the NumPy dtype of a cache's storage, or raise.

    Raises
    ------
    TypeError
        `dtype` is not a dtype, or a cache cannot have it.
    """
    name, dtype = dtype, dtype_name(dtype)
    if isinstance(dtype, str) and dtype in CACHE_DTYPES[2:]:
        import ml_dtypes

        dtype = getattr(ml_dtypes, dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of aliases, none of which is a dtype of caches
            dtype = np.dtype(dtype)
    except Exception:  # NumPy raises several kinds
        dtype = None
    if dtype is None or dtype.name not in CACHE_DTYPES or not dtype.isnative:
        raise TypeError(f"dtype must be one of {', '.join(CACHE_DTYPES)}, got dtype={shown(name)}")
    return dtype


def check_layer(layer: Any, num_layers: int) -> None:
    """Raise unless a cache has the layer."""
    between("layer", layer, 0, num_layers - 1, "num_layers - 1")


def check_layers(name: str, tokens: Any, num_layers: int) -> None:
    """Raise unless keys or values are an array whose first axis counts the layers."""
    head_dim = "value_head_dim" if name == "value" else "head_dim"
    _shaped(name, tokens, (num_layers, "num_tokens", "num_kv_heads", head_dim))


def check_write_kv(key: Any, value: Any, key_cache: Any, value_cache: Any, slot_mapping: Any) -> None:
    """Raise unless `ops.write_kv` can take these arguments; its docstring gives the shapes."""
    check_caches(key_cache, value_cache)
    _writable_caches(key_cache, value_cache)
    check_tokens(key, value, key_cache, value_cache)
    check_slots(slot_mapping, key.shape[0], key_cache.shape[0] * key_cache.shape[1], "slot_mapping")


def check_slots(slots: Any, num_tokens: int | str, num_slots: int, name: str = "slots") -> None:
    """Raise unless tokens can be written to these slots of a cache."""
    _integers(name, slots, (num_tokens,))
    last = num_slots - 1
    _within(name, slots, -1, last, f"-1 .. {last} (num_blocks * block_size - 1)")
    ordered = np.sort(slots[slots != -1])
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if twice.size:
        slot = ordered[twice[0]]
        raise ValueError(
            f"{name} must not name a slot twice, got slot {slot} for tokens "
            f"{shown(np.flatnonzero(slots == slot).tolist())}"
        )


def check_tokens(
    key: Any, value: Any, key_cache: Any, value_cache: Any, num_tokens: int | str = "num_tokens"
) -> None:
    """Raise unless keys and values fit a valid cache in shape and dtype, and do not overlap it."""
    dtype = np.dtype(key_cache.dtype).name
    _array("key", key, (num_tokens, *key_cache.shape[2:]), (dtype,))
    _array("value", value, (key.shape[0], *value_cache.shape[2:]), (dtype,))
    for name, source in (("key", key), ("value", value)):
        for cache_name, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
            check_apart(name, source, cache_name, cache)


def check_gather_kv(key_cache: Any, value_cache: Any, block_table: Any, seq_len: Any) -> None:
    """Raise unless `ops.gather_kv` can take these arguments; its docstring gives the shapes."""
    check_caches(key_cache, value_cache)
    _integers("block_table", block_table, ("max_blocks",))

    block_size = key_cache.shape[1]
    length = between("seq_len", seq_len, 0, block_table.size * block_size, "len(block_table) * block_size")
    used = block_table[: -(-length // block_size)]
    _within("block_table", used, 0, key_cache.shape[0] - 1, f"0 .. {key_cache.shape[0] - 1} (num_blocks - 1)")


def check_copy_blocks(key_cache: Any, value_cache: Any, block_pairs: Any) -> None:
    """Raise unless `ops.copy_blocks` can take these arguments; its docstring gives the shapes."""
    check_caches(key_cache, value_cache)
    _writable_caches(key_cache, value_cache)
    _integers("block_pairs", block_pairs, ("num_pairs", 2))

    last = key_cache.shape[0] - 1
    _within("block_pairs", block_pairs, 0, last, f"0 .. {last} (num_blocks - 1)")
    sources, targets = block_pairs[:, 0], block_pairs[:, 1]
    # Pairs are copied in any order, so no other pair may contain a block that is written.
    seen, counts = np.unique(targets, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"block_pairs must not write a block twice, got dst {seen[counts > 1][0]} twice")
    both = np.intersect1d(sources, targets)
    if both.size:
        raise ValueError(f"block_pairs must not read a block that it writes, got {both[0]} as src and dst")


def check_query(
    query: Any, head_dim: int, num_tokens: int | str = "num_tokens", num_q_heads: int | str = "num_q_heads"
) -> None:
    """Raise unless attention can take this query; a number given for a size is the size that it must have."""
    _array("query", query, (num_tokens, num_q_heads, head_dim), QUERY_DTYPES)


def check_heads(num_q_heads: int, num_kv_heads: int) -> None:
    """Raise unless so many query heads can attend to a cache."""
    if num_q_heads == 0 or num_q_heads % num_kv_heads:
        raise ValueError(
            f"num_q_heads must be a positive multiple of num_kv_heads, got num_q_heads={shown(num_q_heads)} "
            f"and num_kv_heads={num_kv_heads}"
        )
    if num_q_heads > MAX_GRID_DIM:
        raise ValueError(
            f"num_q_heads must be at most {MAX_GRID_DIM} for attention, got num_q_heads={shown(num_q_heads)}"
        )


def check_batch(
    block_tables: Any, seq_lens: Any, cu_seqlens_q: Any, num_tokens: int | None, block_size: int
) -> None:
    """Raise unless these tables and lengths are a batch of `num_tokens` query tokens; of any number if None."""
    num_seqs = num_tokens if num_tokens is not None and cu_seqlens_q is None else "num_seqs"
    _integers("seq_lens", seq_lens, (num_seqs,))
    _integers("block_tables", block_tables, (seq_lens.shape[0], "max_blocks"))
    if cu_seqlens_q is not None:
        _check_cu_seqlens(cu_seqlens_q, seq_lens.shape[0], num_tokens)
    longest = block_tables.shape[1] * block_size
    if longest <= MAX_LENGTH:
        bounds = f"0 .. {longest} (block_tables.shape[1] * block_size)"
    else:
        longest, bounds = MAX_LENGTH, f"0 .. {MAX_LENGTH} (positions are int32)"
    _within("seq_lens", seq_lens, 0, longest, bounds)


def check_out(out: Any, query: Any, key_cache: Any, value_cache: Any) -> None:
    """Raise unless attention can write its result for a valid query to an array."""
    shape = (query.shape[0], query.shape[1], value_cache.shape[3])
    _array("out", out, shape, (np.dtype(query.dtype).name,))
    check_written("out", out)
    for name, other in (("query", query), ("key_cache", key_cache), ("value_cache", value_cache)):
        check_apart("out", out, name, other)


def check_seen_blocks(block_tables: Any, seq_lens: Any, rows: Any, num_blocks: int, block_size: int) -> None:
    """Raise unless the cache has all blocks that query tokens see.

    Other entries of a table may hold anything: entries past the end of a sequence, and entries behind a window.

    Parameters
    ----------
    block_tables, seq_lens : int arrays
        As in `ops.paged_attention`.
    rows : int32[num_tokens, 5]
        From `visible_keys.query_rows`.
    num_blocks, block_size : int
    """
    if not block_tables.size or (block_tables.min() >= 0 and block_tables.max() < num_blocks):
        return
    seen = rows[rows[:, ROW_FIRST] < rows[:, ROW_END]]
    first = np.full(len(seq_lens), np.iinfo(np.int32).max)
    end = np.zeros(len(seq_lens), np.int64)
    np.minimum.at(first, seen[:, ROW_SEQ], seen[:, ROW_FIRST])
    np.maximum.at(end, seen[:, ROW_SEQ], seen[:, ROW_END])
    place = np.arange(block_tables.shape[1])
    used = (place >= first[:, None] // block_size) & (place < -(-end[:, None] // block_size))
    bad = used & ((block_tables < 0) | (block_tables >= num_blocks))
    if bad.any():
        seq, number = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"block_tables must lie in 0 .. {num_blocks - 1} (num_blocks - 1) for the blocks in use, "
            f"got block_tables[{seq}, {number}]={block_tables[seq, number]} "
            f"with seq_lens[{seq}]={seq_lens[seq]}"
        )


def check_lengths(seq_lens: Any, cu_seqlens_q: Any, num_seqs: int | str = "num_seqs") -> None:
    """Raise unless these are lengths of sequences, and where the query tokens of each begin and end."""
    _integers("seq_lens", seq_lens, (num_seqs,))
    _within("seq_lens", seq_lens, 0, MAX_LENGTH, f"0 .. {MAX_LENGTH} (positions are int32)")
    _check_cu_seqlens(cu_seqlens_q, seq_lens.shape[0], None)


def _check_cu_seqlens(cu_seqlens_q: Any, num_seqs: int, num_tokens: int | None) -> None:
    _integers("cu_seqlens_q", cu_seqlens_q, (num_seqs + 1,))
    first, last = cu_seqlens_q[0], cu_seqlens_q[-1]
    if num_tokens is None:
        if first != 0:
            raise ValueError(f"cu_seqlens_q must begin with 0, got cu_seqlens_q[0]={first}")
    elif (first, last) != (0, num_tokens):
        raise ValueError(
            f"cu_seqlens_q must begin with 0 and end with {num_tokens} (len(query)), "
            f"got cu_seqlens_q[0]={first} and cu_seqlens_q[-1]={last}"
        )
    falls = np.flatnonzero(cu_seqlens_q[1:] < cu_seqlens_q[:-1])
    if falls.size:
        place = int(falls[0])
        raise ValueError(
            f"cu_seqlens_q must not decrease, got cu_seqlens_q[{place}]={cu_seqlens_q[place]} and "
            f"cu_seqlens_q[{place + 1}]={cu_seqlens_q[place + 1]}"
        )


def check_attention_options(
    num_q_heads: int, scale: Any, window: Any, softcap: Any, alibi_slopes: Any, sinks: Any, **flags: Any
) -> None:
    """Raise unless the options of `ops.paged_attention` are valid; see its docstring."""
    if scale is not None and not _is_float32(scale):
        raise ValueError(f"scale must be a finite float32 or None, got scale={shown(scale)}")
    for name, flag in flags.items():
        truth(name, flag)
    if window is not None and integer("window", window) < 1:
        raise ValueError(f"window must be positive or None, got window={shown(window)}")
    if softcap is not None and not (_is_float32(softcap) and np.float32(softcap) > 0):
        raise ValueError(f"softcap must be a positive float32 or None, got softcap={shown(softcap)}")
    for name, given in (("alibi_slopes", alibi_slopes), ("sinks", sinks)):
        if given is None:
            continue
        _shaped(name, given, (num_q_heads,))
        bad = np.flatnonzero(~np.isfinite(_reals(name, given)))
        if bad.size:
            raise ValueError(f"{name} must be finite, got {name}[{bad[0]}]={given[bad[0]]}")


def cache_scale(name: str, given: Any, num_kv_heads: int) -> Any:
    """Return a scale for each KV head, float32[num_kv_heads]: 1 for None, else the number or numbers given.

    Raises
    ------
    TypeError, ValueError
        The scale is not real, positive and finite, or has another shape.
    """
    if given is None:
        return np.ones(num_kv_heads, np.float32)
    scales = np.asarray(given)
    if scales.shape not in ((), (num_kv_heads,)):
        raise ValueError(
            f"{name} must be a number or have shape [{num_kv_heads}], got {name}.shape={scales.shape}"
        )
    rounded = _reals(name, scales)
    bad = np.flatnonzero(~((rounded > 0) & (rounded < np.inf)))
    if bad.size:
        raise ValueError(
            f"{name} must be positive and finite in float32, got {name}={scales.ravel()[bad[0]]}"
        )
    return np.broadcast_to(rounded, (num_kv_heads,)).copy()


def check_algorithm(algorithm: Any, algorithms: tuple[str, ...], num_splits: Any, layout: str) -> None:
    """Raise unless the algorithm exists, supports the layout, and takes `num_splits`."""
    algorithm = one_of("algorithm", algorithm, algorithms)
    if layout == "packed" and algorithm != "auto":
        raise ValueError(
            f"algorithm must be 'auto' for layout='packed', which has its own kernel, "
            f"got algorithm={algorithm!r}"
        )
    if num_splits is None:
        return
    if algorithm not in ("split", "block"):
        raise ValueError(
            f"num_splits must be None unless algorithm is 'split' or 'block', got num_splits={shown(num_splits)} "
            f"and algorithm={algorithm!r}"
        )
    between("num_splits", num_splits, 1, MAX_GRID_DIM)


def check_merge_states(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> None:
    """Raise unless `ops.merge_states` can take these arguments; its docstring gives the shapes."""
    _array("out_a", out_a, ("num_tokens", "num_q_heads", "value_head_dim"), QUERY_DTYPES)
    _array("out_b", out_b, tuple(out_a.shape), (np.dtype(out_a.dtype).name,))
    for name, lse in (("lse_a", lse_a), ("lse_b", lse_b)):
        _array(name, lse, tuple(out_a.shape[:2]))
    for what, size, limit in (
        ("num_q_heads", out_a.shape[1], MAX_GRID_DIM),
        ("value_head_dim", out_a.shape[2], MAX_THREADS),
    ):
        if not 1 <= size <= limit:
            raise ValueError(f"{what} must lie in 1 .. {limit}, got out_a.shape={tuple(out_a.shape)}")


def check_reals(name: str, given: Any) -> None:
    """Raise unless a NumPy array holds real numbers."""
    if not isinstance(given, np.ndarray):
        raise TypeError(f"{name} must be an array, got {type(given).__name__}")
    if given.dtype.kind not in "fiu" and given.dtype.name not in CACHE_DTYPES:
        raise TypeError(f"{name} must hold real numbers, got {name}.dtype={given.dtype}")


def _reals(name: str, given: Any) -> Any:
    """Return real numbers as float32; numbers that are too large become infinite."""
    check_reals(name, given)
    with np.errstate(over="ignore"):
        return given.astype(np.float32)


def _is_float32(number: Any) -> bool:
    try:
        return is_number(number) and abs(float(number)) <= _LARGEST_FLOAT
    except OverflowError:  # an int that no float holds
        return False


# Static checks of one array.


def check_four_axes(key_cache: Any, value_cache: Any) -> None:
    """Raise unless caches have the axes of HND."""
    for name, cache, head_dim in (
        ("key_cache", key_cache, "head_dim"),
        ("value_cache", value_cache, "value_head_dim"),
    ):
        _shaped(name, cache, ("num_blocks", "num_kv_heads", "block_size", head_dim))


def check_packed(key_cache: Any, value_cache: Any) -> None:
    """Raise unless caches have the axes and strides of the packed layout."""
    axes = ("num_blocks", "num_kv_heads", "head_dim // x", "block_size")
    _array("key_cache", key_cache, (*axes, "x"), CACHE_DTYPES)
    _shaped("key_cache", key_cache, (*axes, piece_size(key_cache.dtype)))
    num_blocks, num_kv_heads, _, block_size, _ = key_cache.shape
    _shaped("value_cache", value_cache, (num_blocks, num_kv_heads, "value_head_dim", block_size))
    for name, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
        memory = memory_of(cache)
        if memory is not None and not memory.flags.c_contiguous:
            raise ValueError(
                f"{name} must be contiguous for layout='packed', got {name}.strides={memory.strides}"
            )


def check_caches(key_cache: Any, value_cache: Any) -> None:
    """Raise unless these are the key cache and the value cache of an operation, adopted and viewed as NHD."""
    _array("key_cache", key_cache, ("num_blocks", "block_size", "num_kv_heads", "head_dim"), CACHE_DTYPES)
    _array(
        "value_cache",
        value_cache,
        (*key_cache.shape[:3], "value_head_dim"),
        (np.dtype(key_cache.dtype).name,),
    )
    for name, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
        if 0 in tuple(cache.shape):
            raise ValueError(f"{name} must not be empty, got {name}.shape={tuple(cache.shape)}")
    sizes = (*key_cache.shape[1:], value_cache.shape[3])
    for (name, limit), size in zip(CACHE_LIMITS.items(), sizes, strict=True):
        if size > limit:
            which, cache = (
                ("value_cache", value_cache) if name == "value_head_dim" else ("key_cache", key_cache)
            )
            raise ValueError(f"{name} must be at most {limit}, got {which}.shape={tuple(cache.shape)}")


def _writable_caches(key_cache: Any, value_cache: Any) -> None:
    check_written("key_cache", key_cache)
    check_written("value_cache", value_cache)
    check_apart("key_cache", key_cache, "value_cache", value_cache)


def _array(
    name: str, array: Any, shape: tuple[int | str, ...], dtypes: tuple[str, ...] = ("float32",)
) -> None:
    """Raise unless `array` has one of the dtypes and the shape; a name in the shape stands for any length."""
    _shaped(name, array, shape)
    # Comparing names avoids an import of ml_dtypes.
    if np.dtype(array.dtype).name not in dtypes or not np.dtype(array.dtype).isnative:
        raise TypeError(f"{name} must have dtype {' or '.join(dtypes)}, got {name}.dtype={array.dtype}")


def _shaped(name: str, array: Any, shape: tuple[int | str, ...]) -> None:
    # Once adopted, an array is one of NumPy or lies on the GPU.
    is_array = isinstance(array, np.ndarray) or hasattr(array, "__cuda_array_interface__")
    if not is_array or not isinstance(array.shape, tuple):
        raise TypeError(f"{name} must be an array, got {type(array).__name__}")
    got = tuple(array.shape)
    fits = len(got) == len(shape) and all(
        isinstance(want, str) or want == have for want, have in zip(shape, got, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape [{wanted}], got {name}.shape={got}")


def _integers(name: str, array: Any, shape: tuple[int | str, ...]) -> None:
    _shaped(name, array, shape)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {name}.dtype={array.dtype}")


# Value checks of one array.


def _within(name: str, array: Any, low: int, high: int, bounds: str) -> None:
    """Raise unless every element lies in ``low .. high``; name the first that does not."""
    if array.size and not (array.min() >= low and array.max() <= high):
        bad = (array < low) | (array > high)
        place = tuple(np.argwhere(bad)[0].tolist())
        index = ", ".join(map(str, place))
        raise ValueError(f"{name} must lie in {bounds}, got {name}[{index}]={array[place]}")
