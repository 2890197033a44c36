"""Line charts, one under the other: quantities over time, or over a size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .svg import COLOURS, Drawing, Picture

# Yellow is too faint for a line.
LINE_COLOURS = ("var(--ink)", *(colour for colour in COLOURS if colour != "#f0e442"))
DASHES = ("6 3", "2 3", "9 3 2 3")

LEFT, TOP, WIDTH, HEIGHT, GAP, LEGEND = 64, 64, 560, 200, 84, 170


@dataclass(frozen=True)
class Line:
    """Points in the order of x; y is None where there is nothing to show.

    Attributes
    ----------
    name : str
    points : sequence of (float, float or None)
    dashed, marks : bool
        Drawn with dashes; with a dot at each point.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False
    marks: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one pair of axes; a logarithmic axis shows positive values only."""

    title: str
    x_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Lines(Picture):
    """Charts, one under the other.

    Examples
    --------
    >>> import paged_numba as pn
    >>> line = pn.draw.Line("x * x", [(0, 0), (1, 1), (2, 4)])
    >>> pn.draw.Lines("Powers", [pn.draw.Chart("Squares", "x", [line])]).svg()[:4]
    '<svg'
    """

    title: str
    charts: Sequence[Chart]

    def draw(self) -> Drawing:
        """Return the picture."""
        height = TOP + len(self.charts) * (HEIGHT + GAP)
        drawing = Drawing(LEFT + WIDTH + LEGEND, height, self.title)
        for place, chart in enumerate(self.charts):
            _draw(drawing, chart, TOP + place * (HEIGHT + GAP))
        return drawing


class _Axis:
    """Where values lie between 0 and 1 along an axis, and its ticks."""

    def __init__(self, values: Sequence[float], log: bool, from_zero: bool) -> None:
        self.log = log
        shown = [value for value in values if value > 0 or not log] or [1.0]
        low, high = min(shown), max(shown)
        if log:
            first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
            last = max(last, first + 1)
            self.ticks = [10.0**power for power in range(first, last + 1)]
        else:
            low = min(low, 0.0) if from_zero else low
            self.ticks = _ticks(low, high if high > low else low + 1)
            if not from_zero:
                # Time ends where it ends, not at a round number.
                self.ticks = [tick for tick in self.ticks if low <= tick <= high] or [low]
        self.low = self.ticks[0] if log or from_zero else low
        self.high = self.ticks[-1] if log or from_zero else max(high, low + 1e-9)

    def place(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, 4 to 8 of them, from one not above `low` to one not below `high`."""
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [step * n for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _number(value: float) -> str:
    """Return a tick's label.

    >>> _number(0.01), _number(250.0), _number(13_107_200.0)
    ('0.01', '250', '13.1 M')
    """
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value:,.6g}"


def _draw(drawing: Drawing, chart: Chart, top: float) -> None:
    points = [(x, y) for line in chart.lines for x, y in line.points if y is not None]
    x_axis = _Axis([x for x, _ in points], chart.log_x, from_zero=False)
    y_axis = _Axis([y for _, y in points], chart.log_y, from_zero=True)
    bottom = top + HEIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + WIDTH * x_axis.place(x), bottom - HEIGHT * y_axis.place(y)

    drawing.text(LEFT, top - 12, chart.title, "left")
    for tick in y_axis.ticks:
        y = bottom - HEIGHT * y_axis.place(tick)
        drawing.line(LEFT, y, LEFT + WIDTH, y, css="edge faint")
        drawing.text(LEFT - 8, y + 4, _number(tick), "right q")
    for tick in x_axis.ticks:
        x = LEFT + WIDTH * x_axis.place(tick)
        drawing.line(x, bottom, x, bottom + 4, css="edge")
        drawing.text(x, bottom + 18, _number(tick), "q")
    drawing.line(LEFT, bottom, LEFT + WIDTH, bottom, css="edge")
    drawing.text(LEFT + WIDTH / 2, bottom + 38, chart.x_label, "q")

    dashed = 0
    for number, line in enumerate(chart.lines):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        dash = DASHES[dashed % len(DASHES)] if line.dashed else ""
        dashed += line.dashed
        for run in _runs(line.points, chart.log_x, chart.log_y):
            drawing.path([at(x, y) for x, y in run], colour, dash)
            if line.marks:
                for x, y in run:
                    drawing.circle(*at(x, y), 3.5, colour, tip=f"{_number(x)}: {_number(y)}")
        y = top + 6 + 18 * number
        drawing.path([(LEFT + WIDTH + 14, y), (LEFT + WIDTH + 40, y)], colour, dash)
        drawing.text(LEFT + WIDTH + 46, y + 4, line.name, "left")


def _runs(
    points: Sequence[tuple[float, float | None]], log_x: bool, log_y: bool
) -> list[list[tuple[float, float]]]:
    """Return the stretches of points without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or (log_y and y <= 0) or (log_x and x <= 0):
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]
