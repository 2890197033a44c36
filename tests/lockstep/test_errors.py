"""Each error names what went wrong and where, and has a twin that is fine."""

import re

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.errors import (
    CompilationError,
    KernelError,
    KernelIndexError,
    LaunchError,
    SynchronizationError,
    UnsupportedConstructError,
)
from paged_numba.lockstep.cuda import facade as cuda

LINE = r"test_errors\.py:\d+"


def line_of(kernel, text):
    """Return the line of this file, in `kernel`, that holds `text`."""
    import inspect

    lines, first = inspect.getsourcelines(kernel.py_func)
    return first + next(i for i, line in enumerate(lines) if text in line)


def launch(kernel, grid, thread_block, *args, **options):
    lockstep.launch(kernel, grid, thread_block, *args, **options)


# Bounds.


@cuda.jit
def shift(out, by):
    i = cuda.grid(1)
    out[i + by] = i


def test_index_out_of_bounds_names_array_index_bounds_thread_and_line():
    message = (
        r"^out\[70\] out of bounds for shape \(70,\), thread 5 of thread block 2, "
        rf"test_errors\.py:{line_of(shift, 'by] =')}$"
    )
    with pytest.raises(KernelIndexError, match=message):
        launch(shift, 3, 32, np.zeros(70), 1)
    launch(shift, 3, 32, np.zeros(97), 1)


def test_negative_index_beyond_the_start_is_out_of_bounds():
    with pytest.raises(IndexError, match=r"out\[-5\] out of bounds for shape \(4,\), thread 0 of"):
        launch(shift, 1, 4, np.zeros(4), -5)
    out = np.zeros(4)
    launch(shift, 1, 4, out, -4)  # wraps around, as in Numba
    np.testing.assert_array_equal(out, [0, 1, 2, 3])


@cuda.jit
def guarded(out, x, n):
    i = cuda.grid(1)
    if i < n:
        out[i] = x[i]


def test_inactive_threads_may_have_any_index():
    x = np.arange(5.0)
    out = np.zeros(5)
    launch(guarded, 1, 32, out, x, 5)
    np.testing.assert_array_equal(out, x)
    with pytest.raises(KernelIndexError, match=r"x\[5\] out of bounds for shape \(5,\)"):
        launch(guarded, 1, 32, np.zeros(6), x, 6)


@cuda.jit
def rows(out, x, row, column):
    view = x[row]
    out[cuda.threadIdx.x] = view[column + cuda.threadIdx.x]


def test_index_into_a_view_names_the_array_with_all_indices():
    x = np.arange(12.0).reshape(3, 4)
    with pytest.raises(KernelIndexError, match=r"x\[1, 4\] out of bounds for its last axis, of shape \(4,\)"):
        launch(rows, 1, 4, np.zeros(4), x, 1, 1)
    with pytest.raises(KernelIndexError, match=r"x\[3\] out of bounds for shape \(3, 4\)"):
        launch(rows, 1, 4, np.zeros(4), x, 3, 0)
    out = np.zeros(4)
    launch(rows, 1, 4, out, x, 1, 0)
    np.testing.assert_array_equal(out, x[1])


@cuda.jit
def shared_store(out, at):
    tile = cuda.shared.array(8, np.float32)
    tile[cuda.threadIdx.x + at] = 1
    cuda.syncthreads()
    out[cuda.threadIdx.x] = tile[cuda.threadIdx.x]


def test_shared_memory_is_bounded_and_named_like_its_variable():
    with pytest.raises(KernelIndexError, match=r"tile\[8\] out of bounds for shape \(8,\), .*thread 7 of"):
        launch(shared_store, 1, 8, np.zeros(8), 1)
    launch(shared_store, 1, 8, np.zeros(8), 0)


@cuda.jit
def local_store(out, at):
    mine = cuda.local.array(4, np.float32)
    mine[at] = 1
    out[0] = mine[at]


def test_local_memory_is_bounded():
    with pytest.raises(KernelIndexError, match=r"mine\[4\] out of bounds for shape \(4,\)"):
        launch(local_store, 1, 1, np.zeros(1), 4)
    launch(local_store, 1, 1, np.zeros(1), 3)


@cuda.jit
def count_up(counts, at):
    cuda.atomic.add(counts, at, 1)


