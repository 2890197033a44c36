"""Small kernels with functions as values, inner functions and lambdas; they join the table of `feature_kernels`."""

import math

import numpy as np
from feature_kernels import I8, T8, X8, feature, floats, ints
from numba import cuda, njit


@cuda.jit(device=True)
def increment(x):
    return x + 1


@cuda.jit(device=True)
def double(x):
    return x * 2


@cuda.jit(device=True)
def apply(function, x):
    return function(x)


@cuda.jit(device=True)
def twice(function, x):
    return apply(function, apply(function, x))


@cuda.jit(device=True)
def apply_to_all(function, *args):
    return function(*args)


@cuda.jit(device=True)
def difference(a, b=10):
    return a - b


@cuda.jit(device=True)
def count_of(first, *others):
    return first + 10 * len(others)


@cuda.jit(device=True)
def maybe(x, function=None):
    if function is None:
        return x
    return function(x)


@cuda.jit(device=True)
def chosen():
    return double


@njit
def cubed(x):
    return x * x * x


negated = cuda.jit(device=True)(lambda x: -x)
STEPS = (increment, double, negated)


def kernel_with(operation):
    """Return a kernel that applies an operation that it closes over."""

    @cuda.jit
    def kernel(out, x):
        t = cuda.grid(1)
        out[t] = operation(x[t])

    return kernel


def named(kernel, name):
    """Give a kernel from a factory a name of its own."""
    (getattr(kernel, "py_func", None) or kernel.fn).__name__ = name
    return kernel


# Device functions as values.


@feature(ints(), I8, expected=np.where(T8 < 4, I8 + 2, I8 * 4))
@cuda.jit
def device_function_as_an_argument(out, x):
    t = cuda.grid(1)
    if t < 4:
        out[t] = twice(increment, x[t])
    else:
        out[t] = twice(double, x[t])


@feature(floats(8, np.float64), expected=np.sqrt(T8) + T8 + abs(T8 - 4), exact=False)
@cuda.jit
def builtin_functions_as_arguments(out):
    t = cuda.grid(1)
    out[t] = apply(math.sqrt, float(t)) + apply(float, t) + apply(abs, t - 4)


@feature(ints(), expected=np.where(T8 % 2 == 0, T8 + 1, T8 * 2) + T8 + 1)
@cuda.jit
def functions_held_in_variables(out):
    t = cuda.grid(1)
    f = increment
    if t % 2 == 0:
        g = f
        value = g(t)
    else:
        g = double
        value = g(t)
    out[t] = value + f(t)


@feature(ints(), expected=2 * (-T8 + 1) + T8 + 1)
@cuda.jit
def functions_from_a_tuple(out):
    t = cuda.grid(1)
    f, g, h = STEPS
    out[t] = g(f(h(t))) + STEPS[0](t)


@feature(ints(), expected=T8**3)
@cuda.jit
def jitted_cpu_function_as_an_argument(out):
    t = cuda.grid(1)
    out[t] = apply(cubed, t)


@feature(ints(), expected=np.where(T8 > 3, 2 * T8, T8) - T8)
@cuda.jit
def function_as_a_default_argument(out):
    t = cuda.grid(1)
    if t > 3:
        out[t] = maybe(t, double) + negated(t)
    else:
        out[t] = maybe(t) + negated(t)


@feature(ints(), expected=2 * T8)
@cuda.jit
def function_that_a_function_returns(out):
    t = cuda.grid(1)
    out[t] = chosen()(t)


feature(ints(), I8, expected=I8.astype(np.int64) * 2)(
    named(kernel_with(double), "kernel_that_closes_over_a_function")
)
feature(ints(), I8, expected=-I8.astype(np.int64))(
    named(kernel_with(negated), "kernel_that_closes_over_a_lambda")
)
feature(ints(), I8, expected=abs(I8))(named(kernel_with(abs), "kernel_that_closes_over_a_builtin"))


@feature(ints(), simulated=False, expected=T8 - 10 + (T8 - 5) + (1 - T8) + (T8 + 20) + T8 + (T8 - 3))
@cuda.jit
def starred_and_keyword_arguments(out):
    t = cuda.grid(1)
    pair = (t, 5)
    out[t] = (
        difference(t)
        + difference(*pair)
        + difference(b=t, a=1)
        + count_of(t, 1.5, t)
        + count_of(t)
        + apply_to_all(difference, t, 3)
    )


