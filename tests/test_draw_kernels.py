"""Pictures of what the threads of a kernel do: data worked out by hand, text forms, and what the shapes say."""

import math
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import draw, lockstep
from paged_numba.draw.kernels.banks import Banks
from paged_numba.draw.kernels.fold import folded, ranges
from paged_numba.draw.kernels.rounds import Race
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.profiler.transactions import NOBODY, shared_cost

sys.path.insert(0, str(Path(__file__).parent / "lockstep"))

F32 = np.float32


def elements(picture, tag):
    """Return the elements of an SVG picture with this tag; its XML must be well-formed."""
    return [element for element in ET.fromstring(picture.svg()).iter() if element.tag.endswith(tag)]


def texts(picture):
    return [element.text for element in elements(picture, "text")]


def check_text(picture):
    """Check that the text form begins with the title and fits a terminal, and that there is a description."""
    lines = picture.text().splitlines()
    assert lines[0] == picture.title
    assert max(map(len, lines)) <= 100
    assert picture.description.endswith(".")
    return lines[1:]


# Folding.


@given(count=st.integers(1, 300), room=st.integers(5, 40), keep=st.lists(st.integers(-2, 310), max_size=4))
def test_folded_positions_fit_and_say_where_some_are_left_out(count, room, keep):
    shown = folded(count, room, keep)
    assert len(shown) <= room
    chosen = [position for position in shown if position is not None]
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    assert chosen[-1] == count - 1
    if count <= room:
        assert chosen == list(range(count))
    for before, after in pairwise(shown):
        assert before is not None or after is not None
        if before is not None and after is not None:
            assert after == before + 1


def test_folding_keeps_what_matters():
    assert folded(100, 9, (50, 51)) == [0, 1, 2, 3, None, 50, 51, None, 99]
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([0, 1, 2, 3, 7, 8]) == "0 to 3, 7, 8"


# Threads.


def test_threads_in_one_dimension():
    picture = draw.Threads(3, 4, 10)
    assert [picture.thread_of(i) for i in (0, 3, 4, 9)] == [(0, 0), (0, 3), (1, 0), (2, 1)]
    # 3 * 4 threads for 10 elements.
    assert (picture.num_threads, picture.num_idle, picture.num_left_out) == (12, 2, 0)
    assert check_text(picture)[-1] == "2             0 to 3   8, 9      threads 2, 3"
    assert "2 threads lie beyond the array, and the guard stops them." in picture.description
    found = texts(picture)
    assert found.count("3") == 4  # in each thread block, and the element
    assert {"thread block 2", "8", "9", "no element: the guard stops it"} <= set(found)
    assert "10" not in found


def test_threads_without_idle_ones_need_no_guard():
    picture = draw.Threads(2, 4, 8)
    assert picture.num_idle == 0
    assert "Every thread has an element." in picture.description
    assert "no element: the guard stops it" not in texts(picture)


def test_elements_without_a_thread_are_told():
    picture = draw.Threads(2, 4, 10)
    assert (picture.num_idle, picture.num_left_out) == (0, 2)
    assert picture.thread_of(8) is None
    assert check_text(picture)[-1] == "2 elements without a thread"
    assert "2 elements without a thread" in texts(picture)


def test_threads_in_two_dimensions():
    picture = draw.Threads((2, 2), (4, 4), (7, 6))
    # Row 4 is the first of thread block y 1; column 5 is thread x 1 of thread block x 1.
    assert picture.thread_of(4, 5) == ((1, 1), (1, 0))
    assert picture.thread_of(0, 3) == ((0, 0), (3, 0))
    assert draw.Threads((2, 2), (4, 4), (9, 6)).thread_of(8, 0) is None
    # 8 * 8 threads for 7 * 6 cells.
    assert (picture.num_threads, picture.num_idle) == (64, 22)
    lines = check_text(picture)
    assert lines[0] == "row 0  0,0 1,0 2,0 3,0 | 0,0 1,0   -   -"
    assert lines[4] == "      ---------------- +----------------"
    assert lines[8] == "row 7    -   -   -   - |   -   -   -   -"
    assert {"blockIdx.x", "blockIdx.y 0", "blockIdx.y 1", "no cell: the guard stops it"} <= set(
        texts(picture)
    )
    tips = [element.text for element in elements(picture, "title")]
    assert "thread (1, 0) of thread block (1, 1): cell [4, 5]" in tips


