"""Calls in a kernel, translated: of intrinsics, of device functions, and the declarations of arrays.

An intrinsic that needs its lanes gets the machine and the mask first: ``sqrt(x)`` becomes ``_c0(v_x)``,
``cuda.atomic.add(x, i, 1)`` becomes ``_c1(_rt, _m, v_x, v_i, _c2)``.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

import numpy as np

from ....errors import LaunchError
from ...language.functions import as_dtype
from ...language.intrinsic import Intrinsic
from ...language.intrinsics import DECLARATIONS, INTRINSICS
from ...language.signatures import Signature, signatures_of
from ...machine.arithmetic import lane_type
from ...machine.lanes import file_name
from ...machine.machine import Site
from ..analysis.scopes import (
    Function,
    arguments,
    as_definition,
    captured_by,
    defaults,
    given_name,
    signature_of,
)
from ..analysis.shapes import folded, lengths_of_call
from ..expressions import Expressions, call
from ..names import decorated_function, is_cpu_only, is_namedtuple
from .overloads import foreign, has_member, overloaded
from .values import DeviceValue


class Calls(Expressions):
    """Translator of expressions, calls included."""

    def _Call(self, node: ast.Call) -> str:
        found = self.names.static(node.func)
        if found is None:
            if isinstance(node.func, ast.Attribute):
                return self._method(node, node.func)
            return self._call_of_value(node)
        if found.value is isinstance and len(node.args) == 2:
            return call(
                "is_instance", self.text(node.args[0]), self.names.constant(self._kinds(node.args[1]))
            )
        if found.path in DECLARATIONS:
            return self._declaration(node, found.path)
        text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if found.value is float and isinstance(text, str) and len(node.args) == 1:
            return self.names.constant(np.float64(text))
        function = decorated_function(found.value)
        if function is not None and found.path not in INTRINSICS:
            if is_cpu_only(found.value):
                raise self.unsupported(
                    node,
                    f"`{ast.unparse(node.func)}`, which numba.jit compiles for the CPU only, since it has a signature: "
                    "decorate it with @cuda.jit(device=True)",
                )
            return self._device_call(node, function, signatures_of(found.value))
        if is_namedtuple(found.value):
            return call(self.names.constant(lane_type(found.value)), *self._arguments(node))
        intrinsic = self.names.intrinsic(node.func)
        if intrinsic is not None:
            if found.path in ("cuda.grid", "cuda.gridsize") and not self._has_literal(node):
                raise self.unsupported(
                    node, f"`{ast.unparse(node)}`, whose argument must be the literal 1, 2 or 3"
                )
            return self.call(node, intrinsic, self._arguments(node))
        value = overloaded(found.value)
        if value is not None:
            return self.used(node, self._held_call(node, self.names.constant(value)))
        callee = ast.unparse(node.func)
        why = foreign(found.value)
        if why:
            raise self.unsupported(node, f"`{callee}`, {why}")
        if inspect.isfunction(found.value):
            raise self.names.plain_function(node, callee)
        raise self.unsupported(
            node, f"a call of `{callee}`: write what it does in the kernel or in a device function"
        )

    def _method(self, node: ast.Call, callee: ast.Attribute) -> str:
        """Return the call of an attribute of a lane value."""
        if has_member(callee.attr):
            value, name = self.text(callee.value), repr(callee.attr)
            arguments = [value, name, self._literals(node), *self._arguments(node)]
            return self.used(node, call("call_member", "_rt", "_m", "call_value", *arguments))
        return call(
            call("attribute", "_m", self.text(callee.value), repr(callee.attr)), *self._arguments(node)
        )

    def _has_literal(self, node: ast.Call) -> bool:
        """Tell whether the only argument is a literal or a global number, in 1 .. 3."""
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if len(given) != 1:
            return False
        found = None if isinstance(given[0], ast.Constant) else self.names.static(given[0])
        value = given[0].value if isinstance(given[0], ast.Constant) else found and found.value
        return isinstance(value, (int, np.integer)) and value in (1, 2, 3)

    def _arguments(self, node: ast.Call) -> list[str]:
        texts = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                texts.append(f"*{call('starred', self.text(argument.value))}")
            else:
                texts.append(self.text(argument))
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.unsupported(
                    node, f"a starred argument (`{ast.unparse(node)}`): name each argument"
                )
            texts.append(f"{keyword.arg}={self.text(keyword.value)}")
        return texts

    def used(self, node: ast.Call, made: str) -> str:
        """Return the call of a device function or an inner function, whose result must be there if it is used."""
        return made if node is self.unused else call("returned", "_rt", made)

    # Functions that variables hold.

    def _held_call(self, node: ast.Call, function: str) -> str:
        """Return the call of what a lane expression holds."""
        return call("call_value", "_rt", "_m", function, self._literals(node), *self._arguments(node))

    def _literals(self, node: ast.Call) -> str:
        """Return which of the positional arguments are literals to Numba."""
        starred = [isinstance(argument, ast.Starred) for argument in node.args]
        plain = node.args[: starred.index(True)] if True in starred else node.args
        return repr(tuple(isinstance(a, ast.Constant) or self.shapes.literal(a) is not None for a in plain))

    def _call_of_value(self, node: ast.Call) -> str:
        inner = self._inner_called(node.func)
        if inner is not None:
            return self._inner_call(node, inner)
        if isinstance(node.func, ast.Name):
            self._check_one_function(node, node.func)
            function = (
                call("assigned", *self._early(node.func)) if node.func in self.early else f"v_{node.func.id}"
            )
        else:
            if isinstance(node.func, ast.Subscript) and self.shapes.literal(node.func.slice) is None:
                self.refuse_several(node, ast.unparse(node.func), self.members(node.func.value))
            function = self.text(node.func)
        return self.used(node, self._held_call(node, function))

    def _inner_called(self, callee: ast.expr) -> Function | None:
        """Return the inner function that an expression names at each place that can be reached, else None."""
        if isinstance(callee, ast.Lambda):
            return callee
        if not isinstance(callee, ast.Name) or callee in self.early:
            return None
        bound = self.names.bindings.get(callee.id, [])
        only = bound[0] if len(bound) == 1 else None
        return only if isinstance(only, (ast.FunctionDef, ast.Lambda)) else None

    def _inner_call(self, node: ast.Call, inner: Function) -> str:
        if inner.args.vararg:
            raise self.unsupported(
                node,
                f"`{ast.unparse(node)}`: Numba passes only one argument to the *args of an inner function, "
                "so pass a tuple",
            )
        given = defaults(inner)
        starred = any(isinstance(a, ast.Starred) for a in node.args) or any(
            k.arg is None for k in node.keywords
        )
        if starred or not all(self._is_constant(default) for default in given.values()):
            function = self.inner_value(inner) if isinstance(inner, ast.Lambda) else self._variable(node.func)
            return self.used(node, self._held_call(node, function))
        signature = signature_of(inner)
        bound = self._bind(node, signature)
        texts = [
            self.text(bound[name] if (name := given_name(argument)) in bound else given[argument.arg])
            for argument in arguments(inner)
        ]
        return self.used(node, self.inner_call(self.inner_names[inner], texts))

    def inner_call(self, name: str, texts: list[str]) -> str:
        """Return the direct call of an inner function."""
        return call(name, "_m", *texts)

    def _variable(self, node: ast.expr) -> str:
        assert isinstance(node, ast.Name)
        return f"v_{node.id}"

    def _is_constant(self, node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Constant) or folded(node) is not None or self.names.static(node) is not None
        )

    def _check_one_function(self, node: ast.Call, callee: ast.Name) -> None:
        """Check that a variable that is called may hold one function of the kernel's source only."""
        self.refuse_several(node, callee.id, self.shapes.reaching(callee))

    def _Lambda(self, node: ast.Lambda) -> str:
        # A lambda that is assigned to a name stays here, unless the name is used as a value.
        return self.inner_value(node) if node in self.assigned else self.escaping(node)

    def escaping(self, inner: Function) -> str:
        """Return an inner function as a value that may leave the function, which Numba then compiles by itself."""
        for name in sorted(captured_by(inner)):
            if name in self.names.bound and not self._is_captured_constant(name):
                raise self.unsupported(
                    inner,
                    f"the capture of {name!r}, which is no constant, by a function that is a value "
                    f"(`{ast.unparse(inner).splitlines()[0]}`): pass {name} as an argument",
                )
        return self.inner_value(inner)

    def _is_captured_constant(self, name: str) -> bool:
        bound = self.names.bindings.get(name, [])
        if len(bound) != 1:
            return False
        only = bound[0]
        if isinstance(only, (ast.FunctionDef, ast.Lambda)):
            return all(self._is_captured_constant(n) for n in captured_by(only) if n in self.names.bound)
        return isinstance(only, ast.expr) and self._is_constant(only)

    def inner_value(self, inner: Function) -> str:
        """Return an inner function as a value, with the default values that its parameters have now."""
        signature = self.names.constant(signature_of(inner))
        values = [
            f"{given_name(a)!r}: {self.text(d)}"
            for a in arguments(inner)
            if (d := defaults(inner).get(a.arg))
        ]
        name = as_definition(inner).name
        return call(
            "InnerValue", repr(name), self.inner_names[inner], signature, "{" + ", ".join(values) + "}"
        )

    # Device functions.

    def _bind(self, node: ast.Call, signature: inspect.Signature) -> dict[str, Any]:
        """Return the expressions that a call gives to the parameters, by name."""
        try:
            return signature.bind(*node.args, **{str(k.arg): k.value for k in node.keywords}).arguments
        except TypeError as error:
            raise self.unsupported(node, f"`{ast.unparse(node)}`: {error}") from None

    def _device_call(self, node: ast.Call, function: Any, declared: list[Signature]) -> str:
        self.names.callees.add(function)
        if any(isinstance(a, ast.Starred) for a in node.args):
            value = self.names.constant(DeviceValue(function, declared))
            return self.used(node, self._held_call(node, value))
        if any(keyword.arg is None for keyword in node.keywords):
            raise self.unsupported(node, f"a starred argument (`{ast.unparse(node)}`): name each argument")
        signature = inspect.signature(function)
        given = self._bind(node, signature)
        for length in lengths_of_call(node, self.names):
            self.shapes.required(node, length, False)
        texts = []
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                raise self.unsupported(
                    node, f"**{name} in a device function (`{ast.unparse(node)}`): name its parameters"
                )
            if parameter.kind is parameter.VAR_POSITIONAL:
                texts.append("(" + "".join(f"{self.text(part)}, " for part in given.get(name, ())) + ")")
            elif name in given:
                texts.append(self.text(given[name]))
            else:
                texts.append(self.names.frozen(node, parameter.default))
        text = self.names.constant(function)
        made = call("call_device", text, "_rt", "_m", *texts)
        if declared:
            inside = f"lambda *_a: call_device({text}, _rt, _m, *_a)"
            made = call("call_signed", self.names.constant(declared), repr(function.__name__), inside, *texts)
        return self.used(node, made)

    def call(self, node: ast.Call, intrinsic: Intrinsic, texts: list[str]) -> str:
        """Return the call of an intrinsic."""
        lanes = ["_rt", "_m"] if intrinsic.masked else []
        function = (node is self.unused and intrinsic.unused) or intrinsic.function
        return call(self.names.constant(function), *lanes, *texts)

    # Arrays that a kernel declares.

    def _declaration(self, node: ast.Call, path: str) -> str:
        """Return the lane expression for an array that the kernel declares; each declaration makes a separate array."""
        parameters = ("array",) if path == "cuda.const.array_like" else ("shape", "dtype", "alignment")
        given = dict(zip(parameters, node.args, strict=False))
        given.update({str(k.arg): k.value for k in node.keywords})
        missing = [name for name in parameters if name not in given and name != "alignment"]
        if missing:
            raise self.unsupported(node, f"`{ast.unparse(node)}` without {missing[0]}")
        if len(given) != len(node.args) + len(node.keywords) or not set(given) <= set(parameters):
            raise self.unsupported(
                node, f"`{ast.unparse(node)}`, whose arguments are {', '.join(parameters)}"
            )
        if path == "cuda.const.array_like":
            return self.text(given["array"])
        if "alignment" in given:
            self._check_alignment(node, given["alignment"])
        space = "shared" if path == "cuda.shared.array" else "local"
        self.shapes.required(node, given["shape"], space == "shared")
        site = self.names.constant(Site(self.assigned.get(node, f"{space} array"), self.names.source))
        shape = self.text(given["shape"])
        dtype = self._declared_dtype(node, given["dtype"])
        dtype_text = self.text(given["dtype"]) if dtype is None else self.names.constant(dtype)
        if space == "shared":
            return call("_rt.shared_array", site, shape, dtype_text)
        return call("_rt.local_array", "_m", site, shape, dtype_text)

    def _kinds(self, node: ast.expr) -> tuple[Any, ...]:
        """Return the types that the second argument of ``isinstance`` names."""
        if isinstance(node, ast.Tuple):
            return tuple(kind for element in node.elts for kind in self._kinds(element))
        found = self.names.static(node)
        if found is None:
            raise self.unsupported(node, f"`{ast.unparse(node)}` as a type: give a type of Numba or NumPy")
        if (found.path or "").endswith("bfloat16"):
            return ("bfloat16",)
        return found.value if isinstance(found.value, tuple) else (found.value,)

    def _check_alignment(self, node: ast.Call, given: ast.expr) -> None:
        """Check the alignment of a declaration, which has no effect here: the machine's memory has no addresses."""
        found = self.names.static(given)
        number = folded(given)
        value = given.value if isinstance(given, ast.Constant) else number if found is None else found.value
        if value is None and (found is not None or isinstance(given, ast.Constant)):
            return
        if not isinstance(value, int):
            raise self.unsupported(node, f"`{ast.unparse(node)}`, whose alignment must be a constant integer")
        if value <= 0 or value & (value - 1) or value % 8:
            raise LaunchError(
                f"Alignment must be a power of 2 and a multiple of 8, got alignment={value}, "
                f"{file_name(self.names.file)}:{node.lineno}"
            )

    def _declared_dtype(self, node: ast.Call, given: ast.expr) -> np.dtype[Any] | None:
        """Return the dtype of a declaration, or None if only the running kernel knows it, as for ``x.dtype``."""
        found = self.names.static(given)
        value = given.value if isinstance(given, ast.Constant) else None if found is None else found.value
        if isinstance(value, str):
            try:
                return np.dtype(value)
            except TypeError:
                value = None
        elif isinstance(given, ast.Name) and any(value is kind for kind in (bool, int, float, complex)):
            value = None  # Numba takes them for functions
        elif found is None and not isinstance(given, ast.Constant):
            return None
        dtype = as_dtype(value)
        if dtype is None:
            raise self.unsupported(
                node, f"`{ast.unparse(node)}`, whose dtype must be a type of Numba or NumPy"
            )
        return dtype
