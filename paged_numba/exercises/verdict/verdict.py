"""`Verdict`: what the examination of an answer found, as text, as a page and as JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, NamedTuple

from ...draw.text import table
from . import html

STAGES = {
    "runs": "it runs",
    "right": "it is right",
    "sanitizer": "the sanitizer finds nothing",
    "traffic": "it moves no more than it must",
    "kills": "it finds the wrong ones",
}
"""The stages, as sentences."""

COLUMNS = 96
"""Columns of a sentence, which is indented by 2."""

MARKS = {"passed": "ok", "failed": "FAILED", "not reached": "-"}
_COLOURS = {"passed": "32", "failed": "31;1", "not reached": "2"}


@dataclass(frozen=True)
class Stage:
    """A stage of the examination.

    Attributes
    ----------
    name : str
        A key of `STAGES`.
    state : str
        ``passed``, ``failed`` or ``not reached``.
    """

    name: str
    state: str


@dataclass(frozen=True)
class Picture:
    """The picture of a case.

    Attributes
    ----------
    text, html : str
    """

    text: str
    html: str


class Section(NamedTuple):
    """A part of a verdict below its stages: a title, and text that may be empty."""

    kind: str
    title: str
    body: str = ""


@dataclass
class Verdict:
    """What the examination of an answer found. A notebook shows it with its picture, `print` as text.

    Attributes
    ----------
    number : int
        Number of the exercise.
    title : str
    answer : str
        The file, or the name of what was examined.
    stages : list of Stage
    problem : str
        What is wrong with the answer; empty if nothing is.
    raised : bool
        Whether the answer raised the error that `problem` says.
    input : str
        The smallest input on which it is wrong.
    got, expected : str
        What came out, and what should.
    picture : Picture or None
    finding : str
        If the result is wrong, what the sanitizer finds in the same run.
    limits : list of dict
        What was counted (``what``), how much (``measured``), and the most (``most``) with its reason (``why``).
    kills : list of dict
        Of each wrong subject of a property its ``name``, and whether the property has ``killed`` it.
    printed : str
        What the answer printed in its first run.
    hints : list of str
    num_hints : int
        Hints that are shown.
    num_cases : int
        How many times the answer was run.
    is_skeleton : bool
        Whether the file is as `start` wrote it.
    """

    number: int
    title: str
    answer: str
    stages: list[Stage] = field(default_factory=list)
    problem: str = ""
    raised: bool = False
    input: str = ""
    got: str = ""
    expected: str = ""
    picture: Picture | None = None
    finding: str = ""
    limits: list[dict[str, Any]] = field(default_factory=list)
    kills: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    hints: list[str] = field(default_factory=list)
    num_hints: int = 0
    num_cases: int = 0
    is_skeleton: bool = False

    @property
    def passed(self) -> bool:
        """Whether the answer has passed all stages."""
        return bool(self.stages) and all(stage.state == "passed" for stage in self.stages)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Verdict:
        """Return the verdict that `to_dict` gave.

        Parameters
        ----------
        values : dict
            As JSON holds it.
        """
        made = cls(**{name: value for name, value in values.items() if name != "passed"})
        made.stages = [Stage(**stage) for stage in values["stages"]]
        made.picture = Picture(**values["picture"]) if values["picture"] else None
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as dicts, lists, numbers and text."""
        return {"passed": self.passed, **asdict(self)}

    def json(self) -> str:
        """Return the verdict as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def __repr__(self) -> str:
        return self.text()

    def text(self, colour: bool = False) -> str:
        """Return the verdict as text for a terminal.

        Parameters
        ----------
        colour : bool
            Whether to mark stages with the colours of a terminal.
        """
        parts = [self._headline(), self._stages(colour)]
        for _, title, body in self._sections():
            parts.append(f"{title}\n{_indented(body)}" if body else title)
        return "\n\n".join(parts)

    def _headline(self) -> str:
        return f"Exercise {self.number} · {self.title} ({self.answer})"

    def _stages(self, colour: bool) -> str:
        lines = []
        for stage in self.stages:
            mark = f"{MARKS[stage.state]:6}"
            if colour:
                mark = f"\x1b[{_COLOURS[stage.state]}m{mark}\x1b[0m"
            lines.append(f"  {mark}  {STAGES[stage.name]}")
        return "\n".join(lines)

    def _sections(self) -> list[Section]:
        """Return what stands below the stages."""
        sections = []
        if self.printed:
            sections.append(Section("printed", "Your file printed:", self.printed.rstrip()))
        if self.is_skeleton and not self.passed:
            sections.append(Section("skeleton", "This is still the skeleton: you have not changed it yet."))
        if self.problem:
            title, text = "What is wrong:", _sentence(self.problem)
            if self._failed == "traffic" and self.limits:
                title = "It moves too much:"
            elif self._failed == "sanitizer" and not self.raised and not self.got:
                title = "The sanitizer says:"
            # Findings of the sanitizer come in lines that fit.
            body = text if title == "The sanitizer says:" else _wrapped(text)
            sections.append(Section("problem", title, body))
        if self.kills:
            rows = [[kill["name"], "found" if kill["killed"] else "NOT FOUND"] for kill in self.kills]
            score = f"Score: {sum(k['killed'] for k in self.kills)} of {len(self.kills)}"
            sections.append(Section("kills", score, table(["wrong one", ""], rows)))
        if self.input:
            title = "Smallest input that was found:" if self._failed in ("runs", "right") else "The input:"
            sections.append(Section("input", title, self.input))
        if self.got or self.expected:
            unwritten = "nan" in self.got and "nan" not in self.expected
            note = " (nan: not written, or not a number)" if unwritten else ""
            sections.append(Section("got", f"What came out{note}:", self.got))
            if self.expected:
                sections.append(Section("expected", "What should come out:", self.expected))
        if self.finding:
            sections.append(Section("finding", "In the same run, the sanitizer finds:", self.finding))
        if self.picture:
            sections.append(Section("picture", "", self.picture.text))
        if self.limits:
            rows = [[limit["what"], f"{limit['measured']:,}", f"{limit['most']:,}"] for limit in self.limits]
            sections.append(Section("limits", "Counted:", table(["", "yours", "at most"], rows)))
        return [*sections, *self._advice()]

    @property
    def _failed(self) -> str:
        return next((stage.name for stage in self.stages if stage.state == "failed"), "")

    def _advice(self) -> list[Section]:
        if self.passed:
            return [Section("done", f"Done: {self.num_cases} runs found nothing wrong.")]
        shown = self.hints[: self.num_hints]
        advice = [Section("hint", f"Hint {i} of {len(self.hints)}:", hint) for i, hint in enumerate(shown, 1)]
        left = len(self.hints) - len(shown)
        if left:
            more = "a hint" if not shown else "one more hint"
            option = " ".join(["--hint"] * (len(shown) + 1))
            command = f"paged-numba check {self.number} {option}"
            if not self.answer.endswith(".py"):
                command = f"exercises.check({self.number}, {self.answer}, hints={len(shown) + 1})"
            advice.append(Section("more", f"For {more}: {command}"))
        return advice

    def _repr_html_(self) -> str:
        """Return the verdict and its picture as HTML; hints are folded away until they are asked for."""
        return self._html("p")

    def page(self) -> str:
        """Return the verdict as a page of its own."""
        title = escape(f"Exercise {self.number} · {self.title}")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{title}</title><style>body{{margin:1rem}}</style></head>"
            f"<body><main>{self._html('h1')}</main></body></html>\n"
        )

    def _html(self, heading: str) -> str:
        head = escape(f"Exercise {self.number} · {self.title}")
        parts = [f'<{heading} class="head">{head} <span class="q">{escape(self.answer)}</span></{heading}>']
        parts += [self._html_stages(), *map(self._html_section, self._sections()), self._html_hints()]
        return f'<div class="pn-verdict"><style>{html.STYLE}</style>{"".join(parts)}</div>'

    def _html_stages(self) -> str:
        items = (
            f'<li class="{stage.state.split()[0]}"><b>{MARKS[stage.state]}</b>{STAGES[stage.name]}</li>'
            for stage in self.stages
        )
        return f"<ul>{''.join(items)}</ul>"

    def _html_section(self, section: Section) -> str:
        kind, title, body = section
        if kind == "problem":
            return html.problem(title, _sentence(self.problem))
        if kind == "got":
            return html.beside([(title, body), ("What should come out:", self.expected)])
        if kind == "picture" and self.picture:
            return self.picture.html
        if kind == "kills":
            return html.titled(title) + html.kills(self.kills)
        if kind == "limits":
            return html.titled(title) + html.limits(self.limits)
        if kind == "done":
            return f'<p class="t good">{escape(title)}</p>'
        if kind in ("expected", "hint", "more"):
            return ""  # beside what came out; below all
        return html.titled(title, body)

    def _html_hints(self) -> str:
        return "" if self.passed else html.hints(self.hints, self.num_hints)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _sentence(text: str) -> str:
    """Return a text that begins with a capital unless it begins with a name or a number."""
    begins = text.startswith(("your ", "the "))
    return f"{text[0].upper()}{text[1:]}" if begins else text


def _wrapped(text: str) -> str:
    return "\n".join(
        line
        if len(line) <= COLUMNS or line.startswith(" ")
        else textwrap.fill(line, COLUMNS, break_long_words=False)
        for line in text.splitlines()
    )
