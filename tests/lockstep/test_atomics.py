"""Atomic operations: every lane's old value and the memory afterwards, against a loop over the lanes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from written_kernels import written

from paged_numba import cuda, lockstep
from paged_numba.lockstep.language import atomics, intrinsics

BLOCKS, THREADS, WARP = 2, 40, 32
LANES = BLOCKS * THREADS
ELEMENTS = LANES


def is_nan(x):
    return x != x


# What one lane stores, by NumPy scalars: the old value, the operand and, for cas, the new value.
STORED = {
    "add": lambda old, x: old + x,
    "sub": lambda old, x: old - x,
    "and_": lambda old, x: old & x,
    "or_": lambda old, x: old | x,
    "xor": lambda old, x: old ^ x,
    "max": lambda old, x: x if x > old else old,
    "min": lambda old, x: x if x < old else old,
    "nanmax": lambda old, x: x if x > old or (is_nan(old) and not is_nan(x)) else old,
    "nanmin": lambda old, x: x if x < old or (is_nan(old) and not is_nan(x)) else old,
    "inc": lambda old, x: old.dtype.type(0) if old >= x else old + old.dtype.type(1),
    "dec": lambda old, x: x if old == 0 or old > x else old - old.dtype.type(1),
    "exch": lambda old, x: x,
    "cas": lambda old, x, new: new if old == x else old,
}
FLOATING = ("add", "sub", "max", "min", "nanmax", "nanmin", "exch")
DTYPES = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")

TEXT = """
def kernel(x, at, active, operand, new, old):
    i = cuda.grid(1)
    if active[i]:
        {}cuda.atomic.{}(x, at[i], operand[i]{})
"""
KERNELS = {
    (name, used): written(TEXT.format("old[i] = " if used else "", name, ", new[i]" if name == "cas" else ""))
    for name in STORED
    for used in (True, False)
}


def turns(order, together):
    """Return the lanes in the order in which the machine runs them."""
    blocks = list(range(BLOCKS))
    if order == "reverse":
        blocks.reverse()
    warps = [range(first, min(first + WARP, THREADS)) for first in range(0, THREADS, WARP)]
    if order == "together":
        warps = [range(THREADS)]
    elif order == "reverse":
        warps.reverse()
    batches = [sorted(blocks)] if together else [[block] for block in blocks]
    return [
        block * THREADS + thread for batch in batches for warp in warps for block in batch for thread in warp
    ]


def run_one_by_one(name, lanes, x, at, active, operand, new):
    """Return the memory afterwards, and the old value of each active lane."""
    x, old = x.copy(), np.zeros(LANES, x.dtype)
    for lane in lanes:
        if active[lane]:
            before = old[lane] = x[at[lane]]
            given = (operand[lane], new[lane]) if name == "cas" else (operand[lane],)
            x[at[lane]] = STORED[name](before, *given)
    return x, old


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


@st.composite
def cases(draw):
    """Draw an operation, a dtype, addresses, operands and a mask; they shrink towards one address and few values."""
    name = draw(st.sampled_from(sorted(STORED)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES if name in FLOATING else DTYPES[:7])))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    if dtype.kind == "f":
        few = np.array([0.0, 1.5, -0.0, np.nan, -np.inf, 0.1, 3e4]).astype(dtype)
        many = (rng.standard_normal(LANES) * 10.0 ** rng.integers(-3, 4, LANES)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        few = np.array([0, 1, 2, limits.max, limits.min, 5], dtype)
        many = rng.integers(limits.min, limits.max, LANES, dtype, endpoint=True)
    few = few[: draw(st.integers(1, len(few)))]
    values = [rng.choice(few, LANES) if draw(st.booleans()) else many for _ in range(3)]
    addresses = {
        "one": np.full(LANES, 3),
        "few": rng.integers(0, 4, LANES),
        "skewed": np.where(rng.random(LANES) < 0.7, 5, rng.integers(0, ELEMENTS, LANES)),
        "distinct": rng.permutation(ELEMENTS),
        "by block": np.repeat(np.arange(BLOCKS), THREADS),
    }
    at = addresses[draw(st.sampled_from(sorted(addresses)))]
    masks = {
        "all": np.ones(LANES, bool),
        "some": rng.random(LANES) < 0.5,
        "one": np.arange(LANES) == draw(st.integers(0, LANES - 1)),
    }
    active = masks[draw(st.sampled_from(sorted(masks)))]
    return name, values[0], at, active, values[1], values[2]


def check(name, x, at, active, operand, new, *, order="together", together=True):
    """Compare the machine with the loop over lanes, to the bit, with the old values used and unused."""
    with np.errstate(all="ignore"):
        expected, olds = run_one_by_one(name, turns(order, together), x, at, active, operand, new)
    for used in (True, False):
        memory, old = x.copy(), np.zeros(LANES, x.dtype)
        with lockstep.options(order=order, max_lanes=LANES if together else THREADS):
            lockstep.launch(KERNELS[name, used], BLOCKS, THREADS, memory, at, active, operand, new, old)
        np.testing.assert_array_equal(bits(memory), bits(expected), err_msg=f"{name} {x.dtype} used={used}")
        if used:
            np.testing.assert_array_equal(bits(old), bits(olds), err_msg=f"{name} {x.dtype}")


def one_address(name, dtype, first, operands, news=(0,)):
    """Return a case with all lanes on one element."""
    x = np.full(ELEMENTS, first, dtype)
    repeated = (np.resize(np.array(given, dtype), LANES) for given in (operands, news))
    return name, x, np.zeros(LANES, np.int64), np.ones(LANES, bool), *repeated


@settings(max_examples=150)
@given(case=cases(), order=st.sampled_from(("together", "forward", "reverse")), together=st.booleans())
@example(one_address("inc", "uint32", 9, [7]), "together", True)  # beyond the limit
@example(one_address("dec", "uint32", 9, [7]), "together", True)
@example(one_address("inc", "uint64", 2**64 - 3, [2**64 - 1]), "together", True)
@example(one_address("inc", "int32", -2, [7]), "together", True)
@example(one_address("max", "float32", -0.0, [0.0, -0.0]), "together", True)
@example(one_address("max", "float32", np.nan, [1.0, 2.0]), "together", True)
@example(one_address("nanmin", "float64", np.nan, [np.nan, 2.0, 1.0]), "together", True)
@example(one_address("cas", "int32", 5, [5], [5, 5, 7, 5]), "together", True)
@example(one_address("cas", "int32", 5, [5, 7], [7, 5]), "together", True)
@example(one_address("add", "float32", 1e8, [1.0, 0.3, -5e7]), "together", True)
def test_atomics_do_what_a_loop_over_the_lanes_does(case, order, together):
    check(*case, order=order, together=together)


@pytest.mark.parametrize("name", sorted(STORED))
@pytest.mark.parametrize("threads", [1024, 4096])
def test_large_batches_are_divided_into_matrices(name, threads):
    """Rows of all lengths, and addresses of more than 16 bits, in the order of the lanes."""
    rng = np.random.default_rng(1)
    position = np.where(rng.random(threads) < 0.5, 3, rng.integers(0, 300_000, threads))
    position[rng.integers(0, threads, threads // 4)] = rng.integers(0, 50, threads // 4)
    if threads == 4096:
        position[position > 100] %= 200  # all in 16 bits
    x = rng.integers(0, 9, position.max() + 1).astype(np.uint32)
    operand, new = rng.integers(0, 9, (2, threads)).astype(np.uint32)
    expected, olds = x.copy(), np.zeros(threads, np.uint32)
    for lane in range(threads):
        olds[lane] = expected[position[lane]]
        given = (operand[lane], new[lane])[: 2 if name == "cas" else 1]
        with np.errstate(all="ignore"):
            expected[position[lane]] = STORED[name](olds[lane], *given)
    old = np.zeros(threads, np.uint32)
    lockstep.launch(
        KERNELS[name, True], threads // 256, 256, x, position, np.ones(threads, bool), operand, new, old
    )
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(old, olds)


def without_order(position):
    """Lanes in the wrong order: an address's last lane takes its first turn."""
    for at, lanes, lengths in atomics_rows(position):
        inside = np.arange(lanes.shape[1]) < lengths[:, None]
        turned = lanes[:, ::-1].copy()
        turned[inside] = np.concatenate([row[:n][::-1] for row, n in zip(lanes, lengths, strict=True)])
        yield at, turned, lengths


