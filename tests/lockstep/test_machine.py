"""How grids run: batches, order, memory, dirty shared memory, printing, and kernels like those of public tutorials."""

import functools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.errors import LaunchError
from paged_numba.lockstep.cuda import facade as cuda

TILE = 4


@cuda.jit
def block_sums(out, x):
    tile = cuda.shared.array(64, np.float64)
    t = cuda.threadIdx.x
    i = cuda.grid(1)
    tile[t] = x[i] if i < x.size else 0
    cuda.syncthreads()
    stride = 32
    while stride > 0:
        if t < stride:
            tile[t] += tile[t + stride]
        cuda.syncthreads()
        stride //= 2
    if t == 0:
        out[cuda.blockIdx.x] = tile[0]


@given(
    size=st.integers(1, 700),
    max_lanes=st.sampled_from((1, 64, 65, 200, 1 << 15)),
    memory_budget=st.sampled_from((1, 2048, 1 << 20)),
    order=st.sampled_from(("together", "forward", "reverse")),
)
def test_results_do_not_depend_on_batches_memory_or_order(size, max_lanes, memory_budget, order):
    x = np.random.default_rng(size).standard_normal(size)
    thread_blocks = -(-size // 64)
    out = np.zeros(thread_blocks)
    with lockstep.options(max_lanes=max_lanes, memory_budget=memory_budget, order=order):
        lockstep.launch(block_sums, thread_blocks, 64, out, x)
    padded = np.zeros(thread_blocks * 64)
    padded[:size] = x
    np.testing.assert_allclose(out, padded.reshape(-1, 64).sum(axis=1), atol=1e-12)


@cuda.jit
def coordinates(out):
    thread = cuda.threadIdx.x + cuda.blockDim.x * (cuda.threadIdx.y + cuda.blockDim.y * cuda.threadIdx.z)
    thread_block = cuda.blockIdx.x + cuda.gridDim.x * (cuda.blockIdx.y + cuda.gridDim.y * cuda.blockIdx.z)
    out[thread_block, thread, 0] = cuda.blockIdx.x
    out[thread_block, thread, 1] = cuda.blockIdx.y
    out[thread_block, thread, 2] = cuda.blockIdx.z
    out[thread_block, thread, 3] = cuda.threadIdx.x
    out[thread_block, thread, 4] = cuda.threadIdx.y
    out[thread_block, thread, 5] = cuda.threadIdx.z
    out[thread_block, thread, 6] = cuda.laneid


@given(
    grid=st.tuples(*[st.integers(1, 4)] * 3),
    threads=st.tuples(*[st.integers(1, 5)] * 3),
    max_lanes=st.sampled_from((1, 100, 1 << 15)),
    order=st.sampled_from(("together", "forward", "reverse")),
)
def test_every_thread_knows_its_coordinates(grid, threads, max_lanes, order):
    num_blocks, num_threads = math.prod(grid), math.prod(threads)
    out = np.full((num_blocks, num_threads, 7), -1)
    with lockstep.options(max_lanes=max_lanes, order=order):
        lockstep.launch(coordinates, grid, threads, out)
    thread_block, thread = np.divmod(np.arange(num_blocks * num_threads), num_threads)
    wanted = [
        *np.unravel_index(thread_block, grid, "F"),
        *np.unravel_index(thread, threads, "F"),
        thread % 32,
    ]
    np.testing.assert_array_equal(out.reshape(-1, 7).T, wanted)


@cuda.jit
def copy_2d(out, x):
    i, j = cuda.grid(2)
    if i < x.shape[0] and j < x.shape[1]:
        out[i, j] = x[i, j]


@given(data=st.data(), shape=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_arrays_of_every_layout_are_read_and_written_in_place(data, shape):
    def view(values):
        """Draw a view of a larger array that holds `values`."""
        steps = [data.draw(st.sampled_from([1, 2, -1, -3])) for _ in values.shape]
        slices = tuple(slice(None, None, step) for step in steps)
        lengths = [n * abs(step) for n, step in zip(values.shape, steps, strict=True)]
        whole = np.full(lengths, -1.0, order=data.draw(st.sampled_from("CF")))
        chosen = whole[slices]
        chosen[...] = values
        return whole, chosen

    source = np.arange(math.prod(shape), dtype=float).reshape(shape)
    _, x = view(source)
    whole, out = view(np.zeros(shape))
    untouched = whole.copy()
    lockstep.launch(copy_2d, (1, 1), (5, 5), out, x)
    np.testing.assert_array_equal(out, source)
    out[...] = 0
    np.testing.assert_array_equal(whole, untouched)


def test_a_wrapped_function_takes_the_arguments_of_the_one_inside():
    def inside(out, *, value):
        out[0] = value

    @functools.wraps(inside)
    def around(*args, **kwargs):
        return inside(*args, **kwargs)

    out = np.zeros(1)
    lockstep.launch(around, 1, 1, out, 3.0)
    assert out[0] == 3
    with pytest.raises(LaunchError, match=r"inside takes 2 arguments \(out, value\), got 1"):
        lockstep.launch(around, 1, 1, out)


def test_memory_does_not_grow_with_the_grid():
    def peak(thread_blocks):
        x = np.ones(64)
        out = np.zeros(thread_blocks)
        tracemalloc.start()
        lockstep.launch(block_sums, thread_blocks, 64, out, x)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(20_000) < 1.5 * peak(2_000)


def test_options_are_checked_and_undone():
    with pytest.raises(
        ValueError, match="order must be one of together, forward, reverse, got order='random'"
    ):
        lockstep.Options(order="random")
    with pytest.raises(ValueError, match="max_lanes must be positive, got max_lanes=0"):
        lockstep.Options(max_lanes=0)
    with pytest.raises(TypeError), lockstep.options(no_such_option=1):
        pass
    with lockstep.options(max_lanes=1) as inside:
        assert inside.max_lanes == 1
    with lockstep.options() as outside:
        assert outside == lockstep.Options()


@cuda.jit
def without_a_barrier(out):
    tile = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    tile[t] = t
    out[t] = tile[63 - t]


@cuda.jit
def with_a_barrier(out):
    tile = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    tile[t] = t
    cuda.syncthreads()
    out[t] = tile[63 - t]


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_missing_barrier_shows_when_warps_run_in_turns(order):
    racy, clean = np.zeros(64), np.zeros(64)
    with lockstep.options(order=order):
        lockstep.launch(without_a_barrier, 1, 64, racy)
        lockstep.launch(with_a_barrier, 1, 64, clean)
    np.testing.assert_array_equal(clean, np.arange(64)[::-1])
    assert np.isnan(racy).any()


@cuda.jit
def reads_dirty_memory(floats, integers):
    shared_floats = cuda.shared.array(4, np.float32)
    shared_integers = cuda.shared.array(4, np.int32)
    local_floats = cuda.local.array(4, np.float64)
    floats[0] = shared_floats[0]
    floats[1] = local_floats[3]
    integers[0] = shared_integers[1]


def test_shared_and_local_memory_start_poisoned():
    floats, integers = np.zeros(2), np.zeros(1, np.int32)
    lockstep.launch(reads_dirty_memory, 1, 1, floats, integers)
    assert np.isnan(floats).all()
    assert integers[0] not in (0, 1)


def test_shared_memory_is_poisoned_anew_in_each_block_and_batch():
    @cuda.jit
    def leaves_its_mark(out):
        tile = cuda.shared.array(1, np.float32)
        out[cuda.blockIdx.x] = tile[0]
        tile[0] = 7

    out = np.zeros(6)
    with lockstep.options(max_lanes=2):
        lockstep.launch(leaves_its_mark, 6, 1, out)
    assert np.isnan(out).all()


def test_print_goes_by_blocks_and_threads(capsys):
    @cuda.jit
    def says(x):
        if x[cuda.grid(1)] > 1:
            print("thread", cuda.grid(1), x[cuda.grid(1)])

    lockstep.launch(says, 2, 2, np.array([3, 1, 1, 4]))
    assert capsys.readouterr().out == "thread 0 3\nthread 3 4\n"


def test_a_failed_launch_is_not_reported_as_success_and_the_next_one_runs():
    @cuda.jit
    def store(out, at):
        out[at] = 1

    out = np.zeros(2)
    with pytest.raises(IndexError):
        lockstep.launch(store, 1, 1, out, 5)
    lockstep.launch(store, 1, 1, out, 1)
    np.testing.assert_array_equal(out, [0, 1])


@cuda.jit
def add(x):
    x[cuda.grid(1)] = x[cuda.grid(1)] + 1


@cuda.jit(device=True)
def load(x, i):
    return x[i]


@cuda.jit
def mul(x, narrow):
    t = cuda.grid(1)
    blend = load(x, t)
    if t < narrow:
        x[t] = blend * 3


def test_kernels_and_variables_may_have_the_names_of_the_machine():
    x = np.ones(4)
    lockstep.launch(add, 1, 4, x)
    lockstep.launch(mul, 1, 4, x, 2)
    np.testing.assert_array_equal(x, [6, 6, 2, 2])


# Kernels in the style of public tutorials.


@cuda.jit
def matmul_tiled(a, b, c):
    tile_a = cuda.shared.array((TILE, TILE), np.float32)
    tile_b = cuda.shared.array((TILE, TILE), np.float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    total = np.float32(0)
    for k in range((a.shape[1] + TILE - 1) // TILE):
        tile_a[ty, tx] = 0
        tile_b[ty, tx] = 0
        if y < a.shape[0] and tx + k * TILE < a.shape[1]:
            tile_a[ty, tx] = a[y, tx + k * TILE]
        if x < b.shape[1] and ty + k * TILE < b.shape[0]:
            tile_b[ty, tx] = b[ty + k * TILE, x]
        cuda.syncthreads()
        for j in range(TILE):
            total += tile_a[ty, j] * tile_b[j, tx]
        cuda.syncthreads()
    if y < c.shape[0] and x < c.shape[1]:
        c[y, x] = total


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_tiled_matrix_multiplication(m, k, n):
    rng = np.random.default_rng(m * 100 + k * 10 + n)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    c = np.full((m, n), np.nan, np.float32)
    lockstep.launch(matmul_tiled, (-(-n // TILE), -(-m // TILE)), (TILE, TILE), a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)


@cuda.jit
def transpose(out, x):
    tile = cuda.shared.array((8, 9), np.float32)
    column, row = cuda.grid(2)
    if row < x.shape[0] and column < x.shape[1]:
        tile[cuda.threadIdx.y, cuda.threadIdx.x] = x[row, column]
    cuda.syncthreads()
    row = cuda.blockIdx.x * 8 + cuda.threadIdx.y
    column = cuda.blockIdx.y * 8 + cuda.threadIdx.x
    if row < out.shape[0] and column < out.shape[1]:
        out[row, column] = tile[cuda.threadIdx.x, cuda.threadIdx.y]


def test_transpose():
    x = np.arange(13 * 21, dtype=np.float32).reshape(13, 21)
    out = np.zeros((21, 13), np.float32)
    lockstep.launch(transpose, (3, 2), (8, 8), out, x)
    np.testing.assert_array_equal(out, x.T)


@cuda.jit
def scan(x):
    tile = cuda.shared.array(128, np.int64)
    t = cuda.threadIdx.x
    tile[t] = x[t]
    cuda.syncthreads()
    offset = 1
    while offset < cuda.blockDim.x:
        add = tile[t - offset] if t >= offset else 0
        cuda.syncthreads()
        tile[t] += add
        cuda.syncthreads()
        offset *= 2
    x[t] = tile[t]


@pytest.mark.parametrize("order", ["together", "forward", "reverse"])
def test_prefix_sum(order):
    x = np.random.default_rng(0).integers(-9, 9, 128)
    out = x.copy()
    with lockstep.options(order=order):
        lockstep.launch(scan, 1, 128, out)
    np.testing.assert_array_equal(out, np.cumsum(x))


@cuda.jit(device=True)
def escape_time(re, im, limit):
    z = complex(0.0, 0.0)
    for i in range(limit):
        z = z * z + complex(re, im)
        if z.real * z.real + z.imag * z.imag >= 4:
            return i
    return limit


@cuda.jit
def mandelbrot(image, limit):
    start_x, start_y = cuda.grid(2)
    step_x, step_y = cuda.gridsize(2)
    for x in range(start_x, image.shape[1], step_x):
        for y in range(start_y, image.shape[0], step_y):
            image[y, x] = escape_time(-2 + 3 * x / image.shape[1], -1 + 2 * y / image.shape[0], limit)


def test_mandelbrot():
    image = np.zeros((20, 30), np.int32)
    lockstep.launch(mandelbrot, (2, 2), (5, 3), image, 15)
    for y, x in np.ndindex(image.shape):
        c, z, steps = complex(-2 + 3 * x / 30, -1 + 2 * y / 20), 0j, 15
        for i in range(15):
            z = z * z + c
            if z.real * z.real + z.imag * z.imag >= 4:
                steps = i
                break
        assert image[y, x] == steps


@cuda.jit
def bitonic_step(x, j, k):
    i = cuda.grid(1)
    partner = i ^ j
    if partner > i and ((i & k == 0 and x[i] > x[partner]) or (i & k != 0 and x[i] < x[partner])):
        x[i], x[partner] = x[partner], x[i]


def test_bitonic_sort():
    x = np.random.default_rng(0).integers(0, 1000, 256)
    out = x.copy()
    k = 2
    while k <= 256:
        j = k // 2
        while j:
            lockstep.launch(bitonic_step, 8, 32, out, j, k)
            j //= 2
        k *= 2
    np.testing.assert_array_equal(out, np.sort(x))


def test_monte_carlo_with_the_generator_of_numba():
    numba_cuda = pytest.importorskip("numba.cuda")
    random = pytest.importorskip("numba.cuda.random")
    states = np.zeros(64, random.xoroshiro128p_dtype)
    for i in range(64):
        random.init_xoroshiro128p_state(states, i, 7 + i)

    @numba_cuda.jit
    def estimate(states, out, count):
        i = numba_cuda.grid(1)
        inside = 0
        for _ in range(count):
            x = random.xoroshiro128p_uniform_float32(states, i)
            y = random.xoroshiro128p_uniform_float32(states, i)
            if x**2 + y**2 <= 1:
                inside += 1
        out[i] = 4 * inside / count

    out = np.zeros(64)
    lockstep.launch(estimate, 2, 32, states, out, 200)
    assert abs(out.mean() - math.pi) < 0.1
    assert np.unique(out).size > 10
