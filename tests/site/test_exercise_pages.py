"""Pages of exercises: one for each, with its notebook and its file; hints and solution stay folded until clicked."""

import json
import re
from html.parser import HTMLParser

import pytest
from site_folder import EXERCISES, SITE, needs_site

from paged_numba.exercises.catalogue import exercises

pytestmark = needs_site

ALL = exercises()


def by_name(exercise):
    return exercise.file_name.removesuffix(".py")


def page(exercise):
    return f"exercises/{by_name(exercise)}.html"


def text(name):
    return (SITE / name).read_text(encoding="utf-8")


def download(exercise, suffix):
    """Return the file to which the page's only link to a download of a kind leads."""
    (target,) = set(re.findall(rf'href="([^"]+{by_name(exercise)}\.{suffix})"', text(page(exercise))))
    return (SITE / page(exercise)).parent / target


def test_each_exercise_has_a_page_which_the_index_lists():
    assert [page(exercise) for exercise in ALL] == EXERCISES
    index = text("exercises/index.html")
    assert all(f'href="{by_name(exercise)}.html"' in index for exercise in ALL)


def test_the_index_shows_a_verdict_with_its_picture():
    shown = text("exercises/index.html").partition('<div class="pn-verdict">')[2]
    assert "FAILED" in shown
    assert 'class="pn-picture"' in shown
    assert "<mark>" in shown


class Folds(HTMLParser):
    """Collects the paragraphs and the code of a page, each with the number of closed folds around it."""

    def __init__(self, name):
        super().__init__()
        self.depth, self.inside, self.found = 0, None, {"p": [], "pre": []}
        self.feed(text(name))

    def handle_starttag(self, tag, attributes):
        self.depth += tag == "details" and "open" not in dict(attributes)
        if tag in self.found:
            self.inside = tag
            self.found[tag].append((self.depth, ""))

    def handle_endtag(self, tag):
        self.depth -= tag == "details"
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside:
            depth, before = self.found[self.inside].pop()
            self.found[self.inside].append((depth, before + data))


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_hints_are_folded_and_the_solution_is_folded_twice(exercise):
    found = Folds(page(exercise)).found
    for hint in exercise.task().hints:
        assert [depth for depth, shown in found["p"] if shown == hint] == [1]
    *others, (depth, solution) = found["pre"]
    assert depth == 2
    assert exercise.solution.rstrip().endswith(solution.rstrip())
    assert all(depth == 0 and solution != code for depth, code in others)


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_notebook_and_file_are_downloads(exercise):
    assert download(exercise, "py").read_text(encoding="utf-8") == exercise.skeleton
    notebook = json.loads(download(exercise, "ipynb").read_text(encoding="utf-8"))
    task, answer, check = ("".join(cell["source"]) for cell in notebook["cells"])
    assert task.startswith(f"# {exercise.number:02} · {exercise.title}\n")
    assert not re.search(r"^\s*\.\. |:\w+:`|``(?!`)(?<!```)|::$", task, re.M), task
    assert task.count("```") == 2 * exercise.statement.count("::\n")
    assert exercise.skeleton.rstrip().endswith(answer)
    assert check.endswith(f"exercises.check({exercise.number}, {exercise.task().answer})")
    nbformat = pytest.importorskip("nbformat", reason="pip install '.[docs]' brings nbformat")
    nbformat.validate(notebook)


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_exercise_and_lesson_link_to_each_other(exercise):
    lesson = f"lessons/{exercise.task().lesson}.html"
    assert f'href="../{lesson}"' in text(page(exercise))
    assert f'href="../{page(exercise)}"' in text(lesson)


@pytest.fixture(scope="module")
def opened(browser):
    """Return a function that opens a page of the site."""
    context = browser.new_context(viewport={"width": 360, "height": 900})
    shown = context.new_page()

    def open_page(name):
        shown.goto((SITE / name).as_uri())
        return shown

    yield open_page
    context.close()


@pytest.mark.parametrize("exercise", [ALL[0], ALL[-1]], ids=by_name)
def test_hints_and_solution_are_seen_after_clicks(opened, exercise):
    shown = opened(page(exercise))
    hints = shown.locator("#hints details")
    assert hints.count() == len(exercise.task().hints)
    for i in range(hints.count()):
        body = hints.nth(i).locator("p").last
        assert not body.is_visible()
        hints.nth(i).locator("summary").click()
        assert body.is_visible()
    solution, folds = shown.locator("#solution pre"), shown.locator("#solution summary")
    for i in range(2):
        assert not solution.is_visible()
        folds.nth(i).click()
    assert solution.is_visible()


def test_the_notebook_of_a_lesson_is_a_visible_download(opened):
    shown = opened("lessons/01_threads.html")
    assert shown.locator("a[download][href$='.ipynb']").is_visible()
