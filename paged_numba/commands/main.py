"""Entry point of the command ``paged-numba`` and of ``python -m paged_numba``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from ..errors import InputError, KernelError, TargetNameError, TargetUnavailableError

COMMANDS = {
    "tour": "serve requests with paged attention, explain each step and check it (the default)",
    "doctor": "show what is installed or broken, which target runs and why, and what a GPU needs",
    "profile": "count what a GPU would do with memory, warps and arithmetic, without a GPU",
    "sanitize": "find races, missing barriers, unwritten memory and stray indices, without a GPU",
    "replay": "replay a trace of real requests: memory waste of paging and of contiguous reservations",
    "bench": "run a benchmark; both sides of a comparison are measured in the same run",
}

BAD_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 if a check failed, 2 for bad usage or input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "tour")
    parser = argparse.ArgumentParser(
        prog="paged-numba",
        description="Paged attention with real kernels, on a GPU or without one.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:10}{what}" for name, what in COMMANDS.items()),
                "",
                "paged-numba COMMAND --help lists the options of a command.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of the commands below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)

    module = _command(chosen.command)
    about = COMMANDS[chosen.command].removesuffix(" (the default)")
    command_parser = argparse.ArgumentParser(
        prog=f"paged-numba {chosen.command}",
        description=f"{about[0].upper()}{about[1:]}.",
    )
    module.add_arguments(command_parser)
    options = command_parser.parse_args(chosen.options)
    try:
        status: int = module.run(options)
        sys.stdout.flush()
        return status
    except (ImportError, InputError, MemoryError, OSError, TargetUnavailableError, TargetNameError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe, such as head, has closed it. Flushing at exit must not fail either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"paged-numba {chosen.command}: error: {error}", file=sys.stderr)
        return BAD_USAGE
    except KernelError as error:
        print(f"paged-numba {chosen.command}: the kernel failed: {error}", file=sys.stderr)
        return 1


def _command(name: str) -> Any:
    """Return the module of a command; exit if a package that it imports is broken."""
    try:
        return importlib.import_module(f".{name}", __package__)
    except Exception as error:
        why = f"{type(error).__name__}: {error}; paged-numba doctor says what is wrong"
        print(f"paged-numba {name}: error: {why}", file=sys.stderr)
        raise SystemExit(BAD_USAGE) from None


def _version() -> str:
    try:
        return f"paged-numba {metadata.version('paged-numba')}"
    except metadata.PackageNotFoundError:
        return "paged-numba (a source checkout that is not installed)"
