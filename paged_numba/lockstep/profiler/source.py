"""Source of the kernels and device functions in a report, with the counts next to the lines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from ..observe.code import CodeFunction
from .counts import Traffic, Work
from .overview import shares_of_traffic
from .queries import Queries

SOURCE_HEADER = ["requests", "sectors", "/req", "useful", "wavefr.", "conflicts", "lanes", "flops"]


class SourceLine(NamedTuple):
    """A source line with its counts.

    Attributes
    ----------
    number : int
    text : str
    cells : list of str
        A count for each column of `SOURCE_HEADER`; empty if the line did not run, or begins no statement.
    share : float
        The line's share of the report's traffic, 0 to 1.
    ran : bool
        Whether the line belongs to a statement that ran.
    called : list of CodeFunction
        The device functions of the report that the line calls.
    """

    number: int
    text: str
    cells: list[str]
    share: float
    ran: bool
    called: list[CodeFunction]


def source_text(report: Queries) -> str:
    """Return the source with its counts as text."""
    parts = []
    for function in report.functions:
        lines = source_lines(report, function)
        rows = [[str(line.number), *line.cells, line.text] for line in lines]
        header = ["line", *SOURCE_HEADER, "source"]
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header) - 1)]
        text = [f"{function.short_file}: {function.name}"]
        for row in [header, *rows]:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
            text.append(f"{'  '.join(cells)} | {row[-1]}".rstrip())
        parts.append("\n".join(text))
    return "\n\n".join(parts)


def source_lines(report: Queries, function: CodeFunction) -> list[SourceLine]:
    """Return the lines of a function with their counts; of its docstring, the first line only."""
    by_number = {line.number: line for line in report.code_lines if line.function is function}
    indent = min((len(text) - len(text.lstrip()) for text in function.source if text.strip()), default=0)
    tree = _parsed(function)
    docstring, spans = _docstring_lines(tree), dict(_spans(tree))
    first_lines = {number: first for first, last in spans.items() for number in range(first, last + 1)}
    calls = _calls(report, function, tree)
    _, shares = shares_of_traffic(report)
    made = []
    for place, text in enumerate(function.source):
        number = function.first + place
        if place + 1 in docstring:
            continue
        cells, share = [""] * len(SOURCE_HEADER), 0.0
        if number in by_number:
            line = by_number[number]
            moved, shared = report.memory("global", line=line), report.memory("shared", line=line)
            cells, share = _cells(moved, shared, report.work(line=line)), shares.get(line, 0.0)
        # A statement's further lines ran if its first line did.
        ran = function.first - 1 + first_lines.get(place + 1, place + 1) in by_number
        made.append(
            SourceLine(number, text[indent:], cells, share, ran, calls.get(place + 1, []) if ran else [])
        )
    return made


def _parsed(function: CodeFunction) -> ast.stmt:
    """Return the syntax tree of a function; its first line has the number 1."""
    text = "\n".join(function.source)
    if not text[0].isspace():
        return ast.parse(text).body[0]
    # Not dedented: lines of a string or within parentheses may stand further left than the function.
    block = ast.parse(f"if True:\n{text}").body[0]
    assert isinstance(block, ast.If)
    return ast.increment_lineno(block.body[0], -1)


def _docstring_lines(tree: ast.stmt) -> range:
    """Return the lines of the docstring that are left out: all but the first."""
    if not isinstance(tree, ast.FunctionDef) or ast.get_docstring(tree) is None:
        return range(0)
    return range(tree.body[0].lineno + 1, (tree.body[0].end_lineno or 0) + 1)


def _spans(tree: ast.stmt) -> Iterator[tuple[int, int]]:
    """Yield the first and last line of each statement; of one with a body, of its header."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node is not tree:
            body = getattr(node, "body", None)
            last = node.end_lineno if not body else max(node.lineno, body[0].lineno - 1)
            yield node.lineno, last or node.lineno


def _calls(report: Queries, caller: CodeFunction, tree: ast.stmt) -> dict[int, list[CodeFunction]]:
    """Return, by line, the device functions of the report whose names the line calls.

    Of several functions with one name, it is the one in the caller's file.
    """
    launched = {launch["kernel"] for launch in report.kernels}
    named: dict[str, CodeFunction] = {}
    for function in report.functions:
        if function.name not in launched and (function.name not in named or function.file == caller.file):
            named[function.name] = function
    found: dict[int, list[CodeFunction]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
            if name in named:
                found.setdefault(node.lineno, []).append(named[name])
    return found


def _cells(moved: Traffic, shared: Traffic, work: Work) -> list[str]:
    return [
        _nonzero(moved.requests),
        _nonzero(moved.sectors),
        f"{moved.sectors_per_request:.1f}" if moved.requests else "",
        f"{moved.efficiency:.0f}%" if moved.requests else "",
        _nonzero(shared.wavefronts),
        _nonzero(shared.bank_conflicts),
        f"{work.active_lanes:.0f}%" if work.warps else "",
        _nonzero(sum(work.flops.values())),
    ]


def _nonzero(count: int) -> str:
    return f"{count:,}" if count else ""
