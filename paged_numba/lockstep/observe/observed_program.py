"""The program of a kernel that is observed: it says which line runs, what it computes and where it waits."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ...errors import SynchronizationError
from ..compiler import analysis
from ..compiler.analysis import Accumulation
from ..compiler.expressions import Expressions
from ..compiler.translate import FunctionWriter, translate
from ..language import atomics, control, functions, intrinsics, synchronization
from ..language.functions import as_dtype
from ..language.intrinsics import INTRINSICS, GridGroup, Intrinsic
from ..machine import arithmetic
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .code import CodeFunction, CodeLine
from .observed_machine import ObservedMachine

# Arithmetic. A complex operation counts as the real ones that it is made of.


def _counted(
    function: Callable[..., Any], operations: int, special: int = 0, complex_operations: int = 0
) -> Callable[..., Any]:
    """Return `function` with the machine and the mask in front; it tells of floating-point operations."""

    def call(machine: ObservedMachine, mask: Mask, *values: Any, **named: Any) -> Any:
        result = function(*values, **named)
        dtype = getattr(result, "dtype", None)
        if dtype is not None and dtype.kind in "fc":
            machine.compute(mask, dtype, complex_operations if dtype.kind == "c" else operations, special)
        return result

    return call


def floordiv(machine: ObservedMachine, mask: Mask, a: Any, b: Any) -> Any:
    """``a // b``."""
    result = intrinsics.floordiv(machine, mask, a, b)
    machine.compute(mask, result.dtype, 0, 1)
    return result


def mod(machine: ObservedMachine, mask: Mask, a: Any, b: Any) -> Any:
    """``a % b``."""
    result = intrinsics.mod(machine, mask, a, b)
    machine.compute(mask, result.dtype, 0, 1)
    return result


def power_literal(machine: ObservedMachine, mask: Mask, a: Any, exponent: int) -> Any:
    """``a ** exponent``: the multiplications of repeated squaring, and a division if it is negative."""
    result = arithmetic.power_literal(a, exponent)
    bits = abs(exponent)
    products = max(0, bits.bit_length() - 1 + bits.bit_count() - 1) if bits else 0
    machine.compute(mask, result.dtype, products, int(exponent < 0))
    return result


_NO_ARITHMETIC = frozenset(
    "floor ceil trunc fabs copysign isnan isinf isfinite frexp modf ldexp nextafter fmin fmax".split()
)
_HALF_OPERATIONS = {"hadd": 1, "hsub": 1, "hmul": 1, "hfma": 2}
_HALF_SPECIAL = frozenset("hdiv hrcp hrsqrt hexp10 hsin hcos hlog hlog2 hlog10 hexp hexp2 hsqrt".split())


def _costs() -> dict[int, Callable[..., Any]]:
    """Map the identity of each function that computes to its counted version."""
    made: dict[int, Callable[..., Any]] = {}

    def add(function: Callable[..., Any], operations: int, special: int) -> None:
        made[id(function)] = _counted(function, operations, special, 4 * operations)

    tables = {**functions.MATH, "cbrt": functions.INTEGER_AND_FLOAT["cbrt"]}
    for name, function in tables.items():
        if name not in _NO_ARITHMETIC:
            add(function, *((1, 0) if name in ("degrees", "radians") else (0, 1)))
    for path, intrinsic in INTRINSICS.items():
        _, group, name = f"{path}..".split(".")[:3]
        if group == "libdevice":
            stem = name.removeprefix("fast_")
            stem = stem if stem in tables else stem.removesuffix("f")
            if stem == "fma":
                add(intrinsic.function, 2, 0)
            elif stem not in _NO_ARITHMETIC:
                add(intrinsic.function, 0, 1)
        elif group == "fp16":
            add(intrinsic.function, _HALF_OPERATIONS.get(name, 0), int(name in _HALF_SPECIAL))
    add(functions.fma, 2, 0)
    add(arithmetic.power, 0, 1)
    return made


COUNTED = _costs()

# Cooperation.


