"""Modules that stand in the place of ``numba.cuda`` and of its submodules where ``numba.cuda`` cannot be imported."""

from __future__ import annotations

import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import facade
from ..kernels import Kernel
from ..names import DeviceName
from .replacement import SUBMODULES, host_names

_HOMES = {"api", "decorators"}
"""Submodules that have all names of ``numba.cuda`` for host code."""

_DEVICE = ("libdevice", "cg", "fp16")
"""Submodules whose names have a meaning only inside kernels."""


def fill(module: ModuleType) -> None:
    """Give a module the names of the facade, in the place of what an import that failed has left."""
    for name in [name for name in sys.modules if name.startswith("numba.cuda.")]:
        del sys.modules[name]
    for name in [name for name in vars(module) if not name.startswith("__")]:
        delattr(module, name)
    vars(module).update((name, value) for name, value in vars(facade).items() if not name.startswith("_"))
    module.__getattr__ = facade.__getattr__  # type: ignore[method-assign]
    module.__path__ = []


def spec(name: str) -> ModuleSpec | None:
    """Return the spec of ``numba.cuda`` or of a submodule of it, None if the facade has no such submodule."""
    part = name.removeprefix("numba.cuda").removeprefix(".")
    if part == "random":
        return _spec_of_random(name)
    known = not part or part in SUBMODULES or part in _DEVICE or part in ("dispatcher", "types")
    return ModuleSpec(name, _Loader(part), is_package=not part or part == "cudadrv") if known else None


def _spec_of_random(name: str) -> ModuleSpec | None:
    """Return the spec of Numba's own ``numba.cuda.random``, which imports nothing else that needs ``numba.cuda``."""
    file = Path(sys.modules["numba"].__path__[0], "cuda", "random.py")
    return spec_from_file_location(name, file) if file.is_file() else None


class _Loader(Loader):
    def __init__(self, part: str) -> None:
        self.part = part

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        part, names = self.part, vars(module)
        if not part:
            fill(module)
        elif part in _DEVICE:
            module.__getattr__ = _device_names(part)  # type: ignore[method-assign]
        elif part == "types":
            from numba.core import types

            names.update((name, value) for name, value in vars(types).items() if not name.startswith("_"))
        elif part == "dispatcher":
            module.CUDADispatcher = Kernel  # type: ignore[attr-defined]
        else:
            names.update(host_names() if part in _HOMES else {})
            names.update(SUBMODULES[part])


def _device_names(part: str) -> Any:
    def find(name: str) -> DeviceName:
        if name.startswith("__"):
            raise AttributeError(name)
        return DeviceName(f"cuda.{part}.{name}")

    return find
