"""Floating-point numbers become integers as on a GPU, for every pair of types, in range and out of it.

`INSTRUCTIONS` is the PTX that Numba emits for compute capability 9.0; `by_ptx` says in plain integers what the PTX ISA
says of those instructions.
"""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.language.control import range_bounds
from paged_numba.lockstep.machine.arithmetic import convert

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
INSTRUCTIONS = {
    ("float16", "int8"): "cvt.rni.s8.f16",
    ("float16", "uint8"): "cvt.rni.u8.f16",
    ("float32", "int8"): "cvt.rzi.s16.f32",
    ("float32", "uint8"): "cvt.rzi.u16.f32",
    ("float64", "int8"): "cvt.rzi.s16.f64",
    ("float64", "uint8"): "cvt.rzi.u16.f64",
    **{
        (source, target): f"cvt.{'rni' if source == 'float16' else 'rzi'}."
        f"{target[0].replace('i', 's')}{target.lstrip('uint')}.f{source[5:]}"
        for source in FLOATS
        for target in INTEGERS[2:]
    },
}
POWERS = [7, 8, 15, 16, 23, 24, 31, 32, 52, 53, 62, 63, 64, 65, 127]
EDGES = sorted({
    sign * (2.0**power + offset)
    for power in POWERS for offset in (-1, -0.5, 0, 0.5, 1, 2, 700) for sign in (-1, 1)
} | {0.0, 0.5, 1.5, 2.5, -0.5, -0.9, -1.5, -2.5, 300.7, 1e20, -1e20, 1e300, -1e300, 1.8446744073709550e19,
     2.147483648e9, math.inf, -math.inf})  # fmt: skip
EDGES = [math.nan, -0.0, *EDGES, *(math.nextafter(2.0**power, 0) for power in POWERS)]


def by_ptx(value, source, target):
    """Convert the float `value`, of type `source`, to the integer that a GPU stores as `target`."""
    rounding, kind, bits = re.match(r"cvt\.(rni|rzi)\.(s|u)(\d+)", INSTRUCTIONS[source, target]).groups()
    bits = int(bits)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind == "s" else (0, 2**bits - 1)
    if math.isnan(value):
        number = 2 ** (bits - 1) if source == "float64" or bits == 64 else 0
    elif math.isinf(value):
        number = most if value > 0 else least
    else:
        whole = round(value) if rounding == "rni" else math.trunc(value)
        number = min(max(whole, least), most)
    width = int(target.lstrip("uint"))
    number %= 2**width
    return number - 2**width if target[0] == "i" and number >= 2 ** (width - 1) else number


def test_the_oracle_by_hand():
    assert by_ptx(300.7, "float32", "uint8") == 300 - 256  # u16 holds 300, its low byte 44
    assert by_ptx(70000.0, "float32", "uint8") == 255  # saturates at 65535
    assert by_ptx(200.0, "float32", "int8") == 200 - 256
    assert by_ptx(-40000.0, "float64", "int8") == 0  # -32768 is 0x8000
    assert by_ptx(1e20, "float64", "int32") == 2**31 - 1
    assert by_ptx(-1.0, "float32", "uint64") == 0
    assert by_ptx(2.5, "float16", "int32") == 2
    assert by_ptx(3.5, "float16", "int32") == 4
    assert by_ptx(2.9, "float32", "int32") == 2
    assert by_ptx(math.nan, "float32", "int32") == 0
    assert by_ptx(math.nan, "float64", "int32") == -(2**31)
    assert by_ptx(math.nan, "float32", "uint64") == 2**63


def numba_types():
    """Return Numba's types: numba-cuda has its own; Numba's own CUDA target, without it, those of the CPU."""
    own = pytest.importorskip("numba.cuda").types
    return own if hasattr(own, "float32") else pytest.importorskip("numba").types


@pytest.mark.parametrize("source", FLOATS)
def test_numba_emits_these_instructions(source):
    numba_cuda = pytest.importorskip("numba.cuda")

    def stores(x, a, b, c, d, e, f, g, h):
        a[0] = b[0] = c[0] = d[0] = e[0] = f[0] = g[0] = h[0] = x[0]

    types = numba_types()
    signature = types.void(*(getattr(types, name)[::1] for name in (source, *INTEGERS)))
    try:
        ptx, _ = numba_cuda.compile_ptx(stores, signature, cc=(9, 0))
    except Exception as error:
        pytest.skip(f"Numba compiles no PTX here: {error}")
    assert set(re.findall(r"cvt\.r[nz]i\.\S+", ptx)) == {INSTRUCTIONS[source, name] for name in INTEGERS}


def converted(values, source, target):
    return np.array([by_ptx(float(value), source, target) for value in values.astype(source)], target)


PAIRS = [(source, target) for source in FLOATS for target in INTEGERS]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_conversion_gives_what_the_ptx_gives(source, target):
    with np.errstate(all="ignore"):
        values = np.array(EDGES).astype(source)
        expected = converted(values, source, target)
        np.testing.assert_array_equal(convert(values, np.dtype(target)), expected)
        for value, wanted in zip(values, expected, strict=True):
            alone = convert(value, np.dtype(target))
            assert alone == wanted
            assert alone.dtype == target
            assert not isinstance(alone, np.ndarray)


