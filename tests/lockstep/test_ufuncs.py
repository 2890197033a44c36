"""Functions of arrays: `vectorize`, `guvectorize`, `reduce` and random numbers, against NumPy and Numba."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from paged_numba.lockstep.cuda import facade as cuda

F32, F64, I32 = np.float32, np.float64, np.int32


@cuda.vectorize(
    ["float32(float32, float32)", "float64(float64, float64)", cuda.int32(cuda.int32, cuda.int32)]
)
def subtract(a, b):
    return a - b


SHAPES = st_numpy.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3)


@settings(max_examples=25)
@given(shapes=SHAPES, dtype=st.sampled_from([F32, F64, I32]), where=st.integers(0, 3))
def test_vectorize_broadcasts_as_numpy_does(shapes, dtype, where):
    a, b = (3 * np.arange(math.prod(shape), dtype=dtype) for shape in shapes.input_shapes)
    a, b = a.reshape(shapes.input_shapes[0]), b.reshape(shapes.input_shapes[1])
    given_a = cuda.to_device(a) if where & 1 else a
    given_b = cuda.to_device(b) if where & 2 else b
    found = subtract(given_a, given_b)
    assert isinstance(found, cuda.DeviceArray) == bool(where)
    assert (found.dtype, found.shape) == (dtype, shapes.result_shape)
    np.testing.assert_array_equal(np.asarray(found), a - b)


def test_vectorize_takes_numbers_outputs_and_streams():
    x = np.arange(4, dtype=F32)
    np.testing.assert_array_equal(subtract(x, 1), x - 1)
    out = np.empty(4, F32)
    assert subtract(x, F32(2), out=out, stream=cuda.stream()) is out
    np.testing.assert_array_equal(out, x - 2)
    device = cuda.device_array((2, 2), F32)
    subtract(x.reshape(2, 2), x.reshape(2, 2), out=device)
    assert not device.copy_to_host().any()
    assert subtract.__name__ == "subtract"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(subtract))(x, x), 0 * x)


def test_types_of_vectorize_are_matched_exactly():
    with pytest.raises(TypeError, match="No matching version"):
        subtract(np.ones(3, F32), np.ones(3, F64))
    with pytest.raises(TypeError, match=r"ambiguous.*\(float32\), \(float64\)"):
        cuda.vectorize(["float32(float32)", "float64(float64)"])(negative)(np.array(1).item())
    with pytest.raises(ValueError, match="broadcast argument #1"):
        subtract(np.ones(3), np.ones(2))
    for without in (negative, []):
        with pytest.raises(TypeError, match="signatures"):
            cuda.vectorize(without)
    with pytest.raises(TypeError, match="caching"):
        cuda.vectorize(["f4(f4)"], cache=True)
    with pytest.raises(KeyError, match="fastmath"):
        cuda.vectorize(["f4(f4)"], fastmath=True)
    with pytest.warns(RuntimeWarning, match="redundant"):
        cuda.vectorize(["f4(f4)"], nopython=True)


def negative(a):
    return -a


def test_vectorize_infers_the_type_of_the_result():
    pytest.importorskip("numba.cuda")
    made = cuda.vectorize([(cuda.int32,)])(negative)
    assert made(np.arange(3, dtype=I32)).dtype == np.int64


@given(values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40))
def test_reduce_of_a_ufunc_halves_as_numba_does(values):
    x = np.array(values, F32)

    def halved(part):
        if part.size == 1:
            return part[0]
        if part.size % 2:
            return halved(part[:-1]) - part[-1]
        return halved(part[: part.size // 2] - part[part.size // 2 :])

    assert subtract.reduce(x.copy()) == halved(x)
    device = cuda.to_device(x)
    assert subtract.reduce(device) == halved(x)
    with pytest.raises(TypeError, match="empty"):
        subtract.reduce(x[:0])


@cuda.guvectorize(
    ["void(float32[:,:], float32[:], float32[:])", "void(f8[:,:], f8[:], f8[:])"], "(m,n),(n)->(m)"
)
def times(matrix, vector, out):
    for i in range(matrix.shape[0]):
        total = matrix.dtype.type(0)
        for j in range(matrix.shape[1]):
            total += matrix[i, j] * vector[j]
        out[i] = total


@settings(max_examples=20)
@given(
    loop=st.sampled_from([(), (1,), (3,), (2, 2)]),
    m=st.integers(1, 3),
    n=st.integers(1, 3),
    shared=st.booleans(),
)
def test_guvectorize_runs_once_for_each_item_of_the_stack(loop, m, n, shared):
    a = np.arange(math.prod(loop) * m * n, dtype=F32).reshape(*loop, m, n)
    v = np.arange(n, dtype=F32) if shared else np.arange(math.prod(loop) * n, dtype=F32).reshape(*loop, n)
    expected = np.einsum("...mn,...n->...m", a, v)
    np.testing.assert_array_equal(times(a, v), expected)
    found = times(cuda.to_device(a), v)
    assert isinstance(found, cuda.DeviceArray)
    np.testing.assert_array_equal(found.copy_to_host(), expected)
    out = np.zeros_like(expected)
    times(a, v, out)
    np.testing.assert_array_equal(out, expected)
    out = np.zeros_like(expected)
    times(a, v, out=out)
    np.testing.assert_array_equal(out, expected)


def test_guvectorize_with_numbers_and_several_outputs():
    @cuda.guvectorize(["void(f8, f8[:], f8[:], i4[:])"], "(),(n)->(n),()")
    def scaled(factor, x, out, count):
        for i in range(x.shape[0]):
            out[i] = factor * x[i]
        count[0] = x.shape[0]
        x[0] = -1  # which does not reach the host

    x = np.arange(6.0).reshape(2, 3)
    out, count = scaled(2.0, x)
    np.testing.assert_array_equal(out, [[0, 2, 4], [6, 8, 10]])
    np.testing.assert_array_equal(count, [3, 3])
    assert (count.dtype, x[0, 0]) == (I32, 0)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "3 positional arguments", lambda: times(np.ones((2, 2)))),
        (ValueError, "both positional and keyword", lambda: times(1, 2, 3, out=4)),
        (ValueError, "insufficient inner dimension", lambda: times(np.ones(2), np.ones(2))),
        (ValueError, "mismatch", lambda: times(np.ones((2, 2)), np.ones(3))),
        (ValueError, "outer dimension", lambda: times(np.ones((2, 2, 2)), np.ones((3, 2)))),
        (ValueError, "output shape", lambda: times(np.ones((2, 2)), np.ones(2), np.ones(3))),
        (TypeError, "no matching", lambda: times(np.ones((2, 2), np.int8), np.ones(2, np.int8))),
        (TypeError, "cannot return", lambda: cuda.guvectorize("f4(f4[:], f4[:])", "(n)->(n)")(negative)),
        (ValueError, "ndim>0 for scalar", lambda: cuda.guvectorize("(f4, f4[:])", "(n)->(n)")(times.py_func)),
        (NameError, "undefined output", lambda: cuda.guvectorize("(f4[:], f4[:])", "(n)->(m)")(negative)),
        (ValueError, "bad token", lambda: cuda.guvectorize("(f4[:], f4[:])", "(n->(n)")(negative)),
        (
            TypeError,
            "writable_args",
            lambda: cuda.guvectorize("(f4[:], f4[:])", "(n)->(n)", writable_args=(0,)),
        ),
        (TypeError, "'opt'", lambda: cuda.guvectorize("(f4[:], f4[:])", "(n)->(n)", opt=1)),
        (TypeError, "nopython", lambda: cuda.guvectorize("(f4[:], f4[:])", "(n)->(n)", nopython=False)),
        (
            ValueError,
            "Unsupported target",
            lambda: cuda.guvectorize("(f4[:], f4[:])", "(n)->(n)", target="cpu"),
        ),
    ],
)
def test_gufuncs_fail_with_numbas_types_of_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()


# Reductions.


def add(a, b):
    return a + b


def in_warp(x):
    """Combine 32 elements as the lanes of a warp do."""
    while x.size > 1:
        x = x[: x.size // 2] + x[x.size // 2 :]
    return x[0]


def in_one_block(x):
    """Combine fewer than 128 elements: full warps, but not the last one, by halves, the last one in sequence."""
    parts = [x[i : i + 32] for i in range(0, x.size, 32)]
    totals = [*map(in_warp, parts[:-1]), np.add.accumulate(parts[-1])[-1]]
    return np.add.accumulate(np.array(totals, x.dtype))[-1]


def reduced(x, init):
    """Combine elements in the order of Numba's kernels, written with NumPy; sequences are added by `accumulate`."""
    full = x.size // 128 * 128
    blocks = min(full // 128, 64)
    partials = []
    for block in range(blocks):
        rows = x[:full].reshape(-1, 128)[block::blocks]
        warps = [in_warp(lanes) for lanes in np.add.accumulate(rows)[-1].reshape(4, 32)]
        partials.append(x.dtype.type(warps[0] + warps[2]) + x.dtype.type(warps[1] + warps[3]))
    if full < x.size:
        partials.append(in_one_block(x[full:]))
    partials = np.array(partials, x.dtype)
    partials[0] += init
    return in_one_block(partials) if partials.size > 1 else partials[0]


@pytest.mark.parametrize("dtype", [F32, F64, I32])
@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 64, 65, 127, 128, 129, 300, 64 * 128 + 1, 20000])
def test_reduce_rounds_in_the_order_of_numba(dtype, size):
    x = (np.random.default_rng(size).standard_normal(size) * 100).astype(dtype)
    ours = cuda.reduce(add)
    for array in (x, cuda.to_device(x)):
        found = ours(array, init=3)
        assert (found, type(found)) == (reduced(x, dtype(3)), dtype)
    if dtype is F32 and size > 300:
        assert np.add.accumulate(x)[-1] + 3 != reduced(x, F32(3))  # the order shows


