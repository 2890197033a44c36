"""Expressions of a kernel, translated into Python expressions over lane values.

An operator becomes a call: ``a + b`` becomes ``add(v_a, v_b)``, ``x[i]`` becomes ``load(_m, v_x, v_i)``. An operand
that only some lanes evaluate, such as the right operand of ``and``, becomes a function of their mask, ``lambda _m: …``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from ..language.intrinsics import path_of
from .analysis import syntax
from .analysis.scopes import Function
from .analysis.shapes import Shapes, folded
from .functions.overloads import has_member
from .names import PLAIN_NUMBERS, Names, Static, typed

_ARITHMETIC = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.Pow: "power",
}
_BITWISE = {
    ast.BitAnd: "bit_and",
    ast.BitOr: "bit_or",
    ast.BitXor: "bit_xor",
    ast.LShift: "lshift",
    ast.RShift: "rshift",
}
_CHECKED = {ast.FloorDiv: "floordiv", ast.Mod: "mod"}
"""Operators that check the active lanes for a zero divisor."""

_UNARY = {ast.UAdd: "positive", ast.USub: "negative", ast.Invert: "invert", ast.Not: "logical_not"}
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


def call(function: str, *arguments: str) -> str:
    """Return the text of a call."""
    return f"{function}({', '.join(arguments)})"


def _is_text(expression: str) -> bool:
    """Tell whether a lane expression is a constant text."""
    return expression[-1] in "'\""


class Expressions:
    """Translator of the expressions of one function.

    Parameters
    ----------
    names : Names
        The names outside the function.
    definition : ast.FunctionDef
        Its syntax tree.
    home_mask : callable
        Returns the name of the mask of a variable's home region.
    reads : Reads
        The reads that may come before an assignment.

    Attributes
    ----------
    unused : ast.expr or None
        The expression whose value the statement that is written does not use.
    inner_names : dict
        The names of the inner functions in the program.
    """

    debug = False
    """Whether a division by zero is an error also of floating-point numbers."""

    def __init__(self, names: Names, definition: ast.FunctionDef, home_mask: Callable[[str], str]) -> None:
        self.names = names
        self.unsupported = names.unsupported
        self.definition = definition
        self.assigned = syntax.assigned_names(definition)
        self.home_mask = home_mask
        self.early = names.reads.early
        self.questioned = names.reads.names
        self.unused: ast.expr | None = None
        self.inner_names = {inner: f"f{number}" for number, inner in enumerate(names.inner)}
        self.deferred = 0
        self.counter = 0

    @cached_property
    def shapes(self) -> Shapes:
        """The literals of the function."""
        return Shapes(self.names, self.definition)

    def text(self, node: ast.expr) -> str:
        """Return the lane expression for `node`."""
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is None:
            raise self.unsupported(node)
        return str(method(node))

    def texts(self, nodes: Sequence[ast.expr]) -> list[str]:
        """Return the lane expression for each of `nodes`."""
        return [self.text(node) for node in nodes]

    # Values.

    def _Constant(self, node: ast.Constant) -> str:
        if node.value is None or isinstance(node.value, (str, bytes)):
            return repr(node.value)
        if node.value is Ellipsis:
            return "Ellipsis"
        if isinstance(node.value, PLAIN_NUMBERS):
            return self.names.constant(typed(node.value))
        raise self.unsupported(node)

    def _Name(self, node: ast.Name) -> str:
        found = self.names.static(node)
        if found is not None:
            return self.names.text(node, found)
        for bound in self.names.bindings.get(node.id, ()) if self.names.inner else ():
            if isinstance(bound, (ast.FunctionDef, ast.Lambda)):
                self.escaping(bound)
        if node in self.early:
            return call("assigned", *self._early(node))
        return f"v_{node.id}"

    def _early(self, node: ast.Name) -> tuple[str, ...]:
        return "_rt", "_m", f"a_{node.id}", f"v_{node.id}", repr(self.names.shown(node.id))

    def escaping(self, inner: Function) -> str:
        """Return an inner function as a value; `Calls` defines it."""
        raise NotImplementedError

    def _Attribute(self, node: ast.Attribute) -> str:
        found = self.names.static(node)
        if found is not None:
            return self.names.text(node, found)
        if has_member(node.attr):
            return call("member_of", "_rt", "_m", "call_value", self.text(node.value), repr(node.attr))
        return call("attribute", "_m", self.text(node.value), repr(node.attr))

    def _Tuple(self, node: ast.Tuple) -> str:
        return call("LaneTuple", "(" + "".join(f"{self.text(element)}, " for element in node.elts) + ")")

    def _Subscript(self, node: ast.Subscript) -> str:
        found = self.names.static(node)
        if found is not None:
            return self.names.text(node, found)
        return call("load", "_m", self.text(node.value), self.index(node.slice))

    def index(self, node: ast.expr) -> str:
        """Return the lane expression for the index between brackets."""
        if isinstance(node, ast.Slice):
            bounds = (node.lower, node.upper, node.step)
            return call("slice", *("None" if bound is None else self.text(bound) for bound in bounds))
        if isinstance(node, ast.Tuple):
            return "(" + "".join(f"{self.index(element)}, " for element in node.elts) + ")"
        return self.text(node)

    def _NamedExpr(self, node: ast.NamedExpr) -> str:
        if self.deferred:
            raise self.unsupported(
                node,
                "an assignment expression after `and`, `or` or in a ternary: assign in a statement before",
            )
        name = f"v_{node.target.id}"
        kept = call("keep", "_m", self.home_mask(node.target.id), self.text(node.value), name)
        if node.target.id in self.questioned:
            lanes = f"a_{node.target.id}"
            return f"(({name} := {kept}), ({lanes} := union({lanes}, _m)))[0]"
        return f"({name} := {kept})"

    # Operators.

    def _BinOp(self, node: ast.BinOp) -> str:
        number = folded(node)
        if number is not None:
            return self.names.constant(typed(number))
        left = self.text(node.left)
        if isinstance(node.op, ast.Pow):
            exponent = node.right
            negative = isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub)
            literal = exponent.operand if isinstance(exponent, ast.UnaryOp) else exponent
            if isinstance(literal, ast.Constant) and type(literal.value) is int and literal.value < 1 << 16:
                number = -literal.value if negative else literal.value
                return self.arithmetic("power_literal", [left], str(number))
        return self.operation(node, node.op, left, self.text(node.right))

    def operation(self, node: ast.AST, op: ast.operator, left: str, right: str) -> str:
        """Return the lane expression for a binary operator on two lane expressions."""
        if self.debug and isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod)):
            right = call("nonzero", "_rt", "_m", right)
        if type(op) in _ARITHMETIC:
            return self.arithmetic(_ARITHMETIC[type(op)], [left, right])
        if type(op) in _BITWISE:
            return call(_BITWISE[type(op)], left, right)
        if type(op) in _CHECKED:
            return call(_CHECKED[type(op)], "_rt", "_m", left, right)
        raise self.unsupported(node, f"the operator of `{ast.unparse(node)}`: write loops")

    def arithmetic(self, name: str, operands: list[str], *literals: str) -> str:
        """Return the call of an arithmetic operator, with Python literals after its operands."""
        return call(name, *operands, *literals)

    def _UnaryOp(self, node: ast.UnaryOp) -> str:
        number = folded(node)
        if number is not None:
            return self.names.constant(typed(number))
        return call(_UNARY[type(node.op)], self.text(node.operand))

    def _Compare(self, node: ast.Compare) -> str:
        return self._comparisons(node, self.text(node.left), 0)

    def _comparisons(self, node: ast.Compare, left: str, place: int) -> str:
        """Return the comparisons of ``a < b < c`` from `place` on; c is evaluated only in the lanes where a < b."""
        op, right = node.ops[place], self.text(node.comparators[place])
        if place == len(node.ops) - 1:
            return self._comparison(op, left, right)
        self.counter += 1
        name = f"_w{self.counter}"
        holds = self._comparison(op, left, f"({name} := {right})")
        self.deferred += 1
        rest = self._comparisons(node, name, place + 1)
        self.deferred -= 1
        return call("logical_and", "_m", holds, f"lambda _m: {rest}")

    def _comparison(self, op: ast.cmpop, left: str, right: str) -> str:
        if isinstance(op, (ast.Is, ast.IsNot)):
            found = call("same", left, right)
            return found if isinstance(op, ast.Is) else call("logical_not", found)
        if isinstance(op, ast.In):
            return call("contains", "_m", left, right)
        if isinstance(op, ast.NotIn):
            return call("logical_not", call("contains", "_m", left, right))
        if isinstance(op, (ast.Eq, ast.NotEq)) and (_is_text(left) or _is_text(right)):
            found = call("equal_texts", left, right)
            return found if isinstance(op, ast.Eq) else call("logical_not", found)
        return f"({left} {_COMPARE[type(op)]} {right})"

    def _BoolOp(self, node: ast.BoolOp) -> str:
        name = "logical_and" if isinstance(node.op, ast.And) else "logical_or"
        result = self.text(node.values[0])
        self.deferred += 1
        for value in node.values[1:]:
            result = call(name, "_m", result, f"lambda _m: {self.text(value)}")
        self.deferred -= 1
        return result

    def _IfExp(self, node: ast.IfExp) -> str:
        self.refuse_several(node, f"`{ast.unparse(node)}`", (node.body, node.orelse))
        test = self.text(node.test)
        self.deferred += 1
        body, orelse = self.text(node.body), self.text(node.orelse)
        self.deferred -= 1
        return call("conditional", "_m", test, f"lambda _m: {body}", f"lambda _m: {orelse}")

    # Iterables of a `for`.

    def range_bounds(self, node: ast.expr) -> list[str] | None:
        """Return the arguments of ``range(…)``, or None if the expression is something else."""
        if not isinstance(node, ast.Call) or not self.names.calls_builtin(node, "range"):
            return None
        if node.keywords or not 1 <= len(node.args) <= 3:
            raise self.unsupported(node)
        return self.texts(node.args)

    def iterable(self, node: ast.expr) -> str:
        """Return the lane expression for what a loop iterates over, if it is no range."""
        if not isinstance(node, ast.Call):
            self.refuse_several(node, f"an item of `{ast.unparse(node)}`", self.members(node))
        return self.text(node)

    # Functions as values.

    def members(self, node: ast.expr) -> Sequence[ast.expr]:
        """Return the items of a tuple, as far as the source shows them."""
        if isinstance(node, ast.Tuple):
            return node.elts
        found = self.names.static(node)
        if found is None or not isinstance(found.value, tuple):
            return ()
        return [ast.Subscript(node, ast.Constant(place), ast.Load()) for place in range(len(found.value))]

    def refuse_several(self, node: ast.expr, what: str, values: Iterable[Any]) -> None:
        """Refuse a value that may be one or another function, since Numba compiles each call for one function.

        Raises
        ------
        UnsupportedConstructError
            `values` name different functions.
        """
        found: list[tuple[Any, str]] = []
        for value in values:
            function = self._function(value) if isinstance(value, ast.expr) else None
            if function is not None and all(function is not other for other, _ in found):
                found.append((function, ast.unparse(value)))
        if len(found) > 1:
            listed = " or ".join(sorted(text for _, text in found))
            raise self.unsupported(
                node,
                f"`{ast.unparse(node)}`, where {what} may be the function {listed}: call each one in a branch of its "
                "own, or loop over literal_unroll(…)",
            )

    def _function(self, value: ast.expr) -> Any:
        """Return the function that an expression names, or an item of a tuple outside the kernel, else None."""
        if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
            found = self.names.static(value.value)
            place = value.slice.value
            if found is None or not isinstance(found.value, tuple) or type(place) is not int:
                return None
            items = found.value[place : place + 1]
            return self.names.called(Static(items[0], path_of(items[0]))) if items else None
        return self.names.function(value)
