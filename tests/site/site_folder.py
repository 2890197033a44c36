"""The built site, for its tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("SITE", ROOT / "docs" / "_build" / "html"))
"""The folder with the pages; the environment variable SITE names another one."""

PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if "_static" not in path.relative_to(SITE).parts
)
LESSONS = [name for name in PAGES if name.startswith("lessons/") and name != "lessons/index.html"]
EXERCISES = [name for name in PAGES if name.startswith("exercises/") and name != "exercises/index.html"]
EXHIBITS = [name for name in PAGES if name.startswith("museum/") and name != "museum/index.html"]

needs_site = pytest.mark.skipif(not PAGES, reason="build the site first: CONTRIBUTING.md has the command")
