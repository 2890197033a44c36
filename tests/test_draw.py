"""The data behind the pictures, worked out by hand; and pictures that are self-contained."""

import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import draw, lockstep
from paged_numba.draw import text
from paged_numba.draw.kernels.tree import Step
from paged_numba.draw.names import names_of
from paged_numba.draw.picture import Picture
from paged_numba.draw.pools.routes import place_tables
from paged_numba.draw.svg import COLOURS, SHARED, Drawing, look_of

sys.path.insert(0, str(Path(__file__).parent / "lockstep"))


@pytest.fixture(scope="module")
def kernels():
    return pytest.importorskip("tutorial_kernels", reason="Numba is not installed")


def trace_copy(kernels, stride, offset=0):
    source, target = np.zeros(128 * 32 + 8, np.float32), np.zeros(128, np.float32)
    with lockstep.tracing() as accesses:
        lockstep.launch(kernels.copy_with_stride, 1, 128, source, target, stride, offset)
    return accesses


def texts(picture):
    """Return the texts in a picture, cut ones whole, as in their tooltips; its XML must be well-formed."""
    found = [element for element in ET.fromstring(picture.svg()).iter() if element.tag.endswith("text")]
    return [(list(element) or [element])[0].text for element in found]


@pytest.mark.parametrize(
    ("stride", "offset", "sectors", "lines", "caption"),
    [
        (1, 0, [0, 1, 2, 3], [0], "4 sectors of 32 bytes in 1 cache line of 128, 100% useful"),
        (1, 1, [0, 1, 2, 3, 4], [0, 1], "5 sectors of 32 bytes in 2 cache lines of 128, 80% useful"),
        (2, 0, list(range(8)), [0, 1], "8 sectors of 32 bytes in 2 cache lines of 128, 50% useful"),
        (32, 0, [*range(0, 128, 4)], [*range(32)], "32 sectors of 32 bytes in 32 cache lines of 128, 12.5% useful"),
        (0, 40, [5], [1], "1 sector of 32 bytes in 1 cache line of 128, 12.5% useful"),
    ],
)  # fmt: skip
def test_warp_access(kernels, stride, offset, sectors, lines, caption):
    picture = draw.WarpAccess.of(trace_copy(kernels, stride, offset), "source")
    assert picture.addresses == {lane: 4 * (lane * stride + offset) for lane in range(32)}
    assert (picture.itemsize, picture.sectors, picture.lines) == (4, sectors, lines)
    assert caption in texts(picture)
    assert "load of source: target[i] = source[i * stride + offset]" in texts(picture)


def test_warp_access_of_another_warp_and_line(kernels):
    accesses = trace_copy(kernels, 1)
    line = accesses[0].line.number
    picture = draw.WarpAccess.of(accesses, "target", "store", line=line, warp=2)
    assert picture.addresses == {lane: 4 * (64 + lane) for lane in range(32)}
    with pytest.raises(ValueError, match="got none with array='source' kind='atomic' line=None warp=0"):
        draw.WarpAccess.of(accesses, "source", "atomic")


def test_inactive_lanes_have_no_address(kernels):
    a, b, c = (np.zeros(1000, np.float32) for _ in range(3))
    with lockstep.tracing((7, 0, 0)) as accesses:
        lockstep.launch(kernels.vector_add, 8, 128, a, b, c)
    # Block 7 begins at element 896 and ends at 999: its last warp has 8 lanes.
    picture = draw.WarpAccess.of(accesses, "a", warp=3)
    assert picture.addresses == {lane: 4 * (992 + lane) for lane in range(8)}
    assert picture.sectors == [124]


def test_trace_counts_barriers_and_refuses_blocks_outside_the_grid(kernels):
    data, out = np.zeros(256, np.float32), np.zeros(2, np.float32)
    with lockstep.options(max_lanes=128), lockstep.tracing((1, 0, 0)) as accesses:
        lockstep.launch(kernels.reduce_sequential, 2, 128, data, out)
    assert [a.epoch for a in accesses if a.array == "data"] == [0]
    assert [a.epoch for a in accesses if a.array == "out"] == [8]
    assert next(a for a in accesses if a.array == "data").elements == tuple(range(128, 256))
    message = r"thread_block must lie in the grid, got thread_block=\(2, 0, 0\)"
    with lockstep.tracing((2, 0, 0)), pytest.raises(ValueError, match=message):
        lockstep.launch(kernels.reduce_sequential, 2, 128, data, out)


