"""``paged-numba profile``: counts what a GPU would do with memory, warps and arithmetic, without a GPU.

`operations` defines what it can run, and the sizes that ``--shape`` takes.
"""

from __future__ import annotations

import argparse

from ... import lockstep
from ...lockstep.profiler import GPUS
from ..options import check_outputs, deliver, file_to_write
from . import operations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba profile``."""
    operations.add_arguments(parser)
    parser.add_argument(
        "--gpu", choices=GPUS, default="H200", help="GPU of the roofline (default: %(default)s)"
    )
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write all counts as JSON to FILE")
    parser.add_argument(
        "--html", type=file_to_write, metavar="FILE", help="write the report as a web page to FILE"
    )


def run(options: argparse.Namespace) -> int:
    """Profile, print the report and the annotated source, however the program ends; return 0."""
    check_outputs(options, "json", "html", read=operations.file_of(options))
    call = operations.prepare(options)
    with lockstep.profiling() as report:
        ending = operations.ending(call)
    operations.require_launches(options, operations.launches_in(report), report.num_unseen, ending)
    interrupted = isinstance(ending, KeyboardInterrupt)
    deliver(
        f"{report.text(options.gpu)}\n\n{report.source()}",
        (None if interrupted else options.json, report.json),
        (None if interrupted else options.html, lambda: report.page(options.gpu)),
    )
    if ending is not None:
        raise ending
    return 0
