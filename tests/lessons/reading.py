"""Reads and runs a lesson, for the tests of its form, of its words, and of the numbers in its prose.

A test of a lesson, ``tests/lessons/test_07.py``::

    from reading import lesson

    LESSON = lesson(7)

    def test_numbers_in_the_prose():
        made = LESSON.run()  # the lesson's globals; it runs once per process, in a folder of its own
        report = made["report"]
        LESSON.check_numbers(
            claims={                               # a piece of the prose -> the number or numbers in it, in order
                "29 memory requests": report.memory("shared").requests,
                "32 barriers instead of 8": (report.work().barriers, 8),
            },
            given=["each of 120 keys", "128 threads"],   # what the lesson chooses, or what is so by definition
        )

Every number of the prose, outside literals in double backticks, must lie in one of these pieces. Numbers of lessons
("lesson 06", the title), of lists ("1."), and years in a citation ("SOSP 2023") need not. A number with a thousands
separator is compared as ``1,024``; one with a fraction, rounded to the digits that the prose shows.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import runpy
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "tutorials"
GLOSSARY = ROOT / "docs" / "glossary.md"

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
FREE = re.compile(
    r"[Ll]essons? \d\d(?:(?:,| and| to) \d\d)*"  # other lessons
    r"|^\d\d · "  # the title
    r"|^ *\d\. "  # lists
    r"|\b(?:19|20)\d\d\b",  # years
    re.MULTILINE,
)


@dataclass(frozen=True)
class Lesson:
    """A lesson: its path, and its prose and code as text."""

    path: Path

    @property
    def number(self) -> int:
        """Number of the lesson."""
        return int(self.path.name[:2])

    @functools.cached_property
    def text(self) -> str:
        """The whole file."""
        return self.path.read_text(encoding="utf-8")

    @functools.cached_property
    def cells(self) -> list[tuple[str, str]]:
        """The prose and the code of each cell; the docstring is the prose of the first."""
        parts = re.split(r"^# %%.*\n", self.text, flags=re.MULTILINE)
        opening = re.match(r'"""\n?(.*?)"""\n?(.*)', parts[0], re.DOTALL)
        assert opening, f"{self.path.name} must begin with a docstring"
        cells = [(opening[1], opening[2])]
        for part in parts[1:]:
            prose = re.match(r"(?:#.*\n)*", part)[0]
            cells.append((re.sub(r"^# ?", "", prose, flags=re.MULTILINE), part[len(prose) :]))
        return cells

    @functools.cached_property
    def prose(self) -> str:
        """The prose of all cells, in reStructuredText."""
        return "\n".join(prose for prose, _ in self.cells)

    @functools.cached_property
    def code(self) -> str:
        """The code of all cells, without comments."""
        code = "\n".join(code for _, code in self.cells)
        comments = {
            token.start: token.string
            for token in tokenize.generate_tokens(io.StringIO(code).readline)
            if token.type == tokenize.COMMENT
        }
        lines = code.split("\n")
        for row, column in comments:
            lines[row - 1] = lines[row - 1][:column].rstrip()
        return "\n".join(lines)

    def run(self) -> dict[str, Any]:
        """Return the lesson's globals after it has run as a script, in an empty folder of its own."""
        return _run(self.path)[0]

    @property
    def output(self) -> str:
        """What the lesson prints as a script."""
        return _run(self.path)[1]

    @property
    def saved(self) -> dict[str, str]:
        """By name, the text of each file that the lesson saves as a script; not what Hypothesis keeps."""
        return _run(self.path)[2]

    def check_numbers(self, claims: dict[str, Any], given: list[str] = ()) -> None:
        """Check that each number of the prose is claimed with its value, or given.

        Raises
        ------
        AssertionError
            A piece is not in the prose, a number differs from its value, or one is neither claimed nor given.
        """
        prose = FREE.sub(
            lambda found: "~" * len(found[0]), re.sub(r"``.*?``", "~", self.prose, flags=re.DOTALL)
        )
        prose = " ".join(prose.split())
        for piece in [*claims, *given]:
            assert " ".join(piece.split()) in prose, f"{self.path.name} does not say {piece!r}"
        for piece, values in claims.items():
            found = NUMBER.findall(piece)
            expected = values if isinstance(values, tuple) else (values,)
            assert len(found) == len(expected), (
                f"{piece!r} has the numbers {found}, got the values {expected}"
            )
            for number, value in zip(found, expected, strict=True):
                assert _rounded(value, number) == number.lstrip("+"), f"{piece!r}: {number} should be {value}"
        for piece in sorted([*claims, *given], key=len, reverse=True):
            prose = prose.replace(" ".join(piece.split()), "~")
        left = NUMBER.findall(prose)
        assert not left, f"neither claimed nor given in the prose of {self.path.name}: {left}"


def _rounded(value: Any, like: str) -> str:
    """Return a value with as many digits after the point as `like` has, and its thousands separators."""
    if isinstance(value, str):
        return value
    fraction = len(like.partition(".")[2])
    text = f"{value:,.{fraction}f}" if "e" not in like else f"{value:g}"
    return text if "," in like or "," not in text else text.replace(",", "")


@functools.cache
def _run(path: Path) -> tuple[dict[str, Any], str, dict[str, str]]:
    printed, before = io.StringIO(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(printed):
                made = runpy.run_path(str(path), run_name="__main__")
        finally:
            os.chdir(before)
        saved = {
            str(file.relative_to(folder)): file.read_text(encoding="utf-8", errors="replace")
            for file in sorted(Path(folder).rglob("*"))
            if file.is_file() and ".hypothesis" not in file.parts
        }
    return made, printed.getvalue(), saved


@functools.cache
def lesson(number: int) -> Lesson:
    """Return the lesson of a number."""
    [path] = TUTORIALS.glob(f"{number:02d}_*.py")
    return Lesson(path)


def lessons() -> list[Lesson]:
    """Return all lessons in order."""
    return [lesson(int(path.name[:2])) for path in sorted(TUTORIALS.glob("[0-9][0-9]_*.py"))]


@functools.cache
def glossary() -> dict[str, tuple[str, ...]]:
    """Return the glossary's words, by their entry all the terms of that entry."""
    text = GLOSSARY.read_text(encoding="utf-8")
    body = re.search(r"^```\{glossary\}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
    entries: dict[str, tuple[str, ...]] = {}
    for entry in re.split(r"\n\s*\n", body):
        terms = tuple(
            line.strip() for line in entry.split("\n") if line.strip() and not line.startswith((" ", ":"))
        )
        entries.update(dict.fromkeys(terms, terms))
    return entries
