"""`Findings`: the errors that a sanitizer has found; equal errors form one `Finding` with a count and an example."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ...files import write
from ..observe.code import CodeLine
from ..observe.observer import EXITED, unseen
from ..observe.page_style import STYLE

BENIGN = "benign race"
"""The kind of finding for several threads that write the same value."""

HARMLESS = (BENIGN, EXITED)
"""The kinds of findings that are not errors."""

DISTANCES = ("across thread blocks", "across warps", "within a warp")
"""How far apart the two threads of a race are, the widest first."""

WIDTH = 100
"""Columns of a finding as text."""


@dataclass(frozen=True)
class Example:
    """An occurrence of a finding, the first one of its distance.

    Attributes
    ----------
    what : str
        A sentence: the element, the threads, and what they did.
    element : str
        The array with its index; empty if no array is involved.
    thread, other_thread : str
        Such as ``thread 5 of thread block 0``; with two dimensions, ``thread (5, 1) of thread block (0, 2)``.
        `other_thread` is empty if only one thread is at fault.
    distance : str
        For a race, one of ``across thread blocks``, ``across warps``, ``within a warp``; else empty.
    """

    what: str
    element: str = ""
    thread: str = ""
    other_thread: str = ""
    distance: str = ""


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
        The first occurrence; of a race, the first between threads that are as far apart as any.
    other_examples : list of Example
        Of a race, the first occurrence of each smaller distance.
    """

    kind: str
    array: str
    line: str
    other_line: str
    source: str
    other_source: str
    count: int
    example: Example
    other_examples: list[Example] = field(default_factory=list)

    def __str__(self) -> str:
        times = "" if self.count == 1 else f" ({self.count:,} times)"
        text = [_wrapped(f"{self.kind}: {self.example.what}{times}")]
        text += [_wrapped(f"  {other.distance}, too: {other.what}") for other in self.other_examples]
        for place, source in self.places:
            line = f"    {place}  {source}".rstrip()
            text.append(line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ...")
        return "\n".join(text)

    @property
    def places(self) -> list[tuple[str, str]]:
        """The different lines at fault, each with its text."""
        places = ((self.line, self.source), (self.other_line, self.other_source))
        return [place for place in dict.fromkeys(places) if place[0]]

    def add_example(self, example: Example) -> None:
        """Add the first occurrence of another distance."""
        examples = [self.example, *self.other_examples, example]
        self.example, *self.other_examples = sorted(examples, key=lambda one: DISTANCES.index(one.distance))


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
    ('tile[63]', 'thread 0 of thread block 0', 'thread 63 of thread block 0')
    """

    def __init__(self) -> None:
        self._found: dict[Any, Finding] = {}
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
        distance: str = "",
    ) -> None:
        """Count occurrences; `example` is called for the first occurrence of each distance only."""
        place, other_place = str(line), "" if other_line is None else str(other_line)
        # Which of two racing lines runs first is a matter of chance.
        key = kind, array, frozenset((place, other_place))
        found = self._found.get(key)
        if found is None:
            other_source = "" if other_line is None else other_line.text
            found = Finding(kind, array, place, other_place, line.text, other_source, 0, example())
            self._found[key] = found
        elif all(distance != known.distance for known in (found.example, *found.other_examples)):
            found.add_example(example())
        found.count += count

    def __repr__(self) -> str:
        kinds = Counter(finding.kind for finding in self)
        counts = [f"{kind}: {count}" for kind, count in kinds.items()] or ["no findings"]
        return f"Findings({', '.join([*counts, *self.gaps])})"

    def __str__(self) -> str:
        return "\n\n".join([self._headline, *map(str, self)])

    def _repr_html_(self) -> str:
        headline = f"<div>{self._headline}</div>"
        if not self:
            return headline
        header = "".join(f"<th class=l>{name}</th>" for name in ("finding", "times", "example", "lines"))
        rows = "".join(f"<tr>{_cells(finding)}</tr>" for finding in self)
        table = f"<table class=t><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"
        return (
            f"<div class=lockstep-report><style>{STYLE}</style>{headline}<div class=wide>{table}</div></div>"
        )

    @property
    def _headline(self) -> str:
        if not self:
            found = "no findings"
        else:
            errors = len(self.errors)
            kinds = [f"{errors} kind{'' if errors == 1 else 's'} of error"]
            if benign := len(self) - errors:
                kinds.append(f"{benign} benign")
            found = ", ".join(kinds)
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


def _wrapped(text: str) -> str:
    """Return a text in lines of at most `WIDTH` columns; coordinates such as ``(1, 2, 0)`` stay together."""
    kept = re.sub(r"(?<=\d), (?=\d)", ",\xa0", text)
    lines = textwrap.fill(
        kept, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return lines.replace("\xa0", " ")


def _cells(finding: Finding) -> str:
    """Return the cells of a finding's row in an HTML table."""
    kind = f"{finding.kind} in {finding.array}" if finding.array else finding.kind
    examples = [
        finding.example.what,
        *(f"{other.distance}, too: {other.what}" for other in finding.other_examples),
    ]
    lines = "<br>".join(f"{escape(line)} <code>{escape(source)}</code>" for line, source in finding.places)
    return (
        f"<td class=l>{escape(kind)}</td><td class=l>{finding.count:,}</td>"
        f"<td class=l>{'<br>'.join(map(escape, examples))}</td><td class=l>{lines}</td>"
    )
