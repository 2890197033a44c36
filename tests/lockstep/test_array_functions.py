"""Methods of arrays, functions of NumPy and ufuncs in kernels, against NumPy and loops in Python."""

import functools
import itertools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_kernels import written

from paged_numba import lockstep
from paged_numba.errors import KernelError, UnsupportedConstructError
from paged_numba.lockstep.language.arrays import reductions, ufuncs
from paged_numba.lockstep.machine.lanes import Dim3
from paged_numba.lockstep.machine.machine import Machine

DTYPES = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 complex64 complex128".split()
UFUNCS = sorted(
    {
        u
        for u in vars(np).values()
        if isinstance(u, np.ufunc) and u.__name__ not in (*ufuncs._ABSENT, "isnat")
    },
    key=lambda u: u.__name__,
)
THREADS = 8


def run(kernel, *args, threads=THREADS, **options):
    with lockstep.options(**options):
        lockstep.launch(kernel, 1, threads, *args)


def everywhere(kernel, *args):
    """Run a kernel in each order and under each instrument; return its first argument, which must be the same."""
    results = []
    for options in ({}, {"order": "forward"}, {"order": "reverse"}):
        given = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
        run(kernel, *given, **options)
        results.append(given[0])
    for instrument in (lockstep.profiling, lockstep.sanitizing, lockstep.recording):
        given = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
        with instrument():
            run(kernel, *given)
        results.append(given[0])
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    return results[0]


# Reductions of a slice whose bounds differ by lane.


def folded(values, start, function=operator.add):
    return functools.reduce(function, values, start)


def first_nan_or(function):
    def best(values):
        nan = values[np.isnan(values)]
        return nan[0] if len(nan) else function(values)

    return best


REDUCTIONS = {
    "sum": lambda v: folded(v, np.float32(0)),
    "prod": lambda v: folded(v, np.float32(1), operator.mul),
    "mean": lambda v: np.float64(folded(v, np.float32(0))) / len(v),
    "var": lambda v: (
        folded(((np.float64(x) - np.float64(folded(v, np.float32(0))) / len(v)) ** 2 for x in v), 0.0)
        / len(v)
    ),
    "any": np.any,
    "all": np.all,
    "min": first_nan_or(np.min),
    "max": first_nan_or(np.max),
    "argmin": np.argmin,
    "argmax": np.argmax,
}
NAN_REDUCTIONS = {
    "count_nonzero": np.count_nonzero,
    "nansum": lambda v: folded(v[~np.isnan(v)], np.float32(0)),
    "nanprod": lambda v: folded(v[~np.isnan(v)], np.float32(1), operator.mul),
    "nanmean": lambda v: np.float64(folded(v[~np.isnan(v)], np.float64(0))) / (~np.isnan(v)).sum(),
    "nanmin": np.nanmin,
    "nanmax": np.nanmax,
}
SAMPLES = st.lists(
    st.floats(-8, 8, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30]),
    min_size=9,
    max_size=9,
)


def method(name):
    return written(
        f"def kernel(out, a, low, high):\n i = cuda.grid(1)\n if i != 3:\n  out[i] = a[low[i]:high[i]].{name}()\n"
    )


def function(name):
    return written(
        f"def kernel(out, a, low, high):\n i = cuda.grid(1)\n if i != 3:\n  out[i] = np.{name}(a[low[i]:high[i]])\n"
    )


def at_once(name):
    return written(f"def kernel(out, a):\n i = cuda.grid(1)\n if i != 3:\n  out[i] = a[i].{name}()\n")


KERNELS = {name: method(name) for name in REDUCTIONS} | {name: function(name) for name in NAN_REDUCTIONS}
ROWS = {name: at_once(name) for name in REDUCTIONS}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=3)
@given(
    values=SAMPLES, bounds=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=8, max_size=8)
)
def test_reduction_of_a_slice_by_lane_is_the_loop_over_its_elements(name, values, bounds):
    a = np.array(values, np.float32)
    low = np.array([min(i, j - 1) for i, j in bounds])
    high = np.array([j for _, j in bounds])
    reference = {**REDUCTIONS, **NAN_REDUCTIONS}[name]
    expected = np.array([reference(a[i:j]) for i, j in zip(low, high, strict=True)], np.float64)
    expected[3] = -1  # the lane that does not take part stores nothing
    out = np.full(8, -1.0)
    run(KERNELS[name], out, a, low, high)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=2)
