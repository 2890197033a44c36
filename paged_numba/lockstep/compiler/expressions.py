"""Translate expressions of a kernel into Python expressions over lane values."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...errors import UnsupportedConstructError
from ..language.functions import as_dtype
from ..language.intrinsics import (
    DECLARATIONS,
    INTRINSICS,
    MACHINE_VALUES,
    PREFIXES,
    Intrinsic,
    intrinsic_of,
    is_builtin,
    path_of,
)
from ..machine.machine import Site
from . import analysis

_BINARY = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "power",
    ast.BitAnd: "bit_and",
    ast.BitOr: "bit_or",
    ast.BitXor: "bit_xor",
    ast.LShift: "lshift",
    ast.RShift: "rshift",
}
_UNARY = {ast.UAdd: "positive", ast.USub: "negative", ast.Invert: "invert", ast.Not: "logical_not"}
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}

_PLAIN_NUMBERS = (bool, int, float, complex)


class Static(NamedTuple):
    """What a name outside the kernel stands for; its path if it belongs to ``cuda``."""

    value: Any
    path: str | None


_IN_WORDS = {
    "AsyncFor": "async for",
    "ClassDef": "a class",
    "Delete": "del",
    "Dict": "a dictionary",
    "DictComp": "a dictionary comprehension",
    "FunctionDef": "a function inside a kernel",
    "GeneratorExp": "a generator expression",
    "Global": "global",
    "Import": "import",
    "ImportFrom": "import",
    "JoinedStr": "an f-string",
    "Lambda": "lambda",
    "List": "a list",
    "ListComp": "a list comprehension",
    "Match": "match",
    "Nonlocal": "nonlocal",
    "Set": "a set",
    "SetComp": "a set comprehension",
    "Starred": "a starred expression",
    "Try": "try",
    "With": "with",
    "Yield": "yield",
}
"""What a message calls the syntax nodes that a reader may not know by name."""


class Expressions:
    """Translator of the expressions of one function.

    Parameters
    ----------
    function : function
        The kernel; its globals and closure give meaning to the names that it does not bind.
    definition : ast.FunctionDef
        Its syntax tree.
    file : str
        The kernel's file, for errors.
    home_mask : callable
        Name of the mask of a variable's home region.

    Attributes
    ----------
    constants : dict
        What the program's globals must hold.
    """

    def __init__(
        self, function: Any, definition: ast.FunctionDef, file: str, home_mask: Callable[[str], str]
    ) -> None:
        closure = inspect.getclosurevars(function)
        self.outer = {**vars(builtins), **function.__globals__, **closure.nonlocals}
        self.bound = analysis.variables(definition)
        self.assigned = analysis.assigned_names(definition)
        self.definition = definition
        self.file = file
        self.home_mask = home_mask
        self.constants: dict[str, Any] = {}
        self.deferred = 0
        self.counter = 0

    def is_cast(self, name: str) -> bool:
        """Tell whether a name is a type, as in ``float32(x)``."""
        return name not in self.bound and as_dtype(self.outer.get(name)) is not None

    def unsupported(self, node: ast.AST, what: str | None = None) -> UnsupportedConstructError:
        """Return the error for a construct that the machine does not run."""
        if what is None:
            name = type(node).__name__
            what = _IN_WORDS.get(name, name)
            if isinstance(node, (ast.expr, ast.stmt)):
                what += f" (`{ast.unparse(node).splitlines()[0]}`)"
        file = self.file.replace("\\", "/").rsplit("/", 1)[-1]
        return UnsupportedConstructError(
            f"the lockstep machine does not run {what}, {file}:{getattr(node, 'lineno', '?')}"
        )

    def constant(self, value: Any) -> str:
        """Put a value among the program's globals and return its name."""
        for name, known in self.constants.items():
            if known is value or (type(known) is type(value) and _same_scalar(known, value)):
                return name
        name = f"_c{len(self.constants)}"
        self.constants[name] = value
        return name

    # Names outside the kernel.

    def static(self, node: ast.expr) -> Static | None:
        """Return what an expression stands for if it names something outside the kernel, else None."""
        if isinstance(node, ast.Name):
            if node.id in self.bound:
                return None
            if node.id not in self.outer:
                raise self.unsupported(node, f"the undefined name {node.id!r}")
            value = self.outer[node.id]
            return Static(value, path_of(value))
        if isinstance(node, ast.Attribute):
            base = self.static(node.value)
            if base is None or not _has_members(base):
                return None
            path = None if base.path is None else f"{base.path}.{node.attr}"
            if path in INTRINSICS or path in DECLARATIONS:
                return Static(getattr(base.value, node.attr, None), path)
            if path is not None and path.split(".")[1] in MACHINE_VALUES:
                return Static(None, path)
            if path in PREFIXES and not hasattr(base.value, node.attr):
                # Numba types cuda.fp16, though its module has no such attribute.
                return Static(None, path)
            try:
                value = getattr(base.value, node.attr)
            except AttributeError:
                raise self.unsupported(node, f"`{ast.unparse(node)}`, which is not there") from None
            return Static(value, path_of(value) or path)
        return None

    def _static_text(self, node: ast.expr, found: Static) -> str:
        value, path = found
        if path is not None:
            parts = path.split(".")
            if len(parts) > 1 and parts[1] in MACHINE_VALUES:
                return "_rt." + ".".join(parts[1:])
            if path == "cuda.warpsize":
                return self.constant(np.int32(32))
        return self._frozen(node, value)

    def _frozen(self, node: ast.expr, value: Any) -> str:
        """Return a global as a constant of the program, typed as Numba types it."""
        if value is None or isinstance(value, str):
            return repr(value)
        if isinstance(value, np.generic):
            return self.constant(value)
        if isinstance(value, _PLAIN_NUMBERS):
            return self.constant(typed(value))
        if isinstance(value, tuple):
            return "(" + "".join(f"{self._frozen(node, item)}, " for item in value) + ")"
        if isinstance(value, np.ndarray):
            return f"_rt.constant({ast.unparse(node)!r}, {self.constant(value)})"
        dtype = as_dtype(value)
        if dtype is not None:
            return self.constant(dtype)
        raise self.unsupported(node, f"`{ast.unparse(node)}` (a {type(value).__name__}) as a value")

    # Expressions.

    def text(self, node: ast.expr) -> str:
        """Return the lane expression for `node`."""
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is None:
            raise self.unsupported(node)
        return str(method(node))

    def variable(self, node: ast.Name) -> str:
        """Return the program's name of one of the kernel's variables."""
        return f"v_{node.id}"

    def discarded(self, node: ast.expr) -> str:
        """Return the lane expression for one whose value is not used."""
        return self.text(node)

    def _Constant(self, node: ast.Constant) -> str:
        if node.value is None or isinstance(node.value, str):
            return repr(node.value)
        if node.value is Ellipsis:
            return "Ellipsis"
        if isinstance(node.value, _PLAIN_NUMBERS):
            return self.constant(typed(node.value))
        raise self.unsupported(node)

    def _Name(self, node: ast.Name) -> str:
        found = self.static(node)
        return self.variable(node) if found is None else self._static_text(node, found)

    def _Attribute(self, node: ast.Attribute) -> str:
        found = self.static(node)
        if found is not None:
            return self._static_text(node, found)
        return f"attribute(_m, {self.text(node.value)}, {node.attr!r})"

    def _Tuple(self, node: ast.Tuple) -> str:
        return "(" + "".join(f"{self.text(element)}, " for element in node.elts) + ")"

    def _Subscript(self, node: ast.Subscript) -> str:
        return f"load(_m, {self.text(node.value)}, {self.index(node.slice)})"

    def index(self, node: ast.expr) -> str:
        """Return the expression of what stands between brackets."""
        if isinstance(node, ast.Slice):
            bounds = (node.lower, node.upper, node.step)
            parts = ("None" if bound is None else self.text(bound) for bound in bounds)
            return f"slice({', '.join(parts)})"
        if isinstance(node, ast.Tuple):
            return "(" + "".join(f"{self.index(element)}, " for element in node.elts) + ")"
        return self.text(node)

    def _BinOp(self, node: ast.BinOp) -> str:
        left = self.text(node.left)
        if isinstance(node.op, ast.Pow):
            exponent = node.right
            negative = isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub)
            literal = exponent.operand if isinstance(exponent, ast.UnaryOp) else exponent
            if isinstance(literal, ast.Constant) and type(literal.value) is int and literal.value < 1 << 16:
                return self.power_literal(left, -literal.value if negative else literal.value)
        return self.operation(node, node.op, left, self.text(node.right))

    def power_literal(self, base: str, exponent: int) -> str:
        """Return the expression of a power with an integer literal as exponent."""
        return f"power_literal({base}, {exponent})"

    def operation(self, node: ast.AST, op: ast.operator, left: str, right: str) -> str:
        """Return the expression of a binary operator on two expressions."""
        name = _BINARY.get(type(op))
        if name is None:
            raise self.unsupported(node)
        if name in ("floordiv", "mod"):
            return f"{name}(_rt, _m, {left}, {right})"
        return f"{name}({left}, {right})"

    def _UnaryOp(self, node: ast.UnaryOp) -> str:
        literal = node.operand
        negated = isinstance(node.op, ast.USub) and isinstance(literal, ast.Constant)
        if negated and type(literal.value) in (int, float):  # type: ignore[attr-defined]
            return self.constant(typed(-literal.value))  # type: ignore[attr-defined]
        return f"{_UNARY[type(node.op)]}({self.text(node.operand)})"

    def _Compare(self, node: ast.Compare) -> str:
        if len(node.ops) == 1:
            return self._comparison(node, node.ops[0], self.text(node.left), self.text(node.comparators[0]))
        # a < b < c: b is evaluated once, c only in the lanes where a < b holds.
        left = self.text(node.left)
        result = closing = previous = ""
        for position, (op, right_node) in enumerate(zip(node.ops, node.comparators, strict=True)):
            last = position == len(node.ops) - 1
            if position:
                result += "logical_and(_m, " + previous + ", lambda _m: "
                closing += ")"
            right = self.text(right_node)
            if not last:
                self.counter += 1
                name = f"_w{self.counter}"
                previous = self._comparison(node, op, left, f"({name} := {right})")
                left = name
            else:
                result += self._comparison(node, op, left, right)
        return result + closing

    def _comparison(self, node: ast.Compare, op: ast.cmpop, left: str, right: str) -> str:
        if isinstance(op, (ast.Is, ast.IsNot)):
            return f"({left} {'is' if isinstance(op, ast.Is) else 'is not'} {right})"
        if isinstance(op, ast.In):
            return f"contains({left}, {right})"
        if isinstance(op, ast.NotIn):
            return f"logical_not(contains({left}, {right}))"
        return f"({left} {_COMPARE[type(op)]} {right})"

    def _BoolOp(self, node: ast.BoolOp) -> str:
        name = "logical_and" if isinstance(node.op, ast.And) else "logical_or"
        result = self.text(node.values[0])
        self.deferred += 1
        for value in node.values[1:]:
            # The right operand runs only in the lanes that need it.
            result = f"{name}(_m, {result}, lambda _m: {self.text(value)})"
        self.deferred -= 1
        return result

    def _IfExp(self, node: ast.IfExp) -> str:
        test = self.text(node.test)
        self.deferred += 1
        body, orelse = self.text(node.body), self.text(node.orelse)
        self.deferred -= 1
        return f"conditional(_m, {test}, lambda _m: {body}, lambda _m: {orelse})"

    def _NamedExpr(self, node: ast.NamedExpr) -> str:
        if self.deferred:
            raise self.unsupported(node, "an assignment expression after `and`, `or` or in a ternary")
        name = self.variable(node.target)
        home = self.home_mask(node.target.id)
        return f"({name} := keep(_m, {home}, {self.text(node.value)}, {name}))"

    # Calls.

    def _Call(self, node: ast.Call) -> str:
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            raise self.unsupported(node, f"a starred argument (`{ast.unparse(node)}`)")
        found = self.static(node.func)
        if found is None:
            if isinstance(node.func, ast.Attribute):
                receiver = self.text(node.func.value)
                passed = ", ".join(self.text(argument) for argument in node.args)
                return f"attribute(_m, {receiver}, {node.func.attr!r})({passed})"
            raise self.unsupported(node, f"a call of a variable (`{ast.unparse(node)}`)")
        value, path = found
        if path in DECLARATIONS:
            return self._declaration(node, path)
        inner = getattr(value, "py_func", None) or getattr(value, "fn", None)
        if inspect.isfunction(inner) and path not in INTRINSICS:
            return self._device_call(node, inner)
        intrinsic = INTRINSICS.get(path or "") or intrinsic_of(value)
        if intrinsic is None:
            callee = ast.unparse(node.func)
            if inspect.isfunction(value):
                raise self.unsupported(
                    node,
                    f"a call of the plain Python function {callee!r}: decorate it with @cuda.jit(device=True)",
                )
            raise self.unsupported(node, f"a call of `{callee}`")
        arguments = [self.text(argument) for argument in node.args]
        arguments += [f"{keyword.arg}={self.text(keyword.value)}" for keyword in node.keywords]
        return self.call(node, intrinsic, arguments)

    def call(self, node: ast.Call, intrinsic: Intrinsic, arguments: list[str]) -> str:
        """Return the expression of a call of something that the machine knows."""
        if intrinsic.cooperative:
            arguments = ["_rt", "_m", *arguments]
        return f"{self.constant(intrinsic.function)}({', '.join(arguments)})"

    def _declaration(self, node: ast.Call, path: str) -> str:
        names = ("array",) if path.endswith("array_like") else ("shape", "dtype")
        given = dict(zip(names, node.args, strict=False))
        given.update({str(keyword.arg): keyword.value for keyword in node.keywords if keyword.arg in names})
        missing = [name for name in names if name not in given]
        if missing:
            raise self.unsupported(node, f"`{ast.unparse(node)}` without {missing[0]}")
        if path == "cuda.const.array_like":
            return self.text(given["array"])
        # Each declaration in the source is an array of its own.
        kind = path.split(".")[1]
        site = self.constant(Site(self.assigned.get(node, f"{kind} array")))
        shape = self.text(given["shape"])
        found = self.static(given["dtype"])
        dtype = None if found is None else as_dtype(found.value)
        dtype_text = self.text(given["dtype"]) if dtype is None else self.constant(dtype)
        if path == "cuda.shared.array":
            return f"_rt.shared_array({site}, {shape}, {dtype_text})"
        return f"_rt.local_array(_m, {site}, {shape}, {dtype_text})"

    def _device_call(self, node: ast.Call, function: Any) -> str:
        signature = inspect.signature(function)
        try:
            bound = signature.bind(*node.args, **{str(k.arg): k.value for k in node.keywords})
        except TypeError as error:
            raise self.unsupported(node, f"`{ast.unparse(node)}`: {error}") from None
        arguments = []
        for name, parameter in signature.parameters.items():
            if name in bound.arguments:
                arguments.append(self.text(bound.arguments[name]))
            else:
                arguments.append(self._frozen(node, parameter.default))
        return f"call_device({self.constant(function)}, _rt, _m, {', '.join(arguments)})"

    # What a `for` goes through.

    def iteration(self, node: ast.expr) -> str:
        """Return the expression that yields (value, mask of the lanes still in the loop or None)."""
        if isinstance(node, ast.Call):
            found = self.static(node.func)
            if found is not None and is_builtin(found.value, "range"):
                if node.keywords or not 1 <= len(node.args) <= 3:
                    raise self.unsupported(node)
                return f"trips(_m, {', '.join(self.text(argument) for argument in node.args)})"
        return f"each(_m, {self._iterable(node)})"

    def _iterable(self, node: ast.expr) -> str:
        if isinstance(node, ast.Call):
            found = self.static(node.func)
            for name in ("enumerate", "zip"):
                if found is not None and is_builtin(found.value, name):
                    parts = [self._iterable(argument) for argument in node.args]
                    return f"{name}_lanes(_m, {', '.join(parts)})"
        return self.text(node)


def typed(value: bool | int | float | complex) -> Any:
    """Return a Python number with the type that Numba gives it."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value) if -(2**63) <= value < 2**63 else np.uint64(value)
    return np.float64(value) if isinstance(value, float) else np.complex128(value)


def _same_scalar(a: Any, b: Any) -> bool:
    if not isinstance(a, np.generic) or isinstance(a, (np.floating, np.complexfloating)):
        return False
    return bool(a == b)


def _has_members(found: Static) -> bool:
    """Tell whether attributes of `found` are names too, not values computed by lane."""
    return found.path is not None or inspect.ismodule(found.value) or inspect.isclass(found.value)
