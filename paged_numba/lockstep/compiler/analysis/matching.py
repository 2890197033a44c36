"""``match``, rewritten as ``if`` and ``elif``, for the patterns that Numba's CUDA target compiles.

These are values, ``|`` of them, names and ``_``. A pattern that takes its subject apart is refused, as by Numba.
"""

from __future__ import annotations

import ast
from copy import deepcopy

from ....errors import UnsupportedConstructError
from ...machine.lanes import file_name


def without_match(definition: ast.FunctionDef, file: str) -> ast.FunctionDef:
    """Return the definition of a function without ``match``; itself if it has none.

    Raises
    ------
    UnsupportedConstructError
        A pattern takes its subject apart.
    """
    if not any(isinstance(node, ast.Match) for node in ast.walk(definition)):
        return definition
    rewritten = _Rewriter(file).visit(deepcopy(definition))
    assert isinstance(rewritten, ast.FunctionDef)
    return rewritten


class _Rewriter(ast.NodeTransformer):
    """Replaces each ``match`` by an assignment of its subject and a chain of ``if``."""

    def __init__(self, file: str) -> None:
        self.file = file

    def visit_Match(self, node: ast.Match) -> list[ast.stmt]:
        name = f"_subject_{node.lineno}_{node.col_offset}"
        subject = ast.Assign([ast.Name(name, ast.Store())], node.subject)
        rest: list[ast.stmt] = []
        for case in reversed(node.cases):
            self.generic_visit(case)
            rest = self._case(case, name, rest)
        made = [subject, *rest]
        ast.copy_location(subject, node)
        for statement in made:
            _fill_locations(statement, node)
        return made

    def _case(self, case: ast.match_case, subject: str, rest: list[ast.stmt]) -> list[ast.stmt]:
        names: list[str] = []
        test = self._test(case.pattern, subject, names)
        guard = case.guard
        if guard is not None:
            for name in names:
                guard = _Renamer(name, subject).visit(guard)
            test = guard if test is None else ast.BoolOp(ast.And(), [test, guard])
        bindings: list[ast.stmt] = [
            ast.Assign([ast.Name(name, ast.Store())], ast.Name(subject, ast.Load())) for name in names
        ]
        body = [*bindings, *case.body]
        for statement in bindings:
            _fill_locations(statement, case.body[0])
        if test is None:
            reached = ast.Pass()  # so that the line of the `case` runs
            _fill_locations(reached, case.pattern)
            return [reached, *body]
        made = ast.If(test, body, rest)
        _fill_locations(made, case.pattern)
        return [made]

    def _test(self, pattern: ast.pattern, subject: str, names: list[str]) -> ast.expr | None:
        """Return the test of a pattern, None if it always holds; add the names that it binds."""
        if isinstance(pattern, ast.MatchAs):
            if pattern.name is not None:
                names.append(pattern.name)
            return None if pattern.pattern is None else self._test(pattern.pattern, subject, names)
        if isinstance(pattern, ast.MatchValue):
            return self._compared(pattern, subject, ast.Eq(), pattern.value)
        if isinstance(pattern, ast.MatchSingleton):
            return self._compared(pattern, subject, ast.Is(), ast.Constant(pattern.value))
        if isinstance(pattern, ast.MatchOr):
            tests = [self._test(part, subject, names) for part in pattern.patterns]
            given = [test for test in tests if test is not None]
            return None if len(given) < len(tests) else ast.BoolOp(ast.Or(), given)
        raise UnsupportedConstructError(
            f"the lockstep machine does not run the pattern `{ast.unparse(pattern)}`, which takes its subject apart "
            f"(Numba refuses it too): compare the parts with `if`, {file_name(self.file)}:{pattern.lineno}"
        )

    def _compared(self, pattern: ast.pattern, subject: str, operator: ast.cmpop, value: ast.expr) -> ast.expr:
        made = ast.Compare(ast.Name(subject, ast.Load()), [operator], [value])
        _fill_locations(made, pattern)
        return made


class _Renamer(ast.NodeTransformer):
    """Replaces a name by another."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.copy_location(ast.Name(self.new, node.ctx), node) if node.id == self.old else node


def _fill_locations(node: ast.AST, place: ast.AST) -> None:
    """Give nodes that have no location that of `place`."""
    for child in ast.walk(node):
        if isinstance(child, (ast.expr, ast.stmt)) and not hasattr(child, "lineno"):
            ast.copy_location(child, place)
