"""Names of the API: in single backticks, as docstrings write them, they link to their page if they have one."""

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


def skip_alias(app, what, name, obj, skip, options) -> bool | None:
    """Leave out the fields of named tuples: the docstring of the class explains them."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx):
    """Register the role, which `default_role` names."""
    app.connect("autodoc-skip-member", skip_alias)
    app.add_role("name", NameRole())
    app.connect("missing-reference", leave_parameter)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
