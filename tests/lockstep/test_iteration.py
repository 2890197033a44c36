"""Loops over tuples, arrays, ranges and NumPy's iterators, against the same loops in Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_kernels import written

from paged_numba import lockstep
from paged_numba.errors import KernelError

THREADS = 6


class Thread:
    """Stands for `cuda` when a kernel runs in Python, as one thread."""

    def __init__(self, number):
        self.number = number

    def grid(self, ndim):
        return self.number


def text_of(iterable, body):
    lines = "".join(f"  {line}\n" for line in body.splitlines())
    return (
        "def kernel(out, x, n):\n i = cuda.grid(1)\n total = 0.0\n"
        f" for item in {iterable}:\n{lines} else:\n  total += 0.5\n out[i] = total\n"
    )


def in_python(text, x, n):
    out = np.zeros(THREADS)
    for number in range(THREADS):
        space = {"np": np, "cuda": Thread(number)}
        exec(text, space)
        space["kernel"](out, x, n)
    return out


NUMBERS = {
    "tuple": "(3.0, x[i, 1, 1], -2.0)",
    "row": "x[i, 0]",
    "row of a length by lane": "x[i, 1, : n[i]]",
    "row backwards": "x[i, 1, n[i] :: -1]",
    "flat": "x[i].flat",
    "flat of a transpose": "x[:, :, n[i] % 4].T.flat",
    "range by lane": "range(n[i])",
    "range with a step": "range(n[i], -3, -2)",
}
PAIRS = {
    "enumerate": "enumerate(x[i, 0], n[i])",
    "zip": "zip(range(n[i]), x[i, 0])",
    "zip of three lengths": "zip(x[i, 0], x[i, 1, : n[i]])",
    "zip of flat": "zip(x[i].flat, range(10))",
    "ndindex": "np.ndindex((n[i], 2))",
    "ndindex of numbers": "np.ndindex(3, n[i])",
}
BODIES = {
    "sum": "total += {}",
    "continue": "if {} > 2:\n continue\ntotal += {}",
    "break": "if {} > n[i]:\n break\ntotal += {}",
    "nested": "for k in range(i % 3):\n if k > 1:\n  break\n total += {} * k",
    "return": "if {} > 5:\n out[i] = -1\n return\ntotal += {}",
}
RUN = [
    (iterable, body.replace("{}", value))
    for kind, value in ((NUMBERS, "item"), (PAIRS, "(item[0] + 2 * item[1])"))
    for iterable in kind.values()
    for body in BODIES.values()
]
DATA = (np.arange(THREADS * 2 * 4) * 5 % 13 - 4).reshape(THREADS, 2, 4).astype(np.float64)


@pytest.mark.parametrize(("iterable", "body"), RUN)
def test_loop_is_the_loop_of_each_thread(iterable, body):
    n = np.array([3, 0, 1, 2, 3, 1])
    text = text_of(iterable, body)
    expected = in_python(text, DATA, n)
    kernel = written(text)
    out = np.zeros(THREADS)
    lockstep.launch(kernel, 1, THREADS, out, DATA, n)
    np.testing.assert_array_equal(out, expected)
    out = np.zeros(THREADS)
    with lockstep.sanitizing() as findings, lockstep.options(order="reverse"):
        lockstep.launch(kernel, 1, THREADS, out, DATA, n)
    np.testing.assert_array_equal(out, expected)
    assert not [f for f in findings if f.kind == "out of bounds"]


@settings(max_examples=10)
@given(
    bounds=st.lists(st.tuples(st.integers(-7, 7), st.integers(-7, 7)), min_size=THREADS, max_size=THREADS),
    step=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    ends=st.sampled_from(["low[i]:high[i]", "low[i]:", ":high[i]"]),
)
def test_slice_by_lane_selects_what_python_selects(bounds, step, ends):
    kernel = written(
        "def kernel(out, x, low, high):\n i = cuda.grid(1)\n"
        f" part = x[{ends}:{step}]\n out[i, 5] = len(part)\n"
        " for k, value in enumerate(part):\n  out[i, k] = value\n"
    )
    low, high = np.array(bounds).T
    x = np.arange(5) + 10
    expected = np.zeros((THREADS, 6), int)
    for i in range(THREADS):
        given = {"low[i]:high[i]": (low[i], high[i]), "low[i]:": (low[i], None), ":high[i]": (None, high[i])}[
            ends
        ]
        part = x[slice(*given, step)]
        expected[i, : len(part)], expected[i, 5] = part, len(part)
    out = np.zeros((THREADS, 6), int)
    lockstep.launch(kernel, 1, THREADS, out, x, low, high)
    np.testing.assert_array_equal(out, expected)


def test_tuple_of_several_types_is_refused_and_can_be_unrolled():
    body = "def kernel(out, x):\n total = 0\n for item in {}:\n  total += item\n out[0] = total\n"
    with pytest.raises(
        KernelError, match=r"have one type: literal_unroll.*cuda\.misc\.special.*, <written \d+>:3$"
    ):
        lockstep.launch(written(body.format("(1, 2.5)")), 1, 1, np.zeros(1), np.ones(2))
    special = pytest.importorskip("numba.misc.special")
    kernel = written(body.format("literal_unroll((1, 2.5, True))"), literal_unroll=special.literal_unroll)
    out = np.zeros(1)
    lockstep.launch(kernel, 1, 1, out, np.ones(2))
    assert out[0] == 4.5


def test_items_are_loaded_after_the_stores_of_earlier_iterations():
    kernel = written("def kernel(x):\n for i, item in enumerate(x):\n  x[(i + 1) % 4] += item\n")
    x = np.ones(4)
    lockstep.launch(kernel, 1, 1, x)
    assert x.tolist() == [5, 2, 3, 4]


def test_range_as_a_value():
    kernel = written(
        "def kernel(out):\n i = cuda.grid(1)\n r = range(1, i, 2)\n"
        " out[i, 0] = len(r)\n out[i, 1] = 3 in r\n out[i, 2] = sum(r)\n"
        " if i > 3:\n  out[i, 3] = r[1]\n"
    )
    out = np.zeros((8, 4), int)
    lockstep.launch(kernel, 1, 8, out)
    for i in range(8):
        r = range(1, i, 2)
        assert out[i].tolist() == [len(r), 3 in r, sum(r), r[1] if i > 3 else 0]


def test_array_stored_into_a_slice_of_itself_is_copied_first():
    kernel = written("def kernel(x):\n i = cuda.grid(1)\n x[i, 1:] = x[i, :-1]\n")
    x = np.arange(12.0).reshape(3, 4)
    expected = x.copy()
    expected[:, 1:] = x[:, :-1]
    lockstep.launch(kernel, 1, 3, x)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("part", ["x[0:2] = x", "x[i, 0:3] = x[0, 0:2]", "x[0] = x[:, 0:3]"])
def test_array_of_another_shape_is_not_stored(part):
    kernel = written(f"def kernel(x):\n i = cuda.grid(1)\n {part}\n")
    x = np.arange(12.0).reshape(3, 4)
    with pytest.raises(
        KernelError, match=r"x must have the shape of the part of x that it is stored in, .*:3"
    ):
        lockstep.launch(kernel, 1, 2, x)
    np.testing.assert_array_equal(x, np.arange(12.0).reshape(3, 4))


def test_views_of_a_local_array_show_what_was_stored_before():
    kernel = written(
        "def kernel(out):\n i = cuda.grid(1)\n"
        " tile = cuda.local.array((2, 3), np.float64)\n tile[0, 1] = i\n tile[1, 2] = 2 * i\n"
        " out[i, 0] = tile.T[1, 0]\n out[i, 1] = tile.reshape(6)[5]\n tile[0, 1] = 7\n out[i, 2] = tile.flat[1]\n"
    )
    out = np.zeros((4, 3))
    lockstep.launch(kernel, 1, 4, out)
    np.testing.assert_array_equal(out, [[i, 2 * i, 7] for i in range(4)])
