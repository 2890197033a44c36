"""Entry point of the command ``paged-numba`` and of ``python -m paged_numba``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import InputError, KernelError, TargetNameError, TargetUnavailableError

COMMANDS = {
    "tour": "serve requests with paged attention, explain each step and check it (the default)",
    "chat": "chat with a real model whose keys and values lie in the pool; --pool shows it",
    "generate": "answer the prompts of a file with a real model, in one batch",
    "start": "begin an exercise: write its task and skeleton into this folder",
    "check": "check your answer to an exercise, and show the smallest input on which it is wrong",
    "progress": "list the exercises and those that you have done in this folder",
    "doctor": "show what is installed or broken, which target runs and why, and what a GPU needs",
    "run": "run a Python script or module with lockstep in the place of numba.cuda, so that it needs no GPU",
    "profile": "count what a GPU would do with memory, warps and arithmetic, without a GPU",
    "sanitize": "find races, missing barriers, unwritten memory and stray indices, without a GPU",
    "trace": "record a kernel's threads statement by statement, as a page that plays them, without a GPU",
    "replay": "replay a trace of real requests: memory waste of paging and of contiguous reservations",
    "bench": "run a benchmark; both sides of a comparison are measured in the same run",
}

FOLDERS = {
    "tour": "tour",
    "profile": "kernels",
    "sanitize": "kernels",
    "trace": "kernels",
    "start": "exercises",
    "check": "exercises",
    "progress": "exercises",
    "chat": "serving",
    "generate": "serving",
}
"""Folder of `commands` in which a command's module is; the others are beside this one."""

BAD_USAGE, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Returns
    -------
    int
        0; 1 if a check failed, a kernel failed or the reader of standard output closed it; 2 for bad usage or input, or
        if output is lost; 130 after Ctrl-C.
    """
    with _streams() as lost:
        status = _main(arguments)
        if lost and not status:
            _say("paged-numba: error: standard output must be open, got a closed one")
            status = BAD_USAGE
    return status


def _main(arguments: Sequence[str] | None) -> int:
    name = "paged-numba"
    try:
        module, options = _parse(arguments)
        name = f"paged-numba {options.command}"
        status: int = module.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        # Python ends itself by SIGINT, not with a status, if the last `exec` of a text was interrupted.
        exec("")
        _say(f"{name}: interrupted")
        return INTERRUPTED
    except SystemExit as stop:  # of argparse, after --help or an error
        _flush()
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        # The reader of a pipe, such as head, has closed it.
        return 1
    except KernelError as error:
        _say(f"{name}: the kernel failed: {error}")
        return 1
    except (ImportError, InputError, MemoryError, OSError, TargetUnavailableError, TargetNameError) as error:
        _say(f"{name}: error: {str(error) or 'out of memory'}")
        return BAD_USAGE
    except ValueError:
        if not getattr(sys.stdout, "closed", False):
            raise
        _say(f"{name}: error: standard output must be open, got a closed one")
        return BAD_USAGE


def _parse(arguments: Sequence[str] | None) -> tuple[Any, argparse.Namespace]:
    """Return the module of a command and its options."""
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
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of the commands below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)

    module = _command(chosen.command)
    about = COMMANDS[chosen.command].removesuffix(" (the default)")
    command_parser = argparse.ArgumentParser(
        prog=f"paged-numba {chosen.command}",
        description=f"{about[0].upper()}{about[1:]}.",
    )
    # Whether the process is this command's alone, so that it may look at what happens until its end.
    command_parser.set_defaults(command=chosen.command, own_process=arguments is None)
    module.add_arguments(command_parser)
    return module, command_parser.parse_args(chosen.options)


def _command(name: str) -> Any:
    """Return the module of a command; exit if a package that it imports is broken."""
    try:
        return importlib.import_module(".".join(("", *FOLDERS.get(name, "").split(), name)), __package__)
    except Exception as error:
        why = f"{type(error).__name__}: {error}; paged-numba doctor says what is wrong"
        _say(f"paged-numba {name}: error: {why}")
        raise SystemExit(BAD_USAGE) from None


@contextmanager
def _streams() -> Iterator[bool]:
    """Make standard output and standard error take any text; yield whether standard output is closed.

    Python has None for a stream that is closed when it starts.
    """
    before = sys.stdout, sys.stderr
    lost = sys.stdout is None
    if lost or sys.stderr is None:
        _occupy_descriptors()
        null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the rest of the process)
        sys.stdout, sys.stderr = sys.stdout or null, sys.stderr or null
    stream: Any = sys.stdout
    handler = getattr(stream, "errors", None)
    strict = handler == "strict" and hasattr(stream, "reconfigure")
    if strict:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield lost
    finally:
        sys.stdout = stream
        _flush()
        if strict and not stream.closed:
            stream.reconfigure(errors=handler)
        sys.stdout, sys.stderr = before


def _occupy_descriptors() -> None:
    """Open the null device as each of 0, 1 and 2 that is closed, lest the next opened file be taken for a stream."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)


def _flush() -> None:
    """Flush standard output; if that fails, drop the rest, so that Python does not fail at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    """Print a message to standard error; escape control characters, and cut long lines."""
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    lines = [line if len(line) < 2000 else f"{line[:900]} ... {line[-900:]}" for line in shown.split("\n")]
    with suppress(OSError, ValueError):
        print("\n".join(lines), file=sys.stderr)


class _Version(argparse.Action):
    """``--version``: the only option that imports `importlib.metadata`, which is slow."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        try:
            print(f"paged-numba {metadata.version('paged-numba')}")
        except metadata.PackageNotFoundError:
            print("paged-numba (a source checkout that is not installed)")
        parser.exit()
