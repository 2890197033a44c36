"""Kernel mutants: kernels of this package with one place of their source changed.

`installed` replaces the real kernel by a mutant, so that operations use the mutant.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class KernelMutant:
    """A kernel with one fault.

    Parameters
    ----------
    name : str
        What is wrong.
    module : str
        Module of ``paged_numba.kernels`` that holds the kernel.
    old, new : str
        Source text to replace, and its replacement; `old` occurs once.
    operation : str
        The property that must fail, see tests/test_mutants.py: ``attend``, ``attend infinite``, ``attend textbook``,
        ``exact``, ``large scores``, ``hide``, ``blind``, ``sanitize``, ``many heads``, ``sanitize many heads``,
        ``merge``, ``large cache``, ``write``, ``gather`` or ``copy``; ``attend packed``, ``hide packed`` or
        ``gather packed`` for caches in that layout alone.
    algorithm : str
        Algorithm of `paged_attention`, for ``attend`` and ``attend infinite``.
    """

    name: str
    module: str
    old: str
    new: str
    operation: str
    algorithm: str = "block"

    def __str__(self) -> str:
        return f"{self.module}: {self.name}"


def changed_source(mutant: KernelMutant) -> str:
    """Return the source of the kernel's module with the fault."""
    source = inspect.getsource(importlib.import_module(f"paged_numba.kernels.{mutant.module}"))
    if source.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant}: {mutant.old!r} must occur once in the source, got {source.count(mutant.old)}"
        )
    return source.replace(mutant.old, mutant.new)


def build(mutant: KernelMutant, folder: Path) -> Any:
    """Write the changed source to `folder`; return the mutated kernel, or the function that makes it."""
    # A real file: both targets read a kernel's source to translate it or to name its lines.
    path = folder / f"{mutant.module}.py"
    path.write_text(changed_source(mutant), encoding="utf-8")
    name = f"paged_numba.kernels._mutant_{mutant.module}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return getattr(module, _attribute(module, mutant))


def _attribute(module: Any, mutant: KernelMutant) -> str:
    """Return the name of a module's kernel, or of the function that makes it for the sizes of a launch."""
    name = f"{mutant.module}_kernel"
    return name if hasattr(module, name) else f"{name}_for"


@contextmanager
def installed(mutant: KernelMutant) -> Iterator[None]:
    """Use the mutant in place of the real kernel within a ``with`` block."""
    module = importlib.import_module(f"paged_numba.kernels.{mutant.module}")
    attribute = _attribute(module, mutant)
    original = getattr(module, attribute)
    with tempfile.TemporaryDirectory() as folder:
        setattr(module, attribute, build(mutant, Path(folder)))
        try:
            yield
        finally:
            setattr(module, attribute, original)