@settings(max_examples=200)
@given(pair=st.sampled_from(PAIRS), value=st.floats(width=64))
@example(pair=("float32", "int32"), value=1e20)
def test_any_float_is_converted_as_the_ptx_does(pair, value):
    source, target = pair
    with np.errstate(all="ignore"):
        value = np.float64(value).astype(source)
        assert convert(value, np.dtype(target)) == by_ptx(float(value), source, target)


record = np.dtype([("number", np.int32), ("other", np.float32)])


@cuda.jit
def everywhere(x, casts, stores, shorts, bytes_, sums, swapped, added, locals_, shares, records, filled):
    """Every way in which a float can become an integer."""
    i = cuda.grid(1)
    casts[i] = np.int32(x[i])
    stores[i] = x[i]
    shorts[i] = x[i]
    bytes_[i] = np.uint8(x[i])
    sums[i] += x[i]
    cuda.atomic.exch(swapped, i, x[i])
    cuda.atomic.add(added, i, x[i])
    mine = cuda.local.array(2, np.int32)
    mine[0] = x[i]
    mine[i % 2] = x[i]
    locals_[i] = mine[i % 2]
    tile = cuda.shared.array(128, np.int32)
    tile[cuda.threadIdx.x] = x[i]
    shares[i] = tile[cuda.threadIdx.x]
    records[i].number = x[i]
    filled[i, :] = x[i]


def in_reverse(*launch):
    with lockstep.options(order="reverse"):
        lockstep.launch(*launch)


@pytest.mark.parametrize("threads", [1, 7, 128])
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_casts_stores_and_atomics_convert_alike(source, threads):
    with np.errstate(all="ignore"):
        x = np.array(EDGES).astype(source)
    x = x[: x.size // threads * threads]
    for run in (lockstep.launch, in_reverse, lockstep.profile, lockstep.sanitize):
        outs = [
            np.zeros(x.size, name) for name in "int32 int32 int16 uint8 int32 int32 int32 int32 int32".split()
        ]
        records, filled = np.zeros(x.size, record), np.zeros((x.size, 2), np.int32)
        run(everywhere, x.size // threads, threads, x, *outs, records, filled)
        for place, out in enumerate(outs):
            # int32 + float32 is float64.
            given = "float64" if place == 4 else source
            np.testing.assert_array_equal(out, converted(x, given, out.dtype.name))
        np.testing.assert_array_equal(records["number"], outs[0])
        np.testing.assert_array_equal(filled, np.stack([outs[0]] * 2, axis=1))


@cuda.jit
def to_int(x, out, rounded):
    i = cuda.grid(1)
    out[i] = int(x[i])
    rounded[i] = round(x[i])


@pytest.mark.parametrize("source", FLOATS)
def test_int_and_round_give_int64(source):
    with np.errstate(all="ignore"):
        x = np.array(EDGES).astype(source)
    out, rounded = np.zeros(x.size, np.int64), np.zeros(x.size, np.int64)
    lockstep.launch(to_int, 1, x.size, x, out, rounded)
    np.testing.assert_array_equal(out, converted(x, source, "int64"))
    # Numba rounds in float64, whatever the type: cvt.rni.s64.f64.
    nearest = [by_ptx(value if math.isnan(value) or math.isinf(value) else round(value), "float64", "int64")
               for value in x.astype(float).tolist()]  # fmt: skip
    np.testing.assert_array_equal(rounded, nearest)


@cuda.jit
def one_thread_stores(x, out):
    if cuda.grid(1) == 0:
        out[0] = x[0]
    out[1] = 1e20
    out[2] = math.nan
    out[3] = 2**40 + 5


def test_one_thread_may_store_any_number():
    out = np.zeros(4, np.int32)
    for value, stored in ((1e20, 2**31 - 1), (-1e20, -(2**31)), (math.nan, -(2**31)), (math.inf, 2**31 - 1)):
        lockstep.launch(one_thread_stores, 1, 1, np.array([value]), out)
        np.testing.assert_array_equal(out, [stored, 2**31 - 1, -(2**31), 5])


# range()


@cuda.jit
def over_floats(out, n):
    for i in range(math.ceil(n / 2)):
        out[0] += i
    for i in range(0.9, np.float32(n), 1.5):
        out[1] += i
    for _ in range(2.9):
        out[2] += 1


def test_a_range_takes_floats_and_truncates_them():
    out = np.zeros(3, np.int64)
    lockstep.launch(over_floats, 1, 1, out, 7)
    np.testing.assert_array_equal(out, [0 + 1 + 2 + 3, 0 + 1 + 2 + 3 + 4 + 5 + 6, 2])


TYPES = ["boolean", *INTEGERS, *FLOATS]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
def test_the_index_of_a_range_has_the_type_that_numba_gives_it(names):
    context = pytest.importorskip("numba.cuda.descriptor").cuda_target.typing_context
    context.refresh()  # loads the functions, unless something has been typed before
    types = numba_types()
    signature = context.resolve_function_type(range, tuple(getattr(types, name) for name in names), {})
    bounds = tuple(np.dtype(name.replace("boolean", "bool")).type(1) for name in names)
    assert f"range_state_{range_bounds(bounds)[1].dtype}" == str(signature.return_type)
