"""``pytest --sanitize``: fails the tests whose kernels have findings, and shows them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from ...draw.text import plural
from ...lockstep import sanitizing

_SECTION = "findings of the sanitizer"


class SanitizePlugin:
    """Sanitizes each phase of a test: setup, call and teardown."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Sanitize the launches of fixtures."""
        return (yield from _sanitized(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Sanitize the launches of the test."""
        return (yield from _sanitized(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Sanitize the launches of the ends of fixtures."""
        return (yield from _sanitized(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Show the findings of a test that failed for another reason."""
        report = yield
        text = item.stash.get(_UNSHOWN, None)
        if text is not None:
            del item.stash[_UNSHOWN]
            if report.failed and _SECTION not in str(report.longrepr):
                report.sections.append((_SECTION, text))
        return report


_UNSHOWN = pytest.StashKey[str]()


def _sanitized(item: pytest.Item) -> Generator[None, Any, Any]:
    with sanitizing() as findings:
        try:
            result = yield
        finally:
            if findings.errors:
                text = "\n\n".join(map(str, findings.errors))
                if findings.gaps:
                    text += "\n\n" + "; ".join(findings.gaps)
                item.stash[_UNSHOWN] = text
    if findings.errors:
        pytest.fail(
            f"{_SECTION}: {plural(len(findings.errors), 'kind')} of error\n\n{item.stash[_UNSHOWN]}",
            pytrace=False,
        )
    return result
