"""Functions as values, inner functions, lambdas and overloads: what is refused, and what the instruments see."""

import sys
from pathlib import Path

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.errors import CompilationError, KernelError, UnsupportedConstructError
from paged_numba.lockstep.compiler.analysis.scopes import unique
from paged_numba.lockstep.compiler.source import Source
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.sanitizer.stores import stored_parameters

sys.path.insert(0, str(Path(__file__).parent))


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
def with_rest(x, **rest):
    return x


def plain(x):
    return x


BOTH = (increment, double)


def launched(kernel, *args, threads=4, **options):
    out = np.zeros(threads, np.int64)
    with lockstep.options(**options):
        lockstep.launch(kernel, 1, threads, out, *args)
    return out.tolist()


# What Numba does not compile is refused by name, with the line.


def calls_one_of_two(out):
    f = increment
    if out[0] > 1:
        f = double
    out[0] = f(1)


def chooses_in_a_ternary(out):
    f = increment if out[0] > 1 else double
    out[0] = f(1)


def loops_over_different_functions(out):
    for f in BOTH:
        out[0] += f(1)


def chooses_by_an_index(out):
    out[0] = BOTH[out[0]](1)


def calls_a_plain_function(out):
    out[0] = plain(1)


def passes_a_plain_function(out):
    out[0] = apply(plain, 1)


def captures_a_variable_in_a_value(out):
    k = out[1]
    out[0] = apply(lambda x: x + k, 1)


def captures_in_a_branch(out):
    if out[0] > 1:
        k = 1
    else:
        k = 2

    def f(x):
        return x + k

    out[0] = apply(f, 1)


def captures_what_comes_later(out):
    def f(x):
        return x + k

    k = 1
    out[0] = f(k)


def recurses_inside(out):
    def f(x):
        return x if x < 1 else f(x - 1)

    out[0] = f(3)


def has_a_decorated_function(out):
    @cuda.jit(device=True)
    def f(x):
        return x

    out[0] = f(3)


def passes_a_keyword_to_rest(out):
    out[0] = with_rest(1, y=2)


def calls_inner_with_star(out):
    def f(*args):
        return args[0]

    out[0] = f(1, 2)


def takes_stars(out, *rest):
    out[0] = 1


def misses_an_argument(out):
    def f(x, y):
        return x + y

    out[0] = f(1)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (calls_one_of_two, r"where f may be the function double or increment: call each one in a branch"),
        (chooses_in_a_ternary, "may be the function double or increment"),
        (loops_over_different_functions, r"BOTH\[0\] or BOTH\[1\].*literal_unroll"),
        (chooses_by_an_index, r"may be the function BOTH\[0\] or BOTH\[1\]"),
        (
            calls_a_plain_function,
            r"the plain Python function 'plain': decorate it with @cuda.jit\(device=True\)",
        ),
        (passes_a_plain_function, "the plain Python function 'plain'"),
        (captures_a_variable_in_a_value, "the capture of 'k', which is no constant.*pass k as an argument"),
        (captures_in_a_branch, "the capture of 'k', which is no constant"),
        (captures_what_comes_later, "the capture of 'k', which is assigned only after"),
        (recurses_inside, "the capture of 'f', which is assigned only after"),
        (has_a_decorated_function, "a decorated function inside a kernel.*decorate it outside"),
        (passes_a_keyword_to_rest, r"\*\*rest in a device function"),
        (calls_inner_with_star, r"Numba passes only one argument to the \*args"),
        (takes_stars, r"\*args in a kernel"),
        (misses_an_argument, "missing a required argument: 'y'"),
    ],
)
def test_what_numba_does_not_compile_is_refused_by_name(kernel, message):
    line = kernel.__code__.co_firstlineno
    with pytest.raises(UnsupportedConstructError, match=message) as raised:
        lockstep.launch(kernel, 1, 1, np.zeros(2, np.int64))
    place = int(str(raised.value).rpartition("test_functions.py:")[2])
    assert line <= place <= line + 12


