"""Installation: puts lockstep in the place of ``numba.cuda``, so that other projects' CUDA code runs without a GPU.

The names of ``numba.cuda`` that need a GPU are replaced in the module itself, not the module, so that a project that
imported it before sees the change too. What a kernel is written with (``cuda.threadIdx``, types, …) stays Numba's.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import facade
from .facade import Kernel

_HOST_NAMES = (
    "jit In Out InOut to_device device_array device_array_like as_cuda_array is_cuda_array pinned_array "
    "pinned_array_like mapped_array mapped_array_like managed_array pinned defer_cleanup stream default_stream "
    "legacy_default_stream per_thread_default_stream event event_elapsed_time gpus list_devices current_context "
    "get_current_device select_device is_available detect synchronize close profile_start profile_stop profiling"
).split()
"""The names of ``numba.cuda`` that host code uses and that need a GPU."""

_replaced: list[tuple[Any, str, Any]] = []
"""What `install` has replaced: an object, the name of an attribute, and its value from before."""

_MISSING = object()


def install() -> None:
    """Put lockstep in the place of ``numba.cuda`` in this process."""
    if is_installed():
        return
    if "numba.cuda" in sys.modules:
        _replace()
    sys.meta_path.insert(0, _FINDER)


def uninstall() -> None:
    """Give ``numba.cuda`` back its own names."""
    if not is_installed():
        return
    sys.meta_path.remove(_FINDER)
    while _replaced:
        owner, name, before = _replaced.pop()
        if before is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def installed() -> Iterator[None]:
    """Put lockstep in the place of ``numba.cuda`` for a ``with`` statement."""
    before = is_installed()
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


def is_installed() -> bool:
    """Tell whether lockstep stands in the place of ``numba.cuda``."""
    return _FINDER in sys.meta_path


class _Finder(MetaPathFinder):
    """Replaces the names of ``numba.cuda`` when it has been imported."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "numba.cuda":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _replace()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_FINDER = _Finder()


def _replace() -> None:
    numba_cuda = sys.modules["numba.cuda"]
    for name in _HOST_NAMES:
        _set(numba_cuda, name, getattr(facade, name))
    dispatcher = importlib.import_module("numba.cuda.dispatcher").CUDADispatcher
    _set(dispatcher, "__getitem__", lambda self, configuration: Kernel.of(self)[configuration])


def _set(owner: Any, name: str, value: Any) -> None:
    _replaced.append((owner, name, owner.__dict__.get(name, _MISSING)))
    setattr(owner, name, value)
