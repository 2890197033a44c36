"""`Reader`: opens pages of the built site in a real browser, and says what is wrong with them."""

import re

WIDE, NARROW = 1280, 360

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