def test_reduce_takes_sizes_and_results():
    largest = cuda.Reduce(larger)
    x = np.arange(200.0)
    assert largest(x) == 199
    assert largest(x, size=10) == 9
    assert largest(x, init=1000) == 1000
    assert largest(x[:0], init=7) == 7
    out = cuda.to_device(np.zeros(2))
    assert largest(x, res=out) is None
    assert out.copy_to_host().tolist() == [199, 0]
    with pytest.raises(TypeError, match="1 axis"):
        largest(np.ones((2, 2)))


def larger(a, b):
    return max(a, b)


# Random numbers.

MASK = 2**64 - 1


def drawn(state):
    """Return the next draw of a state, two Python integers, and the state after it."""
    s0, s1 = state
    s1 ^= s0
    rotated = [(x << k | x >> 64 - k) & MASK for x, k in ((s0, 55), (s1, 36))]
    return sum(state) & MASK, (rotated[0] ^ s1 ^ (s1 << 14 & MASK), rotated[1])


def jumped(state):
    total = (0, 0)
    for word in (0xBEAC0467EBA5FACB, 0xD86B048B86AA9922):
        for bit in range(64):
            if word >> bit & 1:
                total = (total[0] ^ state[0], total[1] ^ state[1])
            state = drawn(state)[1]
    return total


