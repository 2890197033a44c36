"""The profiler on tutorial kernels with counts worked out by hand, and on random accesses with sets in Python."""

import importlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.profiler import GPUS
from paged_numba.lockstep.profiler.overview import overview
from paged_numba.lockstep.profiler.source import source_lines

sys.path.insert(0, str(Path(__file__).parent))
kernels = pytest.importorskip("tutorial_kernels", reason="Numba is not installed")

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def line_of(kernel, text):
    """Return the number of the one line of a kernel that has `text`."""
    import inspect

    lines, first = inspect.getsourcelines(kernel.py_func)
    found = [first + i for i, line in enumerate(lines) if text in line]
    assert len(found) == 1, (text, found)
    return found[0]


# Global memory.


def test_vector_add_touches_every_sector_once():
    a, b, c = floats(1000), floats(1000), np.zeros(1000, np.float32)
    report = lockstep.profile(kernels.vector_add, 8, 128, a, b, c)
    np.testing.assert_array_equal(c, a + b)
    # 1,000 threads are 31 whole warps and 8 lanes of another: 31 * 4 + 1 sectors, 4,000 bytes exactly.
    for array, kind in (("a", "load"), ("b", "load"), ("c", "store")):
        traffic = report.memory("global", kind, array=array)
        assert (traffic.requests, traffic.sectors, traffic.lines) == (32, 125, 32)
        assert traffic.bytes_asked == traffic.bytes_moved == 4000
        assert traffic.efficiency == 100
    body = report.work(line=line_of(kernels.vector_add, "c[i] ="))
    assert (body.warps, body.lanes, body.flops) == (32, 1000, {"float32": 1000})
    test = report.work(line=line_of(kernels.vector_add, "if i <"))
    assert (test.warps, test.lanes, test.active_lanes) == (32, 1024, 100)


def test_saxpy_goes_through_the_grid_in_strides():
    x, y = floats(4096), floats(4096)
    expected = np.float32(2) * x + y
    report = lockstep.profile(kernels.saxpy, 4, 128, np.float32(2), x, y)
    np.testing.assert_array_equal(y, expected)
    # 512 threads take 8 iterations: 16 warps * 8 requests.
    for array, kind in (("x", "load"), ("y", "load"), ("y", "store")):
        assert report.memory("global", kind, array=array).requests == 128
    assert report.memory("global").sectors_per_request == 4
    assert report.work().flops == {"float32": 2 * 4096}
    # The header once for its bounds and once an iteration.
    assert report.work(line=line_of(kernels.saxpy, "for i")).warps == 16 * 9


@pytest.mark.parametrize(
    ("stride", "offset", "sectors", "lines"),
    [(1, 0, 4, 1), (1, 1, 5, 2), (1, 8, 4, 2), (2, 0, 8, 2), (8, 0, 32, 8), (32, 0, 32, 32), (0, 5, 1, 1)],
)
def test_copy_moves_more_the_farther_lanes_are_apart(stride, offset, sectors, lines):
    source, target = floats(128 * 32 + 8), np.zeros(128, np.float32)
    report = lockstep.profile(kernels.copy_with_stride, 1, 128, source, target, stride, offset)
    np.testing.assert_array_equal(target, source[np.arange(128) * stride + offset])
    read = report.memory("global", "load")
    assert (read.requests, read.sectors, read.lines) == (4, 4 * sectors, 4 * lines)
    # 32 lanes ask for 32 elements, or all for one.
    asked = 128 if stride else 4
    assert read.efficiency == pytest.approx(100 * asked / (32 * sectors))
    assert report.memory("global", "store").sectors_per_request == 4


def test_matmul_naive_reads_each_row_and_column_again():
    a, b, c = floats(32, 32), floats(32, 32), np.zeros((32, 32), np.float32)
    report = lockstep.profile(kernels.matmul_naive, (2, 2), (16, 16), a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-4)
    # 4 thread blocks of 8 warps, each 2 rows of 16 columns; 32 iterations.
    # a[row, k]: two elements, 128 bytes apart, 2 sectors; b[k, col]: 16 neighbours, 64 bytes, 2 sectors.
    for array, efficiency in (("a", 100 * 8 / 64), ("b", 100)):
        traffic = report.memory("global", "load", array=array)
        assert (traffic.requests, traffic.sectors) == (32 * 32, 2 * 32 * 32)
        assert traffic.efficiency == efficiency
    assert report.work().flops == {"float32": 2 * 32**3}