@given(data=st.data())
def test_threads_have_the_cells_that_a_kernel_gives_them(data):
    sizes = st.integers(1, 5)
    if data.draw(st.booleans()):
        grid, block, shape = data.draw(sizes), data.draw(sizes), (data.draw(st.integers(1, 30)),)
    else:
        grid, block, shape = (data.draw(st.tuples(sizes, sizes)) for _ in range(3))
    cells = np.full((*shape, 4), -1)

    @cuda.jit
    def mark(cells):
        x, y = cuda.grid(2)
        if cells.ndim == 2:
            if x < cells.shape[0]:
                cells[x, 0], cells[x, 1] = cuda.blockIdx.x, cuda.threadIdx.x
        elif x < cells.shape[1] and y < cells.shape[0]:
            cells[y, x, 0], cells[y, x, 1] = cuda.blockIdx.x, cuda.blockIdx.y
            cells[y, x, 2], cells[y, x, 3] = cuda.threadIdx.x, cuda.threadIdx.y

    @cuda.jit
    def mark_row(cells):
        x = cuda.grid(1)
        if x < cells.shape[0]:
            cells[x, 0], cells[x, 1] = cuda.blockIdx.x, cuda.threadIdx.x

    lockstep.launch(mark_row if len(shape) == 1 else mark, grid, block, cells)
    picture = draw.Threads(grid, block, shape)
    for place in np.ndindex(shape):
        marked = cells[place].tolist()
        expected = None
        if marked[0] >= 0:
            expected = tuple(marked[:2]) if len(shape) == 1 else (tuple(marked[:2]), tuple(marked[2:]))
        assert picture.thread_of(*place) == expected
    assert picture.num_left_out == int((cells[..., 0] < 0).sum())
    busy = int((cells[..., 0] >= 0).sum())
    assert picture.num_idle == picture.num_threads - busy
    check_text(picture)
    elements(picture, "rect")


@pytest.mark.parametrize("shape", [1000, (300, 400)])
def test_large_launches_are_folded(shape):
    picture = draw.Threads(8, 128, shape) if shape == 1000 else draw.Threads((25, 19), (16, 16), shape)
    assert picture.draw().width <= 760
    assert picture.draw().height <= 520
    assert len(check_text(picture)) <= 32
    assert "..." in texts(picture)


def test_threads_refuse_what_no_launch_has():
    with pytest.raises(ValueError, match=r"shape must be 1 or 2 integers, got shape=\(1, 2, 3\)"):
        draw.Threads(1, 1, (1, 2, 3))
    with pytest.raises(
        ValueError, match=r"blocks_per_grid must lie in 1 \.\. 2147483647, got blocks_per_grid=0"
    ):
        draw.Threads(0, 1, 1)
    with pytest.raises(ValueError, match="threads_per_block must have one dimension, as the array has"):
        draw.Threads(1, (2, 2), 4)


# Splits.


def test_splits_by_hand():
    # exp(0) + exp(log 2) + exp(0) = 4.
    picture = draw.Splits([0, 4, 8], 10, [0.0, math.log(2), 0.0])
    assert picture.bounds == [(0, 4), (4, 8), (8, 10)]
    assert picture.total == pytest.approx(math.log(4))
    assert picture.weights == pytest.approx([0.25, 0.5, 0.25])
    assert {"split 0", "split 1", "split 2", "0.25", "0.50", "LSE 0.69"} <= set(texts(picture))
    assert "Split 1, tokens 4 to 7, weighs most: 0.5000." in picture.description
    check_text(picture)


