"""Picture of a roofline: the rate of arithmetic that kernels can reach on a machine, by their arithmetic intensity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...arguments import finite, shown, text
from ..names import cut, one_line
from ..picture import Picture, checked_title, first_sentence
from ..svg import Drawing, look_of
from ..text import some, table

MOST_KERNELS, LEAST, MOST = 49, 1e-24, 1e24
"""Kernels whose looks differ; bounds of all numbers."""

_LEFT, _TOP, _WIDTH = 60, 56, 560
"""Pixels: left of the chart, above it; its largest width."""


@dataclass(frozen=True)
class Roofline(Picture):
    """The most that a machine can compute with some operations for each byte (Williams et al., 2009).

    With few operations for each byte, memory is the limit: the rate is the bandwidth times the intensity. From the
    `ridge` on, arithmetic is the limit.

    Parameters
    ----------
    bandwidth : float
        Bytes that memory delivers per second.
    peak : float
        Operations per second.
    intensities : mapping of str to float
        By name of a kernel, its operations for each byte; at most 49 kernels.
    title : str, optional
        Heading of the picture.

    Raises
    ------
    TypeError, ValueError
        A number is not in 1e-24 .. 1e24, a name or the title is no text, or no kernel or more than 49 are given.

    See Also
    --------
    paged_numba.lockstep.profiler.GPUS : Bandwidth and peaks of GPUs.

    Examples
    --------
    >>> import paged_numba as pn
    >>> roofline = pn.draw.Roofline(bandwidth=2e12, peak=40e12, intensities={"copy": 1, "matrix product": 100})
    >>> roofline.ridge, roofline.rate(1) / 1e12
    (20.0, 2.0)
    >>> print(roofline)
    Roofline
       kernel          operations/byte  at most, 1e12/s  share of peak  limit
    -  --------------  ---------------  ---------------  -------------  ----------
    1  copy                        1.0              2.0            5 %  memory
    2  matrix product            100.0             40.0          100 %  arithmetic
    Memory is the limit below 20.0 operations/byte.
    """

    bandwidth: float
    peak: float
    intensities: Mapping[str, float]
    title: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.intensities, Mapping) or not self.intensities:
            raise TypeError(
                f"intensities must map names to numbers, got intensities={shown(self.intensities)}"
            )
        if len(self.intensities) > MOST_KERNELS:
            raise ValueError(
                f"intensities must hold at most {MOST_KERNELS} kernels, got {len(self.intensities)}"
            )
        intensities = {
            text("a name of intensities", name): _positive(f"intensities[{shown(name)}]", value)
            for name, value in self.intensities.items()
        }
        object.__setattr__(self, "bandwidth", _positive("bandwidth", self.bandwidth))
        object.__setattr__(self, "peak", _positive("peak", self.peak))
        object.__setattr__(self, "intensities", intensities)
        object.__setattr__(self, "title", checked_title(self.title, "Roofline"))

    @property
    def _named(self) -> list[tuple[str, float]]:
        """The intensities by names that a line of text can show; numbers tell equal ones apart."""
        return [(one_line(name) or repr(name), intensity) for name, intensity in self.intensities.items()]

    @property
    def ridge(self) -> float:
        """Operations for each byte from which on arithmetic is the limit."""
        return self.peak / self.bandwidth

    def rate(self, intensity: float) -> float:
        """Return the most operations per second with so many operations for each byte.

        Parameters
        ----------
        intensity : float
            Operations for each byte that is moved.
        """
        return min(self.peak, intensity * self.bandwidth)

    @property
    def description(self) -> str:
        points = [
            f"{name}: {_number(intensity)} operations per byte, "
            f"{100 * self.rate(intensity) / self.peak:.3g} % of the peak"
            for name, intensity in self._named
        ]
        listed = "; ".join(some(points, 6, "{} more"))
        return (
            "The highest rate of arithmetic rises with the operations per byte, and reaches its peak at "
            f"{_number(self.ridge)}. {listed}."
        )

    @property
    def caption(self) -> str:
        """The first sentence of the description: the picture shows the rest."""
        return first_sentence(self.description)

    def text(self) -> str:
        rows = [
            [
                str(number),
                cut(name, 28),
                _number(intensity),
                _number(self.rate(intensity) / 1e12),
                f"{100 * self.rate(intensity) / self.peak:.3g} %",
                "memory" if intensity < self.ridge else "arithmetic",
            ]
            for number, (name, intensity) in enumerate(self._named, start=1)
        ]
        header = ["", "kernel", "operations/byte", "at most, 1e12/s", "share of peak", "limit"]
        # The last column is text, flush left; `table` puts it right, so it is padded.
        width = max(len(row[-1]) for row in rows)
        for row in [header, *rows]:
            row[-1] = row[-1].ljust(width)
        lines = table(header, rows, left=2)
        return f"{self.heading}\n{lines}\nMemory is the limit below {_number(self.ridge)} operations/byte."

    def draw(self) -> Drawing:
        logs = [math.log10(x) for x in (self.ridge, *self.intensities.values())]
        low, high = min(logs) - 0.4, max(logs) + 0.4
        top_rate, bottom_rate = math.log10(self.peak) + 0.2, math.log10(self.rate(10.0**low))
        step = min(_WIDTH / (high - low), 120.0)  # pixels of a factor of ten, in both directions
        right, bottom = _LEFT + step * (high - low), _TOP + step * (top_rate - bottom_rate)
        drawing = Drawing(right + 40, bottom + 60, self.title, self.description)

        def place(intensity: float, rate: float) -> tuple[float, float]:
            """Return the place of a point, given by logarithms."""
            return _LEFT + step * (intensity - low), _TOP + step * (top_rate - rate)

        drawing.text(16, _TOP - 10, "operations per second", "left q")
        for power in range(math.ceil(low), math.floor(high) + 1):
            x, _ = place(power, bottom_rate)
            drawing.line(x, _TOP, x, bottom, css="edge faint")
            drawing.text(x, bottom + 16, f"{10.0**power:,g}", "q")
        for power in range(math.ceil(bottom_rate), math.floor(top_rate) + 1):
            _, y = place(low, power)
            drawing.line(_LEFT, y, right, y, css="edge faint")
            drawing.text(_LEFT - 10, y + 4, f"1e{power}", "right q")
        drawing.text((_LEFT + right) / 2, bottom + 34, "operations per byte", "q")

        ridge = place(math.log10(self.ridge), math.log10(self.peak))
        drawing.line(*ridge, ridge[0], bottom, css="edge")
        drawing.text(ridge[0] - 8, bottom - 8, "memory is the limit", "right")
        drawing.text(ridge[0] + 8, bottom - 8, "arithmetic is", "left")
        for start, end in ((place(low, bottom_rate), ridge), (ridge, (right, ridge[1]))):
            drawing.line(*start, *end)
        for number, (name, intensity) in enumerate(self._named):
            rate = self.rate(intensity)
            tip = f"{name}: {_number(intensity)} operations per byte, {rate:.3g} per second"
            x, y = place(math.log10(intensity), math.log10(rate))
            drawing.circle(x, y, 9, look_of(number).colour, tip=tip)
            drawing.text(x, y + 4, str(number + 1), on=look_of(number))
        entries = [(look_of(number), f"{number + 1}: {name}") for number, (name, _) in enumerate(self._named)]
        drawing.legend(16, bottom + 48, entries)
        return drawing


def _positive(name: str, value: float) -> float:
    number = finite(name, value)
    if not LEAST <= number <= MOST:
        raise ValueError(f"{name} must lie in {LEAST:g} .. {MOST:g}, got {name}={shown(value)}")
    return number


def _number(value: float) -> str:
    return f"{value:,.1f}" if 0.1 <= value < 1e6 else f"{value:.3g}"
