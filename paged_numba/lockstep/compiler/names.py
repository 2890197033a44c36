"""Names from outside a kernel: globals, closure variables and ``cuda``, resolved when the kernel is translated.

A number or a dtype becomes a constant of the lane program, ``cuda.threadIdx`` an attribute of the machine ``_rt``, and
a function that the kernel calls an `Intrinsic` or a device function.
"""

from __future__ import annotations

import ast
import builtins
import enum
import inspect
from typing import Any, NamedTuple

import numpy as np

from ...errors import UnsupportedConstructError
from ..language.functions import as_dtype
from ..language.intrinsic import Intrinsic
from ..language.intrinsics import DECLARATIONS, INTRINSICS, MACHINE_VALUES, PREFIXES, intrinsic_of, path_of
from ..language.types.enums import member
from ..machine.arithmetic import lane_type, tuple_like
from ..machine.lanes import WARP_SIZE, file_name
from .analysis import syntax
from .source import Source, constant

PLAIN_NUMBERS = (bool, int, float, complex)

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
"""Plain names for syntax nodes, for error messages."""


class Static(NamedTuple):
    """The value of a name outside the kernel, and its path if it belongs to ``cuda``."""

    value: Any
    path: str | None


class Names:
    """The names outside one function, and the constants of its lane program.

    Parameters
    ----------
    source : Source
        The kernel or device function.
    kernel : bool
        Whether it is a kernel.

    Attributes
    ----------
    bound : set of str
        The names that the function binds: its variables.
    constants : dict
        Values that the globals of the lane program must hold, by name.
    """

    def __init__(self, source: Source, kernel: bool = False) -> None:
        self.source = source
        self.kernel = kernel
        self.bound = syntax.variables(source.definition)
        self.file = source.file
        self.constants: dict[str, Any] = {}

    def unsupported(self, node: ast.AST, what: str | None = None) -> UnsupportedConstructError:
        """Return the error for a construct that the machine does not run."""
        if what is None:
            name = type(node).__name__
            what = _IN_WORDS.get(name, name)
            if isinstance(node, (ast.expr, ast.stmt)):
                what += f" (`{ast.unparse(node).splitlines()[0]}`)"
        return UnsupportedConstructError(
            f"the lockstep machine does not run {what}, {file_name(self.file)}:{getattr(node, 'lineno', '?')}"
        )

    # The meaning of a name.

    def static(self, node: ast.expr) -> Static | None:
        """Return the value of an expression that names something outside the kernel, else None.

        Raises
        ------
        UnsupportedConstructError
            If the name is not defined, or has no such attribute.
        """
        if isinstance(node, ast.Name):
            if node.id in self.bound:
                return None
            if not self.source.defines(node.id):
                raise self.unsupported(node, f"the undefined name {node.id!r}")
            value = self.source.outer[node.id]
            return Static(value, path_of(value))
        if isinstance(node, ast.Subscript):
            member = self._member(node)
            return None if member is None else Static(member, None)
        if isinstance(node, ast.Attribute):
            base = self.static(node.value)
            if base is None or not _has_members(base):
                return None
            path = None if base.path is None else f"{base.path}.{node.attr}"
            if path in INTRINSICS or path in DECLARATIONS:
                return Static(getattr(base.value, node.attr, None), path)
            if _machine_value(path) or (path in PREFIXES and not hasattr(base.value, node.attr)):
                # Numba types cuda.fp16, though its module has no such attribute.
                return Static(None, path)
            text, known = ast.unparse(node), self.source.attributes
            if text not in known:
                try:
                    known[text] = constant(getattr(base.value, node.attr))
                except AttributeError:
                    raise self.unsupported(node, f"`{text}`, which does not exist") from None
            return Static(known[text], path_of(known[text]) or path)
        return None

    def _member(self, node: ast.Subscript) -> Any:
        """Return the member of an enum that ``Color["red"]`` names, else None."""
        if not isinstance(node.slice, ast.Constant) or not isinstance(node.slice.value, str):
            return None
        base = self.static(node.value)
        if base is None or not isinstance(base.value, enum.EnumMeta):
            return None
        try:
            return base.value[node.slice.value]
        except KeyError:
            raise self.unsupported(node, f"`{ast.unparse(node)}`, which does not exist") from None

    def path(self, node: ast.expr) -> str | None:
        """Return the path on ``cuda`` that an expression names, else None."""
        found = self.static(node)
        return None if found is None else found.path

    def intrinsic(self, node: ast.expr) -> Intrinsic | None:
        """Return the intrinsic that an expression names, else None."""
        found = self.static(node)
        return None if found is None else INTRINSICS.get(found.path or "") or intrinsic_of(found.value)

    def device(self, node: ast.Call) -> Any:
        """Return the device function that an expression calls, else None."""
        found = self.static(node.func)
        return None if found is None or found.path in INTRINSICS else decorated_function(found.value)

    def atomic(self, node: ast.Call) -> str | None:
        """Return the name of the atomic operation that an expression calls, such as ``cas``, else None."""
        found = self.static(node.func)
        path = "" if found is None else found.path or ""
        return path.removeprefix("cuda.atomic.") if path.startswith("cuda.atomic.") else None

    def dtype(self, node: ast.expr) -> np.dtype[Any] | None:
        """Return the dtype that an expression names, else None."""
        found = self.static(node)
        return None if found is None else as_dtype(found.value)

    def calls_builtin(self, node: ast.expr, name: str) -> bool:
        """Tell whether an expression calls the builtin function of that name."""
        if not isinstance(node, ast.Call):
            return False
        found = self.static(node.func)
        return found is not None and found.value is getattr(builtins, name)

    # Its text in the lane program.

    def constant(self, value: Any) -> str:
        """Put a value among the program's globals and return its name."""
        for name, known in self.constants.items():
            if known is value or (type(known) is type(value) and _same_scalar(known, value)):
                return name
        name = f"_c{len(self.constants)}"
        self.constants[name] = value
        return name

    def text(self, node: ast.expr, found: Static) -> str:
        """Return the lane expression for `node`, whose value is `found`."""
        attributes = _machine_value(found.path)
        if attributes:
            return ".".join(("_rt", *attributes))
        if found.path == "cuda.warpsize":
            return self.constant(np.int32(WARP_SIZE))
        return self.frozen(node, found.value)

    def frozen(self, node: ast.expr, value: Any) -> str:
        """Return the lane expression for a value from outside the kernel, typed as Numba types it."""
        if value is None or (
            isinstance(value, (str, bytes)) and not isinstance(value, (np.generic, enum.Enum))
        ):
            return repr(value)
        if isinstance(value, np.generic):
            return self.constant(value)
        if isinstance(value, enum.Enum):
            return self.constant(member(value, typed))
        if isinstance(value, PLAIN_NUMBERS):
            return self.constant(typed(value))
        if isinstance(value, tuple):
            kind: Any = type(value)
            maker = self.constant(lane_type(kind)._make) if hasattr(value, "_fields") else "LaneTuple"
            return f"{maker}((" + "".join(f"{self.frozen(node, item)}, " for item in value) + "))"
        if isinstance(value, np.ndarray):
            return f"_rt.constant({ast.unparse(node)!r}, {self.constant(value)})"
        if hasattr(value, "__lockstep_array__"):
            return f"_rt.captured({ast.unparse(node)!r}, {self.constant(value.__lockstep_array__)})"
        dtype = as_dtype(value)
        if dtype is not None:
            return self.constant(dtype)
        raise self.unsupported(node, f"`{ast.unparse(node)}` (a {type(value).__name__}) as a value")


