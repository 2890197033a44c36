"""Pictures of extreme data: titles and names of any text, sizes beyond what can be drawn."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from seen import texts

import paged_numba as pn
from paged_numba import draw
from paged_numba.draw.names import width_of

LARGEST = 5_000_000
"""Most characters of an SVG file."""


def check_form(picture):
    """Check that a picture is well-formed XML of modest size, and its text at most 100 columns wide."""
    svg, page, text = picture.svg(), picture._repr_html_(), picture.text()
    assert len(svg) < LARGEST
    root = ET.fromstring(svg.encode())
    assert float(root.get("width")) < 1200
    assert float(root.get("height")) < 8000
    ET.fromstring(page.encode())
    assert max(map(width_of, text.split("\n"))) <= 100
    text.encode()
    assert not set(map(ord, text)).intersection({*range(32)} - {10})
    picture.description.encode()


def pictures(title):
    """Return a picture of each kind with a title."""
    pool = pn.BlockAllocator(8, 4)
    pool.add("a", 9)
    history, schedule = draw.PoolHistory(title=title), draw.Schedule(title=title)
    history.record(pool)
    schedule.record(pool, running=["a"])
    return [
        history,
        schedule,
        draw.BlockTables.of(pool, title=title),
        draw.TokenPath.of(pool, "a", 5, title=title),
        draw.Threads(3, 4, 10, title),
        draw.OnlineSoftmax([1, 2], title),
        draw.Splits([0, 1], 2, [0, 0], title),
        draw.Mask([[True]], title),
        draw.Roofline(2e12, 4e13, {"copy": 1}, title),
    ]


@given(st.text(max_size=300))
@example("T" * 500)
@example("漢" * 200)
@example("<i>&\"']]>\x00\n\t\x1b[31m")
@example("\u202eabc")
@example("a\u0301" * 300)
def test_titles_of_any_text_are_one_line(title):
    for picture in pictures(title):
        check_form(picture)
        if title:
            assert picture.title == draw.Mask([[True]], title).title
            assert picture.text().startswith(picture.heading + "\n")
    assert len(picture.title.splitlines()) <= 1


def test_a_title_that_a_terminal_cannot_show_is_escaped():
    assert draw.Mask([[True]], "two\nlines\ud800").title == "two\\nlines\\ud800"
    assert draw.Mask([[True]], "T" * 500).text().splitlines()[0] == "T" * 97 + "..."


def test_a_large_pool_is_folded():
    pool = pn.BlockAllocator(10**6, 1)
    pool.add("large", 999_990)
    history, schedule = draw.PoolHistory(), draw.Schedule()
    for _ in range(3):
        history.record(pool)
        schedule.record(pool, running=["large"])
    tables = draw.BlockTables.of(pool)
    for picture in tables, history, schedule, draw.TokenPath.of(pool, "large", 777_777):
        check_form(picture)
    drawn = " ".join(texts(tables))
    assert "Blocks 512 to 999999 are not drawn." in drawn
    assert "Of long block tables, 48 entries are drawn." in drawn
    assert "One of every 6452 blocks is drawn." in texts(history)
    assert "999990 used at first" in history.description


def test_many_sequences_and_requests_are_folded():
    pool = pn.BlockAllocator(3000, 4)
    names = [f"request {number}" for number in range(3000)]
    for name in names:
        pool.add(name, 3)
    history, schedule = draw.PoolHistory(), draw.Schedule()
    history.record(pool)
    schedule.record(pool, running=names)
    tables = draw.BlockTables.of(pool)
    for picture in tables, history, schedule:
        check_form(picture)
    assert "24 of 3000 sequences are drawn." in " ".join(texts(tables))
    assert "48 of 3000 requests are drawn." in texts(schedule)
    assert schedule.description.startswith("3,000 requests over 1 step: at most 3000 run at once")
    assert "* 2,938 more" in tables.text()


def test_many_steps_are_folded():
    pool = pn.BlockAllocator(4, 4)
    history, schedule = draw.PoolHistory(), draw.Schedule()
    for step in range(2000):
        pool.add(step, 4)
        history.record(pool)
        schedule.record(pool, running=[step])
        pool.free(step)
    assert "One of every 6 steps is drawn." in texts(history)
    assert "48 of 2000 requests are drawn. One of every 7 steps is drawn." in texts(schedule)
    check_form(history)
    check_form(schedule)


@pytest.mark.parametrize("kind", [draw.PoolHistory, draw.Schedule])
def test_a_recorded_pool_keeps_its_size(kind):
    picture = kind()
    picture.record(pn.BlockAllocator(4, 4))
    message = "pool must have as many blocks as at the first step, 4, got num_blocks=5"
    with pytest.raises(ValueError, match=message):
        picture.record(pn.BlockAllocator(5, 4))
    assert picture.used == [0]


def test_large_blocks_are_drawn_as_stretches():
    path = draw.TokenPath("a", 2 * 10**9 + 7, [2, 0, 1], 3 * 10**9, 4, 10**9)
    check_form(path)
    assert path.slot == 10**9 + 7


def test_a_sequence_without_a_token_has_no_path():
    pool = pn.BlockAllocator(4, 4)
    pool.add("a", 0)
    with pytest.raises(ValueError, match="seq_id must be a sequence with a token, got seq_id='a'"):
        draw.TokenPath.of(pool, "a", 0)


blocks = st.integers(1, 2**31 - 1) | st.integers(1, 40)
threads = st.integers(1, 1024) | st.integers(1, 8)
cells = st.integers(1, 2**63 - 1) | st.integers(1, 40)


@given(blocks, threads, cells)
@example(2**31 - 1, 1024, 2**63 - 1)
@example(1000, 1, 3)
def test_launches_of_any_size_fit_in_one_dimension(blocks_per_grid, threads_per_block, shape):
    check_form(draw.Threads(blocks_per_grid, threads_per_block, shape))


@given(st.tuples(blocks, blocks), st.tuples(threads, threads), st.tuples(cells, cells))
@example((1000, 1), (1, 1), (3, 3))
@example((2**31 - 1, 2**31 - 1), (1024, 1024), (2**63 - 1, 2**63 - 1))
def test_launches_of_any_size_fit_in_two_dimensions(blocks_per_grid, threads_per_block, shape):
    check_form(draw.Threads(blocks_per_grid, threads_per_block, shape))


@pytest.mark.parametrize("cell", [(), (5,), (1, -1), (4, 0), (0, 5), ("a", 0), (1.5, 0)])
def test_only_cells_of_the_array_have_a_thread(cell):
    with pytest.raises((TypeError, ValueError), match="cell must"):
        draw.Threads((2, 2), (4, 4), (4, 5)).thread_of(*cell)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: draw.Threads(1, 1025, 1), "threads_per_block"),
        (lambda: draw.Threads(2**31, 1, 1), "blocks_per_grid"),
        (lambda: draw.Threads(1, 1, 2**63), "shape"),
        (lambda: draw.Splits(range(1025), 2000, [0.0] * 1025), "starts"),
        (lambda: draw.Splits([0], 2**63, [0]), "seq_len"),
        (lambda: draw.Splits([0], 1, [10**400]), "lse"),
        (lambda: draw.Splits([0], 1, [math.nan]), "lse"),
        (lambda: draw.OnlineSoftmax([10**400]), "scores"),
        (lambda: draw.Roofline(10**400, 1, {"a": 1}), "bandwidth"),
        (lambda: draw.Roofline(1e30, 1, {"a": 1}), "bandwidth"),
        (lambda: draw.Roofline(1, 1, {"a": 1e-30}), "intensities"),
        (lambda: draw.Roofline(1, 1, {str(i): 1 for i in range(50)}), "intensities"),
        (lambda: draw.Mask(np.zeros((10**4, 10**4), bool)), "seen"),
        (lambda: draw.Mask([[True]]).save(None), "path"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(make, argument):
    with pytest.raises((TypeError, ValueError), match=f"^{argument}.* must"):
        make()


number = st.floats(1e-24, 1e24)


@given(number, number, st.dictionaries(st.text(max_size=80), number, min_size=1, max_size=49))
@example(1e-24, 1e24, {"least": 1e-24, "most": 1e24})
def test_rooflines_of_any_scale_fit(bandwidth, peak, intensities):
    check_form(draw.Roofline(bandwidth, peak, intensities))


@given(st.lists(st.floats(allow_nan=False, max_value=1e308), min_size=1, max_size=200))
@example([1e308, -1e308])
@example([0.0] * 1024)
def test_splits_with_any_lse_fit(lse):
    splits = draw.Splits(range(len(lse)), len(lse), lse)
    check_form(splits)
    assert sum(splits.weights) == pytest.approx(1 if max(lse) > -math.inf else 0)
