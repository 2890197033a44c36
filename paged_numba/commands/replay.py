"""``paged-numba replay``: replays a trace of real requests with paging, and with contiguous reservations."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import traces
from ..errors import InputError
from ..targets import import_failure
from .options import check_outputs, deliver, file_to_write, positive

POOL_TOKENS = 819_200
"""100 GiB of Llama 3 8B: 2 x 32 layers x 8 KV heads x 128 x 2 bytes = 128 KiB a token. An H200's 141 GB, less
16 GB of weights, activations and a reserve of a tenth, leave about as much."""

MOST_POOL_TOKENS = 100_000_000
"""Largest pool. The bookkeeping of a larger one would take gigabytes."""

BLOCK_SIZES = (16, 32, 128, 256)

HIT_BLOCK_SIZE = 128
"""Tokens in a block when the prefix cache is measured. Traces record shared pieces of 512 tokens, so blocks of 128 find
as much as blocks of 16, in a fifth of the time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba replay``."""
    parser.add_argument(
        "file", type=Path, metavar="FILE",
        help=f"a trace: {traces.FORMATS}; plain or gzip",
    )  # fmt: skip
    parser.add_argument(
        "--pool-tokens", type=positive, metavar="N", default=POOL_TOKENS,
        help="size of the pool in tokens (default: %(default)s, 100 GiB of Llama 3 8B in float16)",
    )  # fmt: skip
    parser.add_argument(
        "--block-sizes", type=positive, metavar="N", nargs="+", default=BLOCK_SIZES,
        help=f"block sizes to compare, in tokens (default: {' '.join(map(str, BLOCK_SIZES))})",
    )  # fmt: skip
    parser.add_argument(
        "--hit-block-size", type=positive, metavar="N", default=HIT_BLOCK_SIZE,
        help="block size for the prefix cache (default: %(default)s; a smaller one takes longer)",
    )  # fmt: skip
    parser.add_argument("--requests", type=positive, metavar="N", help="replay the first N requests")
    parser.add_argument(
        "--json", type=file_to_write, metavar="FILE", help="write all figures as JSON to FILE"
    )
    parser.add_argument(
        "--plot", type=file_to_write, metavar="FILE",
        help="plot the figures over time to a file that ends in .svg, .png or .pdf; needs matplotlib",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Replay, print the tables, write the requested files; return 0."""
    _check(options)
    from ..replay import measure, plot, report

    trace = traces.read(options.file)
    if trace.arrivals is None:
        raise InputError(
            f"{options.file}: a trace to replay must have a column of times, "
            f"{traces.AZURE.time} (Azure) or {traces.BURSTGPT.time} (BurstGPT), got none"
        )
    if options.requests is not None:
        trace = trace.first(options.requests)
    shortest = int(trace.final_lens.min())
    if shortest > options.pool_tokens:
        raise InputError(
            f"--pool-tokens must hold the shortest request, of {shortest} tokens, "
            f"got --pool-tokens {options.pool_tokens}"
        )
    record = measure.measure(trace, options.pool_tokens, options.block_sizes, options.hit_block_size)
    deliver(
        report.text(record),
        (options.json, lambda: json.dumps(record, indent=1) + "\n"),
        (options.plot, lambda: plot.render(record, options.plot.suffix[1:].lower())),
    )
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse options that would fail later, and outputs that would overwrite a file that is read or written."""
    check_outputs(options, "json", "plot", read=options.file)
    if options.pool_tokens > MOST_POOL_TOKENS:
        raise InputError(
            f"--pool-tokens must be at most {MOST_POOL_TOKENS}, got --pool-tokens {options.pool_tokens}"
        )
    sizes = options.block_sizes
    if max(sizes) > options.pool_tokens:
        default = " (the default)" if sizes is BLOCK_SIZES else ""
        raise InputError(
            f"--block-sizes must be at most --pool-tokens {options.pool_tokens}, "
            f"got --block-sizes {max(sizes)}{default}"
        )
    if len(set(sizes)) < len(sizes):
        raise InputError(f"--block-sizes must differ, got --block-sizes {' '.join(map(str, sizes))}")
    if options.plot is None:
        return
    from ..replay.plot import FORMATS

    if options.plot.suffix[1:].lower() not in FORMATS:
        raise InputError(f"--plot must end in .svg, .png or .pdf, got --plot {options.plot}")
    failure = import_failure("matplotlib")
    if failure is not None:
        raise InputError(
            f"--plot needs matplotlib, which cannot be imported ({failure}); "
            "pip install matplotlib installs it"
        )