def test_matmul_tiled_reads_sixteen_times_less():
    a, b, c = floats(32, 32), floats(32, 32), np.zeros((32, 32), np.float32)
    report = lockstep.profile(kernels.matmul_tiled, (2, 2), (16, 16), a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-4)
    # 32 warps * 2 tiles, each 2 rows of 64 bytes.
    for array in ("a", "b"):
        traffic = report.memory("global", "load", array=array)
        assert (traffic.requests, traffic.sectors) == (64, 256)
        assert traffic.efficiency == 100
    # 32 warps * 32 values of k: two words in two banks, or 16 neighbours.
    for array in ("tile_a", "tile_b"):
        traffic = report.memory("shared", "load", array=array)
        assert (traffic.requests, traffic.wavefronts) == (1024, 1024)
    assert report.memory("shared").bank_conflicts == 0
    assert report.work().barriers == 32 * 2 * 2


def test_transpose_naive_is_coalesced_on_one_side_only():
    source, target = floats(64, 64), np.zeros((64, 64), np.float32)
    report = lockstep.profile(kernels.transpose_naive, (2, 8), (32, 8), source, target)
    np.testing.assert_array_equal(target, source.T)
    assert report.memory("global", "load").sectors_per_request == 4
    assert report.memory("global", "store").sectors_per_request == 32
    assert report.memory("global", "store").efficiency == 12.5


@pytest.mark.parametrize(("name", "conflicts"), [("transpose_tiled", 31), ("transpose_padded", 0)])
def test_transpose_through_a_tile_needs_padding(name, conflicts):
    source, target = floats(64, 64), np.zeros((64, 64), np.float32)
    kernel = getattr(kernels, name)
    report = lockstep.profile(kernel, (2, 2), (32, 8), source, target)
    np.testing.assert_array_equal(target, source.T)
    assert report.memory("global", "load").sectors_per_request == 4
    assert report.memory("global", "store").sectors_per_request == 4
    # 4 thread blocks * 8 warps * 4 rounds. A column of 32 rows of 32 words lies in one bank, of 33 words in 32.
    column = report.memory("shared", "load")
    assert column.requests == column.ideal_wavefronts == 128
    assert column.bank_conflicts == 128 * conflicts
    assert report.memory("shared", "store").bank_conflicts == 0


def test_arrays_of_structures_waste_what_structures_of_arrays_do_not():
    positions, out = floats(1024, 3), np.zeros(1024, np.float32)
    report = lockstep.profile(kernels.particles, 8, 128, positions, out)
    # 32 lanes, 12 bytes apart, span 384 bytes: 12 sectors for 128 bytes, three times.
    read = report.memory("global", "load")
    assert (read.requests, read.sectors) == (96, 96 * 12)
    assert read.efficiency == pytest.approx(100 / 3)
    columns = np.asfortranarray(positions)
    report = lockstep.profile(kernels.particles, 8, 128, columns, out)
    assert report.memory("global", "load").sectors == 96 * 4
    # Together the three loads touch each sector of the array once.
    assert report.roofline().least_bytes == positions.nbytes + out.nbytes


# Atomics.


@pytest.mark.parametrize(("data", "turns", "sectors"), [(np.zeros, 1024, 32), (np.arange, 32, 32 * 4)])
def test_histogram_of_one_bin_takes_turns(data, turns, sectors):
    data = data(1024, dtype=np.int32) % kernels.BINS
    counts = np.zeros(kernels.BINS, np.int32)
    report = lockstep.profile(kernels.histogram_global, 8, 128, data, counts)
    np.testing.assert_array_equal(counts, np.bincount(data, minlength=kernels.BINS))
    atomics = report.memory("global", "atomic")
    # All lanes at one address: 32 turns a request. Neighbouring bins: one turn, 4 sectors.
    assert (atomics.requests, atomics.turns, atomics.sectors) == (32, turns, sectors)