def test_atomic_is_bounded():
    with pytest.raises(KernelIndexError, match=r"counts\[2\] out of bounds"):
        launch(count_up, 1, 1, np.zeros(2), 2)


def test_empty_array_has_no_element():
    with pytest.raises(KernelIndexError, match=r"out\[0\] out of bounds for shape \(0,\)"):
        launch(shift, 1, 1, np.zeros(0), 0)


# Barriers and warps.


@cuda.jit
def barrier_in_a_branch(out, limit):
    if cuda.threadIdx.x < limit:
        cuda.syncthreads()
    out[cuda.threadIdx.x] = 1


@pytest.mark.parametrize("order", ["together", "forward", "reverse"])
def test_barrier_that_some_threads_miss_is_an_error(order):
    message = (
        r"cuda\.syncthreads\(\) must be reached by all threads of a thread block, but 3 of 64 threads "
        rf".* thread 3 .*, test_errors\.py:{line_of(barrier_in_a_branch, 'syncthreads')}"
    )
    with lockstep.options(order=order):
        with pytest.raises(SynchronizationError, match=message):
            launch(barrier_in_a_branch, 2, 64, np.zeros(64), 3)
        launch(barrier_in_a_branch, 2, 64, np.zeros(64), 64)
        launch(barrier_in_a_branch, 2, 64, np.zeros(64), 0)


@cuda.jit
def barrier_after_return(out, limit):
    if cuda.threadIdx.x >= limit:
        return
    cuda.syncthreads()
    out[cuda.threadIdx.x] = 1


@pytest.mark.parametrize("order", ["together", "forward", "reverse"])
def test_before_compute_capability_7_0_a_barrier_waits_for_threads_that_have_returned(order):
    with lockstep.options(order=order, compute_capability=(6, 1)):
        with pytest.raises(SynchronizationError, match=r"thread 40 has returned.* capability 7.0"):
            launch(barrier_after_return, 1, 64, np.zeros(64), 40)
        launch(barrier_after_return, 1, 64, np.zeros(64), 64)
    launch(barrier_after_return, 1, 64, np.zeros(64), 40)


@cuda.jit
def barrier_in_a_loop(out, x):
    for _ in range(x[cuda.threadIdx.x]):
        cuda.syncthreads()
    out[0] = 1


def test_barrier_in_a_loop_that_some_threads_leave_is_an_error():
    with pytest.raises(SynchronizationError, match="has left the loop"):
        launch(barrier_in_a_loop, 1, 32, np.zeros(1), np.arange(32))
    launch(barrier_in_a_loop, 1, 32, np.zeros(1), np.full(32, 3))


@cuda.jit
def barrier_by_block(out):
    if cuda.blockIdx.x == 1:
        cuda.syncthreads()
    out[cuda.blockIdx.x] = 1


def test_barrier_that_whole_blocks_miss_is_fine():
    out = np.zeros(3)
    launch(barrier_by_block, 3, 64, out)
    assert out.all()


@cuda.jit
def shuffle_from(out, source, limit):
    t = cuda.threadIdx.x
    if t < limit:
        out[t] = cuda.shfl_sync(0xFFFFFFFF, t, source)


def test_shuffle_with_absent_lanes_is_an_error():
    with pytest.raises(SynchronizationError, match=rf"cuda\.shfl_sync.*lane 20.*{LINE}"):
        launch(shuffle_from, 1, 32, np.zeros(32), 3, 20)
    launch(shuffle_from, 1, 32, np.zeros(32), 3, 32)


@cuda.jit
def shuffle_in_a_short_warp(out, source):
    t = cuda.threadIdx.x
    out[t] = cuda.shfl_sync(0xFFFFFFFF, t, source)


def test_shuffle_from_a_lane_that_is_not_there_is_an_error():
    with pytest.raises(SynchronizationError, match=r"lane 20.*not there|lane 20 .*does not exist|lane 20"):
        launch(shuffle_in_a_short_warp, 1, 8, np.zeros(8), 20)
    launch(shuffle_in_a_short_warp, 1, 8, np.zeros(8), 7)


# Launches.


@cuda.jit
def nothing(x):
    pass


class Unreadable:
    """An array whose own code fails."""

    @property
    def __array_interface__(self):
        raise KeyError("no shape")


