"""``paged-numba sanitize``: finds races, missing barriers, unwritten memory and stray indices, without a GPU.

`operations` defines what it can run, and the sizes that ``--shape`` takes.
"""

from __future__ import annotations

import argparse

from .. import lockstep
from . import operations
from .options import file_to_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba sanitize``."""
    operations.add_arguments(parser)
    parser.add_argument(
        "--json", type=file_to_write, metavar="FILE", help="write the findings as JSON to FILE"
    )


def run(options: argparse.Namespace) -> int:
    """Run and print the findings; return 1 if one of them is an error, 0 otherwise."""
    call = operations.prepare(options, debug=True)
    with lockstep.profiling() as report, lockstep.sanitizing() as findings:
        call()
    launches = operations.require_launches(options, report)
    print(f"{launches} {'launch' if launches == 1 else 'launches'} on the lockstep machine: {findings}")
    if options.json is not None:
        findings.save(options.json)
    return 1 if findings.errors else 0
