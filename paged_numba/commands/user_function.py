"""A function of the user's Python file, run with the lockstep machine in the place of ``numba.cuda``."""

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
    """Return a call of a function of a Python file.

    Raises
    ------
    InputError
        No such file, a file that fails when it is imported, or no function of that name without parameters. The call
        itself raises it for a function that fails.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{file} is a directory" if path.is_dir() else f"no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    with _lockstep_as_numba_cuda(module, path), _failures_of(file):
        # Here, so that what the file launches by itself is not counted.
        spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        found = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == path.stem]
        kernel = ": it is a kernel" if hasattr(function, "py_func") else ""
        raise InputError(
            f"{name} must be a host function of {file} that launches kernels{kernel}; "
            f"functions there: {', '.join(found) or 'none'}"
        )
    if inspect.signature(function).parameters:
        raise InputError(f"{name} must take no arguments, it has {inspect.signature(function)}")

    def run() -> Any:
        with _lockstep_as_numba_cuda(module, path), _failures_of(f"{file}::{name}"):
            return function()

    return run


@contextmanager
def _failures_of(what: str) -> Iterator[None]:
    """Turn an exception of the user's file, but not of a kernel, into an InputError, and print its traceback."""
    try:
        yield
    except KernelError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise InputError(f"{what} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _lockstep_as_numba_cuda(module: Any, path: Path) -> Iterator[None]:
    """Give a module the lockstep facade for ``from numba import cuda``, and lockstep for operations."""
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
