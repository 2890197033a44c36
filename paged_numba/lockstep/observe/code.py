"""Functions and lines of the source that a launch runs, as reports show them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..compiler.source import Source
from ..machine.lanes import file_name


@dataclass(frozen=True, eq=False)
class CodeFunction:
    """A kernel or device function in a report.

    Attributes
    ----------
    name, file : str
    first : int
        Line number in the file of the first source line.
    source : tuple of str
        The source lines.
    """

    name: str
    file: str
    first: int
    source: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, source: Source) -> CodeFunction:
        """Describe a function."""
        return cls(source.definition.name, source.file, source.first, source.lines)

    @property
    def short_file(self) -> str:
        """The file without its folders."""
        return file_name(self.file)


@dataclass(frozen=True, eq=False, repr=False)
class CodeLine:
    """A line of a kernel or device function; a statement counts towards the line on which it begins.

    Attributes
    ----------
    function : CodeFunction
    number : int
    copies : bool
        Whether the statement copies an element, ``a[i] = b[j]``, and does nothing else with it.
    """

    function: CodeFunction
    number: int
    copies: bool = False

    def __str__(self) -> str:
        # Line 0: no line of the kernel has run yet.
        return f"{self.function.short_file}:{self.number}" if self.number else ""

    def __repr__(self) -> str:
        return f"CodeLine({self})"

    @property
    def text(self) -> str:
        """The source line, without indentation."""
        place = self.number - self.function.first
        return self.function.source[place].strip() if 0 <= place < len(self.function.source) else ""