@settings(max_examples=20)
@given(count=st.integers(0, 9), seed=st.integers(-(2**63), 2**64 - 1), start=st.integers(0, 6))
def test_states_lie_one_jump_apart(count, seed, start):
    made = (
        cuda.random.create_xoroshiro128p_states(count, seed, subsequence_start=start).copy_to_host().tolist()
    )
    if made:
        first = cuda.random.create_xoroshiro128p_states(1, seed).copy_to_host().tolist()[0]
        assert first[0] == first[1]
        for _ in range(start):
            first = jumped(first)
        assert made[0] == first
    assert all(later == jumped(state) for state, later in pairwise(made))


@cuda.jit
def draw(states, raw, uniform):
    i = cuda.grid(1)
    if i < raw.shape[0]:
        for k in range(raw.shape[1]):
            raw[i, k] = cuda.random.xoroshiro128p_next(states, i)
        cuda.random.xoroshiro128p_jump(states, i)
        uniform[i] = cuda.random.xoroshiro128p_uniform_float64(states, i)


def test_draws_and_jumps_in_kernels_are_those_of_the_generator():
    states = cuda.random.create_xoroshiro128p_states(5, seed=3)
    first = states.copy_to_host().tolist()
    raw, uniform = np.zeros((5, 4), np.uint64), np.zeros(5)
    draw[2, 3](states, raw, uniform)
    for i, state in enumerate(first):
        for k in range(4):
            value, state = drawn(state)
            assert raw[i, k] == value
        assert uniform[i] == (drawn(jumped(state))[0] >> 11) * 2.0**-53


@cuda.jit
def draw_ours(states, f32, f64, n32, n64):
    i = cuda.grid(1)
    f32[i] = cuda.random.xoroshiro128p_uniform_float32(states, i)
    f64[i] = cuda.random.xoroshiro128p_uniform_float64(states, i)
    n32[i] = cuda.random.xoroshiro128p_normal_float32(states, i)
    n64[i] = cuda.random.xoroshiro128p_normal_float64(states, i)


def test_draws_are_those_of_numbas_own_source():
    theirs = pytest.importorskip("numba.cuda.random")

    @cuda.jit
    def draw_theirs(states, f32, f64, n32, n64):
        i = cuda.grid(1)
        f32[i] = theirs.xoroshiro128p_uniform_float32(states, i)
        f64[i] = theirs.xoroshiro128p_uniform_float64(states, i)
        n32[i] = theirs.xoroshiro128p_normal_float32(states, i)
        n64[i] = theirs.xoroshiro128p_normal_float64(states, i)

    found = []
    for kernel in (draw_ours, draw_theirs):
        states = cuda.random.create_xoroshiro128p_states(64, seed=1)
        made = [np.zeros(64, dtype) for dtype in (F32, F64, F32, F64)]
        kernel[2, 32](states, *made)
        found.append([*made, states.copy_to_host()])
    for ours, other in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, other)
    assert abs(found[0][3].mean()) < 0.5
    assert (found[0][0] != found[0][0][0]).any()
