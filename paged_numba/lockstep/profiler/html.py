"""A report as self-contained HTML for light and dark mode."""

from __future__ import annotations

from html import escape

from .page import SOURCE_HEADER, Section, headline, sections, source_lines
from .queries import Queries

# The blue of the Okabe-Ito palette: readers with colour-vision deficiency can tell it from grey.
_STYLE = """
.lockstep-report{--ink:#1a1a1a;--quiet:#666;--rule:#ccc;--bar:#0072b233;--paper:#fff;--warn:#a34700;
 color:var(--ink);background:var(--paper);font:14px/1.4 system-ui,sans-serif;padding:1em;max-width:110em}
@media (prefers-color-scheme:dark){.lockstep-report{--ink:#e6e6e6;--quiet:#999;--rule:#444;--bar:#56b4e944;
 --paper:#161616;--warn:#e69f00}}
.lockstep-report h3{font-size:1em;margin:1.4em 0 .3em}
.lockstep-report table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0}
.lockstep-report th,.lockstep-report td{padding:.1em .7em .1em 0;text-align:right;border:0;
 background:none;color:inherit;white-space:nowrap}
.lockstep-report th{font-weight:600;color:var(--quiet);border-bottom:1px solid var(--rule)}
.lockstep-report .l{text-align:left}
.lockstep-report p{margin:.3em 0;color:var(--quiet);max-width:60em}
.lockstep-report .wide{overflow-x:auto}
.lockstep-report .s td{font:12px/1.45 ui-monospace,monospace;padding-right:1em}
.lockstep-report .s td.c{white-space:pre;text-align:left}
.lockstep-report .s td.n{color:var(--quiet)}
.lockstep-report .w{color:var(--warn);font-weight:600}
"""

_LEGEND = (
    "The bar behind the sectors shows the line's share of all sectors. Coloured figures mark waste: "
    "less than half of the bytes useful, or bank conflicts."
)


def page_html(report: Queries, gpu: str) -> str:
    """Return the report as one HTML element."""
    parts = [f"<style>{_STYLE}</style>", *(f"<div>{escape(line)}</div>" for line in headline(report))]
    if not report.kernels:
        parts.append("<div>nothing was launched on the lockstep machine</div>")
    parts += [_table(section) for section in sections(report, gpu)]
    parts += [_source(report, place) for place in range(len(report.functions))]
    return f'<div class="lockstep-report">{"".join(parts)}</div>'


def _table(section: Section) -> str:
    def row(cells: list[str], tag: str) -> str:
        left = [i < section.left or not section.header[i] for i in range(len(cells))]
        made = (
            f"<{tag}{' class=l' if flush else ''}>{escape(cell)}</{tag}>"
            for cell, flush in zip(cells, left, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row(cells, "td") for cells in section.rows)
    note = f"<p>{escape(section.note)}</p>" if section.note else ""
    rows = row(section.header, "th") + body
    return f"<h3>{escape(section.title)}</h3><div class=wide><table>{rows}</table></div>{note}"


def _source(report: Queries, place: int) -> str:
    function = report.functions[place]
    head = "".join(f"<th>{escape(name)}</th>" for name in ["line", *SOURCE_HEADER])
    rows = []
    for line in source_lines(report, function):
        cells = []
        for name, cell in zip(SOURCE_HEADER, line.cells, strict=True):
            bar = f"linear-gradient(to left,var(--bar) {100 * line.share:.1f}%,transparent 0)"
            style = f' style="background:{bar}"' if name == "sectors" and cell else ""
            warn = " class=w" if _wasteful(name, cell) else ""
            cells.append(f"<td{warn}{style}>{escape(cell)}</td>")
        rows.append(
            f"<tr><td class=n>{line.number}</td>{''.join(cells)}<td class=c>{escape(line.text)}</td></tr>"
        )
    title = escape(f"{function.short_file}: {function.name}")
    head += "<th class=l>source</th>"
    note = f"<p>{_LEGEND}</p>" if place == 0 else ""
    return (
        f"<h3>{title}</h3><div class=wide><table class=s><tr>{head}</tr>{''.join(rows)}</table></div>{note}"
    )


def _wasteful(name: str, cell: str) -> bool:
    if name == "useful" and cell:
        return float(cell.rstrip("%")) < 50
    return name == "conflicts" and bool(cell)
