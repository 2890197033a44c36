"""A report as self-contained HTML, for light and dark pages: what matters, the source, and the tables folded away."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby

from ..observe.code import CodeFunction
from ..observe.page_style import STYLE
from .overview import LEAST_SHARE, Overview, overview, percent
from .page import Section, headline, sections
from .queries import Queries
from .source import SOURCE_HEADER, SourceLine, source_lines

_LEGEND = (
    "The bar behind a line and the column traffic show its share of all traffic. Coloured figures mark waste: "
    "less than half of the bytes useful, or bank conflicts."
)

FEWEST_FOLDED = 3
"""Fewer lines in a row that did not run are shown, not folded."""


def page_html(report: Queries, gpu: str) -> str:
    """Return the report as one HTML element."""
    parts = [f"<style>{STYLE}</style>", *(f"<div>{escape(line)}</div>" for line in headline(report))]
    if not report.kernels:
        parts.append("<div>nothing was launched on the lockstep machine</div>")
    else:
        parts.append(_overview(overview(report, gpu)))
    parts.append(str(_Sources(report)))
    parts += [_folded(section) for section in sections(report, gpu)]
    return f'<div class="lockstep-report">{"".join(parts)}</div>'


def _overview(seen: Overview) -> str:
    """Return what matters: two bars of bytes, what bounds the launches, the costliest lines."""
    parts = []
    if seen.moved:
        rows = [
            _row(
                f"{name}",
                f"{count:,} B",
                cell=f'<td class=b><div class=amount style="width:{share:.1f}%"></div></td>',
            )
            for name, count, share in (
                ("moved", seen.moved, 100.0),
                ("least possible", seen.least, 100 * seen.least / seen.moved),
            )
        ]
        parts.append(
            f"<h3>Global memory</h3><table class=amounts>{''.join(rows)}</table><p>{escape(seen.traffic)}</p>"
        )
    if seen.bound:
        parts.append(f"<p>{escape(seen.bound)}</p>")
    if seen.lines:
        rows = [
            _row(
                f"{100 * share:.0f}%",
                f"{line}",
                counts,
                cell=f"<td class=l><code>{escape(line.text)}</code></td>",
            )
            for line, share, counts in seen.lines
        ]
        parts.append(
            f"<h3>Costliest lines, by their share of the {escape(seen.cost)}</h3>"
            f"<div class=wide><table>{''.join(rows)}</table></div>"
        )
    return "".join(parts)


def _row(*cells: str, cell: str) -> str:
    """Return a row of texts, flush left, and a last cell of HTML."""
    return f"<tr>{''.join(f'<td class=l>{escape(text)}</td>' for text in cells)}{cell}</tr>"


def _folded(section: Section) -> str:
    """Return a table of the report, closed."""

    def row(cells: list[str], tag: str) -> str:
        left = [i < section.left or not section.header[i] for i in range(len(cells))]
        made = (
            f"<{tag}{' class=l' if flush else ''}>{escape(cell)}</{tag}>"
            for cell, flush in zip(cells, left, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row(cells, "td") for cells in section.rows)
    note = f"<p class=q>{escape(section.note)}</p>" if section.note else ""
    table = f"<table><thead>{row(section.header, 'th')}</thead><tbody>{body}</tbody></table>"
    return f"<details><summary>{escape(section.title)}</summary><div class=wide>{table}</div>{note}</details>"


class _Sources:
    """The source of each kernel, with that of the device functions under the lines that call them."""

    def __init__(self, report: Queries) -> None:
        self._lines = {function: source_lines(report, function) for function in report.functions}
        launched = {launch["kernel"] for launch in report.kernels}
        # Kernels first. A device function that no line calls by its name comes last.
        self._order = sorted(self._lines, key=lambda function: function.name not in launched)
        self._shown: set[CodeFunction] = set()
        # The same widths in each table, so that the columns stand below one another.
        longest = max(
            (len(line.text) for lines in self._lines.values() for line in lines if line.ran), default=0
        )
        counts = "<col style=width:6em>" * (1 + len(SOURCE_HEADER))
        self._columns = (
            f"<colgroup><col style=width:4.5em><col style=width:{longest + 2}ch>{counts}</colgroup>"
        )

    def __str__(self) -> str:
        parts = [
            f"<h3>{escape(f'{function.short_file}: {function.name}')}</h3>\n"
            f"<div class=wide>{self._function(function)}</div>"
            for function in self._order
            if function not in self._shown
        ]
        return "".join(parts) + (f"<p class=q>{_LEGEND}</p>" if parts else "")

    def _function(self, function: CodeFunction) -> str:
        self._shown.add(function)
        rows = []
        for ran, group in groupby(self._lines[function], key=lambda line: line.ran):
            lines = list(group)
            if ran or len(lines) < FEWEST_FOLDED:
                rows += [_line(line) + self._callees(line) for line in lines]
            else:
                what = f"lines {lines[0].number} to {lines[-1].number}: nothing that runs"
                rows.append(_fold(what, self._table(map(_line, lines))))
        head = "".join(f"<th>{escape(name)}</th>" for name in ("traffic", *SOURCE_HEADER))
        return self._table(rows, f"<thead><tr><th></th><th class=l>source</th>{head}</tr></thead>")

    def _callees(self, line: SourceLine) -> str:
        """Return the device functions that a line is the first to call, open if they matter."""
        rows = []
        for function in line.called:
            if function not in self._shown:
                share = sum(line.share for line in self._lines[function])
                what = f"{function.name}, in {function.short_file}: {percent(share)} of the traffic, in all its calls"
                rows.append(_fold(what, self._function(function), "callee", share >= LEAST_SHARE))
        return "".join(rows)

    def _table(self, rows: Iterable[str], head: str = "") -> str:
        return f"<table class=s>{self._columns}{head}<tbody>{''.join(rows)}</tbody></table>"


def _fold(summary: str, inside: str, css: str = "", opened: bool = False) -> str:
    """Return a row that opens and closes."""
    cell = f"<details{' open' * opened}><summary>{escape(summary)}</summary>{inside}</details>"
    return f"<tr><td colspan={3 + len(SOURCE_HEADER)} class='f l {css}'>{cell}</td></tr>"


def _line(line: SourceLine) -> str:
    cells = [f"<td>{percent(line.share)}</td>" if line.share else "<td></td>"]
    for name, cell in zip(SOURCE_HEADER, line.cells, strict=True):
        cells.append(f"<td{' class=w' if _wasteful(name, cell) else ''}>{escape(cell)}</td>")
    bar = f"linear-gradient(to right,var(--bar) {100 * line.share:.1f}%,transparent 0)"
    style = f' style="background:{bar}"' if line.share else ""
    idle = "" if line.ran else " idle"
    return f"<tr><td class=n>{line.number}</td><td class='c{idle}'{style}>{escape(line.text)}</td>{''.join(cells)}</tr>"


def _wasteful(name: str, cell: str) -> bool:
    if name == "useful" and cell:
        return float(cell.rstrip("%")) < 50
    return name == "conflicts" and bool(cell)
