"""Line charts, one below the other: quantities over time, or over a size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..arguments import is_number, listed, shown, text, truth
from .picture import Picture
from .svg import COLOURS, Drawing

# Without yellow, which is too faint for a line.
LINE_COLOURS = ("var(--ink)", *(colour for colour in COLOURS if colour != "#f0e442"))
DASHES = ("6 3", "2 3", "9 3 2 3")

LEFT, TOP, WIDTH, HEIGHT, GAP, LEGEND = 64, 64, 560, 200, 84, 170

MOST = 1e300
"""Bound of the numbers in a chart: their differences are finite."""

ZERO_GAP = 0.1
"""Share of a logarithmic y axis below its lowest power of ten, where zeros are drawn."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes
    ----------
    name : str
        Label in the legend.
    points : sequence of (float, float or None)
        Pairs (x, y) in ascending order of x; y is None at a gap in the line.
    dashed : bool
        Whether the line is dashed.
    marks : bool
        Whether each point has a dot.

    See Also
    --------
    Chart : Lines on one pair of axes.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pn.draw.Line("free blocks", [(0, 64), (1, 60), (2, None)]).name
    'free blocks'
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False
    marks: bool = False

    def __post_init__(self) -> None:
        text("name", self.name)
        _keep(self, points=listed("points", self.points, "pairs (x, y)"))
        for place, point in enumerate(self.points):
            pair = isinstance(point, (tuple, list)) and len(point) == 2
            if not pair or not all(_finite(number) for number in (point[0], point[1] or 0)):
                raise ValueError(
                    f"points must be pairs of finite numbers, or of a number and None, "
                    f"got points[{place}]={shown(point)}"
                )


@dataclass(frozen=True)
class Chart:
    """Lines on one pair of axes; identical lines are drawn once, and the legend names each.

    Attributes
    ----------
    title, x_label : str
    lines : sequence of Line
    log_x, log_y : bool
        Whether the axis is logarithmic; its label then says so. A logarithmic x axis takes positive values only; on a
        logarithmic y axis zeros lie below the lowest power of ten, and negative values are left out.
    counts : bool
        Whether y counts something, so that its ticks are whole numbers.

    See Also
    --------
    Lines : The picture of one or more charts.

    Examples
    --------
    >>> import paged_numba as pn
    >>> line = pn.draw.Line("free blocks", [(0, 64), (1, 60), (2, 61)])
    >>> pn.draw.Chart("Pool", "step", [line], counts=True).title
    'Pool'
    """

    title: str
    x_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    counts: bool = False

    def __post_init__(self) -> None:
        text("title", self.title)
        text("x_label", self.x_label)
        for name in ("log_x", "log_y", "counts"):
            truth(name, getattr(self, name))
        _keep(self, lines=listed("lines", self.lines, "Line"))
        for line in self.lines:
            if not isinstance(line, Line):
                raise TypeError(f"lines must be Line objects, got {shown(line)}")


@dataclass(frozen=True)
class Lines(Picture):
    """Charts, one below the other.

    Attributes
    ----------
    title : str
    charts : sequence of Chart

    See Also
    --------
    Chart : Lines on one pair of axes.
    Line : A line of a chart.

    Examples
    --------
    >>> import paged_numba as pn
    >>> line = pn.draw.Line("x * x", [(0, 0), (1, 1), (2, 4)])
    >>> pn.draw.Lines("Powers", [pn.draw.Chart("Squares", "x", [line])]).svg()[:4]
    '<svg'
    """

    title: str
    charts: Sequence[Chart]

    def __post_init__(self) -> None:
        text("title", self.title)
        _keep(self, charts=listed("charts", self.charts, "Chart"))
        for chart in self.charts:
            if not isinstance(chart, Chart):
                raise TypeError(f"charts must be Chart objects, got {shown(chart)}")

    def draw(self) -> Drawing:
        """Return the picture."""
        height = TOP + len(self.charts) * (HEIGHT + GAP)
        drawing = Drawing(LEFT + WIDTH + LEGEND, height, self.title)
        for place, chart in enumerate(self.charts):
            _draw(drawing, chart, TOP + place * (HEIGHT + GAP))
        return drawing


def _keep(record: Any, **fields: Any) -> None:
    """Set fields of a frozen dataclass while it is made."""
    for name, value in fields.items():
        object.__setattr__(record, name, value)


def _finite(number: Any) -> bool:
    return is_number(number) and abs(number) < MOST