def test_labels_of_narrow_splits_are_whole_or_left_out():
    lse = [10 + number / 7 for number in range(16)]
    shown = texts(draw.Splits(range(0, 4096, 256), 4096, lse))
    assert {f"{value:.2f}" for value in lse} <= set(shown)
    assert {str(number) for number in range(16)} <= set(shown)
    assert not any("…" in text or text.startswith("LSE") for text in shown)
    # The last split is too narrow for any label, but does not take them from the others.
    shown = texts(draw.Splits([0, 400, 798], 800, [1.0, 2.0, 3.0]))
    assert {"split 0", "split 1", "LSE 2.00"} <= set(shown)
    assert not {"split 2", "LSE 3.00", "3.00"} & set(shown)


def test_empty_splits_weigh_nothing():
    picture = draw.Splits([0, 5, 5], 5, [1.0, -math.inf, -math.inf])
    assert picture.weights == [1.0, 0.0, 0.0]
    assert check_text(picture)[3] == "1      empty   -inf    0.0000"
    assert "of which 2 are empty" in picture.description
    assert "empty, with LSE -inf and weight 0: split 1, 2" in texts(picture)


def test_splits_of_no_tokens():
    picture = draw.Splits([0, 0], 0, [-math.inf, -math.inf])
    assert picture.total == -math.inf
    assert picture.weights == [0.0, 0.0]
    assert "nothing to merge" in picture.description
    check_text(picture)
    assert "no token" in texts(picture)


@given(lse=st.lists(st.floats(-1000, 1000), min_size=1, max_size=40))
def test_weights_are_those_of_the_softmax_of_the_lses(lse):
    picture = draw.Splits(range(len(lse)), len(lse), lse)
    assert sum(picture.weights) == pytest.approx(1)
    exact = np.exp(np.array(lse) - max(lse))
    np.testing.assert_allclose(picture.weights, exact / exact.sum(), rtol=1e-9)
    check_text(picture)
    elements(picture, "rect")


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 12), max_size=4))
def test_weights_merge_attention_over_the_splits(seed, cuts):
    rng = np.random.default_rng(seed)
    key, value, query = rng.standard_normal((12, 4)), rng.standard_normal((12, 4)), rng.standard_normal(4)
    scores = key @ query
    starts = [0, *sorted(cuts)]
    lse, outputs = [], []
    for first, end in zip(starts, [*starts[1:], 12], strict=True):
        part = np.exp(scores[first:end])
        lse.append(float(np.log(part.sum())) if end > first else -math.inf)
        outputs.append(part / part.sum() @ value[first:end] if end > first else np.zeros(4))
    picture = draw.Splits(starts, 12, lse)
    merged = sum(weight * output for weight, output in zip(picture.weights, outputs, strict=True))
    np.testing.assert_allclose(merged, np.exp(scores) / np.exp(scores).sum() @ value, rtol=1e-9)


@pytest.mark.parametrize(
    ("starts", "seq_len", "lse", "message"),
    [
        ([1], 4, [0.0], "starts must be ascending from 0"),
        ([0, 3, 2], 4, [0.0] * 3, "starts must be ascending from 0"),
        ([0, 5], 4, [0.0] * 2, "starts must lie in 0 .. 4"),
        ([0], 4, [0.0, 1.0], "lse must have one number for each of 1 splits"),
        ([0], 4, [math.nan], "lse must be finite"),
        ([0, 4], 4, [0.0, 0.0], "-inf for an empty split"),
    ],
)
def test_splits_refuse_what_is_no_split(starts, seq_len, lse, message):
    with pytest.raises(ValueError, match=message):
        draw.Splits(starts, seq_len, lse)


# Trees.


