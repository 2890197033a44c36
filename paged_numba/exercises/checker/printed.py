"""`Printed`: what an answer prints."""

from __future__ import annotations

import io


class Printed(io.TextIOBase):
    """A stream that keeps the beginning of what is printed, and that the answer cannot close.

    Parameters
    ----------
    most : int
        Most characters that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self.text = most, ""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Keep a text, as far as there is room."""
        if len(self.text) < self._most:
            self.text += text[: self._most - len(self.text)]
        return len(text)

    def close(self) -> None:
        """Stay open."""


NOWHERE = Printed(0)
"""Of what is printed, nothing is kept. There is one, since a thread may still print to it when it is replaced."""
