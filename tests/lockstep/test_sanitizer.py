"""Each detector with a case that it finds and a near-identical one that it allows."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.lockstep.cuda import facade

sys.path.insert(0, str(Path(__file__).parent))
kernels = pytest.importorskip("tutorial_kernels", reason="Numba is not installed")
racy = pytest.importorskip("racy_kernels")

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def kinds(findings):
    return [finding.kind for finding in findings]


def only(findings, kind):
    assert kinds(findings) == [kind], str(findings)
    return next(iter(findings))


# Races in tutorial kernels: a clean version, a racy one, and the array that tells them apart.

MATRICES = (2, 2), (16, 16), lambda: (floats(32, 32), floats(32, 32), zeros(32, 32))
TILES = (2, 2), (32, 8), lambda: (floats(64, 64), zeros(64, 64))
VALUES = 8, 128, lambda: (np.arange(1000, dtype=np.int32) % 64, zeros(64, dtype=np.int32))
SCAN = 2, 128, lambda: (np.arange(256, dtype=np.int32), zeros(256, dtype=np.int32))
REDUCE = 8, 128, lambda: (floats(1024), zeros(8))
STENCIL = 8, 128, lambda: (floats(1024), zeros(1024))

TWINS = [
    ("matmul_tiled", "matmul_without_second_barrier", ["tile_a", "tile_b"], *MATRICES),
    ("transpose_padded", "transpose_without_barrier", ["tile"], *TILES),
    ("histogram_global", "histogram_without_atomics", ["counts"], *VALUES),
    ("inclusive_scan", "inclusive_scan_in_one_buffer", ["buffer"], *SCAN),
    ("reduce_sequential", "reduce_without_barrier", ["partial"], *REDUCE),
    ("stencil", "stencil_without_barrier", ["near"], *STENCIL),
]


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins[0])
@pytest.mark.parametrize("max_lanes", [128, 32768])
def test_a_racy_kernel_is_caught_and_its_clean_twin_passes(twins, max_lanes):
    clean, wrong, arrays, grid, thread_block, make = twins
    with lockstep.options(max_lanes=max_lanes):
        findings = lockstep.sanitize(getattr(kernels, clean), grid, thread_block, *make())
        assert not findings, str(findings)
        findings = lockstep.sanitize(getattr(kernels, wrong), grid, thread_block, *make())
    assert {finding.array for finding in findings} == set(arrays)
    assert {finding.kind for finding in findings.errors} == {"data race"}
    for finding in findings:
        assert finding.example.element.startswith(f"{finding.array}[")
        assert finding.example.thread != finding.example.other_thread
        assert finding.line.startswith("tutorial_kernels.py:")
        assert finding.array in finding.source
        assert finding.array in finding.other_source


@pytest.mark.parametrize(
    "name",
    [
        "vector_add", "saxpy", "copy_with_stride", "matmul_naive", "transpose_naive", "transpose_tiled",
        "histogram_shared", "reduce_interleaved", "reduce_by_shuffles", "monte_carlo_pi", "bitonic_step", "dot",
        "black_scholes_like", "particles",
    ],
)  # fmt: skip
def test_the_other_tutorial_kernels_are_clean(name):
    given_arguments = {
        "vector_add": (8, 128, floats(1000), floats(1000), zeros(1000)),
        "saxpy": (4, 128, np.float32(2), floats(4096), floats(4096)),
        "copy_with_stride": (1, 128, floats(1000), zeros(128), 2, 3),
        "matmul_naive": (*MATRICES[:2], *MATRICES[2]()),
        "transpose_naive": ((2, 8), (32, 8), *TILES[2]()),
        "transpose_tiled": (*TILES[:2], *TILES[2]()),
        "histogram_shared": (*VALUES[:2], *VALUES[2]()),
        "monte_carlo_pi": (4, 64, zeros(1, dtype=np.int64), 5),
        "bitonic_step": (2, 128, floats(256), 64, 128),
        "dot": (8, 128, floats(1024), floats(1024), zeros(1)),
        "black_scholes_like": (1, 128, np.abs(floats(128)) + 1, zeros(128)),
        "particles": (8, 128, floats(1024, 3), zeros(1024)),
    }.get(name, (*REDUCE[:2], *REDUCE[2]()))
    findings = lockstep.sanitize(getattr(kernels, name), *given_arguments)
    assert not findings, str(findings)


def test_a_warp_that_exchanges_through_shared_memory_needs_syncwarp():
    def run(careful):
        return lockstep.sanitize(kernels.reduce_last_warp, 1, 64, floats(64), zeros(1), careful)

    assert not run(True)
    finding = only(run(False), "data race")
    assert "with no barrier or cuda.syncwarp() between" in finding.example.what


def test_syncwarp_orders_one_warp_only():
    def run(distance):
        return lockstep.sanitize(racy.exchange_with_syncwarp, 1, 64, zeros(64, dtype=np.int32), distance)

    assert not run(16)
    assert "with no barrier between" in only(run(32), "data race").example.what


@pytest.mark.parametrize("writer", [0, 1])
def test_of_two_readers_either_may_be_the_other_thread(writer):
    access = np.array([[1, 1], [0, 0]], np.int32)
    access[1, writer] = 2
    element, barriers = np.zeros((2, 2), np.int32), np.zeros(2, bool)
    out = np.full(8, -1, np.int32)
    finding = only(
        lockstep.sanitize(racy.random_accesses, 1, 2, access, element, barriers, True, out), "data race"
    )
    assert finding.example.other_thread == f"thread {1 - writer} of thread block 0"


@pytest.mark.parametrize("order", ["together", "forward", "reverse"])
def test_a_race_has_an_example_of_each_distance_the_widest_first(order):
    def examples(thread_blocks, threads, by):
        with lockstep.options(order=order):
            findings = lockstep.sanitize(racy.shift_in_place, thread_blocks, threads, zeros(256), by)
        finding = only(findings, "data race")
        assert max(map(len, str(findings).splitlines())) <= 100
        assert str(finding).count("x[i] = x[i + by] + 1") == 1
        return [finding.example, *finding.other_examples], str(finding)

    # Thread 31 and thread 32 are neighbours in different warps, thread 63 and thread 64 in different thread blocks.
    found, text = examples(2, 64, 1)
    assert [one.distance for one in found] == ["across thread blocks", "across warps", "within a warp"]
    assert {found[0].thread, found[0].other_thread} == {
        "thread 63 of thread block 0",
        "thread 0 of thread block 1",
    }
    assert {found[1].thread, found[1].other_thread} == {
        "thread 31 of thread block 0",
        "thread 32 of thread block 0",
    }
    assert "\n  across warps, too: x[32]: " in text
    assert "\n  within a warp, too: x[" in text
    # Both lanes are in one warp, but a barrier would help, too: syncwarp() alone must not be the advice.
    assert "with no barrier or cuda.syncwarp() between" in found[2].what
    assert [one.distance for one in examples(1, 64, 1)[0]] == ["across warps", "within a warp"]
    assert [one.distance for one in examples(1, 32, 1)[0]] == ["within a warp"]
    assert [one.distance for one in examples(1, 64, 32)[0]] == ["across warps"]
    assert [one.distance for one in examples(2, 32, 32)[0]] == ["across thread blocks"]


@pytest.mark.parametrize(
    ("grid", "thread_block", "threads"),
    [
        (1, 2, {"thread 0 of thread block 0", "thread 1 of thread block 0"}),
        (1, (1, 2), {"thread (0, 0) of thread block 0", "thread (0, 1) of thread block 0"}),
        ((1, 1, 2), 1, {"thread 0 of thread block (0, 0, 0)", "thread 0 of thread block (0, 0, 1)"}),
    ],
)
def test_threads_have_three_numbers_in_several_dimensions(grid, thread_block, threads):
    found = only(lockstep.sanitize(racy.all_write_one, grid, thread_block, zeros(1)), "data race")
    assert {found.example.thread, found.example.other_thread} == threads


def test_a_shuffle_orders_no_memory():
    finding = only(
        lockstep.sanitize(racy.exchange_by_shuffle_only, 1, 32, zeros(32, dtype=np.int32)), "data race"
    )
    assert finding.array == "tile"


@pytest.mark.parametrize(("shared", "thread_blocks"), [(True, 1), (False, 1), (False, 3)])
@given(data=st.data())
def test_races_are_those_that_comparing_all_pairs_finds(shared, thread_blocks, data):
    steps, threads = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([2, 3, 34]))
    lanes = threads * thread_blocks

    def numbers(largest):
        rows = st.lists(st.integers(0, largest), min_size=lanes, max_size=lanes)
        return np.array(data.draw(st.lists(rows, min_size=steps, max_size=steps)), np.int32)

    access, element = numbers(2), numbers(7)
    # Most threads rest: dense accesses race nearly always.
    access[:, 2:] = 0 if data.draw(st.booleans()) else access[:, 2:]
    barriers = np.array(data.draw(st.lists(st.booleans(), min_size=steps, max_size=steps)))
    given_arguments = access, element, barriers, shared, np.full(8, -1, np.int32)
    with lockstep.options(order=data.draw(st.sampled_from(["together", "forward", "reverse"]))):
        findings = lockstep.sanitize(racy.random_accesses, thread_blocks, threads, *given_arguments)
    done = [
        (lane, element[step, lane], access[step, lane], lane // threads, int(barriers[:step].sum()))
        for step in range(steps)
        for lane in range(lanes)
        if access[step, lane]
    ]
    racing = {
        int(a[1])
        for i, a in enumerate(done)
        for b in done[:i]
        # Two threads, the same element, at least one store; other thread blocks, or no barrier between.
        if a[0] != b[0] and a[1] == b[1] and 2 in (a[2], b[2]) and (a[3] != b[3] or a[4] == b[4])
    }
    assert bool(findings) == bool(racing), f"{findings}\n{racing}"
    assert set(kinds(findings)) <= {"data race"}
    if findings:
        first = next(iter(findings)).example.element
        assert int(first.split("[")[1].rstrip("]")) in racing


def test_threads_that_write_the_same_value_race_harmlessly():
    same, different = np.ones(64, np.int32), np.arange(64, dtype=np.int32)
    findings = lockstep.sanitize(racy.all_set_a_flag, 1, 64, zeros(1, dtype=np.int32), same)
    assert "the same value" in only(findings, "benign race").example.what
    assert str(findings).startswith("0 kinds of error, 1 benign\n")
    findings = lockstep.sanitize(racy.all_set_a_flag, 1, 64, zeros(1, dtype=np.int32), different)
    assert only(findings, "data race").count == 63
    assert findings.errors
    # Another thread block, in another batch, finds the value of the first one.
    with lockstep.options(max_lanes=32):
        findings = lockstep.sanitize(racy.all_set_a_flag, 2, 32, zeros(1, dtype=np.int32), same)
    assert not findings.errors
    assert findings


@pytest.mark.parametrize("thread_blocks", [1, 2])
def test_atomics_race_with_plain_stores_only(thread_blocks):
    def run(atomic):
        return lockstep.sanitize(
            racy.read_then_write_at_once, thread_blocks, 64 // thread_blocks, zeros(1, dtype=np.int32), atomic
        )

    assert not run(True)
    only(run(False), "data race")


def test_thread_blocks_are_ordered_by_the_grid_barrier_only():
    def run(barrier):
        x, out = zeros(64, dtype=np.int64), zeros(64, dtype=np.int64)
        return lockstep.sanitize(racy.neighbours_across_blocks, 64, 1, x, out, barrier)

    assert not run(True)
    assert "nothing orders thread blocks" in only(run(False), "data race").example.what


def test_launches_are_ordered():
    x = np.arange(64, dtype=np.float32)
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.shift, 1, 32, x, x[32:], 0)
        lockstep.launch(racy.shift, 1, 32, x, x, 32)
    assert not findings


# Barriers.


def test_a_divergent_barrier_is_found_and_the_launch_goes_on():
    out = zeros(64, dtype=np.int32)
    assert not lockstep.sanitize(racy.divergent_barrier, 1, 64, out, 64)
    assert not lockstep.sanitize(racy.divergent_barrier, 1, 64, out, 0)
    out[:] = 0
    finding = only(lockstep.sanitize(racy.divergent_barrier, 1, 64, out, 16), "synchronization")
    assert "cuda.syncthreads() must be reached by all threads of a thread block" in finding.example.what
    np.testing.assert_array_equal(out, np.arange(64))


def test_a_divergent_shuffle_is_found():
    out = zeros(32, dtype=np.int64)
    assert not lockstep.sanitize(racy.divergent_shuffle, 1, 32, out, 32)
    finding = only(lockstep.sanitize(racy.divergent_shuffle, 1, 32, out, 30), "synchronization")
    assert "shfl_xor_sync" in finding.example.what


# Unwritten memory.


def test_unwritten_shared_memory_is_found():
    assert not lockstep.sanitize(racy.sum_shared, 3, 32, zeros(1), 32).errors
    findings = lockstep.sanitize(racy.sum_shared, 1, 32, zeros(1), 31)
    finding = only(findings, "uninitialised read")
    assert (finding.example.element, finding.count) == ("tile[31]", 1)
    assert "reads memory that nothing has written" in finding.example.what


def test_unwritten_local_memory_is_found():
    assert not lockstep.sanitize(racy.sum_local, 1, 32, zeros(32), 4)
    finding = only(lockstep.sanitize(racy.sum_local, 1, 32, zeros(32), 3), "uninitialised read")
    assert (finding.example.element, finding.count) == ("mine[3]", 32)


def test_unwritten_device_memory_is_found_until_host_or_kernel_write_it():
    fresh = facade.device_array(64, np.float32)
    out = facade.to_device(zeros(64))

    def use(threads):
        with lockstep.sanitizing() as findings:
            facade.jit(racy.double.py_func)[1, threads](fresh, out)
        return findings

    finding = only(use(64), "uninitialised read")
    assert (finding.array, finding.example.element, finding.count) == ("source", "source[0]", 64)
    fresh[:32] = np.ones(32, np.float32)
    assert not use(32)
    assert only(use(64), "uninitialised read").count == 32
    out[:] = np.ones(64, np.float32)
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.double, 1, 64, out, fresh)
    assert not findings
    assert not use(64)


def test_a_copy_is_no_use_but_its_result_is_as_unwritten():
    fresh, copied = facade.device_array(32, np.float32), facade.device_array(32, np.float32)
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.copy, 1, 32, fresh, copied)
    assert not findings
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.double, 1, 32, copied, zeros(32))
    assert only(findings, "uninitialised read").count == 32
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.copy_through_shared, 1, 32, fresh, zeros(32))
    assert kinds(findings) == ["uninitialised read"]


# Indices and integers.


@pytest.mark.parametrize(
    ("kernel", "arguments", "element"),
    [
        (racy.shift, lambda: (floats(32), zeros(32), 1), "source[32]"),
        (racy.scatter, lambda: (zeros(32), 1), "out[32]"),
        (racy.count_at, lambda: (zeros(32, dtype=np.int32), 1), "out[32]"),
        (racy.row_of, lambda: (floats(4, 32), zeros(32), 4), "source[4]"),
    ],
)
def test_an_index_out_of_bounds_is_found_and_the_launch_goes_on(kernel, arguments, element):
    *given_arguments, by = arguments()
    assert not lockstep.sanitize(kernel, 1, 32, *given_arguments, 0)
    for array in given_arguments[-1:]:
        array[:] = 0
    finding = only(lockstep.sanitize(kernel, 1, 32, *given_arguments, by), "out of bounds")
    assert finding.example.element == element
    assert "out of bounds for shape" in finding.example.what
    if kernel is racy.shift:
        np.testing.assert_array_equal(given_arguments[1], [*given_arguments[0][1:], 0])
    if kernel in (racy.scatter, racy.count_at):
        np.testing.assert_array_equal(given_arguments[0], [0] + [1] * 31)


def test_negative_indices_are_found_though_numba_takes_them():
    source, out = floats(32), zeros(32)
    finding = only(lockstep.sanitize(racy.shift, 1, 32, source, out, -2), "negative index")
    assert finding.example.what.startswith("source[-2] is negative and counts from the end of shape (32,)")
    np.testing.assert_array_equal(out, np.roll(source, 2))


def test_a_negative_constant_counts_from_the_end_on_purpose():
    source, out = np.arange(12.0, dtype=np.float32).reshape(3, 4), zeros(4)
    assert not lockstep.sanitize(racy.last_elements, 1, 1, source, out)
    np.testing.assert_array_equal(out, [11, 10, 7, 3])
    only(lockstep.sanitize(racy.last_by_computation, 1, 1, source, out), "negative index")
    only(lockstep.sanitize(racy.beyond_the_start, 1, 1, source, out), "out of bounds")


def test_integers_that_do_not_fit_an_index_are_found():
    source, out = floats(32), zeros(32)
    assert not lockstep.sanitize(racy.narrow_index, 1, 32, source, out, 1)
    findings = lockstep.sanitize(racy.narrow_index, 1, 32, source, out, 2**31)
    finding = next(iter(findings))
    assert finding.kind == "integer overflow"
    assert "2147483648 does not survive a cast to int32" in finding.example.what
    # Unsigned numbers wrap around by definition, as hashes want; and no index, no finding.
    assert not lockstep.sanitize(racy.narrow_hash, 1, 32, source, out, 2**31)
    assert not lockstep.sanitize(racy.narrow_value, 1, 32, out, 2**31)


def test_integers_that_do_not_fit_an_array_are_found():
    wide, narrow = np.full(32, 2**40), zeros(32, dtype=np.int32)
    finding = only(lockstep.sanitize(racy.copy, 1, 32, wide, narrow), "integer overflow")
    assert "does not survive a store into out as int32" in finding.example.what
    assert not lockstep.sanitize(racy.copy, 1, 32, wide % 1000, narrow)


# Findings.


@given(data=st.data())
def test_elements_are_named_as_the_kernel_indexes_them(data):
    from paged_numba.lockstep.observe.allocations import Memory, root_of

    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    slices = tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1, -2]))) for _ in lengths)
    view = np.zeros(lengths, np.int16)[slices].transpose(data.draw(st.permutations(range(len(lengths)))))
    root = root_of(view)
    first, origin = (array.__array_interface__["data"][0] for array in (view, root))
    memory = Memory("global", "x", root, first - origin, view.shape, view.strides)
    index = tuple(data.draw(st.integers(0, n - 1)) for n in view.shape)
    byte = first - origin + sum(i * step for i, step in zip(index, view.strides, strict=True))
    assert memory.element(byte) == f"x[{', '.join(map(str, index))}]"


def test_findings_print_and_save(tmp_path):
    findings = lockstep.sanitize(
        kernels.transpose_without_barrier, (2, 2), (32, 8), floats(64, 64), zeros(64, 64)
    )
    text = str(findings)
    assert text.startswith("1 kind of error\n")
    # 31 of 32 rows of each column were written by other warps: 4 thread blocks * 32 columns * 31.
    assert "with no barrier between (3,968 times)" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert "tile[x, y + j]" in text
    assert "tile[y + j, x] = source" in text
    findings.save(tmp_path / "findings.json")
    saved = json.loads((tmp_path / "findings.json").read_text())["findings"]
    assert saved[0]["kind"] == "data race"
    assert saved[0]["count"] == 3968
    assert saved[0]["example"]["element"] == "tile[1, 0]"
    assert repr(findings) == "Findings(data race: 1)"
    html = findings._repr_html_()
    assert "<div>1 kind of error</div>" in html
    assert "<td class=l>data race in tile</td><td class=l>3,968</td>" in html
    assert "<code>tile[y + j, x] = source" in html


def test_findings_are_counted_by_kind_in_their_repr():
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.divergent_shuffle, 1, 32, zeros(32, dtype=np.int64), 30)
        lockstep.launch(racy.divergent_barrier, 1, 64, zeros(64, dtype=np.int64), 16)
        lockstep.launch(kernels.vector_add, 1, 64, floats(32), floats(64), zeros(64))
    assert repr(findings) == "Findings(synchronization: 2, out of bounds: 1)"


def test_no_findings_are_said():
    findings = lockstep.sanitize(kernels.vector_add, 1, 32, floats(32), floats(32), zeros(32))
    assert str(findings) == "no findings"
    assert repr(findings) == "Findings(no findings)"
    assert findings._repr_html_() == "<div>no findings</div>"


def test_html_of_findings_is_escaped():
    @facade.jit
    def before(x):
        if x[facade.grid(1) - 1] < 1:
            x[0] = 1

    html = lockstep.sanitize(before, 1, 1, zeros(1))._repr_html_()
    assert "<code>if x[facade.grid(1) - 1] &lt; 1:</code>" in html


def test_an_error_that_is_no_finding_is_raised():
    from paged_numba.errors import KernelError

    frozen = zeros(32)
    frozen.flags.writeable = False
    with lockstep.sanitizing(), pytest.raises(KernelError, match="out is read-only"):
        lockstep.launch(racy.scatter, 1, 32, frozen, 0)


# Cases that an earlier version got wrong.


def test_fields_of_ones_own_record_do_not_race():
    for layout in ([("x", "f4"), ("n", "i2"), ("y", "f8")], [("n", "u1"), ("x", "f4"), ("y", "i2")]):
        assert not lockstep.sanitize(racy.own_records, 2, 16, np.zeros(32, np.dtype(layout, align=True)))
    packed = np.dtype([("n", "u1"), ("y", "i1"), ("x", "i2")])  # several in a word
    assert not lockstep.sanitize(racy.own_records, 2, 16, np.zeros(32, packed))


def test_a_copy_on_the_line_of_its_condition_is_a_copy():
    fresh = facade.device_array(32, np.float32)
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.copy_on_one_line, 1, 64, fresh, zeros(32))
    assert not findings


def test_an_atomic_exchange_writes_what_was_not_written():
    assert not lockstep.sanitize(racy.count_from_exchanged, 1, 64, zeros(64, dtype=np.int32))


def test_syncwarp_orders_the_lanes_of_its_mask():
    out = zeros(32, dtype=np.int32)
    assert not lockstep.sanitize(racy.halves_synchronise_apart, 1, 32, out, 8)
    only(lockstep.sanitize(racy.halves_synchronise_apart, 1, 32, out, 16), "data race")
    assert not lockstep.sanitize(racy.parts_synchronise_after_all, 1, 32, out)


@pytest.mark.parametrize("order", ["together", "forward", "reverse"])
def test_each_thread_with_an_index_out_of_bounds_counts(order):
    with lockstep.options(order=order):
        findings = lockstep.sanitize(racy.shift, 1, 64, floats(64), zeros(64), 40)
    assert only(findings, "out of bounds").count == 40
    assert "(40 times)" in str(findings)


def test_an_unsigned_index_below_zero_is_out_of_bounds():
    place = np.arange(32, dtype=np.uint64)
    finding = only(lockstep.sanitize(racy.previous, 1, 32, floats(32), zeros(32), place), "out of bounds")
    assert finding.example.element == "source[18446744073709551615]"
    assert not lockstep.sanitize(racy.previous, 1, 32, floats(32), zeros(32), place + np.uint64(1))


def test_an_unwritten_index_is_used_though_the_statement_copies():
    index = facade.device_array(32, np.uint8)
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.gather, 1, 32, floats(300), index, zeros(32))
    assert only(findings, "uninitialised read").array == "index"


def test_a_divergent_match_is_found():
    out = zeros(32, dtype=np.int32)
    assert not lockstep.sanitize(racy.match_in_a_branch, 1, 32, out, 32)
    only(lockstep.sanitize(racy.match_in_a_branch, 1, 32, out, 20), "synchronization")


def test_a_copy_out_of_bounds_is_no_copy_of_the_next_store():
    fresh = facade.device_array(32, np.float32)
    others = [facade.device_array(32, np.float32) for _ in range(2)]
    with lockstep.sanitizing() as findings:
        lockstep.launch(racy.copy_far_then_store, 1, 32, fresh, zeros(32), *others, 100)
    found = {finding.kind: finding for finding in findings}
    assert set(found) == {"out of bounds", "uninitialised read"}
    assert (found["uninitialised read"].array, found["uninitialised read"].source) == (
        "source",
        "a[i + by] = source[i]",
    )


def test_nothing_is_stored_through_a_row_that_is_not_there():
    array = zeros(4, 8)
    only(lockstep.sanitize(racy.first_of_row, 1, 4, array, 2), "out of bounds")
    np.testing.assert_array_equal(array[:, 0], [0, 0, 0, 1])


def test_a_negative_index_after_an_ellipsis_is_found():
    finding = next(
        iter(lockstep.sanitize(racy.before_in_last_axis, 1, 4, np.ones((3, 4), np.float32), zeros(4)))
    )
    assert finding.kind == "negative index"


def test_an_array_with_gaps_that_no_ndarray_owns():
    class Strided:
        def __init__(self, array):
            self.__array_interface__ = array.__array_interface__
            self.kept = array

    out = Strided(np.zeros(512, np.float32)[::16])
    assert not lockstep.sanitize(racy.double, 1, 32, floats(32), out)
    assert lockstep.profile(racy.double, 1, 32, floats(32), out).memory("global", "store").sectors == 32


def test_a_record_is_copied_byte_by_byte():
    """Numba compiles the assignment of a record to a load and a store of each byte, padding included."""
    dtype = np.dtype([("x", "f4"), ("n", "i2")], align=True)
    records = np.zeros(32, dtype)
    records["x"], records["n"] = np.arange(32), np.arange(32)[::-1]
    copy = np.zeros_like(records)
    profile = lockstep.profile(racy.copy, 1, 32, records, copy)
    np.testing.assert_array_equal(copy, records)
    for kind in ("load", "store"):
        traffic = profile.memory("global", kind)
        assert (traffic.requests, traffic.bytes_asked) == (dtype.itemsize, records.nbytes)
        assert traffic.sectors == dtype.itemsize * records.nbytes // 32


def test_padding_of_a_record_may_be_unwritten_but_no_field():
    out = np.zeros(32, racy.PADDED)
    assert not kinds(lockstep.sanitize(racy.record_through_local_memory, 1, 32, out, True))
    found = lockstep.sanitize(racy.record_through_local_memory, 1, 32, out, False)
    assert set(kinds(found)) == {"uninitialised read"}
