"""`Picture`: the base class of pictures, which can be shown, printed and saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from ..files import write
from .svg import Drawing, escape


class Picture:
    """Base class of pictures: recorded data with the methods `draw` and `text`.

    A notebook shows the picture if it is the last value of a cell.
    """

    inline: ClassVar[bool | None] = None
    """Whether `show` leaves it to a page or notebook to show the picture. None: in a Jupyter kernel only."""

    def draw(self) -> Drawing:
        """Return the shapes of the picture."""
        raise NotImplementedError

    @property
    def description(self) -> str:
        """What is seen, in one or two sentences."""
        return self.draw().title

    def text(self) -> str:
        """Return the picture as plain text, for terminals."""
        return self.description

    def __str__(self) -> str:
        return self.text()

    def svg(self) -> str:
        """Return the picture as SVG text."""
        return str(self.draw())

    def _repr_html_(self) -> str:
        """Return the picture and its description as a figure."""
        caption = f"<figcaption>{escape(self.description)}</figcaption>"
        return f'<figure class="pn-picture" tabindex="0">{self.svg()}{caption}</figure>'

    def save(self, path: str | Path) -> None:
        """Write the picture to a file; an old file stays as it was until the new one is complete.

        Parameters
        ----------
        path : str or Path
            Name of the file, which must end in ``.svg``.

        Raises
        ------
        ValueError
            The name of the file does not end in ``.svg``.
        """
        if Path(path).suffix != ".svg":
            raise ValueError(f"path must end in .svg, got path={str(path)!r}")
        write(path, self.svg() + "\n")

    def show(self, path: str | Path) -> Picture:
        """Show the picture in any place: print its text and save it or, in a notebook, only return it.

        Put it last in a cell. A notebook then shows the returned picture, and no file is written.

        Parameters
        ----------
        path : str or Path
            Name of the file, which must end in ``.svg``.

        Raises
        ------
        ValueError
            The name of the file does not end in ``.svg``.
        """
        if not (_in_notebook() if self.inline is None else self.inline):
            self.save(path)
            print(f"{self.text()}\nSaved as {path}.")
        return self


def _in_notebook() -> bool:
    """Tell whether a Jupyter kernel runs this process; IPython in a terminal shows no pictures."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
