"""What stands where in a picture: boxes of its texts, rectangles and arrows, read from its SVG."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from paged_numba.draw.letters import text_width
from paged_numba.draw.svg import measure, size_of

# Pages around an output, and whether their colours are dark; None if the system's preference decides.
PAGES = [
    ("<html><body>", None),
    ('<html data-theme="light"><body>', False),
    ('<html data-theme="dark"><body>', True),
    ('<html><body data-jp-theme-light="true">', False),
    ('<html><body data-jp-theme-light="false">', True),
    ('<html><body class="vscode-light">', False),
    ('<html><body class="vscode-dark">', True),
]


def elements(picture, tag):
    """Return the elements of a kind; the picture's XML must be well-formed."""
    return [element for element in ET.fromstring(picture.svg()).iter() if element.tag.endswith(f"}}{tag}")]


def texts(picture):
    """Return the texts in a picture, cut ones whole, as in their tooltips."""
    return [(list(element) or [element])[0].text for element in elements(picture, "text")]


@dataclass(frozen=True)
class Box:
    """A rectangle, and the text in it."""

    left: float
    top: float
    right: float
    bottom: float
    text: str = ""

    def holds(self, other):
        """Tell whether another box lies within this one, or sticks out by less than can be seen."""
        return (
            self.left - 0.6 <= other.left
            and other.right <= self.right + 0.6
            and self.top - 0.6 <= other.top
            and other.bottom <= self.bottom + 0.6
        )

    def meets(self, other):
        """Tell whether two boxes overlap by more than half a pixel."""
        return (
            self.left + 0.5 < other.right
            and other.left + 0.5 < self.right
            and self.top + 0.5 < other.bottom
            and other.top + 0.5 < self.bottom
        )

    def contains(self, x, y):
        return self.left + 0.6 < x < self.right - 0.6 and self.top + 0.6 < y < self.bottom - 0.6


def view(picture):
    (svg,) = elements(picture, "svg")
    return Box(*map(float, svg.get("viewBox").split()))


def text_boxes(picture):
    """Return the box of each text, by the estimate of its width."""
    found = []
    for element in elements(picture, "text"):
        css = element.get("class", "")
        x, y, width = float(element.get("x")), float(element.get("y")), text_width(element.text, measure(css))
        anchor = element.get("text-anchor", "middle")
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        size = size_of(css)
        found.append(Box(left, y - 0.75 * size, left + width, y + 0.2 * size, element.text))
    return found


def rectangles(picture):
    """Return the boxes of all rectangles, without the background and the plates behind texts."""
    found = []
    for element in elements(picture, "rect"):
        if element.get("width") != "100%" and element.get("pointer-events") is None:
            x, y, width, height = (float(element.get(name)) for name in ("x", "y", "width", "height"))
            found.append(Box(x, y, x + width, y + height))
    return found


def arrows(picture):
    """Return points along each arrow, a few pixels apart."""
    found = []
    for element in elements(picture, "path"):
        path = element.get("d")
        if element.get("stroke-width") != "1.6":
            continue
        (x, y), points = map(float, re.match(r"M([-\d.]+),([-\d.]+)", path).groups()), []
        for command, numbers in re.findall(r"([VC])([-\d., ]+)", path):
            ends = [float(number) for number in re.findall(r"[-\d.]+", numbers)]
            x1, y1, x2, y2, to_x, to_y = [x, y, x, ends[0], x, ends[0]] if command == "V" else ends
            for step in range(1, 25):
                t, s = step / 24, 1 - step / 24
                weights = s**3, 3 * s * s * t, 3 * s * t * t, t**3
                points.append(
                    tuple(
                        sum(w * p for w, p in zip(weights, places, strict=True))
                        for places in ((x, x1, x2, to_x), (y, y1, y2, to_y))
                    )
                )
            x, y = to_x, to_y
        found.append(points)
    return found
