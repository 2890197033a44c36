"""``paged-numba bench lockstep``: compares the machine with Numba's simulator and with hand-written NumPy."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from ... import lockstep, ops, targets
from ...draw.text import table
from ...kernels.attention_block import attention_block_kernel
from ...kernels.columns import ROW_END
from ...ops.plan import query_rows
from ...progress import progress
from ..options import deliver
from . import everyday
from .provenance import as_json, provenance

BLOCK_SIZE = 16
THREADS = 64
HEAD_DIM = 64


class Decode(NamedTuple):
    """Arguments of the decode kernel after its outputs."""

    query: Any
    key_cache: Any
    value_cache: Any
    block_tables: Any
    rows: Any
    alibi_slopes: Any
    sinks: Any
    k_scales: Any
    v_scales: Any
    scale: Any
    softcap: Any


def decode_case(num_seqs: int, num_heads: int, seq_len: int) -> Decode:
    """Return peaky random inputs with a scattered block table; block_size 16, head_dim 64."""
    rng = np.random.default_rng(0)
    per_seq = -(-seq_len // BLOCK_SIZE)
    num_blocks = num_seqs * per_seq
    cache = rng.standard_normal((2, num_blocks, BLOCK_SIZE, num_heads, HEAD_DIM), np.float32)
    ones = np.ones(num_heads, np.float32)
    return Decode(
        3 * rng.standard_normal((num_seqs, num_heads, HEAD_DIM), np.float32),
        cache[0],
        cache[1],
        rng.permutation(num_blocks).reshape(num_seqs, per_seq).astype(np.int32),
        query_rows(np.full(num_seqs, seq_len), np.arange(num_seqs + 1), True, None),
        np.zeros(num_heads, np.float32),
        np.full(num_heads, -np.inf, np.float32),
        ones,
        ones,
        np.float32(1 / math.sqrt(HEAD_DIM)),
        np.float32(0),
    )


def run_lockstep(case: Decode, out: Any, lse: Any) -> None:
    """Run the block decode kernel on the lockstep machine."""
    lockstep.launch(attention_block_kernel, case.query.shape[:2], THREADS, out, lse, *case)


def run_numpy(case: Decode, out: Any, lse: Any) -> None:
    """Vectorise the kernel by hand: online softmax over the same tiles, all sequences and heads at once."""
    num_seqs, num_heads, _ = case.query.shape
    blocks_per_tile = THREADS // BLOCK_SIZE
    query = case.query * case.scale
    largest = np.full((num_seqs, num_heads), -np.inf, np.float32)
    total = np.zeros((num_seqs, num_heads), np.float32)
    weighted = np.zeros_like(case.query)
    for first in range(0, case.block_tables.shape[1], blocks_per_tile):
        blocks = case.block_tables[:, first : first + blocks_per_tile]
        tile = (num_seqs, -1, num_heads, HEAD_DIM)
        key, value = case.key_cache[blocks].reshape(tile), case.value_cache[blocks].reshape(tile)
        scores = np.einsum("shd,sthd->sht", query, key)
        position = first * BLOCK_SIZE + np.arange(key.shape[1])
        scores = np.where(position < case.rows[:, ROW_END, None, None], scores, -np.inf)
        new_largest = np.maximum(largest, scores.max(axis=2))
        weights = np.exp(scores - new_largest[:, :, None])
        rescale = np.exp(largest - new_largest)
        total = total * rescale + weights.sum(axis=2)
        weighted = weighted * rescale[:, :, None] + np.einsum("sht,sthd->shd", weights, value)
        largest = new_largest
    out[:] = weighted / total[:, :, None]
    lse[:] = largest + np.log(total)


_SIMULATOR = """
import json, sys, time
import numpy as np
from paged_numba.commands.bench import everyday, lockstep as bench
from paged_numba.kernels.attention_block import attention_block_kernel
runs = []
def launch(kernel, blocks, threads, *arguments):
    start = time.perf_counter()
    kernel[blocks, threads](*arguments)
    runs.append({"seconds": time.perf_counter() - start})
case = bench.decode_case(2, 2, 128)
out, lse = np.zeros_like(case.query), np.zeros(case.query.shape[:2], np.float32)
launch(attention_block_kernel, (2, 2), bench.THREADS, out, lse, *case)
runs[-1]["out"] = out.tolist()
for one in everyday.CASES.values():
    found = everyday.results(one, launch)
    runs[-1]["out"] = found.tolist()
