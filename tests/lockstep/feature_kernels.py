"""Small kernels, one or more for each feature of the kernel language, with what each must compute.

The same table is run on lockstep, on Numba's simulator and on a GPU, and compiled with no GPU.
"""

import cmath
import math
import math as m
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import cuda, float32, int32

try:
    from numba.cuda import grid
except ImportError:  # the simulator lacks it
    grid = None

FACTOR = 3
HALF = np.float32(0.5)
PRIMES = np.array([2, 3, 5, 7, 11], np.int32)
PAIR = (4, 9)


@dataclass(frozen=True)
class Feature:
    """A kernel, how it is launched, and the value of its first argument after it.

    ``simulated`` tells whether Numba's simulator runs it, ``exact`` whether all targets agree to the bit.
    """

    kernel: Any
    args: tuple[Any, ...]
    expected: Any
    blocks: Any = 1
    threads: Any = 8
    shared_bytes: int = 0
    simulated: bool = True
    exact: bool = True

    @property
    def name(self):
        """The kernel's name."""
        return self.kernel.py_func.__name__ if hasattr(self.kernel, "py_func") else self.kernel.fn.__name__


FEATURES: list[Feature] = []
T8 = np.arange(8)
X8 = np.array([0.5, -1.25, 3.0, -7.75, 2.5, 100.0, -0.125, 9.0], np.float32)
I8 = np.array([5, -3, 0, 7, -8, 2, 1, -1], np.int32)


def feature(*args, expected, **options):
    """Enter a kernel into the table."""

    def enter(kernel):
        FEATURES.append(Feature(kernel, args, expected, **options))
        return kernel

    return enter


def ints(n=8):
    """Return n zeros, int64."""
    return np.zeros(n, np.int64)


def floats(n=8, dtype=np.float32):
    """Return n zeros."""
    return np.zeros(n, dtype)


# Control flow.


@feature(ints(), expected=np.where(T8 < 3, 1, np.where(T8 < 6, 2, 3)))
@cuda.jit
def if_elif_else(out):
    t = cuda.grid(1)
    if t < 3:
        out[t] = 1
    elif t < 6:
        out[t] = 2
    else:
        out[t] = 3


