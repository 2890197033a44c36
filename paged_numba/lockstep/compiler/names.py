"""Names from outside a kernel: globals, closure variables and ``cuda``, resolved when the kernel is translated.

A number or a dtype becomes a constant of the lane program, ``cuda.threadIdx`` an attribute of the machine ``_rt``, and
a function that the kernel calls an `Intrinsic` or a device function.
"""

from __future__ import annotations

import ast
import builtins
import enum
import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ...errors import UnsupportedConstructError
from ..language.functions import as_dtype
from ..language.intrinsic import Intrinsic
from ..language.intrinsics import DECLARATIONS, INTRINSICS, MACHINE_VALUES, PREFIXES, intrinsic_of, path_of
from ..language.signatures import signatures_of
from ..language.types.enums import member
from ..language.types.function_values import FunctionValue
from ..machine.arithmetic import lane_type, tuple_like
from ..machine.lanes import WARP_SIZE, file_name
from .analysis.assignment import Reads
from .analysis.scopes import Function, all_inner, arguments, variables
from .analysis.wording import IN_WORDS
from .functions.overloads import is_jitable, overloaded
from .functions.values import DeviceValue, IntrinsicValue
from .source import Source, constant

PLAIN_NUMBERS = (bool, int, float, complex)


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
        The names that the function binds, and the functions inside it: their variables.
    inner : list of ast.FunctionDef and ast.Lambda
        The functions inside the function.
    callees : set of functions
        The device functions that are values in its program.
    constants : dict
        Values that the globals of the lane program must hold, by name.
    """

    def __init__(self, source: Source, kernel: bool = False) -> None:
        self.source = source
        self.kernel = kernel
        self.inner = all_inner(source.definition)
        self.bound = variables(source.definition).union(*map(variables, self.inner))
        self.file = source.file
        self.constants: dict[str, Any] = {}
        self.callees: set[Any] = set()

    def shown(self, name: str) -> str:
        """Return the name that the source has for a variable."""
        return str(getattr(self.source.definition, "given_names", {}).get(name, name))

    @cached_property
    def reads(self) -> Reads:
        """The reads that may come before an assignment."""
        return Reads(self.source.definition, self.bound)

    @cached_property
    def bindings(self) -> dict[str, list[ast.expr | ast.arg | Function | None]]:
        """What each variable is bound to: expressions, parameters, functions; None for anything else."""
        return bindings(self.source.definition, self.inner)

    def function(self, node: ast.expr) -> Any:
        """Return the function that an expression names, undecorated, or a lambda, else None."""
        if isinstance(node, ast.Lambda):
            return node
        found = self.static(node) if isinstance(node, (ast.Name, ast.Attribute)) else None
        return None if found is None else self.called(found)

    def called(self, found: Static) -> Any:
        """Return the function that a value from outside is, undecorated, else None."""
        if (
            not self.names_something(found)
            or inspect.ismodule(found.value)
            or as_dtype(found.value) is not None
        ):
            return None
        return decorated_function(found.value) or found.value

    def bound_before(self, name: str, inner: Function) -> bool:
        """Tell whether a variable is assigned in a line before an inner function, or is a parameter."""
        place = inner.lineno, inner.col_offset
        return any(
            isinstance(node, ast.arg) or (node.lineno, node.col_offset) < place
            for node in self._bound_at.get(name, ())
        )

    @cached_property
    def _bound_at(self) -> dict[str, list[ast.Name | ast.arg | ast.FunctionDef]]:
        found: dict[str, list[ast.Name | ast.arg | ast.FunctionDef]] = {}
        for node in ast.walk(self.source.definition):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.setdefault(node.id, []).append(node)
            elif isinstance(node, ast.arg):
                found.setdefault(node.arg, []).append(node)
            elif isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, []).append(node)
        return found

    @cached_property
    def aliases(self) -> dict[str, ast.expr]:
        """The variables that are bound once, to a name from outside, and read nowhere before."""
        return {
            name: found[0]
            for name, found in self.bindings.items()
            if len(found) == 1
            and isinstance(found[0], (ast.Name, ast.Attribute))
            and name not in self.reads.names
        }

    def unsupported(self, node: ast.AST, what: str | None = None) -> UnsupportedConstructError:
        """Return the error for a construct that the machine does not run."""
        if what is None:
            name = type(node).__name__
            what, instead = IN_WORDS.get(name, (name, ""))
            if isinstance(node, (ast.expr, ast.stmt)):
                what += f" (`{ast.unparse(node).splitlines()[0]}`)"
            what += f": {instead}" if instead else ""
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
                return self._alias(node.id)
            if not self.source.defines(node.id):
                raise self.unsupported(node, f"the undefined name {node.id!r}: define it before the launch")
            value = self.source.outer[node.id]
            return Static(value, path_of(value))
        if isinstance(node, ast.Subscript):
            return self._member(node)
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

    def _alias(self, name: str) -> Static | None:
        """Return what a variable stands for, as ``f`` after ``f = math.sin``, if it is no number, else None."""
        value = self.aliases.pop(name, None)  # a circle ends
        if value is None:
            return None
        found = self.static(value)
        self.aliases[name] = value
        if found is None or not self.names_something(found):
            return None
        return found

    def is_alias(self, node: ast.Assign) -> bool:
        """Tell whether an assignment only gives another name to something outside the kernel."""
        target = node.targets[0]
        return len(node.targets) == 1 and isinstance(target, ast.Name) and self._alias(target.id) is not None

    def names_something(self, found: Static) -> bool:
        """Tell whether a value from outside is a module, a function or a type."""
        return (
            found.path in PREFIXES
            or found.path in INTRINSICS
            or found.path in DECLARATIONS
            or inspect.ismodule(found.value)
            or inspect.isclass(found.value)
            or inspect.isfunction(found.value)
            or decorated_function(found.value) is not None
            or intrinsic_of(found.value) is not None
        )

    def _member(self, node: ast.Subscript) -> Static | None:
        """Return the member of an enum that ``Color["red"]`` names, else None."""
        key = getattr(node.slice, "value", None)
        base = self.static(node.value) if isinstance(key, str) else None
        if base is None or not isinstance(base.value, enum.EnumMeta):
            return None
        if key not in base.value.__members__:
            raise self.unsupported(node, f"`{ast.unparse(node)}`, which does not exist")
        return Static(base.value.__members__[str(key)], None)

    def path(self, node: ast.expr) -> str | None:
        """Return the path on ``cuda`` that an expression names, else None."""
        found = self.static(node)
        return None if found is None else found.path

    def intrinsic(self, node: ast.expr) -> Intrinsic | None:
        """Return the intrinsic that an expression names, else None."""
        found = self.static(node)
        return None if found is None else INTRINSICS.get(found.path or "") or intrinsic_of(found.value)

    def device(self, node: ast.Call) -> Any:
        """Return the device function that an expression calls, or an inner function, else None.

        The result is ``Ellipsis`` if only the run knows the function.
        """
        found = self.static(node.func)
        if found is None:
            bound = self.bindings.get(node.func.id, []) if isinstance(node.func, ast.Name) else [node.func]
            if len(bound) == 1 and isinstance(bound[0], (ast.FunctionDef, ast.Lambda)):
                return bound[0]
            return None if isinstance(node.func, ast.Attribute) else Ellipsis
        if found.path in INTRINSICS:
            return None
        function = decorated_function(found.value)
        unknown = function is None and inspect.isfunction(found.value) and overloaded(found.value) is not None
        return Ellipsis if unknown else function

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
        if found.path in INTRINSICS:
            return self.constant(IntrinsicValue(ast.unparse(node), INTRINSICS[found.path]))
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
        function = self.function_value(node, value)
        if function is not None:
            return self.constant(function)
        for read in DEVICE_MEMORY:
            memory = read(value)
            if memory is not None:
                return f"_rt.captured({ast.unparse(node)!r}, {self.constant(memory)})"
        raise self.unsupported(
            node,
            f"`{ast.unparse(node)}` (a {type(value).__name__}) as a value: pass numbers, tuples or arrays as arguments",
        )

    def function_value(self, node: ast.expr, value: Any) -> FunctionValue | None:
        """Return a function from outside the kernel as a value, or None if it is no function that a kernel can call."""
        function = decorated_function(value)
        if function is not None:
            self.callees.add(function)
            return DeviceValue(function, signatures_of(value))
        intrinsic = INTRINSICS.get(path_of(value) or "") or intrinsic_of(value)
        if intrinsic is not None:
            return IntrinsicValue(ast.unparse(node), intrinsic)
        if is_namedtuple(value):
            return IntrinsicValue(value.__name__, Intrinsic(value))
        found = overloaded(value)
        if found is not None:
            return found
        if inspect.isfunction(value):
            raise self.plain_function(node, value.__name__)
        return None

    def plain_function(self, node: ast.AST, name: str) -> UnsupportedConstructError:
        """Return the error for a Python function that nothing has decorated."""
        return self.unsupported(
            node, f"the plain Python function {name!r}: decorate it with @cuda.jit(device=True)"
        )


DEVICE_MEMORY: list[Callable[[Any], Any]] = []
"""Functions that return the NumPy array whose memory a device array uses, and None for anything else."""


def decorated_function(value: Any) -> Any:
    """Return the Python function of a kernel or device function, or None if `value` is neither.

    ``numba.njit`` and ``register_jitable`` make device functions too.
    """
    function = getattr(value, "py_func", None) or getattr(value, "fn", None)
    if inspect.isfunction(function):
        return function
    return value if inspect.isfunction(value) and is_jitable(value) else None


def is_namedtuple(value: Any) -> bool:
    """Tell whether a value is a type of namedtuple."""
    return isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields")


def bindings(
    definition: ast.FunctionDef, inner: list[Function]
) -> dict[str, list[ast.expr | ast.arg | Function | None]]:
    """Return what each variable of a function, and of those inside it, is bound to."""
    found: dict[str, list[ast.expr | ast.arg | Function | None]] = {}
    simple: set[ast.AST] = set()
    for function in (definition, *inner):
        for argument in arguments(function):
            found.setdefault(argument.arg, []).append(argument)
        if isinstance(function, ast.FunctionDef) and function is not definition:
            found.setdefault(function.name, []).append(function)
    for node in ast.walk(definition):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    simple.add(target)
                    found.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in simple:
            found.setdefault(node.id, []).append(None)
    return found


def is_cpu_only(value: Any) -> bool:
    """Tell whether ``numba.jit`` made a function for given types, which Numba does not compile for a GPU."""
    return type(value).__name__ == "CPUDispatcher" and not value._can_compile


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