@pytest.mark.parametrize(
    ("grid", "thread_block", "args", "options", "message"),
    [
        (
            1,
            1025,
            (0,),
            {},
            r"threads_per_block.x must lie in 1 \.\. 1024, got threads_per_block=1025|at most 1024 threads",
        ),
        (1, (32, 32, 2), (0,), {}, r"at most 1024 threads, got 2048 with threads_per_block=\(32, 32, 2\)"),
        (1, (1, 1, 65), (0,), {}, r"threads_per_block\.z must lie in 1 \.\. 64"),
        (0, 1, (0,), {}, r"blocks_per_grid\.x must lie in 1 \.\. 2147483647, got blocks_per_grid=0"),
        ((1, 65536), 1, (0,), {}, r"blocks_per_grid\.y must lie in 1 \.\. 65535"),
        (
            1.5,
            1,
            (0,),
            {},
            r"blocks_per_grid must be an int or a tuple of 1 to 3 ints, got blocks_per_grid=1\.5",
        ),
        ((1, 1, 1, 1), 1, (0,), {}, "blocks_per_grid must be an int or a tuple of 1 to 3 ints"),
        (1, 1, (), {}, r"nothing takes 1 argument \(x\), got 0"),
        (1, 1, (1, 2), {}, r"nothing takes 1 argument \(x\), got 2"),
        (1, 1, ([1, 2],), {}, "x must be an array or a number, got list"),
        (1, 1, (abs,), {}, "x must be an array or a number, got the function abs: kernels take no functions"),
        (1, 1, (np.array([object()]),), {}, r"x must have a dtype of fixed size, got x\.dtype=object"),
        (1, 1, (np.str_("1"),), {}, "x must be an array or a number, got the text"),
        (1, 1, (np.ma.array([1.0, 2.0]),), {}, "x must not be a masked array"),
        (1, 1, (Unreadable(),), {}, "x must share its memory with NumPy, got Unreadable: 'no shape'"),
        (1, 1, (0,), {"shared_bytes": 1.5}, r"got shared_bytes=1\.5"),
        (1, 1, (0,), {"shared_bytes": -1}, "shared_bytes must be an integer in 0"),
        (1, 1, (0,), {"shared_bytes": 2**20}, "got shared_bytes=1048576"),
    ],
)
def test_launch_that_a_gpu_would_refuse_is_refused(grid, thread_block, args, options, message):
    with pytest.raises(LaunchError, match=message):
        launch(nothing, grid, thread_block, *args, **options)


def test_an_argument_that_cannot_be_read_is_named_where_kernels_are_checked_to_compile():
    with lockstep.options(check_compiles=True), pytest.raises(LaunchError, match="got Unreadable"):
        launch(nothing, 1, 1, Unreadable())


RECORDS = np.zeros(3, [("number", np.float64), ("count", np.int32)])


@pytest.mark.parametrize("index", [0, slice(0, 2)])
@pytest.mark.parametrize("value", [2.5, 1, True])
def test_a_number_is_no_record(index, value):
    def element(x, value):
        x[0] = value

    def elements(x, value):
        x[:2] = value

    kernel = element if index == 0 else elements
    with pytest.raises(KernelError, match="x holds records, not numbers"):
        launch(kernel, 1, 1, RECORDS, value)
    with pytest.raises(CompilationError):
        lockstep.check_compiles(kernel, (RECORDS, value))


@pytest.mark.parametrize("kernel", [None, "text", 5])
def test_what_is_no_function_is_refused(kernel):
    with pytest.raises(LaunchError, match="kernel must be a Python function or a decorated one, got"):
        launch(kernel, 1, 1)


@pytest.mark.parametrize("thread_block", [1024, (32, 32), (16, 8, 8), (1, 1, 64)])
def test_largest_blocks_run(thread_block):
    launch(nothing, 1, thread_block, 0)


def test_kernel_is_launched_with_a_configuration():
    with pytest.raises(
        LaunchError, match=r"nothing must be launched as nothing\[blocks_per_grid, threads_per_block\]"
    ):
        nothing(1)


@cuda.jit
def too_much_shared(out):
    tile = cuda.shared.array(60 * 1024, np.float32)
    tile[0] = 1


def test_more_shared_memory_than_a_gpu_has_is_refused():
    with pytest.raises(KernelError, match="shared memory"):
        launch(too_much_shared, 1, 1, np.zeros(1))


# Values.


@cuda.jit
def reads_before_assignment(out):
    t = cuda.threadIdx.x
    if t > 100:
        value = 1
    out[t] = value + 1


