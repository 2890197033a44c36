"""Shapes of shared and local arrays: whether Numba can compile them, which needs every length to be a literal.

To Numba, an integer in the source, a global or closure variable that is an int, and ``x.ndim`` are literals, as are
variables that hold one. An expression of literals, such as ``TILE + 1``, is not a literal.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ....errors import UnsupportedConstructError
from ...machine.lanes import file_name
from ..names import Names, decorated_function
from ..source import Source
from .scopes import arguments


class Literal(NamedTuple):
    """A value that Numba knows when it compiles.

    Attributes
    ----------
    value : object
        An int or a tuple of ints; anything else if the number is not known here.
    needs : frozenset of str
        The parameters of the device function that must be literals in its calls.
    """

    value: Any
    needs: frozenset[str] = frozenset()


_AROUND = Literal("around")
"""The value of a variable that a loop assigns to itself: its other assignments decide."""


def folded(node: ast.expr) -> Any:
    """Return the number to which Python itself folds an expression of constants, or None."""
    if isinstance(node, (ast.BinOp, ast.UnaryOp)) and all(
        isinstance(part, (ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop))
        or (isinstance(part, ast.Constant) and isinstance(part.value, (bool, int, float, complex)))
        for part in ast.walk(node)
    ):
        return _folded(ast.unparse(node))
    return None


@lru_cache(maxsize=1024)
def _folded(text: str) -> Any:
    code = compile(text, "<constant>", "eval")
    if any(instruction.opname not in _LOADS for instruction in dis.get_instructions(code)):
        return None
    value = eval(code)
    return value if isinstance(value, (bool, int, float, complex)) else None


_LOADS = frozenset(("RESUME", "LOAD_CONST", "LOAD_SMALL_INT", "RETURN_VALUE", "RETURN_CONST"))

_PLAIN = (bool, int, float, str, type(None), np.number, np.bool_)
"""Types of the constants in the conditions that Numba decides when it compiles."""

Values = frozenset[ast.expr | ast.arg | None]
"""What a variable may hold: expressions and parameters; None for anything else."""

State = dict[str, Values] | None
"""The values of each variable before a statement; None if no thread can reach the statement."""


class Shapes:
    """The literals of one function: which assignments reach each statement, and which values are literals.

    Parameters
    ----------
    names : Names
        The names outside the function.
    definition : ast.FunctionDef, optional
        The function, if it is one inside another one.
    """

    def __init__(self, names: Names, definition: ast.FunctionDef | None = None) -> None:
        self.names = names
        self.inside = definition is not None and definition is not names.source.definition
        self.before: dict[ast.stmt, State] = {}
        self.owners: dict[ast.AST, ast.stmt] = {}
        self.owned: dict[ast.stmt, list[ast.AST]] = {}
        self.active: set[ast.expr] = set()
        self.leaving: list[tuple[list[State], list[State]]] = []
        definition = definition or names.source.definition
        start: dict[str, Values] = {name: frozenset((None,)) for name in names.bound} if self.inside else {}
        start.update({argument.arg: frozenset((argument,)) for argument in arguments(definition)})
        self._run(definition.body, start)

    # Which assignments reach a statement.

    def _run(self, statements: list[ast.stmt], state: State) -> State:
        for statement in statements:
            if state is None:
                break
            state = self._step(statement, state)
        return state

    def _step(self, statement: ast.stmt, state: dict[str, Values]) -> State:
        if isinstance(statement, ast.FunctionDef):
            return {**state, statement.name: frozenset((None,))}
        blocks = [getattr(statement, part, []) for part in ("body", "orelse")]
        own = self.owned.get(statement)
        if own is None:
            own = self.owned[statement] = _own(statement)
            self.owners.update(dict.fromkeys(own, statement))
        self.before[statement] = state
        if isinstance(statement, (ast.Return, ast.Raise)):
            return None
        if isinstance(statement, (ast.Break, ast.Continue)):
            if self.leaving:
                self.leaving[-1][isinstance(statement, ast.Continue)].append(state)
            return None
        bound = {node.target.id: frozenset((None,)) for node in own if isinstance(node, ast.NamedExpr)}
        state = {**state, **bound, **_assigned(statement)}
        if isinstance(statement, ast.If):
            known = self._known(statement.test)
            body, orelse = blocks
            return _join(
                [
                    None if known is False else self._run(body, state),
                    None if known is True else self._run(orelse, state),
                ]
            )
        if isinstance(statement, (ast.For, ast.While)):
            return self._loop(statement, state)
        return state

    def _loop(self, statement: ast.For | ast.While, state: dict[str, Values]) -> State:
        head: State = state
        while True:
            self.before[statement] = head
            self.leaving.append(([], []))
            end = self._run(statement.body, head)
            breaks, continues = self.leaving.pop()
            joined = _join([head, end, *continues])
            if joined == head:
                return _join([self._run(statement.orelse, head), *breaks])
            head = joined

    def reaching(self, node: ast.Name) -> Values:
        """Return what a variable may hold where it is read."""
        state = self.before.get(self.owners[node]) if node in self.owners else None
        return (state or {}).get(node.id, frozenset((None,)))

    # Which values are literals.

    def literal(self, node: ast.expr) -> Literal | None:
        """Return the value of an expression that is a literal to Numba, else None."""
        if isinstance(node, ast.Constant):
            return Literal(node.value) if type(node.value) is int else None
        if isinstance(node, (ast.BinOp, ast.UnaryOp)):
            value = folded(node)
            return Literal(value) if type(value) is int else None
        if isinstance(node, ast.Name):
            return self._variable(node) if node.id in self.names.bound else self._outer(node)
        if isinstance(node, ast.Tuple):
            return _joined([self.literal(element) for element in node.elts])
        if isinstance(node, ast.Attribute):
            axes = node.attr == "ndim" and self.names.static(node) is None
            return Literal(ast.unparse(node)) if axes else None
        if isinstance(node, ast.Subscript):
            values, place = self.literal(node.value), self.literal(node.slice)
            if values is None or place is None or not isinstance(values.value, tuple):
                return None
            within = isinstance(place.value, int) and -len(values.value) <= place.value < len(values.value)
            return Literal(values.value[place.value] if within else None, values.needs | place.needs)
        if isinstance(node, ast.IfExp):
            # Numba drops the branch that a constant condition never takes.
            known = self._known(node.test)
            if known is not None:
                return self.literal(node.body if known else node.orelse)
            body, orelse = self.literal(node.body), self.literal(node.orelse)
            return body if body == orelse else None
        return None

    def _known(self, test: ast.expr) -> bool | None:
        """Return the value of a condition that is constant to Numba, else None."""
        if isinstance(test, ast.BoolOp):
            values = [self._known(value) for value in test.values]
            decides = isinstance(test.op, ast.Or)
            return decides if decides in values else None if None in values else not decides
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            value = self._known(test.operand)
            return None if value is None else not value
        for node in ast.walk(test):
            if isinstance(node, ast.Name):
                if node.id in self.names.bound or not isinstance(self._value(node), _PLAIN):
                    return None
            elif isinstance(node, (ast.In, ast.NotIn)) or not isinstance(
                node, (ast.Constant, ast.Compare, ast.cmpop, ast.Load)
            ):
                return None
        try:
            return bool(eval(ast.unparse(test), {"__builtins__": {}}, self.names.source.outer))
        except Exception:
            return None

    def _value(self, node: ast.Name) -> Any:
        found = self.names.static(node)
        return () if found is None else found.value

    def _outer(self, node: ast.Name) -> Literal | None:
        value = self._value(node)
        numbers = value if type(value) is tuple else (value,)
        return Literal(value) if all(type(number) is int for number in numbers) else None

    def _variable(self, node: ast.Name) -> Literal | None:
        """Return the literal that a variable holds, if every assignment that may reach `node` gives it the same one."""
        values: list[Literal | None] = []
        for value in self.reaching(node):
            if isinstance(value, ast.arg):
                values.append(None if self.inside else Literal(value.arg, frozenset((value.arg,))))
            elif value is None:
                return None
            elif value in self.active:
                values.append(_AROUND)
            else:
                self.active.add(value)
                values.append(self.literal(value))
                self.active.discard(value)
        decide = [value for value in values if value is not _AROUND]
        if not decide:
            return _AROUND if values else None
        return decide[0] if all(value == decide[0] for value in decide) else None

    def _literal_here(self, node: ast.expr) -> Literal | None:
        found = self.literal(node)
        # An argument of a kernel is never a literal; one of a device function is, if its call passes one.
        return None if found is not None and found.needs and self.names.kernel else found

    def required(self, node: ast.Call, shape: ast.expr, shared: bool) -> Literal:
        """Return the shape of a declaration.

        Raises
        ------
        UnsupportedConstructError
            Numba cannot compile it.
        """
        found = self._literal_here(shape)
        where = f"{file_name(self.names.file)}:{node.lineno}"
        if found is None:
            parts = shape.elts if isinstance(shape, ast.Tuple) else [shape]
            wrong = next((part for part in parts if self._literal_here(part) is None), shape)
            outside = all(
                self.names.path(part) is None and part.id not in self.names.bound
                for part in ast.walk(wrong)
                if isinstance(part, ast.Name)
            )
            text = ast.unparse(wrong)
            if outside:
                way = f"assign `{text}` to a name outside the kernel, as an int, and use the name"
            elif shared:
                way = "use a constant, or dynamic shared memory: shared.array(0, dtype) and shared_bytes at launch"
            else:
                way = "use a constant"
            raise UnsupportedConstructError(
                f"Numba cannot compile `{ast.unparse(node)}`: a shape must be made of integers in the source and "
                f"names of int constants, got `{text}`: {way}, {where}"
            )
        lengths = found.value if isinstance(found.value, tuple) else (found.value,)
        if any(isinstance(n, int) and n < 0 for n in lengths):
            raise UnsupportedConstructError(
                f"a shape must not be negative, got `{ast.unparse(shape)}` = {found.value}, {where}"
            )
        return found


def _own(statement: ast.stmt) -> list[ast.AST]:
    """Return the nodes of a statement, but those of the statements inside it."""
    found: list[ast.AST] = [statement]
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt):
            found += ast.walk(child)
    return found


def _assigned(statement: ast.stmt) -> dict[str, Values]:
    """Return the variables that a statement assigns, or that a loop assigns before its body, with their values."""
    pairs: list[tuple[ast.expr, ast.expr | None]] = []
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Tuple):
                values = getattr(statement.value, "elts", [None] * len(target.elts))
                pairs += zip(target.elts, values, strict=False)
            else:
                pairs.append((target, statement.value))
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        pairs.append((statement.target, statement.value))
    elif isinstance(statement, (ast.AugAssign, ast.For)):
        pairs += [(node, None) for node in ast.walk(statement.target) if isinstance(node, ast.Name)]
    return {name.id: frozenset((value,)) for name, value in pairs if isinstance(name, ast.Name)}


def _join(states: list[State]) -> State:
    found = [state for state in states if state is not None]
    if not found:
        return None
    names = {name for state in found for name in state}
    empty: Values = frozenset()
    return {name: empty.union(*(state.get(name, empty) for state in found)) for name in names}


def _joined(parts: list[Literal | None]) -> Literal | None:
    if None in parts:
        return None
    known = [part for part in parts if part is not None]
    needs = frozenset[str]().union(*(part.needs for part in known))
    return Literal(tuple(part.value for part in known), needs)


# Device functions whose parameters become lengths.


def literal_parameters(source: Source) -> frozenset[str]:
    """Return the parameters of a device function that are used as lengths of arrays, and must be literals in calls."""
    if "lengths" not in source.notes:
        source.notes["lengths"] = frozenset()  # for recursive calls
        source.notes["lengths"] = frozenset(_literal_parameters(Names(source)))
    found: frozenset[str] = source.notes["lengths"]
    return found


def _literal_parameters(names: Names) -> Iterator[str]:
    shapes = Shapes(names)
    for node in ast.walk(names.source.definition):
        if isinstance(node, ast.Call):
            for argument in lengths_of_call(node, names):
                found = shapes.literal(argument)
                if found is not None:
                    yield from found.needs


def lengths_of_call(node: ast.Call, names: Names) -> list[ast.expr]:
    """Return the arguments of a call that must be literals, since the device function uses them as lengths."""
    try:
        found = names.static(node.func)
    except UnsupportedConstructError:
        return []  # the call raises it
    if found is None:
        return []
    if found.path in ("cuda.shared.array", "cuda.local.array"):
        return [*node.args[:1], *(k.value for k in node.keywords if k.arg == "shape")][:1]
    function = decorated_function(found.value)
    if function is None:
        return []
    source = Source.of(function)
    needed = literal_parameters(source)
    passed = [*zip(source.parameters, node.args, strict=False), *((k.arg, k.value) for k in node.keywords)]
    return [value for name, value in passed if name in needed]
