"""Types of Numba that are no plain numbers: operators against Numba's typing, values against Python and NumPy."""

import enum
import itertools
import math
import operator
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.errors import CompilationError, KernelError, UnsupportedConstructError
from paged_numba.lockstep.language.types.directed import rounded
from paged_numba.lockstep.language.types.libdevice import ABSENT, LIBDEVICE

sys.path.insert(0, str(Path(__file__).parent))
from written_kernels import written

cuda = pytest.importorskip("numba.cuda", reason="Numba is not installed")


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


# Which operators there are: lockstep refuses what Numba's type inference refuses.

VALUES = {
    "day": np.zeros(2, "M8[D]"),
    "second": np.zeros(2, "M8[s]"),
    "days": np.ones(2, "m8[D]"),
    "seconds": np.ones(2, "m8[s]"),
    "integer": np.ones(2, np.int64),
    "number": np.ones(2, np.float32),
    "text": np.zeros(2, "U3"),
    "color": Color.RED,
    "level": Level.LOW,
    "pair": (1, 2),
    "triple": (1.5, 2, 3),
}


def item(name):
    return f"{name}[0]" if isinstance(VALUES[name], np.ndarray) else name


def runs(kernel, *arguments):
    try:
        lockstep.launch(kernel, 1, 2, *arguments)
    except KernelError:
        return False
    return True


def compiles(kernel, *arguments):
    try:
        lockstep.check_compiles(kernel, arguments)
    except CompilationError as error:
        return False if "CUDA driver" not in str(error) and "driver init" not in str(error) else None
    return True


def written_with(names, text):
    return written(f"def kernel({', '.join(names)}):\n    {text}\n")


@pytest.mark.parametrize("symbol", ["+", "-", "*", "<"])
def test_an_operator_runs_if_numba_types_it(symbol):
    special = [name for name in VALUES if name not in ("integer", "number")]
    for a, b in itertools.product(VALUES, VALUES):
        # NumPy takes an integer for a duration where Numba refuses it.
        lenient = (
            {a, b} & {"days", "seconds"} and {a, b} & {"integer", "number", "level"} and symbol in "<>=/*"
        )
        if (a not in special and b not in special) or "text" in (a, b) or lenient:
            continue
        arguments = VALUES[a], VALUES[b]
        kernel = written_with(("a", "b"), f"{item(a).replace(a, 'a')} {symbol} {item(b).replace(b, 'b')}")
        wanted = compiles(kernel, *arguments)
        if wanted is not None:
            assert runs(kernel, *arguments) == wanted, (a, symbol, b)


def test_a_unit_is_not_converted_by_a_store():
    names = "day", "second", "days", "seconds", "integer"
    for a, b in itertools.product(names, names):
        kernel = written_with(("a", "b"), "a[0] = b[0]")
        arguments = VALUES[a].copy(), VALUES[b]
        assert runs(kernel, *arguments) == compiles(kernel, *arguments) == (a == b)


# Tuples.

