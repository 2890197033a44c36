"""The built site in a real browser: no console errors, no requests outside, nothing cut off or wider than the page."""

import functools
import http.server
import re
import threading

import pytest
from site_folder import EXERCISES, EXHIBITS, PAGES, SITE, needs_site

pytestmark = needs_site

WIDE, NARROW = 1280, 360
API = [name for name in PAGES if name.startswith("api/") or name in ("genindex.html", "py-modindex.html")]
# Exercises, and exhibits, differ in their text alone: two are looked at in each way.
ALIKE = EXERCISES[2:] + EXHIBITS[2:]
READ = [name for name in PAGES if name not in API + ALIKE]

# What a reader cannot see. A box that scrolls by itself may hold more than it shows, unless it frames the page: the
# theme hides what is too wide for its containers, so the width of the document says nothing.
CUT_OFF = """() => {
    const frame = 'html, body, main, .bd-content, .bd-main, .bd-article-container, .bd-container, .bd-container__inner';
    const wide = element => element.getBoundingClientRect().right > innerWidth + 1;
    const style = element => getComputedStyle(element);
    const scrolled = element => {
        for (let box = element.parentElement; box; box = box.parentElement)
            if (['auto', 'scroll'].includes(style(box).overflowX) && !box.matches(frame) && !wide(box)) return true;
        return false;
    };
    const name = element => `${element.tagName}.${element.getAttribute('class')} "${element.textContent.slice(0, 40)}"`;
    const shown = [...document.querySelectorAll('body *')].filter(element => element.checkVisibility()
        && !element.closest('dialog, .bd-sidebar-primary, .bd-sidebar-secondary, .visually-hidden, svg *'));
    return [
        ...[...document.querySelectorAll('html, .bd-article-container')]
            .filter(box => box.scrollWidth > box.clientWidth + 1)
            .map(box => `${box.tagName} is ${box.scrollWidth} wide in ${box.clientWidth}`),
        ...shown.filter(element => wide(element) && !scrolled(element)).map(element => `${name(element)} is too wide`),
        ...shown.filter(element => ['hidden', 'clip'].includes(style(element).overflowX) && element.clientWidth > 1
            && element.scrollWidth > element.clientWidth + 1 && style(element).textOverflow != 'ellipsis'
            && !element.matches(frame))
            .map(element => `${name(element)} is cut off`),
    ];
}"""


# The colours of the pictures' titles.
INKS = "[...document.querySelectorAll('svg.pn text.title')].map(title => getComputedStyle(title).fill)"


def brightness(colour):
    """Return the mean of red, green and blue, 0 to 255."""
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.fixture(scope="session")
def address():
    """Serve the site over HTTP: from files, the search may not fetch its index."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


class Reader:
    """Opens pages in one theme, and collects what goes wrong on each."""

    def __init__(self, browser, address, theme, motion="no-preference"):
        self.address, self.theme, self.wrong = address, theme, []
        # A theme that is not the system's: else a page that follows the system alone would pass.
        system = "dark" if theme == "light" else "light"
        self.context = browser.new_context(color_scheme=system, reduced_motion=motion)
        self.context.add_init_script(
            f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')"
        )
        self.context.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page = self.page = self.context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(m.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("response", lambda r: r.status >= 400 and self.wrong.append(f"{r.status}: {r.url}"))
        page.on("request", lambda r: self.inside(r.url) or self.wrong.append(f"outside: {r.url}"))

    def inside(self, url):
        return url.startswith((self.address, "data:", "blob:"))

    def open(self, name, width=WIDE):
        """Open a page, and all that is folded on it."""
        self.wrong.clear()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.goto(self.address + name)
        self.page.evaluate("document.querySelectorAll('main details').forEach(fold => { fold.open = true })")
        return self.page

    def complaints(self, width):
        """Return what is wrong with the open page."""
        self.page.set_viewport_size({"width": width, "height": 900})
        chosen = self.page.evaluate("document.documentElement.dataset.theme")
        wrong_theme = [] if chosen == self.theme else [f"the theme is {chosen}"]
        wrong_ink = [
            f"a picture's title is {ink}"
            for ink in self.page.evaluate(INKS)
            if (brightness(ink) > 128) != (self.theme == "dark")
        ]
        return [*wrong_theme, *wrong_ink, *self.page.evaluate(CUT_OFF), *self.wrong]


@pytest.fixture(scope="module")
def readers(browser, address):
    """Return a function that gives the reader of a theme; one serves all tests."""
    made = {}

    def reader(theme, **options):
        key = (theme, *options.items())
        if key not in made:
            made[key] = Reader(browser, address, theme, **options)
        return made[key]

    yield reader
    for one in made.values():
        one.context.close()


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


# The ratios of the Web Content Accessibility Guidelines 2.2, level AA.
FAINT = """() => {
    const part = x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b) + .05;
    const parse = colour => colour.match(/[\\d.]+/g).map(Number);
    const behind = box => {
        for (; box; box = box.parentElement) {
            const [r, g, b, alpha = 1] = parse(getComputedStyle(box).backgroundColor);
            if (alpha == 1) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = new Set();
    while (texts.nextNode()) {
        const text = texts.currentNode.textContent.trim(), box = texts.currentNode.parentElement;
        if (!text || !box.checkVisibility() || box.closest('svg, dialog, script, style')) continue;
        const style = getComputedStyle(box), size = parseFloat(style.fontSize);
        const [dark, bright] = [light(parse(style.color)), light(behind(box))].sort((a, b) => a - b);
        const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
        if (bright / dark < (large ? 3 : 4.5)) faint.add(`${style.color}: ${text.slice(0, 30)}`);
    }
    return [...faint];
}"""


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
