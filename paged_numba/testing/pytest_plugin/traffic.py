"""``pytest --profile-kernels`` and ``--traffic-baseline``: memory traffic by test and kernel, saved and compared."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ...draw.text import plural
from ...lockstep.observe.observer import observing
from .counting import KernelCounts, Traffic, growth
from .traffic_file import BaselineError, read, write

_BASELINE = "paged_numba_baseline"
_SECTION = "memory traffic of kernels"


class TrafficPlugin:
    """Counts the traffic of each test; compares it with a baseline; saves it.

    With pytest-xdist, each worker compares its tests, and the main process saves the counts that come with the
    workers' reports.

    Parameters
    ----------
    config : pytest.Config
    """

    def __init__(self, config: pytest.Config) -> None:
        self.file = _absolute(config, config.option.paged_numba_profile)
        if self.file is not None and (self.file.is_dir() or not self.file.parent.is_dir()):
            # Now, not after all tests.
            raise pytest.UsageError(
                f"--profile-kernels {config.option.paged_numba_profile}: must name a file in a folder that exists"
            )
        baseline_file = _absolute(config, config.option.paged_numba_baseline)
        self.baseline_name = config.option.paged_numba_baseline
        self.is_worker = hasattr(config, "workerinput")
        self.baseline: Traffic | None = None
        if self.is_worker:
            self.baseline = getattr(config, "workerinput", {}).get(_BASELINE)
        elif baseline_file is not None:
            self.baseline = _read(
                baseline_file, f"--traffic-baseline {self.baseline_name}", "--profile-kernels writes it"
            )
        self.kept: Traffic = {}
        if self.file is not None and not self.is_worker and self.file.exists():
            option = f"--profile-kernels {config.option.paged_numba_profile}"
            self.kept = _read(self.file, option, "delete it, or name another file")
        self.counts: KernelCounts | None = None
        self.in_call = False
        self.failed_part = False
        self.traffic: Traffic = {}
        self.failed: set[str] = set()
        self.ran: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker of pytest-xdist the baseline."""
        node.workerinput[_BASELINE] = self.baseline

    # Counting.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Count the launches of the test's fixtures."""
        self.counts = KernelCounts()
        with observing(self.counts):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Leave out the launches of fixtures that other tests use too: which test runs them depends on the order."""
        if self.counts is None or fixturedef.scope == "function":
            return (yield)
        with _paused(self.counts):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Count the launches of the test; fail it if it moves more than before."""
        counts = self.counts or KernelCounts()
        self.in_call, self.failed_part = True, False
        try:
            with observing(counts):
                result = yield
        finally:
            self.in_call = False
        if self.baseline is not None:
            grown = growth(self.baseline.get(item.nodeid, {}), counts.kernels)
            if grown:
                item.stash[_GREW] = True
                pytest.fail(
                    f"{_SECTION} has grown since {self.baseline_name}:\n\n" + "\n".join(grown) + "\n\n"
                    f"If it should, write a new baseline: pytest --profile-kernels {self.baseline_name}",
                    pytrace=False,
                )
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
        """Attach the counts to the report of the call, which pytest-xdist sends to the main process."""
        report = yield
        if self.in_call:  # of a subtest
            self.failed_part |= call.excinfo is not None
        elif call.when == "call" and self.counts is not None:
            complete = (call.excinfo is None or item.stash.get(_GREW, False)) and not self.failed_part
            report.paged_numba_traffic = self.counts.kernels if complete else None
            self.counts = None
        return report

    # Saving.

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect the counts of a test."""
        if report.when != "call" or not hasattr(report, "paged_numba_traffic"):
            return
        self.ran.add(report.nodeid)
        if report.paged_numba_traffic is None:
            self.failed.add(report.nodeid)
        elif report.paged_numba_traffic:
            self.traffic[report.nodeid] = report.paged_numba_traffic

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Save the counts; keep those of tests that did not run or have failed."""
        self.kept = {name: counts for name, counts in self.kept.items() if name not in self.ran - self.failed}
        if self.file is not None and not self.is_worker and not session.config.option.collectonly:
            write(self.file, self.kept | self.traffic)

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Say what was saved, and which tests and kernels are new or gone."""
        lines = []
        if self.file is not None and not config.option.collectonly:
            lines.append(f"wrote the traffic of {plural(len(self.traffic), 'test')} to {self.file}")
            if self.failed:
                lines.append(f"without {plural(len(self.failed), 'test')} that failed")
            if self.kept:
                lines.append(
                    f"kept what it held of {plural(len(self.kept), 'test')} that failed or did not run"
                )
        if self.baseline is not None:
            lines += self._differences(self.baseline)
        if lines:
            terminalreporter.section(_SECTION)
            for line in lines:
                terminalreporter.line(line)

    def _differences(self, baseline: Traffic) -> list[str]:
        lines = []
        new = sorted(set(self.traffic) - set(baseline))
        lines += [f"new, not in {self.baseline_name}: {name}" for name in new]
        for name in sorted(set(self.traffic) & set(baseline)):
            now, before = set(self.traffic[name]), set(baseline[name])
            lines += [f"new kernel in {name}: {kernel}" for kernel in sorted(now - before)]
            lines += [f"kernel gone from {name}: {kernel}" for kernel in sorted(before - now)]
        for name in sorted((set(baseline) & self.ran) - set(self.traffic) - self.failed):
            lines.append(f"all kernels gone from {name}")
        gone = sorted(set(baseline) - self.ran)
        lines += [f"in {self.baseline_name}, but did not run: {name}" for name in gone[:_MOST_GONE]]
        if len(gone) > _MOST_GONE:
            lines.append(f"… and {plural(len(gone) - _MOST_GONE, 'test')} more")
        if not lines:
            lines.append(f"the same tests and kernels as in {self.baseline_name}")
        return lines


_GREW = pytest.StashKey[bool]()
_MOST_GONE = 20


def _absolute(config: pytest.Config, name: str | None) -> Path | None:
    return None if not name else config.invocation_params.dir / name


def _read(file: Path, option: str, remedy: str) -> Traffic:
    try:
        return read(file)
    except BaselineError as error:
        raise pytest.UsageError(f"{option}: {error}; {remedy}") from None


@contextmanager
def _paused(counts: KernelCounts) -> Generator[None, None, None]:
    before, counts.paused = counts.paused, True
    try:
        yield
    finally:
        counts.paused = before
