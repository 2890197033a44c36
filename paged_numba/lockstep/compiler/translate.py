"""Translate the source of a kernel into a Python function over lane values.

Each statement becomes one or a few operations on whole arrays of lanes under a mask, ``_m``; control
flow becomes changes of that mask. `lane_program` shows the result. Lines keep their numbers, so that
errors and tracebacks point into the kernel.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ...errors import UnsupportedConstructError
from ..language.control import NAMES
from ..machine.lanes import SOURCE_MARK
from ..machine.machine import Machine
from ..machine.masks import Mask
from . import analysis
from .analysis import FUNCTION, Accumulation, Region
from .at_once import accumulate, at_once, latest
from .expressions import Expressions

Lanes = Callable[..., Any]
"""A translated function: ``function(machine, mask, *arguments)``."""

_translated: weakref.WeakKeyDictionary[Any, dict[tuple[bool, type], Translation]] = (
    weakref.WeakKeyDictionary()
)


class Translation:
    """A translated function and the text that it was compiled from."""

    def __init__(self, function: Lanes, text: str) -> None:
        self.function = function
        self.text = text


def translate(
    function: Any, *, kernel: bool = False, writer: type[FunctionWriter] | None = None
) -> Translation:
    """Translate a Python function, once.

    Parameters
    ----------
    function : function
        What ``@cuda.jit`` was given.
    kernel : bool
        Whether a return ends the thread, rather than a device function.
    writer : type, optional
        What writes the program; `FunctionWriter` if None.

    Raises
    ------
    UnsupportedConstructError
        Where the source cannot be had, or uses Python that the machine does not run.
    """
    versions = _translated.setdefault(function, {})
    key = kernel, writer or FunctionWriter
    if key not in versions:
        versions[key] = _translate(function, *key)
    return versions[key]


def call_device(function: Any, machine: Machine, mask: Mask, *arguments: Any) -> Any:
    """Call a device function in the active lanes."""
    return translate(function).function(machine, mask, *arguments)


def lane_program(function: Any) -> str:
    """Return the lane program of a kernel: the Python function over lane values into which it is translated, as text.

    Raises
    ------
    UnsupportedConstructError
        The kernel uses Python that the machine does not run, or its source cannot be read.

    Examples
    --------
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def double(x):
    ...     x[cuda.grid(1)] *= 2
    >>> lockstep.lane_program(double).startswith("def double(")
    True
    """
    return translate(getattr(function, "py_func", function), kernel=True).text


def _translate(function: Any, kernel: bool, writer_type: type[FunctionWriter]) -> Translation:
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or "<unknown>"
    except (OSError, TypeError) as error:
        raise UnsupportedConstructError(
            f"the source of {getattr(function, '__name__', function)!r} must be readable: {error}"
        ) from None
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise UnsupportedConstructError(
            f"a kernel must be written with def, got {type(definition).__name__}, {file}:{first}"
        )
    writer = writer_type(function, definition, file, kernel)
    text, numbers = writer.write()
    program = ast.parse(text)
    for node in ast.walk(program):
        if isinstance(node, (ast.stmt, ast.expr)):
            place = numbers[node.lineno - 1]
            node.lineno = node.end_lineno = place
            node.col_offset = node.end_col_offset = 0
    names = {
        **writer.names,
        **writer.expressions.constants,
        SOURCE_MARK: file,
    }
    namespace = dict(names)
    exec(compile(program, file, "exec"), namespace)
    translated = namespace[definition.name]
    # A kernel may be called `add` or `load`, as the program's helpers are.
    namespace.update(names)
    return Translation(translated, text)


class FunctionWriter:
    """Writes the lane program of one function, line by line.

    Names in the program: ``v_x`` is the kernel's variable x, ``_m`` the mask of active lanes, ``_h`` masks
    of home regions, ``_s`` masks saved around a statement, ``_l`` lanes still in a loop, ``_r`` lanes that
    have returned, ``_v`` the value they return.

    Attributes
    ----------
    names : dict
        The globals of every program.
    """

    names: ClassVar[dict[str, Any]] = {
        **NAMES,
        **{function.__name__: function for function in (accumulate, at_once, call_device, latest)},
    }
    expressions_type: ClassVar[type[Expressions]] = Expressions

    def __init__(self, function: Any, definition: ast.FunctionDef, file: str, kernel: bool) -> None:
        self.definition = definition
        self.kernel = kernel
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self.depth = 0
        self.counter = 0
        self.loops: list[tuple[ast.stmt, int]] = []
        self.homes = analysis.homes(definition)
        self.regions: dict[Region, int] = {FUNCTION: 0}
        self.expressions = self.expressions_type(function, definition, file, self.home_mask)
        self.unsupported = self.expressions.unsupported
        self.line = definition.lineno

    # Writing.

    def emit(self, text: str) -> None:
        self.lines.append(" " * self.depth + text)
        self.numbers.append(self.line)

    def fresh(self) -> int:
        self.counter += 1
        return self.counter

    def home_mask(self, name: str) -> str:
        """Return the name of the mask of a variable's home region."""
        home = self.homes.get(name, FUNCTION)
        return f"_h{self.regions[home]}"

    def enter(self, region: Region) -> None:
        """Note the mask with which a region is entered, if a variable is at home there."""
        if region in self.homes.values():
            self.regions.setdefault(region, len(self.regions))
            self.emit(f"_h{self.regions[region]} = _m")

    def write(self) -> tuple[str, list[int]]:
        """Return the program and, for each of its lines, the line of the kernel."""
        arguments = self.definition.args
        if arguments.vararg or arguments.kwarg:
            raise self.unsupported(self.definition, "*args and **kwargs in a kernel")
        parameters = [argument.arg for argument in arguments.posonlyargs + arguments.args]
        parameters += [argument.arg for argument in arguments.kwonlyargs]
        self.emit(f"def {self.definition.name}({', '.join(['_rt', '_m', *(f'v_{p}' for p in parameters)])}):")
        self.depth += 1
        self.emit("_h0 = _m")
        self.emit("_r = False")
        self.emit("_v = UNSET")
        for name in sorted(analysis.variables(self.definition) - set(parameters)):
            self.emit(f"v_{name} = Unset({name!r})")
        self.statements(self.definition.body, FUNCTION)
        self.emit("return None if _v is UNSET else _v")
        return "\n".join(self.lines) + "\n", self.numbers

    def statements(self, body: Sequence[ast.stmt], region: Region) -> None:
        """Write a statement list; what follows one that lanes may leave runs only if some are left."""
        depth = self.depth
        for position, statement in enumerate(body):
            self.line = statement.lineno
            method = getattr(self, f"write_{type(statement).__name__}", None)
            if method is None:
                raise self.unsupported(statement)
            self.begin(statement)
            method(statement, region)
            if isinstance(statement, (ast.Return, ast.Break, ast.Continue)):
                break
            ways = analysis.leaves([statement])
            if ways and position + 1 < len(body):
                self.emit("if _m is not False:")
                self.depth += 1
                if region in self.regions and not ("continue" in ways and self._is_loop_body(region)):
                    # The lanes that left do not come back to this region.
                    self.emit(f"_h{self.regions[region]} = _m")
        self.depth = depth

    def begin(self, statement: ast.stmt) -> None:
        """Write what comes before a statement: nothing, unless the program is observed."""

    begin_iteration = begin
    """Write what comes before an iteration of a loop, with its mask in place."""

    def accumulation(self, node: ast.For) -> Accumulation | None:
        """Return what the loop adds up if its iterations may run at once."""
        return analysis.accumulation(node, self.expressions.is_cast)

    @staticmethod
    def _is_loop_body(region: Region) -> bool:
        return bool(region) and isinstance(region[-1], (ast.For, ast.While))

    # Simple statements.

    def write_Pass(self, node: ast.Pass, region: Region) -> None:
        self.emit("pass")

    def write_Expr(self, node: ast.Expr, region: Region) -> None:
        if isinstance(node.value, ast.Constant):
            return
        self.emit(self.expressions.discarded(node.value))

    def write_Assign(self, node: ast.Assign, region: Region) -> None:
        value = self.expressions.text(node.value)
        if len(node.targets) == 1:
            self.assign(node.targets[0], value)
            return
        temporary = f"_t{self.fresh()}"
        self.emit(f"{temporary} = {value}")
        for target in node.targets:
            self.assign(target, temporary)

    def write_AnnAssign(self, node: ast.AnnAssign, region: Region) -> None:
        if node.value is not None:
            self.assign(node.target, self.expressions.text(node.value))

    def write_AugAssign(self, node: ast.AugAssign, region: Region) -> None:
        value = self.expressions.text(node.value)
        if isinstance(node.target, ast.Name):
            old = self.expressions.variable(node.target)
            self.assign(node.target, self.expressions.operation(node, node.op, old, value))
            return
        where = self.fresh()
        if isinstance(node.target, ast.Subscript):
            self.emit(f"_t{where} = {self.expressions.text(node.target.value)}")
            self.emit(f"_i{where} = {self.expressions.index(node.target.slice)}")
            old = f"load(_m, _t{where}, _i{where})"
            new = self.expressions.operation(node, node.op, old, value)
            self.emit(f"store(_m, _t{where}, _i{where}, {new})")
        elif isinstance(node.target, ast.Attribute):
            name = repr(node.target.attr)
            self.emit(f"_t{where} = {self.expressions.text(node.target.value)}")
            old = f"attribute(_m, _t{where}, {name})"
            new = self.expressions.operation(node, node.op, old, value)
            self.emit(f"set_attribute(_m, _t{where}, {name}, {new})")

    def assign(self, target: ast.expr, value: str) -> None:
        if isinstance(target, ast.Name):
            home, name = self.home_mask(target.id), f"v_{target.id}"
            if value.isidentifier():
                self.emit(f"{name} = {value} if _m is {home} else blend(_m, {value}, {name})")
            else:
                self.emit(f"_t = {value}")
                self.emit(f"{name} = _t if _m is {home} else blend(_m, _t, {name})")
        elif isinstance(target, (ast.Tuple, ast.List)):
            temporary = f"_t{self.fresh()}"
            parts = [f"{temporary}_{i}" for i in range(len(target.elts))]
            self.emit(f"{', '.join(parts)}, = unpack(_m, {value}, {len(parts)})")
            for element, part in zip(target.elts, parts, strict=True):
                self.assign(element, part)
        elif isinstance(target, ast.Subscript):
            array, index = self.expressions.text(target.value), self.expressions.index(target.slice)
            self.emit(f"store(_m, {array}, {index}, {value})")
        elif isinstance(target, ast.Attribute):
            self.emit(f"set_attribute(_m, {self.expressions.text(target.value)}, {target.attr!r}, {value})")
        else:
            raise self.unsupported(target)

    def write_Assert(self, node: ast.Assert, region: Region) -> None:
        number = self.fresh()
        message = ast.unparse(node.msg) if node.msg is not None else ast.unparse(node.test)
        self.emit(f"_t{number} = narrow(_m, logical_not({self.expressions.text(node.test)}))")
        self.emit(f"if _t{number} is not False:")
        self.emit(f" raise_in_kernel(_rt, _t{number}, {f'assertion failed: {message}'!r})")

    def write_Raise(self, node: ast.Raise, region: Region) -> None:
        what = "raise" if node.exc is None else ast.unparse(node.exc)
        self.emit(f"raise_in_kernel(_rt, _m, {what!r})")

    # Control flow.

    def write_If(self, node: ast.If, region: Region) -> None:
        n = self.fresh()
        test = self.expressions.text(node.test)
        ways = analysis.leaves([node])
        both = bool(node.orelse) or bool(ways)
        self.emit(f"_t{n}, _e{n} = split(_m, {test})" if both else f"_t{n} = narrow(_m, {test})")
        self.emit(f"_s{n} = _m")
        if ways:
            self.emit(f"_a{n}, _b{n} = _t{n}, _e{n}")
        for branch, entered, left, part in (
            (node.body, f"_t{n}", f"_a{n}", "body"),
            (node.orelse, f"_e{n}", f"_b{n}", "orelse"),
        ):
            if not branch:
                continue
            self.emit(f"if {entered} is not False:")
            self.depth += 1
            self.emit(f"_m = {entered}")
            inner = (*region, node, part)
            self.enter(inner)
            self.statements(branch, inner)
            if ways:
                self.emit(f"{left} = _m")
            self.depth -= 1
        self.emit(f"_m = join(_s{n}, _t{n}, _a{n}, _e{n}, _b{n})" if ways else f"_m = _s{n}")

    def write_For(self, node: ast.For, region: Region) -> None:
        n = self.fresh()
        self.emit(f"_s{n} = _l{n} = _m")
        iteration = self.expressions.iteration(node.iter)
        depth = self.depth
        found = self.accumulation(node)
        if found is not None and iteration.startswith("trips(_m, "):
            self.write_at_once(found, n, iteration.removeprefix("trips(_m, "), (*region, node))
            self.emit(f"if _g{n} is None:")
            self.depth += 1
        self.emit(f"for _i{n}, _n{n} in {iteration}:")
        self.depth += 1
        self.emit(f"_m = _l{n} if _n{n} is None else narrow(_l{n}, _n{n})")
        self.emit("if _m is False: break")
        self.begin_iteration(node)
        inner = (*region, node)
        self.enter(inner)
        self.assign(node.target, f"_i{n}")
        self.loop_body(node, n, inner)
        self.depth = depth

    def write_at_once(self, found: Accumulation, n: int, bounds: str, inner: Region) -> None:
        """Write the loop with its iterations along a third axis; ``_g`` is None where that cannot be."""
        self.emit(f"_g{n} = at_once(_rt, _m, {bounds}")
        self.emit(f"if _g{n} is not None:")
        self.depth += 1
        names = [found.variable, *(name for name, _, _ in found.steps)]
        variables = ", ".join(f"v_{name}" for name in names)
        self.emit(f"_k{n} = ({variables},)")
        self.emit("try:")
        self.depth += 1
        self.emit(f"v_{found.variable} = _g{n}")
        results = [f"latest(v_{found.variable})"]
        for i, (name, value, added) in enumerate(found.steps):
            text = self.expressions.text(value)
            if added:
                self.emit(f"_a{n}_{i} = accumulate(v_{name}, {text})")
                results.append(f"_a{n}_{i}")
            else:
                self.emit(f"v_{name} = {text}")
                results.append(f"latest(v_{name})")
        temporaries = [f"_f{n}_{i}" for i in range(len(names))]
        self.emit(f"{', '.join(temporaries)}, = {', '.join(results)},")
        self.emit(f"{variables}, = _k{n}")
        self.enter(inner)
        for name, temporary in zip(names, temporaries, strict=True):
            self.assign(ast.Name(name), temporary)
        self.depth -= 1
        self.emit("except Exception:")
        self.emit(f" {variables}, = _k{n}")
        self.emit(f" _g{n} = None")
        self.depth -= 1

    def write_While(self, node: ast.While, region: Region) -> None:
        n = self.fresh()
        self.emit(f"_s{n} = _l{n} = _m")
        self.emit(f"_o{n} = False")
        self.emit(f"while _l{n} is not False:")
        self.depth += 1
        self.emit(f"_m = _l{n}")
        self.begin_iteration(node)
        self.emit(f"_m = narrow(_m, {self.expressions.text(node.test)})")
        if node.orelse:
            # Lanes whose condition failed run the `else`; those that broke out do not.
            self.emit(f"_o{n} = union(_o{n}, minus(_l{n}, _m))")
        self.emit(f"_l{n} = _m")
        self.emit("if _m is False: break")
        inner = (*region, node)
        self.enter(inner)
        self.loop_body(node, n, inner)

    def loop_body(self, node: ast.For | ast.While, n: int, inner: Region) -> None:
        """Write the body of a loop, its ``else``, and the mask with which the lanes go on."""
        self.loops.append((node, n))
        self.statements(node.body, inner)
        self.loops.pop()
        self.depth -= 1
        if node.orelse:
            self.emit(f"_m = _o{n}" if isinstance(node, ast.While) else f"_m = _l{n}")
            self.emit("if _m is not False:")
            self.depth += 1
            self.statements(node.orelse, inner[:-1])
            self.emit("pass")
            self.depth -= 1
        after = analysis.leaves(node.orelse) - {"return"}
        if after:
            raise self.unsupported(node, "break or continue in the else of a loop")
        self.emit(f"_m = minus(_s{n}, _r)" if "return" in analysis.leaves([node]) else f"_m = _s{n}")

    def write_Break(self, node: ast.Break, region: Region) -> None:
        _, n = self.loops[-1]
        self.emit(f"_l{n} = minus(_l{n}, _m)")
        self.emit("_m = False")

    def write_Continue(self, node: ast.Continue, region: Region) -> None:
        self.emit("_m = False")

    def write_Return(self, node: ast.Return, region: Region) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            if self.kernel:
                raise self.unsupported(node, "a kernel that returns a value")
            self.emit(f"_v = blend(_m, {self.expressions.text(node.value)}, _v)")
        self.emit("_r = union(_r, _m)")
        if self.kernel:
            self.emit("_rt.exited = union(_rt.exited, _m)")
        for _, n in self.loops:
            self.emit(f"_l{n} = minus(_l{n}, _m)")
        self.emit("_m = False")
