"""Mathematics as MathML, which browsers draw themselves: no script, no fonts, no network."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.writers.html5 import HTML5Translator


def _mathml(tex: str, *, display: bool) -> str:
    tree = tex2mathml(tex, as_block=display)
    return tree if isinstance(tree, str) else tree.toxml()


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within text."""
    translator.body.append(_mathml(node.astext(), display=False))
    raise nodes.SkipNode


def visit_displaymath(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    translator.body.append(f'<div class="math">{_mathml(node.astext(), display=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer, which `html_math_renderer` names."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