def test_histogram_in_shared_memory_spares_global_atomics():
    data = np.arange(1024, dtype=np.int32) % kernels.BINS
    counts = np.zeros(kernels.BINS, np.int32)
    report = lockstep.profile(kernels.histogram_shared, 8, 128, data, counts)
    np.testing.assert_array_equal(counts, np.full(kernels.BINS, 16))
    # 64 bins are two warps of each of 8 thread blocks.
    assert report.memory("global", "atomic").requests == 16
    shared = report.memory("shared", "atomic")
    assert (shared.requests, shared.turns, shared.wavefronts) == (32, 32, 32)
    assert report.work().barriers == 2 * 32


def test_dot_adds_once_a_block():
    a, b, out = floats(1024), floats(1024), np.zeros(1, np.float32)
    report = lockstep.profile(kernels.dot, 8, 128, a, b, out)
    np.testing.assert_allclose(out[0], a @ b, rtol=1e-4, atol=1e-3)
    atomics = report.memory("global", "atomic")
    assert (atomics.requests, atomics.turns) == (8, 8)
    assert report.work().flops == {"float32": 1024 + 8 * 127}


# Divergence, barriers, shuffles, shared memory.


@pytest.mark.parametrize(("name", "warps"), [("reduce_interleaved", 23), ("reduce_sequential", 8)])
def test_reductions_differ_in_the_warps_that_take_part(name, warps):
    data, out = floats(128), np.zeros(1, np.float32)
    kernel = getattr(kernels, name)
    report = lockstep.profile(kernel, 1, 128, data, out)
    np.testing.assert_allclose(out[0], data.sum(), rtol=1e-5, atol=1e-5)
    # Both add 64 + 32 + ... + 1 = 127 times. Every second, fourth, ... thread: 4 warps in 5 rounds, then 2 and 1.
    # The first 64, 32, ... threads: 2 warps, then 1 in 6 rounds.
    work = report.work(line=line_of(kernel, "partial[thread] +="))
    assert (work.warps, work.lanes) == (warps, 127)
    assert work.active_lanes == pytest.approx(100 * 127 / (32 * warps))
    # One after the data is there, 7 in rounds; 4 warps.
    assert report.work().barriers == 4 * 8
    assert report.memory("shared").bank_conflicts == 0


def test_reduction_by_shuffles_needs_five_a_warp():
    data, out = floats(1024), np.zeros(8, np.float32)
    report = lockstep.profile(kernels.reduce_by_shuffles, 8, 128, data, out)
    np.testing.assert_allclose(out, data.reshape(8, 128).sum(axis=1), rtol=1e-4, atol=1e-4)
    work = report.work()
    assert (work.shuffles, work.barriers, work.syncwarps) == (8 * 4 * 5, 8 * 4, 0)
    # One lane a warp stores; one thread a thread block reads 4 values.
    assert report.memory("shared", "store").requests == report.memory("shared", "load").requests == 32


def test_reduction_of_the_last_warp_synchronises_it():
    data, out = floats(64), np.zeros(1, np.float32)
    report = lockstep.profile(kernels.reduce_last_warp, 1, 64, data, out, True)
    np.testing.assert_allclose(out[0], data.sum(), rtol=1e-5, atol=1e-5)
    assert report.work().syncwarps == 2 * 6


def test_scan_reads_two_neighbours():
    data, out = np.arange(128, dtype=np.int32), np.zeros(128, np.int32)
    report = lockstep.profile(kernels.inclusive_scan, 1, 128, data, out)
    np.testing.assert_array_equal(out, np.cumsum(data))
    # Threads from `step` on: 4 warps for steps 1 to 16, 3 for 32, 2 for 64; two loads each.
    adding = line_of(kernels.inclusive_scan, "buffers[here, thread - step]")
    assert report.memory("shared", "load", line=adding).requests == 2 * (5 * 4 + 3 + 2)
    assert report.memory("shared").bank_conflicts == 0
    assert report.work().barriers == 4 * 8
    assert report.work().flops == {}


