"""Functions as values: device functions, intrinsics and inner functions that a variable of a kernel may hold.

All lanes hold the same function: Numba compiles a kernel for the functions that it is given. A call through a variable
therefore finds its function when it runs, and binds the arguments to the parameters then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ....errors import KernelError
from ...language.access import kind_of
from ...language.functions import caster
from ...language.intrinsic import Intrinsic
from ...language.signatures import Signature, call_signed
from ...language.types.function_values import FunctionValue
from ...machine.lanes import source_line
from ...machine.masks import Mask

Caller = Callable[..., Any]
"""``caller(function, machine, mask, *arguments)`` runs a device function."""


class DeviceValue(FunctionValue):
    """A device function.

    Parameters
    ----------
    function : function
        The plain Python function.
    signatures : list of Signature
        Its eager signatures.
    """

    def __init__(self, function: Any, signatures: list[Signature]) -> None:
        super().__init__(function.__name__, function)
        self.function = function
        self.signatures = signatures


class IntrinsicValue(FunctionValue):
    """An intrinsic or a type of namedtuple.

    Parameters
    ----------
    name : str
    intrinsic : Intrinsic
    """

    def __init__(self, name: str, intrinsic: Intrinsic) -> None:
        super().__init__(name, intrinsic.function)
        self.intrinsic = intrinsic


class InnerValue(FunctionValue):
    """A function or lambda inside a kernel.

    Parameters
    ----------
    name : str
    run : callable
        ``run(mask, *arguments)``, a function inside the lane program.
    signature : inspect.Signature
        The parameters; the default of a parameter tells only that it has one.
    defaults : dict
        Their lane values.
    """

    def __init__(
        self, name: str, run: Callable[..., Any], signature: inspect.Signature, defaults: dict[str, Any]
    ) -> None:
        super().__init__(name, run.__code__)
        self.run = run
        self.signature = signature
        self.defaults = defaults

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, InnerValue)
            and self.key == other.key
            and all(value is other.defaults[name] for name, value in self.defaults.items())
        )

    __hash__ = FunctionValue.__hash__


class OverloadedValue(FunctionValue):
    """A Python function that has implementations for kernels by the types of arguments.

    Parameters
    ----------
    name : str
    key : object
        The function.
    implementation : callable
        ``implementation(arguments, named, literals)`` returns the Python function that runs and its signatures.
    templates : list
        What it chooses from.
    """

    def __init__(self, name: str, key: Any, implementation: Callable[..., Any], templates: list[Any]) -> None:
        super().__init__(name, key)
        self.implementation = implementation
        self.templates = templates


def lane_value(value: Any) -> Any:
    """Return a default value of a device function as a lane value.

    Raises
    ------
    KernelError
        A kernel cannot hold it.
    """
    if value is None or isinstance(value, (str, np.generic, FunctionValue)):
        return value
    if isinstance(value, tuple):
        parts = [lane_value(item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, (bool, int, float, complex)):
        return np.bool_(value) if isinstance(value, bool) else np.asarray(value)[()]
    raise KernelError(
        f"a default value must be a number, a tuple, a text or None, got {value!r}, {source_line()}"
    )


def bound(
    name: str,
    signature: inspect.Signature,
    defaults: Mapping[str, Any] | None,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> list[Any]:
    """Return the arguments of a call in the order of the parameters.

    Raises
    ------
    KernelError
        They do not fit the parameters.
    """
    try:
        found = signature.bind(*arguments, **named).arguments
    except TypeError as error:
        raise KernelError(f"{name}(): {error}, {source_line()}") from None
    values = []
    for parameter in signature.parameters.values():
        if parameter.name in found:
            values.append(found[parameter.name])
        elif parameter.kind is parameter.VAR_POSITIONAL:
            values.append(())
        else:
            values.append(lane_value(parameter.default) if defaults is None else defaults[parameter.name])
    return values


def starred(value: Any) -> tuple[Any, ...]:
    """Return the arguments that ``*value`` stands for in a call."""
    if not isinstance(value, tuple):
        raise KernelError(f"*args in a call must be a tuple, got {kind_of(value)}, {source_line()}")
    return value


def call_value(
    caller: Caller,
    observed: Callable[[Intrinsic], Intrinsic],
    machine: Any,
    mask: Mask,
    value: Any,
    literals: Sequence[bool],
    /,
    *arguments: Any,
    **named: Any,
) -> Any:
    """Call what a variable holds.

    Parameters
    ----------
    caller : callable
        Runs a device function.
    observed : callable
        Returns the intrinsic that runs in the place of another one.
    machine, mask
        The machine and the active lanes.
    value : FunctionValue or dtype
    literals : sequence of bool
        Which of the first arguments are literals in the source.
    *arguments, **named
        Lane values.

    Raises
    ------
    KernelError
        It is no function, differs between the active lanes, or takes other arguments.
    """
    if isinstance(value, np.dtype):
        return caster(value)(*arguments)
    if not isinstance(value, FunctionValue):
        raise KernelError(f"only a function can be called, got {kind_of(value)}, {source_line()}")
    value = value.held(mask)
    if isinstance(value, InnerValue):
        given = bound(value.name, value.signature, value.defaults, arguments, named)
        return value.run(mask, *given)
    if isinstance(value, IntrinsicValue):
        intrinsic = observed(value.intrinsic)
        lanes = (machine, mask) if intrinsic.masked else ()
        return intrinsic.function(*lanes, *arguments, **named)
    if isinstance(value, OverloadedValue):
        function, signatures = value.implementation(arguments, named, literals)
    else:
        assert isinstance(value, DeviceValue)
        function, signatures = value.function, value.signatures
    given = bound(value.name, inspect.signature(function), None, arguments, named)
    if signatures:
        return call_signed(signatures, value.name, lambda *a: caller(function, machine, mask, *a), *given)
    return caller(function, machine, mask, *given)
