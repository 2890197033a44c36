"""Functions, methods and attributes that ``numba.cuda.extending`` gives to kernels, if they are written in Python.

An overload is a function of types that returns the function that runs. A lane program knows the types of its values
when it runs, so the overload is asked then, once for each combination of types.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ....errors import CompilationError, KernelError
from ...language.access import attribute, knows
from ...language.signatures import ArrayType, Scalar, Signature, signatures, type_of
from ...language.types.function_values import FunctionValue
from ...machine.lanes import source_line
from ...machine.masks import Mask
from .values import OverloadedValue


class _Numba(NamedTuple):
    context: Any
    types: Any
    from_dtype: Any
    ordered: Any
    typing_errors: tuple[type[Exception], ...]


@cache
def _numba() -> _Numba:
    from numba.cuda import types
    from numba.cuda.descriptor import cuda_target

    errors = dict.fromkeys(  # two classes of one name, or one
        sys.modules[name].TypingError
        for name in ("numba.cuda.core.errors", "numba.core.errors")
        if name in sys.modules
    )
    try:
        from numba.cuda.np.numpy_support import from_dtype
        from numba.cuda.utils import order_by_target_specificity as ordered
    except ImportError:
        from numba.np.numpy_support import from_dtype

        def ordered(templates: Any, fnkey: str = "") -> Any:
            return list(templates)

    return _Numba(cuda_target.typing_context, types, from_dtype, ordered, tuple(errors))


def for_cuda() -> Any:
    """Return the context manager in which Numba infers types for CUDA, not for the CPU."""
    from numba.cuda import compiler

    override = getattr(getattr(compiler, "utils", None), "numba_target_override", None)
    if override is None:
        from numba.core.target_extension import target_override

        return target_override("cuda")
    return override()


def _typing_context() -> Any:
    """Return Numba's typing context, with whatever has been registered since it was last asked for."""
    context = _numba().context
    with for_cuda():  # else ``cuda.warpsize`` would get the CPU's overloads, for good
        context.refresh()
    return context


def _loaded() -> bool:
    # The facade has no overloads; Numba's simulator has none either.
    return hasattr(sys.modules.get("numba.cuda.descriptor"), "cuda_target")


# Which overloads there are.

_values: weakref.WeakKeyDictionary[Any, OverloadedValue] = weakref.WeakKeyDictionary()


def _templates(function: Any) -> list[Any]:
    """Return the overloads of a function, the best for the target first."""
    if not _loaded() or not inspect.isfunction(function):
        return []
    numba = _numba()
    with suppress(Exception):  # Numba does not know the function
        found = _typing_context().resolve_value_type(function)
        ordered = numba.ordered(list(getattr(found, "templates", ())), function.__name__)
        return [template for template in ordered if _is_users(template)]
    return []


def _is_users(template: Any) -> bool:
    """Tell whether a template is an overload, and none of Numba's own: these the machine runs by itself."""
    function = getattr(template, "_overload_func", None)
    home = str(getattr(function, "__module__", "numba."))
    return not home.startswith("numba.") or ".tests." in home or _registers(function)


def _registers(function: Any) -> bool:
    """Tell whether an overload is one that ``register_jitable`` makes."""
    return getattr(function, "__name__", "") == "ov_wrap"


def overloaded(function: Any) -> OverloadedValue | None:
    """Return a Python function that has overloads as a value of kernels, else None."""
    templates = _templates(function)
    if not templates:
        return None
    known = _values.get(function)
    if known is None or known.templates != templates:
        find = _Implementation(function.__name__, templates)
        known = OverloadedValue(function.__name__, function, find, templates)
        _values[function] = known
    return known


def is_jitable(function: Any) -> bool:
    """Tell whether ``register_jitable`` has made a function callable from kernels as it is."""
    return any(
        _registers(template._overload_func)
        and any(cell.cell_contents is function for cell in template._overload_func.__closure__ or ())
        for template in _templates(function)
    )


def foreign(value: Any) -> str:
    """Return what keeps the machine from running a function that Numba can call, "" if Numba cannot call it."""
    home = str(getattr(value, "__module__", "")).partition(".")[0]
    if not _loaded() or home in ("builtins", "math", "cmath", "operator", "numpy"):
        return ""
    if type(value).__name__ in ("ExternFunction", "ExternalFunction"):
        return "which cuda.declare_device takes from foreign code: write it in Python with @cuda.jit(device=True)"
    with suppress(Exception):
        if isinstance(_typing_context().resolve_value_type(value), _numba().types.Callable):
            return "whose code is written with @intrinsic or lower_builtin: give it an @overload in Python"
    return ""


def has_member(name: str) -> bool:
    """Tell whether an overload gives some type an attribute or a method of this name."""
    # Not by the typing context, which takes long to load.
    modules = (sys.modules.get(f"numba.{part}.typing.templates") for part in ("cuda", "core"))
    registries = [getattr(module, "builtin_registry", None) for module in modules]
    found = [template for registry in registries for template in getattr(registry, "attributes", ())]
    if len(found) != _members[0]:
        names = {template._attr for template in found if hasattr(template, "_attr") and _is_users(template)}
        _members[:] = [len(found), names]
    if name not in _members[1] or not _loaded():
        return False
    _typing_context()
    return True


