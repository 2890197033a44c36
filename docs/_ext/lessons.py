"""Lessons on the site: their thumbnails, their map on the start page, and the list of those that use a name."""

import ast
import json
import re
import textwrap
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from paged_numba.draw.picture import Picture

TUTORIALS = Path(__file__).parents[2] / "tutorials"


def keep_thumbnails(block, block_vars, gallery_conf):
    """Save each picture that a cell ends with; sphinx-gallery makes the first one the lesson's thumbnail."""
    shown = block_vars["example_globals"].get("___")  # the value of the last expression that was evaluated
    if isinstance(shown, Picture) and shown is not block_vars.get("last_picture"):
        block_vars["last_picture"] = shown
        shown.save(Path(next(block_vars["image_path_iterator"])).with_suffix(".svg"))
    return ""  # the page has the picture itself, by _repr_html_


def opening(path: Path) -> tuple[str, str]:
    """Return the title of a lesson and the question that it answers."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title, question = docstring.split("\n")[0], re.search(r"\*\*(.+?)\*\*", docstring, re.S)
    if question is None:
        raise ValueError(f"{path.name} must open with a question in bold")
    return title, " ".join(question[1].split())


class LessonMap(SphinxDirective):
    """``lesson-map``: a card for each lesson, with its title and the question that it answers.

    The option ``pictures`` adds the lessons' thumbnails.
    """

    option_spec: ClassVar = {"pictures": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return the cards."""
        cards = [self.card(path) for path in sorted(TUTORIALS.glob("*.py"))]  # numbered ones first
        grid = "grid", "1 2 2 3", {"gutter": "2", "class-container": "lesson-map"}
        if Path(self.env.doc2path(self.env.docname)).suffix == ".md":
            inside = "\n".join(in_markdown(3, "grid-item-card", *card) for card in cards)
            return self.parse_text_to_nodes(in_markdown(4, *grid, inside))
        inside = "\n".join(in_rst("grid-item-card", *card) for card in cards)
        return self.parse_text_to_nodes(in_rst(*grid, inside))

    def card(self, path: Path) -> tuple[str, dict[str, str], str]:
        """Return the argument, the options and the text of a lesson's card."""
        title, question = opening(path)
        options = {"link": f"/lessons/{path.stem}", "link-type": "doc"}
        pictures = Path(self.env.srcdir, "lessons", "images", "thumb").glob(f"sphx_glr_{path.stem}_thumb.*")
        for picture in pictures if "pictures" in self.options else ():
            options |= {"img-top": f"/lessons/images/thumb/{picture.name}", "img-alt": ""}
        return title, options, question


def in_markdown(colons: int, name: str, argument: str, options: dict[str, str], text: str) -> str:
    """Return a directive as MyST writes it."""
    fence = ":" * colons
    lines = [f"{fence}{{{name}}} {argument}", *(f":{key}: {value}" for key, value in options.items())]
    return "\n".join([*lines, "", text, fence, ""])


def in_rst(name: str, argument: str, options: dict[str, str], text: str) -> str:
    """Return a directive as reStructuredText writes it."""
    lines = [f":{key}: {value}" for key, value in options.items()]
    return f".. {name}:: {argument}\n" + textwrap.indent("\n".join([*lines, "", text, ""]), "   ")


class LessonsThatUse(SphinxDirective):
    """``lessons-that-use``: a list of the lessons whose code has one of the full names that are given."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return a paragraph with links, or nothing if no lesson uses the names."""
        config = self.config.sphinx_gallery_conf
        record = Path(self.env.srcdir, config["backreferences_dir"], "backreferences_all.json")
        users = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        names = self.arguments[0].split()
        found = {
            Path(file).stem: title
            for name in names
            for file, _, folder, _, title in users.get(name, ())
            if Path(folder).name == "lessons"  # without the exhibits of the museum
        }
        if not found:
            return []
        items = [f"* :doc:`{title} </lessons/{stem}>`" for stem, title in sorted(found.items())]
        return self.parse_text_to_nodes("\n".join([".. rubric:: Lessons that use it", "", *items]))


class LinksToLessons(SphinxTransform):
    """Makes links to the script of a lesson or exhibit, which work in the repository, links to its page."""

    default_priority = 900

    def apply(self, **kwargs) -> None:
        """Replace the links of a page."""
        for link in list(self.document.findall(addnodes.download_reference)):
            found = re.fullmatch(r"(?:\.\./)+tutorials/(museum/)?(\w+)\.py", link["reftarget"])
            if found:
                page = addnodes.pending_xref(
                    "",
                    *link.children,
                    refdomain="std",
                    reftype="doc",
                    reftarget=f"/{found[1] or 'lessons/'}{found[2]}",
                    refdoc=self.env.docname,
                    refexplicit=True,
                    refwarn=True,
                )
                link.replace_self(page)


def setup(app: Sphinx):
    """Register the directives and the transform."""
    app.add_transform(LinksToLessons)
    app.add_directive("lesson-map", LessonMap)
    app.add_directive("lessons-that-use", LessonsThatUse)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
