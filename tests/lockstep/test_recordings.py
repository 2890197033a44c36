"""Recordings of launches: what they hold is what the kernel did, what `trace` lists and what the profiler counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paged_numba import cuda, lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.observe.code import CodeFunction
from paged_numba.lockstep.tracer import recorder, track
from paged_numba.lockstep.tracer.packing import packed, ranges, unpacked
from paged_numba.lockstep.tracer.sources import SourceText

THREADS = 80  # two warps and a half


@cuda.jit(device=True)
def clipped(value, most):
    if value > most:
        return most
    return value


@cuda.jit
def busy(out, values, counts, steps):
    """Do a little of everything: a device function, divergence, a loop that lanes leave, shared and local memory."""
    tile = cuda.shared.array((4, 20), np.float32)
    mine = cuda.local.array(2, np.float32)
    thread = cuda.threadIdx.x
    row, column = thread // 20, thread % 20
    tile[row, column] = values[cuda.grid(1)]
    cuda.syncthreads()
    mine[0] = np.float32(0)
    mine[1] = tile[3 - row, 19 - column]
    step = 0
    while step < steps[thread]:
        if thread % 3 == 0:
            mine[0] += clipped(mine[1], np.float32(2))
        else:
            mine[0] -= np.float32(0.1)
        step += 1
    cuda.syncthreads()
    cuda.atomic.add(counts, step, 1)
    out[cuda.grid(1)] = mine[0]


def arguments(steps, blocks=1):
    values = np.linspace(-3, 3, blocks * THREADS, dtype=np.float32)
    return np.zeros_like(values), values, np.zeros(8, np.int32), np.array(steps, np.int32)


STEPS = st.lists(st.integers(0, 7), min_size=THREADS, max_size=THREADS)
ORDERS = st.sampled_from(["together", "forward", "reverse"])


def mask(track, number):
    """Return the lanes of a mask."""
    lanes = []
    for part in track["masks"][number].split():
        first, _, last = part.partition("-")
        lanes += range(int(first), int(last or first) + 1)
    return lanes


def accesses(recorded):
    """Yield each access of the recording with its step, array and lanes, and bytes and values by lane."""
    for one in recorded["tracks"]:
        for step in one["steps"]:
            for access in step.get("accesses", ()):
                lanes = mask(one, access["lanes"])
                by_lane = (unpacked(access[name], len(lanes)) for name in ("bytes", "values"))
                yield step, access, one["arrays"][access["array"]], lanes, *by_lane


@settings(max_examples=5)
@given(STEPS, ORDERS)
def test_the_recorded_stores_are_the_result_of_the_kernel(steps, order):
    given = arguments(steps)
    with lockstep.options(order=order):
        recorded = lockstep.record(busy, 1, THREADS, *given).to_dict()
    for name, array in (("out", given[0]), ("counts", given[2])):
        replayed = np.zeros_like(array)
        for _, access, described, _, where, values in accesses(recorded):
            if described["name"] == name and access["kind"] != "load":
                replayed[np.array(where) // array.itemsize] = values
        np.testing.assert_array_equal(replayed, array)


@settings(max_examples=5)
@given(STEPS, ORDERS)
def test_the_recorded_accesses_are_those_of_trace(steps, order):
    with lockstep.options(order=order):
        recorded = lockstep.record(busy, 1, THREADS, *arguments(steps)).to_dict()
        traced = lockstep.trace(busy, 1, THREADS, *arguments(steps))
    found = [
        (step["line"], a["name"], access["kind"], step["epoch"], tuple(lanes), tuple(where))
        for step, access, a, lanes, where, _ in accesses(recorded)
        if a["space"] in ("global", "shared")
    ]
    assert found == [(t.line.number, t.array, t.kind, t.epoch, t.threads, t.bytes) for t in traced]


@settings(max_examples=5)
@given(STEPS, ORDERS)
def test_costs_add_up_to_the_counts_of_the_profiler(steps, order):
    with lockstep.options(order=order):
        recorded = lockstep.record(busy, 2, THREADS, *arguments(steps, 2)).to_dict()
        report = lockstep.profile(busy, 2, THREADS, *arguments(steps, 2))
    names = {"sectors": "sectors", "lines": "lines", "bytes": "bytes_asked", "wavefronts": "wavefronts"}
    names |= {"ideal": "ideal_wavefronts", "turns": "turns"}
    kinds = [("global", "values", "load"), ("global", "out", "store"), ("global", "counts", "atomic")]
    for space, array, kind in [*kinds, ("shared", "tile", "store"), ("shared", "tile", "load")]:
        counts = dict.fromkeys(names, 0)
        for _, access, described, *_ in accesses(recorded):
            if (described["name"], access["kind"]) == (array, kind):
                warps = access["costs"].pop("warps")
                for name, cost in access["costs"].items():
                    counts[name] += sum(unpacked(cost, len(warps)))
        traffic = report.memory(space, kind, array=array)
        assert counts == {name: getattr(traffic, field) for name, field in names.items()}


@pytest.mark.parametrize("dtype", [np.float64, np.complex128, np.int8])
def test_costs_of_wide_and_narrow_elements(dtype):
    @cuda.jit
    def scatter(x):
        tile = cuda.shared.array(96, dtype)
        tile[cuda.threadIdx.x * 3 % 96] = x[cuda.threadIdx.x * 5 % 32]

    recorded = lockstep.record(scatter, 1, 32, np.zeros(32, dtype)).to_dict()
    report = lockstep.profile(scatter, 1, 32, np.zeros(32, dtype))
    (load, _, *_), (store, *_) = ((a["costs"], None) for _, a, *_ in accesses(recorded))
    assert load["sectors"] == [report.memory("global", "load").sectors]
    assert store["wavefronts"] == [report.memory("shared", "store").wavefronts]


@settings(max_examples=5)
@given(STEPS, ORDERS)
def test_the_values_of_variables_are_those_that_the_kernel_uses(steps, order):
    with lockstep.options(order=order):
        (one,) = lockstep.record(busy, 1, THREADS, *arguments(steps)).to_dict()["tracks"]
    now = {}
    for step in one["steps"]:
        for number, lanes, values in step.get("set", ()):
            lanes = mask(one, lanes)
            for lane, value in zip(lanes, unpacked(values, len(lanes)), strict=True):
                now[one["variables"][number]["name"], lane] = value
    assert [now["step", lane] for lane in range(THREADS)] == steps
    assert [now["thread", lane] for lane in range(THREADS)] == list(range(THREADS))
    assert now["tile", 5] == "float32[4, 20] in shared memory"
    assert {now["most", lane] for lane in range(0, THREADS, 3) if steps[lane]} <= {2.0}


@pytest.mark.parametrize("order", ["together", "forward"])
def test_the_last_thread_block_has_its_parameters_too(order):
    with lockstep.options(order=order, max_lanes=64):
        recorded = lockstep.record(endless, 9, 64, np.zeros(9 * 64, np.float32)).to_dict()
    first, last = ([(step["line"], "set" in step) for step in one["steps"]] for one in recorded["tracks"])
    assert first == last
    assert recorded["tracks"][1]["steps"][0]["set"][0][2] == "float32[576] in global memory"


def test_parameters_may_have_any_name():
    @cuda.jit
    def kernel(self, mask, function, machine):
        self[cuda.threadIdx.x] = mask + function + machine

    x = np.zeros(32)
    (one,) = lockstep.record(kernel, 1, 32, x, 1, 2, 3).to_dict()["tracks"]
    assert [value for _, _, value in one["steps"][0]["set"]] == ["float64[32] in global memory", 1, 2, 3]


def test_branches_barriers_and_warps_by_hand():
    # 64 threads; warp 0 waits for warp 1, and 8 of its lanes take the branch.
    @cuda.jit
    def kernel(out):
        thread = cuda.threadIdx.x
        if thread < 8:
            out[thread] = 1
        cuda.syncthreads()

    with lockstep.options(order="forward"):
        (one,) = lockstep.record(kernel, 1, 64, np.zeros(64, np.float32)).to_dict()["tracks"]
    first = one["steps"][0]["line"]
    assert [
        (
            step["line"] - first,
            one["masks"][step["lanes"]],
            one["masks"][step["held"]] if "held" in step else None,
            step.get("arrives"),
            step.get("opens"),
            step["epoch"],
        )
        for step in one["steps"]
    ] == [
        (0, "0-31", None, None, None, 0),
        (1, "0-31", "0-7", None, None, 0),
        (2, "0-7", None, None, None, 0),
        (3, "0-31", None, 1, None, 0),
        (0, "32-63", None, None, None, 0),
        (1, "32-63", "", None, None, 0),
        (3, "32-63", None, 1, 1, 0),
    ]


def test_shuffles_and_calls_by_hand():
    @cuda.jit(device=True)
    def doubled(number):
        return 2 * number

    @cuda.jit
    def kernel(out):
        lane = cuda.threadIdx.x
        out[lane] = doubled(cuda.shfl_xor_sync(0xFFFFFFFF, lane, 1))

    recorded = lockstep.record(kernel, 1, 32, np.zeros(32, np.float32)).to_dict()
    (one,) = recorded["tracks"]
    names = [recorded["functions"][step["function"]]["name"] for step in one["steps"]]
    assert names == ["kernel", "kernel", "doubled", "kernel"]
    assert [step.get("resumed", False) for step in one["steps"]] == [False, False, False, True]
    assert unpacked(one["steps"][1]["shuffle"]["from"], 32) == [lane ^ 1 for lane in range(32)]
    assert one["steps"][2]["kind"] == "return"
    (_, _, numbers) = one["steps"][2]["set"][0]
    assert numbers == [lane ^ 1 for lane in range(32)]
    assert one["steps"][3]["accesses"][0]["text"] == "out[lane]"


@cuda.jit
def endless(x):
    for i in range(1_000):
        x[cuda.grid(1)] = i


def test_what_is_left_out_is_said(monkeypatch):
    monkeypatch.setattr(track, "MOST_STEPS", 100)
    x = np.zeros(96, np.float32)
    with lockstep.recording() as recorded:
        for _ in range(recorder.MOST_LAUNCHES + 2):
            lockstep.launch(endless, 3, 32, x)
    made = recorded.to_dict()
    assert len(made["tracks"]) == 2 * recorder.MOST_LAUNCHES
    assert {(len(one["steps"]), one["left_out"]) for one in made["tracks"]} == {(100, 1_901)}
    assert [one["thread_block"] for one in made["tracks"][:2]] == [(0, 0, 0), (2, 0, 0)]
    sentences = recorded.left_out()
    assert sentences[0] == "2 of 10 launches are not recorded: the first 8 are"
    assert sentences[1].startswith("14 of 30 thread blocks are not recorded")
    assert "thread block (2, 0, 0) of launch 1: 1,901 of 2,001 steps are not recorded" in sentences[3]
    assert made["left_out"] == sentences


def test_numbers_are_bounded(monkeypatch):
    monkeypatch.setattr(track, "MOST_NUMBERS", 1_000)

    @cuda.jit
    def kernel(x):
        for i in range(1_000):
            x[cuda.threadIdx.x] = x[cuda.threadIdx.x * 7 % 32] + cuda.threadIdx.x * i * i

    recorded = lockstep.record(kernel, 1, 32, np.arange(32, dtype=np.float32) ** 2)
    (one,) = recorded.to_dict()["tracks"]
    assert 10 < len(one["steps"]) < 100
    assert one["left_out"] == 2_001 - len(one["steps"])


def test_an_error_ends_the_record_and_is_in_it():
    with lockstep.recording() as recorded, pytest.raises(KernelError):
        lockstep.launch(endless, 4, 32, np.zeros(100, np.float32))
    made = recorded.to_dict()
    assert {one["error"] for one in made["tracks"]} == {
        "KernelIndexError: x[100] out of bounds for shape (100,), thread 4 of thread block 3, "
        f"test_recordings.py:{endless.py_func.__code__.co_firstlineno + 3}"
    }
    assert [len(one["steps"]) for one in made["tracks"]] == [3, 3]


def test_plain_launches_have_no_trace_of_the_recorder():
    program = lockstep.lane_program(busy)
    assert "assigned" not in program
    assert "branch" not in program


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 3)), min_size=1, max_size=40))
def test_packed_integers_come_back(numbers):
    came = unpacked(packed(np.array(numbers, np.int64)), len(numbers))
    assert [int(number) for number in came] == numbers


@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_packed_floats_come_back(numbers):
    numbers = np.array(numbers, np.float32)
    came = np.array(unpacked(packed(numbers), len(numbers)), np.float32)
    np.testing.assert_array_equal(came, numbers)


@given(st.sets(st.integers(0, 300)))
def test_ranges_name_the_lanes(lanes):
    assert mask({"masks": [ranges(sorted(lanes))]}, 0) == sorted(lanes)


LINES = (
    "def f(a, b, i):",
    '    """Say.',
    '    More."""',
    "    a[i] += a[i + 1] * b[a[i], 0]",
    "    a[i] = b[i, 0] if i > 3 else b[i, 1]",
    "    cuda.atomic.add(a, (i, 2), b[i, 0])",
    "    while a[i] > 0:",
    "        a[0] = 1",
)


@pytest.mark.parametrize(
    ("line", "array", "kind", "texts"),
    [
        (4, "a", "load", ["a[i]", "a[i + 1]", "a[i]", ""]),
        (4, "a", "store", ["a[i]", "a[i]"]),
        (4, "b", "load", ["b[a[i], 0]"]),
        (5, "b", "load", [""]),  # which of the two it is depends on the lane
        (6, "a", "atomic", ["a[i, 2]"]),
        (7, "a", "load", ["a[i]"]),
        (7, "a", "store", [""]),
        (9, "a", "load", [""]),
    ],
)
def test_the_text_of_an_access(line, array, kind, texts):
    source = SourceText(CodeFunction("f", "f.py", 1, LINES))
    assert [source.subscript(line, array, kind, nth) for nth in range(len(texts))] == texts
    assert source.docstring == (2, 3)
    assert [source.kind(number) for number in (4, 7, 9)] == ["augassign", "while", ""]
