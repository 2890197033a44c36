"""The packages that paged_numba requires: whether they can be imported, and whether their versions are supported."""

from __future__ import annotations

import importlib.metadata
import operator
import re
from typing import NamedTuple

from ...targets import import_failure

_MODULES = {
    "numpy": ("numpy", ()),
    "ml_dtypes": ("ml_dtypes", ("numpy",)),
    "tqdm": ("tqdm", ()),
    "numba": ("numba", ("numpy",)),
    "numba-cuda": ("numba.cuda", ("numpy", "numba")),
}
"""The required packages: the module of each, and the packages that it imports."""

_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


class Package(NamedTuple):
    """A package that paged_numba needs."""

    version: str | None
    """The installed version, None if it is not installed."""
    problem: str | None
    """What is wrong with it, None if nothing is."""


def examine() -> dict[str, Package]:
    """Import each required package, compare its version with the supported ones, and return the results by name."""
    declared = requirements()
    found: dict[str, Package] = {}
    broken: set[str] = set()
    for name, (module, needed) in _MODULES.items():
        version, problems = _version(name), []
        if version is not None and not _allows(declared.get(name, name), version):
            problems.append(f"version {version} is not supported, {declared[name]} is")
        failure = None if broken.intersection(needed) else import_failure(module)
        if failure is not None:
            broken.add(name)
            problems.append(f"import {module} fails: {failure}")
        found[name] = Package(version, "; ".join(problems) or None)
    return found


def requirements() -> dict[str, str]:
    """Return what paged_numba declares by package, such as ``numpy<2.5,>=2.0``; nothing if it is not installed."""
    try:
        lines = importlib.metadata.requires("paged-numba") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    declared = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        if "extra" not in marker:
            name = re.split(r"[^\w-]", requirement.strip(), maxsplit=1)[0]
            declared[_normal(name)] = requirement.strip()
    return {name: declared[_normal(name)] for name in _MODULES if _normal(name) in declared}


def remedy(broken: list[str]) -> str:
    """Return the command that installs packages again, in versions that paged_numba supports."""
    # Reinstalling one package may bring unsupported versions of others: name all.
    wanted = requirements().values() or broken
    return "pip install --force-reinstall " + " ".join(f'"{requirement}"' for requirement in wanted)


def _normal(name: str) -> str:
    return name.replace("_", "-").lower()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _allows(requirement: str, version: str) -> bool:
    """Return whether a requirement allows a version, of which only the numbers count: 2.5 of 2.5.0rc1."""
    bounds = re.findall(r"([<>=]=?)\s*([\d.]+)", requirement)
    return all(_COMPARISONS[sign](_numbers(version), _numbers(bound)) for sign, bound in bounds)


def _numbers(version: str) -> list[int]:
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
