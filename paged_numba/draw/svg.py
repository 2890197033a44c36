"""SVG drawings: self-contained, and in the reader's light or dark mode.

Every shape has presentation attributes, so that programs other than browsers draw it as in light mode. In a browser
the style sheet overrides the colours of text, lines and paper.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .letters import fitted, text_width
from .theme import themed

# Okabe & Ito, "Color Universal Design", 2008: distinct in any kind of colour vision.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00")
"""Colours of owners, in order. A label or a hatching repeats what a colour says."""

HATCHINGS = 7
"""Number of hatchings; the first is none."""

INK, QUIET, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"
TITLE_SIZE, SIZE, SMALL_SIZE = 14, 12, 10

# Programs that do not know variables skip the whole of an @supports rule.
_LIGHT = f"--ink:{INK};--quiet:{QUIET};--paper:{PAPER}"
_DARK = "--ink:#e8e8e8;--quiet:#a0a0a0;--paper:#161616"
_STYLE = (
    "@supports(fill:var(--ink)){"
    f"{themed('.pn', _LIGHT, _DARK)}"
    ".pn{fill:var(--ink);max-width:100%;height:auto}"
    ".pn .bg{fill:var(--paper)}.pn .ink{fill:var(--ink)}.pn .q{fill:var(--quiet)}"
    ".pn .edge{stroke:var(--quiet)}.pn .line{stroke:var(--ink)}"
    f".pn .small{{font-size:{SMALL_SIZE}px}}"  # pages have a class of this name, too
    ".pn .pick:hover>g:not(:hover),.pn .pick:focus-within>g:not(:focus){opacity:.15}"
    ".pn .pick>g:focus:not(:focus-visible){outline:none}"
    ".pn .many>g:hover .arrow,.pn .many>g:focus .arrow{visibility:visible}"
    "}"
)
_ATTRIBUTES = {
    "bg": f' fill="{PAPER}"',
    "ink": f' fill="{INK}"',
    "q": f' fill="{QUIET}"',
    "edge": f' stroke="{QUIET}"',
    "line": f' stroke="{INK}"',
    "faint": ' opacity=".45"',
    "left": ' text-anchor="start"',
    "right": ' text-anchor="end"',
    "title": f' font-size="{TITLE_SIZE}" font-weight="600"',
    "strong": ' font-weight="600"',
    "small": f' font-size="{SMALL_SIZE}"',
}


@dataclass(frozen=True)
class Look:
    """A fill: a colour, and the number of the hatching on it.

    Attributes
    ----------
    colour : str
    hatching : int
        0 for none.
    """

    colour: str
    hatching: int = 0

    @property
    def ink(self) -> str:
        """Black or white, whichever differs more from the colour."""
        return "#000" if (_luminance(self.colour) + 0.05) ** 2 > 0.05 * 1.05 else "#fff"

    @property
    def stroke(self) -> str:
        """The colour or, if that is too light for a line on white, a darker one."""
        share = min(1.0, 0.7 / (0.3 + _luminance(self.colour)))
        return "#" + "".join(f"{int(int(self.colour[i : i + 2], 16) * share):02x}" for i in (1, 3, 5))


def _luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2: 0 for black, 1 for white."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(part * weight for part, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


SHARED = Look("#bdbdbd", HATCHINGS - 1)
"""Look of what several owners share; no owner is grey."""


def look_of(number: int) -> Look:
    """Return the look of owner `number`: 49 differ, in 7 colours with 7 hatchings.

    Examples
    --------
    >>> look_of(0), look_of(8)
    (Look(colour='#56b4e9', hatching=0), Look(colour='#e69f00', hatching=1))
    """
    return Look(COLOURS[number % len(COLOURS)], number // len(COLOURS) % HATCHINGS)


_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """Return a text as XML; a character that XML cannot hold, such as a control character, becomes its escape."""
    return html.escape(_NOT_IN_XML.sub(lambda found: ascii(found.group())[1:-1], text))


def size_of(css: str) -> int:
    """Return the size of letters, in pixels, for the classes of a text."""
    classes = css.split()
    return SMALL_SIZE if "small" in classes else TITLE_SIZE if "title" in classes else SIZE


def measure(css: str) -> float:
    """Return the size to measure a text with: bold letters are as wide as larger ones."""
    return size_of(css) * (1.15 if {"strong", "title"}.intersection(css.split()) else 1.0)


class Drawing:
    """Shapes on a page, in pixels; x grows to the right, y downwards.

    `css` of a shape holds words of this list, separated by spaces. Lines and edges: ``line`` (in the colour of text),
    ``edge`` (grey), ``faint``. Texts: ``left`` and ``right`` (else centred), ``q`` (grey), ``small``, ``strong``.
    """

    def __init__(self, width: float, height: float, title: str, description: str = "") -> None:
        # Wide enough for all of a title that is not very long.
        self.width = max(width, min(text_width(title, measure("title")) + 30, 600))
        self.height, self.title, self.description = height, title, description
        self._parts: list[str] = []
        self._can_focus = False

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str | Look = "none",
        *,
        css: str = "edge",
        tip: str = "",
    ) -> None:
        """Add a rectangle; `tip` is its tooltip."""
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self._parts.append(f"<rect {place}{_attributes(css, fill)}>{_tooltip(tip)}</rect>")
        if isinstance(fill, Look) and fill.hatching:
            lines = _hatching(fill.hatching, x, y, x + width, y + height)
            self._parts.append(
                f'<path d="{lines}" fill="none" stroke="{fill.ink}" stroke-opacity=".6" pointer-events="none"/>'
            )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, colour: str = "", css: str = "line"
    ) -> None:
        """Add a straight line."""
        place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self._parts.append(f"<line {place}{_stroke(css, colour)}/>")

    def path(self, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> None:
        """Add straight lines from point to point; `dash` is an SVG stroke-dasharray."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{places}" fill="none" stroke-width="1.8" stroke-linejoin="round" '
            f'stroke-linecap="round" stroke="{colour}"{dashes}/>'
        )

    def area(self, points: Sequence[tuple[float, float]], fill: str, *, css: str = "line") -> None:
        """Add a filled polygon."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polygon points="{places}"{_attributes(css, fill)}/>')

    def arrow(self, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
        """Add a curved arrow from one point down to another."""
        self.route([(x1, y1), (x2, y2)], colour)

    def route(self, points: Sequence[tuple[float, float]], colour: str = "", css: str = "line") -> None:
        """Add an arrow downwards through points; between two points it curves, and it passes each vertically."""
        path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
        (*_, (x, y)) = points
        for (x1, y1), (x2, y2) in zip(points, [*points[1:-1], (x, y - 5)], strict=False):
            middle = (y1 + y2) / 2
            curve = f"C{x1:.1f},{middle:.1f} {x2:.1f},{middle:.1f} {x2:.1f},{y2:.1f}"
            path += f"V{y2:.1f}" if x1 == x2 else curve
        head = f"M{x - 3.5:.1f},{y - 6:.1f} L{x + 3.5:.1f},{y - 6:.1f} L{x:.1f},{y:.1f} Z"
        self._parts.append(f'<path d="{path}" fill="none" stroke-width="1.6"{_stroke(css, colour)}/>')
        fill = f' fill="{colour}"' if colour else _attributes("ink")
        self._parts.append(f'<path d="{head}"{fill}/>')

    def circle(
        self, x: float, y: float, radius: float, fill: str, *, css: str = "edge", tip: str = ""
    ) -> None:
        """Add a circle; `tip` is its tooltip."""
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
        self._parts.append(f"<circle {place}{_attributes(css, fill or 'none')}>{_tooltip(tip)}</circle>")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        css: str = "",
        *,
        room: float | None = None,
        on: str | Look = "none",
        tip: str = "",
    ) -> None:
        """Add a line of text, centred at `x` unless `css` says ``left`` or ``right``.

        Parameters
        ----------
        x, y : float
            `y` is that of the foot of the letters.
        text, css : str
        room : float, optional
            The text is cut with an ellipsis to be no wider; its tooltip is then the whole text.
        on : str or Look
            Fill behind the text. A look chooses black or white, and puts a plate between hatching and text.
        tip : str
            Tooltip.
        """
        size = size_of(css)
        shown = text if room is None else fitted(text, room, measure(css), middle="title" not in css)
        if not shown:
            return
        colour = ""
        if isinstance(on, Look):
            colour = f' fill="{on.ink}"'
            css = " ".join(word for word in css.split() if word != "q")
            if on.hatching:
                width = text_width(shown, measure(css)) + 2
                left = x - (0 if "left" in css.split() else width if "right" in css.split() else width / 2)
                plate = (
                    f'x="{left:.1f}" y="{y - 0.85 * size:.1f}" width="{width:.1f}" height="{1.1 * size:.1f}"'
                )
                self._parts.append(f'<rect {plate} fill="{on.colour}" pointer-events="none"/>')
        tip = tip or (text if shown != text else "")
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}"{_attributes(css)}{colour}>{escape(shown)}{_tooltip(tip)}</text>'
        )

    def steps(self, left: float, y: float, step: float, numbers: Sequence[int], css: str) -> None:
        """Add a row of numbers, each in the middle of a step; leave out those that would touch their neighbours."""
        widest = max((text_width(str(number), measure(css)) for number in numbers), default=0.0)
        every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if n * step >= widest + 3)
        for place, number in enumerate(numbers):
            if place % every == 0:
                self.text(left + step * (place + 0.5), y, str(number), css)

    @contextmanager
    def group(self, css: str = "", label: str = "", attributes: str = "") -> Iterator[None]:
        """Put the shapes that are added inside into a group; one with a label can be reached by the tab key."""
        focus = f' tabindex="0" role="img" aria-label="{escape(label)}"' if label else ""
        self._can_focus = self._can_focus or bool(label)
        self._parts.append(f"<g{_attributes(css)}{focus}{attributes}>")
        yield
        self._parts.append("</g>")

    def legend(self, x: float, y: float, entries: Sequence[tuple[str | Look, str]]) -> None:
        """Add swatches (fill, meaning) in rows as wide as the drawing, which grows downwards; cut what is too long."""
        left, end = x, self.width - 12
        for fill, meaning in entries:
            shown = fitted(meaning, end - left - 19)
            width = 19 + text_width(shown)
            if x > left and x + width > end:
                x, y = left, y + 18
            self.rect(x, y, 14, 12, fill)
            self.text(x + 19, y + 10, meaning, "left", room=text_width(shown))
            x += width + 14
        self.height = max(self.height, y + 24)

    def __str__(self) -> str:
        size = f'width="{self.width:.0f}" height="{self.height:.0f}"'
        seen = self.description or self.title
        role = "group" if self._can_focus else "img"
        heading = Drawing(self.width, 0, "")
        heading.text(16, 24, self.title, "left title", room=self.width - 28)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="pn" viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
            f'{size} role="{role}" aria-label="{escape(seen)}" '
            f'fill="{INK}" font-family="system-ui,sans-serif" font-size="{SIZE}" text-anchor="middle">'
            f"<desc>{escape(seen)}</desc><style>{_STYLE}</style>"
            f'<rect width="100%" height="100%"{_attributes("bg")}/>{"".join(heading._parts + self._parts)}</svg>'
        )


def _attributes(css: str, fill: str | Look = "") -> str:
    """Return the attribute `class`, and what programs without a style sheet need."""
    name = f' class="{css}"' if css else ""
    colour = fill.colour if isinstance(fill, Look) else fill
    attributes = "".join(_ATTRIBUTES.get(word, "") for word in css.split())
    return name + attributes + (f' fill="{colour}"' if colour else "")


def _stroke(css: str, colour: str) -> str:
    if not colour:
        return _attributes(css)
    rest = " ".join(word for word in css.split() if word not in ("line", "edge"))
    return f'{_attributes(rest)} stroke="{colour}"'


def _tooltip(tip: str) -> str:
    return f"<title>{escape(tip)}</title>" if tip else ""


def _hatching(kind: int, x0: float, y0: float, x1: float, y1: float) -> str:
    """Return the lines of a hatching within a rectangle, as an SVG path.

    They are lines of their own, since a pattern needs an id, which would have to be unique in a page.
    """
    rising, falling, level, upright = {
        1: (1, 0, 0, 0),
        2: (0, 1, 0, 0),
        3: (0, 0, 1, 0),
        4: (0, 0, 0, 1),
        5: (1, 1, 0, 0),
        6: (0, 0, 1, 1),
    }[kind]
    lines = []
    if upright:
        lines += [(x, y0, x, y1) for x in _steps(x0, x1, 5)]
    if level:
        lines += [(x0, y, x1, y) for y in _steps(y0, y1, 5)]
    if rising:
        for c in _steps(x0 + y0, x1 + y1, 7):
            lines.append((max(x0, c - y1), min(y1, c - x0), min(x1, c - y0), max(y0, c - x1)))
    if falling:
        for c in _steps(x0 - y1, x1 - y0, 7):
            lines.append((max(x0, c + y0), max(y0, x0 - c), min(x1, c + y1), min(y1, x1 - c)))
    return "".join(f"M{a:.1f},{b:.1f}L{c:.1f},{d:.1f}" for a, b, c, d in lines)


def _steps(low: float, high: float, step: int) -> list[float]:
    """Return the multiples of `step` strictly between two numbers, or their middle if there is none."""
    first = int(low // step) + 1
    return [float(step * k) for k in range(first, int(-(-high // step)))] or [(low + high) / 2]
