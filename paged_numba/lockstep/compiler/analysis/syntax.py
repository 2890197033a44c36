"""Analysis of a kernel's syntax tree: its variables and their home regions, early exits, loops that only compute sums.

A region is the body of a function, of a loop or of a branch. The home of a variable is the smallest region that
contains every access to it. An assignment has to keep the old value of inactive lanes only if some lane that entered
the home region is inactive: a variable that lives in one branch never needs the lanes of the other.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from . import scopes

Region = tuple[ast.stmt | str, ...]
"""The statements that enclose a region, outermost first; an ``if`` is followed by ``body`` or ``orelse``."""

FUNCTION: Region = ()


def leaves(statements: Sequence[ast.stmt]) -> frozenset[str]:
    """Return the ways in which lanes may leave these statements early: ``return``, ``break``, ``continue``."""
    ways: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Return):
            ways.add("return")
        elif isinstance(statement, ast.Break):
            ways.add("break")
        elif isinstance(statement, ast.Continue):
            ways.add("continue")
        elif isinstance(statement, ast.If):
            ways |= leaves(statement.body) | leaves(statement.orelse)
        elif isinstance(statement, (ast.For, ast.While)):
            ways |= leaves(statement.body) & {"return"}
            ways |= leaves(statement.orelse)
    return frozenset(ways)


def homes(function: ast.FunctionDef) -> dict[str, Region]:
    """Return the home region of each variable.

    A region inside a loop is entered again in the next iteration, perhaps by other lanes. It can be a variable's home
    only if it assigns the variable before it reads it, so that no value of an earlier iteration is read. The home of a
    variable that an inner function captures is the whole function: a call may read it anywhere.
    """
    accesses: dict[str, list[Region]] = {}
    bodies: dict[Region, Sequence[ast.stmt]] = {FUNCTION: function.body}

    def visit(node: ast.AST, region: Region) -> None:
        for child in ast.walk(node):
            if isinstance(child, ast.Name):
                accesses.setdefault(child.id, []).append(region)
            elif isinstance(child, ast.FunctionDef):
                accesses.setdefault(child.name, []).append(region)

    def walk(statements: Sequence[ast.stmt], region: Region) -> None:
        for statement in statements:
            if isinstance(statement, ast.If):
                visit(statement.test, region)
                for part in ("body", "orelse"):
                    inner = (*region, statement, part)
                    bodies[inner] = getattr(statement, part)
                    walk(bodies[inner], inner)
            elif isinstance(statement, ast.For):
                visit(statement.iter, region)
                inner = (*region, statement)
                target = ast.Assign([statement.target], ast.Constant(0))
                bodies[inner] = [target, *statement.body]
                walk(bodies[inner], inner)
                walk(statement.orelse, region)
            elif isinstance(statement, ast.While):
                visit(statement.test, region)
                inner = (*region, statement)
                bodies[inner] = statement.body
                walk(statement.body, inner)
                walk(statement.orelse, region)
            else:
                visit(statement, region)

    walk(function.body, FUNCTION)
    for name in (*scopes.parameters(function), *scopes.captured(function)):
        accesses.setdefault(name, []).append(FUNCTION)
    found = {}
    for name, regions in accesses.items():
        home = _common(regions)
        while _reentered(home) and not _assigned_first(bodies[home], name):
            home = _enclosing(home)
        found[name] = home
    return found


def _common(regions: list[Region]) -> Region:
    shared: list[ast.stmt | str] = []
    for parts in zip(*regions, strict=False):
        if any(part is not parts[0] for part in parts):
            break
        shared.append(parts[0])
    # An `if` without its branch is not a region: its test runs in the region around it.
    if shared and isinstance(shared[-1], ast.If):
        shared.pop()
    return tuple(shared)


def _enclosing(region: Region) -> Region:
    return region[:-2] if isinstance(region[-1], str) else region[:-1]


def _reentered(region: Region) -> bool:
    """Tell whether the region lies inside a loop, apart from a loop whose body it is."""
    around = _enclosing(region) if region else ()
    return any(isinstance(part, (ast.For, ast.While)) for part in around)


def _assigned_first(statements: Sequence[ast.stmt], name: str) -> bool:
    for statement in statements:
        if not _mentions(statement, name):
            continue
        if isinstance(statement, ast.Assign):
            targets = {n.id for t in statement.targets for n in _target_names(t)}
            return name in targets and not _mentions(statement.value, name)
        return False
    return False


def _target_names(target: ast.expr) -> Iterator[ast.Name]:
    if isinstance(target, ast.Name):
        yield target
    elif isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from _target_names(element)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(child, ast.Name) and child.id == name for child in ast.walk(node))


def assigned_names(definition: ast.FunctionDef) -> dict[ast.expr, str]:
    """Map each expression that is assigned to a plain name to that name."""
    names: dict[ast.expr, str] = {}
    for node in ast.walk(definition):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                names.update({value: to.id for to, value in pairs if isinstance(to, ast.Name)})
    return names


class Accumulation(NamedTuple):
    """A loop that only computes sums: ``for i in range(…): x = …; total += …``.

    Attributes
    ----------
    variable : str
        The variable of the loop.
    steps : list of (str, ast.expr, bool)
        The assignments of the body, in order: a name, an expression, and whether it is added to the name.
    """

    variable: str
    steps: list[tuple[str, ast.expr, bool]]


_SIMPLE = (ast.Name, ast.Constant, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Subscript, ast.Tuple, ast.Load)


def accumulation(node: ast.For, is_dtype: Callable[[ast.expr], bool]) -> Accumulation | None:
    """Return the sums of a loop whose iterations can run at once, else None.

    They can if the body stores nothing, calls nothing but casts and does not branch, and if the only variables that
    carry a value from one iteration to the next are sums that the body does not read otherwise.

    Parameters
    ----------
    node : ast.For
        A loop over ``range(…)``.
    is_dtype : callable
        Tells whether an expression names a dtype, so that calling it is a cast.
    """
    if node.orelse or not isinstance(node.target, ast.Name):
        return None
    steps: list[tuple[str, ast.expr, bool]] = []
    for statement in node.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target: ast.expr = statement.targets[0]
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add):
            target = statement.target
        else:
            return None
        if not isinstance(target, ast.Name):
            return None
        for part in ast.walk(statement.value):
            if isinstance(part, ast.Call):
                if not isinstance(part.func, ast.Name) or part.keywords or not is_dtype(part.func):
                    return None
            elif not isinstance(part, _SIMPLE):
                return None
        steps.append((target.id, statement.value, isinstance(statement, ast.AugAssign)))
    assigned = [name for name, _, _ in steps]
    sums = {name for name, _, added in steps if added}
    if not sums or len(set(assigned)) != len(assigned) or node.target.id in assigned:
        return None
    pending = set(assigned)
    for name, value, _ in steps:
        # A name that is read before it is assigned, or a sum that is read, carries a value over.
        read = {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}
        if read & (pending | sums):
            return None
        pending.discard(name)
    return Accumulation(node.target.id, steps)


def calls_in_indices(definition: ast.FunctionDef, is_atomic: Callable[[ast.expr], bool]) -> set[ast.Call]:
    """Return the calls whose results may become part of an index, directly or through variables.

    Parameters
    ----------
    definition : ast.FunctionDef
    is_atomic : callable
        Tells whether an expression names an atomic operation, whose second argument is an index.
    """
    flows: list[ast.AST] = []
    assignments: list[tuple[set[str], ast.AST]] = []
    for node in ast.walk(definition):
        if isinstance(node, ast.Subscript):
            flows.append(node.slice)
        elif isinstance(node, ast.Call) and is_atomic(node.func):
            flows += node.args[1:2]
        elif isinstance(node, ast.Assign):
            targets = {name.id for target in node.targets for name in _target_names(target)}
            assignments.append((targets, node.value))
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            assignments.append(({name.id for name in _target_names(node.target)}, node.value))
        elif isinstance(node, ast.For):
            assignments.append(({name.id for name in _target_names(node.target)}, node.iter))
    assignments += [({name}, value) for name, value in scopes.flows(definition)]
    names: set[str] = set()
    calls: set[ast.Call] = set()
    while flows:
        for node in ast.walk(flows.pop()):
            if isinstance(node, ast.Call):
                calls.add(node)
            elif isinstance(node, ast.Name) and node.id not in names:
                names.add(node.id)
                flows += [value for targets, value in assignments if node.id in targets]
    return calls
