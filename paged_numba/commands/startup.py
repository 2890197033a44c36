"""Startup: what the wheel's file ``paged_numba_install.pth`` runs at the start of Python if PAGED_NUMBA_INSTALL is set.

Nothing but the standard library is imported before the process imports ``numba.cuda``.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ENVIRONMENT = "PAGED_NUMBA_INSTALL"
"""The environment variable: 1 puts lockstep in the place of ``numba.cuda``, 0 does not."""


_begun = False


def begin() -> None:
    """Install lockstep when ``numba.cuda`` is imported, if the environment variable is 1; warn of any other value."""
    global _begun
    if _begun:  # in a virtual environment, Python reads its .pth files twice
        return
    _begun = True
    value = os.environ.get(ENVIRONMENT, "0")
    if value == "1":
        sys.meta_path.insert(0, _Finder())
    elif value not in ("", "0") and sys.stderr is not None:
        shown = ascii(value if len(value) < 100 else value[:100] + " ...")
        print(
            f"paged_numba: warning: {ENVIRONMENT} must be 1 or 0, got {shown}: lockstep is not installed",
            file=sys.stderr,
        )


class _Finder(MetaPathFinder):
    """Waits for the import of ``numba.cuda``; `paged_numba.lockstep` replaces it by its own finder when imported."""

    installs_lockstep = True  # read by `paged_numba.targets`

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "numba.cuda":
            return None
        from .. import lockstep  # noqa: F401 (its import installs)

        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None
