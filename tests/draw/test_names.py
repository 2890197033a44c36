"""Names of sequences in pictures, for ids of any type."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from seen import texts

import paged_numba as pn
from paged_numba import draw
from paged_numba.draw import text
from paged_numba.draw.names import cut, labels_of, names_of, width_of


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


@given(st.lists(st.text(max_size=3), max_size=70, unique=True))
def test_labels_are_single_characters_and_differ_as_long_as_they_last(names):
    labels = labels_of(names)
    assert list(labels) == names
    assert all(len(label) == 1 for label in labels.values())
    assert len({label for label in labels.values() if label != "*"}) == min(62, len(names))


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.integers(3, 40))
def test_a_cut_name_is_as_wide_as_allowed(name, width):
    shown = cut(name, width)
    assert width_of(shown) <= width
    assert shown == name or ("..." in shown and width_of(name) > width)
