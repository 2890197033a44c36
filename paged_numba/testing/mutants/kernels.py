"""Deliberately wrong kernels: each is a kernel of this package with one line changed.

`installed` puts one in the place of the real kernel, so that operations use it. A property test that
does not notice any of them proves nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class KernelMutant:
    """One fault.

    Parameters
    ----------
    name : str
        What is wrong.
    module : str
        Module of ``paged_numba.kernels`` that holds the kernel.
    old, new : str
        Text of the source that is replaced, and what replaces it; `old` occurs once.
    operation : str
        The property that must notice, see tests/test_mutants.py: ``attend``, ``attend infinite``, ``attend textbook``,
        ``exact``, ``hide``, ``blind``, ``sanitize``, ``many heads``, ``sanitize many heads``, ``merge``, ``write``,
        ``gather`` or ``copy``; ``attend packed``, ``hide packed`` or ``gather packed`` for caches in that layout alone.
    algorithm : str
        Of `paged_attention`, for ``attend`` and ``attend infinite``.
    """

    name: str
    module: str
    old: str
    new: str
    operation: str
    algorithm: str = "block"

    def __str__(self) -> str:
        return f"{self.module}: {self.name}"


def _attention_tile(name: str, old: str, new: str, algorithm: str = "tile") -> KernelMutant:
    return KernelMutant(name, "attention_tile", old, new, "attend", algorithm)


def _attention_block(name: str, old: str, new: str) -> KernelMutant:
    return KernelMutant(name, "attention_block", old, new, "attend")


def _attention_naive(name: str, old: str, new: str) -> KernelMutant:
    return KernelMutant(name, "attention_naive", old, new, "attend", "naive")


def _attention_textbook(name: str, old: str, new: str) -> KernelMutant:
    return KernelMutant(name, "attention_textbook", old, new, "attend textbook")


def _attention_warp(name: str, old: str, new: str, operation: str = "attend") -> KernelMutant:
    return KernelMutant(name, "attention_warp", old, new, operation, "warp")


def _attention_packed(name: str, old: str, new: str, operation: str = "attend packed") -> KernelMutant:
    return KernelMutant(name, "attention_packed", old, new, operation)


_PASS_2 = "dim] = float32(0)\n    for token in range(seq_lens[seq]):"
_LOOKUP = f"{_PASS_2}\n        kv_block = block_tables[seq, token // block_size]"

KERNEL_MUTANTS = (
    _attention_textbook("block table not followed", _LOOKUP, f"{_PASS_2}\n        kv_block = token // block_size"),
    _attention_textbook("table of the first sequence", _LOOKUP, _LOOKUP.replace("[seq, token", "[0, token")),
    _attention_textbook("token looked up in place of its block", _LOOKUP,
                        _LOOKUP.replace("token // block_size", "min(token, block_tables.shape[1] - 1)")),
    _attention_textbook("place in the sequence taken for the offset",
                        f"{_LOOKUP}\n        offset = token % block_size",
                        f"{_LOOKUP}\n        offset = min(token, block_size - 1)"),
    _attention_textbook("last block read to its end", _PASS_2, _PASS_2.replace(
                        "seq_lens[seq]", "(seq_lens[seq] + block_size - 1) // block_size * block_size")),
    _attention_textbook("last token missed", _PASS_2, _PASS_2.replace("seq_lens[seq]", "seq_lens[seq] - 1")),
    _attention_textbook("heads interleaved, not grouped", "q_head // (num_q_heads // num_kv_heads)",
                        "q_head % num_kv_heads"),
    _attention_textbook("scale forgotten", "math.exp(score * scale", "math.exp(score"),
    _attention_textbook("largest score not subtracted", "score * scale - largest", "score * scale"),
    _attention_textbook("score of the last token for the largest", "max(largest, score * scale)", "score * scale"),
    _attention_textbook("-inf less -inf", "np.finfo(np.float32).min", "np.float32(-np.inf)"),
    _attention_textbook("mean of V: every weight is the same", "weight = math.exp(score * scale - largest)",
                        "weight = float32(1)"),
    _attention_textbook("not divided by the sum", "/= total", "/= float32(1)"),
    _attention_textbook("empty sequence divides 0 by 0", "if total > 0:", "if total > -1:"),
    _attention_warp("mean of V: every weight is the same", "weight = math.exp(score - shift)",
                    "weight = float32(1) if score > NEG_INF else float32(0)"),
    _attention_warp("score of one lane", "warp_sum(product)", "product"),
    _attention_warp("score of two lanes", "warp_sum(product)", "product + cuda.shfl_xor_sync(-1, product, 1)"),
    _attention_warp("-inf less -inf", "new_largest if new_largest > NEG_INF else float32(0)", "new_largest",
                    "attend infinite"),
    _attention_warp("last token missed", "rows[row, ROW_END]):", "rows[row, ROW_END] - 1):"),
    _attention_warp("one token too many at the end", "rows[row, ROW_END]):", "rows[row, ROW_END] + 1):"),
    _attention_warp("window ends a token late", "range(rows[row, ROW_FIRST]", "range(rows[row, ROW_FIRST] + 1"),
    _attention_warp("no rescale of the values", "weighted[i] * rescale", "weighted[i]"),
    _attention_warp("no rescale of the sum", "total * rescale", "total"),
    _attention_warp("largest score of this token only", "max(largest, score)", "score"),
    _attention_warp("scale forgotten", "(scale * k_scales[kv_head])", "k_scales[kv_head]"),
    _attention_warp("scale of the keys forgotten", "(scale * k_scales[kv_head])", "scale"),
    _attention_warp("scale of the values forgotten", "/ total * v_scales[kv_head]", "/ total"),
    _attention_warp("block table not followed", "block_tables[seq, position // block_size]", "position // block_size"),
    _attention_warp("heads interleaved, not grouped", "q_head // (num_q_heads // num_kv_heads)",
                    "q_head % num_kv_heads"),
    _attention_warp("dimensions past the first 32 left out of the score",
                    "dim < head_dim:\n                product", "dim < min(WARP, head_dim):\n                product"),
    _attention_warp("ALiBi off by one", "position - query_position)", "position - query_position + 1)"),
    _attention_warp("sink forgotten", "total = float32(1) if sink > NEG_INF else float32(0)", "total = float32(0)"),
    _attention_warp("another token's query", "query[token, q_head, dim]", "query[min(row, seq), q_head, dim]"),
    _attention_warp("LSE in base 2", "largest + math.log(total) if", "largest + math.log2(total) if"),
    _attention_warp("empty sequence divides 0 by 0",
                    "weighted[i] / total * v_scales[kv_head] if total != 0 else float32(0)", "weighted[i] / total"),
    _attention_tile("mean of V: every weight is the same", "weight = math.exp(weights[my_row, token] - shift)",
                     "weight = float32(1) if weights[my_row, token] > NEG_INF else float32(0)"),
    _attention_tile("all zeros", "weighted[row] * factors[row]", "float32(0)"),
    _attention_tile("last tile skipped", "range(first_key, end_key, num_keys)",
                     "range(first_key, max(first_key + 1, end_key - num_keys), num_keys)"),
    _attention_tile("last values skipped", "UNROLLED, end, UNROLLED)", "UNROLLED, end - 1, UNROLLED)"),
    _attention_tile("one key too many at the end", "first + token < end_seen", "first + token <= end_seen"),
    _attention_tile("last token missed", "first + token < end_seen", "first + token < end_seen - 1"),
    _attention_tile("keys past the end loaded", "if token < count:\n            source",
                    "if token < keys.shape[0]:\n            source"),
    _attention_tile("no rescale of the values", "weighted[row] *= factors[row]", "weighted[row] *= float32(1)"),
    _attention_tile("no rescale of the sum", "total * rescale", "total"),
    _attention_tile("largest score of this tile only",
                    "new_largest = max(largest, segment_max(tile_largest, scratch, width))",
                     "new_largest = segment_max(tile_largest, scratch, width)"),
    _attention_tile("largest score of another row", "segment_max(tile_largest, scratch, width)",
                     "segment_max(tile_largest, scratch, threads)"),
    _attention_tile("scale forgotten", "= scale * k_scales[kv_head]", "= k_scales[kv_head]"),
    _attention_tile("scale of the keys forgotten", "= scale * k_scales[kv_head]", "= scale"),
    _attention_tile("scale of the values forgotten", "v_scales[kv_head] / total", "float32(1) / total"),
    _attention_tile("scale of another KV head", "v_scales[kv_head] / total", "v_scales[0] / total"),
    _attention_tile("block table not followed", "= block_tables[seq, key // block_size]", "= key // block_size"),
    _attention_tile("table of the first sequence", "block_tables[seq, key // block_size]",
                     "block_tables[0, key // block_size]"),
    _attention_tile("heads interleaved, not grouped", "first_head = kv_head * group + part * heads",
                     "first_head = (kv_head + part * heads) % num_q_heads"),
    _attention_tile("last head of a group left out", "heads_here = min(heads, group - part * heads)",
                     "heads_here = max(1, min(heads, group - part * heads) - 1)"),
    _attention_tile("last dimension left out of the score",
                    "and first_dim + dim < query.shape[2]:",
                     "and first_dim + dim < max(1, query.shape[2] - 1):"),
    _attention_tile("first chunk of dimensions only", "range(0, head_dim, chunk)",
                    "range(0, min(chunk, head_dim), chunk)"),
    _attention_tile("LSE in base 2", "largest + math.log(total) if", "largest + math.log2(total) if"),
    _attention_tile("LSE without the largest score", "largest + math.log(total) if", "math.log(total) if"),
    _attention_tile("LSE of an empty sequence is 0", "if total != 0 else NEG_INF", "if total != 0 else float32(0)"),
    _attention_tile("empty sequence divides 0 by 0", "v_scales[kv_head] / total if total != 0 else float32(0)",
                     "v_scales[kv_head] / total"),
    KernelMutant("row that sees no key of a tile", "attention_tile",
                 "new_largest if new_largest > NEG_INF else float32(0)", "new_largest", "blind"),
    KernelMutant("missing barrier after the rows are looked up", "attention_tile",
                 "cuda.syncthreads()  # the rows are looked up in shared memory", "pass", "sanitize"),
    KernelMutant("missing barrier after the places are looked up", "attention_tile",
                 "cuda.syncthreads()  # the places of the keys are in shared memory", "pass",
                 "sanitize"),
    KernelMutant("missing barrier after the chunk is loaded", "attention_tile",
                 "cuda.syncthreads()  # the chunk is in shared memory", "pass", "sanitize"),
    KernelMutant("missing barrier before the next chunk", "attention_tile",
                 "cuda.syncthreads()  # all have used the chunk: the next may come", "pass", "sanitize"),
    _attention_tile("missing barrier before the next tile",
                     "cuda.syncthreads()  # all have used places and weights: the next tile may come", "pass"),
    _attention_tile("window ends a token late", "first + token >= first_seen", "first + token > first_seen"),
    KernelMutant("weights of 15 bits", "attention_tile", "weight = math.exp(weights[my_row, token] - shift)",
                 "weight = math.floor(math.exp(weights[my_row, token] - shift) * 32768.0) / 32768.0", "exact"),
    KernelMutant("values that a row must not see multiplied", "attention_tile",
                 "end = max(min(end_common - first, count), lead)", "end = count", "hide"),
    _attention_tile("ALiBi off by one", "first + token - position)", "first + token - position + 1)"),
    _attention_tile("position of the tile's first token", "rows[my_index, ROW_POSITION]",
                    "rows[first_row, ROW_POSITION]"),
    _attention_tile("sink forgotten", "total = float32(1) if largest > NEG_INF else float32(0)", "total = float32(0)"),
    _attention_tile("another token's query", "= rows[first_row + token * row_step, ROW_TOKEN]",
                    "= rows[first_row, ROW_SEQ]"),
    _attention_tile("rows of a tile taken for neighbours", "row_indices[thread] = first_row + token * row_step",
                     "row_indices[thread] = first_row + token", "split"),
    KernelMutant("same rows for all threads of a key", "attention_tile", "thread // num_keys * rows_per_thread",
                 "thread // num_keys * 0", "many heads"),
    KernelMutant("keys for the first warp only", "attention_tile", "place = thread // WARP * loads + i",
                 "place = i", "many heads"),
    KernelMutant("missing barrier between tiles of keys for many heads", "attention_tile",
                 "cuda.syncthreads()  # scores are in shared memory", "pass", "sanitize many heads"),
    _attention_tile("table of the tile's sequence for all parts", "seq = rows[first_row, ROW_SEQ]",
                    "seq = rows[first_row // row_step * row_step, ROW_SEQ]", "cascade"),
    _attention_block(
        "mean of V: every weight is the same", "weight = math.exp(score - shift)",
        "weight = float32(1) if score > NEG_INF else float32(0)",
    ),
    _attention_block("all zeros", "weighted / total * v_scales", "float32(0) * v_scales"),
    _attention_block(
        "last block skipped", "range(first_key // block_size, end_block, blocks_per_tile)",
        "range(first_key // block_size, max(1, end_block - 1), blocks_per_tile)",
    ),
    _attention_block(
        "last block's values skipped", "min(blocks_per_tile, end_block - first_block)",
        "min(blocks_per_tile, end_block - 1 - first_block)",
    ),
    _attention_block(
        "one token too many at the end", "position < end_key", "position <= end_key",
    ),
    _attention_block(
        "last token missed", "position < end_key", "position < end_key - 1",
    ),
    _attention_block(
        "values past the end read", "range(first_slot, min(block_size, end_key - seq_block * block_size))",
        "range(first_slot, block_size)",
    ),
    _attention_block("no rescale of the values", "weighted *= rescale", "weighted *= float32(1)"),
    _attention_block("no rescale of the sum", "total * rescale", "total"),
    _attention_block("largest score of this tile only",
                     "new_largest = max(largest, segment_max(score, scratch, threads))",
                  "new_largest = segment_max(score, scratch, threads)"),
    _attention_block("scale forgotten", "(scale * k_scales[kv_head])", "k_scales[kv_head]"),
    _attention_block("block table not followed", "kv_block = block_tables[seq, seq_block]\n            score",
                  "kv_block = seq_block\n            score"),
    _attention_block("table of the first sequence",
                     "kv_block = block_tables[seq, seq_block]\n                # Bounded",
                  "kv_block = block_tables[0, seq_block]\n                # Bounded"),
    _attention_block("heads interleaved, not grouped", "q_head // (num_q_heads // num_kv_heads)",
                  "q_head % num_kv_heads"),
    _attention_block("last dimension left out of the score", "kv_head], head_dim)", "kv_head], max(1, head_dim - 1))"),
    _attention_block("LSE in base 2", "largest + math.log(total) if", "largest + math.log2(total) if"),
    _attention_block("LSE without the largest score", "largest + math.log(total) if", "math.log(total) if"),
    _attention_block("LSE of an empty sequence is 0", "if total != 0 else NEG_INF", "if total != 0 else float32(0)"),
    _attention_block("empty sequence divides 0 by 0",
                     "weighted / total * v_scales[kv_head] if total != 0 else float32(0)",
                  "weighted / total"),
    _attention_block("missing barrier after the query is loaded",
                  "cuda.syncthreads()  # the query is in shared memory", "pass"),
    _attention_block("window ends a token late", "position >= first_key", "position > first_key"),
    _attention_block("values before the window read", "first_slot = max(0, first_key - seq_block * block_size)",
                     "first_slot = 0"),
    _attention_block("ALiBi off by one", "position - query_position)", "position - query_position + 1)"),
    _attention_block("sink forgotten", "total = float32(1) if sink > NEG_INF else float32(0)", "total = float32(0)"),
    _attention_block("another token's query", "query[token, q_head, thread]",
                     "query[min(row, seq), q_head, thread]"),
    _attention_naive("score not scaled in pass 2",
                     "score = adjusted_score(score * scale, softcap, slope, position - query_position)\n        weight",
                  "score = adjusted_score(score, softcap, slope, position - query_position)\n        weight"),
    _attention_naive("not divided by the sum", "weighted[dim] / total", "weighted[dim]"),
    _attention_naive("values of another head", "weight * float32(value_cache[kv_block, offset, kv_head, dim])",
                  "weight * float32(value_cache[kv_block, offset, 0, dim])"),
    _attention_naive("accumulators not cleared", "weighted[dim] = 0", "pass"),
    _attention_naive("scale of the values forgotten", "/ total * v_scales[kv_head]", "/ total"),
    _attention_naive("sink in no denominator", "total = math.exp(sink - shift)", "total = float32(0)"),
    KernelMutant("-inf less -inf", "attention_naive", "largest if largest > NEG_INF else float32(0)", "largest",
                 "attend infinite", "naive"),
    _attention_naive("ALiBi forgotten in pass 2",
                     "score = adjusted_score(score * scale, softcap, slope, position - query_position)\n        weight",
                     "score = adjusted_score(score * scale, softcap, float32(0), 0)\n        weight"),
    _attention_packed("mean of V: every weight is the same", "weight = math.exp(score - shift)",
                      "weight = float32(1) if score > NEG_INF else float32(0)"),
    _attention_packed("pieces of the query in another order", "query_shared[piece * piece_size + i]",
                      "query_shared[i * num_pieces + piece]"),
    _attention_packed("last piece left out of the score", "range(num_pieces)", "range(max(1, num_pieces - 1))"),
    _attention_packed("last number of a piece left out", "range(piece_size)", "range(piece_size - 1)"),
    _attention_packed("last token missed", "position < end_key", "position < end_key - 1"),
    _attention_packed("one token too many at the end", "position < end_key", "position <= end_key"),
    _attention_packed("window ends a token late", "position >= first_key and", "position > first_key and"),
    _attention_packed("values past the end read", "min(threads, end_key - first)", "threads"),
    _attention_packed("last values missed", "min(threads, end_key - first)", "min(threads, end_key - 1 - first)"),
    _attention_packed("values before the window read", "            if position >= first_key:",
                      "            if position >= 0:", "hide packed"),
    _attention_packed("values of each second lane only", "end_key - first), LANES)", "end_key - first), 2 * LANES)"),
    _attention_packed("shares of half the lanes summed", "scratch, LANES)", "scratch, LANES // 2)"),
    _attention_packed("dimensions of a thread taken for neighbours", "= thread % LANES, thread // LANES",
                      "= thread % LANES, thread // LANES * LANES"),
    _attention_packed("no rescale of the values", "weighted[i] *= rescale", "weighted[i] *= float32(1)"),
    _attention_packed("no rescale of the sum", "total * rescale", "total"),
    _attention_packed("accumulators not cleared", "weighted[i] = float32(0)", "pass"),
    _attention_packed("scale forgotten", "(scale * k_scales[kv_head])", "k_scales[kv_head]"),
    _attention_packed("scale of the values forgotten", "/ total * v_scales[kv_head]", "/ total"),
    _attention_packed("block table not followed for keys",
                      "kv_block = block_tables[seq, position // block_size]\n            offset",
                      "kv_block = position // block_size\n            offset"),
    _attention_packed("table of the first sequence for values",
                      "kv_block = block_tables[seq, position // block_size]\n                offset",
                      "kv_block = block_tables[0, position // block_size]\n                offset"),
    _attention_packed("heads interleaved, not grouped", "q_head // (num_q_heads // num_kv_heads)",
                      "q_head % num_kv_heads"),
    _attention_packed("ALiBi off by one", "position - query_position)", "position - query_position + 1)"),
    _attention_packed("sink forgotten", "total = float32(1) if sink > NEG_INF else float32(0)", "total = float32(0)"),
    _attention_packed("LSE in base 2", "largest + math.log(total) if", "largest + math.log2(total) if"),
    _attention_packed("empty sequence divides 0 by 0",
                      "result / total * v_scales[kv_head] if total != 0 else float32(0)", "result / total"),
    _attention_packed("missing barrier after the query is loaded",
                      "cuda.syncthreads()  # the query is in shared memory", "pass"),
    KernelMutant("splits weigh the same", "merge_splits", "weight = math.exp(split_lse[row, q_head] - largest)",
                 "weight = float32(1)", "attend", "split"),
    KernelMutant("last split left out", "merge_splits", "for row in range(first, end):\n        if",
                 "for row in range(first, end - 1):\n        if", "attend", "split"),
    KernelMutant("sink of the splits forgotten", "merge_splits",
                 "total = math.exp(sink - largest) if sink > NEG_INF else float32(0)", "total = float32(0)",
                 "attend", "split"),
    KernelMutant("LSE of the merge in base 2", "merge_states", "largest + math.log(total)",
                 "largest + math.log2(total)", "merge"),
    KernelMutant("LSE of the merge is the larger one", "merge_states", "largest + math.log(total)", "largest", "merge"),
    KernelMutant("empty sets multiply NaN", "merge_states", "if weight_a != 0:", "if True:", "merge"),
    KernelMutant("slot -1 wraps to the last block", "write_kv", "if slot < 0:", "if slot < -1:", "write"),
    KernelMutant("slot 0 skipped", "write_kv", "if slot < 0:", "if slot <= 0:", "write"),
    KernelMutant("off by one at a block boundary", "write_kv", "slot % block_size", "(slot + 1) % block_size", "write"),
    KernelMutant("key written as value", "write_kv", "= value[token, kv_head, dim]", "= key[token, kv_head, dim]",
                 "write"),
    KernelMutant("last KV head left out", "write_kv", "kv_head >= key.shape[1]", "kv_head >= max(1, key.shape[1] - 1)",
                 "write"),
    KernelMutant("blocks in physical order", "gather_kv", "block_table[position // block_size]",
                 "block_table[0] + position // block_size", "gather"),
    KernelMutant("off by one at a block boundary", "gather_kv", "block_table[position // block_size]",
                 "block_table[max(0, position - 1) // block_size]", "gather"),
    KernelMutant("slot -1 wraps to the last block", "write_kv_packed", "if slot < 0:", "if slot < -1:", "write"),
    KernelMutant("token and piece swapped", "write_kv_packed", "dim // piece_size, offset, dim % piece_size]",
                 "offset % key_cache.shape[2], offset, dim % piece_size]", "write"),
    KernelMutant("numbers of a piece taken for pieces", "write_kv_packed",
                 "dim // piece_size, offset, dim % piece_size]",
                 "dim % key_cache.shape[2], offset, dim // key_cache.shape[2]]", "write"),
    KernelMutant("values taken from the key", "write_kv_packed", "= value[token, kv_head, dim]",
                 "= key[token, kv_head, dim]", "write"),
    KernelMutant("blocks in physical order", "gather_kv_packed", "block_table[position // block_size]",
                 "block_table[0] + position // block_size", "gather packed"),
    KernelMutant("last dimension left out", "gather_kv_packed", "dim >= key.shape[2]", "dim >= key.shape[2] - 1",
                 "gather packed"),
    KernelMutant("numbers of a piece reversed", "gather_kv_packed", "offset, dim % piece_size]",
                 "offset, piece_size - 1 - dim % piece_size]", "gather packed"),
    KernelMutant("source and destination swapped", "copy_blocks",
                 "src = block_pairs[pair, 0]\n    dst = block_pairs[pair, 1]",
                 "src = block_pairs[pair, 1]\n    dst = block_pairs[pair, 0]", "copy"),
    KernelMutant("values not copied", "copy_blocks",
                 "value_cache[dst, offset, kv_head, dim] = value_cache[src, offset, kv_head, dim]", "pass", "copy"),
)  # fmt: skip


def build(mutant: KernelMutant, folder: Path) -> Any:
    """Return the mutated kernel, or what makes it, from the changed source of its module, put into `folder`."""
    original = importlib.import_module(f"paged_numba.kernels.{mutant.module}")
    source = inspect.getsource(original)
    if source.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant}: {mutant.old!r} must occur once in the source, got {source.count(mutant.old)}"
        )
    # A real file: both targets read a kernel's source to translate it or to name its lines.
    path = folder / f"{mutant.module}.py"
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    name = f"paged_numba.kernels._mutant_{mutant.module}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return getattr(module, _attribute(module, mutant))


def _attribute(module: Any, mutant: KernelMutant) -> str:
    """Return the name of a module's kernel, or of what makes it for the sizes of a launch."""
    name = f"{mutant.module}_kernel"
    return name if hasattr(module, name) else f"{name}_for"


@contextmanager
def installed(mutant: KernelMutant) -> Iterator[None]:
    """Use the mutant in place of the real kernel within a ``with`` block."""
    module = importlib.import_module(f"paged_numba.kernels.{mutant.module}")
    attribute = _attribute(module, mutant)
    original = getattr(module, attribute)
    with tempfile.TemporaryDirectory() as folder:
        setattr(module, attribute, build(mutant, Path(folder)))
        try:
            yield
        finally:
            setattr(module, attribute, original)