@feature(ints(), expected=T8 * (T8 - 1) // 2)
@cuda.jit
def loop_with_bound_by_lane(out):
    t = cuda.grid(1)
    total = 0
    for i in range(t):
        total += i
    out[t] = total


@feature(ints(), expected=[len(range(10, t, -3)) * 100 + sum(range(10, t, -3)) for t in range(8)])
@cuda.jit
def loop_backwards(out):
    t = cuda.grid(1)
    total = 0
    for i in range(10, t, -3):
        total += 100 + i
    out[t] = total


@feature(ints(), expected=[0, 0, 1, 7, 2, 5, 8, 16])
@cuda.jit
def collatz_steps(out):
    n = cuda.grid(1)
    t = n
    steps = 0
    while n > 1:
        if n % 2 == 0:
            n //= 2
        else:
            n = 3 * n + 1
        steps += 1
    out[t] = steps


@feature(ints(), expected=[sum(i for i in range(10) if i % 2 and i < t + 2) for t in range(8)])
@cuda.jit
def break_and_continue(out):
    t = cuda.grid(1)
    total = 0
    for i in range(10):
        if i % 2 == 0:
            continue
        if i >= t + 2:
            break
        total += i
    out[t] = total


@feature(ints(), expected=[1, 1, 2, 2, 2, 2, 2, 2])
@cuda.jit
def return_inside_nested_loops(out):
    t = cuda.grid(1)
    for i in range(4):
        for j in range(4):
            if i + j == t and t < 2:
                out[t] = 1
                return
    out[t] = 2


@feature(ints(), expected=[next((d for d in range(2, t + 2) if (t + 2) % d == 0), -1) for t in range(8)])
@cuda.jit
def loop_else(out):
    t = cuda.grid(1)
    n = t + 2
    for divisor in range(2, n):
        if n % divisor == 0:
            out[t] = divisor
            break
    else:
        out[t] = -1


@feature(ints(), expected=[-t if t % 2 else 5 for t in range(8)])
@cuda.jit
def while_else(out):
    t = cuda.grid(1)
    i = 0
    while i < 5:
        if i == t and t % 2 == 1:
            out[t] = -t
            break
        i += 1
    else:
        out[t] = i if t % 2 == 0 else -t


@feature(ints(), expected=[t + 10 * (t % 2) + sum(range(0, t, 2)) for t in range(8)])
@cuda.jit
def variable_carried_by_some_lanes(out):
    t = cuda.grid(1)
    kept = 0
    for i in range(t):
        if i % 2 == 0:
            fresh = i
            kept += fresh
    extra = 0
    if t % 2 == 1:
        extra = 10
    out[t] = t + extra + kept


@feature(ints(), expected=[1 if 2 <= t < 6 else 0 for t in range(8)])
@cuda.jit
def chained_comparison(out):
    t = cuda.grid(1)
    out[t] = 1 if 2 <= t < 6 else 0


@feature(ints(), np.arange(4), expected=[0, 1, 2, 3, -1, -1, -1, -1])
@cuda.jit
def short_circuit_guards_a_load(out, small):
    t = cuda.grid(1)
    if t < small.shape[0] and small[t] >= 0:
        out[t] = small[t]
    if t >= small.shape[0] or small[t] < 0:
        out[t] = -1


@feature(ints(), expected=[2 * t if t < 4 else (-t if t % 2 else t) for t in range(8)])
@cuda.jit
def nested_ternaries(out):
    t = cuda.grid(1)
    out[t] = 2 * t if t < 4 else (-t if t % 2 else t)


@feature(ints(), expected=[max(i * i for i in range(t + 1)) for t in range(8)])
@cuda.jit
def while_true_with_break(out):
    t = cuda.grid(1)
    i = 0
    largest = 0
    while True:
        largest = max(largest, i * i)
        i += 1
        if i > t:
            break
    out[t] = largest


# Names, functions, tuples.


@feature(floats(), expected=T8 * 3 * np.float32(0.5) + 100 + math.pi, exact=False)
@cuda.jit
def constants_from_outside(out):
    t = cuda.grid(1)
    out[t] = t * FACTOR * HALF + 100 + m.pi


def make_scaler(factor):
    """Return a kernel that closes over `factor`."""

    @cuda.jit
    def closure_over_a_constant(out):
        t = cuda.grid(1)
        out[t] = t * factor

    return closure_over_a_constant


FEATURES.append(Feature(make_scaler(7), (ints(),), T8 * 7))


@cuda.jit(device=True)
def sort_two(a, b):
    """Return both in order."""
    if a <= b:
        return a, b
    return b, a


@cuda.jit(device=True)
def first_divisor(n, start=2):
    """Return the first divisor from `start` on."""
    for divisor in range(start, n):
        if n % divisor == 0:
            return divisor
    return n


@feature(
    ints(16),
    I8,
    expected=np.stack([np.minimum(I8, np.roll(I8, -1)), np.maximum(I8, np.roll(I8, -1))], 1).ravel(),
)
@cuda.jit
def device_function_with_two_results(out, x):
    t = cuda.grid(1)
    low, high = sort_two(x[t], x[(t + 1) % 8])
    out[2 * t] = low
    out[2 * t + 1] = high


@feature(
    ints(),
    expected=[
        next((d for d in range(3, t + 9) if (t + 9) % d == 0), t + 9) + (5 if t % 2 else 2) for t in range(8)
    ],
    simulated=False,
)
@cuda.jit
def device_function_with_a_default(out):
    t = cuda.grid(1)
    found = first_divisor(t + 9, start=3)
    if t % 2:
        found += 5
    else:
        found += first_divisor(4)
    out[t] = found


@cuda.jit(device=True)
def row_sum(row):
    """Return the sum of a row."""
    total = float32(0)
    for i in range(row.shape[0]):
        total += row[i]
    return total


M83 = np.arange(24, dtype=np.float32).reshape(8, 3)


@feature(floats(), M83, expected=M83.sum(1))
@cuda.jit
def row_view_passed_to_a_device_function(out, x):
    t = cuda.grid(1)
    out[t] = row_sum(x[t])


@feature(ints(), expected=T8 % 3 * 10 + T8 // 3)
@cuda.jit
def tuples_and_unpacking(out):
    t = cuda.grid(1)
    pair = (t // 3, t % 3)
    a, b = pair
    a, b = b, a
    triple = (a, (b, pair[1]))
    out[t] = triple[0] * 10 + triple[1][0] + 0 * triple[1][1]


@feature(ints(), expected=[PAIR[t % 2] for t in range(8)])
@cuda.jit
def tuple_indexed_by_lane(out):
    t = cuda.grid(1)
    out[t] = PAIR[t % 2]


@feature(ints(), expected=[sum(x * i for i, x in enumerate((3, 1, t))) for t in range(8)])
@cuda.jit
def loop_over_a_tuple(out):
    t = cuda.grid(1)
    total = 0
    for i, x in enumerate((3, 1, t)):
        total += i * x
    out[t] = total


# Arrays.


@feature(floats(), M83, expected=M83[:, 2] + M83[::-1, 0])
@cuda.jit
def negative_indices_count_from_the_end(out, x):
    t = cuda.grid(1)
    out[t] = x[t, -1] + x[-1 - t, -3]


@feature(floats(24).reshape(8, 3), M83, expected=M83 * 2)
@cuda.jit
def augmented_assignment_of_elements(out, x):
    t = cuda.grid(1)
    for i in range(3):
        out[t, i] += x[t, i]
        out[t, i] *= 2


@feature(floats(), np.asfortranarray(M83)[::-1, ::2], expected=M83[::-1, ::2].sum(1))
@cuda.jit
def strided_array(out, x):
    t = cuda.grid(1)
    out[t] = x[t, 0] + x[t, 1]


@feature(
    floats(), np.arange(40, dtype=np.float32), expected=[sum(range(3 * t + 1, 3 * t + 4)) for t in range(8)]
)
@cuda.jit
def slice_with_bounds_by_lane(out, x):
    t = cuda.grid(1)
    part = x[3 * t + 1 : 3 * t + 4]
    out[t] = part[0] + part[1] + part[2] + 0 * part.shape[0]


@feature(floats(24).reshape(8, 3), expected=np.repeat(T8, 3).reshape(8, 3))
@cuda.jit
def slice_assignment(out):
    t = cuda.grid(1)
    out[t, :] = t


@feature(ints(6), np.zeros((2, 3), np.float32), expected=[2, 3, 6, 2, 2, 4], threads=1)
@cuda.jit
def shape_and_kin(out, x):
    out[0] = x.shape[0]
    out[1] = x.shape[1]
    out[2] = x.size
    out[3] = x.ndim
    out[4] = len(x)
    out[5] = x.strides[1]


@feature(ints(), expected=[PRIMES[t % 5] for t in range(8)], simulated=True)
@cuda.jit
def constant_array(out):
    t = cuda.grid(1)
    table = cuda.const.array_like(PRIMES)
    out[t] = table[t % 5]


@feature(ints(), expected=T8[::-1])
@cuda.jit
def shared_array_between_threads(out):
    shared = cuda.shared.array(8, int32)
    t = cuda.threadIdx.x
    shared[t] = t
    cuda.syncthreads()
    out[t] = shared[7 - t]


@feature(ints(), expected=T8 * 11)
@cuda.jit
def two_shared_arrays_on_one_line(out):
    a, b = cuda.shared.array(8, int32), cuda.shared.array(8, int32)
    t = cuda.threadIdx.x
    a[t] = t
    b[t] = 10 * t
    cuda.syncthreads()
    out[t] = a[t] + b[t]


FEATURES[-1] = Feature(two_shared_arrays_on_one_line, (ints(),), T8 * 11, simulated=False)


@feature(floats(), expected=T8[::-1] * 2, shared_bytes=8 * 4 + 8 * 4)
@cuda.jit
def dynamic_shared_memory_under_two_types(out):
    t = cuda.threadIdx.x
    numbers = cuda.shared.array(0, float32)
    counts = cuda.shared.array(0, int32)
    numbers[t] = t
    counts[8 + t] = 2
    cuda.syncthreads()
    out[t] = numbers[7 - t] * counts[8 + t]


@feature(floats(), expected=[sum(i * t + i for i in range(4)) for t in range(8)])
@cuda.jit
def local_array(out):
    t = cuda.grid(1)
    own = cuda.local.array((2, 2), float32)
    for i in range(4):
        own[i // 2, i % 2] = i * t
    total = float32(0)
    for i in range(2):
        for j in range(2):
            own[i, j] += 2 * i + j
            total += own[i, j]
    out[t] = total


# Arithmetic.


@feature(ints(32), I8, expected=np.stack([I8 // 3, I8 % 3, -I8, ~I8], 1).ravel())
@cuda.jit
def integers(out, x):
    t = cuda.grid(1)
    out[4 * t] = x[t] // 3
    out[4 * t + 1] = x[t] % 3
    out[4 * t + 2] = -x[t]
    out[4 * t + 3] = ~x[t]


@feature(ints(), np.full(8, 2**31 - 1, np.int32), expected=np.full(8, 2**32 - 2))
@cuda.jit
def int32_plus_int32_is_int64(out, x):
    t = cuda.grid(1)
    out[t] = x[t] + x[t]


@feature(
    ints(40), I8, expected=np.stack([I8 & 6, I8 | 6, I8 ^ 6, I8.astype(np.int64) << 2, I8 >> 1], 1).ravel()
)
@cuda.jit
def bits(out, x):
    t = cuda.grid(1)
    out[5 * t] = x[t] & 6
    out[5 * t + 1] = x[t] | 6
    out[5 * t + 2] = x[t] ^ 6
    out[5 * t + 3] = x[t] << 2
    out[5 * t + 4] = x[t] >> 1


@feature(
    floats(32, np.float64),
    X8,
    expected=np.stack([X8 / 3, X8.astype(np.float64) // 2, X8 % 2, X8 * X8], 1).ravel(),
    exact=False,
)
@cuda.jit
def floating_point(out, x):
    t = cuda.grid(1)
    out[4 * t] = x[t] / 3
    out[4 * t + 1] = x[t] // 2
    out[4 * t + 2] = x[t] % 2
    out[4 * t + 3] = x[t] ** 2


@feature(floats(8, np.complex64), X8, expected=(X8 + 1j) * (X8 - 2j) + np.abs(X8 + 1j), exact=False)
@cuda.jit
def complex_numbers(out, x):
    t = cuda.grid(1)
    z = complex(x[t], float32(1))
    out[t] = z * (z - 3j) + abs(z) + 0 * z.real + 0 * z.imag


@feature(np.zeros(8, np.bool_), X8, expected=(X8 > 0) & ~(X8 > 50))
@cuda.jit
def booleans(out, x):
    t = cuda.grid(1)
    positive = x[t] > 0
    large = bool(x[t] > 50)
    out[t] = positive and not large


@feature(floats(24), X8, expected=np.stack([np.rint(X8), np.trunc(X8), np.abs(X8)], 1).ravel())
@cuda.jit
def conversions(out, x):
    t = cuda.grid(1)
    out[3 * t] = round(x[t])
    out[3 * t + 1] = int(x[t])
    out[3 * t + 2] = abs(x[t])


@feature(
    floats(16, np.float64),
    np.array([0.5425, -0.5425, 123456.789, 2.5, -1.5, 1e-7, 5e15, 0.125]),
    np.array([3, 3, -3, 0, 0, 5, 2, 2], np.int32),
    expected=[0.542, 1, -0.542, -1, 123e3, 123457, 2, 2, -2, -2, 0, 0, 5e15, 5e15, 0.12, 0],
    simulated=False,
)
@cuda.jit
def round_to_digits(out, x, digits):
    t = cuda.grid(1)
    out[2 * t] = round(x[t], digits[t])
    out[2 * t + 1] = round(x[t], 0)


@feature(ints(8), np.array([0, 1, 255, 2**31 - 1, 6, 7, 8, 9], np.int32), expected=[0, 1, 8, 31, 2, 3, 1, 2])
@cuda.jit
def bits_of_an_integer(out, x):
    t = cuda.grid(1)
    out[t] = x[t].bit_count()


@feature(floats(16), X8, expected=np.stack([np.minimum(X8, 2), np.maximum(X8, 0.25)], 1).ravel())
@cuda.jit
def smallest_and_largest(out, x):
    t = cuda.grid(1)
    out[2 * t] = min(x[t], 2)
    out[2 * t + 1] = max(0, x[t], np.float32(0.25))


@feature(ints(16), X8, expected=np.stack([X8.astype(np.int32), X8.astype(np.int8)], 1).ravel())
@cuda.jit
def casts(out, x):
    t = cuda.grid(1)
    out[2 * t] = np.int32(x[t])
    out[2 * t + 1] = numba.int8(int32(x[t]))


def _math_expected():
    x = np.abs(X8.astype(np.float64)) / 101
    columns = [np.exp(x), np.log(x), np.sqrt(x), np.sin(x), np.tanh(x), np.arctan2(x, 2), np.hypot(x, 1)]
    columns += [
        np.floor(10 * x),
        np.ceil(10 * x),
        [math.erf(v) for v in x],
        [math.gamma(v) for v in x],
        x**1.5,
    ]
    return np.stack(columns, 1).ravel()


@feature(floats(96, np.float64), X8.astype(np.float64), expected=_math_expected(), exact=False)
@cuda.jit
def math_functions(out, x):
    t = cuda.grid(1)
    v = math.fabs(x[t]) / 101
    out[12 * t] = math.exp(v)
    out[12 * t + 1] = math.log(v)
    out[12 * t + 2] = math.sqrt(v)
    out[12 * t + 3] = math.sin(v)
    out[12 * t + 4] = math.tanh(v)
    out[12 * t + 5] = math.atan2(v, 2.0)
    out[12 * t + 6] = math.hypot(v, 1.0)
    out[12 * t + 7] = math.floor(10 * v)
    out[12 * t + 8] = math.ceil(10 * v)
    out[12 * t + 9] = math.erf(v)
    out[12 * t + 10] = math.gamma(v)
    out[12 * t + 11] = math.pow(v, 1.5)


@feature(floats(8, np.complex128), X8, expected=np.exp(1j * X8), exact=False)
@cuda.jit
def complex_math(out, x):
    t = cuda.grid(1)
    out[t] = cmath.exp(1j * x[t])


# Coordinates.


@feature(
    ints(24).reshape(4, 6),
    expected=[[100 * i + j for j in range(6)] for i in range(4)],
    blocks=(2, 2),
    threads=(2, 3),
)
@cuda.jit
def grid_in_two_dimensions(out):
    i, j = cuda.grid(2)
    out[i, j] = 100 * i + j


@feature(
    ints(48).reshape(2, 4, 6),
    expected=np.arange(48).reshape(2, 4, 6) % 24 + 1000 * (np.arange(48).reshape(2, 4, 6) // 24),
    blocks=(3, 2, 1),
    threads=(2, 2, 2),
)
@cuda.jit
def grid_in_three_dimensions(out):
    x, y, z = cuda.grid(3)
    width, height, _ = cuda.gridsize(3)
    out[z, y, x] = 1000 * z + y * width + x + 0 * height


@feature(ints(8), expected=T8, blocks=4, threads=2, simulated=False)
@cuda.jit
def name_imported_from_numba_cuda(out):
    out[cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x] = grid(1)


@feature(ints(20), expected=np.arange(20) % 20, blocks=2, threads=5)
@cuda.jit
def grid_stride_loop(out):
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[i] = i


# Cooperation.


@feature(ints(24), expected=np.repeat([[8, 0, 1]], 8, 0).ravel())
@cuda.jit
def barriers_that_count(out):
    t = cuda.threadIdx.x
    out[3 * t] = cuda.syncthreads_count(int32(t >= 0))
    out[3 * t + 1] = cuda.syncthreads_and(int32(t > 0))
    out[3 * t + 2] = cuda.syncthreads_or(int32(t == 3))


@feature(ints(2), I8, expected=[I8.sum(), 0], blocks=2, threads=4)
@cuda.jit
def atomic_add_on_one_address(out, x):
    t = cuda.grid(1)
    cuda.atomic.add(out, 0, x[t])


@feature(ints(9), expected=[8, *range(8)])
@cuda.jit
def atomic_add_returns_the_old_value(out):
    ticket = cuda.atomic.add(out, 0, 1)
    out[1 + ticket] = ticket


@feature(
    np.array([10, 10, 0b1111, 0, 0, 5, 7, 3], np.uint32),
    expected=[7, 10, 0b0101, 0b1010, 0b0110, 0, 6, 9],
    threads=1,
)
@cuda.jit
def every_other_atomic(out):
    cuda.atomic.min(out, 0, 7)
    cuda.atomic.max(out, 1, 9)
    cuda.atomic.and_(out, 2, 0b0101)
    cuda.atomic.or_(out, 3, 0b1010)
    cuda.atomic.xor(out, 4, 0b0110)
    cuda.atomic.inc(out, 5, 5)
    cuda.atomic.dec(out, 6, 9)
    cuda.atomic.exch(out, 7, 9)


@feature(ints(3), expected=[42, 0, 7], threads=1)
@cuda.jit
def compare_and_swap(out):
    out[1] = cuda.atomic.cas(out, 0, 0, 42)
    cuda.atomic.cas(out, 2, 1, 13)
    cuda.atomic.compare_and_swap(out[2:], 0, 7)


@feature(ints(4), np.arange(32) % 4, expected=[8, 8, 8, 8], threads=32)
@cuda.jit
def histogram_in_shared_memory(out, x):
    bins = cuda.shared.array(4, int32)
    t = cuda.threadIdx.x
    if t < 4:
        bins[t] = 0
    cuda.syncthreads()
    cuda.atomic.add(bins, x[t], 1)
    cuda.syncthreads()
    if t < 4:
        out[t] = bins[t]


# Warps.

T32 = np.arange(32)


@feature(
    ints(128),
    expected=np.stack(
        [np.where(T32 < 31, T32 + 1, 31), np.where(T32 > 1, T32 - 2, T32), np.full(32, 5), T32 ^ 3], 1
    ).ravel(),
    threads=32,
    simulated=False,
)
@cuda.jit
def shuffles(out):
    t = cuda.threadIdx.x
    out[4 * t] = cuda.shfl_down_sync(0xFFFFFFFF, t, 1)
    out[4 * t + 1] = cuda.shfl_up_sync(0xFFFFFFFF, t, 2)
    out[4 * t + 2] = cuda.shfl_sync(0xFFFFFFFF, t, 37)
    out[4 * t + 3] = cuda.shfl_xor_sync(0xFFFFFFFF, t, 3)


@feature(
    floats(2),
    np.arange(64, dtype=np.float32),
    expected=[T32.sum(), T32.sum() + 32 * 32],
    threads=64,
    simulated=False,
)
@cuda.jit
def sum_by_shuffles(out, x):
    t = cuda.threadIdx.x
    value = x[t]
    offset = 16
    while offset > 0:
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, offset)
        offset //= 2
    if cuda.laneid == 0:
        out[t // cuda.warpsize] = value


@feature(
    ints(128),
    expected=np.stack(
        [
            np.full(32, int(sum(1 << t for t in range(32) if t % 3 == 0))),
            np.full(32, 1),
            np.zeros(32),
            np.zeros(32),
        ],
        1,
    )
    .astype(np.int64)
    .ravel(),
    threads=32,
    simulated=False,
)
@cuda.jit
def votes(out):
    t = cuda.threadIdx.x
    out[4 * t] = cuda.ballot_sync(0xFFFFFFFF, t % 3 == 0)
    out[4 * t + 1] = cuda.any_sync(0xFFFFFFFF, t == 9)
    out[4 * t + 2] = cuda.all_sync(0xFFFFFFFF, t == 9)
    out[4 * t + 3] = cuda.eq_sync(0xFFFFFFFF, t == 9)


FEATURES[-1] = Feature(votes, (ints(128),), np.stack([
    np.full(32, np.int64(0x49249249)), np.full(32, 1), np.zeros(32, int), np.zeros(32, int)], 1).ravel(),
    threads=32, simulated=False)  # fmt: skip


@feature(
    ints(96),
    expected=np.stack(
        [[np.int32(np.uint32(0x11111111 << (t % 4))) for t in range(32)], np.full(32, -1), np.full(32, 1)], 1
    ).ravel(),
    threads=32,
    simulated=False,
)
@cuda.jit
def matches(out):
    t = cuda.threadIdx.x
    out[3 * t] = cuda.match_any_sync(0xFFFFFFFF, t % 4)
    mask, same = cuda.match_all_sync(0xFFFFFFFF, t // 32)
    out[3 * t + 1] = mask
    out[3 * t + 2] = same


@feature(
    ints(64),
    expected=np.stack([[(1 << t) - 1 for t in range(32)], np.where(T32 < 10, 1023, 0xFFFFFC00)], 1).ravel(),
    threads=32,
    simulated=False,
)
@cuda.jit
def lane_masks(out):
    t = cuda.threadIdx.x
    out[2 * t] = cuda.lanemask_lt()
    if t < 10:
        out[2 * t + 1] = cuda.activemask()
    else:
        out[2 * t + 1] = cuda.activemask()


@feature(ints(40), expected=np.repeat(np.arange(40) // 32, 1) * 7 + 3, threads=40, simulated=False)
@cuda.jit
def block_that_is_no_multiple_of_a_warp(out):
    t = cuda.threadIdx.x
    cuda.syncwarp()
    first = cuda.shfl_sync(0xFFFFFFFF, t // 32 * 7, 0)
    out[t] = first + 3


# Intrinsics.


@feature(
    ints(32),
    I8,
    expected=np.stack(
        [
            [bin(int(v) & 0xFFFFFFFF).count("1") for v in I8],
            [32 - (int(v) & 0xFFFFFFFF).bit_length() for v in I8],
            [(int(v) & -int(v)).bit_length() for v in I8],
            [int(f"{int(v) & 0xFFFFFFFF:032b}"[::-1], 2) for v in I8],
        ],
        1,
    ).ravel(),
)
@cuda.jit
def integer_intrinsics(out, x):
    t = cuda.grid(1)
    out[4 * t] = cuda.popc(x[t])
    out[4 * t + 1] = cuda.clz(x[t])
    out[4 * t + 2] = cuda.ffs(x[t])
    out[4 * t + 3] = cuda.brev(x[t])


FEATURES[-1] = Feature(integer_intrinsics, (ints(32), I8), FEATURES[-1].expected, simulated=False)


@feature(floats(16), X8, expected=np.stack([X8 * X8 + X8, np.where(X8 > 0, X8, 1)], 1).ravel(), exact=False)
@cuda.jit
def float_intrinsics(out, x):
    t = cuda.grid(1)
    out[2 * t] = cuda.fma(x[t], x[t], x[t])
    out[2 * t + 1] = cuda.selp(x[t] > 0, x[t], float32(1))


# The simulator computes x ** (1 / 3), which is NaN below 0.
@feature(floats(8), X8, expected=np.cbrt(X8), exact=False, simulated=False)
@cuda.jit
def cube_roots(out, x):
    t = cuda.grid(1)
    out[t] = cuda.cbrt(x[t])


H8 = X8.astype(np.float16)


@feature(floats(8, np.float16), H8, expected=H8 * H8 + H8, exact=False, simulated=False)
@cuda.jit
def half_precision(out, x):
    t = cuda.grid(1)
    out[t] = x[t] * x[t] + x[t]


RECORD = np.dtype([("weight", np.float32), ("count", np.int32)], align=True)


@feature(
    np.zeros(8, RECORD), expected=np.array([(0.5 * t, 2 * t) for t in range(8)], RECORD), simulated=False
)
@cuda.jit
def records(out):
    t = cuda.grid(1)
    out[t].weight = 0.5 * t
    out[t]["count"] = t
    out[t]["count"] *= 2


# The simulator's fp16 needs no rounding after each step, and it lacks most of the functions.
@feature(
    floats(48, np.float16),
    H8,
    expected=np.stack([H8 + H8, H8 - np.float16(2), H8 * H8, H8 / np.float16(3), -H8, np.abs(H8)], 1).ravel(),
    simulated=False,
)
@cuda.jit
def half_precision_intrinsics(out, x):
    t = cuda.grid(1)
    two = np.float16(2)
    out[6 * t] = cuda.fp16.hadd(x[t], x[t])
    out[6 * t + 1] = cuda.fp16.hsub(x[t], two)
    out[6 * t + 2] = cuda.fp16.hmul(x[t], x[t])
    out[6 * t + 3] = cuda.fp16.hdiv(x[t], np.float16(3))
    out[6 * t + 4] = cuda.fp16.hneg(x[t])
    out[6 * t + 5] = cuda.fp16.habs(x[t])


@feature(
    ints(24),
    H8,
    expected=np.stack([H8 < 2, np.maximum(H8, np.float16(2)) == 2, np.float16(2.5) != H8], 1)
    .ravel()
    .astype(int),
    simulated=False,
)
@cuda.jit
def half_precision_comparisons(out, x):
    t = cuda.grid(1)
    two = np.float16(2)
    out[3 * t] = cuda.fp16.hlt(x[t], two)
    out[3 * t + 1] = cuda.fp16.heq(cuda.fp16.hmax(x[t], two), two)
    out[3 * t + 2] = cuda.fp16.hne(x[t], np.float16(2.5))


@feature(ints(), expected=T8[::-1], threads=8)
@cuda.jit
def fences_change_nothing(out):
    tile = cuda.shared.array(8, int32)
    t = cuda.threadIdx.x
    tile[t] = t
    cuda.threadfence_block()
    cuda.syncthreads()
    out[t] = tile[7 - t]
    cuda.threadfence()
    cuda.threadfence_system()


# Rows picked by each thread, passed on to a device function that writes into them.
@cuda.jit(device=True, inline="always")
def add_to_row(row, value):
    for column in range(row.shape[0]):
        row[column] += value


@feature(
    floats(12).reshape(4, 3), expected=[[11, 11, 11], [10, 10, 10], [13, 13, 13], [12, 12, 12]], threads=4
)
@cuda.jit
def device_function_writes_into_rows_by_lane(out):
    t = cuda.threadIdx.x
    row = out[t ^ 1]
    add_to_row(row, 10 + t)


# A plane of a cube, then a column of it: two partial indices and a slice, all different by thread.
CUBE = np.arange(60, dtype=np.float32).reshape(3, 4, 5)


@feature(floats(6), CUBE, expected=[CUBE[t % 3, :, t % 5][1 + t % 2] for t in range(6)], threads=6)
@cuda.jit
def views_of_views_by_lane(out, x):
    t = cuda.threadIdx.x
    plane = x[t % 3]
    column = plane[:, t % 5]
    out[t] = column[1 + t % 2]


@feature(floats(8), expected=[0.5 * t + 3 if t % 2 else t // 2 for t in range(8)])
@cuda.jit
def types_merge_at_a_join(out):
    t = cuda.threadIdx.x
    if t % 2:
        value = 0.5 * t + 3
    else:
        value = t // 2
    out[t] = value


@feature(floats(5, np.float64), expected=[7.5, -2.0, 9.0, 4.0, 1.5], threads=1)
@cuda.jit
def atomics_on_floats(out):
    out[0] = 7
    cuda.atomic.add(out, 0, 0.5)
    out[1] = 3
    cuda.atomic.min(out, 1, -2.0)
    out[2] = 3
    cuda.atomic.max(out, 2, 9.0)
    out[3] = 4
    cuda.atomic.max(out, 3, math.nan)
    out[4] = math.nan
    cuda.atomic.nanmax(out, 4, 1.5)


@feature(ints(8), expected=[10 * t if t < 5 else -1 for t in range(8)])
@cuda.jit
def early_return_in_a_device_path(out):
    t = cuda.threadIdx.x
    out[t] = -1
    if t >= 5:
        return
    i = 0
    while True:
        i += 1
        if i > t:
            break
    out[t] = 10 * (i - 1)


@feature(ints(8), expected=[sum(j for j in range(t) if j % 3) if t % 4 else -t for t in range(8)])
@cuda.jit
def continue_in_a_branch_of_a_loop(out):
    t = cuda.threadIdx.x
    total = 0
    if t % 4:
        j = -1
        while j + 1 < t:
            j += 1
            if not j % 3:
                continue
            total += j
    else:
        total = -t
    out[t] = total


@feature(
    floats(4, np.float64),
    np.arange(4, dtype=np.int32),
    expected=[3 + 2, 2 + 2 + 1, 1 + 2 + 2, 2 + 3],
    threads=4,
)
@cuda.jit
def dtype_of_an_array(out, x):
    t = cuda.threadIdx.x
    tile = cuda.shared.array(4, x.dtype)
    tile[t] = x[t]
    cuda.syncthreads()
    out[t] = tile[3 - t] + x.dtype.type(2.7) + t


@feature(ints(), np.arange(64).reshape(8, 8), expected=(24 + T8) * 100 + 8 * T8 + 3)
@cuda.jit
def element_and_its_mirror(out, x):
    t = cuda.threadIdx.x
    out[t] = x[3, t] * 100 + x[t, 3]


# Iteration and arrays.


def table():
    """Return 8 rows of 5 numbers with exact sums."""
    return (np.arange(40) * 7 % 16 - 5).reshape(8, 5).astype(np.float32)


@feature(ints(), table(), expected=[sum(table()[t]) + 100 * len(table()[t]) for t in range(8)])
@cuda.jit
def loop_over_a_row(out, x):
    t = cuda.grid(1)
    total = 0
    for value in x[t]:
        total += int(value)
    out[t] = total + 100 * len(x[t])


@feature(ints(), table(), expected=[sum(table()[t, i : 2 * i]) for i, t in enumerate([0] * 3 + [3] * 5)])
@cuda.jit
def loop_over_a_slice_by_lane(out, x):
    i = cuda.grid(1)
    row = x[0 if i < 3 else 3]
    total = 0
    for value in row[i : 2 * i]:
        total += int(value)
    out[i] = total


@feature(ints(), expected=[sum(i * (5 - i) for i in range(min(t, 4))) for t in range(8)])
@cuda.jit
def loop_over_zipped_ranges(out):
    t = cuda.grid(1)
    total = 0
    for i, j in zip(range(t), range(5, 1, -1)):  # noqa: B905 (Numba has no strict)
        total += i * j
    out[t] = total


@feature(ints(), expected=[sum(i * 10 + j for i in range(t % 3) for j in range(2)) for t in range(8)])
@cuda.jit
def loop_over_indices(out):
    t = cuda.grid(1)
    total = 0
    for i, j in np.ndindex((t % 3, 2)):
        total += i * 10 + j
    out[t] = total


@feature(ints(), table(), expected=[sum(i * 3 * v for i, v in enumerate(table()[t])) for t in range(8)])
@cuda.jit
def loop_over_elements_with_their_indices(out, x):
    t = cuda.grid(1)
    total = 0
    for index, value in np.ndenumerate(x[t : t + 1]):
        total += 3 * index[1] * int(value)
    out[t] = total


@feature(ints(), table(), expected=np.full(8, table().sum()))
@cuda.jit
def loop_over_flat(out, x):
    total = 0
    for value in x.flat:
        total += int(value)
    out[cuda.grid(1)] = total


@feature(ints(), table(), expected=[table().T.flat[3 * t] + table().flat[t] for t in range(8)])
@cuda.jit
def element_of_flat(out, x):
    t = cuda.grid(1)
    out[t] = int(x.T.flat[3 * t]) + int(x.flat[t])


@feature(ints(), expected=[sum(v for v in (3, 1, t) if v != 2) if t < 6 else 0 for t in range(8)])
@cuda.jit
def loop_over_a_tuple_that_lanes_leave(out):
    t = cuda.grid(1)
    total = 0
    for value in (3, 1, t):
        if t > 5:
            break
        if value == 2:
            continue
        total += value
    else:
        total += 0
    out[t] = total


@feature(ints(), table(), expected=[t in (1, 5) or t in table() for t in range(8)], simulated=False)
@cuda.jit
def number_in_a_tuple_or_an_array(out, x):
    t = cuda.grid(1)
    out[t] = t in (1, 5) or np.float32(t) in x


@feature(floats((8, 5)), table(), expected=[np.where(np.arange(5) < t % 6, table()[t], 9) for t in range(8)])
@cuda.jit
def array_stored_into_a_slice_by_lane(out, x):
    t = cuda.grid(1)
    out[t, :] = 9
    n = t % 6
    out[t, :n] = x[t, :n]


@feature(floats((8, 5)), table(), expected=table()[:, ::-1] * 2)
@cuda.jit
def slice_backwards(out, x):
    t = cuda.grid(1)
    row = x[t, ::-1]
    for i in range(5):
        out[t, i] = 2 * row[i]


@feature(ints(), expected=[sum(range(6)[t % 6 : t // 4 : -1]) for t in range(8)])
@cuda.jit
def slice_backwards_by_lane(out):
    t = cuda.grid(1)
    local = cuda.local.array(6, np.int64)
    for i in range(6):
        local[i] = i
    total = 0
    for value in local[t % 6 : t // 4 : -1]:
        total += value
    out[t] = total


@feature(
    np.zeros((8, 2), np.complex64),
    expected=[[complex(t, -t), complex(2 * t, 5)] for t in range(8)],
    simulated=False,
)
@cuda.jit
def parts_of_complex_arrays(out):
    t = cuda.grid(1)
    out.real[t, 0] = t
    out.imag[t, 0] = -out.real[t, 0]
    out[t].real[1] = out.real[t, 0] * 2
    out[t, 1:].imag[0] = 5


@feature(np.zeros((8, 6), np.int16), expected=np.arange(48).reshape(8, 6)[:, ::-1])
@cuda.jit
def view_in_another_shape(out):
    t = cuda.grid(1)
    square = out[t].reshape(2, 3)
    for i in range(6):
        square[i // 3, i % 3] = 6 * t + 5 - i


@feature(np.zeros(8, np.float32), expected=np.arange(8) + 0.5, simulated=False)
@cuda.jit
def view_as_another_type(out):
    t = cuda.grid(1)
    bits = out.view(np.int32)
    bits[t] = out.dtype.type(t + 0.5).view(np.int32)


@feature(np.zeros((8, 4)), np.arange(4.0), expected=np.sin(np.arange(8))[:, None] * np.ones(4), exact=False)
@cuda.jit
def ufunc_into_an_array(out, x):
    t = cuda.grid(1)
    np.sin(np.float64(t), out[t])


@feature(np.zeros(8), table(), expected=[np.sum(table()[t]) + np.max(table()[t]) for t in range(8)])
@cuda.jit
def reductions_of_a_row(out, x):
    t = cuda.grid(1)
    out[t] = np.sum(x[t]) + x[t].max()
