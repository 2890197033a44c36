"""``paged-numba sanitize``: finds races, missing barriers, unwritten memory and stray indices, without a GPU.

`operations` defines what it can run, and the sizes that ``--shape`` takes.
"""

from __future__ import annotations

import argparse

from ... import lockstep
from ...errors import InputError, KernelError
from ...lockstep.observe.observer import unseen
from ..options import check_outputs, deliver, file_to_write
from . import operations
from .user_function import OwnProcess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba sanitize``."""
    operations.add_arguments(parser)
    parser.add_argument(
        "--json", type=file_to_write, metavar="FILE", help="write the findings as JSON to FILE"
    )
    parser.epilog = (
        "Exit status: 0 if kernels were launched, all launches were checked and no error was found; 1 if an error was "
        "found or a kernel failed; 2 otherwise. Launches in other processes are not seen."
    )


def run(options: argparse.Namespace) -> int:
    """Run and print the findings, however the program ends; return 1 if one of them is an error.

    Returns
    -------
    int
        0 if there were launches and no errors, 1 if there were errors.

    Raises
    ------
    InputError
        Nothing was launched, the program failed, or some launches were not seen.
    KernelError
        A kernel failed.
    """
    check_outputs(options, "json", read=operations.file_of(options))
    process = OwnProcess(options.what) if options.own_process else None
    call = operations.prepare(options, debug=True)
    with lockstep.profiling() as report, lockstep.sanitizing() as findings:
        ending = operations.ending(call)
    launches = operations.launches_in(report)
    operations.require_launches(options, launches, report.num_unseen, ending)
    text = f"{launches} {'launch' if launches == 1 else 'launches'} on the lockstep machine: {findings}"
    keep = None if isinstance(ending, KeyboardInterrupt) else options.json
    deliver(text, (keep, findings.json))
    if ending is not None:
        raise ending
    if findings.errors:
        return 1
    if findings.num_failed:
        raise KernelError(f"{options.what} caught the error and went on")
    if findings.num_unseen:
        not_checked = unseen(findings.num_unseen, "checked")
        raise InputError(f"{options.what} must start the threads that launch kernels: {not_checked}")
    if process is not None:
        process.refuse_launches()
    return 0