@given(values=st.lists(SAMPLES, min_size=8, max_size=8))
def test_reduction_of_whole_rows_at_once_is_the_loop_over_their_elements(name, values):
    a = np.array(values, np.float32)
    expected = np.array([REDUCTIONS[name](row) for row in a], np.float64)
    expected[3] = -1
    out = np.full(8, -1.0)
    run(ROWS[name], out, a)
    np.testing.assert_array_equal(out, expected)
    with lockstep.profiling():  # which loads element by element
        observed = np.full(8, -1.0)
        run(ROWS[name], observed, a)
    np.testing.assert_array_equal(observed, expected)


RESULTS = {
    "sum": {"b": "int64", "i": "int64", "u": "uint64"},
    "prod": {"b": "int64", "i": "int64", "u": "uint64"},
    "mean": {"b": "float64", "i": "float64", "u": "float64", "f": "float64", "c": "complex128"},
    "var": dict.fromkeys("biufc", "float64"),
    "std": dict.fromkeys("biufc", "float64"),
    "any": dict.fromkeys("biufc", "bool"),
    "all": dict.fromkeys("biufc", "bool"),
    "argmin": dict.fromkeys("biuf", "int64"),
    "argmax": dict.fromkeys("biuf", "int64"),
}
"""The type of the result by the kind of the elements, as Numba's typing has it; else that of the elements."""


@pytest.mark.parametrize("name", [*REDUCTIONS, "std"])
def test_reduction_has_the_type_that_numba_gives_it(name):
    seen = []
    machine = Machine(Dim3(1, 1, 1), Dim3(1, 1, 1), 0)
    machine.begin_batch(0, 1)
    for dtype in map(np.dtype, DTYPES):
        if dtype == np.float16 or (dtype.kind == "c" and name.startswith("arg")):
            continue
        made = reductions.METHODS[name](machine, True, machine.argument("a", np.ones(3, dtype)))
        wanted = RESULTS.get(name, {}).get(dtype.kind, dtype)
        seen.append(dtype)
        assert made.dtype == wanted, dtype
    assert len(seen) > 8


def test_reduction_counts_its_loads_and_additions():
    kernel = written("def kernel(out, a):\n i = cuda.grid(1)\n if i < 5:\n  out[i] = a.sum() + a.max()\n")
    with lockstep.profiling() as profile:
        run(kernel, np.zeros(8), np.arange(6, dtype=np.float32))
    traffic = profile.memory("global", "load", array="a")
    assert traffic.requests == 2 * 6
    assert profile.work().flops == {"float32": 5 * (6 + 1)}


def test_min_loads_nothing_after_the_first_nan():
    kernel = written("def kernel(out, a):\n out[0] = a.min()\n")
    a = np.array([1, np.nan, 0, 0, 0], np.float32)
    with lockstep.profiling() as profile:
        run(kernel, np.zeros(1), a, threads=1)
    assert profile.memory("global", "load", array="a").requests == 2


def test_reduction_of_an_empty_array_names_the_thread():
    with pytest.raises(
        KernelError, match=r"min needs an array that is not empty, got a, thread 2 of thread block 0"
    ):
        run(method("min"), np.zeros(8), np.ones(9), np.array([0, 1, 9, 9, 2, 3, 4, 5]), np.full(8, 9))


# Ufuncs.


