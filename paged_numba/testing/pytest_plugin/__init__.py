"""pytest plugin: runs a project's CUDA tests on lockstep, sanitizes them, and compares their memory traffic.

pytest loads it in every run of an environment that has paged_numba. It imports NumPy, Numba and the rest of the
package only when one of its options or fixtures is used.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

HEADER = "paged_numba: numba.cuda is the lockstep machine"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("paged_numba", "CUDA kernels without a GPU (paged_numba)")
    group.addoption(
        "--lockstep",
        action="store_true",
        dest="paged_numba_lockstep",
        help="run CUDA kernels without a GPU: the lockstep machine takes the place of numba.cuda",
    )
    group.addoption(
        "--sanitize",
        action="store_true",
        dest="paged_numba_sanitize",
        help="fail tests whose kernels have data races, stray indices or other errors; implies --lockstep",
    )
    group.addoption(
        "--profile-kernels",
        metavar="FILE",
        dest="paged_numba_profile",
        help="write the memory traffic of each test that passes, by kernel, to FILE, which keeps that of other "
        "tests; implies --lockstep",
    )
    group.addoption(
        "--traffic-baseline",
        metavar="FILE",
        dest="paged_numba_baseline",
        help="fail tests whose memory traffic has grown since FILE was written by --profile-kernels; "
        "implies --lockstep",
    )


def _uses_lockstep(options: Any) -> bool:
    names = ("lockstep", "sanitize", "profile", "baseline")
    return any(getattr(options, f"paged_numba_{name}", None) for name in names)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Install lockstep before the project's conftest files are imported."""
    if _uses_lockstep(early_config.known_args_namespace):
        _install(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Install lockstep, if that has not been done, and register what the options ask for."""
    options = config.option
    if not _uses_lockstep(options):
        return
    options.paged_numba_lockstep = True  # for tests that ask config.getoption("--lockstep")
    _install(config)
    if options.paged_numba_sanitize:
        from .sanitize import SanitizePlugin

        config.pluginmanager.register(SanitizePlugin(), "paged_numba_sanitize")
    if options.paged_numba_profile or options.paged_numba_baseline:
        from .traffic import TrafficPlugin

        config.pluginmanager.register(TrafficPlugin(config), "paged_numba_traffic")


def _install(config: pytest.Config) -> None:
    from ...errors import TargetUnavailableError
    from ...lockstep import installed

    if config.stash.get(_INSTALLED, False):
        return
    installation = ExitStack()
    try:
        installation.enter_context(installed())
    except TargetUnavailableError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_INSTALLED] = True
    config.add_cleanup(installation.close)


_INSTALLED = pytest.StashKey[bool]()


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what runs the kernels."""
    by_environment = any(getattr(finder, "installs_lockstep", False) for finder in sys.meta_path)
    return HEADER if by_environment or _uses_lockstep(config.option) else None


@pytest.hookimpl(hookwrapper=True)  # not wrapper=True: this hook must load under an old pytest, too
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, None]:
    """Leave out of tracebacks the arguments and variables of lane programs, which are those of all lanes."""
    outcome = yield
    report = None if outcome.excinfo else outcome.get_result()
    for trace, *_ in getattr(getattr(report, "longrepr", None), "chain", ()):
        for entry in trace.reprentries:
            arguments = getattr(getattr(entry, "reprfuncargs", None), "args", ())
            variables = getattr(getattr(entry, "reprlocals", None), "lines", ())
            if [name for name, _ in arguments[:2]] == ["_rt", "_m"]:
                entry.reprfuncargs = None
            if any(line.startswith("_rt ") for line in variables):
                entry.reprlocals = None


@pytest.fixture
def lockstep() -> Iterator[Any]:
    """Put lockstep in the place of numba.cuda for one test; the value is the module ``paged_numba.lockstep``."""
    from ... import lockstep as module

    with module.installed():
        yield module


@pytest.fixture
def cuda_or_lockstep() -> Iterator[Any]:
    """Return ``numba.cuda``; without a GPU, lockstep stands in its place for one test."""
    from ... import lockstep as module
    from ...targets import cuda_unavailable_reason

    with ExitStack() as stack:
        if cuda_unavailable_reason() is not None:
            stack.enter_context(module.installed())
        from numba import cuda

        yield cuda