_members: list[Any] = [0, set()]
"""How many templates of attributes have been seen, and the names of those that users made."""


def member(value: Any, name: str, method: bool) -> OverloadedValue | None:
    """Return the overload that gives the type of a lane value an attribute or a method, else None."""
    if knows(value, name):
        return None  # the machine's own takes no loop in Python
    kind = numba_type(value, False)
    if kind is None:
        return None
    for template in _numba().context._get_attribute_templates(kind):
        of_name = getattr(template, "_attr", None) == name and getattr(template, "is_method", None) is method
        if of_name and _is_users(template):
            return overloaded(template._overload_func)
    return None


def call_member(
    machine: Any,
    mask: Mask,
    call_value: Any,
    value: Any,
    name: str,
    literals: Sequence[bool],
    /,
    *arguments: Any,
    **named: Any,
) -> Any:
    """``value.name(*arguments)``, where an overload may give the type of `value` that method."""
    found = member(value, name, True)
    if found is None:
        return attribute(mask, value, name)(*arguments, **named)
    return call_value(machine, mask, found, (False, *literals), value, *arguments, **named)


def member_of(machine: Any, mask: Mask, call_value: Any, value: Any, name: str) -> Any:
    """``value.name``, where an overload may give the type of `value` that attribute."""
    found = member(value, name, False)
    return attribute(mask, value, name) if found is None else call_value(machine, mask, found, (), value)


# Which implementation a call runs.


def numba_type(value: Any, literal: bool) -> Any:
    """Return Numba's type of a lane value; that of the value itself if it is a literal in the source."""
    numba = _numba()
    types = numba.types
    if value is None:
        return types.none
    if isinstance(value, str):
        return types.literal(value) if literal else types.unicode_type
    if isinstance(value, FunctionValue):
        return types.Dummy(f"function({value.name})")
    if isinstance(value, np.dtype):
        return types.DType(numba.from_dtype(value))
    if isinstance(value, tuple):
        parts = tuple(numba_type(item, False) for item in value)
        return types.BaseTuple.from_types(parts, type(value) if hasattr(value, "_fields") else None)
    if literal and isinstance(value, (np.integer, np.bool_)):
        return types.literal(value.item())
    found = type_of(value)
    if isinstance(found, ArrayType):
        return types.Array(
            numba.from_dtype(found.dtype), found.ndim, found.layout, readonly=not found.mutable
        )
    return numba.from_dtype(found.dtype) if isinstance(found, Scalar) else None


class _Implementation:
    """Finds the function that a call of an overloaded function runs.

    Parameters
    ----------
    name : str
        The overloaded function.
    templates : list
        Numba's overloads of it.
    """

    def __init__(self, name: str, templates: list[Any]) -> None:
        self.name = name
        self.templates = templates
        self.known: dict[Any, tuple[Any, list[Signature]]] = {}

    def __call__(
        self, arguments: Sequence[Any], named: dict[str, Any], literals: Sequence[bool]
    ) -> tuple[Any, list[Signature]]:
        """Return the function, and the signature that the overload gives it, if it does.

        Raises
        ------
        CompilationError
            No overload has an implementation for these types.
        """
        places = [*literals, *(False,) * (len(arguments) - len(literals))]
        plain = [numba_type(value, False) for value in arguments]
        literal = [numba_type(value, place) for value, place in zip(arguments, places, strict=True)]
        keywords = {name: numba_type(value, False) for name, value in named.items()}
        key = (*literal, *keywords.items())
        if key not in self.known:
            self.known[key] = self._find(plain, literal, keywords)
        return self.known[key]

    def _find(
        self, plain: list[Any], literal: list[Any], keywords: dict[str, Any]
    ) -> tuple[Any, list[Signature]]:
        errors: list[str] = []
        for template in self.templates:
            asked = [literal, plain] if template.prefer_literal else [plain, literal]
            for types in asked if literal != plain else asked[:1]:
                try:
                    inspect.signature(template._overload_func).bind(*types, **keywords)
                    found = template._overload_func(*types, **keywords)
                    if found is None:
                        continue
                    sig, function = found if isinstance(found, tuple) else (None, found)
                    if template._strict:
                        template._validate_sigs(template, template._overload_func, function)
                except Exception as error:
                    errors.append(str(error))
                    continue
                return function, [] if sig is None else signatures(sig)
        given = ", ".join([*map(str, plain), *(f"{name}={kind}" for name, kind in keywords.items())])
        why = errors[0] if errors else "no overload has an implementation for these types"
        raise typing_error(CompilationError)(
            f"Numba cannot compile {self.name}({given}): {why}, {source_line()}"
        )


def typing_error(kind: type[KernelError]) -> type[KernelError]:
    """Return an error of ours that is a TypingError of Numba too, as code that uses Numba expects."""
    return type(kind.__name__, (kind, *_numba().typing_errors), {"__module__": kind.__module__})
