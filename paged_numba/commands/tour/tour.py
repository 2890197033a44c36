"""``paged-numba tour``: serves requests with paged attention, explains each step and checks it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ... import models, targets, traces
from ..options import positive
from . import real, toy

DEFAULT_REQUESTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba tour``."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--text", type=Path, metavar="FILE", help="serve the prompts in FILE, separated by blank lines"
    )
    source.add_argument(
        "--trace", type=Path, metavar="FILE",
        help=f"serve random prompts of the lengths in FILE, a trace: {traces.FORMATS}; plain or gzip",
    )  # fmt: skip
    parser.add_argument(
        "--requests", type=positive, metavar="N", default=DEFAULT_REQUESTS,
        help="serve the first N requests (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--target", choices=targets.TARGETS, default="auto", help="where the kernels run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the explanation")


def run(options: argparse.Namespace) -> int:
    """Serve with the small real model where it is installed, else, and for a trace, with the toy model."""
    if options.trace is None and models.find()[0].path is not None:
        return real.run(options)
    return toy.run(options)
