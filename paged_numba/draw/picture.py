"""`Picture`: the base class of pictures, which can be shown, printed and saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from ..arguments import shown, text
from ..files import write
from .names import one_line, width_of
from .svg import Drawing, escape

# On a narrow page a picture scrolls, since its text could not be read if it were smaller. `:where` leaves the last word
# to the page's own style sheet.
_STYLE = (
    "<style>:where(.pn-picture){margin:.5em 0}:where(.pn-picture>div){overflow-x:auto}"
    ":where(.pn-picture svg){display:block;min-width:min(var(--width),34rem)}</style>"
)


COLUMNS = 100
"""Most columns of the text form."""


class Picture:
    """Base class of pictures: recorded data with the methods `draw` and `text`.

    A notebook shows the picture if it is the last value of a cell.
    """

    title: str
    """Heading of the picture."""

    inline: ClassVar[bool | None] = None
    """Whether `show` leaves it to a page or notebook to show the picture. None: in a Jupyter kernel only."""

    @classmethod
    def is_inline(cls) -> bool:
        """Tell whether a page or notebook shows what a cell ends with."""
        return _in_notebook() if cls.inline is None else cls.inline

    def draw(self) -> Drawing:
        """Return the shapes of the picture."""
        raise NotImplementedError

    @property
    def description(self) -> str:
        """What is seen, in sentences, with its numbers: for those who cannot see the picture."""
        return self.draw().title

    @property
    def heading(self) -> str:
        """The title, cut at its end to the 100 columns of the text form."""
        cut = self.title if width_of(self.title) <= COLUMNS else self.title[: COLUMNS - 3]
        while width_of(cut) > COLUMNS - 3 * (cut != self.title):
            cut = cut[:-1]
        return cut if cut == self.title else f"{cut.rstrip()}..."

    @property
    def caption(self) -> str:
        """What stands below the picture: its description, or the part that the picture does not say by itself."""
        return self.description

    def text(self) -> str:
        """Return the picture as plain text of at most 100 columns, for terminals."""
        return self.description

    def __str__(self) -> str:
        return self.text()

    def svg(self) -> str:
        """Return the picture as SVG text."""
        return str(self._described())

    def _described(self) -> Drawing:
        drawing = self.draw()
        drawing.description = self.description
        return drawing

    def _repr_html_(self) -> str:
        """Return the picture and its caption as a figure."""
        drawing = self._described()
        return (
            f'<figure class="pn-picture" style="--width:{drawing.width:.0f}px">{_STYLE}'
            f'<div tabindex="0">{drawing}</div>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )

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
        if not isinstance(path, (str, Path)):
            raise TypeError(f"path must be a str or Path, got path={shown(path)}")
        if Path(path).suffix.lower() != ".svg":
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
        if not self.is_inline():
            self.save(path)
            print(f"{self.text()}\nSaved as {path}.")
        return self


def checked_title(title: Any, default: str = "") -> str:
    """Return a title on one line, or the default if it is empty; raise TypeError unless it is a str."""
    return one_line(text("title", title)) or default


def first_sentence(text: str) -> str:
    """Return the first sentence of a description, for pictures whose other sentences list what is drawn."""
    return f"{text.partition('. ')[0].removesuffix('.')}."


def nothing_yet(picture: Picture) -> Drawing:
    """Return a drawing for a picture without data: its title and its description."""
    drawing = Drawing(360, 70, picture.title)
    drawing.text(16, 50, picture.description, "left q")
    return drawing


def _in_notebook() -> bool:
    """Tell whether a Jupyter kernel runs this process; IPython in a terminal shows no pictures."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
