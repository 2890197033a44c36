"""Calls in a kernel, translated: of intrinsics, of device functions, and the declarations of arrays.

An intrinsic that needs its lanes gets the machine and the mask first: ``sqrt(x)`` becomes ``_c0(v_x)``,
``cuda.atomic.add(x, i, 1)`` becomes ``_c1(_rt, _m, v_x, v_i, _c2)``.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

import numpy as np

from ...errors import LaunchError
from ..language.functions import as_dtype
from ..language.intrinsic import Intrinsic
from ..language.intrinsics import DECLARATIONS, INTRINSICS
from ..language.signatures import Signature, signatures_of
from ..machine.arithmetic import lane_type
from ..machine.lanes import file_name
from ..machine.machine import Site
from .analysis.shapes import folded, lengths_of_call
from .expressions import Expressions, call
from .names import decorated_function


class Calls(Expressions):
    """Translator of expressions, calls included."""

    def _Call(self, node: ast.Call) -> str:
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            raise self.unsupported(node, f"a starred argument (`{ast.unparse(node)}`)")
        found = self.names.static(node.func)
        if found is None:
            if isinstance(node.func, ast.Attribute):
                receiver = self.text(node.func.value)
                arguments = self.texts(node.args)
                return call(call("attribute", "_m", receiver, repr(node.func.attr)), *arguments)
            raise self.unsupported(node, f"a call of a variable (`{ast.unparse(node)}`)")
        if found.path in DECLARATIONS:
            return self._declaration(node, found.path)
        text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if found.value is float and isinstance(text, str) and len(node.args) == 1:
            return self.names.constant(np.float64(text))
        function = decorated_function(found.value)
        if function is not None and found.path not in INTRINSICS:
            return self._device_call(node, function, signatures_of(found.value))
        if (
            isinstance(found.value, type)
            and issubclass(found.value, tuple)
            and hasattr(found.value, "_fields")
        ):
            return call(self.names.constant(lane_type(found.value)), *self._arguments(node))
        intrinsic = self.names.intrinsic(node.func)
        if intrinsic is None:
            callee = ast.unparse(node.func)
            if inspect.isfunction(found.value):
                raise self.unsupported(
                    node,
                    f"a call of the plain Python function {callee!r}: decorate it with @cuda.jit(device=True)",
                )
            raise self.unsupported(node, f"a call of `{callee}`")
        if found.path in ("cuda.grid", "cuda.gridsize") and not self._has_literal(node):
            raise self.unsupported(node, f"`{ast.unparse(node)}`, whose argument must be the literal 1, 2 or 3")
        return self.call(node, intrinsic, self._arguments(node))

    def _has_literal(self, node: ast.Call) -> bool:
        """Tell whether the only argument is a literal or a global number, in 1 .. 3."""
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if len(given) != 1:
            return False
        found = None if isinstance(given[0], ast.Constant) else self.names.static(given[0])
        value = given[0].value if isinstance(given[0], ast.Constant) else found and found.value
        return isinstance(value, (int, np.integer)) and value in (1, 2, 3)

    def _arguments(self, node: ast.Call) -> list[str]:
        keywords = [f"{keyword.arg}={self.text(keyword.value)}" for keyword in node.keywords]
        return self.texts(node.args) + keywords

    def call(self, node: ast.Call, intrinsic: Intrinsic, arguments: list[str]) -> str:
        """Return the call of an intrinsic."""
        lanes = ["_rt", "_m"] if intrinsic.masked else []
        function = (node is self.unused and intrinsic.unused) or intrinsic.function
        return call(self.names.constant(function), *lanes, *arguments)

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

    def _device_call(self, node: ast.Call, function: Any, declared: list[Signature]) -> str:
        self.callees.add(function)
        signature = inspect.signature(function)
        try:
            bound = signature.bind(*node.args, **{str(k.arg): k.value for k in node.keywords})
        except TypeError as error:
            raise self.unsupported(node, f"`{ast.unparse(node)}`: {error}") from None
        for length in lengths_of_call(node, self.names):
            self.shapes.required(node, length, False)
        arguments = []
        for name, parameter in signature.parameters.items():
            if name in bound.arguments:
                arguments.append(self.text(bound.arguments[name]))
            else:
                arguments.append(self.names.frozen(node, parameter.default))
        text = self.names.constant(function)
        made = call("call_device", text, "_rt", "_m", *arguments)
        if declared:
            inside = f"lambda *_a: call_device({text}, _rt, _m, *_a)"
            made = call(
                "call_signed", self.names.constant(declared), repr(function.__name__), inside, *arguments
            )
        return made if node is self.unused else call("returned", "_rt", made)
