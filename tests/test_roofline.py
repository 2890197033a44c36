"""The picture of a roofline: its rates, its text, and what it draws."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba.draw import Roofline

rates = st.floats(1e6, 1e18)
intensities = st.dictionaries(st.text("abc ", min_size=1), st.floats(1e-6, 1e6), min_size=1, max_size=9)


@given(rates, rates, intensities)
def test_a_kernel_reaches_the_lower_of_peak_and_bandwidth(bandwidth, peak, kernels):
    roofline = Roofline(bandwidth, peak, kernels)
    for intensity in kernels.values():
        rate = roofline.rate(intensity)
        assert rate == min(peak, intensity * bandwidth)
        assert (rate < peak) == (intensity * bandwidth < peak)
    assert roofline.rate(roofline.ridge) == pytest.approx(peak)
    assert roofline.svg().count("<circle") == len(kernels)
    assert len(roofline.text().splitlines()) == len(kernels) + 4


@given(rates, rates, intensities)
def test_points_lie_on_the_roof_and_inside_the_chart(bandwidth, peak, kernels):
    svg = Roofline(bandwidth, peak, kernels).svg()
    width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    lines = [
        tuple(map(float, line))
        for line in re.findall(r'<line x1="(\S+)" y1="(\S+)" x2="(\S+)" y2="(\S+)"', svg)
    ]
    slope, top = lines[-2:]
    assert (slope[2], slope[3]) == (top[0], top[1])
    assert slope[2] - slope[0] == pytest.approx(slope[1] - slope[3], abs=0.3), "45 degrees"
    for x, y in re.findall(r'<circle cx="(\S+)" cy="(\S+)"', svg):
        x, y = float(x), float(y)
        assert 0 < x < width
        assert 0 < y < height
        on_slope, on_top = slope[1] - (x - slope[0]), top[1]
        assert y == pytest.approx(max(on_slope, on_top), abs=0.3)


def test_by_hand():
    roofline = Roofline(2e12, 40e12, {"copy": 1, "product": 100})
    assert roofline.ridge == 20
    assert [line.split() for line in roofline.text().splitlines()[3:5]] == [
        ["1", "copy", "1.0", "2.0", "5", "%", "memory"],
        ["2", "product", "100.0", "40.0", "100", "%", "arithmetic"],
    ]
    assert "copy: 1.0 operations per byte, 5 % of the peak" in roofline.description


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bandwidth": 0}, r"bandwidth must lie in 1e-24 \.\. 1e\+24, got bandwidth=0"),
        ({"peak": float("inf")}, "peak must be finite, got peak=inf"),
        ({"peak": "fast"}, "peak must be a number, got peak='fast'"),
        ({"intensities": {}}, "intensities must map names to numbers, got intensities={}"),
        ({"intensities": [1]}, r"intensities must map names to numbers, got intensities=\[1\]"),
        ({"intensities": {"copy": -1}}, r"intensities\['copy'\] must lie in 1e-24 \.\. 1e\+24, got"),
        ({"intensities": {3: 1}}, "a name of intensities must be a str"),
        ({"title": 3}, "title must be a str, got title=3"),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Roofline(**{"bandwidth": 2e12, "peak": 40e12, "intensities": {"copy": 1}, **change})