def test_tree_of_a_reduction(kernels):
    with lockstep.tracing() as accesses:
        lockstep.launch(kernels.reduce_sequential, 1, 128, np.zeros(128, np.float32), np.zeros(1, np.float32))
    tree = draw.Tree.of(accesses, "partial")
    expected = [Step(0, thread, thread, ()) for thread in range(128)]
    for epoch in range(1, 8):
        stride = 128 >> epoch
        expected += [Step(epoch, t, t, (t, t + stride)) for t in range(stride)]
    assert tree.steps == expected
    assert tree.epochs == list(range(8))
    assert {"start", "barrier 7", "64 threads", "1 thread"} <= set(texts(tree))
    with pytest.raises(
        ValueError, match="array must name a shared array that was stored to, got array='data'"
    ):
        draw.Tree.of(accesses, "data")


@pytest.fixture
def pool():
    """Blocks of 4: "a" has 6 tokens in 0 and 1; "b" shares 0 and has its own copy, 2, of the second."""
    made = pn.BlockAllocator(4, 4)
    made.add("a", 6)
    made.fork("a", "b")
    made.append("b", 1)
    return made


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
    assert draw.BlockTables.of(pool, ["b"]).tables == {"b": [0, 2]}
    # Four arrows, each with a head.
    assert picture.svg().count('<path d="M') == 2 * 4


def test_block_tables_name_released_blocks_and_ids_of_the_same_text():
    pool = pn.BlockAllocator(4, 4)
    pool.add(1, 6)
    pool.add("1", 5)
    pool.release(1, 2)
    picture = draw.BlockTables.of(pool)
    assert picture.tables == {"1": [-1, 1], "'1'": [2, 3]}
    assert [picture.owners(block) for block in range(4)] == [[], ["1"], ["'1'"], ["'1'"]]
    assert {"-1", "1", "2", "3"} <= set(texts(picture))


class Mute:
    """An id with nothing to show."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        if self.text is None:
            raise ValueError("no text")
        return self.text

    __repr__ = __str__


texts_of_ids = st.one_of(
    st.text(max_size=4),
    st.text(st.characters(codec=None), max_size=3),  # surrogates and control characters, too
    st.sampled_from(
        ["", "+", ".", "a", "a ", "free", "shared (+)", "'a'", "1", "'1'", "a,b", "\x00", "\udc80", "\uffff"]
    ),
)
seq_ids = st.one_of(
    texts_of_ids,
    st.integers(-1, 2),
    st.just(10**5000),
    st.floats(),
    st.none(),
    st.binary(max_size=2),
    st.tuples(texts_of_ids, st.integers(0, 1)),
    st.frozensets(st.integers(0, 2), max_size=2),
    st.builds(Mute, st.none() | texts_of_ids),
)


def columns_of(line):
    """Return how many columns a line of text takes; the oracle knows only the characters that these tests draw."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" and not unicodedata.combining(c) for c in line)
    return len(line) + wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in line)


@given(st.lists(seq_ids, max_size=6))
def test_sequences_of_any_id_can_be_told_apart(ids):
    ids = list(dict.fromkeys(ids))
    pool = pn.BlockAllocator(8, 4)
    history = draw.PoolHistory()
    for number, seq_id in enumerate(ids):
        pool.add(seq_id, 1 + number)
        history.record(pool)
    names = names_of(ids)
    assert len(set(names)) == len(ids)
    for name in names:
        assert name.strip() not in ("", "+", ".", "free", "shared (+)")
        assert name.isprintable()
        assert len(name) < 90
    picture = draw.BlockTables.of(pool)
    assert [*picture.tables] == [*picture.lens] == [*history.sequences] == names
    assert set(names) <= set(texts(picture))
    assert set(names) <= set(texts(history))
    owned = [name for name, table in picture.tables.items() for _ in table]
    assert history.steps[-1:] == ([owned + [""] * (8 - len(owned))] if ids else [])
    lines = text.block_tables(pool, ids).split("\n")
    assert len(lines) == 2 + len(ids)
    assert len({columns_of(line) for line in lines}) == 1
    for name, line in zip(names, lines[2:], strict=True):
        assert line.startswith(f"{name} ")