@cuda.jit
def reduce(values, out, barrier, sync):
    partial = cuda.shared.array(256, np.float32)
    i, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    partial[i] = values[i]
    cuda.syncthreads()
    while half > 0:
        if i < half:
            partial[i] += partial[i + half]
        if barrier:
            cuda.syncthreads()
        elif sync:
            cuda.syncwarp()
        half //= 2
    if i == 0:
        out[0] = partial[0]


def tree(threads, *, barrier=True, sync=False, order="together"):
    with lockstep.options(order=order):
        accesses = lockstep.trace(reduce, 1, threads, np.ones(threads, F32), np.zeros(1, F32), barrier, sync)
    return draw.Tree.of(accesses, "partial")


def test_a_sound_tree_has_no_race():
    picture = tree(8)
    assert picture.races == []
    assert check_text(picture) == [
        "start      8 threads  partial[0 to 7] stored",
        "barrier 1  4 threads  partial[0 to 3] from own and +4",
        "barrier 2  2 threads  partial[0, 1] from own and +2",
        "barrier 3  1 thread   partial[0] from own and +1",
    ]
    assert picture.description.endswith("by 8, 4, 2, 1 threads. No race.")
    assert "#d62728" not in picture.svg()
    assert picture.title == "partial: what each round combines"


def test_a_missing_barrier_makes_rows_of_their_own_and_races():
    picture = tree(4, barrier=False)
    # Round 1: thread 0 adds 2, thread 1 adds 3. Round 2: thread 0 adds 1, which thread 1 has just written.
    assert [(step.row, step.element, step.sources, step.races) for step in picture.steps if step.epoch] == [
        ((1, 0), 0, (0, 2), ()),
        ((1, 0), 1, (1, 3), ()),
        ((1, 1), 0, (0, 1), (1,)),
    ]
    assert picture.races == [Race(epoch=1, element=1, thread=0, writer=1)]
    assert "no barrier" in texts(picture)
    assert "#d62728" in picture.svg()
    assert check_text(picture)[-2:] == [
        "no barrier  1 thread   partial[0] from own and +1 (race)",
        "Race! Written by one thread while another one reads or writes: partial[1]",
    ]
    assert "partial[1], for example, is written by thread 1, and thread 0 accesses it" in picture.description


@pytest.mark.parametrize(("order", "begins"), [("together", 1), ("forward", 0), ("reverse", 1)])
def test_a_tree_of_a_wrong_order_shows_the_value_that_was_read(order, begins):
    # With 128 threads, thread 0 reads element 32 in its second round. Rows are start, the first round, the second one.
    picture = tree(128, barrier=False, order=order)
    [step] = [step for step in picture.steps if (step.row, step.element) == ((1, 1), 0)]
    assert (step.sources, step.races) == ((0, 32), (32,))
    assert step.begins == (1, begins)
    assert ("old value" in picture.text()) == (order == "forward")


def test_syncwarp_orders_the_lanes_of_one_warp():
    assert tree(32, barrier=False, sync=True).races == []
    assert {"syncwarp", "barrier 1"} <= set(texts(tree(32, barrier=False, sync=True)))
    # Threads of different warps race all the same: element 32 and up, which warp 0 reads, are written by warp 1.
    assert {race.element for race in tree(128, barrier=False, sync=True).races} == set(range(32, 64))


@pytest.mark.parametrize("order", ["together", "forward", "reverse"])
@pytest.mark.parametrize("threads", [16, 64, 256])
@pytest.mark.parametrize(("barrier", "sync"), [(True, False), (False, False), (False, True)])
def test_a_tree_has_a_race_where_the_sanitizer_finds_one(threads, order, barrier, sync):
    with lockstep.options(order=order):
        arguments = np.ones(threads, F32), np.zeros(1, F32), barrier, sync
        findings = lockstep.sanitize(reduce, 1, threads, *arguments)
    assert bool(findings) == bool(tree(threads, barrier=barrier, sync=sync, order=order).races)


