"""The default role: a name in single backticks, as docstrings write it, links to its page if it has one."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole


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


def leave_parameter(app, env, node, contnode) -> nodes.Node | None:
    """Return the text of a parameter."""
    return contnode if node.get("may_be_parameter") else None


def setup(app: Sphinx):
    """Register the role, which `default_role` names."""
    app.add_role("name", NameRole())
    app.connect("missing-reference", leave_parameter)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
