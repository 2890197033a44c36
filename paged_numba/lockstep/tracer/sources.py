"""Source text of what a line does: its statement, and the subscripts by which it accesses arrays."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from typing import Any

from ..observe.code import CodeFunction


class SourceText:
    """The syntax of one function, by line.

    Parameters
    ----------
    function : CodeFunction

    Attributes
    ----------
    docstring : tuple of int or None
        First and last line of the docstring.
    """

    def __init__(self, function: CodeFunction) -> None:
        self.docstring: tuple[int, int] | None = None
        self._statements: dict[int, ast.stmt] = {}
        text = textwrap.dedent("\n".join(function.source))
        try:
            definition: Any = ast.parse(text).body[0]
        except (
            SyntaxError,
            IndexError,
        ):  # such as a line of a string that begins further left than the function
            return
        ast.increment_lineno(definition, function.first - 1)
        first = definition.body[0]
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            self.docstring = first.lineno, first.end_lineno or first.lineno
        for node in ast.walk(definition):
            if isinstance(node, ast.stmt):
                self._statements.setdefault(node.lineno, node)

    def kind(self, line: int) -> str:
        """Return the kind of the statement that begins in a line, such as ``while``; empty if there is none."""
        return type(self._statements[line]).__name__.lower() if line in self._statements else ""

    def subscript(self, line: int, array: str, access: str, nth: int) -> str:
        """Return the expression, such as ``tile[row, 0]``, of a line's nth access to an array.

        Empty if that cannot be told, as with a view of another name.

        Parameters
        ----------
        line : int
        array : str
            The array's name.
        access : {"load", "store", "atomic"}
        nth : int
            How many accesses of this kind to this array the statement has made before.
        """
        statement = self._statements.get(line)
        if statement is None:
            return ""
        found = [text for name, way, text in _subscripts(statement) if (name, way) == (array, access)]
        if len(set(found)) == 1:
            return found[0]
        # A part that is skipped would shift the count.
        skips = any(isinstance(node, (ast.BoolOp, ast.IfExp)) for node in ast.walk(statement))
        return "" if skips or nth >= len(found) else found[nth]


def _subscripts(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yield array, kind and text of a statement's accesses as they happen, without those of statements inside it."""
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
        yield _root(node.target), "load", ast.unparse(node.target)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt):
            yield from _subscripts(child)
    if isinstance(node, ast.Subscript):
        yield _root(node), "load" if isinstance(node.ctx, ast.Load) else "store", ast.unparse(node)
    if isinstance(node, ast.Call) and "atomic" in ast.unparse(node.func) and len(node.args) > 1:
        array, index = node.args[0], ast.unparse(node.args[1])
        yield _root(array), "atomic", f"{ast.unparse(array)}[{index.removeprefix('(').removesuffix(')')}]"


def _root(node: ast.expr) -> str:
    """Return the name of the array that a chain of subscripts begins with."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
