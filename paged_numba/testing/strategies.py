"""Hypothesis strategies for paged attention: awkward lengths, scattered blocks, poisoned free slots.

Hypothesis draws the shapes, which shrink towards one sequence, one head and blocks of one token. The numbers come from
a generator with a drawn seed, since failures do not depend on single floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

BLOCK_SIZES = (1, 2, 3, 4, 5, 8, 16)
HEAD_DIMS = (1, 2, 3, 5, 8, 13, 16, 40, 64, 80)
STORAGE = (
    np.dtype(np.float32),
    np.dtype(np.float16),
    np.dtype(ml_dtypes.bfloat16),
    np.dtype(ml_dtypes.float8_e4m3fn),
)
"""Dtypes of caches."""

TOKEN_AXES = {"NHD": 1, "HND": 2, "packed": 3}
"""Axis of the tokens of a block in a cache, by layout."""

GARBAGE = (-1, -7, 2**31 - 1)
"""Entries of a block table after the blocks of its sequence."""

MOST_ROWS = 800
"""Most query rows (tokens times heads) of a sequence in the grid: 20 tokens of 40 heads are two tiles."""


def layouts(head_dim: int, dtype: Any) -> list[str]:
    """Return the layouts that a cache may have: packed keys take a multiple of 16 bytes."""
    return [name for name in TOKEN_AXES if name != "packed" or head_dim * dtype.itemsize % 16 == 0]


def laid_out(caches: Any, layout: str, head_dims: tuple[int, int]) -> tuple[Any, Any]:
    """Return copies of NHD caches in a layout.

    Parameters
    ----------
    caches : float[2, num_blocks, block_size, num_kv_heads, dims]
        The caches of keys and of values.
    layout : str
    head_dims : tuple of int
        How many of the dimensions a key has, and how many a value has.
    """
    key_cache, value_cache = (cache[..., :dims] for cache, dims in zip(caches, head_dims, strict=True))
    if layout == "packed":
        key_cache = key_cache.reshape(*key_cache.shape[:3], -1, 16 // caches.itemsize)
    key_cache, value_cache = (np.moveaxis(cache, 1, TOKEN_AXES[layout]) for cache in (key_cache, value_cache))
    return key_cache.copy(), value_cache.copy()


@dataclass(frozen=True, eq=False)
class PagedBatch:
    """A batch in paged and in dense form.

    Attributes
    ----------
    query : float[num_tokens, num_q_heads, head_dim]
    key_cache, value_cache : float[num_blocks, block_size, num_kv_heads, head_dim and value_head_dim]
        NaN in every slot that no sequence owns; with the axes of `layout`.
    block_tables : int32[num_seqs, max_blocks]
        Scattered blocks; garbage after the blocks of each sequence.
    seq_lens : int32[num_seqs]
    keys, values : list of float[seq_len, num_kv_heads, head_dim and value_head_dim]
        The same keys and values, dense, by sequence.
    scale : float or None
    cu_seqlens_q : int32[num_seqs + 1] or None
        None if each sequence has one query token.
    options : dict
        Further arguments of `paged_numba.paged_attention` and of the oracle.
    layout : str
    """

    query: Any
    key_cache: Any
    value_cache: Any
    block_tables: Any
    seq_lens: Any
    keys: list[Any]
    values: list[Any]
    scale: float | None
    cu_seqlens_q: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    layout: str = "NHD"

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        return int(self.key_cache.shape[TOKEN_AXES[self.layout]])

    def query_of(self, seq: int) -> slice:
        """Return the rows of `query` that belong to a sequence."""
        starts = range(len(self.keys) + 1) if self.cu_seqlens_q is None else self.cu_seqlens_q.tolist()
        return slice(starts[seq], starts[seq + 1])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        ragged = None if self.cu_seqlens_q is None else self.cu_seqlens_q.tolist()
        printer.text(
            f"PagedBatch(query{self.query.shape} {self.query.dtype}, "
            f"caches{self.key_cache.shape} {self.key_cache.dtype} {self.layout}, "
            f"seq_lens={self.seq_lens.tolist()}, block_tables={self.block_tables.tolist()}, scale={self.scale}, "
            f"cu_seqlens_q={ragged}, options={self.options})"
        )


def lengths(block_size: int) -> st.SearchStrategy[int]:
    """Draw a number of tokens, often at a block boundary or next to it; shrinks towards 0.

    Some are longer than a tile of the block kernel, which is as many whole blocks as fit in 64 tokens, or one block.
    """
    tile = max(1, 64 // block_size) * block_size
    bases = [k * block_size for k in range(1, 5)] + [tile, tile + block_size, 2 * tile]
    boundaries = {0, 1} | {base + d for base in bases for d in (-1, 0, 1)}
    return st.one_of(st.sampled_from(sorted(boundaries)), st.integers(0, 4 * block_size))


def value_head_dims(head_dim: int) -> st.SearchStrategy[int]:
    """Draw a number of dimensions of values, often as many as those of keys."""
    return st.just(head_dim) | st.sampled_from(HEAD_DIMS)


seeds = st.integers(0, 2**32 - 1)
"""Seed of a NumPy generator; shrinks towards 0."""


@st.composite
def attention_options(draw: st.DrawFn, num_q_heads: int, num_kv_heads: int, longest: int) -> dict[str, Any]:
    """Draw any number of options; shrinks towards none."""
    options: dict[str, Any] = {}
    if draw(st.booleans(), label="not causal"):
        options["causal"] = False
    if draw(st.booleans(), label="with a window"):
        options["window"] = draw(st.one_of(st.integers(1, 20), st.integers(1, longest + 2)), label="window")
    if draw(st.booleans(), label="with a softcap"):
        options["softcap"] = draw(st.sampled_from((20.0, 1.0)), label="softcap")
    rng = np.random.default_rng(draw(seeds, label="seed of the options"))
    if draw(st.booleans(), label="with ALiBi"):
        options["alibi_slopes"] = rng.uniform(-0.5, 1, num_q_heads).astype(np.float32)
    if draw(st.booleans(), label="with sinks"):
        options["sinks"] = (3 * rng.standard_normal(num_q_heads)).astype(np.float32)
    for name in ("k_scale", "v_scale"):
        if draw(st.booleans(), label=f"with {name}"):
            by_head = draw(st.booleans(), label=f"{name} by head")
            scales = rng.uniform(0.25, 2, num_kv_heads).astype(np.float32)
            options[name] = scales if by_head else float(scales[0])
    return options


def scattered(
    rng: np.random.Generator, dense: list[Any], spare: int, block_size: int, shared: int = 0
) -> tuple[Any, Any]:
    """Scatter tokens over the blocks of a pool.

    Parameters
    ----------
    rng : numpy.random.Generator
    dense : list of float[n, seq_len, num_kv_heads, head_dim]
        What n caches hold of each sequence: keys, values or both.
    spare : int
        Number of blocks that stay free.
    block_size : int
    shared : int
        Number of first blocks that all sequences with tokens share; their first tokens must be equal.

    Returns
    -------
    caches : float[n, num_blocks, block_size, num_kv_heads, head_dim]
        NaN in slots without a token.
    block_tables : int32[num_seqs, max_blocks]
    """
    per_seq = [-(-tokens.shape[1] // block_size) for tokens in dense]
    max_blocks = max(1, *per_seq)
    num_blocks = max(1, sum(per_seq) + spare)
    free = rng.permutation(num_blocks).tolist()
    # Entries after the blocks of a sequence hold garbage, or 0, which may be a block of another sequence.
    block_tables = rng.choice([*GARBAGE, 0], (len(dense), max_blocks)).astype(np.int32)
    caches = np.full((len(dense[0]), num_blocks, block_size, *dense[0].shape[2:]), np.nan, dense[0].dtype)
    common: list[int] = []
    for seq, (tokens, count) in enumerate(zip(dense, per_seq, strict=True)):
        blocks = [*common, *(free.pop() for _ in range(count - len(common)))] if count else []
        common = common or blocks[:shared]
        block_tables[seq, :count] = blocks
        for position in range(tokens.shape[1]):
            caches[:, blocks[position // block_size], position % block_size] = tokens[:, position]
    return caches, block_tables


def _tokens(rng: np.random.Generator, seq_lens: list[int], shared: int, *shape: int) -> list[Any]:
    """Return keys and values of sequences; all that have tokens share the first `shared` tokens."""
    # Values of similar size, so that an output that is their mean differs from each of them.
    dense = [rng.standard_normal((2, length, *shape)).astype(np.float32) for length in seq_lens]
    holders = [tokens for tokens in dense if tokens.shape[1]]
    for tokens in holders:
        tokens[:, :shared] = holders[0][:, :shared]
    return dense


def batch_of(
    query: Any,
    caches: Any,
    block_tables: Any,
    dense: list[Any],
    scale: float | None,
    cu_seqlens_q: Any,
    options: dict[str, Any],
    layout: str,
    value_head_dim: int | None = None,
) -> PagedBatch:
    """Return a batch made of the arguments and results of `scattered`, with its caches in a layout.

    Keys have the first dimensions of `dense`, as many as a query; values the first `value_head_dim`, as many as keys if
    None.
    """
    head_dims = query.shape[2], query.shape[2] if value_head_dim is None else value_head_dim
    return PagedBatch(
        query,
        *laid_out(caches, layout, head_dims),
        block_tables,
        np.array([tokens.shape[1] for tokens in dense], np.int32),
        [tokens[0, ..., : head_dims[0]] for tokens in dense],
        [tokens[1, ..., : head_dims[1]] for tokens in dense],
        scale,
        cu_seqlens_q,
        options,
        layout,
    )


@st.composite
def paged_batches(
    draw: st.DrawFn, plain: bool = False, layout: str | None = None, infinite_keys: bool = False
) -> PagedBatch:
    """Draw a batch with scattered blocks, and with scores from flat to very peaky.

    Half of the batches are decode in float32 without options. The others have options, and mix decode, chunks, whole
    prompts, dtypes and layouts.

    Parameters
    ----------
    plain : bool
        Draw only decode batches in float32 without options and without shared blocks.
    layout : str, optional
        Layout of every batch; if None, it is drawn for batches with options, and NHD for the others.
    infinite_keys : bool
        Set the first dimension of all keys, or of half of the keys, to -inf, so that their scores are -inf.
    """
    block_size = draw(st.sampled_from(BLOCK_SIZES), label="block_size")
    head_dims = [n for n in HEAD_DIMS if layout is None or layout in layouts(n, STORAGE[0])]
    head_dim = draw(st.sampled_from(head_dims), label="head_dim")
    value_head_dim = head_dim if plain else draw(value_head_dims(head_dim), label="value_head_dim")
    num_kv_heads = draw(st.integers(1, 3), label="num_kv_heads")
    group = draw(st.integers(1, 4), label="query heads of a KV head")
    seq_lens = draw(st.lists(lengths(block_size), min_size=1, max_size=4), label="seq_lens")
    spare = draw(st.integers(0, 3), label="free blocks")
    peak = draw(st.sampled_from((3.0, 1.0, 10.0, 60.0, 0.0)), label="standard deviation of the scores")
    scale = draw(st.sampled_from((None, 0.25, -0.5)), label="scale")
    rng = np.random.default_rng(draw(seeds, label="seed"))

    # Number of first blocks that all sequences with tokens share.
    most = min((n // block_size for n in seq_lens if n), default=0)
    shared = 0 if plain else draw(st.one_of(st.just(0), st.integers(0, most)), label="shared blocks")
    dense = _tokens(rng, seq_lens, shared * block_size, num_kv_heads, max(head_dim, value_head_dim))
    if infinite_keys:
        share = draw(st.sampled_from((1.0, 0.5)), label="share of keys of -inf")
        infinite = rng.random((max(seq_lens), num_kv_heads)) < share
        for tokens in dense:
            tokens[0, infinite[: tokens.shape[1]], 0] = -np.inf
    caches, block_tables = scattered(rng, dense, spare, block_size, shared)
    cu_seqlens_q, options = None, {}
    if not plain and draw(st.booleans(), label="with options"):
        options = draw(attention_options(num_kv_heads * group, num_kv_heads, max(seq_lens)))
        chunks = [draw(st.integers(0, min(n + 1, 9)), label="query tokens") for n in seq_lens]
        cu_seqlens_q = np.cumsum([0, *chunks]).astype(np.int32)
        window = options.get("window")
        if window is not None and not shared and draw(st.booleans(), label="NaN outside of every window"):
            for seq, (tokens, chunk) in enumerate(zip(dense, chunks, strict=True)):
                hidden = max(0, tokens.shape[1] - max(1, chunk) - window + 1)
                tokens[:, :hidden] = np.nan
                for position in range(hidden):
                    caches[:, block_tables[seq, position // block_size], position % block_size] = np.nan
    num_tokens = len(seq_lens) if cu_seqlens_q is None else int(cu_seqlens_q[-1])
    query = rng.standard_normal((num_tokens, num_kv_heads * group, head_dim)) * peak
    if scale is not None:
        query /= abs(scale) * np.sqrt(head_dim)
    if infinite_keys:  # 0 times -inf would be NaN, and the other sign a score of inf
        query[..., 0] = np.copysign(np.abs(query[..., 0]) + 1, 1 if scale is None else scale)
    storage, query_type, chosen = STORAGE[0], STORAGE[0], layout or "NHD"
    if cu_seqlens_q is not None:
        allowed = [dtype for dtype in STORAGE if layout is None or layout in layouts(head_dim, dtype)]
        if infinite_keys:
            allowed = [dtype for dtype in allowed if dtype.itemsize > 1]  # float8_e4m3fn has no infinity
        storage = draw(st.sampled_from(allowed), label="dtype of the cache")
        query_type = draw(st.sampled_from(STORAGE[:3]), label="dtype of the query")
        chosen = layout or draw(st.sampled_from(layouts(head_dim, storage)), label="layout")
    dense, caches = [tokens.astype(storage) for tokens in dense], caches.astype(storage)
    query = query.astype(query_type)
    return batch_of(query, caches, block_tables, dense, scale, cu_seqlens_q, options, chosen, value_head_dim)


@st.composite
def grid_batches(
    draw: st.DrawFn,
    storage: Any,
    head_dim: int,
    block_size: int,
    num_q_heads: int,
    num_kv_heads: int,
    layout: str | None = None,
) -> PagedBatch:
    """Draw a batch of given sizes whose scores have standard deviation 3.5, for which fixed tolerances hold.

    The batch is decode, prefill, chunks or a mix of them, with any options, in NHD or HND, or in `layout` if that is
    given; shrinks towards decode of one sequence without options.
    """
    most = min(20, MOST_ROWS // num_q_heads)
    seq_lens = draw(st.lists(lengths(block_size).map(lambda n: min(n, 260)), min_size=1, max_size=3))
    kind = draw(st.sampled_from(("decode", "chunk", "prefill", "mixed")), label="kind")
    if kind == "prefill":
        seq_lens = [min(n, most) for n in seq_lens]
    value_head_dim = draw(value_head_dims(head_dim), label="value_head_dim")
    rng = np.random.default_rng(draw(seeds, label="seed"))
    spare = draw(st.integers(0, 2), label="free blocks")
    shared = draw(
        st.integers(0, min((n // block_size for n in seq_lens if n), default=0)), label="shared blocks"
    )
    dense = _tokens(rng, seq_lens, shared * block_size, num_kv_heads, max(head_dim, value_head_dim))
    caches, block_tables = scattered(rng, dense, spare, block_size, shared)
    chunks = {
        "decode": [1] * len(seq_lens),
        "prefill": seq_lens,
        "chunk": [draw(st.integers(0, min(n, most)), label="query tokens") for n in seq_lens],
        "mixed": [(1, min(n, most))[seq % 2] for seq, n in enumerate(seq_lens)],
    }[kind]
    by_default = kind == "decode" and draw(st.booleans(), label="no cu_seqlens_q")
    cu_seqlens_q = None if by_default else np.cumsum([0, *chunks]).astype(np.int32)
    scale = draw(st.sampled_from((None, 0.25, -0.5)), label="scale")
    query = 3.5 * rng.standard_normal((sum(chunks), num_q_heads, head_dim))
    if scale is not None:
        query /= abs(scale) * np.sqrt(head_dim)

    options: dict[str, Any] = {}
    if draw(st.booleans(), label="not causal"):
        options["causal"] = False
    if draw(st.booleans(), label="with a window"):
        options["window"] = draw(st.integers(1, max(seq_lens) + 2), label="window")
    if draw(st.booleans(), label="with a softcap"):
        options["softcap"] = draw(st.sampled_from((30.0, 50.0)), label="softcap")
    if draw(st.booleans(), label="with ALiBi"):
        options["alibi_slopes"] = 2.0 ** (-8 * np.arange(1, num_q_heads + 1) / num_q_heads)
    if draw(st.booleans(), label="with sinks"):
        options["sinks"] = (3 * rng.standard_normal(num_q_heads)).astype(np.float32)
    group = num_q_heads // num_kv_heads
    for name in ("k_scale", "v_scale"):
        if draw(st.booleans(), label=f"with {name}"):
            scales = rng.uniform(0.25, 2, num_kv_heads).astype(np.float32)
            by_head = draw(st.booleans(), label=f"{name} by head")
            options[name] = scales if by_head else float(scales[0])
            if name == "k_scale":
                query /= np.repeat(np.broadcast_to(options[name], num_kv_heads), group)[:, None]
    query_type = storage
    if storage.itemsize == 1:
        query_type = draw(st.sampled_from(STORAGE[:3]), label="dtype of the query")
    layout = layout or draw(st.sampled_from(("NHD", "HND")), label="layout")
    dense, caches = [tokens.astype(storage) for tokens in dense], caches.astype(storage)
    query = query.astype(query_type)
    return batch_of(query, caches, block_tables, dense, scale, cu_seqlens_q, options, layout, value_head_dim)


@st.composite
def merge_parts(draw: st.DrawFn) -> list[tuple[Any, Any]]:
    """Draw outputs and LSEs of attention to three sets of keys; an empty set has output NaN and LSE -inf."""
    rng = np.random.default_rng(draw(seeds, label="seed"))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from((1, 5, 40))), label="shape")
    dtype = draw(st.sampled_from(STORAGE[:3]), label="dtype")
    spread = draw(st.sampled_from((3.0, 0.0, 30.0)), label="standard deviation of the LSEs")
    empty = draw(st.sampled_from((0.0, 0.4)), label="share of empty sets")
    parts = []
    for _ in range(3):
        out = rng.standard_normal(shape).astype(dtype)
        lse = (spread * rng.standard_normal(shape[:2])).astype(np.float32)
        lse[rng.random(lse.shape) < empty] = -np.inf
        out[np.isneginf(lse)] = np.nan
        parts.append((out, lse))
    return parts


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens, the slots to write them to, and caches full of other numbers.

    Attributes
    ----------
    key, value : float[num_tokens, num_kv_heads, head_dim and value_head_dim]
        Random bits, some of them NaN.
    caches : float[2, num_blocks, block_size, num_kv_heads, dims]
        Caches of keys and of values in NHD; `laid_out` converts them to `layout`, with `head_dims`.
    slots : int64[num_tokens]
        All different, except that several may be -1, which skips a token.
    layout : str
    """

    key: Any
    value: Any
    caches: Any
    slots: Any
    layout: str = "NHD"

    @property
    def head_dims(self) -> tuple[int, int]:
        """Dimensions of a key and of a value."""
        return self.key.shape[2], self.value.shape[2]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(
            f"Tokens(key{self.key.shape} {self.key.dtype}, value{self.value.shape}, "
            f"caches{self.caches.shape} {self.layout}, slots={self.slots.tolist()})"
        )


