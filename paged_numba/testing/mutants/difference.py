"""`Difference`: what is wrong in a mutant, as its changed lines or, for a class, as its source."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from ...draw.picture import Picture
from ...draw.svg import escape
from . import plans
from .installing import real_class
from .kernel_mutant import KernelMutant, changed_source
from .plans import PlanMutant

CONTEXT = 2
"""Unchanged lines that are shown before and after those that changed."""

_STYLE = (
    ".pn-difference{margin:.5em 0}.pn-difference pre{margin:0;padding:.5em 0;overflow-x:auto;background:none;"
    "color:inherit;border:1px solid rgba(128,128,128,.5);font-size:.8rem;line-height:1.5}"
    ".pn-difference pre>span{display:block;width:max-content;min-width:100%;box-sizing:border-box;padding:0 .75em}"
    ".pn-difference .gone{background:rgba(215,60,60,.16)}.pn-difference .new{background:rgba(40,160,80,.18)}"
    ".pn-difference b{font-weight:700;text-decoration:underline;text-underline-offset:.2em}"
)


@dataclass(frozen=True)
class Difference:
    """The wrong lines of a mutant. A notebook shows it if it is the last value of a cell.

    Attributes
    ----------
    title : str
        What is wrong, and in what.
    lines : tuple of (str, str)
        A mark, and the line: ``-`` for a line of the right code, ``+`` for a line that stands in its place, a space for
        a line near them, ``...`` where lines are left out. Lines of a class have no mark.
    """

    title: str
    lines: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, mutant: KernelMutant | PlanMutant | type) -> Difference:
        """Return what is wrong in a mutant: the changed lines of a kernel, or the source of a class or a change.

        Parameters
        ----------
        mutant : KernelMutant, PlanMutant or type

        Raises
        ------
        TypeError
            It is none of these, or a class that is not derived from one that has mutants.
        """
        if isinstance(mutant, KernelMutant):
            right = inspect.getsource(importlib.import_module(f"paged_numba.kernels.{mutant.module}"))
            return cls(f"{mutant.module}: {mutant.name}", tuple(_changes(right, changed_source(mutant))))
        if isinstance(mutant, PlanMutant):
            title, source = (
                f"{mutant.module.__name__.split('.')[-1]}.{mutant.function}: {mutant.name}",
                _plan_source(mutant),
            )
        else:
            real = real_class(mutant)
            title = f"{mutant.__name__}: a {real.__name__} with one mistake"
            source = inspect.getsource(mutant)
            if rewritten := _rewritten(mutant):
                return cls(title, tuple(rewritten))
        return cls(title, tuple(("", line) for line in source.rstrip().splitlines()))

    def __str__(self) -> str:
        return "\n".join([self.title, *(_marked(mark, line).rstrip() for mark, line in self.lines)])

    def _repr_html_(self) -> str:
        """Return the lines as a figure; those that changed have a mark, and a tint behind them."""
        rows = "".join(self._rows())
        return (
            f'<figure class="pn-difference"><style>{_STYLE}</style><pre tabindex="0">{rows}</pre>'
            f"<figcaption>{escape(self.title)}</figcaption></figure>"
        )

    def _rows(self) -> Iterable[str]:
        for place, (mark, line) in enumerate(self.lines):
            kind = {"-": ' class="gone"', "+": ' class="new"'}.get(mark, "")
            yield f"<span{kind}>{_marked(mark, self._emphasised(place, mark, line)) or ' '}</span>"

    def _emphasised(self, place: int, mark: str, line: str) -> str:
        """Return a line as HTML; what differs from the line in whose place it stands is bold."""
        other = {"-": place + 1, "+": place - 1}.get(mark, -1)
        if not 0 <= other < len(self.lines) or {mark, self.lines[other][0]} != {"-", "+"}:
            return escape(line)
        beside = self.lines[other][1]
        start = _alike(line, beside)
        stop = len(line) - _alike(line[start:][::-1], beside[start:][::-1])
        return f"{escape(line[:start])}<b>{escape(line[start:stop])}</b>{escape(line[stop:])}"

    def show(self) -> Difference:
        """Print the lines or, on a page or in a notebook, only return them to be shown. Put it last in a cell."""
        if not Picture.is_inline():
            print(self)
        return self


def _alike(text: str, other: str) -> int:
    """Return how many characters two texts share at their start."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((place for place, (one, two) in pairs if one != two), min(len(text), len(other)))


def _marked(mark: str, line: str) -> str:
    return f"{mark} {line}" if mark else line


def _changes(right: str, wrong: str) -> list[tuple[str, str]]:
    """Return the lines that changed, each with its mark, and their context, without the indent that all share."""
    lines = difflib.unified_diff(right.splitlines(), wrong.splitlines(), n=CONTEXT, lineterm="")
    found = [line for line in lines if not line.startswith(("---", "+++"))][1:]
    marks = ["..." if line.startswith("@@") else line[0] for line in found]
    texts = ["" if mark == "..." else line[1:] for mark, line in zip(marks, found, strict=True)]
    marked = [*zip(marks, textwrap.dedent("\n".join(texts)).split("\n"), strict=True)]
    kept = [place for place, line in enumerate(marked) if line != (" ", "")]
    return marked[kept[0] : kept[-1] + 1]


def _rewritten(mutant: type) -> list[tuple[str, str]]:
    """Return the marked lines of a class whose only method replaces another without calling it; else nothing."""
    methods = [method for method in vars(mutant).values() if inspect.isfunction(method)]
    if len(methods) != 1 or "super()" in (wrong := inspect.getsource(methods[0])):
        return []
    right = inspect.getsource(getattr(mutant.__mro__[1], methods[0].__name__))
    (definition,) = ast.parse(textwrap.dedent(right)).body
    if isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition):
        docstring = definition.body[0]
        lines = right.splitlines()
        del lines[docstring.lineno - 1 : docstring.end_lineno]
        right = "\n".join(lines)
    head = inspect.getsource(mutant).partition(wrong)[0]
    compared = difflib.ndiff(right.splitlines(), wrong.splitlines())
    marked = [(line[0], line[2:]) for line in compared if line[0] != "?"]
    return [(" ", line) for line in head.splitlines()] + marked


def _plan_source(mutant: PlanMutant) -> str:
    """Return the function that changes the result of a plan."""
    source = inspect.getsource(plans)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == PlanMutant.__name__:
            texts = [part.value for part in node.args if isinstance(part, ast.Constant)]
            if texts[:2] == [mutant.name, mutant.function]:
                change = node.args[2]
                return textwrap.dedent(
                    " " * change.col_offset + (ast.get_source_segment(source, change) or "")
                )
    raise ValueError(f"mutant must be one of PLAN_MUTANTS, got {mutant}")
