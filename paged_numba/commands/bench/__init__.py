"""``paged-numba bench``: benchmarks of lockstep, of kernels on a GPU, and of the allocator."""

from __future__ import annotations

import argparse

from ..options import file_to_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba bench``."""
    parser.add_argument(
        "what",
        metavar="BENCHMARK",
        choices=("lockstep", "gpu", "allocator"),
        help="lockstep, gpu or allocator; allocator needs 3 GB of memory",
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


def run(options: argparse.Namespace) -> int:
    """Run a benchmark; return 0, 1 if results differ, or 2 if it cannot run here."""
    if options.what == "gpu":
        from .gpu import run as run_gpu

        return run_gpu(options.json, options.commit)
    if options.what == "allocator":
        from .allocator import run as run_allocator

        return run_allocator(options.json, options.commit)
    from .lockstep import run as run_lockstep

    return run_lockstep(options.json, options.commit, simulator=not options.no_simulator)
