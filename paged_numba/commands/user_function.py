"""Loads a function from the user's Python file and runs it with lockstep in place of ``numba.cuda``."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from ..errors import InputError, KernelError
from ..lockstep.cuda import facade
from ..targets import ENVIRONMENT


def load_function(file: str, name: str) -> Callable[[], Any]:
    """Return a function that calls a function of a Python file on lockstep.

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
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} must be a Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    with _lockstep_as_numba_cuda(module, path), _failures_of(file):
        # Imported before anything is recorded, so that launches at module level are not counted.
        spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        found = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == path.stem]
        got = "a kernel" if hasattr(function, "py_func") else "no function"
        raise InputError(
            f"{name} must be a host function in {file} that launches kernels, got {got}; "
            f"functions in the file: {', '.join(found) or 'none'}"
        )
    if inspect.signature(function).parameters:
        raise InputError(f"{name} must have no parameters, got {name}{inspect.signature(function)}")

    def run() -> Any:
        with _lockstep_as_numba_cuda(module, path), _failures_of(f"{file}::{name}"):
            return function()

    return run


@contextmanager
def _failures_of(what: str) -> Iterator[None]:
    """Turn an exception that the user's file (but not a kernel) raises into an InputError; print its traceback."""
    try:
        yield
    except KernelError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise InputError(f"{what} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _lockstep_as_numba_cuda(module: Any, path: Path) -> Iterator[None]:
    """In a ``with`` statement, ``from numba import cuda`` gives the lockstep facade, and operations run on lockstep."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {ENVIRONMENT: "lockstep"}))
        stack.enter_context(mock.patch.dict(sys.modules))
        if importlib.util.find_spec("numba") is not None:
            numba = importlib.import_module("numba")
            stack.enter_context(mock.patch.object(numba, "cuda", facade, create=True))
            sys.modules["numba.cuda"] = facade
        sys.modules[path.stem] = module
        stack.enter_context(mock.patch.object(sys, "path", [str(path.parent), *sys.path]))
        yield
