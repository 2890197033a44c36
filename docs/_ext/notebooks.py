"""Notebooks of lessons: sphinx-gallery converts headings and formulas; the rest is converted here."""

import re
import textwrap
from html import escape

from sphinx_gallery import notebook

ROLE = re.compile(r":(?P<role>[\w:]+):`(?P<text>[^`<]+?)(?:\s+<[^`]*>)?`")
LITERAL = re.compile(r"^(?P<text>(?!\.\. ).*\S)::$", re.M)
FOLD = re.compile(r"^\.\. dropdown:: (?P<title>.+)\n(?P<body>(?:\n|[ ]{3}.*\n?)+)", re.M)


def _role(found: re.Match) -> str:
    if found["role"] == "math":
        return found[0]  # sphinx-gallery converts it
    text = " ".join(found["text"].split()).removeprefix("~")
    return f"*{text}*" if found["role"] in ("term", "doc") else f"`{text}`"


def _fold(found: re.Match) -> str:
    title = re.sub(r"``(.+?)``", r"<code>\1</code>", escape(found["title"], quote=False))
    body = textwrap.dedent(found["body"]).strip()
    # Without the blank lines, Markdown inside and after an HTML element is shown as it is written.
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>\n\n"


def prepared(text: str) -> str:
    """Return text of a lesson in which the rest of sphinx-gallery's conversion to Markdown leaves no markup."""
    text = LITERAL.sub(r"\g<text>:\n\n.. code-block:: text", text)
    return re.sub(r"``([^`]+)``", r"`\1`", FOLD.sub(_fold, ROLE.sub(_role, text)))


def setup(app):
    """Wrap sphinx-gallery's conversion; it offers no hook."""
    converted = notebook.rst2md
    notebook.rst2md = lambda text, *args, **kwargs: converted(prepared(text), *args, **kwargs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