def test_two_threads_that_write_one_element_race():
    @cuda.jit
    def both(out):
        tile = cuda.shared.array(2, np.int64)
        tile[0] = cuda.threadIdx.x
        cuda.syncthreads()
        out[0] = tile[0]

    picture = draw.Tree.of(lockstep.trace(both, 1, 2, np.zeros(1, np.int64)), "tile")
    assert {(race.thread, race.writer) for race in picture.races} == {(0, 1), (1, 0)}


def test_atomic_operations_do_not_race():
    @cuda.jit
    def count(out):
        tile = cuda.shared.array(2, np.int64)
        if cuda.threadIdx.x == 0:
            tile[0] = 0
        cuda.syncthreads()
        cuda.atomic.add(tile, 0, 1)
        cuda.syncthreads()
        out[0] = tile[0]

    assert draw.Tree.of(lockstep.trace(count, 1, 64, np.zeros(1, np.int64)), "tile").races == []


@pytest.mark.parametrize("barrier", [True, False])
def test_large_trees_fit(barrier):
    picture = tree(256, barrier=barrier)
    assert picture.draw().width <= 860
    circles = [float(circle.get("cx")) for circle in elements(picture, "circle")]
    assert len(circles) == 9 * 16  # the first 16 elements in each row
    # The elements 16 to 255 of the first row are one bar.
    tips = [element.text for element in elements(picture, "title")]
    assert "partial[16 to 255]: written" in tips
    assert ("partial[16 to 127]: race" in tips) == (not barrier)


def test_a_round_that_reads_what_was_there_before_has_a_row_above():
    @cuda.jit
    def add_in_place(out):
        tile = cuda.shared.array(4, np.float32)
        i = cuda.threadIdx.x
        tile[i] = tile[3 - i] + 1
        out[i] = 0

    picture = draw.Tree.of(lockstep.trace(add_in_place, 1, 4, np.zeros(4, F32)), "tile")
    assert [step.begins for step in picture.steps] == [(-1,)] * 4
    assert "before" in texts(picture)
    assert "before" not in texts(tree(8))


def test_a_title_can_be_given():
    picture = tree(8)
    assert draw.Tree(picture.array, picture.steps, title="good").title == "good"
    accesses = lockstep.trace(reduce, 1, 8, np.ones(8, F32), np.zeros(1, F32), True, False)
    assert texts(draw.Tree.of(accesses, "partial", title="mended"))[0] == "mended"
    assert draw.WarpAccess.of(accesses, "values", title="reads").title == "reads"
    assert draw.Threads(1, 1, 1, title="one").title == "one"
    assert draw.Splits([0], 1, [0.0], title="one").title == "one"


# Shuffles.


@cuda.jit
def add_lanes(x):
    value, apart = x[cuda.threadIdx.x], 16
    while apart > 0:
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, apart)
        apart //= 2
    x[cuda.threadIdx.x] = value + cuda.shfl_down_sync(0xFFFFFFFF, value, 1)


