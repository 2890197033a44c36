"""Parts of a verdict as HTML, for notebooks, the site and a page of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ...draw.theme import themed

_VALUE = re.compile(r"[^\s,()\[\]=]+")

# The colours of Okabe and Ito, darker or lighter until they can be read. `!important` and the many resets: JupyterLab
# and documentation themes style every paragraph, list, table and `pre` of a page.
STYLE = (
    themed(
        ".pn-verdict",
        light="--ink:#1a1a1a;--quiet:#5f5f5f;--rule:#ccc;--good:#00694b;--bad:#a34700",
        dark="--ink:#e6e6e6;--quiet:#a0a0a0;--rule:#4a4a4a;--good:#5fd0a0;--bad:#e69f00",
    )
    + """
.pn-verdict{color:var(--ink);font:14px/1.5 system-ui,sans-serif;max-width:60rem;overflow-wrap:anywhere}
.pn-verdict :is(p,h1){font:inherit;color:inherit;margin:0;max-width:none}
.pn-verdict .head{font-size:1.15em;font-weight:600}
.pn-verdict .q{color:var(--quiet);font-weight:400}
.pn-verdict .t{color:var(--quiet);margin:.9em 0 .15em}
.pn-verdict ul{list-style:none!important;margin:.5em 0!important;padding:0!important}
.pn-verdict li{margin:0;padding:0 0 0 5.5em;text-indent:-5.5em;line-height:1.6}
.pn-verdict li>b{display:inline-block;width:5.5em;text-indent:0;font-weight:600;color:var(--good)}
.pn-verdict li.failed>b{color:var(--bad)}
.pn-verdict li.not,.pn-verdict li.not>b{color:var(--quiet);font-weight:400}
.pn-verdict .problem{border-left:4px solid var(--bad);margin:.9em 0;padding:.1em 0 .1em .8em}
.pn-verdict .problem .t{margin-top:0}
.pn-verdict .problem .say{font-size:1.1em}
.pn-verdict .problem pre{white-space:pre-wrap}
.pn-verdict pre{background:none!important;color:inherit;border:0;border-radius:0;box-shadow:none;margin:0;padding:0;
 overflow-x:auto;white-space:pre;overflow-wrap:normal;font:13px/1.5 ui-monospace,monospace}
.pn-verdict .beside{display:flex;flex-wrap:wrap;gap:0 3em}
.pn-verdict .beside>div{min-width:0;max-width:100%}
.pn-verdict mark{background:none;color:var(--bad);font-weight:700;text-decoration:underline;
 text-decoration-thickness:2px;text-underline-offset:3px}
.pn-verdict .wide{overflow-x:auto}
.pn-verdict table{border-collapse:collapse;border:0;margin:.2em 0;width:auto;font-size:inherit;table-layout:auto}
.pn-verdict :is(tr,tbody,thead){background:none!important;border:0}
.pn-verdict :is(th,td){border:0;padding:.1em 1.4em .1em 0;color:inherit;background:none;font-weight:400;
 text-align:left!important;vertical-align:baseline;white-space:normal;line-height:1.5;max-width:none;min-width:5em;
 overflow-wrap:normal}