class _Axis:
    """An axis: its ticks, and the place of a value on it, 0 to 1."""

    def __init__(self, values: Sequence[float], log: bool, from_zero: bool, least_step: float = 0.0) -> None:
        self.log = log
        self.zero_gap = ZERO_GAP if log and from_zero and 0 in values else 0.0
        shown = [value for value in values if value > 0 or not log] or [1.0]
        low, high = min(shown), max(shown)
        if log:
            first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
            last = max(last, first + 1)
            self.ticks = [10.0**power for power in range(first, last + 1)]
        else:
            low = min(low, 0.0) if from_zero else low
            self.ticks = _ticks(low, high if high > low else low + 1, least_step)
            if not from_zero:
                # The x axis ends at the last value, not at a round number.
                self.ticks = [tick for tick in self.ticks if low <= tick <= high] or [low]
        self.low = self.ticks[0] if log or from_zero else low
        self.high = self.ticks[-1] if log or from_zero else max(high, low + 1e-9)
        if self.zero_gap:
            self.ticks.insert(0, 0.0)

    def shows(self, value: float) -> bool:
        return not self.log or value > 0 or (value == 0 and self.zero_gap > 0)

    def place(self, value: float) -> float:
        if self.log:
            if value == 0:
                return 0.0
            decades = math.log(value / self.low) / math.log(self.high / self.low)
            return self.zero_gap + (1 - self.zero_gap) * decades
        return (value - self.low) / (self.high - self.low)


def _ticks(low: float, high: float, least_step: float) -> list[float]:
    """Return at most 8 round numbers, the first at or below `low`, the last at or above `high`."""
    rough = max((high - low) / 5, least_step)
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [step * n for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _number(value: float) -> str:
    """Return the label of a tick.

    >>> _number(0.01), _number(250.0), _number(13_107_200.0)
    ('0.01', '250', '13.1 M')
    """
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value:,.6g}"


def _draw(drawing: Drawing, chart: Chart, top: float) -> None:
    points = [(x, y) for line in chart.lines for x, y in line.points if y is not None]
    x_axis = _Axis([x for x, _ in points], chart.log_x, from_zero=False)
    y_axis = _Axis(
        [y for _, y in points], chart.log_y, from_zero=True, least_step=1.0 if chart.counts else 0.0
    )
    bottom = top + HEIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + WIDTH * x_axis.place(x), bottom - HEIGHT * y_axis.place(y)

    drawing.text(LEFT, top - 12, _label(chart.title, chart.log_y), "left")
    for tick in y_axis.ticks:
        y = bottom - HEIGHT * y_axis.place(tick)
        drawing.line(LEFT, y, LEFT + WIDTH, y, css="edge faint")
        drawing.text(LEFT - 8, y + 4, _number(tick), "right q")
    for tick in x_axis.ticks:
        x = LEFT + WIDTH * x_axis.place(tick)
        drawing.line(x, bottom, x, bottom + 4, css="edge")
        drawing.text(x, bottom + 18, _number(tick), "q")
    drawing.line(LEFT, bottom, LEFT + WIDTH, bottom, css="edge")
    drawing.text(LEFT + WIDTH / 2, bottom + 38, _label(chart.x_label, chart.log_x), "q")

    dashed = 0
    legend = top + 6
    for number, line in enumerate(chart.lines):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        dash = DASHES[dashed % len(DASHES)] if line.dashed else ""
        dashed += line.dashed
        if any(list(line.points) == list(earlier.points) for earlier in chart.lines[:number]):
            continue
        for run in _runs(line.points, x_axis, y_axis):
            drawing.path([at(x, y) for x, y in run], colour, dash)
            if line.marks:
                for x, y in run:
                    drawing.circle(*at(x, y), 3.5, colour, tip=f"{_number(x)}: {_number(y)}")
        drawing.path([(LEFT + WIDTH + 14, legend), (LEFT + WIDTH + 40, legend)], colour, dash)
        alike = [other.name for other in chart.lines[number:] if list(other.points) == list(line.points)]
        for place, name in enumerate(alike):
            drawing.text(LEFT + WIDTH + 46, legend + 4, f"= {name}" if place else name, "left")
            legend += 18


def _label(text: str, log: bool) -> str:
    return f"{text} (logarithmic)" if log else text


def _runs(
    points: Sequence[tuple[float, float | None]], x_axis: _Axis, y_axis: _Axis
) -> list[list[tuple[float, float]]]:
    """Return the runs of points between gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is not None and x_axis.shows(x) and y_axis.shows(y):
            runs[-1].append((x, y))
        else:
            runs.append([])
    return [run for run in runs if run]
