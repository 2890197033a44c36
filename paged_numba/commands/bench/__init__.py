"""``paged-numba bench``: benchmarks of lockstep, of a model, of kernels on a GPU, and of the allocator."""

from __future__ import annotations

import argparse

from ..options import file_to_write, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba bench``."""
    parser.add_argument(
        "what",
        metavar="BENCHMARK",
        choices=("lockstep", "model", "gpu", "allocator"),
        help="lockstep, model, gpu or allocator; allocator needs 3 GB of memory",
    )
    parser.add_argument(
        "--json",
        type=file_to_write,
        metavar="FILE",
        help="write the figures as JSON to FILE, with date, commit, machine and versions",
    )
    parser.add_argument("--commit", help="commit to record, if the package does not run from a git checkout")
    parser.add_argument(
        "--no-simulator",
        action="store_true",
        help="lockstep: leave out Numba's simulator, which takes seconds, or a minute on some machines",
    )
    parser.add_argument(
        "--batch", type=positive, metavar="N", default=1, help="model: sequences in a step (default: 1)"
    )
    parser.add_argument(
        "--context", type=positive, metavar="N", default=256,
        help="model: tokens of each sequence, with the one that the step computes (default: 256)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run a benchmark; return 0, 1 if results differ, or 2 if it cannot run here."""
    if options.what == "gpu":
        from .gpu import run as run_gpu

        return run_gpu(options.json, options.commit)
    if options.what == "allocator":
        from .allocator import run as run_allocator

        return run_allocator(options.json, options.commit)
    if options.what == "model":
        from .model import run as run_model

        return run_model(options.json, options.commit, batch=options.batch, length=options.context)
    from .lockstep import run as run_lockstep

    return run_lockstep(options.json, options.commit, simulator=not options.no_simulator)