@st.composite
def tokens_to_write(draw: st.DrawFn) -> Tokens:
    """Draw tokens for scattered slots, often including the first and the last slot of the pool."""
    block_size = draw(st.sampled_from(BLOCK_SIZES), label="block_size")
    num_blocks = draw(st.integers(1, 5), label="num_blocks")
    num_slots = num_blocks * block_size
    num_tokens = draw(st.integers(0, num_slots), label="num_tokens")
    num_kv_heads = draw(st.sampled_from((1, 2, 3, 9)), label="num_kv_heads")
    head_dim = draw(st.sampled_from((*HEAD_DIMS, 300)), label="head_dim")
    value_head_dim = draw(value_head_dims(head_dim), label="value_head_dim")
    dims = max(head_dim, value_head_dim)
    skipped = draw(st.sampled_from((0.0, 0.3, 1.0)), label="share of skipped tokens")
    rng = np.random.default_rng(draw(seeds, label="seed"))
    slots = rng.permutation(num_slots)[:num_tokens].astype(np.int64)
    slots[rng.random(num_tokens) < skipped] = -1
    dtype = draw(st.sampled_from(STORAGE), label="dtype")
    layout = draw(st.sampled_from(layouts(head_dim, dtype)), label="layout")

    def bits(*shape: int) -> Any:
        return rng.integers(0, 256, (*shape[:-1], shape[-1] * dtype.itemsize), np.uint8).view(dtype)

    key, value = (bits(num_tokens, num_kv_heads, size) for size in (head_dim, value_head_dim))
    return Tokens(key, value, bits(2, num_blocks, block_size, num_kv_heads, dims), slots, layout)
