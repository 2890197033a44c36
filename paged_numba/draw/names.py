"""Names of sequences in pictures: for ids of any type, different texts of one line each."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable

TAKEN = ("", "+", ".", "free", "gone", "pool", "shared (+)")
"""Words that pictures use themselves."""

MAX_LENGTH = 60


def names_of(seq_ids: Iterable[Hashable]) -> list[str]:
    r"""Return a name for each of several different ids: its text or, if that is unclear, its `repr`.

    Examples
    --------
    >>> names_of(["a", "", "+", "two\nlines"])
    ['a', "''", "'+'", "'two\\nlines'"]
    >>> names_of([1, "1", 2])
    ['1', "'1'", '2']
    """
    ids = list(seq_ids)
    texts = [_text(seq_id) for seq_id in ids]
    often = Counter(texts)
    names = [
        text if often[text] == 1 and _is_clear(text) else _shown(seq_id)
        for text, seq_id in zip(texts, ids, strict=True)
    ]
    # The repr of "1" is also the text of "'1'".
    often = Counter(names)
    names = [name if often[name] == 1 else _shown(seq_id) for name, seq_id in zip(names, ids, strict=True)]
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 1
        while names[place] in taken:
            number += 1
            names[place] = f"{name} ({number})"
        taken.add(names[place])
    return names


def _text(seq_id: Hashable) -> str:
    try:
        return str(seq_id)
    except Exception:  # in a user's class, or for an integer with more digits than Python converts
        return object.__repr__(seq_id)


def _is_clear(text: str) -> bool:
    """Tell whether a text is clear in a picture: printable, single spaces, none of the signs that separate names."""
    return (
        text.isprintable()
        and text == " ".join(text.split())
        and text not in TAKEN
        and "+" not in text
        and "," not in text
        and len(text) <= MAX_LENGTH
    )


def _shown(seq_id: Hashable) -> str:
    """Return the `repr` of an id on one line, cut in the middle if it is long."""
    try:
        text = repr(seq_id)
    except Exception:
        text = object.__repr__(seq_id)
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if len(line) > MAX_LENGTH:
        line = f"{line[: MAX_LENGTH - 20]}...{line[-17:]}"
    return line if line.strip() not in TAKEN else f"<{type(seq_id).__name__} {line}>"


_LABELS = string.ascii_lowercase + string.ascii_uppercase + string.digits
MOST_LABELS = len(_LABELS)


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Return a letter or digit for each name: its first if these differ, else its own if it has one, or the next.

    All names beyond the 62nd have a ``*``.

    Examples
    --------
    >>> labels_of(["Ada", "Ben"]), labels_of(["first", "second", "forth", "a"])
    ({'Ada': 'A', 'Ben': 'B'}, {'first': 'b', 'second': 'c', 'forth': 'd', 'a': 'a'})
    """
    names = list(names)
    first = {name: name[:1] for name in names}
    if len(set(first.values())) == len(names) and all(label and label in _LABELS for label in first.values()):
        return first
    free = [label for label in _LABELS if label not in names]
    return {
        name: name if len(name) == 1 and name in _LABELS else free.pop(0) if free else "*" for name in names
    }


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )


def cut(name: str, width: int) -> str:
    """Return a name of at most `width` columns of a terminal: itself, or without its middle.

    Examples
    --------
    >>> cut("chatcmpl-0001", 10), cut("a", 10)
    ('cha...0001', 'a')
    """
    kept, shown = min(len(name), 4 * width), name
    while width_of(shown) > width:
        kept -= 1
        shown = f"{name[: kept // 2]}...{name[len(name) - kept + kept // 2 :]}"
    return shown


def one_line(text: str) -> str:
    r"""Return a text on one line; a character that breaks lines or that no terminal shows becomes its escape.

    Examples
    --------
    >>> print(one_line("two\nlines"))
    two\nlines
    """
    unclear = ("Cc", "Cs", "Zl", "Zp")
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in unclear else c for c in text)
