"""The bug museum on the site: its table of exhibits, read from the scripts."""

import ast
import re
import textwrap
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MUSEUM = Path(__file__).parents[2] / "tutorials" / "museum"


def opening(path: Path) -> tuple[str, str, dict[str, str]]:
    """Return the title of an exhibit, what went wrong, and by name its fields."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title, wrong = docstring.split("\n")[0], re.search(r"\*\*(.+?)\*\*", docstring, re.S)
    found = re.findall(r"^:([\w ]+): (.+(?:\n[ ]+.+)*)", docstring, re.M)
    fields = {name: " ".join(text.split()) for name, text in found}
    if wrong is None or list(fields) != ["Reported", "Caught by", "Its message"]:
        raise ValueError(
            f"{path.name} must open with what went wrong, in bold, and three fields, got {fields}"
        )
    return title, " ".join(wrong[1].split()), fields


class MuseumTable(SphinxDirective):
    """``museum-table``: a row for each exhibit: what went wrong, where it was reported, and what catches it."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = [("Exhibit", "What went wrong", "Reported", "Caught by")]
        for path in sorted(MUSEUM.glob("[0-9][0-9]_*.py")):
            title, wrong, fields = opening(path)
            rows.append(
                (f":doc:`{title} </museum/{path.stem}>`", wrong, fields["Reported"], fields["Caught by"])
            )
        cells = "\n".join(
            f"{'*' if first else ' '} - {cell}"
            for row in rows
            for first, cell in zip((1, 0, 0, 0), row, strict=True)
        )
        table = ".. list-table::\n   :header-rows: 1\n   :class: museum-table\n\n" + textwrap.indent(
            cells, "   "
        )
        return self.parse_text_to_nodes(table)


def setup(app: Sphinx):
    """Register the directive."""
    app.add_directive("museum-table", MuseumTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
