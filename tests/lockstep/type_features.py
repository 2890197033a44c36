"""Kernels for the types of Numba that are no plain numbers; they join the table of `feature_kernels`."""

import enum
from collections import namedtuple

import numpy as np
from feature_kernels import T8, feature, floats, ints
from numba import cuda

Point = namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = 3
    GREEN = 5


class Planet(enum.Enum):
    EARTH = (1.0, 2.5)
    MARS = (0.5, 4.0)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 6


INNER = np.dtype([("p", np.int16), ("q", np.float32)], align=True)
NESTED = np.dtype(
    [("n", np.int8), ("x", np.float64), ("grid", np.int32, (2, 3)), ("inner", INNER)], align=True
)


def nested_records(count):
    """Return records with a different number in each field."""
    made = np.zeros(count, NESTED)
    made["n"], made["x"] = np.arange(count), np.arange(count) / 4
    made["grid"] = np.arange(6 * count).reshape(count, 2, 3)
    made["inner"]["p"], made["inner"]["q"] = -np.arange(count), np.arange(count) + 0.5
    return made


RECORDS8 = nested_records(8)
REVERSED8 = RECORDS8[::-1].copy()
REVERSED8["inner"]["q"] += 1


@feature(np.zeros(8, NESTED), RECORDS8, expected=REVERSED8, simulated=False)
@cuda.jit
def whole_records(out, source):
    t = cuda.grid(1)
    shared = cuda.shared.array(8, NESTED)
    local = cuda.local.array(2, NESTED)
    shared[t] = source[t]
    cuda.syncthreads()
    local[1] = shared[7 - t]
    record = local[1]
    record.inner.q += np.float32(1)
    out[t] = local[1]


@feature(
    floats(8),
    RECORDS8,
    expected=RECORDS8["grid"][:, 1, 2] + RECORDS8["grid"].sum((1, 2)) + T8[::-1],
    simulated=False,
)
@cuda.jit
def arrays_in_records(out, source):
    t = cuda.grid(1)
    total = source[t].grid[1, 2] + source["grid"][t, 0, 0]
    for row in source[t].grid:
        for value in row:
            total += value
    out[t] = total - source.grid[t][0][0] - source[7 - t]["inner"]["p"]


@feature(
    ints(48),
    Point(2, 1),
    (3, 1, 2),
    expected=[
        part
        for t in range(8)
        for part in (
            (t, 1) == (2, 1),
            (t, 1) < (3, 0),
            ((t, 1), 2) >= ((3, 1), 2),
            (3, 1, 2)[t % 3],
            t in (3, 1, 2),
            ((3, 1, 2) + (t,))[3] + len((3, 1, 2)[1:]),  # noqa: RUF005
        )
    ],
    simulated=False,
)
@cuda.jit
def tuples(out, point, given):
    t = cuda.grid(1)
    mine = Point(t, point.y)
    out[6 * t] = mine == point
    out[6 * t + 1] = mine < (3, 0)
    out[6 * t + 2] = ((t, 1), 2) >= ((3, 1), 2)
    out[6 * t + 3] = given[t % 3]
    out[6 * t + 4] = t in given
    out[6 * t + 5] = (given + (t,))[3] + len(given[1:])  # noqa: RUF005


@feature(
    floats(24),
    Color.GREEN,
    Level.HIGH,
    expected=[
        part
        for t in range(8)
        for part in (
            4 * (t % 2) + 3 * (t % 2 == 0) + 5,
            (1.0 if t < 3 else 0.5) + (2.5 if t < 3 else 4.0),
            (t == 6) + 7,
        )
    ],
    simulated=False,
)
@cuda.jit
def enums(out, color, level):
    t = cuda.grid(1)
    mine = Color.GREEN if t % 2 else Color["RED"]
    out[3 * t] = 4 * (mine == color) + 3 * (mine is not color) + color.value
    planet = Planet.EARTH
    if t >= 3:
        planet = Planet.MARS
    mass, radius = planet.value
    out[3 * t + 1] = mass + radius
    out[3 * t + 2] = (t == level) + level + Level.LOW


DAYS = np.array(["2020-02-28", "NaT", "1999-12-31", "2024-02-29"] * 2, "M8[D]")
SECONDS = np.array([0, 86400, -5, 10**6, 7, 3, 2, 1], "m8[s]")
ZERO = np.timedelta64(0, "s")


@feature(
    np.zeros(8, "M8[s]"),
    DAYS,
    SECONDS,
    expected=np.where(SECONDS > ZERO, DAYS + SECONDS * 2, DAYS - SECONDS // 2),
    simulated=False,
)
@cuda.jit
def dates_and_durations(out, days, seconds):
    t = cuda.grid(1)
    if seconds[t] > ZERO:
        out[t] = days[t] + seconds[t] * 2
    else:
        out[t] = days[t] - seconds[t] // 2


@feature(np.zeros(8, "U3"), expected=np.array(["ab", "", "ab", "", "ab", "", "ab", ""]), simulated=False)
@cuda.jit
def texts(out):
    t = cuda.grid(1)
    if t % 2 == 0:
        out[t] = "ab"


@feature(ints(8), T8, expected=[10, 10, 26, 30, 40, 50, 62, 70], simulated=False)
@cuda.jit
def match_statement(out, x):
    t = cuda.grid(1)
    match x[t]:
        case 0 | 1:
            out[t] = 10
        case value if value == 2 or value == 6:
            out[t] = value * 9 + 8
        case value:
            out[t] = value * 10


@feature(floats(32), expected=[part for t in range(8) for part in (t, 2.5, t + 1, 2.5)], simulated=False)
@cuda.jit
def vectors(out):
    t = cuda.grid(1)
    pair = cuda.float32x2(t, 2.5)
    if t < 8:
        four = cuda.float64x4(cuda.double2(pair.x, pair.y), t + 1, pair.y)
    out[4 * t] = four.x
    out[4 * t + 1] = four.y
    out[4 * t + 2] = four.z
    out[4 * t + 3] = four.w


@feature(
    floats(16),
    np.linspace(-1.75, 1.75, 8),
    expected=np.stack(
        [np.sin(np.linspace(-1.75, 1.75, 8)), np.round(np.linspace(-1.75, 1.75, 8))], 1
    ).ravel(),
    exact=False,
    simulated=False,
)
@cuda.jit
def library_functions(out, x):
    t = cuda.grid(1)
    sine, cosine = cuda.libdevice.sincos(x[t])
    out[2 * t] = sine + 0 * cosine
    out[2 * t + 1] = cuda.libdevice.rint(x[t])