def calls_an_array(out):
    f = out
    out[0] = f(1)


def calls_a_number(out, x):
    out[0] = x(1)


def stars_an_array(out):
    out[0] = max(*out)


@cuda.jit(device=True)
def needs_two(a, b):
    return a + b


def passes_too_few(out):
    out[0] = apply(needs_two, 1)


@pytest.mark.parametrize(
    ("kernel", "args", "message"),
    [
        (calls_an_array, (), "only a function can be called, got the array out, test_functions.py"),
        (calls_a_number, (1,), "only a function can be called"),
        (stars_an_array, (), r"\*args in a call must be a tuple, got the array out"),
        (passes_too_few, (), r"needs_two\(\): missing a required argument: 'b', test_functions.py"),
    ],
)
def test_a_call_that_fails_when_it_runs_names_the_line(kernel, args, message):
    with pytest.raises(KernelError, match=message):
        lockstep.launch(kernel, 1, 1, np.zeros(2, np.int64), *args)


def test_lanes_that_hold_different_functions_cannot_call_them():
    @cuda.jit(device=True)
    def choose(out, first, second):
        t = cuda.grid(1)
        f = first
        if t > 1:
            f = second
        if t > limit:
            out[t] = f(t)

    def kernel(out):
        choose(out, increment, double)

    limit = 1  # the lanes that call hold one function
    assert launched(kernel) == [0, 0, 4, 6]
    limit = 0
    Source.of(choose.py_func).outer["limit"] = 0
    Source.of(choose.py_func).translations.clear()
    with pytest.raises(KernelError, match="must hold one function in all threads, got double and increment"):
        launched(kernel)


# Lanes.


def test_the_default_of_an_inner_function_is_computed_where_it_is_defined():
    def kernel(out):
        t = cuda.grid(1)
        factor = t

        def scaled(x, times=factor):
            return x * times

        factor = 100
        out[t] = scaled(4) + factor

    assert launched(kernel) == [100, 104, 108, 112]


def test_an_inner_function_faults_only_in_the_lanes_that_call_it():
    def kernel(out, x):
        t = cuda.grid(1)

        def take(i):
            return x[i]

        out[t] = take(t) if t < 2 else -1
        if t > 2 and take(t - 2) > 5:
            out[t] = 9

    for order in ("together", "forward", "reverse"):
        assert launched(kernel, np.array([5, 6]), order=order) == [5, 6, -1, 9]


def test_a_value_is_computed_before_the_place_that_it_goes_to():
    @cuda.jit
    def kernel(out, records, drawn):
        t = cuda.threadIdx.x
        n = 0

        def count():
            nonlocal n
            n += 1
            out[t, 7] = n
            return n

        if t != 1:
            out[t, count()] = count()
            out[t, n] = 10 * count()
            out[t, out[t, 7]] = 100 * count()
            records[t].v[count() % 3] = count()
            out[t, n] += count()
            out[t, 0] = cuda.atomic.add(drawn, t, 1)
            drawn[cuda.atomic.add(drawn, 0, 0)] = cuda.atomic.add(drawn, 0, t)

    out, records = np.zeros((3, 8), int), np.zeros(3, [("v", int, 3)])
    lockstep.launch(kernel, 1, 3, out, records, drawn := np.array([1, 5, 0, 0, 0]))
    assert out.tolist() == [[1, 0, 1, 30, 400, 0, 7, 7], [0] * 8, [0, 0, 1, 30, 400, 0, 7, 7]]
    assert records["v"].tolist() == [[5, 0, 0], [0] * 3, [5, 0, 0]]
    assert drawn.tolist() == [4, 5, 1, 0, 2]


