"""Provenance of a benchmark's figures: date, commit, machine and versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("paged-numba", "numpy", "numba", "numba-cuda", "llvmlite")


def provenance(commit: str | None = None) -> dict[str, Any]:
    """Return date, commit, machine and versions, as a record that JSON can hold."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit or _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the packages in `PACKAGES` that are installed."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Return the commit of the checkout, with ``+`` if files have changed; "unknown" outside git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def as_json(record: dict[str, Any]) -> str:
    """Return the figures of a benchmark as JSON."""
    return json.dumps(record, indent=1) + "\n"
