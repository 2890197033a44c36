"""Nothing in a picture of a pool runs out of it, and no text into another, whatever the pool and the names are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seen import arrows, rectangles, text_boxes, view

import paged_numba as pn
from paged_numba import draw
from paged_numba.draw.names import width_of

names = st.one_of(
    st.integers(0, 99),
    st.integers(0, 10**6).map("chatcmpl-{:08d}-of-a-very-long-name-with-sixty-letters-in-all".format),
    st.text("abWM漢é .,…", max_size=70),
    st.text(max_size=8),
)


@st.composite
def pools(draw_from):
    """Pools with sequences, forks among them, and the pool and sequences after each change."""
    pool = pn.BlockAllocator(
        draw_from(st.sampled_from([1, 2, 7, 16, 40, 300])), draw_from(st.sampled_from([1, 4, 16, 128]))
    )
    history, schedule, waiting = draw.PoolHistory(), draw.Schedule(), []
    for name in draw_from(st.lists(names, max_size=14, unique=True)):
        try:
            if len(pool) and draw_from(st.booleans()):
                pool.fork(draw_from(st.sampled_from(list(pool))), name)
                pool.append(name, draw_from(st.integers(1, 2 * pool.block_size)))
            else:
                pool.add(name, draw_from(st.integers(1, 6 * pool.block_size)))
        except pn.OutOfBlocksError:
            waiting += [name] if name not in pool else []
        for _ in range(draw_from(st.integers(1, 9))):
            history.record(pool)
            schedule.record(pool, running=pool, waiting=waiting)
        for seq_id in draw_from(st.sets(st.sampled_from(list(pool) or [None]), max_size=2)) - {None}:
            waiting += [seq_id]
            pool.free(seq_id)
        waiting = [seq_id for seq_id in waiting if draw_from(st.booleans())]
    return pool, history, schedule


def assert_orderly(picture):
    page, texts, boxes = view(picture), text_boxes(picture), rectangles(picture)
    for box in texts + boxes:
        assert page.holds(box), box
    for place, one in enumerate(texts):
        for other in texts[place + 1 :]:
            assert not one.meets(other), (one, other)
        around = [
            box for box in boxes if box.contains((one.left + one.right) / 2, (one.top + one.bottom) / 2)
        ]
        # A text that is in a box is within it: the innermost that is as high as a text.
        around = [box for box in around if box.bottom - box.top >= one.bottom - one.top]
        if around:
            inner = min(around, key=lambda box: box.right - box.left)
            assert inner.left - 0.6 <= one.left <= one.right <= inner.right + 0.6, (one, inner)


@given(pools())
def test_texts_keep_to_their_places(made):
    pool, history, schedule = made
    for picture in (draw.BlockTables.of(pool), history, schedule):
        assert_orderly(picture)


@given(pools(), st.data())
def test_texts_of_a_path_keep_to_their_places(made, data):
    pool = made[0]
    if len(pool):
        seq_id = data.draw(st.sampled_from(list(pool)))
        position = data.draw(st.integers(0, pool.seq_len(seq_id) - 1))
        assert_orderly(draw.TokenPath.of(pool, seq_id, position))


def test_entries_behind_the_last_block_look_unused():
    own, left_over = (draw.TokenPath("a", 0, [1, 2], tokens, 3, 1).svg() for tokens in (2, 1))
    near = "#cfe6f5"
    assert left_over.count(near) == 1, "the legend alone"
    assert own.count(near) == 3, "the entry, the block and the legend"


def assert_arrows_are_free(picture):
    boxes = [*rectangles(picture), *text_boxes(picture)]
    for points in arrows(picture):
        for x, y in points:
            assert not any(box.contains(x, y) for box in boxes), (x, y)


@given(pools())
def test_arrows_of_block_tables_cross_no_box_and_no_text(made):
    assert_arrows_are_free(draw.BlockTables.of(made[0]))


@pytest.mark.parametrize("name", ["s", "sequence {}", "a name of many letters {}"])
def test_arrows_of_many_block_tables_pass_the_names_between_them(name):
    pool = pn.BlockAllocator(64, 16)
    for number in range(13):
        pool.add(name.format(number) if "{" in name else number, 1 + 37 * number % 80)
    picture = draw.BlockTables.of(pool)
    # Names stand between tables, in rows that arrows pass.
    assert any(box.left > 200 and 130 < box.top < 300 and "tokens" in box.text for box in text_boxes(picture))
    assert len(arrows(picture)) == sum(map(len, picture.tables.values())) > 30
    assert_arrows_are_free(picture)
    assert_orderly(picture)


@given(pools())
def test_text_forms_are_at_most_a_hundred_columns_wide(made):
    pool, history, schedule = made
    for picture in (draw.BlockTables.of(pool), history, schedule):
        for line in str(picture).split("\n"):
            assert width_of(line) <= 100, line


@pytest.mark.parametrize("num_steps", [0, 1, 70, 71, 300])
def test_long_histories_keep_to_the_page(num_steps):
    pool, history, schedule = pn.BlockAllocator(9, 4), draw.PoolHistory(), draw.Schedule()
    for step in range(num_steps):
        pool.add(step, 1 + 5 * step % 13)
        history.record(pool)
        schedule.record(pool, running=[step], waiting=[step + 1])
        pool.free(step)
    for picture in (history, schedule):
        assert_orderly(picture)
        assert view(picture).right < 1000
        assert max(map(len, str(picture).split("\n"))) <= 100
