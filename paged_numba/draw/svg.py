"""SVG drawings: self-contained, and in the reader's light or dark mode."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# Okabe & Ito, "Color Universal Design", 2008: distinct in any kind of colour vision.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00")
"""Fills of owners, in order. A label or a hatching repeats what a colour says."""

_STYLE = """
.pn{--ink:#1a1a1a;--quiet:#767676;--paper:#fff;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){.pn{--ink:#e8e8e8;--quiet:#9a9a9a;--paper:#161616}}
.pn .bg{fill:var(--paper)}.pn text{fill:var(--ink);text-anchor:middle}.pn .q{fill:var(--quiet)}
.pn .left{text-anchor:start}.pn .right{text-anchor:end}.pn .title{font-weight:600;font-size:14px}.pn .on{fill:#000}
.pn .small{font-size:9px}
.pn .edge{stroke:var(--quiet);fill:none}.pn .line{stroke:var(--ink);fill:none}.pn .faint{opacity:.45}
.pn .halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
"""

HATCHINGS = 7
"""Number of hatchings: one for each colour."""


def owner_fill(number: int) -> str:
    """Return the fill of owner `number`: a colour for the first seven, then a hatching."""
    if number < len(COLOURS):
        return COLOURS[number]
    return f"url(#hatch{number % HATCHINGS})"


_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """Return a text as XML; a character that XML cannot hold, such as a control character, becomes its escape."""
    return html.escape(_NOT_IN_XML.sub(lambda found: ascii(found.group())[1:-1], text))


class Drawing:
    """Shapes on a page, in pixels; x grows to the right, y downwards."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "none",
        *,
        css: str = "edge",
        tip: str = "",
    ) -> None:
        """Add a rectangle; `tip` is its tooltip."""
        style = f' style="fill:{fill}"' if fill != "none" else ""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect {place} class="{css}"{style}>{inside}</rect>')

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, colour: str = "", css: str = "line"
    ) -> None:
        """Add a straight line."""
        style = f' style="stroke:{colour}"' if colour else ""
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"{style}/>'
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> None:
        """Add straight lines from point to point; `dash` is an SVG stroke-dasharray."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{places}" fill="none" stroke-width="1.8" stroke-linejoin="round" '
            f'stroke-linecap="round" style="stroke:{colour}"{dashes}/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
        """Add a curved arrow from one point down to another."""
        middle = (y1 + y2) / 2
        path = f"M{x1:.1f},{y1:.1f} C{x1:.1f},{middle:.1f} {x2:.1f},{middle:.1f} {x2:.1f},{y2 - 5:.1f}"
        head = f"M{x2 - 3.5:.1f},{y2 - 6:.1f} L{x2 + 3.5:.1f},{y2 - 6:.1f} L{x2:.1f},{y2:.1f} Z"
        self._parts.append(f'<path d="{path}" fill="none" stroke-width="1.6" style="stroke:{colour}"/>')
        self._parts.append(f'<path d="{head}" style="fill:{colour}"/>')

    def circle(
        self, x: float, y: float, radius: float, fill: str, *, css: str = "edge", tip: str = ""
    ) -> None:
        """Add a circle; `tip` is its tooltip."""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        style = f' style="fill:{fill}"' if fill else ""
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{css}"{style}>{inside}</circle>'
        )

    def text(self, x: float, y: float, text: str, css: str = "") -> None:
        """Add a line of text, centred at `x` unless `css` says ``left`` or ``right``."""
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{css}">{escape(text)}</text>')

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
        """Add swatches (fill, meaning) in rows as wide as the drawing; enlarge the drawing if they do not fit."""
        left = x
        for fill, meaning in entries:
            width = 32 + 6.4 * len(meaning)
            if x > left and x + width > self.width:
                x, y = left, y + 18
            self.rect(x, y, 14, 12, fill)
            self.text(x + 19, y + 10, meaning, "left")
            x += width
            self.width = max(self.width, x)
        self.height = max(self.height, y + 24)

    def __str__(self) -> str:
        # Hatchings repeat what colours say, and serve the owners beyond the last colour.
        hatches = "".join(
            f'<pattern id="hatch{i}" width="6" height="6" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate({angle})"><rect width="6" height="6" style="fill:{COLOURS[i]}"/>'
            f'<path d="M0,0 V6" stroke="#000" stroke-width="1.6"/></pattern>'
            for i, angle in enumerate((45, 45, 90, 135, 30, 60, 120))
        )
        size = f'width="{self.width:.0f}" height="{self.height:.0f}" style="max-width:100%;height:auto"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="pn" viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
            f'{size} role="img" aria-label="{escape(self.title)}"><style>{_STYLE}</style><defs>{hatches}</defs>'
            f'<rect width="100%" height="100%" class="bg"/>'
            f'<text x="16" y="24" class="left title">{escape(self.title)}</text>{"".join(self._parts)}</svg>'
        )
