"""``paged-numba trace``: records launches statement by statement, as a page that plays them, without a GPU.

`operations` defines what it can run, and the sizes that ``--shape`` takes.
"""

from __future__ import annotations

import argparse

from ... import lockstep
from ...errors import InputError
from ..options import check_outputs, deliver, file_to_write
from . import operations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba trace``."""
    operations.add_arguments(parser)
    parser.add_argument(
        "--html", type=file_to_write, metavar="FILE", help="write the page that plays the launches to FILE"
    )
    parser.add_argument(
        "--json", type=file_to_write, metavar="FILE", help="write the recording as JSON to FILE"
    )
    parser.epilog = (
        "The page is one file that needs no network: the source beside the threads, step by step, with their variables "
        "and what each access touches in memory. At least one of --html and --json is needed."
    )


def run(options: argparse.Namespace) -> int:
    """Record, write the files and say what they hold, however the program ends; return 0."""
    if options.html is None and options.json is None:
        raise InputError("--html or --json must name a file to write, got neither")
    check_outputs(options, "json", "html", read=operations.file_of(options))
    call = operations.prepare(options)
    with lockstep.recording() as recorded:
        ending = operations.ending(call)
    operations.require_launches(options, recorded.num_launches, recorded.num_unseen, ending)
    interrupted = isinstance(ending, KeyboardInterrupt)
    deliver(
        "\n".join([recorded.summary(), *recorded.left_out()]),
        (None if interrupted else options.json, recorded.json),
        (None if interrupted else options.html, recorded.page),
    )
    if ending is not None:
        raise ending
    return 0
