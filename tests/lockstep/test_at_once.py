"""Loops whose iterations run at once compute the same bits as one by one, and end in the same errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_random_programs import load

from paged_numba import lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.compiler.shortcuts import at_once
from paged_numba.lockstep.compiler.translate import translate
from paged_numba.lockstep.cuda import facade as cuda

ONE_BY_ONE, AT_ONCE = 0, 1 << 17
"""Values of `at_once.MOST_VALUES` with which no loop and every loop runs at once."""


@cuda.jit
def dot_products(out, last, a, b, counts):
    t = cuda.threadIdx.x
    single = np.float32(0)
    double = 0.0
    row = a[t]
    i = -1
    x = np.float32(0)
    if counts[cuda.blockIdx.x] > 2:
        for i in range(counts[cuda.blockIdx.x]):
            x = row[i] * row[0]
            single += x * b[i, t]
            double += x * b[i, t] + i
    out[cuda.blockIdx.x, t] = single
    out[cuda.blockIdx.x, t] += double
    last[cuda.blockIdx.x, t] = 1000 * i + x


def program_globals(kernel):
    """Return the globals of the lane program of a kernel."""
    return translate(kernel.py_func, kernel=True).function.__globals__


def run(counts, threads, limit, seed=0):
    """Run `dot_products`; return its two outputs and how many sums were added up at once."""
    rng = np.random.default_rng(seed)
    a, b = (
        rng.standard_normal((threads, 40)).astype(np.float32),
        rng.standard_normal((40, threads)).astype(np.float32),
    )
    out, last = np.zeros((2, len(counts), threads))
    sums = []

    def counted(total, terms):
        sums.append(at_once.accumulate(total, terms))
        return sums[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_once, "MOST_VALUES", limit)
        patch.setitem(program_globals(dot_products), "accumulate", counted)
        lockstep.launch(dot_products, len(counts), threads, out, last, a, b, np.array(counts))
    return (out, last), len(sums)


@given(
    counts=st.one_of(
        st.lists(st.integers(0, 40), min_size=1, max_size=4),
        st.builds(lambda n, k: [n] * k, st.integers(0, 40), st.integers(1, 3)),
    ),
    threads=st.sampled_from((1, 2, 7, 33)),
)
def test_sums_are_the_same_bits(counts, threads):
    slow, none = run(counts, threads, ONE_BY_ONE)
    fast, sums = run(counts, threads, AT_ONCE)
    np.testing.assert_array_equal(fast, slow)
    same = len(set(counts)) == 1 and counts[0] >= at_once.LEAST_ITERATIONS
    assert none == 0
    assert sums == 2 or not same


# Any loop that only adds up.

terms = st.recursive(
    st.sampled_from(("i", "t", "row[i]", "data[i, t]", "data[t, i]", "pair[0]", "2", "0.5", "x", "y")),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
        st.builds("float32({})".format, inner),
        st.builds("int32({})".format, inner),
        st.builds("row[int32({})]".format, inner),
    ),
    max_leaves=4,
)


@st.composite
def adding_programs(draw):
    """Draw the source of a kernel with a loop that adds up two sums."""
    zeros = st.sampled_from(("0", "0.0", "float32(0)"))
    return "\n".join((
        "def kernel(out, data, pair, count):",
        "    t = cuda.threadIdx.x",
        "    row = data[t]",
        f"    a = {draw(zeros)}",
        f"    b = {draw(zeros)}",
        *(["    x = 0.25"] if draw(st.booleans()) else []),
        f"    if t {draw(st.sampled_from(('>= 0', '< 2')))}:",
        f"        for i in range({draw(st.sampled_from(('count', '1, count', 'count, 0, -1', 't + count')))}):",
        f"            a += {draw(terms)}",
        f"            y = {draw(terms)}",
        f"            x = {draw(terms)}",
        f"            b += {draw(terms)}",
        "    out[t, 0] = a",
        "    out[t, 1] = b",
        "",
    ))  # fmt: skip


def outcome(kernel, limit, *arguments):
    """Return what a launch of 3 threads stores, or the type and message of its error."""
    out = np.zeros((3, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_once, "MOST_VALUES", limit)
        try:
            lockstep.launch(kernel, 1, 3, out, *arguments)
        except Exception as error:
            return type(error), str(error)
    return out


@given(source=adding_programs(), count=st.integers(0, 8))
def test_any_sum_is_the_same_and_any_error_too(source, count):
    module = load(source, cuda)
    module.float32, module.int32 = np.float32, np.int32
    data = np.linspace(-1, 2, 64, dtype=np.float32).reshape(8, 8)
    results = [outcome(module.kernel, limit, data, (1.5, 2), count) for limit in (ONE_BY_ONE, AT_ONCE)]
    if any(isinstance(result, tuple) for result in results):
        assert results[0] == results[1]
    else:
        np.testing.assert_array_equal(*results)


@cuda.jit
def leaves_its_array(out, data):
    total = 0.0
    for i in range(9):
        total += data[i, cuda.threadIdx.x]
    out[0, 0] = total


@cuda.jit
def leaves_its_array_by_a_view(out, data):
    t = cuda.threadIdx.x
    total = 0.0
    for i in range(4):
        row = data[t]
        total += row[5 * t - i]
    out[0, 0] = total


@cuda.jit
def reads_before_it_assigns(out, data):
    total = 0.0
    for i in range(9):
        total += missing  # noqa: F821
        missing = data[0, 0] + i  # noqa: F841
    out[0, 0] = total


@cuda.jit
def indexes_a_number(out, data):
    total = 0.0
    x = data[0, 0]
    for i in range(9):
        total += x[i]
    out[0, 0] = total


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            leaves_its_array,
            r"data\[8, 0\] out of bounds for shape \(8, 8\), thread 0 of",
        ),
        (leaves_its_array_by_a_view, r"data\[2, 10\] out of bounds.*thread 2 of"),
        (reads_before_it_assigns, "'missing' is read before it is assigned"),
        (indexes_a_number, "a number of type float32 does not support indexing"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_error_of_the_kernel_is_the_same(kernel, message):
    data = np.zeros((8, 8), np.float32)
    one_by_one, together = (outcome(kernel, limit, data) for limit in (ONE_BY_ONE, AT_ONCE))
    assert one_by_one == together
    assert issubclass(together[0], KernelError)
    with pytest.raises(KernelError, match=message):
        lockstep.launch(kernel, 1, 3, np.zeros((3, 2)), data)


@pytest.mark.parametrize("fault", [AttributeError, IndexError, NameError, TypeError, ValueError])
def test_fault_of_the_machine_surfaces(fault, monkeypatch):
    program = program_globals(dot_products)
    right = program["mul"]

    def wrong_for_iterations_at_once(a, b):
        if np.ndim(a) == 3:
            raise fault("planted")
        return right(a, b)

    monkeypatch.setitem(program, "mul", wrong_for_iterations_at_once)
    run([20], 3, ONE_BY_ONE)
    with pytest.raises((fault, KernelError), match="planted") as caught:
        run([20], 3, AT_ONCE)
    assert isinstance(caught.value.__cause__ or caught.value, fault)


@cuda.jit
def takes_its_bound(out, counter):
    total = 0.0
    for i in range(cuda.atomic.add(counter, 0, 2)):
        total += counter[0] + i
    out[0, 0] = total


@pytest.mark.parametrize("limit", [ONE_BY_ONE, AT_ONCE])
@pytest.mark.parametrize("first", [0, 3, 8])
def test_bounds_are_evaluated_once(limit, first):
    counter = np.array([first])
    out = np.zeros((3, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_once, "MOST_VALUES", limit)
        lockstep.launch(takes_its_bound, 1, 1, out, counter)
    assert counter[0] == first + 2
    assert out[0, 0] == first * counter[0] + first * (first - 1) / 2


def test_loop_that_only_adds_up_is_found():
    assert "at_once(" in lockstep.lane_program(dot_products)
    assert "at_once(" not in lockstep.lane_program(carries)
    assert "at_once(" not in lockstep.lane_program(reads_its_sum)


@cuda.jit
def carries(out):
    t = cuda.threadIdx.x
    total = 0.0
    previous = 1.0
    for i in range(9):
        total += previous
        previous = total * 0.5 + i
    out[t] = total


@cuda.jit
def reads_its_sum(out):
    total = 1.0
    for i in range(9):
        total += total * i
    out[cuda.threadIdx.x] = total


@cuda.jit
def changes_its_type(out):
    total = 0
    for i in range(9):
        total += i * 0.5
    out[cuda.threadIdx.x] = total


@cuda.jit
def adds_a_constant(out):
    total = 0.0
    for _ in range(9):
        total += 0.1
    out[cuda.threadIdx.x] = total


@pytest.mark.parametrize(
    "kernel", [carries, reads_its_sum, changes_its_type, adds_a_constant], ids=lambda k: k.py_func.__name__
)
def test_loops_that_must_go_one_by_one(kernel):
    out = np.zeros(3)
    lockstep.launch(kernel, 1, 3, out)
    expected = np.zeros(3)

    class Lane:
        threadIdx = type("", (), {"x": 0})  # noqa: N815 (CUDA's name)

    code = kernel.py_func
    original = code.__globals__["cuda"]
    code.__globals__["cuda"] = Lane
    try:
        code(expected)
    finally:
        code.__globals__["cuda"] = original
    np.testing.assert_array_equal(out, np.full(3, expected[0]))
