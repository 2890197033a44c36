"""The exercises by number: their files, titles, statements and tasks."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..arguments import between
from ..errors import InputError
from .skeletons import skeleton_of, solution_of

SOLUTIONS = Path(__file__).parent / "solutions"
NEEDED = "hypothesis"
"""Package that examines answers; the extra ``learn`` brings it."""


@dataclass(frozen=True)
class Exercise:
    """An exercise, without the task that examines answers: what a learner needs to begin.

    Attributes
    ----------
    number : int
    name : str
        Name of its files, such as ``scale``.
    """

    number: int
    name: str

    @property
    def file_name(self) -> str:
        """Name of the learner's file."""
        return f"{self.number:02}_{self.name}.py"

    @property
    def marked(self) -> str:
        """The solution with its marks."""
        return (SOLUTIONS / self.file_name).read_text(encoding="utf-8")

    @property
    def solution(self) -> str:
        """The learner's file with the solution in it."""
        return solution_of(self.marked)

    @property
    def skeleton(self) -> str:
        """The learner's file as `start` writes it."""
        return skeleton_of(self.marked)

    @property
    def statement(self) -> str:
        """What is asked: the docstring of the learner's file."""
        return ast.get_docstring(ast.parse(self.marked)) or ""

    @property
    def title(self) -> str:
        """The title without the number."""
        return self.statement.partition("\n")[0].partition(" · ")[2]

    def task(self) -> Any:
        """Return the task, which examines answers.

        Raises
        ------
        InputError
            Hypothesis is not installed.
        """
        try:
            importlib.import_module(NEEDED)
        except ImportError:
            raise InputError(
                f"checking an answer needs {NEEDED}, which is not installed: pip install {NEEDED} installs it, and so "
                "does the extra learn of this package"
            ) from None
        return importlib.import_module(f".tasks.e{self.number:02}_{self.name}", __package__).TASK


@cache
def exercises() -> tuple[Exercise, ...]:
    """Return all exercises in their order."""
    names = sorted(path.name for path in SOLUTIONS.glob("[0-9][0-9]_*.py"))
    return tuple(Exercise(int(name[:2]), name[3:].removesuffix(".py")) for name in names)


def exercise(number: int) -> Exercise:
    """Return the exercise of a number.

    Raises
    ------
    ValueError
        There is no such exercise.
    """
    found = {one.number: one for one in exercises()}
    return found[between("number", number, min(found), max(found), "the exercises")]
