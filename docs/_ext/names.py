"""Names of the API link to their pages: in docstrings those in single backticks, in prose and lessons also literals."""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms import SphinxTransform

from paged_numba import draw

KERNELS = Path(__file__).parents[2] / "paged_numba" / "kernels"


class NameRole(PyXRefRole):
    """A parameter, or a name of the API.

    A word that leads nowhere is taken for a parameter. A name with a dot must lead somewhere.
    """

    def process_link(self, env, refnode, has_explicit_title, title, target):
        """Return title and target as `:py:obj:` does."""
        title, target = super().process_link(env, refnode, has_explicit_title, title, target)
        refnode["refdomain"], refnode["reftype"] = "py", "obj"
        refnode["may_be_parameter"] = "." not in target
        return title, target


class LinksOfLiterals(SphinxTransform):
    """Makes the first literal of a section that is a name of the API, or the file of a kernel, a link to its page."""

    default_priority = 900

    def apply(self, **kwargs) -> None:
        """Wrap the literals of a page."""
        if self.env.docname.startswith(("api", "exercises/")):
            return  # an exercise speaks of what the learner writes
        linked = set()
        for literal in list(self.document.findall(nodes.literal)):
            target, section = _target(literal.astext(), self.env.docname == "kernels"), _section(literal)
            if target is None or section is None or (section, target) in linked:
                continue
            linked.add((section, target))
            link = addnodes.pending_xref(
                "",
                literal.deepcopy(),
                refdomain="py",
                reftype="obj",
                reftarget=target,
                refdoc=self.env.docname,
                may_be_parameter=True,
                **{"py:module": "paged_numba"},
            )
            literal.replace_self(link)


def _target(text: str, kernels_first: bool) -> str | None:
    """Return the name that a literal may stand for, without the package: most literals turn out to be no name.

    Kernels and operations have some names in common; one page is about kernels.
    """
    found = re.fullmatch(r"([A-Za-z_][\w.]*)(?:\(.*\))?|(paged_numba/kernels/\w+\.py)", text)
    if found is None:
        return None
    name = (found[1] or found[2]).removeprefix("pn.").removeprefix("paged_numba.")
    if name.partition(".")[0] in draw.__all__:
        return f"draw.{name}"
    kernel = name.removeprefix("paged_numba/kernels/").removesuffix(".py").removesuffix("_kernel")
    is_kernel = kernels_first or name != kernel or kernel.startswith(("attention_", "merge_splits"))
    if not is_kernel or not (KERNELS / f"{kernel}.py").exists():
        return name
    return f"kernels.{kernel}_kernel" + ("_for" if kernel == "attention_tile" else "")


def _section(literal: nodes.literal) -> int | None:
    """Return the section of a literal, or None where a link has no place: in a heading, a term or another link."""
    box = literal.parent
    while not isinstance(box, nodes.section | nodes.document):
        if isinstance(
            box, nodes.title | nodes.term | nodes.reference | addnodes.pending_xref | addnodes.desc
        ):
            return None
        box = box.parent
    return id(box)


def leave_parameter(app, env, node, contnode) -> nodes.Node | None:
    """Return the text of a parameter."""
    return contnode if node.get("may_be_parameter") else None


def skip_alias(app, what, name, obj, skip, options) -> bool | None:
    """Leave out the fields of named tuples: the docstring of the class explains them."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def describe_data(app, what, name, obj, options, lines) -> None:
    """Put in the description of a constant that stands below it, in the module that it is imported from."""
    attribute = name.rpartition(".")[2]
    for module in [name for name in sys.modules if name.startswith("paged_numba.")] if what == "data" else ():
        if vars(sys.modules[module]).get(attribute) is obj:
            found = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", attribute))
            lines[:] = found or lines


def setup(app: Sphinx):
    """Register the role, which `default_role` names, and the links of literals."""
    app.connect("autodoc-process-docstring", describe_data, priority=100)  # before numpydoc reads the lines
    app.connect("autodoc-skip-member", skip_alias)
    app.add_role("name", NameRole())
    app.add_transform(LinksOfLiterals)
    app.connect("missing-reference", leave_parameter)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