def test_names_by_hand():
    assert names_of(["chatcmpl-1", 7, (1, 2), 1.5, "req.2"]) == ["chatcmpl-1", "7", "(1, 2)", "1.5", "req.2"]
    assert names_of(["1", 1, "'1'"]) == ["'1'", "1", "\"'1'\""]
    assert names_of(["free", " a", "a, b", "\x1b[31m"]) == ["'free'", "' a'", "'a, b'", r"'\x1b[31m'"]
    assert names_of([Mute("x"), Mute("x"), "x"]) == ["x", "x (2)", "'x'"]
    assert names_of([Mute(""), "y" * 99]) == ["<Mute >", f"'{'y' * 39}...{'y' * 16}'"]


def test_a_sequence_that_comes_later_does_not_take_a_name():
    pool, history = pn.BlockAllocator(2, 4), draw.PoolHistory()
    for seq_id in ("1", 1, "1"):
        pool.add(seq_id, 1)
        history.record(pool)
        pool.free(seq_id)
    assert [step[0] for step in history.steps] == ["'1'", "1", "'1'"]


@given(st.text(st.characters(codec=None), max_size=5))
def test_any_text_can_be_drawn(words):
    for picture in (
        draw.BlockTables(1, 1, {words: [0]}, {words: 1}),
        draw.WarpAccess(words, {0: 0}, 4),
        draw.Tree(words, [Step(0, 0, 0, ())]),
    ):
        assert texts(picture)


@pytest.mark.parametrize("label", [None, "", "ab", "+", ".", "\n", "\udc80", "\u4e00", "\u0301"])
def test_a_pool_map_has_a_character_for_each_block(label):
    pool = pn.BlockAllocator(2, 4)
    pool.add("x", 1)
    labels = {} if label is None else {"x": label}
    with pytest.raises(ValueError, match=r"labels must have a printable character .* got .* for x$"):
        text.pool_map(pool, labels)


def test_a_legend_takes_as_many_rows_as_it_needs():
    drawing = Drawing(200, 50, "T")
    drawing.legend(10, 30, [("none", f"{number} characters") for number in (10, 11, 12)])
    places = [
        (float(element.get("x")), float(element.get("y")))
        for element in ET.fromstring(str(drawing)).iter()
        if element.get("class") == "edge"
    ]
    # An entry is 32 + 13 * 6.4 = 115.2 wide: no two fit in 200.
    assert places == [(10, 30), (10, 48), (10, 66)]
    assert drawing.height == 66 + 24


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


def test_states_differ_by_more_than_colour():
    looks = [look_of(number) for number in range(49)]
    assert len({*looks, SHARED}) == 50
    assert len(set(COLOURS)) == 7
    assert [look.hatching for look in looks] == [number // 7 for number in range(49)]


def test_a_picture_stands_alone(pool, tmp_path):
    picture = draw.BlockTables.of(pool)
    with pytest.raises(ValueError, match=r"path must end in \.svg, got path=.*picture\.png"):
        picture.save(tmp_path / "picture.png")
    picture.save(tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert text == picture.svg() + "\n"
    assert text.strip() in picture._repr_html_()
    assert "prefers-color-scheme:dark" in text
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1
    assert draw.BlockTables.of(pn.BlockAllocator(2, 2)).svg()
    assert draw.PoolHistory().svg()


def test_show_prints_and_saves_in_a_script_and_only_returns_the_picture_elsewhere(
    pool, tmp_path, capsys, monkeypatch
):
    picture, path = draw.BlockTables.of(pool), tmp_path / "picture.svg"
    assert picture.show(path) is picture
    assert capsys.readouterr().out == f"{picture.text()}\nSaved as {path}.\n"
    path.unlink()
    monkeypatch.setattr(Picture, "inline", True)
    assert picture.show(path) is picture
    assert (capsys.readouterr().out, path.exists()) == ("", False)
