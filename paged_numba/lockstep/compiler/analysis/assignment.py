"""Definite assignment: which reads of a variable may come before any assignment to it.

A thread may read a variable that only other threads have assigned; a GPU then gives an undefined value. Most variables
are assigned on every path to each of their reads, which the syntax tree shows. The program keeps a mask of the lanes
that have assigned a variable only for the others.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from .scopes import Function, as_definition, defaults, own_nodes, parameters

Assigned = frozenset[str] | None
"""The names that are assigned on every path to a place; None for a place that no path reaches."""


def _meet(*paths: Assigned) -> Assigned:
    reached = [path for path in paths if path is not None]
    return frozenset.intersection(*reached) if reached else None


class Reads:
    """Finds the reads of variables in a function that some path reaches before any assignment.

    Parameters
    ----------
    function : ast.FunctionDef
    bound : set of str
        The variables of the function and of those inside it.

    Attributes
    ----------
    early : set of ast.Name
        Those reads. The target of an augmented assignment is a read too.
    falls_off : dict
        For the function and each one inside it, whether some path reaches its end.
    """

    def __init__(self, function: ast.FunctionDef, bound: set[str]) -> None:
        self.bound = bound
        self.early: set[ast.Name] = set()
        self.breaks: list[list[Assigned]] = []
        self.falls_off: dict[ast.FunctionDef, bool] = {}
        self._inside(function, frozenset())

    def _inside(self, function: ast.FunctionDef, state: Assigned) -> None:
        """Record the reads in a function that is defined where `state` is assigned."""
        outer, self.breaks = self.breaks, []
        start = (state or frozenset()) | set(parameters(function))
        self.falls_off[function] = self._block(function.body, start) is not None
        self.breaks = outer

    @property
    def names(self) -> set[str]:
        """The variables of these reads."""
        return {name.id for name in self.early}

    def _block(self, statements: Sequence[ast.stmt], state: Assigned) -> Assigned:
        """Return the names that are assigned after `statements`, which begin with `state`."""
        for statement in statements:
            method = getattr(self, f"_{type(statement).__name__}", self._other)
            state = method(statement, state)
        return state

    def _read(self, node: ast.AST | None, state: Assigned) -> Assigned:
        """Record the reads of an expression; return the names that are assigned after it."""
        if node is None or state is None:
            return state
        if isinstance(node, ast.NamedExpr):
            return self._assign(node.target, self._read(node.value, state))
        if isinstance(node, ast.Lambda):
            return self._define(node, state)
        if isinstance(node, ast.Name):
            if node.id in self.bound and node.id not in state:
                self.early.add(node)
            return state
        for child in ast.iter_child_nodes(node):
            state = self._read(child, state)
        return state

    def _assign(self, target: ast.expr, state: Assigned) -> Assigned:
        if state is None:
            return None
        if isinstance(target, ast.Name):
            return state | {target.id}
        if isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                state = self._assign(element, state)
            return state
        return self._read(target, state)

    def _define(self, node: Function, state: Assigned) -> Assigned:
        for default in defaults(node).values():
            state = self._read(default, state)
        self._inside(as_definition(node), state)
        return state

    # Statements.

    def _FunctionDef(self, node: ast.FunctionDef, state: Assigned) -> Assigned:
        return self._assign(ast.Name(node.name), self._define(node, state))

    def _Nonlocal(self, node: ast.Nonlocal, state: Assigned) -> Assigned:
        return state

    def _other(self, node: ast.stmt, state: Assigned) -> Assigned:
        return self._read(node, state)

    def _Assign(self, node: ast.Assign, state: Assigned) -> Assigned:
        state = self._read(node.value, state)
        for target in node.targets:
            state = self._assign(target, state)
        return state

    def _AugAssign(self, node: ast.AugAssign, state: Assigned) -> Assigned:
        return self._assign(node.target, self._read(node.value, self._read(node.target, state)))

    def _AnnAssign(self, node: ast.AnnAssign, state: Assigned) -> Assigned:
        return state if node.value is None else self._assign(node.target, self._read(node.value, state))

    def _If(self, node: ast.If, state: Assigned) -> Assigned:
        state = self._read(node.test, state)
        return _meet(self._block(node.body, state), self._block(node.orelse, state))

    def _Return(self, node: ast.Return, state: Assigned) -> Assigned:
        self._read(node.value, state)
        return None

    def _Raise(self, node: ast.Raise, state: Assigned) -> Assigned:
        return None

    def _Continue(self, node: ast.Continue, state: Assigned) -> Assigned:
        return None

    def _Break(self, node: ast.Break, state: Assigned) -> Assigned:
        self.breaks[-1].append(state)
        return None

    def _For(self, node: ast.For, state: Assigned) -> Assigned:
        before = self._read(node.iter, state)
        # The loop may have no iteration, and no iteration takes an assignment back.
        broken = self._loop_body(node, self._assign(node.target, before))
        return _meet(self._block(node.orelse, before), *broken)

    def _While(self, node: ast.While, state: Assigned) -> Assigned:
        before = self._read(node.test, state)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        broken = self._loop_body(node, before)
        return _meet(self._block(node.orelse, None if endless else before), *broken)

    def _loop_body(self, node: ast.For | ast.While, state: Assigned) -> list[Assigned]:
        """Return what is assigned where the body of a loop breaks."""
        self.breaks.append([])
        self._block(node.body, state)
        return self.breaks.pop()


def returns_a_value(node: ast.Return) -> bool:
    """Tell whether a ``return`` returns something other than None."""
    return node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None)


def returns_in_some_lanes(function: ast.FunctionDef, reads: Reads) -> bool:
    """Tell whether a function may return a value in some lanes and none in others."""
    valued = [returns_a_value(node) for node in own_nodes(function) if isinstance(node, ast.Return)]
    return any(valued) and (reads.falls_off.get(function, False) or not all(valued))
