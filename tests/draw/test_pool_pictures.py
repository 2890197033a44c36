"""The data behind the pictures of pools, worked out by hand, and their text forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seen import arrows, elements, texts

import paged_numba as pn
from paged_numba import draw
from paged_numba.draw import text
from paged_numba.draw.pools.routes import place_tables


def test_block_tables_lie_side_by_side_as_long_as_there_is_room():
    tables = {"a": [0, 1], "bcdefghij": [2], "c": [3, 4, 5], "d": [6] * 9, "e": [7]}
    # Between neighbours are whole columns of 44 pixels for the label and a margin of 14.
    labels = {"a": 44, "bcdefghij": 74, "c": 30, "d": 44, "e": 44}
    expected = {"a": (0, 0), "bcdefghij": (0, 4), "c": (0, 6), "d": (1, 0), "e": (2, 0)}
    assert place_tables(tables, labels, 9) == expected
    # A table longer than a row goes on in the next one.
    assert place_tables({"a": [0] * 9, "b": [1]}, {"a": 44, "b": 44}, 4) == {"a": (0, 0), "b": (2, 3)}


def test_block_tables(pool):
    picture = draw.BlockTables.of(pool)
    assert picture.tables == {"a": [0, 1], "b": [0, 2]}
    assert picture.lens == {"a": 6, "b": 7}
    assert [picture.owners(block) for block in range(4)] == [["a", "b"], ["a"], ["b"], []]
    assert [picture.filled(block) for block in range(4)] == [4, 2, 3, 0]
    assert {"a", "6 tokens", "b", "7 tokens", "a+b", "2", "free"} <= set(texts(picture))
    assert str(picture) == (
        "Block tables\n"
        "   block table  tokens  blocks\n"
        "-  -----------  ------  ------\n"
        "a  0 1               6       2\n"
        "b  0 2               7       2\n"
        "pool of 4 blocks of 4 slots:\n"
        "0 |+ab.|\n"
        "a, b, + shared, . free"
    )
    assert picture.description == (
        "A pool of 4 blocks of 4 slots: 3 used, of which 1 shared, 1 free. a, 6 tokens, has the block table 0 1. "
        "b, 7 tokens, has the block table 0 2."
    )
    assert len(arrows(picture)) == 4


def test_a_block_that_a_broken_pool_gives_twice_has_all_its_arrows():
    picture = draw.BlockTables(4, 4, {"you": [0, 0], "me": [1]}, {"you": 7, "me": 3})
    assert len(arrows(picture)) == 3
    assert "0 |ym..|\ny you, m me, . free" in str(picture)
    assert "2 used, 2 free." in picture.description


@pytest.mark.parametrize(
    ("owners", "words"), [(2, "a0+a1"), (3, "shared"), (4, "shared"), (5, "5 seqs"), (12, "12")]
)
def test_a_block_of_many_owners_says_so_and_its_tooltip_says_whose_it_is(owners, words):
    names = [f"a{number}" for number in range(owners)]
    picture = draw.BlockTables(1, 4, {name: [0] for name in names}, dict.fromkeys(names, 4))
    (shown,) = [element for element in elements(picture, "text") if element.text == words]
    assert [tip.text for tip in shown] == ([", ".join(names)] if owners > 2 else [])


def test_block_tables_of_some_sequences_call_no_held_block_free(pool):
    picture = draw.BlockTables.of(pool, ["b"])
    assert (picture.tables, picture.others) == ({"b": [0, 2]}, [1])
    assert [texts(picture).count(word) for word in ("other", "free")] == [1, 1]
    assert "0 |b*b.|\nb, * others, . free" in str(picture)
    assert "2 used, 1 held by sequences that are not shown, 1 free." in picture.description


@pytest.mark.parametrize(("num_blocks", "hidden", "drawn"), [(24, False, 24), (25, True, 25), (201, True, 0)])
def test_arrows_are_hidden_or_left_out_where_there_are_many(num_blocks, hidden, drawn):
    pool = pn.BlockAllocator(256, 1)
    for first in range(0, num_blocks, 40):
        pool.add(first, min(40, num_blocks - first))
    picture = draw.BlockTables.of(pool)
    assert len(arrows(picture)) == drawn
    assert ('visibility="hidden"' in picture.svg()) == (hidden and drawn > 0)
    assert any("Point at a sequence" in line for line in texts(picture)) == (hidden and drawn > 0)


@pytest.mark.parametrize(("num_blocks", "shown"), [(48, 48), (49, 16), (256, 16)])
def test_free_blocks_at_the_end_of_a_large_pool_are_not_drawn(num_blocks, shown):
    pool = pn.BlockAllocator(num_blocks, 1)
    pool.add("a", 16)
    picture = draw.BlockTables.of(pool)
    assert texts(picture).count("free") == shown - 16
    folded = f"Blocks 16 to {num_blocks - 1} are free." in " ".join(texts(picture))
    assert folded == (shown < num_blocks)


def test_block_tables_name_released_blocks_and_ids_of_the_same_text():
    pool = pn.BlockAllocator(4, 4)
    pool.add(1, 6)
    pool.add("1", 5)
    pool.release(1, 2)
    picture = draw.BlockTables.of(pool)
    assert picture.tables == {"1": [-1, 1], "'1'": [2, 3]}
    assert [picture.owners(block) for block in range(4)] == [[], ["1"], ["'1'"], ["'1'"]]
    assert {"-1", "1", "2", "3"} <= set(texts(picture))


@pytest.mark.parametrize("label", [None, "", "ab", "+", ".", "\n", "\udc80", "\u4e00", "\u0301"])
def test_a_pool_map_has_a_character_for_each_block(label):
    pool = pn.BlockAllocator(2, 4)
    pool.add("x", 1)
    labels = {} if label is None else {"x": label}
    with pytest.raises(ValueError, match=r"labels must have a printable character .* got .* for x$"):
        text.pool_map(pool, labels)


def test_pools_as_text():
    pool = pn.BlockAllocator(64 * 16 + 3, 4)
    pool.add("a", 9)
    pool.fork("a", "b")
    pool.release("a", 1)
    lines = text.pool_map(pool, {"a": "a", "b": "b"}).splitlines()
    # a has released blocks 0 and 1, and shares block 2.
    assert lines[0] == f"   0 |bb+{'.' * 61}|"
    assert lines[-2:] == [f" 960 |{'.' * 64}|", "     ... and 3 more blocks"]
    assert text.block_tables(pool, ["a"]).splitlines()[2].split() == ["a", "-1", "-1", "2", "9", "3"]
    assert [line.split() for line in text.reference_counts(pool).splitlines()[::2]] == [
        ["block", "0", "1", "2"],
        ["references", "1", "1", "2"],
    ]


def test_pool_over_time(pool):
    history = draw.PoolHistory()
    history.record(pool)
    pool.free("a")
    history.record(pool)
    pool.add("c", 5)
    history.record(pool)
    assert history.steps == [["+", "a", "b", ""], ["b", "", "b", ""], ["b", "c", "b", "c"]]
    assert history.used == [3, 2, 4]
    assert history.sequences == ["a", "b", "c"]
    assert {"shared (+)", "free", "step", "used"} <= set(texts(history))
    assert str(history) == (
        "Blocks of the pool over time\n"
        "step     0\n"
        "block 0  +bb\n"
        "block 1  a.c\n"
        "block 2  bbb\n"
        "block 3  ..c\n"
        "a, b, c, + shared, . free"
    )
    assert history.description == (
        "4 blocks over 3 steps: 3 used at first, at most 4 (step 2), 4 at last. "
        "a holds up to 1 block of its own, in step 0. b holds up to 2 blocks of its own, from step 0 to 2. "
        "c holds up to 2 blocks of its own, in step 2."
    )


def test_a_history_of_steps_continues_below_and_says_what_is_left_out():
    pool, history = pn.BlockAllocator(20, 4), draw.PoolHistory()
    pool.add("a", 1)
    for _ in range(281):
        history.record(pool)
    lines = str(history).split("\n")
    free = "Blocks 1 to 19 are free at all steps."
    for place, first in enumerate((0, 70, 140, 210)):
        ruler, row, rest = lines[1 + 4 * place : 4 + 4 * place]
        assert ruler.split()[1:] == [str(step) for step in range(first, first + 70, 10)]
        assert (row, rest) == (f"block 0  {'a' * 70}", free)
    assert lines[-2:] == ["... and 1 more steps", "a"]
    assert free in texts(history)


def test_owners_beyond_the_looks_are_counted():
    pool, history = pn.BlockAllocator(60, 4), draw.PoolHistory()
    for number in range(60):
        pool.add(f"r{number}", 1)
    history.record(pool)
    assert "and 12 more sequences" in texts(history)


@pytest.fixture
def grown():
    """Blocks of 4: "a" has 7 tokens in 0 and 3; "b" has 6 in 1 and 2."""
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add("a", 4)
    pool.add("b", 6)
    pool.append("a", 3)
    return pool


def test_the_path_of_a_token(grown):
    path = draw.TokenPath.of(grown, "a", 6)
    # 6 = 1 * 4 + 2; entry 1 of [0, 3] is block 3; 3 * 4 + 2 = 14.
    assert (path.table, path.seq_len, path.num_blocks, path.block_size) == ([0, 3], 7, 8, 4)
    assert (path.logical_block, path.offset, path.block, path.slot) == (1, 2, 3, 14)
    sums = {"logical block: 6 // 4 = 1", "offset: 6 % 4 = 2", "entry 1: block 3", "3 * 4 + 2 = 14"}
    assert sums <= set(texts(path))
    assert path.description == (
        "Position 6 of a is offset 2 in logical block 1, since blocks have 4 slots. Entry 1 of the block table is "
        "block 3, so the token has slot 3 * 4 + 2 = 14."
    )
    # Positions of logical block 1, and slots of block 3.
    assert {"4", "5", "6", "7", "12", "13", "14", "15"} <= set(texts(path))
    # The token's cell in each of the four stages, and in the legend.
    chosen = [element for element in elements(path, "rect") if element.get("fill") == "#e69f00"]
    assert len(chosen) == 5


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_the_path_ends_at_the_slot_of_the_allocator(seq_len, block_size, data):
    pool = pn.BlockAllocator(400, block_size)
    pool.add("other", data.draw(st.integers(1, 99)))
    pool.add("a", 1)
    for more in range(1, seq_len):
        pool.append("a", 1)
        if more % 7 == 0:
            pool.append("other", block_size)
    position = data.draw(st.integers(0, seq_len - 1))
    path = draw.TokenPath.of(pool, "a", position)
    assert [path.slot] == pool.slots("a", position, position + 1).tolist()
    assert f"= {path.slot}" in str(path).split("\n")[-1]


def test_a_path_needs_a_token_that_is_there(grown):
    with pytest.raises(ValueError, match=r"position must lie in 0 .. 6 \(the tokens of a\), got position=7"):
        draw.TokenPath.of(grown, "a", 7)
    with pytest.raises(pn.UnknownSequenceError):
        draw.TokenPath.of(grown, "c", 0)
    grown.release("a", 1)
    with pytest.raises(
        ValueError, match="position must lie in a block that the sequence holds, got position=3, "
    ):
        draw.TokenPath.of(grown, "a", 3)
    assert "-1 [3]" in str(draw.TokenPath.of(grown, "a", 4))


def test_a_path_through_a_long_table_shows_the_entries_near_by():
    pool = pn.BlockAllocator(5000, 1)
    pool.add("a", 100)
    assert ".. 47 48 49 [50] 51 52 53 .." in str(draw.TokenPath.of(pool, "a", 50))
    assert "[0] 1 2 3 4 5 6 .." in str(draw.TokenPath.of(pool, "a", 0))
    assert ".. 93 94 95 96 97 98 [99]" in str(draw.TokenPath.of(pool, "a", 99))
    assert texts(draw.TokenPath.of(pool, "a", 50)).count("…") == 2


def test_a_schedule():
    pool, schedule = pn.BlockAllocator(num_blocks=4, block_size=4), draw.Schedule(title="Two requests")
    pool.add("a", 7)
    schedule.record(pool, running=["a"], waiting=["b"])
    pool.add("b", 8)
    schedule.record(pool, running=["a", "b"])
    pool.free("b")
    schedule.record(pool, running=["a"], waiting=["b"])
    schedule.record(pool, running=["a"], waiting=["c", "b"])
    pool.free("a")
    pool.add("b", 9)
    schedule.record(pool, running=["b"], waiting=["c"])
    pool.free("b")
    # "a" comes again: another request of the same id.
    schedule.record(pool, waiting=["a"])
    assert schedule.states == {
        "a": ["running", "running", "running", "running", "finished", "waiting"],
        "b": ["waiting", "running", "preempted", "preempted", "running", "finished"],
        "c": ["", "", "", "waiting", "waiting", "finished"],
    }
    assert (schedule.used, schedule.num_blocks) == ([2, 4, 2, 2, 3, 0], 4)
    assert str(schedule) == (
        "Two requests\n"
        "step    0\n"
        "a       #### .\n"
        "b       .#xx#\n"
        "c          ..\n"
        ". waiting, # running, x preempted\n"
        "used 4   #\n"
        "used 3   #  #\n"
        "used 2  #####\n"
        "used 1  #####"
    )
    assert schedule.description == (
        "3 requests over 6 steps: at most 2 run at once; 2 finished by the end. Preempted: b. "
        "Of the pool's 4 blocks, at most 4 are used (step 1)."
    )
    # Six steps of 34 pixels; 84 pixels for 4 blocks. The area starts and ends at the foot.
    (area,) = elements(schedule, "polygon")
    points = [tuple(map(float, point.split(","))) for point in area.get("points").split()]
    left, foot = points[0]
    heights = [(foot - y) / 21 for _, y in points[1:-1]]
    assert heights == [used for used in schedule.used for _ in range(2)]
    assert [(x - left) / 34 for x, _ in points[1:-1]] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    tips = {element[0].text for element in elements(schedule, "rect") if len(element)}
    assert {
        "b: preempted, steps 2 to 3",
        "a: running, steps 0 to 3",
        "a: finished, step 4",
        "a: waiting, step 5",
    } <= tips


def test_a_request_runs_or_waits(grown):
    schedule = draw.Schedule()
    with pytest.raises(
        ValueError, match="running and waiting must have no request in common, got 'b' in both"
    ):
        schedule.record(grown, running=["a", "b"], waiting=["b"])
    with pytest.raises(TypeError, match="waiting must be"):
        schedule.record(grown, running=["a"], waiting=7)
    assert (schedule.states, schedule.used) == ({}, [])


def test_a_schedule_tells_prefill_from_decode(grown):
    schedule = draw.Schedule()
    schedule.record(grown, waiting=["b"], prefill=["a"])
    schedule.record(grown, running=["a"], prefill=["b"])
    schedule.record(grown, running=["a"], waiting=["b"])
    assert schedule.states == {
        "a": ["prefill", "running", "running"],
        "b": ["waiting", "prefill", "preempted"],
    }
    assert str(schedule).split("\n")[2:5] == [
        "a       p##",
        "b       .px",
        ". waiting, p prefill, # running, x preempted",
    ]
    assert "at most 2 run at once" in schedule.description
    tips = {element[0].text for element in elements(schedule, "rect") if len(element)}
    assert {"a: prefill, step 0", "b: prefill, step 1", "b: preempted, step 2"} <= tips
    assert "prefill" in texts(schedule)
    with pytest.raises(
        ValueError, match="waiting and prefill must have no request in common, got 'b' in both"
    ):
        schedule.record(grown, waiting=["b"], prefill=["b"])