.pn-verdict td:nth-child(4){min-width:12em}
.pn-verdict thead th{color:var(--quiet);border-bottom:1px solid var(--rule)}
.pn-verdict .n{text-align:right!important;min-width:0;white-space:nowrap;font-variant-numeric:tabular-nums}
.pn-verdict .bad{color:var(--bad);font-weight:700;white-space:nowrap}
.pn-verdict .good{color:var(--good);font-weight:600}
.pn-verdict details{margin:.35em 0;padding:0;border:0;background:none}
.pn-verdict :not(details)+details{margin-top:.9em}
.pn-verdict summary{cursor:pointer;color:inherit}
.pn-verdict details>p{margin:.1em 0 .5em 1.1em}
.pn-verdict :is(summary,pre):focus-visible{outline:2px solid var(--good);outline-offset:2px}
"""
)
"""CSS of an element with the class ``pn-verdict`` and what is in it."""


def titled(title: str, text: str = "") -> str:
    """Return text as it is, below a title."""
    body = f'<pre tabindex="0">{escape(text)}</pre>' if text else ""
    return (f'<p class="t">{escape(title)}</p>' if title else "") + body


def problem(title: str, text: str) -> str:
    """Return what is wrong: a sentence, or lines that stay as they are."""
    lines = (
        f'<pre tabindex="0">{escape(text)}</pre>' if "\n" in text else f'<p class="say">{escape(text)}</p>'
    )
    return f'<div class="problem"><p class="t">{escape(title)}</p>{lines}</div>'


def beside(columns: Sequence[tuple[str, str]]) -> str:
    """Return what came out beside what should, each with its title; values that differ are marked in both."""
    texts = marked(columns[0][1], columns[1][1])
    cells = (
        f'<div><p class="t">{escape(title)}</p><pre tabindex="0">{text}</pre></div>'
        for (title, _), text in zip(columns, texts, strict=True)
    )
    return f'<div class="beside">{"".join(cells)}</div>'


def marked(got: str, expected: str) -> tuple[str, str]:
    """Return two texts as HTML; values that differ by more than rounding are marked if the texts have as many.

    Examples
    --------
    >>> marked("[1, nan]", "[1, 2]")
    ('[1, <mark>nan</mark>]', '[1, <mark>2</mark>]')
    >>> marked("0.333333", "0.333334"), marked("[1]", "[1, 2]")
    (('0.333333', '0.333334'), ('[1]', '[1, 2]'))
    """
    both = [_VALUE.findall(text) for text in (got, expected)]
    if len(both[0]) != len(both[1]):
        return escape(got), escape(expected)
    differ = [not _same(*pair) for pair in zip(*both, strict=True)]
    return _with_marks(got, differ), _with_marks(expected, differ)


def _same(one: str, other: str) -> bool:
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=1e-5)
    except ValueError:
        return False


def _with_marks(text: str, differ: Iterable[bool]) -> str:
    parts, end = [], 0
    for found, differs in zip(_VALUE.finditer(text), differ, strict=True):
        value = escape(found[0])
        parts += [escape(text[end : found.start()]), f"<mark>{value}</mark>" if differs else value]
        end = found.end()
    return "".join(parts) + escape(text[end:])


def kills(found: Sequence[dict[str, Any]]) -> str:
    """Return a table of the wrong subjects of a property, and whether it finds them."""
    rows = (([kill["name"], "found" if kill["killed"] else "NOT FOUND"], kill["killed"]) for kill in found)
    return _table(["wrong one", "your property"], rows)


def limits(counted: Sequence[dict[str, Any]]) -> str:
    """Return a table of what was counted, the limits and their reasons."""
    rows = (
        (
            [one["what"], f"{one['measured']:,}", f"{one['most']:,}", one["why"]],
            one["measured"] <= one["most"],
        )
        for one in counted
    )
    return _table(["", "yours", "at most", "because"], rows, numbers=True)


def hints(sentences: Sequence[str], num_open: int) -> str:
    """Return hints that are folded away, but for the first ones."""
    return "".join(
        f"<details{' open' * (i <= num_open)}><summary>Hint {i} of {len(sentences)}</summary>"
        f"<p>{escape(hint)}</p></details>"
        for i, hint in enumerate(sentences, 1)
    )


def _table(head: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], numbers: bool = False) -> str:
    """Return a table; the second cell of a row says whether the row is good, and it and the third may be numbers."""

    def cell(tag: str, i: int, text: str, kind: str = "") -> str:
        classes = f"{'n' * (numbers and i in (1, 2))} {kind}".strip()
        return f'<{tag} class="{classes}">{escape(text)}</{tag}>'

    titles = "".join(cell("th", i, text) for i, text in enumerate(head))
    lines = (
        "".join(cell("td", i, text, ("good" if good else "bad") * (i == 1)) for i, text in enumerate(cells))
        for cells, good in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
