"""Text of an answer as it grows: whole characters only, and no part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any


class AnswerText:
    """Turns tokens into text, and ends it before the first stop string.

    Parameters
    ----------
    tokenizer : Tokenizer
    stop : sequence of str

    Attributes
    ----------
    shown : str
        Text that will stay as it is, whatever comes.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._piece, self._stop = tokenizer.piece, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.shown = ""
        self._held = ""  # the beginning of what may become a stop string
        self._num_taken = 0
        self._is_cut = False

    def push(self, token: int) -> bool:
        """Take the next token; return whether a stop string is complete."""
        return self._add(self._decoder.decode(self._piece(token)))

    def finish(self) -> None:
        """Show what was held back: no token follows."""
        if not self._is_cut and not self._add(self._decoder.decode(b"", final=True)):
            self.shown, self._held = self.shown + self._held, ""

    def take(self) -> str:
        """Return the text that is new since the last call."""
        new = self.shown[self._num_taken :]
        self._num_taken += len(new)
        return new

    def _add(self, characters: str) -> bool:
        text = self._held + characters
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        self._is_cut = bool(places)
        shown = min(places) if places else len(text) - self._num_to_hold(text)
        self.shown, self._held = self.shown + text[:shown], "" if places else text[shown:]
        return self._is_cut

    def _num_to_hold(self, text: str) -> int:
        """Return the length of the longest end of the text with which a stop string begins."""
        longest = max(map(len, self._stop), default=1) - 1
        return next(
            (
                n
                for n in range(min(longest, len(text)), 0, -1)
                if any(s.startswith(text[-n:]) for s in self._stop)
            ),
            0,
        )
