"""``paged-numba bench gpu``: memory bandwidth of each kernel, compared with a device copy.

Bytes are counted from the shapes: each input element counts once, and each output element once. A kernel that
reads K and V again for every query head gets no credit for it.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import ops, targets
from ...draw.text import table
from ...progress import progress
from ...timing import gpu_times
from ..options import deliver
from .provenance import as_json, provenance

FLOAT = 4
BLOCK_SIZE = 16


@dataclass(frozen=True)
class Row:
    """One measurement: milliseconds, and GB/s (1e9 bytes a second)."""

    name: str
    shape: str
    bytes: int
    median_ms: float
    min_ms: float
    max_ms: float
    gb_per_s: float
    percent_of_copy: float
    max_error: float | None
    allowed_error: float = 1e-4


def run(json_path: Path | None, commit: str | None) -> int:
    """Measure, print a table and write JSON; return the exit status."""
    reason = targets.cuda_unavailable_reason()
    if reason is not None:
        print(f"bench gpu needs a GPU, and {reason}.", file=sys.stderr)
        print("`paged-numba doctor` says what to install.", file=sys.stderr)
        return 2
    from numba import cuda

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    record: dict[str, Any] = {
        "benchmark": "gpu",
        "provenance": {
            **provenance(commit),
            "device": name,
            "compute_capability": ".".join(map(str, device.compute_capability)),
            "multiprocessors": device.MULTIPROCESSOR_COUNT,
            "l2_bytes": getattr(device, "L2_CACHE_SIZE", None),
            "driver": _driver_version(),
        },
    }
    rng = np.random.default_rng(0)
    with progress(3, "bench gpu", "measurements") as done:
        rows = [_copy_row()]
        done(1)
        for measure in (_moving_rows, _decode_rows):
            rows += measure(rng, rows[0].gb_per_s)
            done(1)
    record["rows"] = [asdict(row) for row in rows]
    first = f"{name}, driver {record['provenance']['driver']}, commit {record['provenance']['commit']}"
    rest = table(
        ["kernel", "shape", "GB", "median ms", "min..max ms", "GB/s", "of copy", "error"],
        [
            [
                row.name,
                row.shape,
                f"{row.bytes / 1e9:.2f}",
                f"{row.median_ms:.3f}",
                f"{row.min_ms:.3f}..{row.max_ms:.3f}",
                f"{row.gb_per_s:.0f}",
                f"{row.percent_of_copy:.0f} %",
                "" if row.max_error is None else f"{row.max_error:.1e}",
            ]
            for row in rows
        ],
    )  # fmt: skip
    deliver(f"{first}\n{rest}", (json_path, lambda: as_json(record)))
    return 0 if all(row.max_error is None or row.max_error < row.allowed_error for row in rows) else 1


def _driver_version() -> str:
    path = Path("/proc/driver/nvidia/version")
    if path.exists():
        words = path.read_text(encoding="utf-8").split()
        return next((word for word in words if word.count(".") == 2 and word[0].isdigit()), "unknown")
    return "unknown"


def _row(
    name: str,
    shape: str,
    size: int,
    times: list[float],
    ceiling: float | None,
    error: float | None = None,
    allowed_error: float = 1e-4,
) -> Row:
    median = statistics.median(times)
    rate = size / median / 1e6
    share = 100 * rate / (ceiling or rate)
    return Row(name, shape, size, median, min(times), max(times), rate, share, error, allowed_error)


def _copy_row() -> Row:
    from numba import cuda

    count = 2**28
    source = cuda.to_device(np.ones(count, np.float32))
    target = cuda.device_array_like(source)
    times = gpu_times(lambda: target.copy_to_device(source), 30)
    return _row("device copy", f"{count} float32", 2 * count * FLOAT, times, None)


def _random_device_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Return normal random numbers on the GPU: a few million are drawn and repeated."""
    from numba import cuda

    return cuda.to_device(np.resize(rng.standard_normal(2**22 + 1, np.float32).astype(dtype), shape))


