"""Lane programs that report to observers: the line that runs, its floating-point operations, how threads cooperate.

`ObservedWriter` writes the program of a kernel with a call ``_rt.begin_statement(line, _m)`` before each statement,
and with operators and intrinsics that report what they do. Accesses to memory are reported by `ObservedArray`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any, ClassVar

import numpy as np

from ...errors import SynchronizationError
from ..compiler.analysis import syntax
from ..compiler.analysis.scopes import parameters
from ..compiler.analysis.syntax import Accumulation, Region
from ..compiler.expressions import call
from ..compiler.functions.calls import Calls
from ..compiler.functions.values import call_value as call_held
from ..compiler.names import Names
from ..compiler.translate import FunctionWriter, run_device, translate
from ..language import intrinsics, synchronization
from ..language.arrays import iteration
from ..language.intrinsic import Intrinsic
from ..machine import arithmetic
from ..machine.masks import Mask
from .code import CodeFunction, CodeLine
from .observed_array import FromTheEnd
from .observed_machine import ObservedMachine

# Arithmetic.


def _counted(
    function: Callable[..., Any], operations: int = 0, special: int = 0, complex_operations: int = 0
) -> Callable[..., Any]:
    """Return `function` with the machine and the mask as first parameters; it reports floating-point operations.

    A complex operation counts as its real operations.
    """

    def counted(machine: ObservedMachine, mask: Mask, *values: Any, **named: Any) -> Any:
        result = function(*values, **named)
        dtype = getattr(result, "dtype", None)
        if dtype is not None and dtype.kind in "fc":
            machine.compute(mask, dtype, complex_operations if dtype.kind == "c" else operations, special)
        return result

    return counted


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
    """``a ** exponent``: the multiplications of repeated squaring, and a division if the exponent is negative."""
    result = arithmetic.power_literal(a, exponent)
    bits = abs(exponent)
    products = max(0, bits.bit_length() - 1 + bits.bit_count() - 1) if bits else 0
    machine.compute(mask, result.dtype, products, int(exponent < 0))
    return result


# Intrinsics.


def _cooperative(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Wrap `function` to report each call, and its errors if the observers collect them."""

    def cooperate(machine: ObservedMachine, mask: Mask, *arguments: Any, **named: Any) -> Any:
        in_turns = kind in ("block", "grid") and machine.rendezvous is not None
        try:
            result = function(machine, mask, *arguments, **named)
        except SynchronizationError as error:
            if not machine.collects_errors:
                raise
            machine.tell_wrong(machine.first_lane(mask), "synchronization", error.what)
            result = arguments[1] if kind == "shuffle" else np.int32(0)
            if function is synchronization.match_all_sync:
                result = np.int32(0), np.bool_(False)
        else:
            if in_turns:
                return result  # the meeting of the warps has been reported
            if kind == "block":
                machine.tell_exited(mask)
        members = None if kind in ("block", "grid") else _first_of(arguments, named)
        machine.tell("cooperate", mask, kind, members)
        return result

    return cooperate


