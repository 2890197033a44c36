"""Widths of texts in pictures, and texts cut to fit a space."""

from __future__ import annotations

import unicodedata

# In ems, rounded up, of DejaVu Sans, which is wider than the other fonts that systems use for their menus.
_WIDTHS = {
    letter: width
    for letters, width in (
        ("'IJijl", 0.3),
        (" ,./:;\\|", 0.35),
        ("()-[]ft", 0.4),
        ("!r", 0.45),
        ('"*_`', 0.5),
        ("?csz", 0.55),
        ("FLkvxy", 0.6),
        ("$0123456789EPSTYabdeghnopqu{}", 0.65),
        ("ABCKRVXZ", 0.7),
        ("NU", 0.75),
        ("&DGHOQ", 0.8),
        ("#+<=>^w~", 0.85),
        ("M", 0.9),
        ("%@Wm…", 1.0),
    )
    for letter in letters
}


def text_width(text: str, size: float = 12) -> float:
    """Return the width of a text in pixels, for letters of `size` pixels: an estimate, seldom too small.

    Examples
    --------
    >>> text_width("block 7", 10)
    37.5
    """
    return round(size * sum(map(_em, text)), 2)


def _em(letter: str) -> float:
    if letter.isascii() or letter == "…":
        return _WIDTHS.get(letter, 1.0)
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0.0
    if letter >= "\U0001f000":  # emoji
        return 1.3
    return 1.05 if unicodedata.east_asian_width(letter) in "WFA" else 1.0


def fitted(text: str, room: float, size: float = 12, *, middle: bool = True) -> str:
    """Return a text that is at most `room` pixels wide: itself, or without its middle or, if not `middle`, its end.

    Names often differ only at the end, so the middle is left out.

    Examples
    --------
    >>> fitted("chatcmpl-8f3a", 60), fitted("a", 60), fitted("chatcmpl-8f3a", 5)
    ('cha…f3a', 'a', '')
    """
    if text_width(text, size) <= room:
        return text
    shown = ""
    for length in range(len(text)):
        head = length // 2 if middle else length
        cut = text[:head].rstrip() + "…" + text[len(text) - length + head :].lstrip()
        if text_width(cut, size) > room:
            break
        shown = cut
    return shown
