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
        Module of ``paged_numba.kernels`` that holds the kernel; `helper` the one that is changed, if another.
    old, new : str
        Text of the source that is replaced, and what replaces it; `old` occurs once.
    operation : str
        The operation whose properties must notice: ``attend``, ``write``, ``gather`` or ``copy``.
    """

    name: str
    module: str
    old: str
    new: str
    operation: str
    algorithm: str = "block"

    def __str__(self) -> str:
        return f"{self.module}: {self.name}"


def _decode_block(name: str, old: str, new: str) -> KernelMutant:
    return KernelMutant(name, "decode_block", old, new, "attend")


def _decode_naive(name: str, old: str, new: str) -> KernelMutant:
    return KernelMutant(name, "decode_naive", old, new, "attend", "naive")


KERNEL_MUTANTS = (
    _decode_block(
        "mean of V: every weight is the same", "weight = math.exp(score - new_largest)",
        "weight = float32(1) if score > NEG_INF else float32(0)",
    ),
    _decode_block("all zeros", "weighted / total if seq_len > 0", "float32(0) if seq_len > 0"),
    _decode_block(
        "last block skipped", "range(0, num_seq_blocks, blocks_per_tile)",
        "range(0, max(1, num_seq_blocks - 1), blocks_per_tile)",
    ),
    _decode_block(
        "last block's values skipped", "num_seq_blocks - first_block)", "num_seq_blocks - 1 - first_block)"
    ),
    _decode_block(
        "one token too many at the end", "seq_block * block_size + offset < seq_len",
        "seq_block * block_size + offset <= seq_len",
    ),
    _decode_block(
        "last token missed", "seq_block * block_size + offset < seq_len",
        "seq_block * block_size + offset < seq_len - 1",
    ),
    _decode_block(
        "values past the end read", "range(min(block_size, seq_len - seq_block * block_size))",
        "range(block_size)",
    ),
    _decode_block("no rescale of the values", "weighted *= rescale", "weighted *= float32(1)"),
    _decode_block("no rescale of the sum", "total * rescale", "total"),
    _decode_block("largest score of this tile only", "new_largest = max(largest, block_max(score, scratch))",
                  "new_largest = block_max(score, scratch)"),
    _decode_block("scale forgotten", "query[seq, q_head, thread] * scale", "query[seq, q_head, thread]"),
    _decode_block("block table not followed", "kv_block = block_tables[seq, seq_block]\n            key_row",
                  "kv_block = seq_block\n            key_row"),
    _decode_block("table of the first sequence", "kv_block = block_tables[seq, seq_block]\n                # Bounded",
                  "kv_block = block_tables[0, seq_block]\n                # Bounded"),
    _decode_block("heads interleaved, not grouped", "q_head // (num_q_heads // num_kv_heads)",
                  "q_head % num_kv_heads"),
    _decode_block("last dimension left out of the score", "for dim in range(head_dim):",
                  "for dim in range(max(1, head_dim - 1)):"),
    _decode_block("LSE in base 2", "largest + math.log(total) if", "largest + math.log2(total) if"),
    _decode_block("LSE without the largest score", "largest + math.log(total) if", "math.log(total) if"),
    _decode_block("LSE of an empty sequence is 0", "if seq_len > 0 else NEG_INF", "if seq_len > 0 else float32(0)"),
    _decode_block("empty sequence divides 0 by 0", "weighted / total if seq_len > 0 else float32(0)",
                  "weighted / total"),
    _decode_block("missing barrier after the query is loaded",
                  "cuda.syncthreads()  # the query is in shared memory", "pass"),
    _decode_naive("score not scaled in pass 2", "math.exp(score * scale - largest)", "math.exp(score - largest)"),
    _decode_naive("not divided by the sum", "weighted[dim] / total", "weighted[dim]"),
    _decode_naive("values of another head", "weight * value_cache[kv_block, offset, kv_head, dim]",
                  "weight * value_cache[kv_block, offset, 0, dim]"),
    _decode_naive("accumulators not cleared", "weighted[dim] = 0", "pass"),
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
    KernelMutant("source and destination swapped", "copy_blocks",
                 "src = block_pairs[pair, 0]\n    dst = block_pairs[pair, 1]",
                 "src = block_pairs[pair, 1]\n    dst = block_pairs[pair, 0]", "copy"),
    KernelMutant("values not copied", "copy_blocks",
                 "value_cache[dst, offset, kv_head, dim] = value_cache[src, offset, kv_head, dim]", "pass", "copy"),
)  # fmt: skip


def build(mutant: KernelMutant, folder: Path) -> Any:
    """Return the mutated kernel, made from the changed source of its module, which is put into `folder`."""
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
    return getattr(module, f"{mutant.module}_kernel")


@contextmanager
def installed(mutant: KernelMutant) -> Iterator[None]:
    """Use the mutant in place of the real kernel within a ``with`` block."""
    module = importlib.import_module(f"paged_numba.kernels.{mutant.module}")
    attribute = f"{mutant.module}_kernel"
    original = getattr(module, attribute)
    with tempfile.TemporaryDirectory() as folder:
        setattr(module, attribute, build(mutant, Path(folder)))
        try:
            yield
        finally:
            setattr(module, attribute, original)
