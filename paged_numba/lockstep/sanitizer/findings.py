"""What a sanitizer found: equal findings as one, with a count and the first example."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..observe.code import CodeLine

BENIGN = "benign race"
"""The kind of finding that is no error: several threads write the same value."""


@dataclass(frozen=True)
class Example:
    """The first occurrence of a finding.

    Attributes
    ----------
    what : str
        Says what happened, to which element, by which threads.
    element : str
        The array with its index; empty where no array is concerned.
    thread, other_thread : str
        Coordinates; `other_thread` is empty where one thread alone is at fault.
    """

    what: str
    element: str = ""
    thread: str = ""
    other_thread: str = ""


@dataclass
class Finding:
    """Occurrences of one mistake: of one kind, with one array, by one line or pair of lines.

    Attributes
    ----------
    kind : str
        Such as ``data race``, ``uninitialised read``, ``out of bounds``.
    array : str
        Empty where no array is concerned.
    line, other_line : str
        ``file.py:line``; `other_line` is empty where one line alone is at fault.
    source, other_source : str
        The text of the lines.
    count : int
        Elements and threads that were found, each anew.
    example : Example
    """

    kind: str
    array: str
    line: str
    other_line: str
    source: str
    other_source: str
    count: int
    example: Example

    def __str__(self) -> str:
        times = "" if self.count == 1 else f" ({self.count:,} times; the first is shown)"
        text = [f"{self.kind}: {self.example.what}{times}"]
        for place, source in ((self.line, self.source), (self.other_line, self.other_source)):
            if place:
                text.append(f"    {place}  {source}".rstrip())
        return "\n".join(text)


class Findings:
    """All findings of a session, in the order of their first occurrence.

    True if there are any. ``len``, iteration and ``print`` do what one expects.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, str], Finding] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found.values())

    @property
    def errors(self) -> list[Finding]:
        """All findings but benign races."""
        return [finding for finding in self if finding.kind != BENIGN]

    def add(
        self,
        kind: str,
        array: str,
        line: CodeLine,
        other_line: CodeLine | None,
        count: int,
        example: Callable[[], Example],
    ) -> None:
        """Count occurrences; `example` is asked for the first only."""
        key = (kind, array, str(line), "" if other_line is None else str(other_line))
        if key not in self._found:
            other_source = "" if other_line is None else other_line.text
            self._found[key] = Finding(*key, line.text, other_source, 0, example())
        self._found[key].count += count

    def __str__(self) -> str:
        if not self:
            return "no findings"
        errors = len(self.errors)
        text = [f"{errors} kind{'' if errors == 1 else 's'} of error, {len(self) - errors} benign"]
        return "\n\n".join([*text, *map(str, self)])

    def to_dict(self) -> dict[str, Any]:
        """Return all findings as plain Python."""
        return {"findings": [asdict(finding) for finding in self]}

    def save(self, path: str | Path) -> None:
        """Write the findings as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
