"""Installation: puts lockstep in the place of ``numba.cuda``, so that other projects' CUDA code runs without a GPU.

``numba.cuda`` itself is changed, not exchanged, so that a project that imported it before sees the change too. If it is
not imported yet, it is changed right after its import, so that `install` itself does not import Numba. The environment
variable PAGED_NUMBA_INSTALL=1 installs at the start of Python; see `paged_numba.commands.startup`.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ....errors import TargetUnavailableError
from ...compiler.source import keep_executed_texts
from . import stand_in
from .changes import Changes
from .replacement import replace

_lock = threading.RLock()
_asked = False
"""Whether `install` was called, and `uninstall` not since."""
_open = 0
"""How many ``with installed():`` statements run now, in all threads."""
_changes = Changes()
_replaced: ModuleType | None = None
"""The module ``numba.cuda`` that was changed."""


def install() -> None:
    """Put lockstep in the place of ``numba.cuda`` in this process: CUDA code of any project then needs no GPU.

    From then on, the host code of any project gets lockstep's ``jit``, device arrays, streams and devices from
    ``numba.cuda``, in all threads, whether it imports them before or after. ``vectorize`` and ``guvectorize`` with the
    target ``cuda``, and kernels that Numba decorated before, run on lockstep too. Types, names inside kernels, and what
    needs no GPU, such as ``compile_ptx``, remain Numba's. What lockstep lacks can be imported, and raises an error when
    it is used. A second call does nothing.

    Raises
    ------
    TargetUnavailableError
        NUMBA_ENABLE_CUDASIM is set, so that Numba's simulator is in the place of ``numba.cuda``.

    See Also
    --------
    uninstall : Give ``numba.cuda`` back its own names.
    installed : The same for a ``with`` statement.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import cuda
    >>> from paged_numba import lockstep
    >>> lockstep.install()
    >>> @cuda.jit
    ... def double(x):
    ...     if (i := cuda.grid(1)) < x.size:
    ...         x[i] *= 2
    >>> x = cuda.to_device(np.arange(5))
    >>> double[1, 32](x)
    >>> x.copy_to_host()
    array([0, 2, 4, 6, 8])
    >>> lockstep.uninstall()
    """
    global _asked
    _refuse_simulator()
    with _lock:
        _asked = True
        _begin()
    _replace_imported()


def uninstall() -> None:
    """Restore Numba's own names in ``numba.cuda``; do nothing if lockstep is not installed.

    Kernels that were decorated while lockstep was installed remain kernels of lockstep. Inside ``with installed():``,
    the end of the ``with`` statement uninstalls.

    See Also
    --------
    install : Put lockstep in the place of ``numba.cuda``.

    Examples
    --------
    >>> from numba import cuda
    >>> from paged_numba import lockstep
    >>> lockstep.install()
    >>> cuda.get_current_device()
    <the lockstep machine, no GPU>
    >>> lockstep.uninstall()
    """
    global _asked
    with _lock:
        _asked = False
        _end()


@contextmanager
def installed() -> Iterator[None]:
    """Put lockstep in the place of ``numba.cuda`` for a ``with`` statement, in all threads.

    If lockstep was installed before, it remains installed after. Of several ``with`` statements, nested or in several
    threads, the last to end uninstalls.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    TargetUnavailableError
        As for `install`.

    See Also
    --------
    install : Put lockstep in the place of ``numba.cuda`` for good.

    Examples
    --------
    >>> from numba import cuda
    >>> from paged_numba import lockstep
    >>> with lockstep.installed():
    ...     cuda.is_available()
    True
    """
    global _open
    _refuse_simulator()
    with _lock:
        _open += 1
        _begin()
    try:
        _replace_imported()
        yield
    finally:
        with _lock:
            _open -= 1
            _end()


def is_installed() -> bool:
    """Tell whether lockstep stands in the place of ``numba.cuda``."""
    return _FINDER in sys.meta_path


class _Finder(MetaPathFinder):
    """Changes ``numba.cuda`` when it has been imported; stands in for it where that fails."""

    installs_lockstep = True  # read by `paged_numba.targets`

    def __init__(self) -> None:
        self.searching = threading.local()

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.startswith("numba.cuda.") and getattr(_replaced, "__path__", None) == []:
            found = stand_in.spec(name)
            if found is None:  # other finders do not know that numba.cuda has no folder
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return found
        if name != "numba.cuda" or getattr(self.searching, "now", False):
            return None
        self.searching.now = True  # numba-cuda's own finder asks all finders
        try:
            spec = _find_spec(name, path, target)
        finally:
            self.searching.now = False
        if spec is None or spec.loader is None:
            spec = stand_in.spec(name)
            assert spec is not None
        _change_when_executed(spec)
        return spec


_FINDER = _Finder()


def _find_spec(name: str, path: Any, target: ModuleType | None) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        if hasattr(finder, "find_spec"):
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
    return None


def _change_when_executed(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        try:
            execute(module)
        except Exception:  # whatever a numba.cuda that does not fit its surroundings raises
            if not is_installed():
                raise
            stand_in.fill(module)
        _change(module)

    loader.exec_module = exec_module


def _begin() -> None:
    keep_executed_texts(True)
    if not is_installed():
        sys.meta_path.insert(0, _FINDER)


def _end() -> None:
    global _replaced
    if _asked or _open or not is_installed():
        return
    keep_executed_texts(False)
    sys.meta_path.remove(_FINDER)
    _changes.undo()
    if getattr(_replaced, "__path__", None) == []:
        for name in [name for name in sys.modules if f"{name}.".startswith("numba.cuda.")]:
            del sys.modules[name]
        delattr(sys.modules["numba"], "cuda")
    _replaced = None


def _replace_imported() -> None:
    if sys.modules.get("numba.cuda") is not None:
        _change(importlib.import_module("numba.cuda"))  # waits if another thread is importing it


def _change(cuda: ModuleType) -> None:
    global _replaced
    with _lock:
        if not is_installed() or _replaced is cuda:
            return
        _replaced = cuda
        if cuda.__path__ == []:
            return
        try:
            replace(cuda, _changes)
        except BaseException:
            _changes.undo()
            _replaced = None
            raise


def _refuse_simulator() -> None:
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
        raise TargetUnavailableError(
            "lockstep cannot stand in the place of numba.cuda while NUMBA_ENABLE_CUDASIM is set, "
            "which puts Numba's simulator there: unset it"
        )


for _finder in list(sys.meta_path):
    if getattr(_finder, "installs_lockstep", False) and _finder is not _FINDER:
        # PAGED_NUMBA_INSTALL has asked for it, before this module was imported.
        sys.meta_path.remove(_finder)
        install()
