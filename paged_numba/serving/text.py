"""Text of an answer as it grows: whole characters only, and no part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerText:
    r"""Text of an answer so far. It does not change: a new token gives a new text.

    Attributes
    ----------
    shown : str
        Text that stays as it is, whatever comes.
    held : str
        Characters that may become a stop string.
    split : bytes
        First bytes of a character whose last bytes have not come yet.
    is_cut : bool
        Whether a stop string has come; `shown` ends before it.

    Examples
    --------
    >>> text = AnswerText()
    >>> for piece in (b"caf", b"\xc3", b"\xa9 E", b"N", b"D!"):
    ...     text = text.push(piece, stop=["END"])
    ...     print(text)
    AnswerText(shown='caf', held='', split=b'', is_cut=False)
    AnswerText(shown='caf', held='', split=b'\xc3', is_cut=False)
    AnswerText(shown='café ', held='E', split=b'', is_cut=False)
    AnswerText(shown='café ', held='EN', split=b'', is_cut=False)
    AnswerText(shown='café ', held='', split=b'', is_cut=True)
    """

    shown: str = ""
    held: str = ""
    split: bytes = b""
    is_cut: bool = False

    def push(self, piece: bytes, stop: Sequence[str]) -> AnswerText:
        """Return the text with the bytes of one more token."""
        return self._grown(piece, stop, is_last=False)

    def finish(self, stop: Sequence[str]) -> AnswerText:
        """Return the text when no token follows: what was held back is shown."""
        return self if self.is_cut else self._grown(b"", stop, is_last=True)

    def _grown(self, piece: bytes, stop: Sequence[str], is_last: bool) -> AnswerText:
        data = self.split + piece
        # Before the last token, the decoder leaves the bytes of a character that is not whole.
        characters, num_used = codecs.utf_8_decode(data, "replace", is_last)
        text = self.held + characters
        starts = [start for one in stop if (start := text.find(one)) >= 0]
        if starts:
            return AnswerText(self.shown + text[: min(starts)], is_cut=True)
        end = len(text) - (0 if is_last else _num_to_hold(text, stop))
        return AnswerText(self.shown + text[:end], text[end:], data[num_used:])


def _num_to_hold(text: str, stop: Sequence[str]) -> int:
    """Return the length of the longest end of a text with which a stop string begins.

    >>> _num_to_hold("abab", ["abc"]), _num_to_hold("abc!", ["abc"])
    (2, 0)
    """
    longest = min(len(text), max(map(len, stop), default=1) - 1)
    return next((n for n in range(longest, 0, -1) if any(one.startswith(text[-n:]) for one in stop)), 0)