print(json.dumps(runs))
"""


def simulate() -> list[tuple[float, Any]]:
    """Return seconds and output on Numba's simulator, in its own process.

    First of one decode (2 x 2 x 128 tokens), then of each of `everyday.CASES`.
    """
    package_root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", _SIMULATOR], env=environment, capture_output=True, text=True, check=True
    )
    runs = json.loads(done.stdout.splitlines()[-1])
    return [(run["seconds"], np.array(run["out"], np.float32)) for run in runs]


def _median_seconds(call: Callable[[], Any], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _outputs(case: Decode) -> tuple[Any, Any]:
    return np.zeros_like(case.query), np.zeros(case.query.shape[:2], np.float32)


def _exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of log(seconds) over log(size)."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _empty_kernel() -> None:
    pass


class Findings:
    """Results of the measurements: rows for the table, figures for JSON, and whether the two sides agree."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.figures: dict[str, Any] = {}
        self.agree = True

    def beside(self, what: str, ours: float, other: str, theirs: float, ratio: str) -> None:
        """Add a row with both sides of a comparison."""
        self.rows.append([what, f"{ours * 1e3:.2f}", other, f"{theirs * 1e3:.2f}", ratio])


def compare_with_simulator(found: Findings) -> None:
    """Decode 2 x 2 heads x 128 tokens, and run `everyday.CASES`, on lockstep and on Numba's simulator."""
    decode = decode_case(2, 2, 128)
    out, lse = _outputs(decode)
    ours = _median_seconds(lambda: run_lockstep(decode, out, lse), 15)
    (simulated, expected), *others = simulate()
    found.agree &= bool(np.allclose(out, expected, rtol=1e-4, atol=1e-4))
    ratio = simulated / ours
    what = "decode, 4 thread blocks of 64, 128 tokens"
    found.beside(what, ours, "simulator", simulated, f"{ratio:,.0f} times faster")
    found.figures["simulator"] = {"lockstep_s": ours, "simulator_s": simulated, "ratio": ratio}
    for (name, case), (simulated, expected) in zip(everyday.CASES.items(), others, strict=True):
        run = partial(everyday.results, case, lockstep.launch)
        ours = _median_seconds(run, 15)
        found.agree &= bool(np.array_equal(run(), expected))
        ratio = simulated / ours
        what = f"{name}, {everyday.BLOCKS * everyday.THREADS:,} threads"
        found.beside(what, ours, "simulator", simulated, f"{ratio:,.0f} times faster")
        figures = {"lockstep_s": ours, "simulator_s": simulated, "ratio": ratio}
        found.figures.setdefault("everyday", {})[name] = figures


def compare_with_numpy(found: Findings) -> None:
    """Decode 16 sequences x 8 heads x 1,024 tokens on lockstep and with hand-written NumPy."""
    case = decode_case(16, 8, 1024)
    (out, lse), (hand_out, hand_lse) = _outputs(case), _outputs(case)
    # Alternate, so that a change of the machine's speed affects both sides.
    pairs = [
        (
            _median_seconds(lambda: run_lockstep(case, out, lse), 1),
            _median_seconds(lambda: run_numpy(case, hand_out, hand_lse), 1),
        )
        for _ in range(5)
    ]
    found.agree &= bool(np.allclose(out, hand_out, rtol=1e-4, atol=1e-4))
    found.agree &= bool(np.allclose(lse, hand_lse, rtol=1e-4, atol=1e-4))
    ours, hand = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    what = "decode, 16 seqs x 8 heads x 1,024 tokens"
    found.beside(what, ours, "NumPy by hand", hand, f"{ratio:.1f} times its time")
    found.figures["numpy"] = {"lockstep_s": ours, "numpy_s": hand, "ratio": ratio}