def test_ufunc_takes_the_loop_that_numba_takes():
    numba = pytest.importorskip("numba")
    support = pytest.importorskip("numba.cuda.np.numpy_support", reason="numba-cuda is the oracle")
    cuda = pytest.importorskip("numba.cuda")
    types = {name: cuda.types.boolean if name == "bool" else getattr(cuda.types, name) for name in DTYPES}
    del numba
    compared = 0
    for ufunc in UFUNCS:
        for names in itertools.product(DTYPES, repeat=ufunc.nin):
            loop = support.ufunc_find_matching_loop(ufunc, tuple(types[name] for name in names))
            ours = ufuncs._loop(ufunc, tuple(map(np.dtype, names)), ())
            known = set("".join(loop.ufunc_sig.split("->"))) <= ufuncs._LETTERS if loop else False
            if known and not (ufunc is np.divide and loop.ufunc_sig[0] in "bBhHiIlLqQ"):
                assert ours == loop.ufunc_sig, (ufunc, names)
                compared += 1
    assert compared > 5000


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("ufunc", UFUNCS, ids=lambda ufunc: ufunc.__name__)
def test_ufunc_on_numbers_and_arrays_computes_what_numpy_computes(ufunc):
    inputs = ", ".join(f"x{i}" for i in range(ufunc.nin))
    outputs = ", ".join(f"y{i}" for i in range(ufunc.nout))
    name = ufunc.__name__
    kernel = written(f"def kernel({outputs}, {inputs}):\n np.{name}({inputs}, {outputs})\n")
    ran = 0
    for dtype in map(np.dtype, [*DTYPES[::2], "float32"]):
        types = ufuncs._loop(ufunc, (dtype,) * ufunc.nin, ())
        if types is None:
            continue
        inner, result = types.split("->")
        values = np.array(
            [[0, 1, 1], [1, 0, 3]] if dtype.kind in "bu" else [[-1, 0, 1], [0.5, 1, -0.5]], dtype
        )
        if name == "power" and dtype.kind == "i":
            values = np.abs(values)
        operands = [values, *[values[::-1]] * (ufunc.nin - 1)]
        if "shift" in name:
            operands = [np.abs(operand.astype(np.int64)).astype(dtype) for operand in operands]
        outs = [np.zeros(values.shape, letter) for letter in result]
        expected = ufunc(*(o.astype(t) for o, t in zip(operands, inner, strict=True)))
        run(kernel, *outs, *operands, threads=1)
        for out, wanted in zip(outs, expected if isinstance(expected, tuple) else (expected,), strict=True):
            np.testing.assert_array_equal(out, wanted)
        ran += 1
    assert ran


def test_ufunc_broadcasts_and_stores_in_active_lanes_only():
    kernel = written(
        "def kernel(out, a, b):\n i = cuda.grid(1)\n n = i % 3 + 1\n"
        " if i % 2 == 0:\n  np.add(a[i], b[:n], out=out[i, :, :n])\n"
    )
    a, b = np.arange(24.0).reshape(8, 3, 1), np.arange(3.0)
    out = everywhere(kernel, np.full((8, 3, 3), -1.0), a, b)
    expected = np.full((8, 3, 3), -1.0)
    for i in range(0, 8, 2):
        n = i % 3 + 1
        expected[i, :, :n] = a[i] + b[:n]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "a + 1",
            UnsupportedConstructError,
            r"operator on the whole array a: write a loop, .*, <written \d+>:3",
        ),
        ("1 - a", UnsupportedConstructError, "operator on the whole array a"),
        ("a * a", UnsupportedConstructError, "operator on the whole array a"),
        ("-a", UnsupportedConstructError, "operator on the whole array a"),
        ("a < 1", UnsupportedConstructError, "operator on the whole array a"),
        ("a == a", UnsupportedConstructError, "operator on the whole array a"),
        ("not a", UnsupportedConstructError, "operator on the whole array a"),
        ("np.sin(a)", UnsupportedConstructError, r"np\.sin of an array without an output array"),
        ("a.copy()", UnsupportedConstructError, "copy of a"),
        ("a.astype(np.int32)", UnsupportedConstructError, "astype of a"),
        ("a.sum(0)", UnsupportedConstructError, "sum along an axis"),
        ("a.T.ravel()", UnsupportedConstructError, "ravel of a, which is not C-contiguous"),
        ("a[:, 1].view(np.int64)", UnsupportedConstructError, "view of a, whose last axis is not contiguous"),
        ("np.sin(a, a[0])", KernelError, "a must have the shape of the part of a"),
        ("a[:, 0:2][0:1].__len__", KernelError, "has no attribute"),
        ("np.sin(a, a[:, 0:2])", KernelError, "a must have the shape of the part of a"),
        (
            "np.bitwise_and(1.5, 2)",
            KernelError,
            r"np\.bitwise_and has no loop for \(float64, int64\) in Numba",
        ),
        ("a.view(np.complex128)", KernelError, "must hold whole elements of complex128"),
        ("a.item()", KernelError, "item\\(\\) needs an array of one element"),
        ("a.reshape(5)", KernelError, "must be reshaped to 6 elements"),
        ("a.flat[6]", KernelError, "out of bounds"),
        ("a.flat[-1]", KernelError, "out of bounds"),
        ("a.transpose(0, 0)", KernelError, "must be a permutation"),
    ],
)
def test_what_arrays_lack_is_refused_with_the_reason(text, error, message):
    kernel = written(f"def kernel(out, a):\n out[0] = 1\n x = {text}\n")
    with pytest.raises(error, match=message):
        run(kernel, np.zeros(1), np.ones((2, 3), np.float32), threads=1)
