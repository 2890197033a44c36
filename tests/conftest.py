"""Hypothesis profiles, the browser and the packages that tests need, and why tests marked ``gpu`` are skipped."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from paged_numba import targets
from paged_numba.commands import doctor

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    # A machine with a GPU may have only Numba, NumPy and pytest: tests that need no Hypothesis run there.
    collect_ignore = [
        str(path)
        for path in Path(__file__).parent.rglob("test_*.py")
        if re.search(r"hypothesis|testing\.machines|testing\.strategies", path.read_text(encoding="utf-8"))
    ]
else:
    # The first example of a test may translate or compile a kernel, on a machine that is busy: no deadlines. Without
    # the blob that Hypothesis adds to failures on CI, lessons print there what they print elsewhere.
    for profile, max_examples in (("default", 40), ("thorough", 1000)):
        settings.register_profile(
            profile,
            max_examples=max_examples,
            deadline=None,
            print_blob=False,
            suppress_health_check=[HealthCheck.too_slow],
        )
    settings.load_profile("default")


@pytest.fixture(scope="module")
def browser():
    """Start Chromium by Playwright; each module stops its own, since other tests run event loops of theirs."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install '.[docs]' brings playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("apt-get install chromium, or name a Chromium by CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def cuda_compiler():
    """Skip if kernels cannot be compiled for a GPU; compiling needs no GPU."""
    found = doctor.compiler()
    if found != "found":
        pytest.skip(f"the CUDA compiler, which the cuda13 extra brings, is {found}")


def pytest_collection_modifyitems(items):
    reason = targets.cuda_unavailable_reason()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {reason}"))


def pytest_terminal_summary(terminalreporter):
    """Say why tests were skipped, a line for each reason."""
    skipped = terminalreporter.stats.get("skipped", ())
    for reason, count in Counter(report.longrepr[2] for report in skipped).most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