def test_variable_without_a_value_is_named():
    with pytest.raises(
        KernelError, match=rf"'value' is read before it is assigned, .*thread 0 of thread block 0, {LINE}"
    ):
        launch(reads_before_assignment, 1, 4, np.zeros(4))


@cuda.jit
def divides(out, by):
    t = cuda.threadIdx.x
    out[t] = t // by[t]


def test_integer_division_by_zero_names_the_thread():
    with pytest.raises(KernelError, match=rf"integer division by zero, thread 2 of thread block 0, {LINE}"):
        launch(divides, 1, 4, np.zeros(4), np.array([1, 2, 0, 4]))
    launch(divides, 1, 4, np.zeros(4), np.array([1, 2, 3, 4]))
    launch(divides, 1, 4, np.zeros(4), np.array([1, 2, 0.0, 4]))  # infinite, as on a GPU


def test_read_only_array_is_named():
    frozen = np.zeros(4)
    frozen.flags.writeable = False
    with pytest.raises(KernelError, match="out is read-only"):
        launch(shift, 1, 4, frozen, 0)
    launch(guarded, 1, 4, np.zeros(4), frozen, 4)


@cuda.jit
def asserts(x):
    assert x[cuda.threadIdx.x] > 0, "must be positive"


def test_failed_assertion_names_the_thread():
    with pytest.raises(KernelError, match=rf"must be positive.*thread 1 of thread block 0, {LINE}"):
        launch(asserts, 1, 3, np.array([1, 0, 1]))
    launch(asserts, 1, 3, np.ones(3))


def test_plain_python_errors_inside_the_machine_do_not_look_like_success():
    @cuda.jit
    def wrong_attribute(out):
        out[0] = out.no_such_thing

    with pytest.raises(KernelError, match="no attribute 'no_such_thing'"):
        launch(wrong_attribute, 1, 1, np.zeros(1))


# Constructs that the machine does not run.


def with_list(x):
    y = [1, 2]
    x[0] = y[0]


def with_comprehension(x):
    x[0] = sum([2 * i for i in range(3)])


def with_try(x):
    try:
        x[0] = 1
    finally:
        x[0] = 2


def with_dict(x):
    x[0] = {1: 2}[1]


def with_decorated_function(x):
    @helper
    def f(y):
        return y

    x[0] = f(1)


def with_statement(x):
    with x:
        pass


def with_star(x):
    x[0] = max(**vars(x))


def with_global(x):
    global LINE  # noqa: PLW0602 (that is the construct)
    x[0] = 1


def with_fstring(x):
    print(f"{x[0]}")


def with_yield(x):
    yield x[0]


def with_import(x):
    import math

    x[0] = math.pi


def helper(y):
    return y


def with_plain_function(x):
    x[0] = helper(1)


def with_method(x):
    x.sort()


def with_numpy_function(x):
    x[0] = np.linalg.norm(x)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (with_list, r"list|\[1, 2\]"),
        (with_comprehension, "comprehension"),
        (with_try, "try"),
        (with_dict, r"dict|\{1: 2\}"),
        (with_decorated_function, "a decorated function.*decorate it outside"),
        (with_statement, "with"),
        (with_star, "starred"),
        (with_global, "global"),
        (with_fstring, "f-string|JoinedStr|f'"),
        (with_yield, "yield"),
        (with_import, "import"),
        (with_plain_function, "plain Python function 'helper'.*cuda.jit"),
        (with_numpy_function, "np.linalg.norm"),
    ],
)
def test_construct_that_the_machine_does_not_run_is_named(function, named):
    x = np.zeros(2)
    with pytest.raises(UnsupportedConstructError, match=rf"(?s)({named}).*{LINE}"):
        launch(function, 1, 1, x)
    assert not x.any()


def test_unknown_method_is_named():
    with pytest.raises(KernelError, match="sort"):
        launch(with_method, 1, 1, np.zeros(2))


def test_source_that_cannot_be_found_is_an_error():
    namespace = {}
    exec("def typed_in(x):\n    x[0] = 1\n", namespace)
    with pytest.raises(UnsupportedConstructError, match="source"):
        launch(namespace["typed_in"], 1, 1, np.zeros(1))


def test_error_pattern_is_a_pattern():
    assert re.search(LINE, "test_errors.py:12")