def _cooperative(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Return `function` so that it tells of itself, and of its errors where they are collected."""

    def call(machine: ObservedMachine, mask: Mask, *arguments: Any, **named: Any) -> Any:
        try:
            result = function(machine, mask, *arguments, **named)
        except SynchronizationError as error:
            if not machine.collects_errors:
                raise
            what = str(error).rsplit(", ", 1)[0]
            machine.tell_wrong(machine.first_lane(mask), "synchronization", what, None)
            result = arguments[1] if kind == "shuffle" else np.int32(0)
            if function is synchronization.match_all_sync:
                result = np.int32(0), np.bool_(False)
        members = None if kind in ("block", "grid") else _first_of(arguments, named)
        machine.tell("cooperate", mask, kind, members)
        return result

    return call


def _first_of(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if arguments:
        return arguments[0]
    return next(iter(named.values()), np.int64(synchronization.FULL_WARP))


def _atomic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an atomic operation that tells of itself."""
    whole = function is atomics.compare_and_swap

    def call(machine: ObservedMachine, mask: Mask, array: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(array, LaneArray) and array.buffer.flags.writeable and (whole or arguments):
            index = (np.int64(0),) if whole else arguments[0]
            index = index if isinstance(index, tuple) else (index,)
            if len(index) == len(array.lengths):
                position, mask = array.locate(mask, index)  # type: ignore[attr-defined]
                if mask is False:
                    return np.zeros(machine.shape, array.dtype)
                machine.tell("atomic", array, mask, position, function is atomics.exch)
        return function(machine, mask, array, *arguments, **named)

    return call


class ObservedGridGroup(GridGroup):
    """What ``cuda.cg.this_grid()`` returns."""

    def __init__(self, machine: ObservedMachine, mask: Mask) -> None:
        self.sync = lambda: sync_grid(machine, mask)


sync_grid = _cooperative(synchronization.sync_grid, "grid")

_KINDS = {
    "block": "syncthreads syncthreads_count syncthreads_and syncthreads_or",
    "syncwarp": "syncwarp",
    "shuffle": "shfl_sync shfl_up_sync shfl_down_sync shfl_xor_sync",
    "vote": "all_sync any_sync ballot_sync eq_sync match_any_sync match_all_sync",
}

TOLD: dict[int, Callable[..., Any]] = {
    **{
        id(getattr(synchronization, name)): _cooperative(getattr(synchronization, name), kind)
        for kind, names in _KINDS.items()
        for name in names.split()
    },
    **{
        id(intrinsic.function): _atomic(intrinsic.function)
        for path, intrinsic in INTRINSICS.items()
        if path.startswith("cuda.atomic.")
    },
    id(GridGroup): ObservedGridGroup,
}


def narrowed(machine: ObservedMachine, mask: Mask, dtype: Any, value: Any) -> Any:
    """``int32(value)`` on its way to an index."""
    if value.dtype.kind in "iu" and value.dtype.itemsize >= dtype.itemsize and value.dtype != dtype:
        machine.tell("narrowed", mask, value, dtype)
    return value.astype(dtype)


# The program.


class ObservedExpressions(Expressions):
    """Expressions that tell what they compute."""

    @cached_property
    def index_casts(self) -> set[ast.Call]:
        """The calls whose results flow into an index."""
        return analysis.calls_in_indices(self.definition)

    def operation(self, node: ast.AST, op: ast.operator, left: str, right: str) -> str:
        plain = super().operation(node, op, left, right)
        if not isinstance(op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)):
            return plain
        if left in self.constants and right in self.constants:
            return f"folded_{plain}"
        return plain.replace("(", "(_rt, _m, ", 1)

    def power_literal(self, base: str, exponent: int) -> str:
        plain = super().power_literal(base, exponent)
        return f"folded_{plain}" if base in self.constants else plain.replace("(", "(_rt, _m, ", 1)

    def call(self, node: ast.Call, intrinsic: Intrinsic, arguments: list[str]) -> str:
        counted = COUNTED.get(id(intrinsic.function)) or TOLD.get(id(intrinsic.function))
        if counted is None and isinstance(intrinsic.function, np.ufunc):
            counted = _counted(intrinsic.function, 0, 1)
        if counted is not None:
            return f"{self.constant(counted)}({', '.join(['_rt', '_m', *arguments])})"
        found = self.static(node.func)
        dtype = None if found is None else as_dtype(found.value)
        if (
            node in self.index_casts
            and len(arguments) == 1
            and dtype is not None
            and dtype.kind == "i"
            and dtype.itemsize < 8
        ):
            return f"narrowed(_rt, _m, {self.constant(dtype)}, {arguments[0]})"
        return super().call(node, intrinsic, arguments)


def call_device(function: Any, machine: ObservedMachine, mask: Mask, *arguments: Any) -> Any:
    """Call a device function in the active lanes, and come back to the line that called it."""
    line = machine.line
    result = translate(function, writer=ObservedWriter).function(machine, mask, *arguments)
    machine.line = line
    return result


def each(mask: Mask, values: Any) -> Iterator[tuple[Any, None]]:
    """Go through a tuple or the first axis of an array; its elements are loaded by the line of the loop."""
    if not isinstance(values, LaneArray):
        yield from control.each(mask, values)
        return
    machine: Any = values.machine
    line = machine.line
    items = control.each(mask, values)
    while True:
        machine.line = line
        item = next(items, None)
        if item is None:
            return
        yield item


class ObservedWriter(FunctionWriter):
    """Writes the lane program of a function that is observed."""

    names: ClassVar[dict[str, Any]] = {
        **FunctionWriter.names,
        "add": _counted(arithmetic.add, 1, 0, 2),
        "sub": _counted(arithmetic.sub, 1, 0, 2),
        "mul": _counted(arithmetic.mul, 1, 0, 6),
        "truediv": _counted(arithmetic.truediv, 0, 1),
        "power": _counted(arithmetic.power, 0, 1),
        # What is made of literals, a compiler folds.
        **{
            f"folded_{name}": getattr(arithmetic, name)
            for name in ("add", "sub", "mul", "truediv", "power", "power_literal")
        },
        **{
            function.__name__: function
            for function in (call_device, each, floordiv, mod, narrowed, power_literal)
        },
    }
    expressions_type: ClassVar[type[Expressions]] = ObservedExpressions

    def __init__(self, function: Any, definition: ast.FunctionDef, file: str, kernel: bool) -> None:
        super().__init__(function, definition, file, kernel)
        self.code = CodeFunction.of(function)
        self.code_lines: dict[tuple[int, bool], CodeLine] = {}

    def begin(self, statement: ast.stmt) -> None:
        silent = isinstance(statement, (ast.Pass, ast.Break, ast.Continue, ast.While)) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        )
        if not silent:
            self.begin_iteration(statement)

    def begin_iteration(self, statement: ast.stmt) -> None:
        copies = (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Subscript)
            and isinstance(statement.value, ast.Subscript)
        )
        line = self.code_lines.setdefault(
            (statement.lineno, copies), CodeLine(self.code, statement.lineno, copies)
        )
        self.emit(f"_rt.at({self.expressions.constant(line)}, _m)")

    def accumulation(self, node: ast.For) -> Accumulation | None:
        # Every iteration is told of.
        return None