def _first_of(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if arguments:
        return arguments[0]
    return next(iter(named.values()), np.int64(synchronization.FULL_WARP))


@cache
def _observed(intrinsic: Intrinsic) -> Intrinsic:
    """Return an intrinsic that does the same and reports each call."""
    if intrinsic.kind == "grid":
        sync = _cooperative(synchronization.sync_grid, "grid")
        return replace(intrinsic, function=partial(synchronization.GridGroup, sync=sync))
    if intrinsic.kind in ("block", "syncwarp", "shuffle", "vote"):
        return replace(intrinsic, function=_cooperative(intrinsic.function, intrinsic.kind))
    if intrinsic.operations or intrinsic.special:
        counted = _counted(intrinsic.function, intrinsic.operations, intrinsic.special)
        return replace(intrinsic, function=counted, masked=True)
    return intrinsic


def narrowed(machine: ObservedMachine, mask: Mask, dtype: Any, value: Any) -> Any:
    """``int32(value)`` whose result flows into an index."""
    if value.dtype.kind in "iu" and value.dtype.itemsize >= dtype.itemsize and value.dtype != dtype:
        machine.tell("narrowed", mask, value, dtype)
    return arithmetic.cast(value, dtype)


# The program.


class ObservedExpressions(Calls):
    """Translator of expressions into calls that report what they compute."""

    @cached_property
    def code(self) -> CodeFunction:
        """The function, as reports show it."""
        return CodeFunction.of(self.names.source)

    def reported(self, name: str, value: str) -> str:
        """Return the call that reports the value of a variable, and returns it."""
        return call("_rt.assigned", "_m", self.names.constant(self.code), repr(self.names.shown(name)), value)

    def _NamedExpr(self, node: ast.NamedExpr) -> str:
        return self.reported(node.target.id, super()._NamedExpr(node))

    @cached_property
    def index_casts(self) -> set[ast.Call]:
        """The calls whose results flow into an index."""
        return syntax.calls_in_indices(self.definition, self._is_atomic)

    def _is_atomic(self, callee: ast.expr) -> bool:
        intrinsic = self.names.intrinsic(callee)
        return intrinsic is not None and intrinsic.kind == "atomic"

    def arithmetic(self, name: str, operands: list[str], *literals: str) -> str:
        if all(operand in self.names.constants for operand in operands):
            # A compiler folds constants: the operation does not count.
            return call(f"folded_{name}", *operands, *literals)
        return call(name, "_rt", "_m", *operands, *literals)

    def index(self, node: ast.expr) -> str:
        text = super().index(node)
        number = self.names.constants.get(text)
        if isinstance(number, np.signedinteger) and number < 0:
            return self.names.constant(FromTheEnd(number))
        return text

    def inner_call(self, name: str, texts: list[str]) -> str:
        return call("call_inner", "_rt", "_m", name, *texts)

    def call(self, node: ast.Call, intrinsic: Intrinsic, arguments: list[str]) -> str:
        if intrinsic.kind in ("atomic", "store") and len(node.args) > 2:
            arguments = [arguments[0], self.index(node.args[1]), *arguments[2:]]
        dtype = self.names.dtype(node.func)
        if (
            node in self.index_casts
            and len(arguments) == 1
            and dtype is not None
            and dtype.kind == "i"
            and dtype.itemsize < 8
        ):
            return call("narrowed", "_rt", "_m", self.names.constant(dtype), *arguments)
        return super().call(node, _observed(intrinsic), arguments)


def call_device(function: Any, machine: ObservedMachine, mask: Mask, *arguments: Any) -> Any:
    """Call a device function in the active lanes; afterwards restore the line of the call."""
    line = machine.line
    result = run_device(translate(function, writer=ObservedWriter), machine, mask, *arguments)
    machine.line = line
    return result


def call_inner(machine: ObservedMachine, mask: Mask, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call an inner function in the active lanes; afterwards restore the line of the call."""
    line = machine.line
    result = function(mask, *arguments)
    machine.line = line
    return result


def call_value(machine: ObservedMachine, mask: Mask, value: Any, /, *rest: Any, **named: Any) -> Any:
    """Call what a variable holds; afterwards restore the line of the call."""
    line = machine.line
    result = call_held(call_device, _observed, machine, mask, value, *rest, **named)
    machine.line = line
    return result


def each(
    machine: ObservedMachine, lanes: Callable[[], Mask], values: Any
) -> Iterator[tuple[Any, Mask | None]]:
    """Iterate as `iteration.each` does; the items count as loaded by the line of the loop."""
    line = machine.line
    items = iteration.each(machine, lanes, values)
    while True:
        machine.line = line
        item = next(items, None)
        if item is None:
            return
        yield item


class ObservedWriter(FunctionWriter):
    """Writer of the lane program of an observed function."""

    expressions_type = ObservedExpressions
    expressions: ObservedExpressions
    compacts = False  # observers see all lanes
    vocabulary: ClassVar[dict[str, Any]] = {
        **FunctionWriter.vocabulary,
        "add": _counted(arithmetic.add, 1, complex_operations=2),
        "sub": _counted(arithmetic.sub, 1, complex_operations=2),
        "mul": _counted(arithmetic.mul, 1, complex_operations=6),
        "truediv": _counted(arithmetic.truediv, special=1),
        "power": _counted(arithmetic.power, special=1),
        **{
            f"folded_{name}": getattr(arithmetic, name)
            for name in ("add", "sub", "mul", "truediv", "power", "power_literal")
        },
        **{
            function.__name__: function
            for function in (
                call_device,
                call_inner,
                call_value,
                each,
                floordiv,
                mod,
                narrowed,
                power_literal,
            )
        },
    }

    def __init__(
        self, names: Names, definition: ast.FunctionDef, kernel: bool, outer: ObservedWriter | None = None
    ) -> None:
        super().__init__(names, definition, kernel, outer)
        if outer is not None:
            self.expressions.code = outer.code
        self.code: CodeFunction = self.expressions.code
        self.code_lines: dict[tuple[int, bool], CodeLine] = {} if outer is None else outer.code_lines

    def begin(self, statement: ast.stmt) -> None:
        silent = (
            isinstance(statement, (ast.Pass, ast.Break, ast.Continue, ast.While))
            or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            or (isinstance(statement, ast.AnnAssign) and statement.value is None)
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
        self.emit(call("_rt.begin_statement", self.names.constant(line), "_m"))

    def statements(self, body: Sequence[ast.stmt], region: Region) -> None:
        if body is self.definition.body:
            given = parameters(self.definition)
            if self.outer is None:
                texts = [f"{name}=v_{name}" for name in given]
                self.emit(call("_rt.enter", "_m", self.names.constant(self.code), *texts))
            for name in given if self.outer is not None else ():
                self.emit(self.expressions.reported(name, f"v_{name}"))
        super().statements(body, region)

    def assign(self, target: ast.expr, value: str) -> None:
        super().assign(target, value)
        if isinstance(target, ast.Name):
            self.emit(self.expressions.reported(target.id, f"v_{target.id}"))

    def branch(self, tested: str, held: str) -> None:
        self.emit(call("_rt.branch", tested, held))

    def accumulation(self, node: ast.For) -> Accumulation | None:
        # Observers see one iteration after the other.
        return None
