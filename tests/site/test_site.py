"""The built site in a real browser: no console errors, no requests outside, nothing cut off or wider than the page."""

import re

import pytest
from reader import FAINT, NARROW, WIDE
from site_folder import EXERCISES, EXHIBITS, PAGES, needs_site

pytestmark = needs_site

API = [name for name in PAGES if name.startswith("api/") or name in ("genindex.html", "py-modindex.html")]
# Exercises, and exhibits, differ in their text alone: two are looked at in each way.
ALIKE = EXERCISES[2:] + EXHIBITS[2:]
READ = [name for name in PAGES if name not in API + ALIKE]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", READ)
def test_page(readers, name, theme):
    reader = readers(theme)
    reader.open(name)
    assert reader.complaints(WIDE) == []
    assert reader.complaints(NARROW) == []


@pytest.mark.parametrize("name", [*API, *ALIKE])
def test_page_of_the_api_or_alike(readers, name):
    reader = readers("light")
    reader.open(name, NARROW)
    assert reader.complaints(NARROW) == []


# The same checks on a page with a fault.

FAULTS = {
    "a line that is too wide": ("main p", "<div style='width: 2000px'>wide</div>", "is too wide"),
    "a word that is too wide for its frame": (
        "main p",
        f"<p style='overflow-wrap: normal'>{'x' * 200}</p>",
        "wide in",
    ),
    "text that its box cuts off": (
        "main p",
        f"<div style='overflow: hidden; white-space: nowrap'>{'word ' * 200}</div>",
        "is cut off",
    ),
    "an image from elsewhere": ("main p", "<img alt='' src='https://elsewhere.invalid/x.png'>", "outside: "),
    "a picture in the system's colours": (
        "main p",
        "<svg class='pn' width='9' height='9' style='fill: #000'><text class='title'>x</text></svg>",
        "a picture's title is rgb(0, 0, 0)",
    ),
    "a file that is missing": ("main p", "<img alt='' src='missing.png'>", "404: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(readers, fault):
    selector, planted, complaint = FAULTS[fault]
    reader = readers("dark")
    page = reader.open("glossary.html", NARROW)
    assert reader.complaints(NARROW) == []
    page.locator(selector).first.evaluate(
        "(element, html) => element.insertAdjacentHTML('afterend', html)", planted
    )
    page.wait_for_load_state("networkidle")
    assert any(complaint in one for one in reader.complaints(NARROW))


def test_an_error_in_a_script_is_noticed(readers):
    reader = readers("light")
    page = reader.open("glossary.html")
    page.evaluate("setTimeout(() => { throw new Error('planted') })")
    page.wait_for_timeout(50)
    assert any("planted" in one for one in reader.complaints(WIDE))


# What the pages do.


@pytest.mark.parametrize(
    ("term", "where"),
    [("slot mapping", "05 ·"), ("bank conflict", "10 ·"), ("LSE", "12 ·"), ("preemption", "15 ·")],
)
def test_search_finds_a_term_in_the_glossary_and_in_its_lesson(readers, term, where):
    reader = readers("light")
    page = reader.open(f"search.html?q={term.replace(' ', '+')}")
    page.wait_for_selector("ul.search li")
    page.wait_for_load_state("networkidle")
    found = page.locator("ul.search").inner_text()
    assert "Glossary" in found
    assert where in found
    assert reader.complaints(WIDE) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "name",
    [
        *(n for n in READ if re.match(r"lessons/0[37]|exer|museum|index|operations|profiling", n)),
        *API[:2],
    ],
)
def test_text_can_be_told_from_what_is_behind_it(readers, name, theme):
    assert readers(theme).open(name).evaluate(FAINT) == []


def test_faint_text_is_noticed(readers):
    page = readers("light").open("glossary.html")
    page.locator("main p").first.evaluate("element => { element.style.color = '#888' }")
    assert any(text.startswith("rgb(136, 136, 136): What do the") for text in page.evaluate(FAINT))


def test_all_pages_of_the_navigation_stand_in_one_row(readers):
    for width in 965, 1065, WIDE:
        page = readers("light").open("glossary.html", width)
        links = page.locator(".bd-header .bd-navbar-elements a")
        assert links.last.inner_text() == "Reference"
        assert links.last.is_visible()
        assert page.locator(".bd-header").evaluate("header => header.offsetHeight") < 100


RUNNING = "document.getAnimations().filter(animation => animation.playState == 'running').length"


def test_the_picture_of_the_start_page_moves_and_can_be_paused(readers):
    page = readers("light").open("index.html")
    assert page.evaluate(RUNNING) > 20
    page.locator(".pool-animation label").click()
    assert page.evaluate(RUNNING) == 0


def test_the_picture_of_the_start_page_is_still_for_those_who_ask_for_less_motion(readers):
    page = readers("light", motion="reduce").open("index.html")
    assert page.evaluate(RUNNING) == 0
    assert page.locator(".pool-animation text.name").first.is_visible()