atomics_rows = atomics._rows


def test_loop_over_the_lanes_would_notice_lanes_out_of_order(monkeypatch):
    case = one_address("add", "float32", 1e8, [1.0, 0.3, -5e7])
    check(*case)
    monkeypatch.setattr(atomics, "_rows", without_order)
    with pytest.raises(AssertionError):
        check(*case)


def test_loop_over_the_lanes_would_notice_floats_added_in_pairs(monkeypatch):
    case = one_address("add", "float32", 0.1, [0.1, 1e4, 0.7])
    check(*case)
    in_pairs = atomics.OPERATIONS["add"]._replace(
        at_once=lambda first, x: np.stack(
            [first + x[:, : n + 1].sum(axis=1) for n in range(x.shape[1])], axis=1
        )
    )
    text = TEXT.format("old[i] = ", "add", "")
    monkeypatch.setitem(KERNELS, ("add", True), written(text))
    monkeypatch.setitem(atomics.ATOMICS, "atomic.add", atomics._intrinsic(in_pairs))
    monkeypatch.setitem(intrinsics.INTRINSICS, "cuda.atomic.add", atomics._intrinsic(in_pairs))
    with pytest.raises(AssertionError):
        check(*case)


def test_atomics_on_a_local_array_see_what_was_stored():
    @cuda.jit
    def count(out):
        i = cuda.threadIdx.x
        own = cuda.local.array(2, np.int32)
        own[0] = i
        own[1] = 7
        out[i, 0] = cuda.atomic.add(own, 0, 5)
        out[i, 1] = own[0]
        own[i % 2] = 100
        cuda.atomic.max(own, 1, 50)
        out[i, 2] = own[1]

    out = np.zeros((4, 3), np.int32)
    lockstep.launch(count, 1, 4, out)
    expected = [[0, 5, 50], [1, 6, 100], [2, 7, 50], [3, 8, 100]]
    np.testing.assert_array_equal(out, expected)


def test_unused_results_leave_the_same_memory_in_an_observed_launch():
    @cuda.jit
    def count(bins, x):
        i = cuda.grid(1)
        cuda.atomic.add(bins, x[i], 0.1)

    x = np.arange(128) % 5
    plain, profiled, sanitized = (np.zeros(5, np.float32) for _ in range(3))
    lockstep.launch(count, 2, 64, plain, x)
    report = lockstep.profile(count, 2, 64, profiled, x)
    findings = lockstep.sanitize(count, 2, 64, sanitized, x)
    np.testing.assert_array_equal(bits(plain), bits(profiled))
    np.testing.assert_array_equal(bits(plain), bits(sanitized))
    # In each warp, 32 lanes on 5 addresses: 7 lanes share one.
    assert report.memory("global", "atomic").turns == 4 * 7
    assert not findings