NUMBERS = st.integers(-1, 1)
TUPLES = st.recursive(
    st.lists(NUMBERS, min_size=8, max_size=8),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
"""Tuples of numbers by lane: a list holds the numbers of 8 lanes."""


def of_lane(value, lane):
    return value[lane] if isinstance(value, list) else tuple(of_lane(part, lane) for part in value)


def lane_tuple(value):
    from paged_numba.lockstep.machine.arithmetic import LaneTuple

    return np.array(value) if isinstance(value, list) else LaneTuple(map(lane_tuple, value))


def shape_of(value):
    return () if isinstance(value, list) else [shape_of(part) for part in value]


@given(data=st.data(), name=st.sampled_from(("eq", "ne", "lt", "le", "gt", "ge")))
def test_tuples_compare_by_lane_as_in_python(data, name):
    a = data.draw(st.lists(TUPLES, max_size=3).map(tuple))
    # Another tuple of the same nesting, perhaps shorter, with other numbers.
    b = data.draw(st.just(a).map(lambda x: x[: len(x) - (len(x) > 2)]).flatmap(renumbered))
    compare = getattr(operator, name)
    result = np.broadcast_to(compare(lane_tuple(a), lane_tuple(b)), 8)
    assert result.tolist() == [compare(of_lane(a, lane), of_lane(b, lane)) for lane in range(8)]


def renumbered(value):
    if isinstance(value, list):
        return st.lists(NUMBERS, min_size=8, max_size=8)
    return st.tuples(*map(renumbered, value))


@pytest.mark.parametrize(
    "text", ["x[0] = (1, 2) == x[0]", "x[0] = x[0] < (1, 2)", "x[0] = x.shape == 4", "x[0] = 4 != x.shape"]
)
def test_a_number_does_not_compare_with_a_tuple(text):
    with pytest.raises(KernelError, match="compares a tuple only with a tuple"):
        lockstep.launch(written_with("x", text), 1, 8, np.zeros(4))


# Records.

SCALARS = st.sampled_from(("i1", "u2", "i4", "f4", "f8", "c8", "M8[s]", "S3"))
FIELDS = st.recursive(
    st.tuples(SCALARS, st.sampled_from(((), (2,), (2, 3)))),
    lambda inner: st.tuples(st.lists(inner, min_size=1, max_size=3), st.sampled_from(((), (2,)))),
    max_leaves=5,
)


def dtype_of(field, aligned):
    base, shape = field
    if isinstance(base, list):
        base = np.dtype([(f"f{i}", dtype_of(part, aligned)) for i, part in enumerate(base)], align=aligned)
    return np.dtype((base, shape)) if shape else np.dtype(base)


@given(st.lists(FIELDS, min_size=1, max_size=3), st.booleans(), st.permutations(range(8)), st.randoms())
def test_records_of_any_dtype_are_assigned_whole(fields, aligned, order, random):
    dtype = dtype_of((fields, ()), aligned)
    # Small bytes are valid in every type.
    source = np.frombuffer(bytes(random.randrange(1, 60) for _ in range(8 * dtype.itemsize)), dtype).copy()
    out = np.zeros(16, dtype)[::2]
    kernel = written(
        "def kernel(out, source, order):\n    i = cuda.threadIdx.x\n    if i % 3:\n        out[i] = source[order[i]]\n"
    )
    lockstep.launch(kernel, 1, 8, out, source, np.array(order))
    chosen = np.arange(8) % 3 > 0
    expected = np.where(chosen, source[list(order)], np.zeros(8, dtype))
    np.testing.assert_array_equal(out, expected)


def test_a_record_of_another_type_is_refused():
    a, b = np.zeros(2, [("x", "i4")]), np.zeros(2, [("y", "f4"), ("x", "i4")])
    with pytest.raises(KernelError, match="a holds records of"):
        lockstep.launch(written_with(("a", "b"), "a[0] = b[0]"), 1, 1, a, b)
    longer = np.ones(2, [("x", "i4"), ("y", "f4")])
    lockstep.launch(written_with(("a", "b"), "a[0] = b[0]"), 1, 1, a, longer)
    assert a["x"].tolist() == [1, 0]


@pytest.mark.parametrize("text", ["a['v'] = 1", "a[0].v = (1, 2)", "a[0]['v'] = 2.5", "a.v = 3"])
def test_a_field_that_is_an_array_takes_an_array_only(text):
    with pytest.raises(KernelError, match=r"the field 'v' of a is an array and takes an array"):
        lockstep.launch(written_with("a", text), 1, 1, np.zeros(2, [("v", "f4", 2)]))
    records = np.zeros(2, [("v", "f4", 2)])
    lockstep.launch(written_with("a", "a['v'][0][:] = 4; a[1].v = a[0].v"), 1, 1, records)
    assert (records["v"] == 4).all()


# Statements.

MATCH = """\
def chosen(x, y):
    match x * 2 + y:
        case 0 | 3:
            return 1
        case -1 as low if y > 0:
            return low * 7
        case 5:
            match y:
                case 1:
                    return 2
            return 4
        case other if other > 4:
            return other
    return 100
"""


def test_match_chooses_as_in_python():
    kernel = written(
        MATCH.replace("def", "@cuda.jit(device=True)\ndef", 1)
        + "def kernel(out):\n    i = cuda.threadIdx.x\n    out[i] = chosen(i // 8 - 4, i % 8 - 4)\n"
    )
    out = np.zeros(64, np.int64)
    lockstep.launch(kernel, 1, 64, out)
    space = {}
    exec(MATCH, space)
    assert out.tolist() == [space["chosen"](i // 8 - 4, i % 8 - 4) for i in range(64)]


@pytest.mark.parametrize("pattern", ["(0, a)", "[a]", "{'x': a}", "int(a)"])
def test_a_pattern_that_takes_its_subject_apart_is_refused_by_name(pattern):
    with pytest.raises(UnsupportedConstructError, match="takes its subject apart"):
        lockstep.launch(
            written(f"def kernel(x):\n    match x[0]:\n        case {pattern}:\n            pass\n"),
            1,
            1,
            np.ones(1),
        )


class PickyError(Exception):
    def __init__(self, a, b):
        raise AssertionError("not called")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("raise ValueError('no')", ValueError),
        ("raise LookupError", LookupError),
        ("raise PickyError(1, 2)", PickyError),
        ("raise OSError('no')", KernelError),
        ("assert x[0] > 5, 'no'", AssertionError),
    ],
)
def test_an_error_of_the_kernel_is_of_its_own_class_too(text, kind):
    with pytest.raises(kind, match=r"thread 0 of thread block 0, .*:2$") as caught:
        lockstep.launch(written(f"def kernel(x):\n    {text}\n", PickyError=PickyError), 1, 2, np.ones(1))
    assert isinstance(caught.value, KernelError)


def test_print_has_the_formats_of_numba(capsys):
    kernel = written(
        "def kernel(x, t, flag):\n"
        "    i = cuda.threadIdx.x\n"
        "    if i > 0:\n"
        "        print(i, 'hop', x[i], t, flag, cuda.blockIdx, np.uint8(7), (), (i,))\n"
    )
    lockstep.launch(kernel, 1, 3, np.array([0, 34.75, np.nan], np.float32), (1, (2, 0.5)), True)
    rest = "(1, (2, 0.500000)) True (0, 0, 0) 7 ()"
    assert capsys.readouterr().out.splitlines() == [f"1 hop 34.750000 {rest} (1,)", f"2 hop nan {rest} (2,)"]


@pytest.mark.parametrize(
    "kind", ["int", "float", "bool", "tuple", "str", "np.float32", "np.int64", "(np.int8, complex)"]
)
def test_isinstance_answers_as_numba(kind):
    values = {
        "1": 1,
        "x": 2.5,
        "np.float32(x)": 0,
        "np.int8(x)": 0,
        "True": 0,
        "(1, x)": 0,
        "'a'": 0,
        "x * 1j": 0,
    }
    for value in values:
        kernel = written_with(("out", "x"), f"out[0] = 1 if isinstance({value}, {kind}) else 0")
        out = np.zeros(1)
        lockstep.launch(kernel, 1, 1, out, 2.5)
        given = eval(value.replace("np.", "numpy."), {"numpy": np, "x": np.float64(2.5)})
        given = np.int64(1) if given == 1 and value == "1" else given
        types = {int: np.integer, float: np.floating, bool: np.bool_, complex: np.complexfloating}
        wanted = eval(kind, {"np": np})
        wanted = tuple(types.get(one, one) for one in (wanted if isinstance(wanted, tuple) else (wanted,)))
        given = np.bool_(given) if isinstance(given, bool) else given
        given = np.complex128(given) if isinstance(given, complex) else given
        assert out[0] == isinstance(given, wanted), value


# libdevice.


def test_libdevice_has_the_names_and_types_of_numba():
    from numba.cuda.libdevicefuncs import create_signature, functions

    assert {name.removeprefix("__nv_") for name in functions} == set(LIBDEVICE) | set(ABSENT)
    with np.errstate(all="ignore"):
        for name, (result, parameters) in functions.items():
            if (plain := name.removeprefix("__nv_")) in ABSENT:
                continue
            signature = create_signature(result, parameters)
            given = [np.array([1, 3]).astype(str(kind)) for kind in signature.args]
            found = LIBDEVICE[plain].function(*given)
            wanted = signature.return_type
            assert [part.dtype.name for part in (found if isinstance(found, tuple) else [found])] == (
                list(map(str, wanted)) if isinstance(found, tuple) else [str(wanted)]
            ), plain


@pytest.mark.parametrize(
    ("inverse", "function", "low", "high"),
    [
        ("erfinv", math.erf, -0.99, 0.99),
        ("erfcinv", math.erfc, 1e-200, 1.99),
        ("normcdfinv", lambda x: math.erfc(-x / math.sqrt(2)) / 2, 1e-6, 0.99),
    ],
)
def test_inverse_functions_invert(inverse, function, low, high):
    points = np.concatenate([np.linspace(low, high, 200), np.geomspace(max(low, 1e-6), high, 200)])
    found = LIBDEVICE[inverse].function(points)
    np.testing.assert_allclose([function(x) for x in found], points, rtol=1e-11)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_integer_functions_agree_with_integers_of_python(a, b):
    def call(name, *values):
        return int(LIBDEVICE[name].function(*map(np.int32, values)))

    unsigned, signed = (lambda x: x % 2**32), (lambda x: (x + 2**31) % 2**32 - 2**31)
    assert call("mulhi", a, b) == a * b >> 32
    assert call("umulhi", a, b) == signed(unsigned(a) * unsigned(b) >> 32)
    assert call("hadd", a, b) == (a + b) >> 1
    assert call("urhadd", a, b) == signed((unsigned(a) + unsigned(b) + 1) >> 1)
    assert call("sad", a, b, 5) == signed(abs(a - b) + 5)
    wide, other = np.int64(a * 2**32 + unsigned(b)), np.int64(b * 2**31 - a)
    product = int(wide) * int(other)
    assert int(LIBDEVICE["mul64hi"].function(wide, other)) == product >> 64
    source = unsigned(a).to_bytes(4, "little") + unsigned(b).to_bytes(4, "little")
    picked = bytes(source[7 - place] for place in range(4))
    assert unsigned(call("byte_perm", a, b, 0x4567)) == int.from_bytes(picked, "little")


@given(
    st.floats(width=32, allow_nan=False),
    st.floats(width=32, allow_nan=False),
    st.sampled_from(("fadd", "fmul", "fdiv", "fsub")),
)
def test_directed_rounding_encloses_the_exact_result(a, b, name):
    exact = {"fadd": operator.add, "fsub": operator.sub, "fmul": operator.mul, "fdiv": operator.truediv}[name]
    with np.errstate(all="ignore"):
        down, up, near, zero = (
            float(LIBDEVICE[f"{name}_{way}"].function(np.float32(a), np.float32(b)))
            for way in ("rd", "ru", "rn", "rz")
        )
    if math.isnan(near) or not (math.isfinite(a) and math.isfinite(b)) or (name == "fdiv" and b == 0):
        return
    value = exact(Fraction(a), Fraction(b))
    assert down <= value <= up
    assert up == down or np.nextafter(np.float32(down), np.float32(np.inf)) == np.float32(up)
    assert zero == (down if value > 0 else up)
    assert (down == up) == (down == value)
    assert near in (down, up)


@given(st.integers(1, 2**70), st.integers(1, 2**70), st.sampled_from(("rn", "rz", "rd", "ru")))
def test_a_fraction_is_rounded_as_numpy_rounds_to_nearest(a, b, way):
    value = rounded(Fraction(a, b), np.dtype(np.float64), way)
    if way == "rn":
        assert value == a / b  # Python divides integers exactly, and rounds once
    else:
        assert (Fraction(value) >= Fraction(a, b)) if way == "ru" else (Fraction(value) <= Fraction(a, b))


# bfloat16.


def test_bfloat16_rounds_as_ml_dtypes_and_in_every_direction():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from paged_numba.lockstep.language.types.bfloat16 import rounded

    generator = np.random.default_rng(0)
    x = generator.normal(size=4000) * 10.0 ** generator.uniform(-44, 39, 4000)
    x = np.concatenate([x, [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1.17e-38, 257, 258.99]])
    with np.errstate(all="ignore"):
        single = x.astype(np.float32)
        near = single.astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(
            rounded(single).view(np.uint16)[~np.isnan(x)], near.view(np.uint16)[~np.isnan(x)]
        )
        down, up, zero = (rounded(x, way).astype(np.float64) for way in ("rd", "ru", "rz"))
    known = ~np.isnan(x)
    assert ((down <= x) & (x <= up))[known].all()
    np.testing.assert_array_equal(zero[known], np.where(np.signbit(x), up, down)[known])


def test_bfloat16_arithmetic_in_a_kernel_rounds_after_each_operation():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    generator = np.random.default_rng(1)
    a, b = (generator.normal(size=64).astype(ml_dtypes.bfloat16) for _ in range(2))
    out = np.zeros_like(a)
    kernel = written(
        "def kernel(out, a, b):\n"
        "    i = cuda.grid(1)\n"
        "    tile = cuda.shared.array(32, a.dtype)\n"
        "    tile[cuda.threadIdx.x] = a[i]\n"
        "    if i < 40:\n"
        "        out[i] = tile[cuda.threadIdx.x] * b[i] + cuda.bfloat16(1.5)\n"
    )
    lockstep.launch(kernel, 2, 32, out, a, b)
    expected = (a * b + ml_dtypes.bfloat16(1.5)).astype(np.float32)
    np.testing.assert_array_equal(out.astype(np.float32), np.where(np.arange(64) < 40, expected, 0))


@pytest.mark.parametrize(("kind", "name"), [("fp8_e5m2", "float8_e5m2"), ("fp8_e4m3", "float8_e4m3fn")])
def test_fp8_rounds_to_the_nearest_number_and_saturates(kind, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from paged_numba.lockstep.language.types.fp8 import FP8

    dtype = np.dtype(getattr(ml_dtypes, name))
    codes = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    numbers = np.unique(codes[np.isfinite(codes)])
    generator = np.random.default_rng(2)
    x = np.concatenate([generator.normal(size=500) * 10.0 ** generator.uniform(-9, 9, 500), numbers])
    x = np.concatenate([x, (numbers[1:] + numbers[:-1]) / 2, [np.inf, -np.inf, 1e300]])
    found = FP8[kind].function(x).astype(np.float64)
    distance = np.abs(found - np.clip(x, numbers[0], numbers[-1]))
    nearest = np.abs(np.clip(x, numbers[0], numbers[-1])[:, None] - numbers).min(axis=1)
    np.testing.assert_array_equal(distance, nearest)
    # Ties go to the even code.
    middle = FP8[kind].function((numbers[1:] + numbers[:-1]) / 2)
    assert (middle.view(np.uint8) % 2 == 0).all()
    assert np.isnan(FP8[kind].function(np.array([np.nan])).astype(np.float32)).all()


def test_e8m0_holds_powers_of_two_and_refuses_negative_numbers():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kernel = written(
        "def kernel(out, x):\n    i = cuda.threadIdx.x\n    if i < 6:\n        out[i] = np.float32(e8m0(x[i]))\n",
        e8m0=cuda_fp8().fp8_e8m0,
    )
    x = np.array([0.75, 1.0, 1.01, 3e38, np.inf, 0, -1], np.float32)
    out = np.zeros(7, np.float32)
    if not hasattr(ml_dtypes, "float8_e8m0fnu"):
        with pytest.raises(UnsupportedConstructError, match=r"install ml_dtypes 0\.5"):
            lockstep.launch(kernel, 1, 7, out, x)
        return
    lockstep.launch(kernel, 1, 7, out, x)
    assert out.tolist() == [1, 1, 2, 2.0**127, 2.0**127, 2.0**-127, 0]
    x[2] = -0.5
    with pytest.raises(UnsupportedConstructError, match="a negative number to e8m0"):
        lockstep.launch(kernel, 1, 7, out, x)


def cuda_fp8():
    return pytest.importorskip("numba.cuda._internal.cuda_fp8")
