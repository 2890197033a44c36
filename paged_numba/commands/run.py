"""``paged-numba run``: runs a Python script or module with lockstep in the place of ``numba.cuda``."""

from __future__ import annotations

import argparse
import io
import os
import runpy
import signal
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from .. import lockstep
from ..errors import InputError
from .startup import ENVIRONMENT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba run``."""
    parser.usage = "paged-numba run [-h] (SCRIPT | -m MODULE) [ARGUMENT ...]"
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE [ARGUMENT ...]",
        help="a module to run, as python -m does, and its arguments",
    )  # fmt: skip
    parser.add_argument(
        "script", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGUMENT ...]",
        help="a Python file to run, and its arguments",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the program as Python would; return its exit status.

    Processes that the program starts have lockstep in the place of ``numba.cuda`` too: the environment variable
    PAGED_NUMBA_INSTALL is set for them.
    """
    words = options.script if options.module is None else options.module
    if not words:
        raise InputError("paged-numba run must be given a SCRIPT, or -m and a MODULE, got neither")
    program, *arguments = words
    if options.module is None and not Path(program).exists():
        raise InputError(f"SCRIPT must be a file that exists, got {program}")
    lockstep.install()
    os.environ[ENVIRONMENT] = "1"
    _give_back_streams()
    sys.argv = [program, *arguments]
    try:
        if options.module is None:
            _run_script(program)
        else:
            _first_on_path(os.getcwd())
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return _status(stop)
    except BaseException as error:
        return _report(error)
    return 0


def _run_script(file: str) -> None:
    """Run a file, or the ``__main__.py`` of a folder or zip archive, as the module ``__main__``."""
    if not _is_source(file):
        _first_on_path(file)
        runpy.run_path(file, run_name="__main__")
        return
    _first_on_path(os.path.dirname(os.path.realpath(file)))
    file = os.path.abspath(file)
    module: Any = ModuleType("__main__")
    module.__file__ = file
    module.__builtins__ = __builtins__
    module.__loader__ = SourceFileLoader("__main__", file)
    module.__cached__ = None
    # It remains there for what runs at the end of the process.
    sys.modules["__main__"] = module
    with io.open_code(file) as source:
        code = compile(source.read(), file, "exec", dont_inherit=True)
    exec(code, vars(module))


def _first_on_path(place: str) -> None:
    """Let modules be found in `place` first, in the place of the folder of the program paged-numba."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = place


def _is_source(file: str) -> bool:
    import zipfile

    return not os.path.isdir(file) and not zipfile.is_zipfile(file)


def _status(stop: SystemExit) -> int:
    """Return the exit status that Python gives to SystemExit, whose code is printed if it is not an integer."""
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(stop.code, file=sys.stderr)
    return 1


def _report(error: BaseException) -> int:
    """Print the traceback of an exception without the frames before the program's; return the exit status."""
    frames = _of_program(error.__traceback__)
    if frames is None and isinstance(error, ImportError):
        print(f"paged-numba run: error: {error}", file=sys.stderr)
        return 1
    sys.excepthook(type(error), error.with_traceback(frames), frames)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 1


def _of_program(traceback: TracebackType | None) -> TracebackType | None:
    before = (__file__, runpy.__file__, "<frozen runpy>")
    while traceback is not None and traceback.tb_frame.f_code.co_filename in before:
        traceback = traceback.tb_next
    return traceback


def _give_back_streams() -> None:
    """Let the streams refuse what they cannot encode, as Python's do, unlike those of the other commands."""
    stream: Any = sys.stdout
    if getattr(stream, "errors", None) == "backslashreplace" and "PYTHONIOENCODING" not in os.environ:
        stream.reconfigure(errors="strict")