@pytest.mark.parametrize("order", ["together", "forward"])
def test_a_butterfly_of_shuffles(order):
    with lockstep.options(order=order):
        accesses = lockstep.trace(add_lanes, 1, 64, np.ones(64, F32))
    shuffles = [access for access in accesses if access.space == "register"]
    assert shuffles[0].elements[:3] == (16, 17, 18)
    line = shuffles[0].line.number
    for warp in (0, 1):
        picture = draw.Tree.of_shuffles(accesses, warp=warp, line=line)
        expected = [(0, lane, ()) for lane in range(32)]
        for epoch in range(1, 6):
            expected += [(epoch, lane, tuple(sorted((lane, lane ^ (32 >> epoch))))) for lane in range(32)]
        assert [(step.epoch, step.element, step.sources) for step in picture.steps] == expected
        assert {step.thread // 32 for step in picture.steps} == {warp}
        assert "16, 8, 4, 2, 1 lanes away" in picture.description
        assert picture.text().splitlines()[2:] == [
            f"shuffle {epoch}  32 lanes  register[0 to 31] from own and from the lane that differs in the bit of "
            f"{32 >> epoch}"
            for epoch in range(1, 6)
        ]
        assert {"start", "shuffle 5", "32 lanes"} <= set(texts(picture))
        check_text(picture)
    # With the last one, in which lane 31 reads its own value.
    everything = draw.Tree.of_shuffles(accesses)
    assert everything.epochs == list(range(7))
    assert everything.steps[-1].sources == (31,)
    with pytest.raises(
        ValueError, match="must be those of a recorded shuffle, got none with warp=2 line=None"
    ):
        draw.Tree.of_shuffles(accesses, warp=2)


# Warps.


@cuda.jit
def columns(out, pad, rows):
    tile = cuda.shared.array(33 * 32, np.float32)
    i = cuda.threadIdx.x
    for k in range(33):
        tile[32 * k + i] = i
    cuda.syncthreads()
    out[i] = tile[(i // (32 // rows)) * (32 + pad)]


def column(pad, rows=32):
    accesses = lockstep.trace(columns, 1, 32, np.zeros(32, F32), pad, rows)
    return draw.WarpAccess.of(accesses, "tile")


def test_a_column_of_a_tile_is_in_one_bank_and_a_pad_spreads_it():
    picture = column(0)
    # Rows of 32 floats: all elements of a column lie in bank 0, as 32 words.
    assert list(picture.banks.words) == [0]
    assert (picture.banks.wavefronts, picture.banks.conflicts) == (32, 31)
    assert check_text(picture)[-2:] == [
        "0     32     0 to 31",
        "32 wavefronts, 31 bank conflicts; 1 of 32 banks take part",
    ]
    assert "#d62728" in picture.svg()
    padded = column(1)
    assert sorted(padded.banks.words) == list(range(32))
    assert (padded.banks.wavefronts, padded.banks.conflicts) == (1, 0)
    assert "#d62728" not in padded.svg()
    assert {"bank", "lane", "a bank with one word"} <= set(texts(padded))


def test_lanes_with_one_word_do_not_conflict():
    picture = column(0, rows=2)
    # 16 lanes read word 0, 16 read word 32: two words of bank 0.
    assert picture.banks.words == {0: {0: list(range(16)), 32: list(range(16, 32))}}
    assert picture.banks.wavefronts == 2
    assert "16x" in texts(picture)


@given(
    addresses=st.dictionaries(st.integers(0, 31), st.integers(0, 70), min_size=1),
    itemsize=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_wavefronts_are_those_of_the_profiler(addresses, itemsize):
    at = {lane: place * itemsize for lane, place in addresses.items()}
    row = np.full((1, 32), NOBODY)
    row[0, list(at)] = list(at.values())
    cost = shared_cost(row, itemsize)
    banks = Banks(at, itemsize)
    assert (banks.wavefronts, banks.conflicts) == (cost.wavefronts, cost.wavefronts - cost.ideal)
    picture = draw.WarpAccess("load of x", at, itemsize, "shared")
    check_text(picture)
    elements(picture, "rect")


@given(
    addresses=st.dictionaries(st.integers(0, 31), st.integers(0, 3000), min_size=1),
    itemsize=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_warps_in_global_memory_have_labelled_rows_and_edges_of_sectors(addresses, itemsize):
    picture = draw.WarpAccess("load of x", {lane: n * itemsize for lane, n in addresses.items()}, itemsize)
    assert {"lane", "byte"} <= set(texts(picture))
    check_text(picture)
    # Each sector has an edge of its own, also if all its elements are used.
    edges = [r for r in elements(picture, "rect") if r.get("class") == "line"]
    assert len(edges) == len(picture.sectors)


def test_pictures_are_public():
    assert {"Threads", "Splits", "Tree", "WarpAccess"} <= set(pn.draw.__all__)
