"""Statements of a kernel, translated into lines of the lane program; `loops` adds ``for`` and ``while``.

An ``if`` becomes masks: ``split`` divides the active lanes ``_m`` into the lanes where the test holds and the other
lanes; each branch runs with its part as ``_m`` unless that is empty, and afterwards ``_m`` is the mask from before,
without the lanes that have left. An assignment keeps the old value in the lanes that are not in ``_m``.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from ...errors import UnsupportedConstructError
from .analysis import branches, syntax
from .analysis.assignment import returns_a_value, returns_in_some_lanes
from .analysis.scopes import parameters, variables
from .analysis.syntax import FUNCTION, Region
from .breakpoints import BREAKPOINTS
from .expressions import call
from .functions.calls import Calls
from .names import Names


class Statements:
    """Writer of the statements of one function, line by line.

    Names in the program: ``v_x`` is the kernel's variable x, ``a_x`` the lanes that have assigned it, if that is in
    question, ``_m`` the mask of active lanes, ``_h`` masks of home regions, ``_s`` masks saved around a statement,
    ``_l`` lanes still in a loop, ``_r`` lanes that have returned, ``_v`` the value they return, ``_y`` the lanes that
    have returned one, if that is in question.

    Parameters
    ----------
    names : Names
        The names outside the function.
    definition : ast.FunctionDef
        The syntax tree of the function.
    kernel : bool
        Whether it is a kernel, rather than a device function.
    outer : Statements, optional
        The writer of the function around it.

    Attributes
    ----------
    lines : list of str
        The program so far.
    numbers : list of int
        The line of the kernel for each line of the program, or 0: see `settle`.
    """

    arcs = False
    """Whether the program shows coverage.py each branch that a lane takes; see `analysis.branches`."""

    expressions_type: type[Calls] = Calls

    def __init__(
        self, names: Names, definition: ast.FunctionDef, kernel: bool, outer: Statements | None = None
    ) -> None:
        self.names = names
        self.outer = outer
        self.variables = variables(definition)
        self.unsupported = names.unsupported
        self.definition = definition
        self.kernel = kernel
        self.lines: list[str] = [] if outer is None else outer.lines
        self.numbers: list[int] = [] if outer is None else outer.numbers
        self.depth: int = 0 if outer is None else outer.depth
        self.counter = 0
        self.loops: list[int] = []
        self.waits_for_others = False
        self.homes = syntax.homes(definition)
        self.regions: dict[Region, int] = {FUNCTION: 0}
        self.questioned = names.reads.names
        self.debugged = any(map(self.stops, ast.walk(definition)))
        if self.debugged:
            # The debugger shows which variables a thread has assigned.
            self.questioned = self.questioned | (self.variables - set(parameters(definition)))
        self.returns_partly = not kernel and returns_in_some_lanes(definition, names.reads)
        self.expressions = self.expressions_type(names, definition, self.home_mask)
        self.expressions.questioned = self.questioned
        self.line = definition.lineno

    # Writing.

    def emit(self, text: str) -> None:
        """Write a line."""
        self.lines.append(" " * self.depth + text)
        self.numbers.append(self.line)

    def settle(self, text: str) -> None:
        """Write a line that only puts masks in order.

        It has no line in the kernel, so that a debugger does not stop at it, and coverage.py does not count the
        statement before it as run.
        """
        self.emit(text)
        self.numbers[-1] = 0

    def next_number(self) -> int:
        """Return a number for the names of one statement."""
        self.counter += 1
        return self.counter

    @cached_property
    def following(self) -> dict[ast.stmt, int]:
        """The line after each statement."""
        return branches.following(self.definition)

    def arc(self, node: ast.stmt, condition: str = "") -> None:
        """Write, for coverage.py, that lanes go on after `node`, or to its ``else``, if `condition` holds."""
        if self.arcs and not isinstance(getattr(node, "test", None), ast.Constant):
            orelse = getattr(node, "orelse", None)
            to = orelse[0].lineno if orelse else self.following[node]
            first = self.names.source.first if self.outer is None else self.definition.lineno
            goes = branches.goes(self.names.source.file, first, node.lineno, to)
            self.settle(f"{condition and f'if {condition}: '}{self.names.constant(goes)}()")

    def home_mask(self, name: str) -> str:
        """Return the name of the mask of a variable's home region."""
        if name not in self.variables:
            return "None"  # a variable of the function around it: no mask here is that of its home
        home = self.homes.get(name, FUNCTION)
        return f"_h{self.regions[home]}"

    def enter(self, region: Region) -> None:
        """Save the mask with which a region is entered, if it is a variable's home."""
        if region in self.homes.values():
            self.regions.setdefault(region, len(self.regions))
            self.emit(f"_h{self.regions[region]} = _m")

    def statements(self, body: Sequence[ast.stmt], region: Region) -> None:
        """Write a list of statements; after one that lanes may leave, the rest runs only if some lanes are left."""
        depth, line = self.depth, self.line
        for position, statement in enumerate(body):
            self.line = statement.lineno
            method = getattr(self, f"write_{type(statement).__name__}", None)
            if method is None:
                raise self.unsupported(statement)
            self.begin(statement)
            if not isinstance(statement, (ast.For, ast.While)):
                self.step()
            method(statement, region)
            if isinstance(statement, (ast.Return, ast.Break, ast.Continue)):
                break
            ways = syntax.leaves([statement])
            if ways and position + 1 < len(body):
                self.settle("if _m is not False:")
                self.depth += 1
                if region in self.regions and not ("continue" in ways and _is_loop_body(region)):
                    # The lanes that left do not come back to this region.
                    self.settle(f"_h{self.regions[region]} = _m")
        self.depth, self.line = depth, line

    def begin(self, statement: ast.stmt) -> None:
        """Write what comes before a statement: nothing, unless the program is observed."""

    begin_iteration = begin
    """Write what comes before an iteration of a loop, after its mask is set."""

    def stops(self, node: ast.AST) -> bool:
        """Tell whether a statement calls a breakpoint."""
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            return False
        with suppress(UnsupportedConstructError):
            found = self.names.static(node.value.func)
            return found is not None and any(found.value is one for one in BREAKPOINTS)
        return False

    def step(self) -> None:
        """Write what comes before each statement and iteration of a function with a breakpoint."""
        if self.debugged:
            self.settle(f"if _stop is not None: _stop = _stop.step(_m, {self.line})")

    def write_breakpoint(self, node: ast.Call) -> None:
        found = self.names.static(node.func)
        given = dict(zip(("thread", "block"), node.args, strict=False))
        given.update({str(keyword.arg): keyword.value for keyword in node.keywords})
        known = {"thread", "block"} if found is not None and found.value is BREAKPOINTS[0] else set()
        if len(node.args) > 2 or len(given) != len(node.args) + len(node.keywords) or not set(given) <= known:
            raise self.unsupported(
                node, f"`{ast.unparse(node)}`: write lockstep.breakpoint(thread=(x, y, z), block=(x, y, z))"
            )
        arguments = [f"{name}={self.expressions.text(value)}" for name, value in given.items()]
        self.emit(f"_stop = {call('pause', '_rt', '_m', '_stop', *arguments)}")

    def branch(self, tested: str, held: str) -> None:
        """Write what comes after the test of an ``if`` or ``while``: nothing, unless the program is observed.

        `tested` and `held` name the masks of the lanes that tested, and of those for which the test holds.
        """

    # Assignments.

    def write_Assign(self, node: ast.Assign, region: Region) -> None:
        if self.names.is_alias(node):
            self.emit("pass")  # each read means what the name stands for
            return
        value = self.expressions.text(node.value)
        if len(node.targets) == 1:
            # A call may change what the target reads, and the other way round; Python computes the value first.
            if isinstance(node.targets[0], (ast.Subscript, ast.Attribute)) and _may_call(node):
                self.emit(f"_t = {value}")
                value = "_t"
            self.assign(node.targets[0], value)
            return
        temporary = f"_t{self.next_number()}"
        self.emit(f"{temporary} = {value}")
        for target in node.targets:
            self.assign(target, temporary)

    def write_AnnAssign(self, node: ast.AnnAssign, region: Region) -> None:
        if node.value is not None:
            self.assign(node.target, self.expressions.text(node.value))

    def write_AugAssign(self, node: ast.AugAssign, region: Region) -> None:
        value = self.expressions.text(node.value)
        if isinstance(node.target, ast.Name):
            old = self.expressions.text(node.target)
            self.assign(node.target, self.expressions.operation(node, node.op, old, value))
            return
        # The array or record and its index are evaluated once.
        where = self.next_number()
        self.emit(f"_t{where} = {self.expressions.text(node.target.value)}")
        if isinstance(node.target, ast.Subscript):
            self.emit(f"_i{where} = {self.expressions.index(node.target.slice)}")
            load, store, place = "load", "store", f"_i{where}"
        else:
            load, store, place = "attribute", "set_attribute", repr(node.target.attr)
        old = call(load, "_m", f"_t{where}", place)
        new = self.expressions.operation(node, node.op, old, value)
        self.emit(call(store, "_m", f"_t{where}", place, new))

    def assign(self, target: ast.expr, value: str) -> None:
        """Write the assignment of a lane expression to a target."""
        if isinstance(target, ast.Name):
            home, name = self.home_mask(target.id), f"v_{target.id}"
            # The program can use a plain name twice without a temporary.
            if not value.isidentifier():
                self.emit(f"_t = {value}")
                value = "_t"
            self.emit(f"{name} = {value} if _m is {home} else blend(_m, {value}, {name})")
            if target.id in self.questioned:
                self.emit(f"a_{target.id} = union(a_{target.id}, _m)")
        elif isinstance(target, (ast.Tuple, ast.List)):
            temporary = f"_t{self.next_number()}"
            parts = [f"{temporary}_{i}" for i in range(len(target.elts))]
            self.emit(f"{', '.join(parts)}, = unpack(_m, {value}, {len(parts)})")
            for element, part in zip(target.elts, parts, strict=True):
                self.assign(element, part)
        elif isinstance(target, ast.Subscript):
            array, index = self.expressions.text(target.value), self.expressions.index(target.slice)
            self.emit(call("store", "_m", array, index, value))
        elif isinstance(target, ast.Attribute):
            record = self.expressions.text(target.value)
            self.emit(call("set_attribute", "_m", record, repr(target.attr), value))
        else:
            raise self.unsupported(target)

    def write_FunctionDef(self, node: ast.FunctionDef, region: Region) -> None:
        if node.decorator_list:
            raise self.unsupported(
                node, f"a decorated function inside a kernel (`def {node.name}`): decorate it outside"
            )
        self.assign(ast.Name(node.name), self.expressions.inner_value(node))

    # Statements that assign nothing.

    def write_Nonlocal(self, node: ast.Nonlocal, region: Region) -> None:
        self.emit("pass")  # the function begins with it

    def write_Pass(self, node: ast.Pass, region: Region) -> None:
        self.emit("pass")

    def write_Expr(self, node: ast.Expr, region: Region) -> None:
        if isinstance(node.value, ast.Constant):
            if node is not self.definition.body[0]:
                self.emit("pass")
        elif self.stops(node) and isinstance(node.value, ast.Call):
            self.write_breakpoint(node.value)
        else:
            self.expressions.unused = node.value
            self.emit(self.expressions.text(node.value))

    def write_Assert(self, node: ast.Assert, region: Region) -> None:
        number = self.next_number()
        message = ast.unparse(node.msg) if node.msg is not None else ast.unparse(node.test)
        self.emit(f"_t{number} = narrow(_m, logical_not({self.expressions.text(node.test)}))")
        self.emit(f"if _t{number} is not False:")
        self.emit(f" raise_in_kernel(_rt, _t{number}, {f'assertion failed: {message}'!r}, AssertionError)")

    def write_Raise(self, node: ast.Raise, region: Region) -> None:
        what = "raise" if node.exc is None else ast.unparse(node.exc)
        made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        found = None if made is None else self.names.static(made)
        kind = "None"
        if found is not None:
            value = type(found.value) if isinstance(found.value, Exception) else found.value
            if isinstance(value, type) and issubclass(value, Exception):
                kind = self.names.constant(value)
        self.emit(f"raise_in_kernel(_rt, _m, {what!r}, {kind})")

    # Control flow.

    def write_If(self, node: ast.If, region: Region) -> None:
        n = self.next_number()
        test = self.expressions.text(node.test)
        ways = syntax.leaves([node])
        both = bool(node.orelse) or bool(ways)
        self.emit(f"_t{n}, _e{n} = split(_m, {test})" if both else f"_t{n} = narrow(_m, {test})")
        self.branch("_m", f"_t{n}")
        self.emit(f"_s{n} = _m")
        if ways:
            self.emit(f"_a{n}, _b{n} = _t{n}, _e{n}")
        parts = [
            (node.body, f"_t{n}", f"_a{n}", "body"),
            (node.orelse, f"_e{n}", f"_b{n}", "orelse"),
        ]
        if node.orelse and isinstance(node.orelse[-1], ast.Return):
            parts.reverse()  # a barrier of the other branch does not wait for these lanes
        for branch, entered, left, part in parts:
            if not branch:
                continue
            self.emit(f"if {entered} is not False:")
            self.depth += 1
            self.emit(f"_m = {entered}")
            inner = (*region, node, part)
            self.enter(inner)
            self.statements(branch, inner)
            if ways:
                self.settle(f"{left} = _m")
            self.depth -= 1
        if not node.orelse:
            self.arc(node, f"_e{n} is not False" if both else f"_t{n} is not _s{n}")
        self.settle(f"_m = join(_s{n}, _t{n}, _a{n}, _e{n}, _b{n})" if ways else f"_m = _s{n}")

    def write_Break(self, node: ast.Break, region: Region) -> None:
        n = self.loops[-1]
        self.arc(node)
        self.emit(f"_l{n} = minus(_l{n}, _m)")
        self.emit("_m = False")

    def write_Continue(self, node: ast.Continue, region: Region) -> None:
        self.arc(node)
        self.emit("_m = False")

    def write_Return(self, node: ast.Return, region: Region) -> None:
        if node.value is not None and returns_a_value(node):
            if self.kernel:
                raise self.unsupported(node, "a kernel that returns a value: store it into an array")
            self.emit(f"_v = blend(_m, {self.expressions.text(node.value)}, _v)")
            if self.returns_partly:
                self.emit("_y = union(_y, _m)")
        self.arc(node)
        self.emit("_r = union(_r, _m)")
        if self.kernel:
            self.emit("_rt.exited = union(_rt.exited, _m)")
        for n in self.loops:
            self.emit(f"_l{n} = minus(_l{n}, _m)")
        self.emit("_m = False")


def _may_call(node: ast.stmt) -> bool:
    return any(isinstance(part, (ast.Call, ast.NamedExpr)) for part in ast.walk(node))


def _is_loop_body(region: Region) -> bool:
    return bool(region) and isinstance(region[-1], (ast.For, ast.While))