def test_stencil_reads_the_halo_with_three_lanes():
    data, out = floats(1024), np.zeros(1024, np.float32)
    report = lockstep.profile(kernels.stencil, 8, 128, data, out)
    np.testing.assert_allclose(out, np.convolve(data, np.ones(7), "same"), rtol=1e-4, atol=1e-5)
    # 32 whole warps; each thread block but the first, and each but the last, reads 3 elements of a sector beside it.
    read = report.memory("global", "load")
    assert (read.requests, read.sectors) == (32 + 7 + 7, 32 * 4 + 7 + 7)
    # Seven neighbours a lane; the first warp of a thread block also fills both halos.
    assert report.memory("shared", "load").wavefronts == 7 * 32
    assert report.memory("shared", "store").wavefronts == 32 + 2 * 8
    halo = report.work(line=line_of(kernels.stencil, "last = "))
    assert (halo.warps, halo.lanes) == (8, 24)


@pytest.mark.parametrize(("distance", "lanes", "sectors"), [(1, 16, 4), (16, 16, 2), (64, 32, 4)])
def test_bitonic_step_diverges_within_a_warp_only_for_short_distances(distance, lanes, sectors):
    data = floats(256)
    kernel = kernels.bitonic_step
    report = lockstep.profile(kernel, 2, 128, data, distance, 2 * distance)
    comparison = line_of(kernel, "if (data[i] > data[partner])")
    work = report.work(line=comparison)
    # 128 pairs in 8 warps of 16 lanes, or in 4 of 32.
    assert (work.warps, work.lanes) == (128 // lanes, 128)
    read = report.memory("global", "load", line=comparison)
    # Every second element of 128 bytes, 16 in a row, or all 32; two loads a pair.
    assert (read.requests, read.sectors) == (2 * 128 // lanes, 2 * 128 // lanes * sectors)


def test_bitonic_steps_sort():
    data = floats(256)
    expected = np.sort(data)
    run = 2
    while run <= 256:
        distance = run // 2
        while distance:
            lockstep.launch(kernels.bitonic_step, 2, 128, data, distance, run)
            distance //= 2
        run *= 2
    np.testing.assert_array_equal(data, expected)


def test_monte_carlo_counts_its_arithmetic():
    hits = np.zeros(1, np.int64)
    report = lockstep.profile(kernels.monte_carlo_pi, 4, 64, hits, 10)
    assert 0 < hits[0] < 2560
    # A draw: two scalings, two squares, one sum. The constant 2**-32 costs nothing.
    assert report.work().flops == {"float32": 256 * 10 * 5}
    assert report.work().special == {}
    atomics = report.memory("global", "atomic")
    assert (atomics.requests, atomics.turns) == (8, 256)


def test_functions_are_counted_apart():
    price, out = np.abs(floats(128)) + 1, np.zeros(128, np.float32)
    report = lockstep.profile(kernels.black_scholes_like, 1, 128, price, out)
    # log, sqrt, a division, erf; one product and one sum.
    assert report.work().special == {"float32": 4 * 128}
    assert report.work().flops == {"float32": 2 * 128}


@pytest.mark.parametrize(
    ("stride", "wavefronts"), [(0, 1), (1, 1), (2, 2), (3, 1), (4, 4), (8, 8), (16, 16), (31, 1), (32, 32)]
)
def test_bank_conflicts_follow_the_stride(stride, wavefronts):
    out = np.zeros(32, np.float32)
    report = lockstep.profile(kernels.shared_with_stride, 1, 32, stride, out)
    read = report.memory("shared", "load")
    # Words in one bank: the greatest common divisor of the stride and 32; a broadcast is one word.
    assert (read.requests, read.wavefronts, read.bank_conflicts) == (1, wavefronts, wavefronts - 1)


@pytest.mark.parametrize(
    ("stride", "wavefronts", "ideal"), [(0, 1, 1), (1, 2, 2), (2, 4, 2), (3, 2, 2), (16, 32, 2)]
)
def test_eight_byte_accesses_go_in_halves_of_a_warp(stride, wavefronts, ideal):
    out = np.zeros(32, np.float64)
    report = lockstep.profile(kernels.shared_doubles, 1, 32, stride, out)
    read = report.memory("shared", "load")
    # 64 words take two wavefronts. Stride 2: lanes 0 and 8 of a half mean the same banks. Stride 16: all do.
    assert (read.wavefronts, read.ideal_wavefronts) == (wavefronts, ideal)


@pytest.mark.parametrize(("stride", "wavefronts", "ideal"), [(0, 2, 1), (1, 4, 4), (2, 8, 4), (8, 32, 4)])
def test_sixteen_byte_accesses_go_in_quarters_of_a_warp(stride, wavefronts, ideal):
    out = np.zeros(32, np.complex128)
    report = lockstep.profile(kernels.shared_complex, 1, 32, stride, out)
    read = report.memory("shared", "load")
    # 8 lanes of a quarter mean 32 words. Stride 2: 4 of them fill half of the banks, the others come again.
    # Stride 8: all mean the same four banks. Stride 0: the quarters of a half are served together.
    assert (read.wavefronts, read.ideal_wavefronts) == (wavefronts, ideal)


# Properties.

CASES = {
    "vector_add": (8, 128, lambda: (floats(1000), floats(1000), np.zeros(1000, np.float32))),
    "matmul_tiled": ((2, 2), (16, 16), lambda: (floats(32, 32), floats(32, 32), np.zeros((32, 32), np.float32))),
    "transpose_tiled": ((2, 2), (32, 8), lambda: (floats(64, 64), np.zeros((64, 64), np.float32))),
    "histogram_shared": (
        8, 128, lambda: (RNG.integers(0, 64, 1000).astype(np.int32), np.zeros(64, np.int32)),
    ),
    "reduce_interleaved": (8, 128, lambda: (floats(1024), np.zeros(8, np.float32))),
    "stencil": (8, 128, lambda: (floats(1024), np.zeros(1024, np.float32))),
    "monte_carlo_pi": (7, 50, lambda: (np.zeros(1, np.int64), 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_counts_do_not_depend_on_batches(name):
    grid, thread_block, make = CASES[name]
    arguments = make()
    reports = []
    for max_lanes in (1, 300, 32768):
        fresh = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        with lockstep.options(max_lanes=max_lanes):
            reports.append(lockstep.profile(getattr(kernels, name), grid, thread_block, *fresh).to_dict())
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["memory"]


@given(
    data=st.data(),
    threads=st.sampled_from([1, 31, 32, 33, 96]),
    thread_blocks=st.integers(1, 3),
    dtype=st.sampled_from([np.int8, np.float16, np.float32, np.float64, np.complex128]),
    max_lanes=st.sampled_from([1, 64, 32768]),
)
def test_random_requests_cost_what_sets_say(data, threads, thread_blocks, dtype, max_lanes):
    from random_access import gather, gather_shared

    size = 256
    lanes = threads * thread_blocks
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=lanes, max_size=lanes)))
    active = np.array(data.draw(st.lists(st.booleans(), min_size=lanes, max_size=lanes)))
    source, out = np.ones(size, dtype), np.zeros(lanes, dtype)
    with lockstep.options(max_lanes=max_lanes):
        report = lockstep.profile(gather, thread_blocks, threads, source, index, active, out)
        shared = lockstep.profile(
            gather_shared, thread_blocks, threads, source, index, active, out, shared_bytes=source.nbytes
        )
    itemsize = source.itemsize
    requests = [
        [
            int(index[lane]) * itemsize
            for lane in range(first, min(first + 32, thread_block + threads))
            if active[lane]
        ]
        for thread_block in range(0, lanes, threads)
        for first in range(thread_block, thread_block + threads, 32)
    ]
    requests = [request for request in requests if request]
    read = report.memory("global", "load", array="source")
    assert read.requests == len(requests)
    assert read.sectors == sum(len({byte // 32 for byte in request}) for request in requests)
    assert read.lines == sum(len({byte // 128 for byte in request}) for request in requests)
    assert read.bytes_asked == sum(len(set(request)) * itemsize for request in requests)
    if itemsize <= 4:
        read = shared.memory("shared", "load")
        words = [{byte // 4 for byte in request} for request in requests]
        assert read.wavefronts == sum(max(Counter(word % 32 for word in each).values()) for each in words)
        assert read.requests == len(requests)


def test_atomic_turns_are_the_most_lanes_at_one_address():
    data = np.array([5] * 7 + [9] * 3 + list(range(10, 32)), np.int32)
    report = lockstep.profile(kernels.histogram_global, 1, 32, data, np.zeros(64, np.int32))
    assert report.memory("global", "atomic").turns == 7


# The report.


@pytest.fixture
def report():
    source, target = floats(64, 64), np.zeros((64, 64), np.float32)
    with lockstep.profiling() as report:
        lockstep.launch(kernels.transpose_tiled, (2, 2), (32, 8), source, target)
        lockstep.launch(kernels.vector_add, 1, 32, source[0], source[1], target[0])
    return report


def test_report_names_kernels_arrays_and_lines(report):
    text = str(report)
    assert "transpose_tiled: 1 launch of 2 x 2 thread blocks of 32 x 8 threads" in text
    for words in ("source  ", "tile ", "3,968", "Roofline for H200", "active lanes"):
        assert words in text, words
    source = report.source()
    assert "tile = cuda.shared.array((TILE, TILE), float32)" in source
    line = next(line for line in source.splitlines() if "= tile[x, y + j]" in line)
    assert line.split("|")[0].split()[1:] == ["128", "512", "4.0", "100%", "4,096", "3,968", "100%"]


def test_report_begins_with_what_matters(report):
    text = str(report)
    tables = text.index("Global memory\n")
    # The transpose moves 2 * 16,384 bytes, the addition 3 * 128: each sector once.
    opening = text[:tables]
    assert "33,152 bytes of global memory moved: each sector once, which is the least possible." in opening
    assert "Bound by memory on the H200: 0.00 operations a byte" in opening
    costliest = opening[opening.index("Costliest lines, by their share of the traffic to global memory:") :]
    shares = [(float(share), number) for share, number in re.findall(r"(\d+)%  \S+:(\d+)  ", costliest)]
    assert [share for share, _ in shares] == [49, 49, 1]
    assert shares[0][1] == str(line_of(kernels.transpose_tiled, "tile[y + j, x] = source"))
    page = report.html()
    assert page.index("least possible") < page.index("Costliest lines") < page.index("<th class=l>source")
    assert page.index("<th class=l>source") < page.index("<summary>Global memory")


def test_traffic_is_compared_with_the_least_possible():
    report = lockstep.profile(kernels.copy_with_stride, 1, 32, floats(32 * 32 + 8), floats(32), 32, 0)
    seen = overview(report, "H200")
    # Each lane reads a sector of its own, 32 * 32 bytes; the stores take 4 sectors. Each is touched once.
    assert (seen.moved, seen.least) == (36 * 32, 36 * 32)
    # Two warps read the same sector, and write 8 sectors.
    seen = overview(lockstep.profile(kernels.copy_with_stride, 1, 64, floats(8), floats(64), 0, 0), "H200")
    assert (seen.moved, seen.least) == (10 * 32, 9 * 32)
    assert seen.traffic == (
        "320 bytes of global memory moved, 1.1 times the least possible: each sector once would be 288."
    )
    # A lane reads 4 bytes of the 32.
    assert seen.lines[0].counts == "10 sectors, 82% of the bytes useful"


@cuda.jit
def add_twice(x):
    # The comment, and the two lines
    # that follow, do
    # not run.
    if cuda.threadIdx.x < 8:
        x[cuda.threadIdx.x] = twice(
            x[cuda.threadIdx.x],
        )
    else:
        pass


@cuda.jit(device=True)
def twice(value):
    return value + value


@cuda.jit
def shared_only():
    tile = cuda.shared.array(64, np.float32)
    tile[2 * cuda.threadIdx.x] = 1


@cuda.jit
def nothing():
    cuda.syncthreads()


def test_without_global_traffic_the_costliest_lines_are_those_of_shared_memory_or_statements():
    seen = overview(lockstep.profile(shared_only, 1, 32), "H200")
    assert (seen.traffic, seen.bound, seen.cost) == ("", "", "traffic to shared memory")
    # 32 floats, 2 apart: two passes through the banks.
    assert [(line.share, line.counts) for line in seen.lines] == [(1, "1 bank conflict")]
    seen = overview(lockstep.profile(nothing, 1, 32), "H200")
    assert (seen.cost, seen.lines[0].counts) == ("statements", "1 statement, counted by warp")


def test_source_page_folds_what_did_not_run_and_shows_device_functions_where_they_are_called():
    report = lockstep.profile(add_twice, 1, 32, floats(8))
    function = next(function for function in report.functions if function.name == "add_twice")
    lines = source_lines(report, function)
    ran = [line.text.strip() for line in lines if line.ran]
    # All lines of a statement that ran, and a header whose body did not.
    assert ran == [
        "if cuda.threadIdx.x < 8:", "x[cuda.threadIdx.x] = twice(", "x[cuda.threadIdx.x],", ")",
    ]  # fmt: skip
    page = report.html()
    assert f"lines {function.first} to {function.first + 4}: nothing that runs" in page
    assert page.index("x[cuda.threadIdx.x] = twice(") < page.index(
        "twice, in test_profiler.py: 0% of the traffic"
    )
    assert page.count("return value + value") == 1
    [call] = [line for line in lines if line.called]
    assert [called.name for called in call.called] == ["twice"]
    assert call.share == 1


def test_report_page_stands_alone_and_escapes_the_source(report):
    page = report._repr_html_()
    assert page == report.html()
    assert "prefers-color-scheme:dark" in page
    assert "http" not in page
    assert "<script" not in page
    assert "if i &lt; c.size:" in page
    assert "conflicts" in page


def test_report_saves_what_it_counts(report, tmp_path):
    report.save_json(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved == json.loads(json.dumps(report.to_dict()))
    assert sum(m.get("sectors", 0) for m in saved["memory"]) == report.memory("global").sectors
    report.save_html(tmp_path / "report.html", "L4")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Roofline for L4" in page


def test_report_refuses_names_that_it_does_not_know(report):
    with pytest.raises(
        ValueError, match=r"space must be one of global, shared, local, constant, got space='dram'"
    ):
        report.memory("dram")
    with pytest.raises(ValueError, match=r"kind must be one of load, store, atomic, got kind='read'"):
        report.memory("global", "read")
    with pytest.raises(ValueError, match=r"array must be one of .*, got array='tiles'"):
        report.memory("shared", array="tiles")
    with pytest.raises(ValueError, match=r"gpu must be one of H200, .*, got gpu='H900'"):
        report.roofline("H900")


def test_roofline_is_the_slower_of_memory_and_arithmetic():
    a, b, c = floats(1000), floats(1000), np.zeros(1000, np.float32)
    report = lockstep.profile(kernels.vector_add, 8, 128, a, b, c)
    roof = report.roofline("A100")
    # 1,000 additions for 12,000 bytes.
    assert roof.intensity == pytest.approx(1 / 12)
    assert (roof.least_bytes, roof.most_bytes, roof.bound) == (12000, 12000, "memory")
    assert roof.seconds == pytest.approx(12000 / GPUS["A100"].bandwidth)
    assert roof.compute_seconds == pytest.approx(1000 / GPUS["A100"].float32)


def test_nothing_launched_is_said():
    with lockstep.profiling() as report:
        pass
    assert "nothing was launched" in str(report)
    assert "nothing was launched" in report.html()
    assert repr(report) == "Report(no launches)"
    assert report.work().active_lanes == 100


def test_repr_names_launches_kernels_sectors_and_conflicts():
    a, b, c = floats(1024), floats(1024), np.zeros(1024, np.float32)
    with lockstep.profiling() as report:
        lockstep.launch(kernels.vector_add, 8, 128, a, b, c)
        # 3 arrays of 1,024 floats, 8 to a sector.
        assert repr(report) == "Report(1 launch of vector_add, 384 sectors of global memory moved)"
        lockstep.launch(kernels.vector_add, 8, 128, a, b, c)
        lockstep.launch(kernels.transpose_tiled, (1, 1), (32, 8), *np.zeros((2, 32, 32), np.float32))
    # 2 * 384 and 2 * 32 * 32 / 8 sectors; each of 32 warps reads a column, from one bank.
    assert repr(report) == (
        "Report(3 launches of 2 kernels, 1,024 sectors of global memory moved, 992 bank conflicts)"
    )


def test_repr_of_a_line_is_its_place():
    a, b, c = floats(32), floats(32), np.zeros(32, np.float32)
    line = lockstep.profile(kernels.vector_add, 1, 32, a, b, c).code_lines[0]
    assert repr(line) == f"CodeLine(tutorial_kernels.py:{line.number})"


def test_profilers_nest_and_end():
    a, b, c = floats(32), floats(32), np.zeros(32, np.float32)
    with lockstep.profiling() as outer:
        with lockstep.profiling() as inner:
            lockstep.launch(kernels.vector_add, 1, 32, a, b, c)
        lockstep.launch(kernels.vector_add, 1, 32, a, b, c)
    lockstep.launch(kernels.vector_add, 1, 32, a, b, c)
    assert (inner.kernels[0]["launches"], outer.kernels[0]["launches"]) == (1, 2)
    assert outer.memory("global").requests == 2 * inner.memory("global").requests == 6


def test_a_failing_launch_is_counted_up_to_the_error():
    from paged_numba.errors import KernelError

    a, b, c = floats(32), floats(16), np.zeros(32, np.float32)
    with lockstep.profiling() as report, pytest.raises(KernelError, match="out of bounds"):
        lockstep.launch(kernels.vector_add, 1, 32, a, b, c)
    assert report.memory("global", "load", array="a").requests == 1
    assert report.memory("global", "store").requests == 0


def test_roofline_names_the_rates_that_it_uses():
    from paged_numba.lockstep.cuda import facade as cuda

    def doubles(x):
        x[cuda.grid(1)] += x[cuda.grid(1)]

    def copies(x):
        x[cuda.grid(1)] = x[0]

    for dtype in ("float32", "float64"):
        report = lockstep.profile(doubles, 1, 32, np.ones(32, dtype))
        peak = getattr(GPUS["H200"], dtype)
        assert f"at {peak / 1e12:.1f} TFLOPS in {dtype}" in report.text()
        assert report.roofline().ridge == pytest.approx(peak / 4.8e12)
    assert "no floating-point arithmetic" in lockstep.profile(copies, 1, 32, np.ones(32)).text()


@cuda.jit
def count_all(total):
    cuda.atomic.add(total, 0, 1)


def test_atomic_operations_move_no_less_than_the_least_possible():
    seen = overview(lockstep.profile(count_all, 3, 64, np.zeros(1, np.int32)), "H200")
    # Each of 6 warps reads and writes one sector.
    assert (seen.moved, seen.least) == (6 * 2 * 32, 2 * 32)


def test_source_with_lines_left_of_the_function_is_shown():
    @cuda.jit
    def kernel(x):
        i = cuda.grid(1)
        # Further left than the function.
        x[i] = (x[i] +
1)  # fmt: skip

    report = lockstep.profile(kernel, 1, 32, np.zeros(32, np.float32))
    (function,) = report.functions
    ran = {line.text.strip() for line in source_lines(report, function) if line.ran}
    assert {"i = cuda.grid(1)", "x[i] = (x[i] +", "1)  # fmt: skip"} <= ran
    assert "# Further left than the function." in report.html()


SAME_NAME = """\
from paged_numba.lockstep.cuda import facade as cuda


@cuda.jit(device=True)
def change(x):
    return x + {number}
"""
CALLERS = """

import sys
other = sys.modules["{other}"].change


@cuda.jit
def kernel(x):
    i = cuda.grid(1)
    x[i] = other(change(x[i]))
"""


@pytest.mark.parametrize("names", [("a_first", "z_last"), ("z_last", "a_first")])
def test_a_call_is_of_the_function_in_the_same_file(tmp_path, monkeypatch, names):
    monkeypatch.syspath_prepend(tmp_path)
    other, own = names
    (tmp_path / f"{other}.py").write_text(SAME_NAME.format(number=1), encoding="utf-8")
    (tmp_path / f"{own}.py").write_text(
        SAME_NAME.format(number=2) + CALLERS.format(other=other), encoding="utf-8"
    )
    monkeypatch.setitem(sys.modules, other, importlib.import_module(other))
    module = importlib.import_module(own)
    monkeypatch.setitem(sys.modules, own, module)
    report = lockstep.profile(module.kernel, 1, 32, np.zeros(32, np.float32))
    page = report.html()
    assert f"change, in {own}.py" in page
    assert f"<h3>{other}.py: change</h3>" in page
