"""The notebooks of the site run to their end, each in a kernel of its own and in an empty folder.

Three of them, unless Hypothesis' profile is ``thorough``: then all.
"""

import importlib.util

import pytest
from hypothesis import settings
from site_folder import LESSONS, SITE, needs_site

from paged_numba.exercises.catalogue import exercises

THOROUGH = settings.default.max_examples > 100
SECONDS = 300
"""Most time for a cell, on a busy machine."""

missing = [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]
pytestmark = [
    needs_site,
    pytest.mark.skipif(bool(missing), reason="pip install '.[docs]' brings nbclient and ipykernel"),
]

BY_STEM = {exercise.file_name.removesuffix(".py"): exercise for exercise in exercises()}
FILES = sorted(SITE.glob("_downloads/*/*.ipynb"), key=lambda path: path.stem)
TO_READ = [path for path in FILES if path.stem not in BY_STEM]
TO_DO = [path for path in FILES if path.stem in BY_STEM]
if not THOROUGH:
    TO_READ = [path for path in TO_READ if path.stem == "01_threads"]
    TO_DO = TO_DO[:1]


def by_stem(path):
    return path.stem


def outputs(path, folder, answer=None):
    """Run a notebook, perhaps with an answer in it; return the HTML of each output that has some."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    if answer is not None:
        (cell,) = (cell for cell in notebook.cells if cell.get("id") == "answer")
        cell.source = answer
    nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    found = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return [output["data"]["text/html"] for output in found if "text/html" in output.get("data", {})]


def test_every_exercise_has_a_notebook():
    assert {path.stem for path in FILES} >= set(BY_STEM)


@pytest.mark.parametrize("path", TO_READ, ids=by_stem)
def test_a_lesson_or_exhibit_runs_to_its_end_and_shows_something(path, tmp_path):
    found = outputs(path, tmp_path)
    assert found
    if f"lessons/{path.stem}.html" in LESSONS:
        assert any("pn-picture" in html for html in found)


@pytest.mark.parametrize("path", TO_DO, ids=by_stem)
def test_a_skeleton_shows_the_failed_check(path, tmp_path):
    (html,) = outputs(path, tmp_path)
    assert "pn-verdict" in html
    assert "FAILED" in html


@pytest.mark.parametrize("path", TO_DO, ids=by_stem)
def test_a_solution_shows_a_pass(path, tmp_path):
    (html,) = outputs(path, tmp_path, BY_STEM[path.stem].solution)
    assert "pn-verdict" in html
    assert "FAILED" not in html
    assert "Done:" in html