def compare_rungs(found: Findings) -> None:
    """Run the tile and the block kernel, with 4 query heads to a KV head."""
    rng = np.random.default_rng(0)
    for what, num_seqs, chunk, length in (
        ("tile, 16 seqs x 8/2 heads x 1,024 tokens", 16, 1, 1024),
        ("tile, prefill of 256 tokens x 8/2 heads", 1, 256, 256),
    ):
        blocks = rng.permutation(num_seqs * length // BLOCK_SIZE).reshape(num_seqs, -1).astype(np.int32)
        key_cache, value_cache = rng.standard_normal((2, blocks.size, BLOCK_SIZE, 2, HEAD_DIM), np.float32)
        query = 3 * rng.standard_normal((num_seqs * chunk, 8, HEAD_DIM), np.float32)
        lens, starts = np.full(num_seqs, length), chunk * np.arange(num_seqs + 1)
        attend = partial(
            ops.paged_attention,
            query,
            key_cache,
            value_cache,
            blocks,
            lens,
            cu_seqlens_q=starts,
            target="lockstep",
        )
        times: dict[str, list[float]] = {"tile": [], "block": []}
        for _ in range(5):
            for algorithm, taken in times.items():
                taken.append(_median_seconds(partial(attend, algorithm=algorithm), 1))
        found.agree &= bool(
            np.allclose(attend(algorithm="tile"), attend(algorithm="block"), rtol=1e-4, atol=1e-4)
        )
        tile, block = (statistics.median(times[algorithm]) for algorithm in ("tile", "block"))
        ratio = statistics.median(a / b for a, b in zip(times["tile"], times["block"], strict=True))
        found.beside(what, tile, "block", block, f"{ratio:.1f} times its time")
        found.figures.setdefault("rungs", {})[what] = {"tile_s": tile, "block_s": block, "ratio": ratio}


def host_time(found: Findings) -> None:
    """Time a decode of 64 sequences x 1,024 tokens with its kernel, and with a launch that does nothing."""
    rng = np.random.default_rng(0)
    num_seqs, length = 64, 1024
    blocks = rng.permutation(num_seqs * length // BLOCK_SIZE).reshape(num_seqs, -1).astype(np.int32)
    key_cache, value_cache = rng.standard_normal((2, blocks.size, BLOCK_SIZE, 2, HEAD_DIM), np.float32)
    query = 3 * rng.standard_normal((num_seqs, 8, HEAD_DIM), np.float32)
    lens = np.full(num_seqs, length, np.int32)
    decode = partial(ops.paged_attention, query, key_cache, value_cache, blocks, lens, target="lockstep")
    with mock.patch.object(targets, "launch"):
        host = _median_seconds(decode, 101)
    whole = _median_seconds(decode, 3)
    what = "host part of a decode, 64 seqs x 1,024 tokens"
    found.beside(what, host, "with its kernel", whole, f"{host / whole:.2%} of its time")
    found.figures["host_time"] = {"host_s": host, "whole_s": whole}


def launch_nothing(found: Findings) -> None:
    """Launch a kernel that does nothing."""
    seconds = _median_seconds(lambda: lockstep.launch(_empty_kernel, 1, 1), 101)
    found.rows.append(["launch of an empty kernel", f"{seconds * 1e3:.3f}", "", "", ""])
    found.figures["empty_launch_s"] = seconds


def observe(found: Findings, name: str, case: Decode) -> None:
    """Decode without instruments, profiled and sanitized, in turns."""
    (out, lse), (plain_out, plain_lse) = _outputs(case), _outputs(case)
    instruments: dict[str, Callable[[], Any]] = {
        "profiled": lockstep.profiling,
        "sanitized": lockstep.sanitizing,
    }
    times: dict[str, list[float]] = {"plain": [], **{how: [] for how in instruments}}
    for _ in range(9):
        times["plain"].append(_median_seconds(lambda: run_lockstep(case, plain_out, plain_lse), 1))
        for how, instrument in instruments.items():
            with instrument():
                times[how].append(_median_seconds(lambda: run_lockstep(case, out, lse), 1))
            found.agree &= bool(np.array_equal(out, plain_out) and np.array_equal(lse, plain_lse))
    plain = statistics.median(times["plain"])
    figures = found.figures.setdefault("observed", {}).setdefault(name, {"plain_s": plain})
    for how in instruments:
        ratio = statistics.median(a / b for a, b in zip(times[how], times["plain"], strict=True))
        found.beside(
            f"decode, {name}, {how}",
            statistics.median(times[how]),
            "plain",
            plain,
            f"{ratio:.1f} times its time",
        )
        figures[how] = {"seconds": statistics.median(times[how]), "ratio": ratio}


def grow(found: Findings, name: str, sizes: list[int], make: Callable[[int], Decode]) -> None:
    """Fit the exponent with which the cost grows over a size."""
    times = []
    for size in sizes:
        case = make(size)
        times.append(_median_seconds(partial(run_lockstep, case, *_outputs(case)), 5))
    exponent = _exponent(sizes, times)
    what = f"cost over {name}, {sizes[0]} to {sizes[-1]}"
    found.rows.append([what, f"{times[-1] * 1e3:.2f}", "", "", f"exponent {exponent:.2f}"])
    found.figures[f"exponent_{name}"] = {"sizes": sizes, "seconds": times, "exponent": exponent}


def run(json_path: Path | None, commit: str | None, *, simulator: bool) -> int:
    """Measure, print and write JSON; return the exit status, 1 if two sides disagree."""
    found = Findings()
    measurements: list[Callable[[Findings], None]] = [
        *([compare_with_simulator] if simulator else []),
        compare_with_numpy,
        compare_rungs,
        host_time,
        launch_nothing,
        partial(observe, name="2 x 2 x 128 tokens", case=decode_case(2, 2, 128)),
        partial(observe, name="16 x 8 x 1,024 tokens", case=decode_case(16, 8, 1024)),
        partial(
            grow, name="tokens", sizes=[512, 1024, 2048, 4096, 8192], make=lambda n: decode_case(4, 4, n)
        ),
        partial(grow, name="sequences", sizes=[16, 32, 64, 128, 256], make=lambda n: decode_case(n, 8, 128)),
    ]
    with progress(len(measurements), "bench lockstep", "measurements") as done:
        for measure in measurements:
            measure(found)
            done(1)
    verdict = "Both sides agree." if found.agree else "The two sides DISAGREE."
    rows = [["what", "lockstep ms", "beside", "ms", "ratio"], *found.rows]
    text = table(rows[0], rows[1:])
    record = {"benchmark": "lockstep", "rows": rows, **found.figures}
    deliver(f"{text}\n{verdict}", (json_path, lambda: as_json({**record, "provenance": provenance(commit)})))
    return 0 if found.agree else 1