def decorated_function(value: Any) -> Any:
    """Return the Python function that ``cuda.jit`` decorated, or None if `value` is not a kernel or device function."""
    function = getattr(value, "py_func", None) or getattr(value, "fn", None)
    return function if inspect.isfunction(function) else None


def typed(value: Any) -> Any:
    """Return a Python number, or a tuple of numbers, with the type that Numba gives it."""
    if isinstance(value, tuple):
        return tuple_like(map(typed, value), value)
    if isinstance(value, (str, bytes, np.generic)):
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value) if -(2**63) <= value < 2**63 else np.uint64(value)
    return np.float64(value) if isinstance(value, float) else np.complex128(value)


def _machine_value(path: str | None) -> list[str]:
    """Return the attribute of the machine behind a path: ``["threadIdx", "x"]`` for ``cuda.threadIdx.x``, else []."""
    attributes = [] if path is None else path.split(".")[1:]
    return attributes if attributes and attributes[0] in MACHINE_VALUES else []


def _same_scalar(a: Any, b: Any) -> bool:
    if not isinstance(a, np.generic) or isinstance(a, (np.floating, np.complexfloating)):
        return False
    if getattr(a, "kind", None) is not getattr(b, "kind", None) or a.dtype != b.dtype:
        return False
    return bool(a == b)


def _has_members(found: Static) -> bool:
    """Tell whether attributes of `found` are names too, not values computed by lane."""
    return found.path is not None or inspect.ismodule(found.value) or inspect.isclass(found.value)