@pytest.mark.parametrize("order", ["together", "forward", "reverse"])
def test_a_barrier_in_an_inner_function_meets_all_threads(order):
    def kernel(out):
        t = cuda.grid(1)
        shared = cuda.shared.array(64, np.int64)

        def exchange(value):
            shared[t] = value
            cuda.syncthreads()
            return shared[63 - t]

        out[t] = exchange(t * t)

    assert launched(kernel, threads=64, order=order) == [(63 - t) ** 2 for t in range(64)]


def test_a_long_loop_in_an_inner_function_computes_what_python_computes():
    def steps(n):
        count = 0
        while n > 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            count += 1
        return count

    def kernel(out):
        t = cuda.grid(1)
        offset = 7

        def run(n):
            count = offset
            while n > 1:
                n = n // 2 if n % 2 == 0 else 3 * n + 1
                count += 1
            return count

        total = 0
        for i in range(t % 3 + 1):
            total += run(t + i)
        out[t] = total

    out = np.zeros(4096, np.int64)
    lockstep.launch(kernel, 16, 256, out)
    assert out.tolist() == [sum(7 + steps(t + i) for i in range(t % 3 + 1)) for t in range(4096)]


# The instruments.


def test_the_profiler_sees_through_variables():
    def direct(out):
        t = cuda.grid(1)
        cuda.atomic.add(out, 0, t)
        out[t] = increment(out[t])

    def through_variables(out):
        t = cuda.grid(1)
        step = increment
        where = cuda.atomic.add
        where(out, 0, t)
        out[t] = step(out[t])

    def through_inner(out):
        t = cuda.grid(1)

        def add(value):
            cuda.atomic.add(out, 0, value)

        add(t)
        step = lambda x: x + 1  # noqa: E731
        out[t] = step(out[t])

    reports = [
        lockstep.profile(kernel, 1, 32, np.zeros(32, np.int64))
        for kernel in (direct, through_variables, through_inner)
    ]
    counted = [[report.memory(kind=kind) for kind in ("load", "store", "atomic")] for report in reports]
    assert counted[0] == counted[1] == counted[2]
    assert all(traffic.requests > 0 for traffic in counted[0])


def test_the_sanitizer_finds_a_race_in_an_inner_function():
    def kernel(out):
        t = cuda.grid(1)

        def put(where, value):
            where[0] = value

        put(out, t)

    found = lockstep.sanitize(kernel, 1, 4, np.zeros(4, np.int64))
    assert "race" in str(found)


@cuda.jit(device=True)
def put(array, value):
    array[0] = value


@cuda.jit(device=True)
def call_with(function, array):
    function(array, 1)


@cuda.jit(device=True)
def put_first(value, *arrays):
    arrays[0][0] = value


def stores_by_an_inner_function(a, b):
    def f(array):
        array[0] = 1

    f(a)


def stores_into_what_it_captures(a, b):
    def f():
        a[0] = b[0]

    f()


def stores_into_what_a_function_returns(a, b):
    view = (lambda: a)()
    view[0] = b[0]


def stores_through_a_variable(a, b):
    f = put
    f(a, b[0])


def stores_through_a_parameter(a, b):
    call_with(put, a)
    b[0]


def stores_through_stars(a, b):
    put_first(b[0], a)


@pytest.mark.parametrize(
    "kernel",
    [
        stores_by_an_inner_function,
        stores_into_what_it_captures,
        stores_into_what_a_function_returns,
        stores_through_a_variable,
        stores_through_a_parameter,
        stores_through_stars,
    ],
)
def test_stores_are_found_through_functions(kernel):
    assert stored_parameters(kernel) == {"a"}


def test_variables_of_inner_functions_get_names_of_their_own():
    def kernel(x):
        y = x

        def f(x, z):
            y = x + z
            return (lambda z: y + z)(x)

        z = f(y, x)
        x[0] = z

    definition = Source.of(kernel).definition
    names = lockstep.lane_program(kernel)
    assert unique(definition) is not definition  # a copy: the trees of a file are shared
    assert all(f"v_{name}" in names for name in ("x_1", "y_1", "z_1"))


