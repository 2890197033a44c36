"""`Findings`: the errors that a sanitizer has found; equal errors form one `Finding` with a count and an example."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from ...files import write
from ..observe.code import CodeLine
from ..observe.observer import EXITED, unseen

BENIGN = "benign race"
"""The kind of finding for several threads that write the same value."""

HARMLESS = (BENIGN, EXITED)
"""The kinds of findings that are not errors."""


@dataclass(frozen=True)
class Example:
    """The first occurrence of a finding.

    Attributes
    ----------
    what : str
        A sentence: the element, the threads, and what they did.
    element : str
        The array with its index; empty if no array is involved.
    thread, other_thread : str
        Coordinates; `other_thread` is empty if only one thread is at fault.
    """

    what: str
    element: str = ""
    thread: str = ""
    other_thread: str = ""


@dataclass
class Finding:
    """All occurrences of one error: of the same kind, array and line or pair of lines.

    Attributes
    ----------
    kind : str
        Such as ``data race``, ``uninitialised read``, ``out of bounds``.
    array : str
        Empty if no array is involved.
    line, other_line : str
        ``file.py:line``; `other_line` is empty if only one line is at fault.
    source, other_source : str
        The text of the lines.
    count : int
        Number of occurrences, one for each element and thread.
    example : Example
        The first occurrence.
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
    """The findings of some launches, in the order of their first occurrence; true if there are any.

    `sanitize` and `sanitizing` make them. ``len`` and iteration go over the `Finding` objects, ``print`` shows them
    as text, a notebook as a table.

    Attributes
    ----------
    num_unseen : int
        Launches of other threads in the meantime that neither this sanitizer nor any other observer saw.
    num_failed : int
        Launches that ended with an error, checked only until then, and launches of kernels that lockstep cannot run.

    See Also
    --------
    paged_numba.lockstep.sanitize : Sanitizes a single launch.
    paged_numba.lockstep.sanitizing : Sanitizes all launches in a ``with`` statement.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def reverse(values):
    ...     tile = cuda.shared.array(64, np.float32)
    ...     tile[cuda.threadIdx.x] = values[cuda.threadIdx.x]
    ...     # cuda.syncthreads() is missing here
    ...     values[cuda.threadIdx.x] = tile[63 - cuda.threadIdx.x]
    >>> findings = lockstep.sanitize(reverse, 1, 64, np.arange(64, dtype=np.float32))
    >>> findings
    Findings(data race: 1)
    >>> [race] = findings.errors
    >>> race.array, race.count
    ('tile', 64)
    >>> race.example.element, race.example.thread, race.example.other_thread
    ('tile[63]', 'blockIdx=(0, 0, 0) threadIdx=(0, 0, 0)', 'blockIdx=(0, 0, 0) threadIdx=(63, 0, 0)')
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, str], Finding] = {}
        self.num_unseen = self.num_failed = 0

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found.values())

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors: neither benign races nor barriers after some threads exited."""
        return [finding for finding in self if finding.kind not in HARMLESS]

    def add(
        self,
        kind: str,
        array: str,
        line: CodeLine,
        other_line: CodeLine | None,
        count: int,
        example: Callable[[], Example],
    ) -> None:
        """Count occurrences; `example` is called for the first occurrence only."""
        key = (kind, array, str(line), "" if other_line is None else str(other_line))
        if key not in self._found:
            other_source = "" if other_line is None else other_line.text
            self._found[key] = Finding(*key, line.text, other_source, 0, example())
        self._found[key].count += count

    def __repr__(self) -> str:
        kinds = Counter(finding.kind for finding in self)
        counts = [f"{kind}: {count}" for kind, count in kinds.items()] or ["no findings"]
        return f"Findings({', '.join([*counts, *self.gaps])})"

    def __str__(self) -> str:
        return "\n\n".join([self._headline, *map(str, self)])

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{name}</th>" for name in ("finding", "times", "first occurrence", "lines"))
        rows = "".join(f"<tr>{_cells(finding)}</tr>" for finding in self)
        table = f"<table><tr>{header}</tr>{rows}</table>" if self else ""
        return f"<div>{self._headline}</div>{table}"

    @property
    def _headline(self) -> str:
        if not self:
            found = "no findings"
        else:
            errors = len(self.errors)
            found = f"{errors} kind{'' if errors == 1 else 's'} of error, {len(self) - errors} benign"
        return "; ".join([found, *self.gaps])

    @property
    def gaps(self) -> list[str]:
        """What was not checked, in words."""
        gaps = [f"{_launches(self.num_failed)} ended with an error"] if self.num_failed else []
        return [*gaps, unseen(self.num_unseen, "checked")] if self.num_unseen else gaps

    def to_dict(self) -> dict[str, Any]:
        """Return all findings as dicts, lists, numbers and strings."""
        return {
            "findings": [asdict(finding) for finding in self],
            "failed_launches": self.num_failed,
            "unseen_launches": self.num_unseen,
        }

    def save(self, path: str | Path) -> None:
        """Write the findings as JSON; an old file stays as it was until the new one is complete.

        Parameters
        ----------
        path : str or Path
            Name of the file.
        """
        write(path, self.json())

    def json(self) -> str:
        """Return all findings as JSON."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def _launches(count: int) -> str:
    return f"{count:,} launch{'' if count == 1 else 'es'}"


def _cells(finding: Finding) -> str:
    """Return the cells of a finding's row in an HTML table."""
    kind = f"{finding.kind} in {finding.array}" if finding.array else finding.kind
    places = ((finding.line, finding.source), (finding.other_line, finding.other_source))
    lines = "<br>".join(f"{escape(line)} <code>{escape(source)}</code>" for line, source in places if line)
    return f"<td>{escape(kind)}</td><td>{finding.count:,}</td><td>{escape(finding.example.what)}</td><td>{lines}</td>"