# Inner functions and lambdas.


@feature(floats(), X8, expected=np.where(T8 < 4, X8 + T8, X8 + 2 * T8))
@cuda.jit
def inner_function_reads_variables_when_it_is_called(out, x):
    t = cuda.grid(1)
    k = t

    def shifted(value):
        return value + k

    if t >= 4:
        k = 2 * t
    out[t] = shifted(x[t])


@feature(ints(), expected=[sum(i * t for i in range(8) if i <= t and i * t % 3) for t in range(8)])
@cuda.jit
def inner_function_with_branches_in_a_loop(out):
    t = cuda.grid(1)

    def term(i):
        if i > t:
            return 0
        product = i * t
        for modulus in range(3, 4):
            if product % modulus == 0:
                return 0
        return product

    total = 0
    for i in range(8):
        if i <= t:
            total += term(i)
    out[t] = total


@feature(ints(), expected=np.where(T8 % 3 == 0, T8 * 3, T8))
@cuda.jit
def inner_function_assigns_a_variable_around_it(out):
    t = cuda.grid(1)
    total = t

    def add(amount):
        nonlocal total
        if amount > 0:
            total += amount

    if t % 3 == 0:
        add(t)
        add(t)
        add(-t)
    out[t] = total


@feature(ints(), expected=3 * T8 + 7 * T8)
@cuda.jit
def inner_function_with_a_default(out):
    t = cuda.grid(1)

    def scaled(x, times=3):
        return x * times

    out[t] = scaled(t) + scaled(t, times=7)


@feature(ints(), expected=(T8 + 1) * 2 + T8 + (T8 + T8 + 1))
@cuda.jit
def inner_functions_call_each_other(out):
    t = cuda.grid(1)
    next_t = t + 1

    def first(x):
        return x + 1

    def second(x):
        def within(y):
            return y * 2

        return within(first(x)) + t

    def x(t):  # its parameter hides the kernel's variable
        return t + next_t

    out[t] = second(t) + x(t)


@feature(ints(), expected=np.where(T8 > 2, T8 * T8 + T8, -1) + (T8 + 5))
@cuda.jit
def lambdas(out):
    t = cuda.grid(1)
    square = lambda x: x * x + t  # noqa: E731
    value = square(t) if t > 2 else -1
    out[t] = value + (lambda x, y=5: x + y)(t)


@feature(ints(), expected=4 * T8 + (T8 + 3))
@cuda.jit
def inner_function_and_lambda_as_arguments(out):
    t = cuda.grid(1)
    offset = 3

    def plus(x):
        return x + offset

    out[t] = twice(lambda x: 2 * x, t) + apply(plus, t)


@feature(ints(), floats(8), expected=np.where((T8 > 1) & (T8 < 6), 1, 0))
@cuda.jit
def inner_function_after_and_runs_only_where_it_must(out, x):
    t = cuda.grid(1)

    def inside(i):
        x[i] = 1  # out of bounds in the threads that must not call it
        return i < 6

    if t > 1 and inside(t if t > 1 else 1 << 20):
        out[t] = 1


@feature(ints(), expected=[sum(range(t, 8)) for t in range(8)])
@cuda.jit
def inner_function_stores_in_shared_memory(out):
    t = cuda.grid(1)
    numbers = cuda.shared.array(8, np.int64)

    def put(place, value):
        numbers[place] = value
        cuda.syncthreads()

    put(t, t)
    total = 0
    for i in range(t, 8):
        total += numbers[i]
    out[t] = total


@feature(ints(), expected=np.maximum(T8 - 3, 0) + np.where(T8 > 4, 1, 2))
@cuda.jit
def two_inner_functions_of_one_name(out):
    t = cuda.grid(1)
    if t > 4:

        def tail():
            return 1

        rest = tail()
    else:

        def tail():
            return 2

        rest = tail()

    def head():
        return max(t - 3, 0)

    out[t] = rest + head()


@feature(ints(), expected=T8 + 1)
@cuda.jit
def name_of_a_module_in_a_variable(out):
    gpu = cuda
    place = gpu.grid
    out[place(1)] = gpu.threadIdx.x + 1