def test_an_error_names_the_variable_as_the_source_does():
    def kernel(out):
        value = 1

        def f(x):
            if x > 1:
                value = x
            return value

        out[0] = f(0) + value

    with pytest.raises(KernelError, match="'value' is read before it is assigned"):
        launched(kernel, threads=1)


# Exceptions.


class OwnError(Exception):
    def __init__(self, text, number):
        super().__init__(text, number)


def test_a_raised_exception_is_one_of_its_kind():
    def kernel(out):
        def check(x):
            if x == 1:
                raise OwnError("too large", 2)

        check(out[0])

    lockstep.launch(kernel, 1, 1, np.zeros(1))
    with pytest.raises(
        KernelError, match=r"too large.*thread 0 of thread block 0, test_functions\.py"
    ) as raised:
        lockstep.launch(kernel, 1, 1, np.ones(1))
    assert isinstance(raised.value, OwnError)


# Overloads.


@pytest.fixture(scope="module")
def extending():
    """Return ``numba.cuda.extending`` and Numba's types."""
    found = pytest.importorskip("numba.cuda.extending")
    if not hasattr(found, "overload_method"):
        pytest.skip("this release of numba.cuda has no overloads of its own")
    from numba.cuda import types

    return found, types


def overloaded_by_type(x, times=3):
    """Has implementations for integers and for floating-point numbers."""


def complex_argument(out):
    out[0] = overloaded_by_type(1j)


def test_an_overload_chooses_by_types(extending):
    module, types = extending
    asked = []

    @module.overload(overloaded_by_type)
    def choose(x, times=3):
        asked.append(str(x))
        if isinstance(x, types.Integer):
            return lambda x, times=3: x * times
        if isinstance(x, types.Float):
            return lambda x, times=3: x + times
        return None

    def kernel(out, x):
        t = cuda.grid(1)
        f = overloaded_by_type
        if t > 1:
            out[t] = overloaded_by_type(t) + f(x[t], times=1)
        else:
            out[t] = apply(overloaded_by_type, x[t])

    x = np.arange(4) + 0.5
    assert launched(kernel, x) == [3, 4, 6 + 3, 9 + 4]
    assert launched(kernel, x) == [3, 4, 6 + 3, 9 + 4]
    assert sorted(asked) == ["float64", "float64", "int64"]  # once for each way to call it
    with pytest.raises(
        CompilationError, match=r"overloaded_by_type\(complex128\): no overload .*, test_functions.py"
    ):
        lockstep.launch(complex_argument, 1, 1, x)


def test_methods_and_attributes_of_arrays(extending):
    module, types = extending

    @module.overload_method(types.Array, "first_plus")
    def first_plus(array, amount=1):
        return lambda array, amount=1: array[0] + amount

    @module.overload_attribute(types.Array, "last_item")
    def last_item(array):
        return lambda array: array[array.size - 1]

    def kernel(out, x):
        t = cuda.grid(1)
        out[t] = x.first_plus(t) + x.first_plus() + x.last_item

    assert launched(kernel, np.array([100, 5, 7])) == [208, 209, 210, 211]


def test_a_registered_function_is_a_device_function(extending):
    module, _ = extending

    @module.register_jitable
    def stores(array, value):
        array[0] = value

    def kernel(a, b):
        stores(a, b[0])

    a = np.zeros(1)
    lockstep.launch(kernel, 1, 1, a, np.ones(1))
    assert a[0] == 1
    assert stored_parameters(kernel) == {"a"}


def test_code_that_is_no_python_is_refused_by_name(extending):
    module, _ = extending

    @module.intrinsic
    def identity(context, x):
        return x(x), lambda context, builder, signature, args: args[0]

    def kernel(out):
        out[0] = identity(1)

    with pytest.raises(UnsupportedConstructError, match="`identity`, whose code is written with @intrinsic"):
        launched(kernel)