def _moving_rows(rng: np.random.Generator, ceiling: float) -> list[Row]:
    """Measure write_kv, gather_kv and copy_blocks."""
    from numba import cuda

    num_tokens, num_kv_heads, head_dim = 131072, 8, 128
    num_blocks = 2 * num_tokens // BLOCK_SIZE
    shape = f"{num_tokens} tokens x {num_kv_heads} x {head_dim}"
    key = _random_device_array(rng, (num_tokens, num_kv_heads, head_dim))
    value = _random_device_array(rng, (num_tokens, num_kv_heads, head_dim))
    cache_shape = (num_blocks, BLOCK_SIZE, num_kv_heads, head_dim)
    key_cache, value_cache = (cuda.device_array(cache_shape, np.float32) for _ in range(2))
    table_host = rng.permutation(num_blocks)[: num_tokens // BLOCK_SIZE].astype(np.int32)
    token = np.arange(num_tokens)
    slots_host = table_host[token // BLOCK_SIZE].astype(np.int64) * BLOCK_SIZE + token % BLOCK_SIZE
    slots, block_table = cuda.to_device(slots_host), cuda.to_device(table_host)
    moved = 4 * key.size * FLOAT

    write = _launcher(ops.write_kv, key, value, key_cache, value_cache, slots)
    rows = [_row("write_kv", shape, moved + slots_host.nbytes, gpu_times(write, 30), ceiling)]

    gathered = ops.gather_kv(key_cache, value_cache, block_table, num_tokens, target="cuda")
    error = float(np.abs(gathered[0].copy_to_host() - key.copy_to_host()).max())
    gather = _launcher(ops.gather_kv, key_cache, value_cache, block_table, num_tokens)
    rows.append(_row("gather_kv", shape, moved + table_host.nbytes, gpu_times(gather, 30), ceiling, error))

    free = np.setdiff1d(np.arange(num_blocks), table_host)
    pairs = cuda.to_device(np.stack([table_host, free[: table_host.size]], axis=1).astype(np.int64))
    copy = _launcher(ops.copy_blocks, key_cache, value_cache, pairs)
    rows.append(
        _row("copy_blocks", f"{pairs.shape[0]} blocks", moved + pairs.nbytes, gpu_times(copy, 30), ceiling)
    )
    return rows


def _launcher(operation: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
    """Return a function that repeats the launches of an operation, without its validation.

    The operation is called once to record its launches.
    """
    recorded: list[tuple[Any, ...]] = []
    original = targets.launch

    def record(kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, **_: Any) -> None:
        recorded.append((kernel[blocks_per_grid, threads_per_block], args))

    targets.launch = record
    try:
        operation(*arguments, target="cuda")
    finally:
        targets.launch = original

    def launch() -> None:
        for configured, args in recorded:
            configured(*args)

    return launch


DECODE_CASES = (
    # num_seqs, num_q_heads, num_kv_heads, head_dim, seq_len, algorithm, dtype
    (64, 16, 16, 128, 256, "naive", "float32"),
    (64, 16, 16, 128, 2048, "warp", "float32"),
    (64, 16, 16, 128, 2048, "block", "float32"),
    (64, 32, 8, 128, 4096, "block", "float32"),
    (64, 16, 16, 128, 2048, "tile", "float32"),
    (64, 16, 16, 64, 4096, "tile", "float32"),
    (64, 32, 8, 128, 4096, "tile", "float32"),
    (64, 32, 8, 128, 4096, "tile", "float16"),
    (64, 32, 4, 128, 4096, "tile", "float16"),
    (8, 16, 16, 128, 16384, "tile", "float32"),
    (8, 16, 16, 128, 16384, "split", "float32"),
)


def _decode_rows(rng: np.random.Generator, ceiling: float) -> list[Row]:
    """Measure decode attention; two sequences of each case are first compared with float64 attention."""
    from numba import cuda

    rows = []
    for num_seqs, num_q_heads, num_kv_heads, head_dim, seq_len, algorithm, dtype in DECODE_CASES:
        per_seq = seq_len // BLOCK_SIZE
        num_blocks = num_seqs * per_seq
        cache_shape = (num_blocks, BLOCK_SIZE, num_kv_heads, head_dim)
        key_cache, value_cache = (_random_device_array(rng, cache_shape, dtype) for _ in range(2))
        query_host = (3 * rng.standard_normal((num_seqs, num_q_heads, head_dim))).astype(dtype)
        tables_host = rng.permutation(num_blocks).reshape(num_seqs, per_seq).astype(np.int32)
        lens_host = np.full(num_seqs, seq_len, np.int32)
        query, tables, lens = map(cuda.to_device, (query_host, tables_host, lens_host))
        arguments = (query, key_cache, value_cache, tables, lens)
        out = ops.paged_attention(*arguments, algorithm=algorithm, target="cuda").copy_to_host()
        error = max(
            _decode_error(out[seq], query_host[seq], key_cache, value_cache, tables_host[seq])
            for seq in (0, num_seqs - 1)
        )
        decode = _launcher(_attention_with(algorithm), *arguments)
        kv_bytes = 2 * num_seqs * seq_len * num_kv_heads * head_dim * query_host.itemsize
        moved = kv_bytes + 2 * query_host.nbytes + tables_host.nbytes + lens_host.nbytes
        times = gpu_times(decode, 5 if algorithm == "naive" else 20)
        shape = f"{num_seqs} x {num_q_heads}/{num_kv_heads} heads x {head_dim}, {seq_len} tokens, {dtype}"
        # float16 has 11 significant bits, and no output is larger than 4.
        allowed = 1e-4 if dtype == "float32" else 4e-3
        rows.append(_row(f"decode {algorithm}", shape, moved, times, ceiling, error, allowed))
        del key_cache, value_cache, arguments, decode
    return rows


def _attention_with(algorithm: str) -> Callable[..., Any]:
    return lambda *args, target: ops.paged_attention(*args, algorithm=algorithm, target=target)


def _decode_error(out: Any, query: Any, key_cache: Any, value_cache: Any, blocks: Any) -> float:
    """Return the largest error of the output of one sequence, compared with float64 attention."""
    key, value = (
        np.concatenate([cache[block].copy_to_host() for block in blocks.tolist()]).astype(np.float64)
        for cache in (key_cache, value_cache)
    )
    group = query.shape[0] // key.shape[1]
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    scores = np.einsum("hd,thd->ht", query.astype(np.float64), key) / math.sqrt(query.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return float(np.abs(out - np.einsum("ht,thd->hd", weights, value)).max())
