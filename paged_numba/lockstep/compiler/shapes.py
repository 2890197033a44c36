"""Shapes of shared and local arrays: whether Numba can compile them, which needs every length to be a literal.

To Numba, an integer in the source, a global or closure variable that is an int, and ``x.ndim`` are literals, as are
variables that hold one. An expression of literals, such as ``TILE + 1``, is none.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from ...errors import UnsupportedConstructError
from ..machine.lanes import file_name
from .names import Names, decorated_function
from .source import Source

class Literal(NamedTuple):
    """A value that Numba knows when it compiles.

    Attributes
    ----------
    value : object
        An int or a tuple of ints, or anything else where the number is not known here.
    needs : frozenset of str
        The parameters of the device function that must be literals in its calls.
    """

    value: Any
    needs: frozenset[str] = frozenset()


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

Path = tuple[tuple[ast.AST, str], ...]
"""The blocks around a statement, outermost first: each a compound statement and the name of its part."""


class Shapes:
    """The literals of one function.

    Parameters
    ----------
    names : Names
        The names outside the function.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.bindings: list[tuple[str, Path, tuple[int, int], ast.expr | None]] = []
        self.paths: dict[ast.AST, Path] = {}
        self._walk(names.source.definition.body, ())

    def _walk(self, statements: list[ast.stmt], path: Path) -> None:
        for statement in statements:
            blocks: list[tuple[str, list[ast.stmt]]] = [
                (part, getattr(statement, part))
                for part in ("body", "orelse", "finalbody")
                if isinstance(getattr(statement, part, None), list)
            ]
            inside = {node for _, block in blocks for child in block for node in ast.walk(child)}
            for node in ast.walk(statement):
                if node not in inside:
                    self.paths[node] = path
                    if isinstance(node, ast.NamedExpr):
                        self.bindings.append((node.target.id, path, (node.lineno, node.col_offset), None))
            self._bind(statement, path)
            for part, block in blocks:
                self._walk(block, (*path, (statement, part)))

    def _bind(self, statement: ast.stmt, path: Path) -> None:
        place = statement.lineno, statement.col_offset
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                pairs: list[tuple[ast.expr, ast.expr | None]] = [(target, statement.value)]
                if isinstance(target, ast.Tuple):
                    values = getattr(statement.value, "elts", [None] * len(target.elts))
                    pairs = list(zip(target.elts, values, strict=False))
                for name, value in pairs:
                    if isinstance(name, ast.Name):
                        self.bindings.append((name.id, path, place, value))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.value is not None:
                self.bindings.append((statement.target.id, path, place, statement.value))
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            self.bindings.append((statement.target.id, path, place, None))
        elif isinstance(statement, ast.For):
            inner = (*path, (statement, "body"))
            for node in ast.walk(statement.target):
                if isinstance(node, ast.Name):
                    self.bindings.append((node.id, inner, place, None))

    def literal(self, node: ast.expr) -> Literal | None:
        """Return the value of an expression that Numba takes for a literal, else None."""
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
            known = node.attr == "ndim" and self.names.static(node) is None
            return Literal(ast.unparse(node)) if known else None
        if isinstance(node, ast.Subscript):
            values, place = self.literal(node.value), self.literal(node.slice)
            if values is None or place is None or not isinstance(values.value, tuple):
                return None
            within = isinstance(place.value, int) and -len(values.value) <= place.value < len(values.value)
            return Literal(values.value[place.value] if within else None, values.needs | place.needs)
        if isinstance(node, ast.IfExp):
            body, orelse = self.literal(node.body), self.literal(node.orelse)
            if body is None or orelse is None:
                return None
            static = not any(isinstance(n, ast.Name) and n.id in self.names.bound for n in ast.walk(node.test))
            # Numba drops the branch that a constant condition never takes.
            return body if body == orelse else Literal(None, body.needs | orelse.needs) if static else None
        return None

    def _outer(self, node: ast.Name) -> Literal | None:
        found = self.names.static(node)
        value = None if found is None else found.value
        numbers = value if type(value) is tuple else (value,)
        return Literal(value) if all(type(number) is int for number in numbers) else None

    def _variable(self, node: ast.Name) -> Literal | None:
        """Return the literal that a variable holds, if every assignment that may reach `node` gives it the same one."""
        at, here = (node.lineno, node.col_offset), self.paths.get(node, ())
        values: list[Literal | None] = []
        if node.id in self.names.source.parameters:
            values.append(Literal(node.id, frozenset((node.id,))))
        loops = [block for block in here if isinstance(block[0], (ast.For, ast.While))]
        for name, path, place, value in self.bindings:
            if name != node.id:
                continue
            after = place >= at
            if after and not any(block in path for block in loops):
                continue
            apart = any(
                mine[0] is other[0] and mine[1] != other[1] for mine, other in zip(here, path, strict=False)
            )
            if apart and not any(block in path for block in loops):
                continue
            if not after and path == here[: len(path)]:
                values.clear()
            cyclic = value is not None and any(
                isinstance(part, ast.Name) and part.id == name for part in ast.walk(value)
            )
            values.append(None if value is None or cyclic else self.literal(value))
        first = values[0] if values else None
        return first if all(value == first for value in values) else None

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
            outside = not any(
                isinstance(part, ast.Name)
                and (part.id in self.names.bound or (self.names.static(part) or _NOTHING).path is not None)
                for part in ast.walk(wrong)
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


class _Nothing(NamedTuple):
    path: None = None


_NOTHING = _Nothing()


def _joined(parts: list[Literal | None]) -> Literal | None:
    if None in parts:
        return None
    known = [part for part in parts if part is not None]
    needs = frozenset[str]().union(*(part.needs for part in known))
    return Literal(tuple(part.value for part in known), needs)


# Device functions whose parameters become lengths.


def literal_parameters(source: Source) -> frozenset[str]:
    """Return the parameters of a device function that become lengths of arrays, and must be literals in its calls."""
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
    """Return the arguments of a call that must be literals."""
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

