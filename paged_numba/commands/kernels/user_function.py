"""Loads a function from the user's Python file and runs it with lockstep in place of ``numba.cuda``."""

from __future__ import annotations

import atexit
import importlib.util
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from ...errors import InputError, KernelError
from ...lockstep.cuda import facade
from ...lockstep.observe.observer import Observer, observing
from ...targets import ENVIRONMENT


def load_function(file: str, name: str) -> Callable[[], Any]:
    """Return a function that calls a function of a Python file on lockstep.

    The file can import modules from where ``python -m pytest`` would: the working directory, and its own folder or, if
    that is part of a package, the folder that holds the package.

    Raises
    ------
    InputError
        The file does not exist or cannot be imported, or has no function of that name without parameters. The
        returned function raises it, too, if the user's function fails.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(
            f"{file} must be a Python file, got {'a directory' if path.is_dir() else 'no such file'}"
        )
    folder, module_name = _origin(path)
    spec = importlib.util.spec_from_file_location(module_name, path.absolute())
    if spec is None or spec.loader is None:
        raise InputError(f"{file} must be a Python file, whose name ends in .py")
    with _lockstep_as_numba_cuda(folder) as loaded, _failures_of(file):
        # Imported before anything is recorded, so that launches at module level are not counted.
        module = _load(spec)
        loaded.update(sys.modules)
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        found = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module_name]
        got = "a kernel" if hasattr(function, "py_func") else "no function"
        raise InputError(
            f"{name} must be a host function in {file} that launches kernels, got {got}; "
            f"functions in the file: {', '.join(found) or 'none'}"
        )
    if inspect.signature(function).parameters:
        raise InputError(f"{name} must have no parameters, got {name}{inspect.signature(function)}")

    def run() -> Any:
        what = f"{file}::{name}"
        with _lockstep_as_numba_cuda(folder, loaded):
            with _failures_of(what, may_exit=True), _failures_of_threads() as failures:
                function()
            for error in failures:
                if isinstance(error, KernelError):
                    raise error
                raise InputError(f"{what} failed in a thread: {type(error).__name__}: {error}") from error

    return run


def _load(spec: ModuleSpec) -> ModuleType:
    """Import a module again, unless importing its package has just imported it."""
    new = spec.name not in sys.modules
    if spec.parent:
        importlib.import_module(spec.parent)
    if spec.parent and new and spec.name in sys.modules:
        return sys.modules[spec.name]
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def _origin(path: Path) -> tuple[Path, str]:
    """Return the folder from which a file is imported, and its name as a module there."""
    folder, names = path.absolute().parent, [path.stem.replace(".", "_")]
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        folder, names = folder.parent, [folder.name, *names]
    return folder, ".".join(names)


_NOT_OF_THE_USER = (__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
"""Files whose frames a traceback of the user's program leaves out."""


@contextmanager
def _failures_of(what: str, *, may_exit: bool = False) -> Iterator[None]:
    """Turn an exception that the user's file (but not a kernel) raises into an InputError; print its traceback.

    If `may_exit`, ``sys.exit(0)`` is not a failure.
    """
    try:
        yield
    except (KernelError, KeyboardInterrupt):
        raise
    except SystemExit as stop:
        if not may_exit or stop.code not in (None, 0):
            raise InputError(f"{what} failed: SystemExit: {stop}") from stop
    except BaseException as error:  # pytest.skip and asyncio raise some that are not Exceptions
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename in _NOT_OF_THE_USER:
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames)
        raise InputError(f"{what} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _failures_of_threads() -> Iterator[list[BaseException]]:
    """Collect the exceptions that end threads; Python only prints their tracebacks."""
    failures: list[BaseException] = []
    report = threading.excepthook

    def collect(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None:
            failures.append(ended.exc_value)
        report(ended)

    with mock.patch.object(threading, "excepthook", collect):
        yield failures


@contextmanager
def _lockstep_as_numba_cuda(
    folder: Path, loaded: dict[str, ModuleType] | None = None
) -> Iterator[dict[str, ModuleType]]:
    """In a ``with`` statement, ``from numba import cuda`` gives the lockstep facade, and operations run on lockstep.

    Yields an empty dict, for the modules that are loaded; `loaded` are those of the statement before.
    """
    with ExitStack() as stack:
        # The program may replace what is restored here.
        for name in ("stdout", "stderr"):
            stack.enter_context(mock.patch.object(sys, name, getattr(sys, name)))
        stack.callback(os.chdir, Path.cwd())
        stack.enter_context(mock.patch.dict(os.environ, {ENVIRONMENT: "lockstep"}))
        stack.enter_context(mock.patch.dict(sys.modules, loaded or {}))
        if importlib.util.find_spec("numba") is not None:
            numba = importlib.import_module("numba")
            stack.enter_context(mock.patch.object(numba, "cuda", facade, create=True))
            sys.modules["numba.cuda"] = facade
        places = [str(folder), str(Path.cwd()), *sys.path]
        stack.enter_context(mock.patch.object(sys, "path", list(dict.fromkeys(places))))
        yield {}


class OwnProcess(Observer):
    """Keeps a process that runs only a user's program from ending with status 0 by accident.

    The program cannot end the process with ``os._exit`` or ``os.exec``, which raise an error. After `refuse_launches`,
    a launch by an exit handler or by a thread that still runs makes the process end with status 2.

    It must be made before the program is loaded, so that its exit handler runs after those of the program.

    Parameters
    ----------
    what : str
        Name of the program.
    """

    def __init__(self, what: str) -> None:
        self.what, self.refuses, self.count = what, False, 0
        self._exit, process = os._exit, os.getpid()
        for name in ("_exit", "execv", "execve"):
            setattr(os, name, _refused(name, getattr(os, name), process))
        atexit.register(self._end)
        self._scope = ExitStack()
        self._scope.enter_context(observing(self))

    def refuse_launches(self) -> None:
        """Count launches from now on."""
        self.refuses = True

    def begin_launch(self, machine: Any, function: Any, arguments: tuple[Any, ...]) -> None:
        """Count a launch."""
        self.count += self.refuses

    def missed(self) -> None:
        """Count a launch of another thread."""
        self.count += self.refuses

    def _end(self) -> None:
        if self.count:
            print(
                f"paged-numba sanitize: error: {self.what} must launch its kernels before it ends, "
                f"got {self.count:,} later, not checked",
                file=sys.stderr,
            )
            sys.stdout.flush()
            sys.stderr.flush()
            # An exit handler has no other way to change the status.
            self._exit(2)


def _refused(name: str, function: Callable[..., Any], process: int) -> Callable[..., Any]:
    """Return a function that raises an error in this process; in a process forked from it, it calls `function`."""

    def refuse(*args: Any) -> Any:
        if os.getpid() != process:
            return function(*args)
        raise InputError(f"a program that is sanitized must not end its process with os.{name}")

    return refuse
